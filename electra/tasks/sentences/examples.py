"""Examples of a sentence task: its files' rows as texts and labels, and which of them train and which score.

    tables.py (rows) -> `read_examples` (Example) -> labels.py (numbers) -> `load_task_data` (splits of a TaskData)

A row that cannot be used is left out and counted in a `Problems`; a label that nobody knows costs a training row its
place and any other row its share in the score. Only a file without a single usable row is a ValueError.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from electra.tasks.problems import Problems
from electra.tasks.sentences.labels import complete_task, is_known, known_labels, label_numbers
from electra.tasks.sentences.task import Part, SentenceTask
from electra.tasks.tables import SUFFIXES, get_column, read_table

DEV_SHARE = 0.1
"""Share of the training examples that stands in for a missing dev file."""
DEV_SEED = 0
"""Chooses them; the same for all seeds of a run, so that their results can be compared."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a file: the texts, the label as written (None: no such column), and the line it stands on."""

    text: str
    pair: str | None
    label: str | None
    line: int
    id: str | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """The examples of one part of a task's data and their labels as numbers."""

    path: Path
    examples: list[Example]
    labels: np.ndarray | None
    """As `labels.label_numbers` gives them. None: the file has no labels."""
    submission: str = ""
    """Name of the file that a leaderboard takes the answers in."""


@dataclass(frozen=True)
class TaskData:
    """Everything read for a task. `task` has its label set or value range filled in."""

    task: SentenceTask
    splits: dict[str, Split]
    """ "train", "dev", and the others in the order of the task."""
    notes: list[str]
    """Sentences about what was decided here; they are to be printed."""


@dataclass(frozen=True)
class Fold:
    """One part of `count` of the training file is dev, the others train."""

    number: int
    count: int


def load_task_data(
    task: SentenceTask,
    folder: Path,
    problems: Problems,
    *,
    max_train: int = 0,
    fold: Fold | None = None,
    published: bool = False,
    train: bool = True,
    cut_dev: bool = True,
) -> TaskData:
    """Read the files of `task` in `folder`.

    Without a dev file a tenth of the training examples, drawn with a fixed seed, becomes the dev set (`cut_dev`), or a
    fold of them. `max_train` > 0 keeps that many training examples, drawn with a fixed seed. `published` takes the test
    file for dev where published results did. Without `train` the training file is not read; `task` then needs its
    labels. A part without labels has its answers written and is not scored.
    """
    if not folder.is_dir():
        raise ValueError(f"--data {folder} is not a folder: give the one that holds the files of the task {task.name}")
    notes: list[str] = []
    parts = published_parts(task, folder, notes) if published else task.parts
    rows: list[Example] = []
    splits: dict[str, Split] = {}
    train_file = find_file(folder, task.train)
    if train:
        if train_file is None:
            raise ValueError(f"{folder} has no {_names(task.train)}, which the task {task.name} needs")
        rows = read_examples(train_file, task, task.header, problems)
        _require_labels(rows, train_file, task, task.header)
        task = complete_task(task, train_file, [row.label or "" for row in rows], notes)
        rows, labels = _known_labels(task, train_file, rows, problems)
        splits["train"] = Split(train_file, rows, labels)
    for part in parts:
        path = find_file(folder, part.file)
        if path is not None and part.split not in splits:
            splits[part.split] = _read_part(task, part, path, problems, notes)
    if train and train_file is not None:
        if fold is not None and "dev" in splits:
            raise ValueError(f"--folds is for tasks without a dev file, and {splits['dev'].path} is one: leave it out")
        if fold is not None or ("dev" not in splits and cut_dev):
            splits = _cut_dev(task, splits, fold, notes)
        splits["train"] = _training_rows(task, splits["train"], max_train, notes)
    if not splits:
        raise ValueError(f"{folder} has none of the files of the task {task.name} ({_names(*(p.file for p in parts))})")
    first = [name for name in ("train", "dev") if name in splits]
    return TaskData(task, {name: splits[name] for name in (*first, *(n for n in splits if n not in first))}, notes)


