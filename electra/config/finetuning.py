"""Settings of `electra finetune` and `electra predict`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from electra.config.checks import require


@dataclass(frozen=True)
class TaskConfig:
    """A task of one's own: files with a header line and the columns named here."""

    kind: Literal["classification", "regression", "multi-label", "multiple-choice", "tagging", "question-answering"] = (
        "classification"
    )
    """What a text is given: one label of a set, a number, any of several labels, the right one of several choices, a
    label for each word, or the answer to a question in it."""
    text: str = "text"
    """Column of the (first) text."""
    pair: str = ""
    """Column of the second text of a pair; empty for single texts."""
    choices: tuple[str, ...] = ()
    """Multiple choice: the column of each choice."""
    label: str = "label"
    """Column of the label."""
    labels: tuple[str, ...] = ()
    """The label set in order; empty means: as found in the training file, sorted."""
    separator: str = ","
    """Multi-label: what stands between two labels of a text; in .jsonl files a list will do."""
    id: str = ""
    """Column that names a row, for the predictions; empty: rows are numbered from 0."""
    metric: Literal["auto", "accuracy", "f1", "macro_f1", "micro_f1", "mcc", "pearson", "spearman"] = "auto"
    """The metric that names the best model; auto: accuracy, spearman of a regression, micro_f1 of a multi-label task.
    f1 is that of the second of two labels, of tagging that of entities (and its auto, accuracy without entities)."""
    scheme: Literal["auto", "iob1", "iob2", "bioes", "suffix", "plain"] = "auto"
    """Tagging: how the tags name entities. suffix: PER-B PER-I; plain: not at all; auto: told by the tags. For tagging,
    text and label are keys of .jsonl files (tokens and tags) or numbers of columns (0, and -1 for the last)."""
    layout: Literal["columns", "lines"] = "columns"
    """Tagging: a word and its tag on a line and an empty line after a sentence, or a sentence on a line: words, a tab,
    tags."""
    comment: str = ""
    """Tagging: what comment lines begin with."""
    characters: bool = False
    """Tagging: each character has a tag, not each word."""

    def __post_init__(self) -> None:
        require(self.text != "" and self.label != "", "custom.text and custom.label must name columns")
        require(len(set(self.labels)) == len(self.labels), "custom.labels names a label twice")
        require(self.separator != "", "custom.separator must not be empty")
        if self.kind == "multiple-choice":
            require(len(self.choices) > 1, "custom.choices must name the columns of at least two choices")
            require(not self.labels or len(self.labels) == len(self.choices), "custom.labels must name each choice")
        else:
            require(not self.choices, "custom.choices is for custom.kind multiple-choice")
        require(self.kind != "regression" or not self.labels, "custom.labels has no meaning for a regression")
        of_tags = (self.scheme, self.layout, self.comment, self.characters)
        require(
            self.kind == "tagging" or of_tags == ("auto", "columns", "", False),
            "custom.scheme, .layout, .comment and .characters are for custom.kind tagging",
        )
        known = ("auto", *METRICS.get(self.kind, ()))
        require(
            self.kind not in METRICS or self.metric in known,
            f"custom.metric of custom.kind {self.kind} must be one of {', '.join(known)}, not {self.metric}",
        )


METRICS = {
    "classification": ("accuracy", "f1", "macro_f1", "mcc"),
    "regression": ("spearman", "pearson"),
    "multi-label": ("micro_f1", "macro_f1", "accuracy"),
    "multiple-choice": ("accuracy",),
    "tagging": ("f1", "macro_f1", "accuracy"),
}
"""Metrics that can name the best model of a task, by its kind; the first is the one of `auto`."""


