"""Settings of `electra finetune` and `electra predict`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from electra.config.checks import require


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
        require(self.text != "" and self.label != "", "custom.text and custom.label must name columns")
        require(len(set(self.labels)) == len(self.labels), "custom.labels names a label twice")
        of_numbers = ("auto", "pearson", "spearman")
        if self.kind == "regression":
            require(self.metric in of_numbers, f"custom.metric of a regression must be one of {', '.join(of_numbers)}")
            require(not self.labels, "custom.labels has no meaning for a regression: its labels are numbers")
        else:
            require(self.metric not in of_numbers[1:], f"custom.metric {self.metric} is for custom.kind regression")


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
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Arithmetic of matrix products; weights and sums stay fp32."""
    device: str = "auto"
    """cuda, hpu, tpu, mps, cpu, or auto: the first of them that is there."""
    overwrite: bool = False
    """Replace --out if it exists."""

    def __post_init__(self) -> None:
        require(self.epochs >= 0, "--epochs must not be negative")
        require(self.batch_size > 0, "--batch-size must be positive")
        require(self.micro_batch_size >= 0, "--micro-batch-size must not be negative")
        require(self.learning_rate >= 0, "--learning-rate must not be negative")
        require(0 <= self.layer_decay <= 1, "--layer-decay must be from 0 to 1")
        require(0 <= self.warmup < 1, "--warmup is a share of the steps: at least 0 and below 1")
        require(self.weight_decay >= 0, "--weight-decay must not be negative")
        require(self.max_length >= 8, "--max-length must be at least 8")
        require(self.max_train >= 0, "--max-train must not be negative")
        require(len(self.seeds) > 0, "--seeds needs at least one seed")
        require(len(set(self.seeds)) == len(self.seeds), "--seeds names a seed twice")
        require(min(self.seeds) >= 0, "--seeds must not be negative")


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
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Arithmetic of matrix products."""
    device: str = "auto"
    """cuda, hpu, tpu, mps, cpu, or auto: the first of them that is there."""
    overwrite: bool = False
    """Replace --out if it exists."""

    def __post_init__(self) -> None:
        require(self.batch_size > 0, "--batch-size must be positive")
        require(self.max_length == 0 or self.max_length >= 8, "--max-length must be at least 8")
        require(not (self.text and self.file), "give a file or --text, not both")
        require(not (self.pair_column and not self.column), "--pair-column needs --column for the first text")
        require(not (self.column and self.file is None), "--column needs a file with named columns")
