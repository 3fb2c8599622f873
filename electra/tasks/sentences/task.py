"""What fine-tuning has to know about a sentence task: where its examples are and what their labels mean.

    catalogue (glue.py, korean.py) or `custom_task` -> `SentenceTask` -> examples.py, which reads the files

It holds no data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from electra.config import TaskConfig
from electra.config.finetuning import METRICS

SentenceKind = Literal["classification", "regression", "multi-label", "multiple-choice"]
KINDS: tuple[SentenceKind, ...] = ("classification", "regression", "multi-label", "multiple-choice")


@dataclass(frozen=True)
class Part:
    """A file beside the one for training: a split that is scored, or only answered where it has no labels."""

    split: str
    """Its name; the one called dev names the best model."""
    file: str
    """Name in the task's folder; without a suffix, .tsv, .csv and .jsonl are tried."""
    header: tuple[str, ...] | None = None
    """Column names if the file has no header line; none: as in the training file."""
    submission: str = ""
    """Name of the file that a leaderboard takes the answers in; empty: SPLIT.tsv."""


@dataclass(frozen=True)
class SentenceTask:
    """A task over single texts, pairs of texts, or texts with choices."""

    name: str
    text: str
    """Column of the first text."""
    label: str
    """Column of the label."""
    pair: str = ""
    """Column of the second text; empty for single texts."""
    choices: tuple[str, ...] = ()
    """Multiple choice: the columns of the choices."""
    id: str = ""
    """Column that names a row in the predictions, where a file has it; else rows are numbered from 0."""
    header: tuple[str, ...] = ()
    """Column names of files that have no header line; empty: the first line names them."""
    train: str = "train"
    parts: tuple[Part, ...] = (Part("dev", "dev"), Part("test", "test"))
    """Files are named without a suffix where .tsv, .csv and .jsonl will do."""
    published_dev: str = ""
    """The split that published results chose their checkpoint on, where that was not dev."""
    kind: SentenceKind = "classification"
    labels: tuple[str, ...] = ()
    """The labels as the files have them, in the order of the classes; empty: those of the training file."""
    label_names: tuple[str, ...] = ()
    """What the exported model calls them; empty: as the files do."""
    separator: str = ","
    """Multi-label: what stands between two labels."""
    value_range: tuple[float, float] | None = None
    """Regression: the values that are 0 and 1 in training; None: smallest and largest of the training file."""
    metric: str = "accuracy"
    """The metric that names the best model."""
    epochs: float = 3.0
    """The paper's (Clark et al. 2020, table 7)."""
    both_orders: bool = False
    """Train on each pair in both orders: the relation is symmetric (Google's `double_unordered`)."""
    skip_empty: bool = False
    """Leave out rows with an empty text instead of keeping them."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the exported model calls its outputs; that of a regression has the name of its column."""
        return self.label_names or self.labels or (self.label,)


def custom_task(name: str, config: TaskConfig) -> SentenceTask:
    """A task over train / dev / test files with a header line and the columns that `config` names."""
    assert config.kind in KINDS
    return SentenceTask(
        name=name,
        text=config.text,
        pair=config.pair,
        choices=config.choices,
        label=config.label,
        id=config.id,
        kind=config.kind,
        labels=config.labels,
        separator=config.separator,
        metric=METRICS[config.kind][0] if config.metric == "auto" else config.metric,
    )