@dataclass(frozen=True)
class QuestionConfig:
    """Question answering over passages (SQuAD and its like)."""

    head: Literal["simple", "joint"] = "simple"
    """simple: start and end each by a dense layer, loads as ElectraForQuestionAnswering. joint: Google's, the end
    predicted from the start, with a classifier for questions without an answer; only `electra predict` reads it."""
    doc_stride: int = 128
    """Tokens between the begins of two windows of a long passage."""
    max_query_length: int = 64
    """Tokens of a question; longer ones are cut."""
    n_best: int = 20
    """Candidates that an answer is chosen from."""
    max_answer_length: int = 30
    """Tokens in an answer."""
    beam_size: int = 20
    """Starts that the joint head follows."""
    answerable_weight: float = 0.5
    """Weight of the joint head's loss of "has this question an answer?"."""
    null_threshold: float | None = None
    """Answer nothing where the score of no answer exceeds that of the best span by more; none: the best on dev."""

    def __post_init__(self) -> None:
        for name in ("doc_stride", "max_query_length", "n_best", "max_answer_length", "beam_size"):
            require(getattr(self, name) > 0, f"--{name.replace('_', '-')} must be positive")
        require(self.answerable_weight >= 0, "--answerable-weight must not be negative")
        require(self.null_threshold is None or math.isfinite(self.null_threshold), "--null-threshold must be finite")


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
    """A named task or a group of them (docs/finetuning.md), or custom with the columns below."""
    mode: Literal["train_eval", "train", "eval", "predict"] = "train_eval"
    """train: no dev metrics, the last model counts. eval, predict: no training, the model is a fine-tuned one; predict
    writes its answers for every file of the task, labelled or not."""
    custom: TaskConfig = field(default_factory=TaskConfig)
    questions: QuestionConfig = field(default_factory=QuestionConfig)
    from_scratch: bool = False
    """Ignore the weights of the model and start from random ones (a baseline)."""
    recipe: Literal["paper", "google", "koelectra"] = "paper"
    """Where values that are not given come from: table 7 of the paper, the defaults of Google's code, or KoELECTRA's
    settings for each Korean task."""
    epochs: float = 0.0
    """Passes over the training data; 0 means the recipe's for the task."""
    batch_size: int = 0
    """Examples in an optimizer step; 0 means the recipe's (32 in most)."""
    micro_batch_size: int = 0
    """Examples in one forward pass, to save memory; 0 means all of a step."""
    learning_rate: float = 0.0
    """Peak learning rate; 0 means the recipe's (the paper's by width: 3e-4 small, 1e-4 base, 5e-5 large)."""
    layer_decay: float = 0.0
    """Layer-wise decay of the learning rate; 0 means the recipe's (0.8, 0.9 for large); 1 turns it off."""
    layer_decay_google: bool | None = None
    """Count depths as Google's code does, where even the top layer is scaled by decay squared; none: the recipe's."""
    warmup: float | None = None
    """Share of the steps that warm up; none: the recipe's (0.1)."""
    weight_decay: float | None = None
    """Decoupled weight decay, not on biases and LayerNorms; none: the recipe's (0)."""
    bias_correction: bool | None = None
    """Adam's bias correction; Google's code has none, which makes the first steps several times too large."""
    dropout: float = 0.1
    """Dropout in the encoder and the head, whatever the pre-training had."""
    max_length: int = 0
    """Tokens in a row, longer ones are cut; 0 means the task's (128; 256 for tagging, 384 for questions)."""
    max_train: int = 0
    """Use only this many training examples (a random choice by seed 0); 0 means all."""
    class_weights: tuple[str, ...] = ()
    """Weight of each class in the loss, in the order of the labels; the word balanced: inverse to their frequency."""
    folds: int = 0
    """k-fold cross-validation over the training file where there is no dev file; 0: a tenth of it is the dev set."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One model is trained for each."""
    select: Literal["last", "best"] = "last"
    """The model of a seed: that of the last step, or that of the evaluation with the best dev metric."""
    patience: int = 0
    """Stop a seed after this many evaluations without a better dev metric; 0: never."""
    eval_every: int = 0
    """Steps between evaluations; 0: an epoch."""
    save_every: int = 500
    """Steps between checkpoints, from which an interrupted run goes on."""
    grid: tuple[str, ...] = ()
    """A small search, as NAME=VALUE,VALUE for each option: learning-rate=1e-4,3e-4 epochs=3,10. The best point is that
    with the best median dev metric."""
    published_protocol: bool = False
    """Korean tasks without a dev file: choose the checkpoint on the test file, as their published results did."""
    strict: bool = False
    """Faults in the rows of a file are an error before training starts, instead of being left out and counted."""
    cache: Path | None = None
    """Folder for features of questions, which other runs on the same files use again; none: the user's cache folder."""
    processes: int = 0
    """Processes that make features; 0 means one for each core."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Arithmetic of matrix products; weights and sums stay fp32."""
    device: str = "auto"
    """cuda, hpu, tpu, mps, cpu, or auto: the first of them that is there."""
    overwrite: bool = False
    """Replace --out if it exists."""

    def __post_init__(self) -> None:
        require(self.epochs >= 0, "--epochs must not be negative")
        require(self.batch_size >= 0, "--batch-size must not be negative")
        require(self.micro_batch_size >= 0, "--micro-batch-size must not be negative")
        require(self.learning_rate >= 0, "--learning-rate must not be negative")
        require(0 <= self.layer_decay <= 1, "--layer-decay must be from 0 to 1")
        require(self.warmup is None or 0 <= self.warmup < 1, "--warmup is a share of the steps: at least 0 and below 1")
        require(self.weight_decay is None or self.weight_decay >= 0, "--weight-decay must not be negative")
        require(0 <= self.dropout < 1, "--dropout must be at least 0 and below 1")
        require(self.max_length == 0 or self.max_length >= 8, "--max-length must be at least 8")
        require(self.max_train >= 0, "--max-train must not be negative")
        require(self.folds != 1 and self.folds >= 0, "--folds must be 0 or at least 2")
        require(self.patience >= 0, "--patience must not be negative")
        require(self.eval_every >= 0, "--eval-every must not be negative")
        require(self.save_every > 0, "--save-every must be positive")
        require(self.processes >= 0, "--processes must not be negative")
        require(len(self.seeds) > 0, "--seeds needs at least one seed")
        require(len(set(self.seeds)) == len(self.seeds), "--seeds names a seed twice")
        require(min(self.seeds) >= 0, "--seeds must not be negative")


