"""Pre-training: stores -> rows -> masks -> the training loop -> run folder and export.

What a step sees follows from (seed, step) alone: rows [step * batch_size, ...) of a stateless order, masks drawn for
the whole global batch, of which each rank takes its slice. A run of several phases (phases.py) calls the loop once for
each; the state goes from one to the next, and a checkpoint's step says in which phase it was made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch

from electra import runtime as runtimes
from electra.advice import Adviser
from electra.announcement import announcement, flops_per_token, phase_cost
from electra.batches import Rows
from electra.checkpoint import Checkpoints, TrainState
from electra.compiled import choose_compile, compile_forward
from electra.config import PretrainConfig
from electra.config.location import is_url
from electra.evaluate import Evaluator, rtd_batch
from electra.export import export_run
from electra.log import RunLog, read_metrics
from electra.machine import record_start
from electra.masking import continuations, global_rng, mask_rows
from electra.mixture import MixedRows, Mixture, read_receipts, receipt_path
from electra.objectives import PretrainingModel, make_model, network_shapes
from electra.optim import make_optimizers, restart
from electra.parallel import shard
from electra.phases import Phase, plan
from electra.profiling import StepProfiler
from electra.rtd import step_metrics
from electra.runtime import Runtime, derive_seed
from electra.samples import held_out_sample
from electra.store import Store
from electra.terminal import clear
from electra.toml import differences, read_toml, write_toml
from electra.train import Outcome, Work, train
from electra.varlen import varlen_available
from electra.warm_start import warm_start

PLATEAU_AUC = 0.7
"""Below this encoders were measured to fine-tune worse than random weights: benchmarks/results/wikipedia-small.md, with
0.65, and chunk-rate.txt, with 0.68."""

# Fields that may change when a run is resumed: they do not touch the curve.
FREE_ON_RESUME = (
    "data", "out", "loop.keep", "loop.device", "loop.micro_batch_size", "loop.save_every", "loop.compile",
    "loop.cuda_graphs", "loop.samples_every", "loop.parallel",
)  # fmt: skip


def pretrain(
    config: PretrainConfig, *, dry_run: bool = False, profile: bool = False, say: Callable[[str], None] = print
) -> Outcome:
    """Train to `loop.steps`, resuming from the newest checkpoint in `config.out`, and export the result.

    `profile` writes a trace of some steps into `config.out` (profiling.py). Raises ValueError in a sentence for
    everything a user can mend.
    """
    with runtimes.running(config.loop.device, config.loop.precision) as runtime:
        return _pretrain(config, runtime, dry_run, profile, say if runtime.is_main else _silent)


def _pretrain(
    config: PretrainConfig, runtime: Runtime, dry_run: bool, profile: bool, say: Callable[[str], None]
) -> Outcome:
    phases = plan(config)
    mixture = Mixture.open(config.data, config.weights, verify=runtime.is_main)
    store = mixture.first
    splits = [micro_batches(phase.config, runtime) for phase in phases]
    _check_run_folder(config, mixture)

    rows = [MixedRows(mixture, phase.config.rows, seed=phase.row_seed) for phase in phases]
    for phase, phase_rows in zip(phases, rows, strict=True):
        phase_rows.require_rows(phase.config.loop.batch_size)
    torch.manual_seed(derive_seed("weights", config.loop.seed))
    model = make_model(config.model, config.objective, store.vocab_size)
    if config.init and not _has_begun(config):
        for line in warm_start(model, config, store.vocabulary()):
            say(line)
    words = continuations(store.vocabulary()) if config.objective.whole_word else None
    for line in announcement(phases, mixture, rows, model, runtime, splits):
        say(line)
    checkpoints = Checkpoints(config.out / "checkpoints", runtime, config.loop.keep)
    adviser = Adviser(phases)
    for line in adviser.before_training(rows, max(checkpoints.steps(), default=0)):
        say(line)
    if dry_run:
        say("dry run: nothing was trained or written")
        return Outcome(0)

    model.to(runtime.device)
    if runtime.is_main:
        _prepare_run_folder(config, mixture)
    runtime.barrier()
    sharded = config.loop.parallel == "fsdp" and runtime.world_size > 1
    if choose_compile(config.loop.compile, config.loop.cuda_graphs, runtime.device, sharded)[0]:
        compile_forward(model, runtime.device, per_layer=sharded, cuda_graphs=config.loop.cuda_graphs)
    if sharded:
        shard(model, runtime, forward_methods=("run",))
    state = TrainState(model, make_optimizers(model, config.optimizer))
    if checkpoints.load_latest(state):
        say(f"resuming from {checkpoints.path(state.step)}")
    for line in _without_evaluation(mixture):
        say(line)

    outcome = Outcome(state.step)
    if state.step < phases[-1].end:
        costs = [(phase.end, phase_cost(phase, store.vocab_size)) for phase in phases]
        folder = config.out if runtime.is_main else None
        if folder is not None:
            record_start(folder, state.step, runtime)
        log = RunLog(folder, start_step=state.step, phases=costs, quiet=not runtime.is_main)
        with contextlib.ExitStack() as stack:
            stack.callback(log.close)
            profiler = stack.enter_context(StepProfiler(config.out, runtime, log.say)) if profile else None
            run = _Run(state, mixture, runtime, words, log, checkpoints, adviser, profiler)
            for phase, phase_rows, split in zip(phases, rows, splits, strict=True):
                if outcome.signal is not None or state.step >= phase.end:
                    continue
                outcome = _train_phase(run, phase, phase_rows, split)
                if len(phases) > 1 and outcome.signal is None:
                    clear()
                    say(f"phase {phase.index + 1} of {len(phases)} is done at step {state.step:,}")
    if outcome.signal is not None:
        say(f"stopped by signal {outcome.signal}; step {outcome.step:,} is saved, the same command goes on from there")
    elif runtime.is_main:
        _export(config, say)
    return outcome


@dataclass(frozen=True)
class _Run:
    """What the phases of a run share."""

    state: TrainState
    mixture: Mixture
    runtime: Runtime
    words: np.ndarray | None  # see `load_work`, continuations
    log: RunLog
    checkpoints: Checkpoints
    adviser: Adviser
    profiler: StepProfiler | None


def _train_phase(run: _Run, phase: Phase, rows: MixedRows, split: int) -> Outcome:
    """Train to the end of a phase, with evaluations on held-out rows of its length."""
    config, state, store, runtime = phase.config, run.state, run.mixture.first, run.runtime
    if state.step == phase.begin and phase.restarts_count:
        restart(state.optimizers, moments=phase.restarts_moments)
    evaluate = None
    if run.mixture.holds_out:
        held_out = MixedRows(run.mixture, config.rows, seed=config.loop.seed, held_out=True)
        evaluate = partial(_evaluate, run, Evaluator(held_out, config, store.special, runtime, run.words))
    return train(
        state,
        loop=config.loop,
        clip_norm=config.optimizer.clip_norm,
        runtime=runtime,
        learning_rate=phase.learning_rate,
        load=partial(load_work, phase, rows, store, runtime, split, continuations=run.words),
        summarise=step_metrics,
        log=run.log,
        checkpoints=run.checkpoints,
        evaluate=evaluate,
        flops_per_token=flops_per_token(config, store.vocab_size),
        peak_flops=runtimes.matmul_flops(runtime.device, runtime.precision) * runtime.world_size,
        profiler=run.profiler,
    )


def _evaluate(run: _Run, evaluator: Evaluator) -> dict[str, float]:
    """Held-out metrics, with what they advise and now and then a row to look at."""
    step, loop = run.state.step, evaluator.config.loop
    model = cast(PretrainingModel, run.state.model)
    metrics = evaluator(model)
    number = -(-step // (loop.eval_every or loop.steps))
    if loop.samples_every and number % loop.samples_every == 0:
        for line in held_out_sample(evaluator, model, number - 1, run.mixture.first.vocabulary()):
            run.log.say(line)
    for line in run.adviser.after_evaluation(step, metrics):
        run.log.say(line)
    return metrics


def _export(config: PretrainConfig, say: Callable[[str], None]) -> None:
    """Write the model folders of a run that has reached its end, unless they are there."""
    export = config.out / "export"
    if export.exists():
        say(f"finished already; the models are in {export}")
        return
    names = list(export_run(config.out, export).networks)
    say(f"finished; {' and '.join(names)} {'are' if len(names) > 1 else 'is'} in {export}")
    if (auc := last_auc(config.out)) is not None and auc < PLATEAU_AUC:
        say(
            f"note: the discriminator has hardly left the majority answer (held-out AUC {auc:.2f}); fine-tuned "
            "now it may do worse than random weights. Begin with the layers of a masked language model (--objective "
            "masked-lm, then --init), or give it many more steps."
        )


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
    phase: Phase,
    rows: Rows | MixedRows,
    store: Store,
    runtime: Runtime,
    split: int,
    step: int,
    continuations: np.ndarray | None = None,
) -> Work:
    """This rank's rows and masks of a step of the run, in micro-batches of `split` rows.

    Rows are counted from the begin of the phase, masks drawn by the step. `continuations` (V,) bool are the ids of `##`
    pieces, when whole words are masked.
    """
    config, batch = phase.config, phase.config.loop.batch_size
    local = batch // runtime.world_size
    first = runtime.rank * local
    mine = rows.rows((step - phase.begin) * batch + first, local)
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
    shapes = network_shapes(config.model, config.objective, store.vocab_size).values()
    head_sizes = [shape.hidden_size // shape.num_heads for shape in shapes]
    varlen = varlen_available(runtime.device, runtime.precision, head_sizes, config.model.attention_dropout)
    return Work(
        micro_batches=[
            share.part(slice(begin, begin + split), derive_seed(config.loop.seed, step, first + begin), varlen)
            for begin in range(0, local, split)
        ],
        totals={
            "predictions": float(masks.weights.sum()),
            "candidates": float(masks.candidates.sum()),
            "tokens": float(mine.valid.sum()),
        },
        tokens=mine.input_ids.size,
    )


# ------------------------------------------------------------------------------------------- run folder


def _without_evaluation(mixture: Mixture) -> list[str]:
    """Which stores hold no text out."""
    if not mixture.holds_out:
        several = len(mixture.stores) > 1
        return [f"the store{'s have' if several else ' has'} no held-out documents: there will be no evaluation"]
    return [
        f"the store {store.folder} has no held-out documents: evaluations are on the others"
        for store in mixture.stores
        if not len(store.held_out)
    ]


def _check_run_folder(config: PretrainConfig, mixture: Mixture) -> None:
    """Refuse a run folder that belongs to another configuration or other stores."""
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
    receipts = read_receipts(config.out)
    if len(receipts) != len(mixture.stores):
        raise ValueError(
            f"{config.out} began with {len(receipts)} store{'s' * (len(receipts) > 1)}, not {len(mixture.stores)}: "
            "name what its config.toml says"
        )
    for receipt, store in zip(receipts, mixture.stores, strict=True):
        for field, what in (("vocabulary", "another vocabulary"), ("shards", "other text")):
            if receipt.get(field) != store.summary.get(field):
                raise ValueError(
                    f"{store.folder} holds {what} than the store with which {config.out} began: name that store"
                )


def _has_begun(config: PretrainConfig) -> bool:
    """Whether there is a checkpoint, from which everything comes then."""
    return any((config.out / "checkpoints").glob("step-*"))


def _prepare_run_folder(config: PretrainConfig, mixture: Mixture) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    data = tuple(location if is_url(location) else str(Path(location).resolve()) for location in config.data)
    write_toml(dataclasses.replace(config, data=data), config.out / "config.toml")
    for number, store in enumerate(mixture.stores):
        path = receipt_path(config.out, number)
        if not path.exists():
            shutil.copy(store.folder / "store.json", path)
