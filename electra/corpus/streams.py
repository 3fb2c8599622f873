"""A stream of bytes -> its lines, whatever it holds: also tar archives, and archives in archives as OpenWebText's."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

from electra.corpus.decompress import READ_BYTES, BlockFile, decompress
from electra.corpus.files import named_format, sniff
from electra.corpus.records import json_lines, table_lines
from electra.corpus.text import Reading, Tally, ends_of_documents, text_lines


def stream_lines(place: str, kind: str, blocks: Iterator[bytes], reading: Reading, tally: Tally) -> Iterator[str]:
    """The lines of a stream whose name says `kind`, whatever that is but parquet and Arrow."""
    if kind in ("", "text", "wiki"):
        first = next(blocks, b"")
        kind = sniff(first, kind)
        blocks = itertools.chain([first], blocks)
    if kind == "tar":
        yield from _archive_lines(place, blocks, reading, tally)
    elif kind == "jsonl":
        yield from json_lines(place, blocks, reading, tally)
    elif kind in ("csv", "tsv"):
        yield from table_lines(place, blocks, "," if kind == "csv" else "\t", reading, tally)
    else:
        yield from ends_of_documents(text_lines(place, blocks, 0, reading, tally), kind, reading.documents)
        yield ""


def _archive_lines(place: str, blocks: Iterator[bytes], reading: Reading, tally: Tally) -> Iterator[str]:
    """The lines of all members in the order in which they lie there; those that nothing here reads are passed over."""
    with tarfile.open(fileobj=io.BufferedReader(BlockFile(blocks)), mode="r|") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            file = archive.extractfile(member) if member.isfile() and not name.startswith(".") else None
            kind, compression = named_format(name)
            if file is None or kind in ("parquet", "arrow") or not (kind or compression):
                continue
            inside = decompress(file, compression, READ_BYTES)
            yield from stream_lines(f"{place}: {member.name}", kind, inside, reading, tally)
