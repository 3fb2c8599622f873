"""Examples of a task, read from tab-separated, comma-separated and JSON-lines files.

    file -> `read_table` (line number, {column: value}) -> `read_examples` (Example) -> `load_task_data` (TaskData)

Formats follow the suffix. `.csv` has quotes as spreadsheets write them, `.jsonl` one object a line; anything else is
tab-separated with quoting off: a line is a row and a quote is a quote, which is how GLUE's files are meant (read with
quotes, MRPC loses rows). Whatever is wrong with a file is a ValueError that names file and line.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from electra.tasks.catalogue import Task

SUFFIXES = (".tsv", ".csv", ".jsonl")
DEV_SHARE = 0.1
"""Share of the training examples that stands in for a missing dev file."""
DEV_SEED = 0
"""Chooses them; the same for all seeds of a run, so that their results can be compared."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a file: the texts, the label as written, and the line it stands on."""

    text: str
    pair: str | None
    label: str
    line: int


@dataclass(frozen=True)
class Split:
    """The examples of one part of a task's data and their labels as numbers."""

    path: Path
    examples: list[Example]
    labels: np.ndarray
    """(N,) int64 class numbers, or float32 values for a regression."""


@dataclass(frozen=True)
class TaskData:
    """Everything read for a task. `task` has its label set or value range filled in."""

    task: Task
    train: Split
    dev: Split
    test: Split | None
    notes: list[str]
    """Sentences about what was decided here; they are to be printed."""


def load_task_data(task: Task, folder: Path, max_train: int = 0) -> TaskData:
    """Read the files of `task` in `folder`.

    Without a dev file a tenth of the training examples, drawn with a fixed seed, becomes the dev set. A test file is
    used only if its labels are there. `max_train` > 0 keeps that many training examples, drawn with a fixed seed.
    """
    if not folder.is_dir():
        raise ValueError(f"--data {folder} is not a folder: give the one that holds the files of the task {task.name}")
    notes = []
    train_file, dev_file = _find_file(folder, task.train), _find_file(folder, task.dev)
    if train_file is None:
        expected = task.train if Path(task.train).suffix else " or ".join(f"{task.train}{end}" for end in SUFFIXES)
        raise ValueError(f"{folder} has no {expected}, which the task {task.name} needs")
    rows = read_examples(train_file, task)
    task = _complete(task, train_file, rows)
    if dev_file is not None:
        dev_rows = read_examples(dev_file, task)
    else:
        if len(rows) < 2:
            raise ValueError(f"{train_file} has one example: too few to cut a dev set from; add examples or a dev file")
        rows, dev_rows = _cut_dev(rows)
        notes.append(
            f"no {task.dev} file in {folder}: {len(dev_rows):,} of {len(rows) + len(dev_rows):,} training examples "
            f"({DEV_SHARE:.0%}, seed {DEV_SEED}) are kept apart as the dev set"
        )
    if 0 < max_train < len(rows):
        notes.append(f"{max_train:,} of {len(rows):,} training examples are used (seed {DEV_SEED})")
        chosen = np.random.default_rng(DEV_SEED).permutation(len(rows))[:max_train]
        rows = [rows[i] for i in np.sort(chosen)]
    if task.both_orders:
        swapped = [replace(row, text=row.pair, pair=row.text) for row in rows if row.pair is not None]
        rows = rows + swapped
        notes.append(f"training pairs are used in both orders: {len(rows):,} examples")
    return TaskData(
        task=task,
        train=Split(train_file, rows, label_numbers(task, train_file, rows)),
        dev=Split(dev_file or train_file, dev_rows, label_numbers(task, dev_file or train_file, dev_rows)),
        test=_read_test(task, folder, notes),
        notes=notes,
    )


def read_examples(path: Path, task: Task) -> list[Example]:
    """The rows of one file of `task`; ValueError for a missing column or a file without rows."""
    examples = []
    for line, row in read_table(path, task.header):
        text, label = get_column(row, task.text, path, line), get_column(row, task.label, path, line)
        pair = get_column(row, task.pair, path, line) if task.pair else None
        examples.append(Example(text, pair, label.strip(), line))
    if not examples:
        raise ValueError(f"{path} holds no examples")
    return examples


