"""Rows of tab-separated, comma-separated and JSON-lines files, and what is wrong with their bytes and lines.

    bytes -> `read_text` (encoding, NUL) -> `read_table` (line number, {column: value})

Formats follow the suffix. `.csv` has quotes as spreadsheets write them, `.jsonl` one object a line; anything else is
tab-separated with quoting off: a line is a row and a quote is a quote, which is how GLUE's files are meant (read with
quotes, MRPC loses rows). With a `Problems`, a faulty row is left out or repaired and counted there; without, it is a
ValueError that names file and line. What makes a whole file useless is a ValueError always.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra.tasks.problems import Problems

SUFFIXES = (".tsv", ".csv", ".jsonl")
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
NUL_SHARE = 0.25
"""Bytes that are 0 in a file that is taken for UTF-16; text of the Latin alphabet has half of them there."""
BAD_LINES, BAD_SHARE = 10, 0.1
"""A file with more lines than both of these that are not UTF-8 is in another encoding, not damaged."""

Row = tuple[int, dict[str, str]]

_SURROGATES = re.compile("[\ud800-\udfff]")


def read_table(path: Path, header: tuple[str, ...] = (), problems: Problems | None = None) -> Iterator[Row]:
    """Yield (line number, {column: value}) for each row of a .tsv, .csv or .jsonl file.

    `header` names the columns of a file whose first line is already a row.
    """
    if path.suffix == ".jsonl":
        yield from _read_jsonl(path, problems)
        return
    rows = _csv_rows(path, problems) if path.suffix == ".csv" else _tab_rows(path, problems)
    columns = list(header)
    for line, row in rows:
        if not columns:
            columns = row
            twice = [column for column in columns if column and columns.count(column) > 1]
            if twice:
                raise ValueError(f"{path}, line {line}: two columns are called {twice[0]!r}; rename one of them")
        elif len(row) == len(columns):
            yield line, dict(zip(columns, row, strict=True))
        elif problems is None:
            raise ValueError(
                f"{path}, line {line}: {len(row)} columns where {len(columns)} ({', '.join(columns)}) belong"
            )
        else:
            problems.add(f"rows with another number of columns than {len(columns)}: left out", path, line)


def get_column(row: dict[str, str], column: str, path: Path, line: int) -> str:
    """One value of a row; ValueError names the columns that are there if that one is not."""
    if column not in row:
        raise ValueError(f"{path}, line {line}: no column {column!r}; the columns here are {', '.join(row)}")
    return row[column]


def read_text(path: Path, problems: Problems | None = None) -> str:
    """The file as text, without the byte-order mark that some GLUE files begin with.

    With `problems`, bytes that are not UTF-8 become U+FFFD and NUL bytes vanish, each line with some counted. A file
    in another encoding as a whole is a ValueError.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder where a file belongs") from None
    if data.startswith(UTF16) or data.count(0) > NUL_SHARE * len(data):
        raise ValueError(f"{path} is not UTF-8 but UTF-16 or UTF-32 text: convert it first")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if problems is None:
            raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): convert it first") from None
        text = _replace_bytes(path, data, problems)
    if problems is not None and "\0" in text:
        for number, line in enumerate(text.split("\n"), start=1):
            if "\0" in line:
                problems.add("lines with NUL bytes: these are removed", path, number)
        text = text.replace("\0", "")
    return text


def _replace_bytes(path: Path, data: bytes, problems: Problems) -> str:
    lines = data.split(b"\n")
    bad = [number for number, line in enumerate(lines, start=1) if not _is_utf8(line)]
    if 2 * len(bad) > len(lines) or len(bad) > max(BAD_LINES, BAD_SHARE * len(lines)):
        try:
            data.decode("cp949")
            guess = "; it could be CP949 (EUC-KR)"
        except UnicodeDecodeError:
            guess = ""
        raise ValueError(
            f"{path} is not UTF-8 text ({len(bad):,} of {len(lines):,} lines are not{guess}): convert it first"
        )
    for number in bad:
        problems.add("lines that are not UTF-8: their wrong bytes are replaced by U+FFFD", path, number)
    return data.decode("utf-8-sig", errors="replace")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _tab_rows(path: Path, problems: Problems | None) -> Iterator[tuple[int, list[str]]]:
    # Not str.splitlines: reviews contain U+2028 and the like, which do not end a row.
    lines = read_text(path, problems).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip("\r" if problems is None else "\t\r "):
            yield number, line.removesuffix("\r").split("\t")
        elif problems is not None and len(lines) > 1:
            problems.add("empty lines: left out", path, number)


def _csv_rows(path: Path, problems: Problems | None) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(read_text(path, problems), newline=""), strict=True)
    begin = 1
    while True:
        begin = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote that is never closed has swallowed the rest of the file.
            if problems is None or "unexpected end" in str(error):
                raise ValueError(f"{path}, line {begin}: not valid CSV ({error})") from None
            problems.add(f"rows that are not valid CSV ({error}): left out", path, begin)
            continue
        if any(value.strip() for value in row):
            yield reader.line_num, row
        elif problems is not None:
            problems.add("empty lines: left out", path, begin)


def as_text(value: Any) -> str:
    if value is None:
        return ""
    return whole_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def whole_text(text: str) -> str:
    """`text` with U+FFFD for halves of characters, which JSON and command lines can hold and no tokeniser takes."""
    return _SURROGATES.sub("\ufffd", text)


def _read_jsonl(path: Path, problems: Problems | None) -> Iterator[Row]:
    lines = read_text(path, problems).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            if problems is not None and len(lines) > 1:
                problems.add("empty lines: left out", path, number)
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: also for a number of thousands of digits
            if problems is None:
                raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from None
            row = None
        if isinstance(row, dict):
            yield number, {key: as_text(value) for key, value in row.items()}
        elif problems is None:
            raise ValueError(f'{path}, line {number}: a line must be a JSON object such as {{"text": ...}}')
        else:
            problems.add('lines that are not a JSON object such as {"text": ...}: left out', path, number)
