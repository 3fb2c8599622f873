"""What a run is about to do, before its first step: parameters, FLOPs, memory, time, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from electra import runtime as runtimes
from electra.compiled import choose_compile
from electra.config import PretrainConfig
from electra.mixture import MixedRows, Mixture
from electra.mlm import MaskedLM
from electra.objectives import PretrainingModel, network_shapes, predicted_positions
from electra.phases import Phase
from electra.progress import duration
from electra.runtime import Runtime


def parameters(model: PretrainingModel) -> dict[str, int]:
    """Numbers of parameters by network; what both share is counted with the discriminator."""
    counts = {"generator": 0, "discriminator": 0, "masked_lm": 0}
    for name, parameter in model.named_parameters():
        owner = "generator" if name.startswith("generator") else "discriminator"
        counts["masked_lm" if isinstance(model, MaskedLM) else owner] += parameter.numel()
    return {name: counts[name] for name in ("discriminator", "generator", "masked_lm") if counts[name]}


def flops_per_token(config: PretrainConfig, vocab_size: int) -> float:
    """FLOPs of forward and backward passes a token: 6 a weight in a matrix product, plus attention.

    The bodies run on each token, the vocabulary projection on mask_prob of them, or on all for a two-tower generator.
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
    share = predicted_positions(config.objective, seq_len) / seq_len
    width = list(shapes.values())[-1].embedding_size  # of the generator, or of the one network
    return total + 6.0 * share * width * vocab_size


def phase_cost(phase: Phase, vocab_size: int) -> float:
    """FLOPs of a step."""
    return flops_per_token(phase.config, vocab_size) * phase.tokens / phase.steps


def memory_bytes(config: PretrainConfig, model: PretrainingModel, split: int, precision: str) -> float:
    """A rough peak: weights, gradients and two moments in fp32, activations, logits of the predicted positions.

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
    logits = 4 * 4 * split * predicted_positions(config.objective, seq_len) * model.config.vocab_size
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
        f"{'Electric: ' * (model.objective.objective == 'electric')}"
        f"discriminator {counts['discriminator']:,} parameters, "
        + {
            "shared-embeddings": f"{generator}embeddings shared)",
            "own-embeddings": f"{generator}nothing shared)",
            "same-network": f"{generator}all but its head is the discriminator)",
            "uniform": f"no generator: replacements are drawn from all {shape.vocab_size:,} tokens alike",
            "two-tower": f"{generator}from either side; embeddings shared)",
        }[kind]
    )


def announcement(
    phases: Sequence[Phase],
    mixture: Mixture,
    rows: Sequence[MixedRows],
    model: PretrainingModel,
    runtime: Runtime,
    splits: Sequence[int],
) -> list[str]:
    """What the run is about to do; `rows` and `splits` (rows of a micro-batch) are those of each phase."""
    vocab_size = mixture.first.vocab_size
    peak = runtimes.matmul_flops(runtime.device, runtime.precision) * runtime.world_size
    several = len(phases) > 1
    loop = phases[0].config.loop
    sharded = loop.parallel == "fsdp" and runtime.world_size > 1
    compiled, why_compiled = choose_compile(loop.compile, loop.cuda_graphs, runtime.device, sharded)
    processes = f" by {loop.parallel}" if runtime.world_size > 1 else ""
    lines = [
        *(
            f"store       {store.folder}: {store.num_tokens:,} tokens, {store.num_documents:,} documents "
            f"({len(store.held_out):,} held out), vocabulary {vocab_size:,}"
            for store in mixture.stores
        ),
        f"model       {describe(model)}",
        f"device      {runtime.device} x {runtime.world_size}{processes}, {runtime.precision} ({runtime.why}); "
        f"{'compiled' if compiled else 'not compiled'} ({why_compiled})",
    ]
    in_all, memory = 0.0, 0.0
    for phase, phase_rows, split in zip(phases, rows, splits, strict=True):
        config, seq_len, batch = phase.config, phase.config.rows.seq_len, phase.config.loop.batch_size
        if several:
            lines.append(f"phase {phase.index + 1}     steps {phase.begin + 1:,} to {phase.end:,}")
        flops = flops_per_token(config, vocab_size)
        accumulation = batch // runtime.world_size // split
        lines += [
            *_rows_in_words(phase, phase_rows, f"micro-batches of {split}, {accumulation} a step"),
            f"masking     {config.objective.max_predictions(seq_len)} "
            f"{'tokens drawn' if config.objective.generator == 'two-tower' else 'predictions'} a row = "
            f"int(({config.objective.mask_prob} + .005) x {seq_len}){', of whole words' * config.objective.whole_word}",
            f"schedule    {config.optimizer.optimizer}, {phase.schedule}{_generator_rate(config)}"
            f"{'; ' * several}{_restarts(phase) * several}",
            f"compute     {flops / 1e6:,.1f} MFLOPs a token, {flops * phase.tokens:.2e} in all; this machine "
            f"multiplies matrices at {peak / 1e9:,.0f} GFLOP/s",
        ]
        in_all += flops * phase.tokens
        memory = max(memory, memory_bytes(config, model, split, runtime.precision))
    return [
        *lines,
        f"memory      about {memory / 2**30:.1f} GiB a process",
        f"time        about {duration(in_all / (0.4 * peak))} if 40 % of that speed is reached",
    ]


def _rows_in_words(phase: Phase, rows: MixedRows, split: str) -> list[str]:
    """How many rows a phase reads, and how many epochs of each store these are; `split` says how a batch is divided."""
    batch, seq_len = phase.config.loop.batch_size, phase.config.rows.seq_len
    plan, epochs = f"{phase.steps:,} steps x {batch:,} rows", rows.epochs(phase.steps * batch)
    tokens = f"{phase.tokens / 1e6:,.1f} M tokens; {split}"
    if len(rows.sources) == 1:
        return [
            f"rows        {rows.rows_per_epoch:,} rows of {seq_len} an epoch; {plan} = {epochs[0]:.2f} epochs, {tokens}"
        ]
    parts = zip(rows.mixture.shares, rows.mixture.stores, rows.sources, epochs, strict=True)
    return [
        f"rows        {plan} of {seq_len} = {tokens}",
        *(
            f"{share:11.1%} {store.folder}: {passes:.2f} epochs of {source.rows_per_epoch:,} rows"
            for share, store, source, passes in parts
        ),
    ]


def _generator_rate(config: PretrainConfig) -> str:
    scale = config.optimizer.generator_lr_scale
    return "" if scale == 1 else f"; the generator {f'at {scale:g} times that' if scale else 'is frozen'}"


def _restarts(phase: Phase) -> str:
    if phase.index == 0:
        return "moments begin at zero"
    if phase.restarts_moments:
        return "moments and their count begin anew"
    return f"moments go on, their count {'begins anew' if phase.restarts_count else 'too'}"
