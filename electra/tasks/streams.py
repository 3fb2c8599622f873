"""Text of any size, line by line and row by row, for prediction; memory holds one line.

    file or standard input -> `read_lines` (number, line) -> `read_rows` (number, {column: value})
    options, lines or rows -> `read_texts`: the texts of each input

`tables.py` reads the same formats for training, whole, and repairs what it can; here every line is to have its answer,
so that a line which cannot be read is a ValueError that names it.
"""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from electra.config import PredictConfig
from electra.tasks.tables import SUFFIXES, Row, as_text, get_column, whole_text

LONGEST_LINE = 1 << 26
"""Bytes; what has longer lines is no text."""


def read_lines(path: Path | None) -> Iterator[tuple[int, str]]:
    """The lines of a file, or of standard input, with their numbers from 1 and without their ends."""
    source = "standard input" if path is None else str(path)
    with _opened(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            # Split at "\n" alone: reviews contain U+2028 and the like, which do not end a line.
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{source}, line {number} is not UTF-8 text (byte {error.start} of the line): convert it first"
                ) from None
            if "\0" in text or (len(line) == LONGEST_LINE and not line.endswith(b"\n")):
                what = "holds a NUL byte" if "\0" in text else f"is longer than {LONGEST_LINE >> 20} MiB"
                raise ValueError(f"{source}, line {number} {what}: is this a text file?")
            yield number, text.removesuffix("\n").removesuffix("\r")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .tsv, .csv or .jsonl file, as `tables.read_table` has them."""
    if path.suffix == ".jsonl":
        yield from _json_rows(path)
        return
    columns: list[str] = []
    for number, row in _csv_rows(path) if path.suffix == ".csv" else _tab_rows(path):
        if not columns:
            columns = row
        elif len(row) == len(columns):
            yield number, dict(zip(columns, row, strict=True))
        else:
            raise ValueError(
                f"{path}, line {number}: {len(row)} columns where {len(columns)} ({', '.join(columns)}) belong"
            )


def _tab_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in read_lines(path) if line)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((f"{line}\n" for _, line in read_lines(path)), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f'{path}, line {number}: a line must be a JSON object such as {{"text": ...}}')
        yield number, {key: as_text(value) for key, value in row.items()}


def read_texts(config: PredictConfig) -> Iterator[list[str]]:
    """The texts of each input: of the options, of the lines of a file or of standard input, of the rows of a table."""
    if config.question:
        raise ValueError(
            "--question and --context are for models that answer questions: give this one --text or a file"
        )
    if config.text:
        yield from (check_whole("--text", text).split("\t") for text in config.text)
    elif not config.column:
        if config.file is not None and config.file.suffix in SUFFIXES:
            raise ValueError(f"{config.file} has named columns: say with --column which one holds the text")
        # An empty line is a text too, so that the n-th answer belongs to the n-th line.
        yield from (line.split("\t") for _, line in read_lines(config.file))
    else:
        assert config.file is not None
        for line, row in read_rows(config.file):
            text = get_column(row, config.column, config.file, line)
            pair = get_column(row, config.pair_column, config.file, line) if config.pair_column else None
            if config.choice_columns:
                choices = [get_column(row, column, config.file, line) for column in config.choice_columns]
                # The begin of each choice, as in SWAG (`sentences.encode_split`).
                yield [text, *(f"{pair} {choice}" if pair else choice for choice in choices)]
            else:
                yield [text] if pair is None else [text, pair]


def count_texts(config: PredictConfig) -> int:
    """How many inputs `read_texts` will give; 0 where that takes reading them: of standard input, .csv, a pipe."""
    path = config.file
    if path is None or not path.is_file() or path.suffix == ".csv":
        return len(config.text)
    with path.open("rb") as file:
        if not config.column:
            return sum(1 for _ in file)
        return sum(1 for line in file if line.strip()) - (path.suffix != ".jsonl")


def check_whole(option: str, text: str) -> str:
    """The text of an option; ValueError if it is not UTF-8, which a shell hands on all the same."""
    if whole_text(text) != text:
        raise ValueError(f"{option} is not UTF-8 text: convert it first")
    return text


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder where a file belongs") from None
    with file:
        yield file
