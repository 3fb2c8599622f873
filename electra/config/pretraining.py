"""Settings of `electra pretrain`: model, objective, rows, optimizer, loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Fixed

from electra.config.checks import require


@dataclass(frozen=True)
class ModelConfig:
    """The discriminator, and the generator as a fraction of it (Clark et al. 2020, table 6)."""

    hidden_size: int = 256
    """Width of the discriminator."""
    num_layers: int = 12
    """Number of layers."""
    num_heads: int = 4
    """Number of attention heads."""
    intermediate_size: int = 1024
    """Width of the feed-forward layers."""
    embedding_size: int = 128
    """Width of the embedding table, shared by both networks."""
    max_positions: int = 512
    """The longest row that the model can ever read."""
    generator_width: float = 0.25
    """Hidden size, heads and feed-forward of the generator as a fraction of the discriminator's."""
    generator_depth: float = 1.0
    """Layers of the generator as a fraction of the discriminator's."""
    dropout: float = 0.1
    """Dropout of embeddings and layer outputs."""
    attention_dropout: float = 0.1
    """Dropout of attention weights."""
    position_init: Literal["normal", "sinusoidal"] = "normal"
    """How the position table begins: as Google's, or as sines and cosines, from which a model finds out about the
    order of words in a fraction of the tokens. The table is trained and exported in either case."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers", "num_heads", "intermediate_size", "embedding_size", "max_positions"):
            require(getattr(self, name) > 0, f"model.{name} must be positive, not {getattr(self, name)}")
        require(
            self.hidden_size % self.num_heads == 0,
            f"model.hidden_size {self.hidden_size} is not a multiple of model.num_heads {self.num_heads}",
        )
        for name in ("generator_width", "generator_depth"):
            require(0 < getattr(self, name) <= 1, f"model.{name} must be above 0 and at most 1")
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, f"model.{name} must be at least 0 and below 1")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is learnt: replaced-token detection or masked LM, what is masked, how the two losses are weighed."""

    mask_prob: float = 0.15
    """Share of the tokens that the generator predicts."""
    mask_with_replacement: bool = False
    """Draw positions with replacement, as Google's code does (about 14 % distinct at 15 %)."""
    temperature: float = 1.0
    """Temperature at which the generator's tokens are sampled."""
    disallow_correct: bool = False
    """Never sample the original token."""
    generator_weight: float = 1.0
    """Weight of the masked-LM loss."""
    discriminator_weight: float = 50.0
    """Weight of the replaced-token loss."""
    objective: Literal["electra", "electric", "masked-lm"] = "electra"
    """`electric`: the discriminator gives each token an energy, from which its probability follows (Clark et al. 2020,
    "Pre-Training Transformers as Energy-Based Cloze Models"); needs the two-tower generator. `masked-lm`: one
    network, as large as the discriminator, learns to fill masked positions (BERT without next-sentence prediction); the
    generator's size and the discriminator's weight then have no meaning."""
    generator: Literal["shared-embeddings", "own-embeddings", "same-network", "uniform", "two-tower"] = (
        "shared-embeddings"
    )
    """`shared-embeddings`: own layers on the discriminator's embeddings; `own-embeddings`: nothing shared, embeddings
    as wide as its layers; `same-network`: the discriminator with another head; `uniform`: no network, any token of
    the vocabulary is as likely; `two-tower`: one network reads from the left, one from the right, nothing is masked."""
    whole_word: bool = False
    """Mask a word with all of its ## pieces, or not at all."""

    def __post_init__(self) -> None:
        require(0 < self.mask_prob < 1, f"objective.mask_prob must be between 0 and 1, not {self.mask_prob}")
        require(self.temperature > 0, "objective.temperature must be positive")
        require(self.generator_weight >= 0, "objective.generator_weight must not be negative")
        require(self.discriminator_weight >= 0, "objective.discriminator_weight must not be negative")
        require(
            not (self.whole_word and self.mask_with_replacement),
            "objective.whole_word draws words without replacement: turn off objective.mask_with_replacement",
        )
        if self.objective == "masked-lm":
            for name in ("generator", "temperature", "disallow_correct"):
                require(
                    getattr(self, name) == getattr(type(self), name),
                    f"objective.{name} has no meaning when objective.objective is masked-lm, which samples nothing: "
                    "leave it out",
                )
        if self.objective == "electric":
            require(
                self.generator == "two-tower",
                "objective.objective electric has the probabilities of the two-tower generator in its loss: set "
                "objective.generator to two-tower",
            )
            require(
                not self.disallow_correct,
                "objective.disallow_correct cannot go with objective.objective electric, whose noise has to be the "
                "true token at times: leave it out",
            )
        require(
            self.generator != "uniform" or self.temperature == 1,
            "objective.temperature has no meaning when objective.generator is uniform: leave it out",
        )

    def max_predictions(self, seq_len: int) -> int:
        """K, the fixed number of prediction slots of a row (Google: int((p + .005) * L))."""
        return max(1, int((self.mask_prob + 0.005) * seq_len))