@dataclass(frozen=True)
class PredictConfig:
    """Answer with a fine-tuned model: labels, values, choices, tags, or answers to questions."""

    model: Positional[str]
    """A fine-tuned model folder, or the id of an ELECTRA model on the Hugging Face hub that has a head for a task."""
    file: Positional[Path | None] = None
    """Texts, one a line, with a tab between the two of a pair or before each choice; a .tsv, .csv or .jsonl file with
    --column; or questions (SQuAD's .json, a .jsonl). Without a file (and --text) they are read from standard input."""
    text: tuple[str, ...] = ()
    """Texts given here instead of a file; a tab separates the two of a pair, and stands before each choice."""
    column: str = ""
    """Column of the text in a .tsv, .csv or .jsonl file with named columns."""
    pair_column: str = ""
    """Column of the second text of a pair; with choices, of what stands before each of them."""
    choice_columns: tuple[str, ...] = ()
    """Columns of the choices of a model for multiple choice."""
    question: tuple[str, ...] = ()
    """Questions given here instead of a file, all about --context."""
    context: str = ""
    """The passage that answers --question."""
    also: tuple[str, ...] = ()
    """Further models of the same task: the mean of all models' logits answers."""
    out: Path | None = None
    """File to write; standard output if there is none."""
    format: Literal["tsv", "jsonl"] = "tsv"
    """tsv: label and score (or value, tags, answer); jsonl: also scores of all labels, entities, further answers."""
    batch_tokens: int = 0
    """Tokens of a forward pass, to save memory; 0 means as many as suit the device."""
    max_length: int = 0
    """Tokens in a row, longer ones are cut (sequences to tag and passages are read in windows); 0 means as many as the
    model can read, for questions what it was trained with."""
    null_threshold: float | None = None
    """Answer a question with nothing where the odds of no answer exceed it; none: the model's, if it has one."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Arithmetic of matrix products."""
    device: str = "auto"
    """cuda, hpu, tpu, mps, cpu, or auto: the first of them that is there."""
    overwrite: bool = False
    """Replace --out if it exists."""

    def __post_init__(self) -> None:
        require(self.batch_tokens >= 0, "--batch-tokens must not be negative")
        require(self.max_length == 0 or self.max_length >= 8, "--max-length must be at least 8")
        given = [bool(self.text), bool(self.question), self.file is not None]
        require(sum(given) < 2, "give a file, --text or --question, not two of them")
        require(bool(self.question) == (self.context != ""), "--question and --context belong together: give both")
        require(self.null_threshold is None or math.isfinite(self.null_threshold), "--null-threshold must be finite")
        require(not (self.pair_column and not self.column), "--pair-column needs --column for the first text")
        require(not (self.choice_columns and not self.column), "--choice-columns needs --column for the text")
        require(not (self.column and self.file is None), "--column needs a file with named columns")
