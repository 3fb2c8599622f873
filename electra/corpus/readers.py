"""A file -> its lines, whole or in parts."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import IO

from electra.corpus import decompress
from electra.corpus.files import file_format, named_format
from electra.corpus.records import arrow_lines, parquet_lines
from electra.corpus.streams import stream_lines
from electra.corpus.text import (
    HEAD_BYTES,
    LONG_LINE,
    Documents,
    Reading,
    Tally,
    Unreadable,
    check_head,
    ends_of_documents,
    place_to_cut,
    text_lines,
)
from electra.storage import File, StorageError, open_file

_BORDERS = {
    "blank-lines": re.compile(rb"\n[ \t\r]*\n"),
    "lines": re.compile(rb"\n"),
    "wiki": re.compile(rb"\n</doc>[ \t\r]*\n"),
}
_LONGEST_BORDER = 64
_CUT_BYTES = 1 << 18  # of a remote file, read to find the end of a line


def read_lines(path: File, reading: Reading | None = None, tally: Tally | None = None) -> Iterator[str]:
    """Stream the stripped lines of a file; an empty string ends a document (several in a row end nothing more).

    With `on_error` fail it raises ValueError for bytes that are not UTF-8 (with their offset in the decompressed text),
    binary files, damaged or truncated ones, records that are not JSON and missing text columns, and OSError for files
    that cannot be opened. Otherwise what can be read is given, and the tally says what could not.
    """
    reading, tally = reading or Reading(), tally or Tally()
    try:
        yield from _read_lines(path, reading, tally)
    except (Unreadable, OSError) as error:
        if reading.on_error == "fail" or isinstance(error, StorageError):
            raise
        tally.faults.append(str(error))
        yield ""


def _read_lines(path: File, reading: Reading, tally: Tally) -> Iterator[str]:
    kind = named_format(path.name).kind
    if kind == "parquet":
        yield from parquet_lines(path, reading, tally)
    elif kind == "arrow":
        yield from arrow_lines(path, reading, tally)
    else:
        try:
            yield from stream_lines(str(path), kind, _blocks(path, tally), reading, tally)
        except (*decompress.DAMAGES, tarfile.TarError) as error:
            brief = str(error).split("\n")[0]
            raise Unreadable(f"{path} is damaged or cut short ({brief}): fetch or make it again") from None


def _blocks(path: File, tally: Tally) -> Iterator[bytes]:
    """The decompressed bytes of a file."""
    with open_file(path) as raw:
        taken = 0
        for block in decompress.decompress(raw, named_format(path.name).compression, decompress.READ_BYTES):
            tally.disk_bytes += raw.tell() - taken
            taken = raw.tell()
            yield block


def is_divisible(path: File) -> bool:
    """Whether `cut` and `read_range` work on the file: plain text that is not compressed."""
    return file_format(path) in (("text", ""), ("wiki", ""))


def cut(path: File, size: int, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Cut plain text into byte ranges of about `size`, each of which ends with a line unless that is very long.

    `start` and `end` are places between two lines; without them it is the whole file. Raises Unreadable for a file that
    is no text.
    """
    with open_file(path, _CUT_BYTES) as file:
        check_head(str(path), file.read(HEAD_BYTES))
        end = file.seek(0, 2) if end is None else end
        while start < end:
            file.seek(min(start + size, end) - 1)
            stop = _end_of_line(file)
            yield start, stop
            start = stop


def next_document(path: File, position: int, documents: Documents) -> int:
    """Where the first document begins that begins after `position` of a file of plain text; its size if none does.

    Not one after an empty line of other characters than spaces, tabs and returns, which ends a document too.
    """
    border = _BORDERS["wiki" if file_format(path).kind == "wiki" else documents]
    with open_file(path) as file:
        file.seek(position)
        window = b""
        while block := file.read(decompress.READ_BYTES):
            window = window[-_LONGEST_BORDER:] + block
            if found := border.search(window):
                return file.tell() - len(window) + found.end()
        return file.tell()


def _end_of_line(file: IO[bytes]) -> int:
    """The position after the line in which an open file stands; a very long one is cut."""
    seen = 0
    while piece := file.readline(decompress.READ_BYTES):
        seen += len(piece)
        if piece.endswith(b"\n"):
            break
        if seen > LONG_LINE:
            return file.tell() - len(piece) + place_to_cut(piece)
    return file.tell()


def read_range(
    path: File, start: int, stop: int, reading: Reading | None = None, tally: Tally | None = None
) -> Iterator[str]:
    """The stripped lines of a byte range that `cut` made; a document may go on into the next range."""
    reading, tally = reading or Reading(), tally or Tally()

    def blocks() -> Iterator[bytes]:
        with open_file(path, min(stop - start, LONG_LINE), stop) as file:
            file.seek(start)
            while block := file.read(min(decompress.READ_BYTES, stop - file.tell())):
                tally.disk_bytes += len(block)
                yield block

    try:
        lines = text_lines(str(path), blocks(), start, reading, tally)
        yield from ends_of_documents(lines, file_format(path).kind, reading.documents)
    except (Unreadable, OSError) as error:
        if reading.on_error == "fail" or isinstance(error, StorageError):
            raise
        tally.faults.append(str(error))
