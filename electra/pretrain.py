"""Pre-training: store -> rows -> masks -> the training loop -> run folder and export.

What a step sees follows from (seed, step) alone: rows [step * batch_size, ...) of a stateless order, masks drawn for
the whole global batch, of which each rank takes its slice.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from electra import runtime as runtimes
from electra.batches import Rows
from electra.checkpoint import Checkpoints, TrainState
from electra.config import PretrainConfig
from electra.evaluate import Evaluator, rtd_batch
from electra.export import export_run
from electra.files import read_json
from electra.log import RunLog, duration, read_metrics
from electra.masking import continuations, global_rng, mask_rows
from electra.mlm import MaskedLM
from electra.objectives import PretrainingModel, make_model, network_shapes
from electra.optim import make_optimizers
from electra.rtd import step_metrics
from electra.runtime import Runtime, derive_seed
from electra.schedules import describe as describe_schedule
from electra.schedules import make_schedule
from electra.store import Store
from electra.toml import differences, read_toml, write_toml
from electra.train import Outcome, Work, train

PLATEAU_AUC = 0.65
"""Below this an encoder was measured to fine-tune worse than random weights (benchmarks/results/wikipedia-small.md)."""

# Fields that may change when a run is resumed: they do not touch the curve.
FREE_ON_RESUME = ("data", "out", "loop.keep", "loop.device", "loop.micro_batch_size", "loop.save_every")


def pretrain(config: PretrainConfig, *, dry_run: bool = False, say: Callable[[str], None] = print) -> Outcome:
    """Train to `loop.steps`, resuming from the newest checkpoint in `config.out`, and export the result.

    Raises ValueError in a sentence for everything a user can mend.
    """
    runtime = runtimes.start(config.loop.device, config.loop.precision)
    if not runtime.is_main:
        say = _silent
    try:
        return _pretrain(config, runtime, dry_run, say)
    finally:
        runtimes.finish()


def _pretrain(config: PretrainConfig, runtime: Runtime, dry_run: bool, say: Callable[[str], None]) -> Outcome:
    store = Store.open(config.data, verify=runtime.is_main)
    split = micro_batches(config, runtime)
    _check_run_folder(config, store)

    rows = Rows(store, config.rows, seed=config.loop.seed)
    rows.require_rows(config.loop.batch_size)
    torch.manual_seed(derive_seed("weights", config.loop.seed))
    model = make_model(config.model, config.objective, store.vocab_size)
    words = continuations(store.vocabulary()) if config.objective.whole_word else None
    for line in announcement(config, store, rows, model, runtime, split):
        say(line)
    if dry_run:
        say("dry run: nothing was trained or written")
        return Outcome(0)

    model.to(runtime.device)
    if runtime.is_main:
        _prepare_run_folder(config, store)
    runtime.barrier()
    state = TrainState(model, make_optimizers(model, config.optimizer))
    checkpoints = Checkpoints(config.out / "checkpoints", runtime, config.loop.keep)
    if checkpoints.load_latest(state):
        say(f"resuming from {checkpoints.path(state.step)}")

    evaluator = None
    if len(store.document_ids(held_out=True)):
        held_out = Rows(store, config.rows, seed=config.loop.seed, held_out=True)
        evaluator = Evaluator(held_out, config, store.special, runtime, words)
    else:
        say("the store has no held-out documents: there will be no evaluation")

    outcome = Outcome(state.step)
    if state.step < config.loop.steps:
        log = RunLog(
            config.out if runtime.is_main else None,
            start_step=state.step,
            total_steps=config.loop.steps,
            quiet=not runtime.is_main,
        )
        try:
            outcome = train(
                state,
                loop=config.loop,
                clip_norm=config.optimizer.clip_norm,
                runtime=runtime,
                learning_rate=make_schedule(config.optimizer, config.loop.steps),
                load=partial(load_work, config, rows, store, runtime, split, continuations=words),
                summarise=step_metrics,
                log=log,
                checkpoints=checkpoints,
                evaluate=(lambda: evaluator(model)) if evaluator is not None else None,
                flops_per_token=flops_per_token(config, store.vocab_size),
                peak_flops=runtimes.matmul_flops(runtime.device, runtime.precision) * runtime.world_size,
            )
        finally:
            log.close()
    if outcome.signal is not None:
        say(f"stopped by signal {outcome.signal}; step {outcome.step:,} is saved, the same command goes on from there")
    elif runtime.is_main:
        export = config.out / "export"
        if export.exists():
            say(f"finished already; the models are in {export}")
        else:
            exported = export_run(config.out, export)
            names = list(exported.networks)
            say(f"finished; {' and '.join(names)} {'are' if len(names) > 1 else 'is'} in {export}")
            if (auc := last_auc(config.out)) is not None and auc < PLATEAU_AUC:
                say(
                    f"note: the discriminator has hardly left the majority answer (held-out AUC {auc:.2f}); fine-tuned "
                    "now it may do worse than random weights. More steps, or a smaller model, would help."
                )
    return outcome


def last_auc(run: Path) -> float | None:
    """The discriminator's AUC in the last evaluation of a run that has one."""
    rows = read_metrics(run, "eval")
    return rows[-1].get("discriminator_auc") if rows else None