def read_examples(path: Path, task: SentenceTask, header: tuple[str, ...], problems: Problems) -> list[Example]:
    """The usable rows of one file of `task`; ValueError for a missing column or a file without any."""
    columns = [task.text, *([task.pair] if task.pair else []), *task.choices]
    examples: list[Example] = []
    ids: set[str] = set()
    for line, row in read_table(path, header, problems):
        lacking = [column for column in columns if column not in row]
        if lacking:
            if path.suffix != ".jsonl":
                get_column(row, lacking[0], path, line)
            problems.add(f"rows without {lacking[0]!r}: left out", path, line)
            continue
        texts = [row[column] for column in columns]
        if not all(text.strip() for text in texts):
            problems.add(f"rows with an empty text: {'left out' if task.skip_empty else 'kept'}", path, line)
            if task.skip_empty:
                continue
        name = row.get(task.id)
        if name is not None and name in ids:
            problems.add("rows with the id of an earlier row: kept", path, line)
        ids.add(name or "")
        label = row.get(task.label)
        pair = row[task.pair] if task.pair else None
        choices = tuple(row[column] for column in task.choices)
        examples.append(Example(texts[0], pair, label if label is None else label.strip(), line, name, choices))
    if not examples:
        faults = "; ".join(sentence for sentence in problems.sentences() if f"{path}," in sentence)
        raise ValueError(f"{path} holds no examples{f': {faults}' if faults else ''}")
    return examples


