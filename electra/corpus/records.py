"""Records with a column of text -> lines; every record is a document, split into lines at its newlines.

JSON lines, CSV and TSV with a header, parquet, and Arrow files as `datasets.save_to_disk` writes them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

from electra.corpus.text import LONG_LINE, Reading, Tally, Unreadable, check_head, decode, whole_lines
from electra.storage import File, RemoteError, RemoteFile, open_file, size_of

csv.field_size_limit(LONG_LINE)
_PARQUET_BYTES = 1 << 16  # Arrow asks for whole columns, which go past the buffer


def json_lines(place: str, blocks: Iterator[bytes], reading: Reading, tally: Tally) -> Iterator[str]:
    """The lines of all records."""
    offset = number = 0
    for whole in whole_lines(blocks):
        if offset == 0:
            check_head(place, whole)
        for raw in whole.removesuffix(b"\n").split(b"\n"):
            number += 1
            line = decode(raw, f"{place}:", offset, reading, tally)
            offset += len(raw) + 1
            if line is not None and (line := line.removeprefix("\ufeff").strip()):
                where = f"{place}: line {number}"
                try:
                    text = _json_text(line, reading.text_field, where)
                except ValueError:
                    if reading.on_error == "fail":
                        raise
                    tally.skipped += 1
                else:
                    yield from _record_lines(text, where, reading, tally)


def _json_text(line: str, text_field: str, place: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON ({error}): every line must be a JSON object") from None
    if not isinstance(record, dict):
        raise ValueError(f"{place} is not a JSON object but {type(record).__name__}: every line must be an object")
    if text_field not in record:
        raise ValueError(f"{place} has no {text_field!r} but {_names(record)}: choose one with --text-field")
    text = record[text_field]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{place}: {text_field!r} is not text but {type(text).__name__}: choose another --text-field")
    return text or ""


def _record_lines(text: str, place: str, reading: Reading, tally: Tally) -> Iterator[str]:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell but UTF-8 cannot
        text = decode(text.encode(errors="surrogatepass"), f"{place}, its text at", 0, reading, tally) or ""
    for line in text.split("\n"):
        if stripped := line.strip():
            yield stripped
    yield ""


def table_lines(place: str, blocks: Iterator[bytes], delimiter: str, reading: Reading, tally: Tally) -> Iterator[str]:
    """The lines of all rows of a CSV or TSV file; quoted fields may hold newlines."""

    def lines() -> Iterator[str]:
        offset = 0
        for whole in whole_lines(blocks):
            if offset == 0:
                check_head(place, whole)
            for raw in whole.splitlines(keepends=True):
                line = decode(raw, f"{place}:", offset, reading, tally)
                if line is not None:
                    yield line.removeprefix("\ufeff") if offset == 0 else line
                offset += len(raw)

    rows = csv.reader(lines(), delimiter=delimiter)
    try:
        header = next(rows, [])
        if reading.text_field not in header:
            raise Unreadable(
                f"{place} has no column {reading.text_field!r} but {_names(header)}: its first line must name the "
                "columns, and --text-field one of them"
            )
        column = header.index(reading.text_field)
        for row in rows:
            if len(row) > column:
                yield from _record_lines(row[column], f"{place}: line {rows.line_num}", reading, tally)
            elif row and reading.on_error == "fail":
                raise ValueError(
                    f"{place}: line {rows.line_num} has {len(row)} fields where the header has {len(header)}: mend it, "
                    "or pass --on-error skip"
                )
            elif row:
                tally.skipped += 1
    except csv.Error as error:
        raise Unreadable(f"{place}: line {rows.line_num} is no row of a table ({error}): mend its quotes") from None


def parquet_lines(path: File, reading: Reading, tally: Tally) -> Iterator[str]:
    """The lines of all rows of a parquet file."""
    arrow = _arrow(path)
    import pyarrow.parquet as parquet

    try:
        source = open_file(path, _PARQUET_BYTES) if isinstance(path, RemoteFile) else path
        with parquet.ParquetFile(source) as file:
            _check_column(path, file.schema_arrow, reading.text_field)

            def batches() -> Iterator[Any]:
                for group in range(file.num_row_groups):
                    yield from file.iter_batches(batch_size=256, row_groups=[group], columns=[reading.text_field])
                    tally.disk_bytes += size_of(path) // file.num_row_groups

            yield from _column_lines(path, batches(), reading, tally)
    except RemoteError:
        raise
    except (arrow.ArrowException, OSError) as error:
        raise Unreadable(f"{path} is damaged or no parquet file ({_brief(error)}): make it again") from None


def arrow_lines(path: File, reading: Reading, tally: Tally) -> Iterator[str]:
    """The lines of all rows of an Arrow stream, or an Arrow file."""
    arrow = _arrow(path)
    try:
        remote = isinstance(path, RemoteFile)
        with arrow.PythonFile(open_file(path), "r") if remote else arrow.OSFile(str(path)) as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            reader = arrow.ipc.open_file(file) if is_file else arrow.ipc.open_stream(file)
            _check_column(path, reader.schema, reading.text_field)

            def batches() -> Iterator[Any]:
                taken = 0
                for batch in map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader:
                    yield batch.select([reading.text_field])
                    tally.disk_bytes += max(0, file.tell() - taken)
                    taken = max(taken, file.tell())
                tally.disk_bytes += size_of(path) - taken

            yield from _column_lines(path, batches(), reading, tally)
    except RemoteError:
        raise
    except (arrow.ArrowException, OSError) as error:
        raise Unreadable(f"{path} is damaged or no Arrow file ({_brief(error)}): make it again") from None


def _arrow(path: File) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ValueError(f"{path}: reading it needs pyarrow: pip install 'electra-toolkit[parquet]'") from None
    return pyarrow


def _check_column(path: File, schema: Any, name: str) -> None:
    from pyarrow import types

    if name not in schema.names:
        raise Unreadable(f"{path} has no column {name!r} but {_names(schema.names)}: see --text-field")
    kind = schema.field(name).type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        raise Unreadable(f"{path}: column {name!r} is not text but {kind}: choose another --text-field")


def _column_lines(path: File, batches: Iterator[Any], reading: Reading, tally: Tally) -> Iterator[str]:
    """The lines of record batches of one column."""
    from pyarrow import large_binary

    number = 0
    for batch in batches:
        # As bytes, because Arrow does not check that its strings are UTF-8.
        for raw in batch.column(0).cast(large_binary()).to_pylist():
            number += 1
            place = f"{path}: record {number}"
            text = decode(raw or b"", f"{place},", 0, reading, tally)
            if text:
                yield from _record_lines(text, place, reading, tally)


def _names(names: Any) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _brief(error: Exception) -> str:
    return str(error).split("\n")[0]