def _silent(text: str) -> None:
    pass


def micro_batches(config: PretrainConfig, runtime: Runtime) -> int:
    """Rows of one forward pass on this device; ValueError when the batch does not divide."""
    batch, world = config.loop.batch_size, runtime.world_size
    if batch % world:
        raise ValueError(f"loop.batch_size {batch} does not divide by the {world} processes")
    local = batch // world
    if config.loop.micro_batch_size:
        size = config.loop.micro_batch_size
        if local % size:
            raise ValueError(f"loop.micro_batch_size {size} does not divide the {local} rows of a process")
        return size
    return next(size for size in range(min(64, local), 0, -1) if local % size == 0)


def load_work(
    config: PretrainConfig,
    rows: Rows,
    store: Store,
    runtime: Runtime,
    split: int,
    step: int,
    continuations: np.ndarray | None = None,
) -> Work:
    """This rank's rows and masks of a step, in micro-batches of `split` rows.

    `continuations` (V,) bool are the ids of `##` pieces, when whole words are masked.
    """
    batch = config.loop.batch_size
    local = batch // runtime.world_size
    first = runtime.rank * local
    mine = rows.rows(step * batch + first, local)
    masks = mask_rows(
        mine.input_ids,
        mine.valid,
        special=store.special,
        mask_prob=config.objective.mask_prob,
        max_predictions=config.objective.max_predictions(config.rows.seq_len),
        with_replacement=config.objective.mask_with_replacement,
        rng=global_rng(config.loop.seed, step, 0),
        first_row=first,
        global_rows=batch,
        continuations=continuations,
    )
    share = rtd_batch(mine, masks)
    return Work(
        micro_batches=[
            share.part(slice(begin, begin + split), derive_seed(config.loop.seed, step, first + begin))
            for begin in range(0, local, split)
        ],
        totals={"predictions": float(masks.weights.sum()), "tokens": float(mine.valid.sum())},
        tokens=mine.input_ids.size,
    )


# ------------------------------------------------------------------------------------------- run folder


def _check_run_folder(config: PretrainConfig, store: Store) -> None:
    """Refuse a run folder that belongs to another configuration or another store."""
    if not str(config.out) or config.out == Path():
        raise ValueError("pretrain needs --out, the run folder to write")
    if not config.out.exists() or not any(config.out.iterdir()):
        return
    path = config.out / "config.toml"
    if not path.exists():
        raise ValueError(f"{config.out} exists and is no run folder (no config.toml): choose another --out")
    before = read_toml(PretrainConfig, path)
    changed = [line for line in differences(before, config) if line.split(maxsplit=1)[0] not in FREE_ON_RESUME]
    if changed:
        raise ValueError(
            f"{config.out} holds a run of another configuration: {'; '.join(changed)}. "
            "Choose another --out, or pass the same values to resume it"
        )
    receipt = read_json(config.out / "store.json")
    now = read_json(store.folder / "store.json")
    for field, what in (("vocabulary", "another vocabulary"), ("shards", "other text")):
        if receipt.get(field) != now.get(field):
            raise ValueError(
                f"{store.folder} holds {what} than the store with which {config.out} began: name that store"
            )


def _prepare_run_folder(config: PretrainConfig, store: Store) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    write_toml(dataclasses.replace(config, data=config.data.resolve()), config.out / "config.toml")
    if not (config.out / "store.json").exists():
        shutil.copy(store.folder / "store.json", config.out / "store.json")


# ----------------------------------------------------------------------------------------- announcement


def parameters(model: PretrainingModel) -> dict[str, int]:
    """Numbers of parameters by network; what both share is counted with the discriminator."""
    counts = {"generator": 0, "discriminator": 0, "masked_lm": 0}
    for name, parameter in model.named_parameters():
        owner = "generator" if name.startswith("generator") else "discriminator"
        counts["masked_lm" if isinstance(model, MaskedLM) else owner] += parameter.numel()
    return {name: counts[name] for name in ("discriminator", "generator", "masked_lm") if counts[name]}


