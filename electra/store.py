"""The token store on disk: documents -> lines -> tokens, memory-mapped.

A store is a folder. It keeps the structure of the text and no rows, so that one store serves every sequence
length and every phase:

    store.json            format version, vocabulary (sha256, size, special ids), counts, dtype, sources, options,
                          and size and sha256 of every other file; written last, so a folder without it is no store
    tokenizer/            the vocabulary folder that the tokens were made with
    held_out.npy          int64, sorted: the global numbers of the documents kept for evaluation
    excluded.npy          int64, sorted: those of documents that are not to be read, for instance repeated ones
    shard-00000/          tokens.npy     uint16 (uint32 if the vocabulary needs it): all tokens, no specials
                          lines.npy      int64, lines + 1 offsets into tokens
                          documents.npy  int64, documents + 1 offsets into lines
                          hashes.npy     uint64, a hash of each document's tokens, by which some are held out

Documents are numbered globally in file order; a document never spans two shards. `ShardWriter` streams tokens to the
disk and keeps only offsets in memory, `finish_store` makes a store of shards, wherever they were written; `Store` maps
the files and reads nothing until it is asked.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from electra.draws import keys, mixed
from electra.files import read_json, sha256, write_json
from electra.mapping import map_array
from electra.tokenizer import SpecialIds, Vocabulary, load_tokenizer

FORMAT = "electra token store"
VERSION = 1
SHARD_TOKENS = 1 << 28
EMPTY = np.zeros(0, np.int64)
_NPY_HEADER_BYTES = 128


# ------------------------------------------------------------------------------------------------ writing


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
        self, tokens: np.ndarray, line_lengths: np.ndarray, document_lengths: np.ndarray, continues: bool = False
    ) -> None:
        """Append some documents.

        tokens (T,) are ids without specials; line_lengths (N,) tokens in each line, which sum to T; document_lengths
        (D,) lines in each document, which sum to N. `continues`: the first document goes on with the last one of the
        part before, so that a document may be larger than what one worker holds.
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
            )
            first = stop

    def finish(self) -> list[dict[str, Any]]:
        """Finish the last shard; the entries of all for store.json."""
        if self._open is not None:
            self._shards.append(self._open.finish())
            self._open = None
        return self._shards


class StoreWriter(ShardWriter):
    """Write a store into `folder`, part by part.

    `folder` should be new. The other arguments are those of `finish_store`; nothing counts as a store before `close`
    has returned.
    """

    def __init__(
        self,
        folder: Path,
        vocabulary: Vocabulary,
        *,
        held_out: float,
        seed: int,
        sources: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        shard_tokens: int = SHARD_TOKENS,
    ) -> None:
        super().__init__(folder, vocabulary, shard_tokens)
        self.held_out = held_out
        self.seed = seed
        self.sources = sources
        self.options = dict(options)

    def close(self) -> dict[str, Any]:
        """Finish the store; what `finish_store` returns and raises."""
        return finish_store(
            self.folder,
            self.vocabulary,
            self.finish(),
            held_out=self.held_out,
            seed=self.seed,
            sources=self.sources,
            options=self.options,
        )


