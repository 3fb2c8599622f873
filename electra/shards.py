"""Documents as tokens -> shards of a token store on disk, streamed: memory is bounded by the lines of one shard.

`ShardWriter` appends parts of any size and ends a shard at the first document boundary after so many tokens. Of what is
written only the last document can be taken back. store.py says what the files of a shard are and makes stores of them.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from pathlib import Path
from typing import IO, Any

import numpy as np

from electra.files import sha256
from electra.near_duplicates import BandWriter
from electra.tokenizer import Vocabulary

SHARD_TOKENS = 1 << 28
_NPY_HEADER_BYTES = 128


class ShardWriter:
    """Write shards into `folder`, part by part, with memory bounded by the number of lines of one shard.

    A shard ends at the first document boundary after `shard_tokens`.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary, shard_tokens: int = SHARD_TOKENS) -> None:
        self.folder = folder
        self.vocabulary = vocabulary
        self.shard_tokens = shard_tokens
        self.dtype = np.dtype(np.uint16 if vocabulary.size <= 65536 else np.uint32)
        self._shards: list[dict[str, Any]] = []
        self._open: _OpenShard | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        tokens: np.ndarray,
        line_lengths: np.ndarray,
        document_lengths: np.ndarray,
        continues: bool = False,
        signatures: np.ndarray | None = None,
    ) -> None:
        """Append some documents.

        tokens (T,) are ids without specials; line_lengths (N,) tokens in each line, which sum to T; document_lengths
        (D,) lines in each document, which sum to N. `continues`: the first document goes on with the last one of the
        part before, so that a document may be larger than what one worker holds. `signatures` (D, K), of all parts or
        of none, are those of near_duplicates.py.
        """
        line_lengths = np.asarray(line_lengths, np.int64)
        document_lengths = np.asarray(document_lengths, np.int64)
        assert line_lengths.sum() == len(tokens) and document_lengths.sum() == len(line_lengths)
        assert len(tokens) == 0 or int(tokens.max()) < self.vocabulary.size
        assert not continues or self._open is not None, "no document to continue"
        line_ends = np.cumsum(document_lengths)
        token_ends = np.concatenate([[0], np.cumsum(line_lengths)])[line_ends]
        first = 0
        while first < len(document_lengths):
            goes_on = continues and first == 0
            if self._open is not None and not goes_on and self._open.num_tokens >= self.shard_tokens:
                self.finish()
            if self._open is None:
                self._open = _OpenShard(self.folder / shard_name(len(self._shards)), self.dtype)
            token_begin = token_ends[first - 1] if first else 0
            line_begin = line_ends[first - 1] if first else 0
            room = self.shard_tokens - self._open.num_tokens
            # The document that reaches the limit still belongs to this shard.
            stop = first + int(np.searchsorted(token_ends[first:] - token_begin, room)) + 1
            stop = min(stop, len(document_lengths))
            self._open.append(
                tokens[token_begin : token_ends[stop - 1]],
                line_lengths[line_begin : line_ends[stop - 1]],
                document_lengths[first:stop],
                goes_on,
                None if signatures is None else signatures[first:stop],
            )
            first = stop

    def drop_last(self) -> None:
        """Take back the last document, all parts of it."""
        assert self._open is not None, "no document to drop"
        self._open.drop_last()

    def finish(self) -> list[dict[str, Any]]:
        """Finish the last shard; the entries of all for store.json."""
        if self._open is not None:
            if self._open.document_lengths:
                self._shards.append(self._open.finish())
            else:
                self._open.remove()
            self._open = None
        return self._shards


def shard_name(number: int) -> str:
    """The folder of a shard."""
    return f"shard-{number:05d}"


