"""The tasks known by name, and how a task of one's own becomes the same thing.

A `Task` says where the examples are (files, columns), what the labels mean, which metric counts and what the
original training recipe was. It holds no data: `examples.py` reads that. The files are those of the official
distributions, taken as they are; the source of each task stands under it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from electra.config import TaskConfig


@dataclass(frozen=True)
class Task:
    """What fine-tuning has to know about a task over single texts or pairs of texts."""

    name: str
    text: str
    """Column of the first text."""
    label: str
    """Column of the label."""
    pair: str = ""
    """Column of the second text; empty for single texts."""
    header: tuple[str, ...] = ()
    """Column names of files that have no header line; empty: the first line names them."""
    train: str = "train"
    dev: str = "dev"
    test: str = "test"
    """File names; without a suffix, .tsv, .csv and .jsonl are tried. An empty `test` has no labels in public."""
    kind: Literal["classification", "regression"] = "classification"
    labels: tuple[str, ...] = ()
    """The labels as the files have them, in the order of the classes; empty: those of the training file."""
    label_names: tuple[str, ...] = ()
    """What the exported model calls them; empty: as the files do."""
    value_range: tuple[float, float] | None = None
    """Regression: the values that are 0 and 1 in training; None: smallest and largest of the training file."""
    metric: str = "accuracy"
    """The metric that names the best model."""
    epochs: float = 3.0
    both_orders: bool = False
    """Train on each pair in both orders: the relation is symmetric (Google's `double_unordered`)."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the exported model calls its outputs; that of a regression has the name of its column."""
        return self.label_names or self.labels or (self.label,)


SST2 = Task(
    name="sst2",
    text="sentence",
    label="label",
    train="train.tsv",
    dev="dev.tsv",
    test="",
    labels=("0", "1"),
    label_names=("negative", "positive"),
)
"""SST-2, sentiment of film reviews (Socher et al. 2013), as GLUE distributes it: 67,349 / 872 rows, header
`sentence label`. Metric: accuracy. Three epochs (Clark et al. 2020, table 7)."""

COLA = Task(
    name="cola",
    text="sentence",
    label="label",
    header=("source", "label", "mark", "sentence"),
    train="train.tsv",
    dev="dev.tsv",
    test="",
    labels=("0", "1"),
    label_names=("unacceptable", "acceptable"),
    metric="mcc",
)
"""CoLA, is this English sentence acceptable? (Warstadt et al. 2019), GLUE: 8,551 / 1,043 rows, no header, four
columns. Metric: Matthews correlation."""

MRPC = Task(
    name="mrpc",
    text="#1 String",
    pair="#2 String",
    label="Quality",
    train="train.tsv",
    dev="dev.tsv",
    test="",
    labels=("0", "1"),
    label_names=("not_equivalent", "equivalent"),
    both_orders=True,
)
"""MRPC, do two sentences mean the same? (Dolan and Brockett 2005), GLUE: 3,668 / 408 rows, header
`Quality, #1 ID, #2 ID, #1 String, #2 String`. Metric: accuracy (F1 is reported beside it)."""

RTE = Task(
    name="rte",
    text="sentence1",
    pair="sentence2",
    label="label",
    train="train.tsv",
    dev="dev.tsv",
    test="",
    labels=("entailment", "not_entailment"),
    epochs=10.0,
)
"""RTE, does the first text entail the second? (Dagan et al. and three later rounds), GLUE: 2,490 / 277 rows, header
`index sentence1 sentence2 label`. Metric: accuracy. Ten epochs (Clark et al. 2020, table 7)."""

STSB = Task(
    name="stsb",
    text="sentence1",
    pair="sentence2",
    label="score",
    train="train.tsv",
    dev="dev.tsv",
    test="",
    kind="regression",
    value_range=(0.0, 5.0),
    metric="spearman",
    epochs=10.0,
    both_orders=True,
)
"""STS-B, how similar are two sentences, from 0 to 5? (Cer et al. 2017), GLUE: 5,749 / 1,500 rows, header of ten
columns. Metric: Spearman correlation (Pearson is reported beside it). Ten epochs."""

NSMC = Task(
    name="nsmc",
    text="document",
    label="label",
    train="ratings_train.txt",
    dev="ratings_dev.txt",
    test="ratings_test.txt",
    labels=("0", "1"),
    label_names=("negative", "positive"),
)
"""NSMC, sentiment of Korean film reviews (github.com/e9t/nsmc): 150,000 training and 50,000 test rows, header
`id document label`; some documents are empty. There is no official dev file. Metric: accuracy."""

TASKS = {task.name: task for task in (SST2, COLA, MRPC, RTE, STSB, NSMC)}


def find_task(name: str, custom: TaskConfig) -> Task:
    """The task called `name`, or for "custom" the one that `custom` describes.

    Raises ValueError for an unknown name, and for columns that are given beside a named task, which has its own.
    """
    if name == "custom":
        return custom_task(custom)
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}: choose one of {', '.join(TASKS)}, or custom with its columns")
    if custom != TaskConfig():
        raise ValueError(f"--task {name} has its own columns, labels and metric: leave these out, or use --task custom")
    return TASKS[name]


def custom_task(config: TaskConfig) -> Task:
    """A task over train / dev / test files with a header line and the columns that `config` names."""
    default = "accuracy" if config.kind == "classification" else "spearman"
    return Task(
        name="custom",
        text=config.text,
        pair=config.pair,
        label=config.label,
        kind=config.kind,
        labels=config.labels,
        metric=default if config.metric == "auto" else config.metric,
    )