def read_table(path: Path, header: tuple[str, ...] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, {column: value}) for each row of a .tsv, .csv or .jsonl file.

    `header` names the columns of a file whose first line is already a row.
    """
    if path.suffix == ".jsonl":
        yield from _read_jsonl(path)
        return
    rows = _csv_rows(path) if path.suffix == ".csv" else _tab_rows(path)
    columns = list(header)
    for line, row in rows:
        if not columns:
            columns = row
            continue
        if len(row) != len(columns):
            raise ValueError(
                f"{path}, line {line}: {len(row)} columns where {len(columns)} ({', '.join(columns)}) belong"
            )
        yield line, dict(zip(columns, row, strict=True))


def get_column(row: dict[str, str], column: str, path: Path, line: int) -> str:
    """One value of a row; ValueError names the columns that are there if that one is not."""
    if column not in row:
        raise ValueError(f"{path}, line {line}: no column {column!r}; the columns here are {', '.join(row)}")
    return row[column]


def label_numbers(task: Task, path: Path, examples: list[Example]) -> np.ndarray:
    """Class numbers (int64) or values (float32); ValueError names file, line and label of the first that is neither."""
    if task.kind == "regression":
        return np.array([_number(path, example) for example in examples], dtype=np.float32)
    classes = {label: number for number, label in enumerate(task.labels)}
    for example in examples:
        if example.label not in classes:
            known = ", ".join(task.labels)
            raise ValueError(f"{path}, line {example.line}: label {example.label!r} is not in the label set ({known})")
    return np.array([classes[example.label] for example in examples], dtype=np.int64)


def read_text(path: Path) -> str:
    """The file as text, without the byte-order mark that some GLUE files begin with."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder where a file belongs") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): convert it first") from None


def _tab_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    # Not str.splitlines: reviews contain U+2028 and the like, which do not end a row.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip("\r"):
            yield number, line.removesuffix("\r").split("\t")


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f'{path}, line {number}: a line must be a JSON object such as {{"text": ...}}')
        yield number, {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}


def _find_file(folder: Path, name: str) -> Path | None:
    """`name` itself, or where it has no suffix the one of name.tsv, name.csv and name.jsonl that exists."""
    candidates = [folder / name] if Path(name).suffix else [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    found = [path for path in candidates if path.is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder} has {' and '.join(path.name for path in found)}: keep one of them")
    return found[0] if found else None


def _cut_dev(rows: list[Example]) -> tuple[list[Example], list[Example]]:
    """Training and dev examples, each in file order."""
    size = max(1, round(DEV_SHARE * len(rows)))
    kept_apart = set(np.random.default_rng(DEV_SEED).permutation(len(rows))[:size].tolist())
    train = [row for i, row in enumerate(rows) if i not in kept_apart]
    return train, [row for i, row in enumerate(rows) if i in kept_apart]


def _complete(task: Task, path: Path, rows: list[Example]) -> Task:
    """Fill in the label set or the value range from the training examples, where the task does not fix it."""
    if task.kind == "regression":
        if task.value_range is None:
            values = [_number(path, row) for row in rows]
            task = replace(task, value_range=(min(values), max(values)))
            if min(values) == max(values):
                raise ValueError(f"{path}: every value of {task.label!r} is {values[0]}, there is nothing to learn")
        return task
    if not task.labels:
        found = {row.label for row in rows}
        in_order = sorted(found, key=int) if all(label.isdecimal() for label in found) else sorted(found)
        task = replace(task, labels=tuple(in_order))
    if len(task.labels) < 2:
        raise ValueError(f"{path}: the only label is {task.labels[0]!r}, there is nothing to learn")
    return task


def _read_test(task: Task, folder: Path, notes: list[str]) -> Split | None:
    path = _find_file(folder, task.test) if task.test else None
    if path is None:
        return None
    first = next(read_table(path, task.header), None)
    if first is not None and task.label not in first[1]:
        notes.append(f"{path} has no column {task.label!r}: it is not evaluated")
        return None
    rows = read_examples(path, task)
    return Split(path, rows, label_numbers(task, path, rows))


def _number(path: Path, example: Example) -> float:
    try:
        value = float(example.label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}, line {example.line}: the label {example.label!r} is not a number")
    return value
