"""Bytes -> lines of plain text, with a mark where a document ends.

What a document is follows google-research/electra, build_pretraining_dataset.py: an empty line or the end of the file
ends it (`--blanks-separate-docs`); its builder for OpenWebText lets the end of a file alone end one, which is
`documents="files"`.
"""

from __future__ import annotations

import codecs
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

OnError = Literal["fail", "replace", "skip"]
Documents = Literal["blank-lines", "lines", "files"]

HEAD_BYTES = 8192  # where git, too, looks for a NUL byte to tell a binary file from text
LONG_LINE = 1 << 24  # bytes, beyond which a line of plain text is cut, at a space if there is one
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Unreadable(ValueError):
    """A file, or the rest of it, that cannot be read; the message names it and says what to do."""


@dataclass(frozen=True)
class Reading:
    """How text is read."""

    text_field: str = "text"
    """The column that holds the text in records."""
    on_error: OnError = "fail"
    """What becomes of bytes that are not UTF-8, bad records and damaged files: an error; U+FFFD for bytes, and the rest
    is left out; all is left out."""
    documents: Documents = "blank-lines"
    """What ends a document of plain text: an empty line, each line, or the end of its file alone."""
    sentences: str = ""
    """The language in which lines are split into sentences, as `sentencex` names it; none: lines stay as they are."""


@dataclass
class Tally:
    """What reading has met so far; the readers add to it."""

    disk_bytes: int = 0
    """Bytes taken from the disk, that is before decompression."""
    replaced: int = 0
    """Lines (or records) in which broken bytes became U+FFFD."""
    skipped: int = 0
    """Lines (or records) left out for broken bytes, or because they are no records."""
    faults: list[str] = field(default_factory=list)
    """A sentence for each file that could not be read, or not to its end."""

    def add(self, other: Tally) -> None:
        self.disk_bytes += other.disk_bytes
        self.replaced += other.replaced
        self.skipped += other.skipped
        self.faults += other.faults

    def take(self) -> Tally:
        """Everything counted so far, after which counting starts anew."""
        taken = Tally(self.disk_bytes, self.replaced, self.skipped, self.faults)
        self.disk_bytes = self.replaced = self.skipped = 0
        self.faults = []
        return taken


def warn_of_faults(faults: list[str]) -> None:
    """One UserWarning for all."""
    if faults:
        more = f" (and {len(faults) - 1} more files were not read, or not to their end)" if len(faults) > 1 else ""
        warnings.warn(f"{faults[0]}{more}", stacklevel=3)


def text_lines(place: str, blocks: Iterator[bytes], offset: int, reading: Reading, tally: Tally) -> Iterator[str]:
    """The stripped lines of blocks of bytes, the first of which begins at `offset` of the file `place`.

    Raises Unreadable for a file that is no text.
    """
    for whole in whole_lines(blocks, LONG_LINE):
        if offset == 0:
            check_head(place, whole)
        lines = _decode_lines(place, whole, offset, reading, tally)
        if offset == 0 and lines:
            lines[0] = lines[0].removeprefix("\ufeff").strip()
        yield from lines
        offset += len(whole)


def ends_of_documents(lines: Iterator[str], kind: str, documents: Documents) -> Iterator[str]:
    """An empty string where a document ends, and nowhere else.

    WikiExtractor writes each article between <doc ...> and </doc>, with empty lines inside.
    """
    if kind == "wiki":
        for line in lines:
            if line == "</doc>" or (line.startswith("<doc ") and line.endswith(">")):
                yield ""
            elif line:
                yield line
    elif documents == "lines":
        for line in lines:
            if line:
                yield line
                yield ""
    elif documents == "files":
        yield from filter(None, lines)
    else:
        yield from lines


def whole_lines(blocks: Iterator[bytes], longest: int | None = None) -> Iterator[bytes]:
    """Regroup blocks so that each ends with a line end (the last one need not); lines above `longest` bytes are cut."""
    carry: list[bytes] = []
    carried = 0
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if not end and longest is not None and carried + len(block) > longest:
            end = place_to_cut(block)
        if end:
            yield b"".join([*carry, block[:end]])
            carry, carried = [], 0
        if end < len(block):
            carry.append(block[end:])
            carried += len(block) - end
    if carry:
        yield b"".join(carry)


def place_to_cut(block: bytes) -> int:
    """Where a block of a very long line can be cut: after its last space, or else between two characters."""
    end = block.rfind(b" ") + 1
    if not end:
        end = len(block) - 1
        while end > 0 and block[end] & 0xC0 == 0x80:  # inside a character of UTF-8
            end -= 1
    return end


def check_head(place: str, head: bytes) -> None:
    """Raise Unreadable if a file that begins like this is no text."""
    if b"\0" in head[:HEAD_BYTES] or head.startswith(_UTF16):
        raise Unreadable(f"{place} is not UTF-8 text but binary, or UTF-16: leave it out, or convert it to UTF-8")


def _decode_lines(place: str, whole: bytes, offset: int, reading: Reading, tally: Tally) -> list[str]:
    # Decoding some 100 kB at once is the fast way; only where that fails are lines looked at one by one.
    if b"\0" not in whole:
        try:
            # Not str.splitlines: it would also split at U+0085, U+2028 and other characters within a line.
            return [line.strip() for line in whole.decode().removesuffix("\n").split("\n")]
        except UnicodeDecodeError:
            pass
    lines = []
    for raw in whole.removesuffix(b"\n").split(b"\n"):
        line = decode(raw, f"{place}:", offset, reading, tally)
        if line is not None:
            lines.append(line.strip())
        offset += len(raw) + 1
    return lines


def decode(raw: bytes, place: str, offset: int, reading: Reading, tally: Tally) -> str | None:
    """The text of one line or record that starts at `offset` of `place`, or None if it is left out."""
    fault = raw.find(b"\0")
    try:
        text = raw.decode()
        if fault < 0:
            return text
    except UnicodeDecodeError as error:
        fault = error.start if fault < 0 else min(fault, error.start)
    if reading.on_error == "fail":
        raise ValueError(f"{place} byte {offset + fault} is not UTF-8: mend it, or pass --on-error replace or skip")
    if reading.on_error == "skip":
        tally.skipped += 1
        return None
    tally.replaced += 1
    return raw.decode(errors="replace").replace("\0", "\ufffd")
