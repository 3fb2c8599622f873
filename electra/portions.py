"""A corpus -> portions: what one process, or one machine, does at a time.

A portion is some consecutive files, or a part of a large one between two documents, of about PORTION_BYTES. The plan
follows from the files alone, so that every machine that sees the same files makes the same one; each portion becomes
shards of its own. So a build that was interrupted goes on after the portions that are finished, machines can
share the portions, and text that comes later is more portions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from electra.corpus import Reading, is_divisible, next_document
from electra.storage import File, RemoteFile, StorageError

PORTION_BYTES = 1 << 30


@dataclass(frozen=True)
class Piece:
    """A file, or a byte range of a file of plain text that begins and ends between two documents."""

    path: File
    start: int
    stop: int
    """For a whole file, its size."""
    file_bytes: int
    changed: int | str
    """When the file was last changed, in nanoseconds, 0 for none; of a remote one, its version."""

    def is_as_planned(self) -> bool:
        """Whether the file is still as long and as old as when the plan was made."""
        if isinstance(self.path, RemoteFile):
            return self.path.is_unchanged()
        try:
            return _state(self.path) == (self.file_bytes, self.changed)
        except OSError:
            return self.changed == 0  # it was not there then either


@dataclass(frozen=True)
class Portion:
    """Some pieces, one after the other."""

    number: int
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        return f"portion-{self.number:05d}"

    @property
    def num_bytes(self) -> int:
        return sum(piece.stop - piece.start for piece in self.pieces)

    def to_json(self) -> list[list[Any]]:
        """What tells this portion from one of another corpus, also on another machine."""
        return [
            [str(piece.path), piece.start, piece.stop, piece.file_bytes]
            # The time of a file may differ between machines; the version of a remote one does not.
            + ([piece.changed] if isinstance(piece.path, RemoteFile) else [])
            for piece in self.pieces
        ]


def plan(files: Sequence[File], reading: Reading) -> list[Portion]:
    """All portions of a corpus in order."""
    portions: list[Portion] = []
    waiting: list[Piece] = []

    def finish() -> None:
        if waiting:
            portions.append(Portion(len(portions), tuple(waiting)))
            waiting.clear()

    for file in files:
        for piece in _pieces(file, reading):
            if sum(each.stop - each.start for each in waiting) + piece.stop - piece.start > PORTION_BYTES:
                finish()
            waiting.append(piece)
    finish()
    return portions


def _pieces(file: File, reading: Reading) -> list[Piece]:
    """The file, cut before documents if it is large, and of plain text with documents inside."""
    size = 0
    changed: int | str = 0
    borders = [0]
    try:
        size, changed = _state(file)
        if size > PORTION_BYTES and reading.documents != "files" and is_divisible(file):
            while size - borders[-1] > PORTION_BYTES:
                borders.append(next_document(file, borders[-1] + PORTION_BYTES, reading.documents))
    except StorageError:
        raise
    except OSError:
        pass  # a file that cannot be opened, or is not there, is for its reader to report
    if borders[-1] < size or size == 0:
        borders.append(size)
    return [Piece(file, start, stop, size, changed) for start, stop in itertools.pairwise(borders)]


def _state(file: File) -> tuple[int, int | str]:
    """Size, and what `Piece.changed` says."""
    if isinstance(file, RemoteFile):
        return file.size, file.version
    state = file.stat()
    return state.st_size, state.st_mtime_ns