class _OpenShard:
    """The shard being written: tokens go to the disk at once, lengths of lines and documents wait in memory."""

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        folder.mkdir()
        self.folder = folder
        self.dtype = dtype
        self.num_tokens = 0
        self.line_lengths: list[np.ndarray] = []
        self.document_lengths: list[np.ndarray] = []
        self.hashes = bytearray()  # of all documents but the last
        self.last: hashlib.blake2b | None = None
        self.file: IO[bytes] = open(folder / "tokens.npy", "wb")  # noqa: SIM115 (stays open between parts)
        self.file.write(_npy_header(dtype, 0))
        self.bands: BandWriter | None = None

    def append(
        self,
        tokens: np.ndarray,
        lines: np.ndarray,
        documents: np.ndarray,
        goes_on: bool,
        signatures: np.ndarray | None,
    ) -> None:
        tokens = tokens.astype(self.dtype)
        ends = np.concatenate([[0], np.cumsum(lines)])[np.cumsum(documents)]
        for number, (start, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
            if number > 0 or not goes_on:
                self._finish_hash()
                self.last = hashlib.blake2b(digest_size=8)
            assert self.last is not None
            self.last.update(tokens[start:end].tobytes())
        if signatures is not None:
            if self.bands is None:
                self.bands = BandWriter(self.folder / "bands.npy")
            self.bands.append(signatures, goes_on)
        if goes_on:
            self.document_lengths[-1][-1] += documents[0]
            documents = documents[1:]
        self.file.write(tokens.data)  # not tofile, whose error does not say that the disk is full
        self.num_tokens += len(tokens)
        self.line_lengths.append(lines.copy())
        if len(documents):
            self.document_lengths.append(documents.copy())

    def drop_last(self) -> None:
        num_lines = int(self.document_lengths[-1][-1])
        self.document_lengths[-1] = self.document_lengths[-1][:-1]
        if not len(self.document_lengths[-1]):
            self.document_lengths.pop()
        while num_lines:
            lines = self.line_lengths.pop()
            dropped = lines[-num_lines:]
            if len(dropped) < len(lines):
                self.line_lengths.append(lines[: -len(dropped)])
            num_lines -= len(dropped)
            self.num_tokens -= int(dropped.sum())
        self.file.seek(_NPY_HEADER_BYTES + self.num_tokens * self.dtype.itemsize)
        self.file.truncate()
        self.last = None
        if self.bands is not None:
            self.bands.drop_last()

    def remove(self) -> None:
        """Leave nothing behind of a shard whose documents were all dropped."""
        self.file.close()
        if self.bands is not None:
            self.bands.close()
        shutil.rmtree(self.folder)

    def _finish_hash(self) -> None:
        if self.last is not None:
            self.hashes += self.last.digest()
            self.last = None

    def finish(self) -> dict[str, Any]:
        """Write the offsets, the hashes and the header; the shard's entry in store.json."""
        self.file.seek(0)
        self.file.write(_npy_header(self.dtype, self.num_tokens))
        self.file.close()
        lines = np.concatenate([np.zeros(1, np.int64), *self.line_lengths]).cumsum()
        documents = np.concatenate([np.zeros(1, np.int64), *self.document_lengths]).cumsum()
        save_array(self.folder / "lines.npy", lines)
        save_array(self.folder / "documents.npy", documents)
        self._finish_hash()
        save_array(self.folder / "hashes.npy", np.frombuffer(self.hashes, "<u8"))
        names = ["tokens.npy", "lines.npy", "documents.npy", "hashes.npy"]
        if self.bands is not None:
            self.bands.finish()
            names.append("bands.npy")
        return {
            "name": self.folder.name,
            "documents": len(documents) - 1,
            "lines": len(lines) - 1,
            "tokens": self.num_tokens,
            "files": {name: receipt_of(self.folder / name) for name in names},
        }


def _npy_header(dtype: np.dtype, length: int) -> bytes:
    """Header of a one-dimensional .npy file, of a fixed size so that it can be filled in when the length is known."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({length},), }}"
    room = _NPY_HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1).encode() + b"\n"


def save_array(path: Path, array: np.ndarray) -> None:
    """np.save of one dimension, but a full disk is an OSError that says so."""
    with open(path, "wb") as file:
        file.write(_npy_header(array.dtype, len(array)))
        file.write(array.data)


def receipt_of(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}
