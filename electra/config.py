"""Every stage's settings as frozen dataclasses; toml.py writes them to files and reads them back.

One dataclass a concern, merged into one a stage. The docstring under a field is its `--help` text.
Values are checked where a config is made (`__post_init__`), each failure one sentence that names the
field. Sizes that follow from data (vocabulary, special ids) are not here: they come from the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


# ---------------------------------------------------------------------------------- corpus and vocabulary


@dataclass(frozen=True)
class VocabConfig:
    """Train a WordPiece vocabulary on text files."""

    corpus: Positional[tuple[str, ...]]
    """Files, folders or globs: .txt, .jsonl, .parquet, also .gz, .zst, .xz."""
    out: Path
    """Folder to write: tokenizer.json, vocab.txt, tokenizer_config.json."""
    size: int = 30522
    """Number of entries, specials and [unused] slots included."""
    lowercase: bool = True
    """Lower-case the text (an uncased vocabulary)."""
    strip_accents: bool | None = None
    """Remove accents; by default they go when the text is lower-cased, as in BERT."""
    split_chinese: bool = True
    """Treat each Chinese character as a word."""
    limit_alphabet: int = 1000
    """Keep at most this many different characters (1000 for Latin scripts, 6000 for Korean)."""
    min_frequency: int = 2
    """A piece must occur this often."""
    unused: int = 0
    """Number of [unusedN] slots kept free for words added later."""
    sample_mb: float = 512.0
    """Train on a random sample of documents of about this many megabytes; bounds memory."""
    text_field: str = "text"
    """The column that holds the text in .jsonl and .parquet files."""
    on_error: Literal["fail", "replace", "skip"] = "fail"
    """What to do with bytes that are not UTF-8: stop, put U+FFFD, or leave the line out."""
    seed: int = 0
    """Chooses the sample."""
    overwrite: bool = False
    """Replace --out if it exists."""

    def __post_init__(self) -> None:
        _require(len(self.corpus) > 0, "vocab: name at least one corpus file or folder")
        _require(self.size >= 5 + self.unused + 1, f"--size {self.size} leaves no room beside specials and --unused")
        _require(self.limit_alphabet > 0, "--limit-alphabet must be positive")
        _require(self.min_frequency > 0, "--min-frequency must be positive")
        _require(self.unused >= 0, "--unused must not be negative")
        _require(self.sample_mb > 0, "--sample-mb must be positive")


@dataclass(frozen=True)
class BuildConfig:
    """Turn text files, or TFRecords of pre-training rows, into a token store: documents -> lines -> tokens."""

    corpus: Positional[tuple[str, ...]]
    """Files, folders or globs: .txt (blank line = document boundary), .jsonl, .parquet; also .gz, .zst, .xz;
    or .tfrecord, each row a document."""
    vocab: Path
    """A vocabulary folder, a tokenizer.json or a vocab.txt."""
    out: Path
    """Folder to write the store to."""
    lowercase: bool | None = None
    """Only for a bare vocab.txt, which does not say: whether to lower-case (default: yes)."""
    strip_accents: bool | None = None
    """Only for a bare vocab.txt: whether to remove accents (default: as --lowercase)."""
    held_out: float = 0.005
    """Share of the tokens, in whole documents, kept apart for evaluation."""
    processes: int = 0
    """Worker processes; 0 means one for each core."""
    text_field: str = "text"
    """The column that holds the text in .jsonl and .parquet files."""
    on_error: Literal["fail", "replace", "skip"] = "fail"
    """What to do with bytes that are not UTF-8: stop, put U+FFFD, or leave the line out."""
    seed: int = 0
    """Chooses the held-out documents."""
    overwrite: bool = False
    """Replace --out if it exists."""

    def __post_init__(self) -> None:
        _require(len(self.corpus) > 0, "build: name at least one corpus file or folder")
        _require(0 <= self.held_out < 0.5, "--held-out must be at least 0 and below 0.5")
        _require(self.processes >= 0, "--processes must not be negative")


# ---------------------------------------------------------------------------------------- pre-training


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

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers", "num_heads", "intermediate_size", "embedding_size", "max_positions"):
            _require(getattr(self, name) > 0, f"model.{name} must be positive, not {getattr(self, name)}")
        _require(
            self.hidden_size % self.num_heads == 0,
            f"model.hidden_size {self.hidden_size} is not a multiple of model.num_heads {self.num_heads}",
        )
        for name in ("generator_width", "generator_depth"):
            _require(0 < getattr(self, name) <= 1, f"model.{name} must be above 0 and at most 1")
        for name in ("dropout", "attention_dropout"):
            _require(0 <= getattr(self, name) < 1, f"model.{name} must be at least 0 and below 1")


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
    objective: Literal["electra", "masked-lm"] = "electra"
    """`masked-lm`: one network, as large as the discriminator, learns to fill masked positions (BERT without
    next-sentence prediction); the generator's size and the discriminator's weight then have no meaning."""
    generator: Literal["shared-embeddings", "own-embeddings", "same-network", "uniform"] = "shared-embeddings"
    """`shared-embeddings`: own layers on the discriminator's embeddings; `own-embeddings`: nothing shared, embeddings
    as wide as its layers; `same-network`: the discriminator with another head; `uniform`: no network, any token of
    the vocabulary is as likely."""
    whole_word: bool = False
    """Mask a word with all of its ## pieces, or not at all."""

    def __post_init__(self) -> None:
        _require(0 < self.mask_prob < 1, f"objective.mask_prob must be between 0 and 1, not {self.mask_prob}")
        _require(self.temperature > 0, "objective.temperature must be positive")
        _require(self.generator_weight >= 0, "objective.generator_weight must not be negative")
        _require(self.discriminator_weight >= 0, "objective.discriminator_weight must not be negative")
        _require(
            not (self.whole_word and self.mask_with_replacement),
            "objective.whole_word draws words without replacement: turn off objective.mask_with_replacement",
        )
        if self.objective == "masked-lm":
            for name in ("generator", "temperature", "disallow_correct"):
                _require(
                    getattr(self, name) == getattr(type(self), name),
                    f"objective.{name} has no meaning when objective.objective is masked-lm, which samples nothing: "
                    "leave it out",
                )
        _require(
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
        _require(self.seq_len >= 8, f"rows.seq_len must be at least 8, not {self.seq_len}")
        for name in ("single_segment_prob", "short_row_prob"):
            _require(0 <= getattr(self, name) <= 1, f"rows.{name} must be from 0 to 1")


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
    beta2: float = 0.999
    epsilon: float = 1e-6
    bias_correction: bool = False
    """Adam's bias correction; the original ELECTRA has none."""
    clip_norm: float = 1.0
    """Clip the global gradient norm to this; 0 turns clipping off."""

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, f"optimizer.learning_rate must be positive, not {self.learning_rate}")
        _require(self.muon_learning_rate > 0, "optimizer.muon_learning_rate must be positive")
        _require(self.warmup_steps >= 0, "optimizer.warmup_steps must not be negative")
        _require(self.decay_power >= 0, "optimizer.decay_power must not be negative")
        _require(
            self.schedule != "cosine" or self.decay_power == 1,
            "optimizer.decay_power has no meaning when optimizer.schedule is cosine: set it to 1",
        )
        _require(0 < self.decay_share <= 1, f"optimizer.decay_share must be above 0 and at most 1: {self.decay_share}")
        _require(
            self.schedule == "warmup-stable-decay" or self.decay_share == OptimizerConfig.decay_share,
            f"optimizer.decay_share has no meaning when optimizer.schedule is {self.schedule}: leave it out, or take "
            "warmup-stable-decay",
        )
        _require(
            0 <= self.end_learning_rate <= self.learning_rate,
            f"optimizer.end_learning_rate must be from 0 to optimizer.learning_rate {self.learning_rate:g}, not "
            f"{self.end_learning_rate:g}",
        )
        _require(
            self.optimizer == "lamb" or not self.skip_adaptive,
            f"optimizer.skip_adaptive has no meaning when optimizer.optimizer is {self.optimizer}: leave it out",
        )
        _require(self.weight_decay >= 0, "optimizer.weight_decay must not be negative")
        _require(0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "optimizer.beta1 and beta2 must be from 0 to below 1")
        _require(self.epsilon > 0, "optimizer.epsilon must be positive")
        _require(self.clip_norm >= 0, "optimizer.clip_norm must not be negative")


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
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of matrix products; weights and sums stay fp32."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    log_every: int = 50
    """Steps between log lines."""
    eval_every: int = 1000
    """Steps between evaluations on held-out text; 0 means only at the end."""
    eval_rows: int = 1024
    """Held-out rows in an evaluation."""
    save_every: int = 1000
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 3
    """Checkpoints kept; 0 keeps all."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "save_every", "eval_rows"):
            _require(getattr(self, name) > 0, f"loop.{name} must be positive, not {getattr(self, name)}")
        for name in ("micro_batch_size", "eval_every", "keep"):
            _require(getattr(self, name) >= 0, f"loop.{name} must not be negative")


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that a pre-training run depends on."""

    data: Path = Path()
    """The token store."""
    out: Path = Path()
    """The run folder; an unfinished run there is resumed."""
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    rows: RowsConfig = field(default_factory=RowsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        _require(
            self.rows.seq_len <= self.model.max_positions,
            f"rows.seq_len {self.rows.seq_len} is longer than model.max_positions {self.model.max_positions}",
        )
        model = self.model
        _require(
            self.objective.generator != "same-network" or model.generator_width == model.generator_depth == 1,
            "objective.generator same-network is the discriminator itself: set model.generator_width and "
            f"model.generator_depth to 1, not {model.generator_width:g} and {model.generator_depth:g}",
        )


# ------------------------------------------------------------------------------------------ fine-tuning


@dataclass(frozen=True)
class TaskConfig:
    """A task of one's own: files with a header line and the columns named here."""

    kind: Literal["classification", "regression"] = "classification"
    """Label set or number."""
    text: str = "text"
    """Column of the (first) text."""
    pair: str = ""
    """Column of the second text of a pair; empty for single texts."""
    label: str = "label"
    """Column of the label."""
    labels: tuple[str, ...] = ()
    """The label set in order; empty means: as found in the training file, sorted."""
    metric: Literal["auto", "accuracy", "f1", "macro_f1", "mcc", "pearson", "spearman"] = "auto"
    """The metric that names the best model; auto: accuracy or spearman. f1 is that of the second of two labels."""

    def __post_init__(self) -> None:
        _require(self.text != "" and self.label != "", "custom.text and custom.label must name columns")
        _require(len(set(self.labels)) == len(self.labels), "custom.labels names a label twice")
        of_numbers = ("auto", "pearson", "spearman")
        if self.kind == "regression":
            _require(self.metric in of_numbers, f"custom.metric of a regression must be one of {', '.join(of_numbers)}")
            _require(not self.labels, "custom.labels has no meaning for a regression: its labels are numbers")
        else:
            _require(self.metric not in of_numbers[1:], f"custom.metric {self.metric} is for custom.kind regression")


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tune an encoder on a task, with several seeds."""

    model: Positional[str]
    """A model folder, a run's export folder, or a Hugging Face id of an ELECTRA model."""
    data: Path
    """Folder with train, dev (and test) files: .tsv, .csv or .jsonl."""
    out: Path
    """Folder to write; an unfinished run there is continued with the seeds that are missing."""
    task: str = "custom"
    """sst2, cola, mrpc, rte, stsb, nsmc, or custom with the columns below."""
    custom: TaskConfig = field(default_factory=TaskConfig)
    from_scratch: bool = False
    """Ignore the weights of the model and start from random ones (a baseline)."""
    epochs: float = 0.0
    """Passes over the training data; 0 means the task's own (3; 10 for rte and stsb)."""
    batch_size: int = 32
    """Examples in an optimizer step."""
    micro_batch_size: int = 0
    """Examples in one forward pass, to save memory; 0 means all of a step."""
    learning_rate: float = 0.0
    """Peak learning rate; 0 means by the model's width: 3e-4 small, 1e-4 base, 5e-5 large (the paper's)."""
    layer_decay: float = 0.0
    """Layer-wise decay of the learning rate; 0 means 0.8, 0.9 for large; 1 turns it off."""
    layer_decay_google: bool = False
    """Count depths as Google's code does, where even the top layer is scaled by decay squared."""
    warmup: float = 0.1
    """Share of the steps that warm up."""
    weight_decay: float = 0.0
    """Decoupled weight decay; not on biases and LayerNorms."""
    bias_correction: bool = True
    """Adam's bias correction; Google's code has none, which makes the first steps several times too large."""
    max_length: int = 128
    """Tokens in an example; longer ones are cut."""
    max_train: int = 0
    """Use only this many training examples (a random choice by seed 0); 0 means all."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One model is trained for each."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of matrix products; weights and sums stay fp32."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    overwrite: bool = False
    """Replace --out if it exists."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 0, "--epochs must not be negative")
        _require(self.batch_size > 0, "--batch-size must be positive")
        _require(self.micro_batch_size >= 0, "--micro-batch-size must not be negative")
        _require(self.learning_rate >= 0, "--learning-rate must not be negative")
        _require(0 <= self.layer_decay <= 1, "--layer-decay must be from 0 to 1")
        _require(0 <= self.warmup < 1, "--warmup is a share of the steps: at least 0 and below 1")
        _require(self.weight_decay >= 0, "--weight-decay must not be negative")
        _require(self.max_length >= 8, "--max-length must be at least 8")
        _require(self.max_train >= 0, "--max-train must not be negative")
        _require(len(self.seeds) > 0, "--seeds needs at least one seed")
        _require(len(set(self.seeds)) == len(self.seeds), "--seeds names a seed twice")
        _require(min(self.seeds) >= 0, "--seeds must not be negative")


@dataclass(frozen=True)
class PredictConfig:
    """Classify or rate texts with a fine-tuned model."""

    model: Positional[str]
    """A fine-tuned model folder, or a Hugging Face id of an ELECTRA model for sequence classification."""
    file: Positional[Path | None] = None
    """Texts, one a line, a tab between the two of a pair; or a .tsv, .csv or .jsonl file with --column.
    Without a file (and without --text) they are read from standard input."""
    text: tuple[str, ...] = ()
    """Texts given here instead of a file; a tab separates the two of a pair."""
    column: str = ""
    """Column of the text in a .tsv, .csv or .jsonl file with named columns."""
    pair_column: str = ""
    """Column of the second text of a pair."""
    out: Path | None = None
    """File to write; standard output if there is none."""
    format: Literal["tsv", "jsonl"] = "tsv"
    """tsv: label and score (or value); jsonl: also the scores of all labels."""
    batch_size: int = 32
    """Texts in a forward pass."""
    max_length: int = 0
    """Tokens in an example, longer ones are cut; 0 means as many as the model can read."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of matrix products."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    overwrite: bool = False
    """Replace --out if it exists."""

    def __post_init__(self) -> None:
        _require(self.batch_size > 0, "--batch-size must be positive")
        _require(self.max_length == 0 or self.max_length >= 8, "--max-length must be at least 8")
        _require(not (self.text and self.file), "give a file or --text, not both")
        _require(not (self.pair_column and not self.column), "--pair-column needs --column for the first text")
        _require(not (self.column and self.file is None), "--column needs a file with named columns")


# ------------------------------------------------------------------------------------------------ conversion


@dataclass(frozen=True)
class ConvertConfig:
    """Weights of other systems -> Hugging Face folders, tf_model.h5, or a run folder that goes on training."""

    checkpoint: Positional[str]
    """Checkpoint of Google (TensorFlow 1), NVIDIA, Habana or AWS (prefix, file or folder), a tf_model.h5, a Hugging
    Face folder (also one with discriminator/ and generator/ in it), or a hub id."""
    out: Path
    """Folder to write."""
    format: Literal["hf", "tf-h5", "run"] = "hf"
    """hf: Hugging Face (safetensors); tf-h5: its TensorFlow classes; run: a run folder for electra pretrain."""
    vocab: Path | None = None
    """The vocabulary of the model, where it does not lie beside the weights: a folder, tokenizer.json or vocab.txt."""
    generator: str | None = None
    """The generator (any of these forms), where the checkpoint is a discriminator alone."""
    data: Path | None = None
    """run: the token store to go on with."""
    hparams: str | None = None
    """Google's hparams, a JSON file or text: checked against the weights; for a run also its recipe."""
    overwrite: bool = False
    """Replace --out if it exists."""