def flops_per_token(config: PretrainConfig, vocab_size: int) -> float:
    """FLOPs of forward and backward passes a token: 6 a weight in a matrix product, plus attention.

    The bodies run on each token, the vocabulary projection on mask_prob of them.
    """
    seq_len = config.rows.seq_len
    shapes = network_shapes(config.model, config.objective, vocab_size)
    total = 0.0
    for shape in shapes.values():
        hidden = shape.hidden_size
        weights = shape.num_layers * (4 * hidden**2 + 2 * hidden * shape.intermediate_size)
        weights += shape.embedding_size * hidden if shape.embedding_size != hidden else 0
        total += 6.0 * weights + 12.0 * shape.num_layers * seq_len * hidden
    if "discriminator" in shapes:
        total += 6.0 * (config.model.hidden_size**2)
    share = config.objective.max_predictions(seq_len) / seq_len
    masked_lm = shapes.get("generator", shapes.get("masked_lm"))
    return total + (6.0 * share * masked_lm.embedding_size * vocab_size if masked_lm is not None else 0.0)


def memory_bytes(config: PretrainConfig, model: PretrainingModel, split: int, precision: str) -> float:
    """A rough peak: weights, gradients and two moments in fp32, activations, logits of the K positions.

    Activations as Korthikanti et al. 2022 (equation 2) count them: L B H (34 + 5 heads L / H) bytes a layer at 2
    bytes a value.
    """
    seq_len = config.rows.seq_len
    wide = 2 if precision == "fp32" else 1
    activations = 0.0
    shapes = network_shapes(config.model, config.objective, model.config.vocab_size)
    for shape in shapes.values():
        hidden = shape.hidden_size
        layer = seq_len * split * hidden * (34 + 5 * shape.num_heads * seq_len / hidden)
        activations += shape.num_layers * layer * wide
    slots = config.objective.max_predictions(seq_len) if shapes.keys() - {"discriminator"} else 0
    logits = 4 * 4 * split * slots * model.config.vocab_size
    return 16.0 * sum(parameters(model).values()) + activations + logits


def describe(model: PretrainingModel) -> str:
    """The networks of a run in a line: their parameters and what they share."""
    counts = parameters(model)
    if isinstance(model, MaskedLM):
        return f"masked LM alone, {counts['masked_lm']:,} parameters; no discriminator"
    shape = model.generator_config
    kind = model.objective.generator
    generator = f"generator {counts.get('generator', 0):,} more ({shape.num_layers} x {shape.hidden_size}; "
    return (
        f"discriminator {counts['discriminator']:,} parameters, "
        + {
            "shared-embeddings": f"{generator}embeddings shared)",
            "own-embeddings": f"{generator}nothing shared)",
            "same-network": f"{generator}all but its head is the discriminator)",
            "uniform": f"no generator: replacements are drawn from all {shape.vocab_size:,} tokens alike",
        }[kind]
    )


def announcement(
    config: PretrainConfig,
    store: Store,
    rows: Rows,
    model: PretrainingModel,
    runtime: Runtime,
    split: int,
) -> list[str]:
    """What the run is about to do, each derived number with its reason."""
    loop, seq_len = config.loop, config.rows.seq_len
    flops = flops_per_token(config, store.vocab_size)
    tokens = loop.steps * loop.batch_size * seq_len
    epoch_rows = rows.rows_per_epoch
    peak = runtimes.matmul_flops(runtime.device, runtime.precision) * runtime.world_size
    seconds = flops * tokens / (0.4 * peak)
    accumulation = loop.batch_size // runtime.world_size // split
    return [
        f"store       {store.folder}: {store.num_tokens:,} tokens, {store.num_documents:,} documents "
        f"({len(store.document_ids(held_out=True)):,} held out), vocabulary {store.vocab_size:,}",
        f"model       {describe(model)}",
        f"rows        {epoch_rows:,} rows of {seq_len} an epoch; {loop.steps:,} steps x {loop.batch_size} rows "
        f"= {loop.steps * loop.batch_size / epoch_rows:.2f} epochs, {tokens / 1e6:,.1f} M tokens",
        f"masking     {config.objective.max_predictions(seq_len)} predictions a row "
        f"= int(({config.objective.mask_prob} + .005) x {seq_len}){', of whole words' * config.objective.whole_word}",
        f"schedule    {config.optimizer.optimizer}, {describe_schedule(config.optimizer, loop.steps)}",
        f"device      {runtime.device} x {runtime.world_size}, {runtime.precision} ({runtime.why}); "
        f"micro-batches of {split}, {accumulation} a step",
        f"compute     {flops / 1e6:,.1f} MFLOPs a token, {flops * tokens:.2e} in all; this machine multiplies matrices "
        f"at {peak / 1e9:,.0f} GFLOP/s",
        f"memory      about {memory_bytes(config, model, split, runtime.precision) / 2**30:.1f} GiB a process",
        f"time        about {duration(seconds)} if 40 % of that speed is reached",
    ]