def finish_store(
    folder: Path,
    vocabulary: Vocabulary,
    shards: Sequence[Mapping[str, Any]],
    *,
    held_out: float,
    seed: int,
    sources: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    left_out: Mapping[str, Any] | None = None,
    already_held_out: np.ndarray | None = None,
    distinct: bool = False,
) -> dict[str, Any]:
    """Make a store of the shards that lie in `folder`; returns what store.json says.

    `shards` are the entries that `ShardWriter.finish` gave. `held_out` is the share of the tokens, in whole documents,
    that is set apart; `seed` chooses them, after `already_held_out`, the numbers of documents of a store that is added
    to. `left_out` is a receipt for what of the sources is not in the store. With `distinct`, of documents with the same
    tokens all but the first are excluded: they lie in the store and are never read. ValueError if the shards hold
    no token.
    """
    document_tokens, hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for shard in shards:
        offsets = [np.load(folder / shard["name"] / f"{name}.npy") for name in ("lines", "documents", "hashes")]
        document_tokens.append(np.diff(offsets[0][offsets[1]]))
        hashes.append(offsets[2])
    lengths = np.concatenate(document_tokens)
    total = int(lengths.sum())
    if total == 0:
        raise ValueError("the corpus holds no text: check the paths, the text field and that files are not empty")
    said = np.concatenate(hashes)
    excluded = np.setdiff1d(np.arange(len(said)), np.unique(said, return_index=True)[1]) if distinct else EMPTY
    kept = lengths.copy()
    kept[excluded] = 0
    # An order that follows from the seed and what each document says, wherever it stands.
    order = np.argsort(mixed(said, keys(1, seed)[0]), kind="stable")
    chosen = choose_held_out(kept, held_out, order, already_held_out)
    _save(folder / "held_out.npy", chosen)
    _save(folder / "excluded.npy", excluded)
    (folder / "tokenizer").mkdir(exist_ok=True)
    vocabulary.save(folder / "tokenizer")
    lists = [folder / "held_out.npy", folder / "excluded.npy"]
    other = [*lists, *sorted(path for path in (folder / "tokenizer").iterdir() if path.is_file())]
    summary = {
        "format": FORMAT,
        "version": VERSION,
        "vocabulary": {
            "sha256": vocabulary.sha256,
            "size": vocabulary.size,
            "special": asdict(vocabulary.special),
        },
        "dtype": np.load(folder / shards[0]["name"] / "tokens.npy", mmap_mode="r").dtype.name,
        "documents": len(lengths),
        "lines": sum(shard["lines"] for shard in shards),
        "tokens": total,
        "held_out": {
            "share": held_out,
            "seed": seed,
            "documents": len(chosen),
            "tokens": int(lengths[chosen].sum()),
        },
        "excluded": {"documents": len(excluded), "tokens": int(lengths[excluded].sum())},
        "sources": [dict(source) for source in sources],
        "options": dict(options),
        "left_out": dict(left_out or {}),
        "shards": [dict(shard) for shard in shards],
        "files": {path.relative_to(folder).as_posix(): _receipt(path) for path in other},
    }
    write_json(folder / "store.json", summary)
    return summary


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
        self.last = hashlib.blake2b(digest_size=8)
        self.file: IO[bytes] = open(folder / "tokens.npy", "wb")  # noqa: SIM115 (stays open between parts)
        self.file.write(_npy_header(dtype, 0))

    def append(self, tokens: np.ndarray, lines: np.ndarray, documents: np.ndarray, goes_on: bool) -> None:
        tokens = tokens.astype(self.dtype)
        ends = np.concatenate([[0], np.cumsum(lines)])[np.cumsum(documents)]
        for number, (start, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
            if number > 0 or not goes_on:
                self.hashes += self.last.digest() if self.document_lengths or number else b""
                self.last = hashlib.blake2b(digest_size=8)
            self.last.update(tokens[start:end].tobytes())
        if goes_on:
            self.document_lengths[-1][-1] += documents[0]
            documents = documents[1:]
        self.file.write(tokens.data)  # not tofile, whose error does not say that the disk is full
        self.num_tokens += len(tokens)
        self.line_lengths.append(lines.copy())
        if len(documents):
            self.document_lengths.append(documents.copy())

    def finish(self) -> dict[str, Any]:
        """Write the offsets, the hashes and the header; the shard's entry in store.json."""
        self.file.seek(0)
        self.file.write(_npy_header(self.dtype, self.num_tokens))
        self.file.close()
        lines = np.concatenate([np.zeros(1, np.int64), *self.line_lengths]).cumsum()
        documents = np.concatenate([np.zeros(1, np.int64), *self.document_lengths]).cumsum()
        _save(self.folder / "lines.npy", lines)
        _save(self.folder / "documents.npy", documents)
        _save(self.folder / "hashes.npy", np.frombuffer(self.hashes + self.last.digest(), "<u8"))
        names = ("tokens.npy", "lines.npy", "documents.npy", "hashes.npy")
        return {
            "name": self.folder.name,
            "documents": len(documents) - 1,
            "lines": len(lines) - 1,
            "tokens": self.num_tokens,
            "files": {name: _receipt(self.folder / name) for name in names},
        }


def choose_held_out(
    document_tokens: np.ndarray, share: float, order: np.ndarray, already: np.ndarray | None = None
) -> np.ndarray:
    """Sorted numbers of the documents to keep for evaluation, about `share` of the tokens.

    Those of `already` stay. Others are tried in `order` (D,) until the share is reached; one that would overshoot to
    more than twice the share, or leave less than half of the tokens to train on, is passed over. At least one
    document is taken if there are two and the share is not 0: the smallest where none fits.
    """
    total = int(document_tokens.sum())
    chosen = [] if already is None else already.tolist()
    candidates = order[document_tokens[order] > 0]
    if share <= 0 or len(candidates) < 2:
        return np.array(chosen, np.int64)
    limit = min(2 * share, 0.5) * total
    taken = int(document_tokens[chosen].sum()) if chosen else 0
    for document in candidates[~np.isin(candidates, chosen)]:
        if taken >= share * total:
            break
        if taken + document_tokens[document] <= limit:
            chosen.append(int(document))
            taken += int(document_tokens[document])
    if not chosen:
        chosen = [int(candidates[np.argmin(document_tokens[candidates])])]
    return np.array(sorted(chosen), np.int64)


def _npy_header(dtype: np.dtype, length: int) -> bytes:
    """Header of a one-dimensional .npy file, of a fixed size so that it can be filled in when the length is known."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({length},), }}"
    room = _NPY_HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1).encode() + b"\n"


def _save(path: Path, array: np.ndarray) -> None:
    """np.save of one dimension, but a full disk is an OSError that says so."""
    with open(path, "wb") as file:
        file.write(_npy_header(array.dtype, len(array)))
        file.write(array.data)


def _receipt(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


# ------------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class Shard:
    """One shard's arrays, mapped into memory."""

    tokens: np.ndarray  # (T,) uint16 or uint32
    lines: np.ndarray  # (N + 1,) int64 offsets into tokens
    documents: np.ndarray  # (D + 1,) int64 offsets into lines

    def document_offsets(self) -> np.ndarray:
        """(D + 1,) int64: where each document begins in `tokens`."""
        return self.lines[self.documents]


@dataclass(frozen=True)
class Store:
    """A store opened for reading; nothing of the text is loaded."""

    folder: Path
    vocab_size: int
    vocab_sha256: str
    special: SpecialIds
    num_documents: int
    num_lines: int
    num_tokens: int
    held_out: np.ndarray
    excluded: np.ndarray
    shards: tuple[Shard, ...]
    summary: dict[str, Any]
    """What store.json says."""

    @staticmethod
    def open(folder: Path, verify: bool = True) -> Store:
        """Open the store in `folder`; `verify` reads every file once to compare its sha256.

        Raises ValueError with one sentence if the folder is no store, is of another version, or a file is missing,
        of the wrong size or altered.
        """
        path = folder / "store.json"
        if not path.is_file():
            raise ValueError(f"{folder} is not a token store (it has no store.json): make one with `electra build`")
        summary = read_json(path)
        if not isinstance(summary, dict) or summary.get("format") != FORMAT:
            raise ValueError(f"{path} does not describe a token store: make one with `electra build`")
        if summary.get("version") != VERSION:
            raise ValueError(
                f"{path} has format version {summary.get('version')!r}, this program reads {VERSION}: "
                "build the store again with this version of electra"
            )
        try:
            return _open(folder, summary, verify)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): build the store again") from None

    @property
    def imported_seq_len(self) -> int | None:
        """Length of the rows of TFRecords that the documents once were; None for a store built from text."""
        length: int | None = self.summary["options"].get("imported_seq_len")
        return length

    def document_ids(self, held_out: bool) -> np.ndarray:
        """Sorted global numbers (int64) of the documents to evaluate on, or of those to train on."""
        if held_out:
            return self.held_out
        return np.setdiff1d(np.arange(self.num_documents), np.concatenate([self.held_out, self.excluded]))

    def document_lengths(self) -> np.ndarray:
        """(num_documents,) int64: tokens in each document."""
        return np.concatenate([np.diff(shard.document_offsets()) for shard in self.shards])

    def vocabulary(self) -> Vocabulary:
        """Load the vocabulary that the tokens were made with."""
        return load_tokenizer(self.folder / "tokenizer")