@dataclass(frozen=True)
class RowsConfig:
    """How rows are cut from the token store."""

    seq_len: int = 128
    """Tokens in a row, specials included."""
    packing: Literal["packed", "google", "rows"] = "packed"
    """`packed` fills every row and drops nothing; `google` is the original builder's rule, overflow thrown away;
    `rows`: those of the TFRecords that the store was imported from, as they were."""
    single_segment_prob: float = 0.1
    """Share of rows that are one segment instead of A and B."""
    short_row_prob: float = 0.05
    """Share of rows that hold a piece cut at a random length (packed: followed by another piece)."""

    def __post_init__(self) -> None:
        require(self.seq_len >= 8, f"rows.seq_len must be at least 8, not {self.seq_len}")
        for name in ("single_segment_prob", "short_row_prob"):
            require(0 <= getattr(self, name) <= 1, f"rows.{name} must be from 0 to 1")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and the learning-rate schedule."""

    optimizer: Literal["adamw", "lamb", "muon"] = "adamw"
    """`lamb`: for batches of many thousand rows (NVIDIA's has --bias-correction); `muon`: Muon for the matrices of the
    layers, AdamW for all else."""
    learning_rate: float = 5e-4
    """Peak learning rate of AdamW or LAMB."""
    muon_learning_rate: float = 5e-3
    """Peak learning rate of Muon, which follows the same schedule."""
    generator_lr_scale: float = 1.0
    """Learning rate of the generator's own layers and head as a multiple of the rest's; 0 freezes them."""
    schedule: Literal["product", "polynomial", "cosine", "warmup-stable-decay"] = "product"
    """`product`: polynomial decay over all steps, times the warm-up (Google); `polynomial`: the warm-up, then
    polynomial decay over the rest (NVIDIA, SageMaker); `cosine`: the warm-up, then half a cosine over the rest;
    `warmup-stable-decay`: the warm-up, the peak, then polynomial decay over the last steps."""
    warmup_steps: int = 10_000
    """Steps of linear warm-up from 0."""
    decay_power: float = 1.0
    """Power of the polynomial decay: 1 is a straight line, 0.5 (NVIDIA) falls late."""
    decay_share: float = 0.1
    """Share of the steps that decay, the last ones, in warmup-stable-decay."""
    end_learning_rate: float = 0.0
    """Where the decay of learning_rate ends; Muon's ends at the same fraction of its peak."""
    skip_adaptive: bool = False
    """LAMB: biases and LayerNorms move by the learning rate itself, without the trust ratio (NVIDIA's scripts)."""
    weight_decay: float = 0.01
    """Decoupled weight decay; not on biases and LayerNorms."""
    beta1: float = 0.9
    """How much of Adam's running mean of gradients is kept in a step (LAMB's too)."""
    beta2: float = 0.999
    """How much of the running mean of their squares."""
    epsilon: float = 1e-6
    """Added to the root of that mean in the divisor."""
    bias_correction: bool = False
    """Adam's bias correction; the original ELECTRA has none."""
    clip_norm: float = 1.0
    """Clip the global gradient norm to this; 0 turns clipping off."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"optimizer.learning_rate must be positive, not {self.learning_rate}")
        require(self.muon_learning_rate > 0, "optimizer.muon_learning_rate must be positive")
        require(self.generator_lr_scale >= 0, "optimizer.generator_lr_scale must not be negative")
        require(self.warmup_steps >= 0, "optimizer.warmup_steps must not be negative")
        require(self.decay_power >= 0, "optimizer.decay_power must not be negative")
        require(
            self.schedule != "cosine" or self.decay_power == 1,
            "optimizer.decay_power has no meaning when optimizer.schedule is cosine: set it to 1",
        )
        require(0 < self.decay_share <= 1, f"optimizer.decay_share must be above 0 and at most 1: {self.decay_share}")
        require(
            self.schedule == "warmup-stable-decay" or self.decay_share == OptimizerConfig.decay_share,
            f"optimizer.decay_share has no meaning when optimizer.schedule is {self.schedule}: leave it out, or take "
            "warmup-stable-decay",
        )
        require(
            0 <= self.end_learning_rate <= self.learning_rate,
            f"optimizer.end_learning_rate must be from 0 to optimizer.learning_rate {self.learning_rate:g}, not "
            f"{self.end_learning_rate:g}",
        )
        require(
            self.optimizer == "lamb" or not self.skip_adaptive,
            f"optimizer.skip_adaptive has no meaning when optimizer.optimizer is {self.optimizer}: leave it out",
        )
        require(self.weight_decay >= 0, "optimizer.weight_decay must not be negative")
        require(0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "optimizer.beta1 and beta2 must be from 0 to below 1")
        require(self.epsilon > 0, "optimizer.epsilon must be positive")
        require(self.clip_norm >= 0, "optimizer.clip_norm must not be negative")


@dataclass(frozen=True)
class LoopConfig:
    """The training loop: how long, how it is split over memory, what is saved and when."""

    steps: int = 1_000_000
    """Optimizer steps in all."""
    batch_size: int = 128
    """Rows in an optimizer step, over all devices."""
    micro_batch_size: int = 0
    """Rows in one forward pass on one device; 0 means batch_size divided by the devices, at most 64."""
    seed: int = 0
    """Together with the step decides everything random."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Arithmetic of matrix products; weights and sums stay fp32. `tf32` needs an NVIDIA GPU; `fp16` scales the loss."""
    device: str = "auto"
    """cuda, hpu, tpu, mps, cpu, or auto: the first of them that is there."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Several processes: `ddp` has the whole model in each; `fsdp` shards it, for models that do not fit."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the step; `auto` is on for cuda, hpu and tpu and off for all else."""
    cuda_graphs: bool = False
    """Record the compiled step as a CUDA graph: less work for the host, more memory on the device."""
    log_every: int = 50
    """Steps between log lines."""
    eval_every: int = 1000
    """Steps between evaluations on held-out text; 0 means only at the end."""
    eval_rows: int = 1024
    """Held-out rows in an evaluation."""
    samples_every: int = 0
    """Evaluations between held-out rows shown with what was replaced and what the discriminator says; 0 means none."""
    save_every: int = 1000
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 3
    """Checkpoints kept; 0 keeps all."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "save_every", "eval_rows"):
            require(getattr(self, name) > 0, f"loop.{name} must be positive, not {getattr(self, name)}")
        for name in ("micro_batch_size", "eval_every", "samples_every", "keep"):
            require(getattr(self, name) >= 0, f"loop.{name} must not be negative")
        require(
            not self.cuda_graphs or self.compile != "off",
            "loop.cuda_graphs has no meaning when loop.compile is off: leave it out",
        )


@dataclass(frozen=True)
class PhaseConfig:
    """A part of a plan, [[phases]] in a file. What is 0 or left out is as in the run's own sections."""

    steps: int = 0
    """Optimizer steps of this phase; or give token_share."""
    token_share: float = 0.0
    """Share of the run's tokens (loop.steps x loop.batch_size x rows.seq_len) that this phase reads."""
    seq_len: int = 0
    """Tokens in a row."""
    batch_size: int = 0
    """Rows in an optimizer step, over all devices."""
    micro_batch_size: int = 0
    """Rows in one forward pass on one device."""
    restart: Literal["nothing", "steps", "all"] = "steps"
    """What begins anew with the phase. `steps`: the learning rate's schedule, over this phase, and the count of Adam's
    bias correction, while the moments go on (NVIDIA's phase 2); `all`: the moments too; `nothing`: the schedule of the
    phase before spans this one as well."""
    learning_rate: float = 0.0
    """Peak learning rate of AdamW or LAMB; Muon's keeps its ratio to it."""
    warmup_steps: int = -1
    """Steps of warm-up of this phase; -1: as the run."""

    def __post_init__(self) -> None:
        for name in ("steps", "seq_len", "batch_size", "micro_batch_size", "learning_rate", "token_share"):
            require(getattr(self, name) >= 0, f"phases: {name} must not be negative")
        require((self.steps > 0) != (self.token_share > 0), "phases: give each phase either steps or token_share")
        require(self.warmup_steps >= -1, "phases: warmup_steps must not be negative")
        require(
            self.restart != "nothing" or (self.learning_rate == 0 and self.warmup_steps == -1),
            "phases: learning_rate and warmup_steps have no meaning in a phase that restarts nothing: leave them out, "
            "or take restart = steps",
        )


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that a pre-training run depends on."""

    data: tuple[str, ...] = ()
    """The token store, or several of one vocabulary, whose rows are mixed."""
    weights: tuple[float, ...] = ()
    """Of each store of --data, in proportion to its share of the rows; by default its number of tokens."""
    out: Path = Path()
    """The run folder; an unfinished run there is resumed."""
    init: str = ""
    """Begin with the weights of this model: a model folder, the folder of a run, or a hub id. Its vocabulary may be
    another than the store's. A generator exported beside it is taken too."""
    init_generator: str = ""
    """The generator that belongs to --init, where it lies elsewhere; without one it begins at random."""
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    rows: RowsConfig = field(default_factory=RowsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    phases: Annotated[tuple[PhaseConfig, ...], Fixed] = ()
    """Parts of the run with lengths, batches and learning rates of their own; only in presets and files."""

    def __post_init__(self) -> None:
        require(len(set(self.data)) == len(self.data), "--data names a store twice: name it once, with more weight")
        require(
            not (self.data and self.weights) or len(self.weights) == len(self.data),
            f"--weights needs a number for each of the {len(self.data)} stores of --data, not {len(self.weights)}",
        )
        require(
            all(0 < weight < math.inf for weight in self.weights),
            f"--weights must be positive, not {', '.join(f'{weight:g}' for weight in self.weights)}: "
            "leave out a store that is not to be read",
        )
        require(not self.init_generator or self.init != "", "--init-generator needs --init, its discriminator")
        shares = sum(phase.token_share for phase in self.phases)
        require(
            shares == 0 or (abs(shares - 1) < 1e-6 and all(phase.token_share > 0 for phase in self.phases)),
            f"phases: token_share must be given for all phases and add up to 1, not {shares:g}",
        )
        require(
            shares > 0 or not self.phases or sum(phase.steps for phase in self.phases) == self.loop.steps,
            f"loop.steps {self.loop.steps:,} is not the sum of the steps of the phases, "
            f"{sum(phase.steps for phase in self.phases):,}: set it to that, or change the phases in a config file",
        )
        require(
            self.rows.seq_len <= self.model.max_positions,
            f"rows.seq_len {self.rows.seq_len} is longer than model.max_positions {self.model.max_positions}",
        )
        require(
            self.loop.parallel == "ddp" or self.optimizer.optimizer != "muon",
            "optimizer.optimizer muon needs whole matrices, and loop.parallel fsdp shards them: take adamw or lamb, or "
            "loop.parallel ddp",
        )
        require(
            self.loop.samples_every == 0 or self.objective.objective != "masked-lm",
            "loop.samples_every has no meaning when objective.objective is masked-lm, which has no discriminator: "
            "leave it out",
        )
        has_generator = self.objective.objective != "masked-lm" and self.objective.generator not in (
            "uniform",
            "same-network",
        )
        require(
            has_generator or self.optimizer.generator_lr_scale == 1,
            "optimizer.generator_lr_scale has no meaning without a generator that has layers of its own: leave it out",
        )
        model = self.model
        require(
            self.objective.generator != "same-network" or model.generator_width == model.generator_depth == 1,
            "objective.generator same-network is the discriminator itself: set model.generator_width and "
            f"model.generator_depth to 1, not {model.generator_width:g} and {model.generator_depth:g}",
        )