def find_file(folder: Path, name: str) -> Path | None:
    """`name` itself, or where it has no suffix the one of name.tsv, name.csv and name.jsonl that exists."""
    candidates = [folder / name] if Path(name).suffix else [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    for path in candidates:
        if path.is_dir():
            raise ValueError(f"{path} is a folder where a file belongs")
    found = [path for path in candidates if path.is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder} has {' and '.join(path.name for path in found)}: keep one of them")
    return found[0] if found else None


def published_parts(task: SentenceTask, folder: Path, notes: list[str]) -> tuple[Part, ...]:
    """The parts with the file that published results chose on in the place of dev; ValueError if it is not there."""
    if not task.published_dev:
        notes.append(f"--published-protocol changes nothing for {task.name}: its published results were chosen on dev")
        return task.parts
    chosen = next(part for part in task.parts if part.split == task.published_dev)
    if find_file(folder, chosen.file) is None:
        raise ValueError(f"{folder} has no {chosen.file}, which --published-protocol takes for dev: leave it out")
    notes.append(
        f"published protocol: {chosen.file}, the test file, chooses the model as dev, as in the published results; "
        "these scores are no measure of unseen text"
    )
    rest = [part for part in task.parts if part.split not in (task.published_dev, "dev")]
    return (replace(chosen, split="dev"), *rest)


def _read_part(task: SentenceTask, part: Part, path: Path, problems: Problems, notes: list[str]) -> Split:
    header = task.header if part.header is None else part.header
    rows = read_examples(path, task, header, problems)
    if part.split == "dev":
        _require_labels(rows, path, task, header)
    elif all(row.label is None for row in rows):
        notes.append(f"{path} has no column {task.label!r}: it is answered and not scored")
        return Split(path, rows, None, part.submission)
    labels = label_numbers(task, [row.label for row in rows])
    known = is_known(labels)
    if not known.any():
        if part.split == "dev":
            raise ValueError(f"{path} has no label of the label set ({known_labels(task)})")
        notes.append(f"{path} has no label of the label set ({known_labels(task)}): it is answered and not scored")
        return Split(path, rows, None, part.submission)
    _report_labels(task, path, [row for row, fine in zip(rows, known, strict=True) if not fine], problems, "not scored")
    return Split(path, rows, labels, part.submission)


def _known_labels(
    task: SentenceTask, path: Path, rows: list[Example], problems: Problems
) -> tuple[list[Example], np.ndarray]:
    labels = label_numbers(task, [row.label for row in rows])
    known = is_known(labels)
    _report_labels(task, path, [row for row, fine in zip(rows, known, strict=True) if not fine], problems, "left out")
    if not known.any():
        raise ValueError(f"{path} has no label of the label set ({known_labels(task)}): its first is {rows[0].label!r}")
    return [row for row, fine in zip(rows, known, strict=True) if fine], labels[known]


def _report_labels(task: SentenceTask, path: Path, rows: list[Example], problems: Problems, fate: str) -> None:
    for row in rows:
        problems.add(
            f"rows whose label is not in the label set ({known_labels(task)}): {fate}",
            path,
            f"line {row.line} ({row.label!r})",
        )


def _require_labels(rows: list[Example], path: Path, task: SentenceTask, header: tuple[str, ...]) -> None:
    if all(row.label is None for row in rows):
        columns = ", ".join(next(row for _, row in read_table(path, header, Problems())))
        raise ValueError(
            f"{path} has no column {task.label!r} for the labels, which the task {task.name} needs; it has {columns}"
        )


def _cut_dev(task: SentenceTask, splits: dict[str, Split], fold: Fold | None, notes: list[str]) -> dict[str, Split]:
    """Part of the training examples becomes dev, both in file order."""
    whole = splits["train"]
    assert whole.labels is not None
    count = len(whole.examples)
    if count < 2:
        raise ValueError(f"{whole.path} has one example: too few to cut a dev set from; add examples or a dev file")
    if fold is None:
        size = max(1, round(DEV_SHARE * count))
        apart = np.sort(np.random.default_rng(DEV_SEED).permutation(count)[:size])
        notes.append(
            f"no dev file in {whole.path.parent}: {size:,} of {count:,} training examples "
            f"({DEV_SHARE:.0%}, seed {DEV_SEED}) are kept apart as the dev set"
        )
    else:
        apart = _fold_rows(task, whole, fold)
        notes.append(f"fold {fold.number + 1} of {fold.count}: {len(apart):,} of {count:,} training examples are dev")
    rest = np.setdiff1d(np.arange(count), apart)
    parts = {"train": _take(whole, rest), "dev": _take(whole, apart)}
    return splits | parts


def _fold_rows(task: SentenceTask, whole: Split, fold: Fold) -> np.ndarray:
    """The examples of a fold: with the same share of each class in all, where there are classes."""
    from sklearn.model_selection import KFold, StratifiedKFold

    assert whole.labels is not None
    if len(whole.examples) < fold.count:
        raise ValueError(f"--folds {fold.count} is more than the {len(whole.examples)} examples of {whole.path}")
    options = {"n_splits": fold.count, "shuffle": True, "random_state": DEV_SEED}
    if (
        task.kind in ("classification", "multiple-choice")
        and max(Counter(whole.labels.tolist()).values()) >= fold.count
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a class with fewer examples than folds: some folds go without
            cuts = list(StratifiedKFold(**options).split(whole.labels, whole.labels))
    else:
        cuts = list(KFold(**options).split(whole.labels))
    return np.asarray(cuts[fold.number][1])


def _training_rows(task: SentenceTask, train: Split, max_train: int, notes: list[str]) -> Split:
    """What of the training examples is used, symmetric pairs in both orders."""
    count = len(train.examples)
    if 0 < max_train < count:
        notes.append(f"{max_train:,} of {count:,} training examples are used (seed {DEV_SEED})")
        train = _take(train, np.sort(np.random.default_rng(DEV_SEED).permutation(count)[:max_train]))
    if task.both_orders:
        assert train.labels is not None
        swapped = [replace(row, text=row.pair or "", pair=row.text) for row in train.examples]
        train = replace(train, examples=train.examples + swapped, labels=np.concatenate([train.labels] * 2))
        notes.append(f"training pairs are used in both orders: {len(train.examples):,} examples")
    return train


def _take(split: Split, rows: np.ndarray) -> Split:
    assert split.labels is not None
    return replace(split, examples=[split.examples[i] for i in rows], labels=split.labels[rows])


def _names(*files: str) -> str:
    return " or ".join(file if Path(file).suffix else " or ".join(f"{file}{end}" for end in SUFFIXES) for file in files)