def _open(folder: Path, summary: dict[str, Any], verify: bool) -> Store:
    dtype = np.dtype(summary["dtype"])
    for name, receipt in summary["files"].items():
        _check(folder / name, receipt, verify)
    shards = []
    for entry in summary["shards"]:
        shard = folder / entry["name"]
        for name, receipt in entry["files"].items():
            _check(shard / name, receipt, verify)
        shards.append(
            Shard(
                _map(shard / "tokens.npy", dtype, entry["tokens"]),
                _map(shard / "lines.npy", np.dtype(np.int64), entry["lines"] + 1),
                _map(shard / "documents.npy", np.dtype(np.int64), entry["documents"] + 1),
            )
        )
    vocabulary = summary["vocabulary"]
    held_out = _map(folder / "held_out.npy", np.dtype(np.int64), summary["held_out"]["documents"])
    excluded = EMPTY  # of stores of earlier versions
    if "excluded" in summary:
        excluded = _map(folder / "excluded.npy", np.dtype(np.int64), summary["excluded"]["documents"])
    special = SpecialIds(**{item.name: int(vocabulary["special"][item.name]) for item in fields(SpecialIds)})
    return Store(
        folder=folder,
        vocab_size=int(vocabulary["size"]),
        vocab_sha256=vocabulary["sha256"],
        special=special,
        num_documents=int(summary["documents"]),
        num_lines=int(summary["lines"]),
        num_tokens=int(summary["tokens"]),
        held_out=held_out,
        excluded=excluded,
        shards=tuple(shards),
        summary=summary,
    )


def _check(path: Path, receipt: Mapping[str, Any], verify: bool) -> None:
    """Compare a file with its receipt in store.json."""
    fix = "copy the store again from where it is whole, or rebuild it with `electra build`"
    if not path.is_file():
        raise ValueError(f"{path} is missing: {fix}")
    size = path.stat().st_size
    if size != receipt["bytes"]:
        raise ValueError(f"{path} is truncated or altered ({size} bytes, not {receipt['bytes']}): {fix}")
    if verify and sha256(path) != receipt["sha256"]:
        raise ValueError(f"{path} is damaged (its sha256 is not the one in store.json): {fix}")


def _map(path: Path, dtype: np.dtype, length: int) -> np.ndarray:
    """Map a .npy file as a plain array (numpy's memmap subclass slows every small operation down)."""
    try:
        array = map_array(path)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}): rebuild the store with `electra build`") from None
    if array.dtype != dtype or array.shape != (length,):
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape} where store.json says {length} x {dtype}: "
            "rebuild the store with `electra build`"
        )
    return array
