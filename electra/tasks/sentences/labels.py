"""Labels of sentence tasks: the label set where a task does not fix it, and labels as numbers.

labels as written -> `complete_task` (label set, value range) -> `label_numbers` (class, value, several classes)
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from electra.tasks.sentences.task import SentenceTask

UNKNOWN = -1
"""The class of a label that is not in the label set; in a regression nan."""
TYPO_ROWS = 50
"""In a file of this size a label that occurs once is worth a word."""


def complete_task(task: SentenceTask, path: Path, labels: Sequence[str], notes: list[str]) -> SentenceTask:
    """Fill in the label set or the value range from the training labels, where the task does not fix it.

    ValueError where there is nothing to learn: one label only, or one value.
    """
    if task.kind == "regression":
        values = [value for label in labels if math.isfinite(value := _number(label))]
        if not values:
            raise ValueError(f"{path} has no number as a label: the first is {labels[0]!r}")
        if min(values) == max(values):
            raise ValueError(f"{path}: every value of {task.label!r} is {values[0]}, there is nothing to learn")
        return replace(task, value_range=task.value_range or (min(values), max(values)))
    if task.kind == "multiple-choice":
        return replace(task, labels=task.labels or choice_labels(task, path, labels))
    if not task.labels:
        each = [[label] for label in labels if label] if task.kind == "classification" else []
        counts = Counter(name for names in each or [split_labels(task, label) for label in labels] for name in names)
        names = sorted(counts, key=int) if all(name.isdecimal() for name in counts) else sorted(counts)
        once = [name for name in names if counts[name] == 1]
        if once and len(labels) >= TYPO_ROWS:
            notes.append(
                f"labels that {path} has only once: {', '.join(map(repr, once[:5]))}{' ...' if once[5:] else ''}; if "
                "they are typing errors, give the label set with --labels"
            )
        task = replace(task, labels=tuple(names))
    if len(task.labels) < 2:
        raise ValueError(f"{path}: the only label is {''.join(task.labels)!r}, there is nothing to learn")
    return task


def choice_labels(task: SentenceTask, path: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """How the right one of the choices is written: from 0, from 1, as a letter, or as the name of its column."""
    count = len(task.choices)
    numbers = tuple(map(str, range(count + 1)))
    capitals = tuple(chr(ord("A") + index) for index in range(count))
    ways = [numbers[:-1], numbers[1:], capitals, tuple(letter.lower() for letter in capitals), task.choices]
    fits = [sum(label in way for label in labels) for way in ways]
    best = max(fits)
    if best == 0:
        raise ValueError(f"{path}: the label {labels[0]!r} names none of {count} choices; give --labels in their order")
    if fits[0] == fits[1] == best:
        raise ValueError(f"{path}: do its labels count the {count} choices from 0 or from 1? give --labels")
    return ways[fits.index(best)]


def label_numbers(task: SentenceTask, labels: Sequence[str | None]) -> np.ndarray:
    """The labels of N examples as numbers, `UNKNOWN` or nan where one is not in the label set or missing (None).

    (N,) int64 classes or choices, (N,) float32 values of a regression, (N, C) float32 zeros and ones for multi-label.
    """
    if task.kind == "regression":
        return np.array([math.nan if label is None else _number(label) for label in labels], dtype=np.float32)
    if task.kind == "multi-label":
        return np.array([_zeros_and_ones(task, label) for label in labels], dtype=np.float32)
    numbers = {name: number for number, name in enumerate(task.labels)}
    return np.array([UNKNOWN if label is None else numbers.get(label, UNKNOWN) for label in labels], dtype=np.int64)


def is_known(labels: np.ndarray) -> np.ndarray:
    """(N,) bool: which labels can train or score."""
    if labels.ndim == 2:
        return np.asarray((labels != UNKNOWN).all(axis=1))
    return np.isfinite(labels) if labels.dtype == np.float32 else labels != UNKNOWN


def known_labels(task: SentenceTask) -> str:
    """The label set for people."""
    if task.kind == "regression":
        return "numbers"
    return ", ".join(task.labels[:10]) + (f" and {len(task.labels) - 10} others" if len(task.labels) > 10 else "")


def split_labels(task: SentenceTask, label: str) -> list[str]:
    """The labels of a text in a multi-label task, perhaps none: a JSON list, or with the separator between them."""
    if label.startswith("["):
        try:
            return [str(name) for name in json.loads(label)]
        except json.JSONDecodeError:
            pass
    return [name.strip() for name in label.split(task.separator) if name.strip()]


def class_weights(given: Sequence[str], labels: Sequence[str], classes: np.ndarray) -> np.ndarray | None:
    """(C,) weights of the classes: none, as given, or balanced: n / (classes that occur * count), scikit-learn's rule.

    `classes` (P,) are the classes of the training rows, negative ones do not count; one that does not occur gets 1.
    ValueError for anything but "balanced" or a number a label.
    """
    if not given:
        return None
    if tuple(given) == ("balanced",):
        counts = np.bincount(classes[classes >= 0], minlength=len(labels))
        balanced = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return np.where(counts, balanced, 1.0)
    try:
        weights = np.array([float(value) for value in given])
    except ValueError:
        raise ValueError(f"--class-weights {' '.join(given)}: give the word balanced or numbers") from None
    if len(weights) != len(labels):
        raise ValueError(f"--class-weights has {len(weights)} numbers for {len(labels)} labels: {', '.join(labels)}")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError(f"--class-weights {' '.join(given)}: weights must not be negative, nor all 0")
    return weights


def _zeros_and_ones(task: SentenceTask, label: str | None) -> list[float]:
    names = None if label is None else split_labels(task, label)
    if names is None or not set(names) <= set(task.labels):
        return [float(UNKNOWN)] * len(task.labels)
    return [float(name in names) for name in task.labels]


def _number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        return math.nan
