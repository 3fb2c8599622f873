"""The token store on disk: documents -> lines -> tokens, memory-mapped.

A store is a folder. It keeps the structure of the text and no rows, so that one store serves every sequence
length and every phase:

    store.json            format version, vocabulary (sha256, size, special ids), counts, dtype, sources, options,
                          and size and sha256 of every other file; written last, so a folder without it is no store
    tokenizer/            the vocabulary folder that the tokens were made with
    held_out.npy          int64, sorted: the global numbers of the documents kept for evaluation
    excluded.npy          int64, sorted: those of documents that are not to be read, for instance repeated ones
    cleaning.json         what was mended and left out, with samples, if the text was cleaned
    shard-00000/          tokens.npy     uint16 (uint32 if the vocabulary needs it): all tokens, no specials
                          lines.npy      int64, lines + 1 offsets into tokens
                          documents.npy  int64, documents + 1 offsets into lines
                          hashes.npy     uint64, a hash of each document's tokens, by which some are held out
                          bands.npy      uint32, for near duplicates: all documents' numbers of one band after the other

Documents are numbered globally in file order; a document never spans two shards. `ShardWriter` streams tokens to the
disk and keeps only offsets in memory, `finish_store` makes a store of shards, wherever they were written; `Store` maps
the files and reads nothing until it is asked.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from electra.config.location import is_url
from electra.copies import Receipts, fetch_folder
from electra.draws import keys, mixed
from electra.files import read_json, sha256, write_json
from electra.mapping import map_array
from electra.near_duplicates import BandedShard, BandWriter, describe, find
from electra.tokenizer import SpecialIds, Vocabulary, load_tokenizer

FORMAT = "electra token store"
STORE_JSON = "store.json"
VERSION = 1
REPORT = "cleaning.json"
SHARD_TOKENS = 1 << 28
EMPTY = np.zeros(0, np.int64)
_NPY_HEADER_BYTES = 128
_BANDED = ("tokens", "lines", "documents", "bands")


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
    near_duplicates: float = 0.0,
    cleaning: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a store of the shards that lie in `folder`; returns what store.json says.

    `shards` are the entries that `ShardWriter.finish` gave. `held_out` is the share of the tokens, in whole documents,
    that is set apart; `seed` chooses them, after `already_held_out`, the numbers of documents of a store that is added
    to. `left_out` is a receipt for what of the sources is not in the store. With `distinct`, of documents with the same
    tokens all but the first are excluded: they lie in the store and are never read; with `near_duplicates` also those
    that are alike to an earlier one to that share. `cleaning` is what cleaning.json says, to which these are added.
    ValueError if the shards hold no token.
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
    excluded = EMPTY
    if distinct or near_duplicates:
        excluded = np.setdiff1d(np.arange(len(said)), np.unique(said, return_index=True)[1])
    lists = [folder / "held_out.npy", folder / "excluded.npy"]
    if cleaning is not None:
        report = dict(cleaning)
        if near_duplicates:
            texts = [_banded(folder / shard["name"]) for shard in shards]
            near = find(texts, near_duplicates, excluded)
            report["near_duplicates"] = {"repeated": len(excluded)} | describe(texts, near, vocabulary.decode)
            excluded = np.sort(np.concatenate([excluded, near[:, 0]]))
        write_json(folder / REPORT, report)
        lists.append(folder / REPORT)
    kept = lengths.copy()
    kept[excluded] = 0
    # An order that follows from the seed and what each document says, wherever it stands.
    order = np.argsort(mixed(said, keys(1, seed)[0]), kind="stable")
    chosen = choose_held_out(kept, held_out, order, already_held_out)
    _save(folder / "held_out.npy", chosen)
    _save(folder / "excluded.npy", excluded)
    (folder / "tokenizer").mkdir(exist_ok=True)
    vocabulary.save(folder / "tokenizer")
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


def _banded(shard: Path) -> BandedShard:
    tokens, lines, documents, bands = (map_array(shard / f"{name}.npy") for name in _BANDED)
    return BandedShard(tokens, lines[documents], bands)


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
        _save(self.folder / "lines.npy", lines)
        _save(self.folder / "documents.npy", documents)
        self._finish_hash()
        _save(self.folder / "hashes.npy", np.frombuffer(self.hashes, "<u8"))
        names = ["tokens.npy", "lines.npy", "documents.npy", "hashes.npy"]
        if self.bands is not None:
            self.bands.finish()
            names.append("bands.npy")
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
    def open(location: Path | str, verify: bool = True) -> Store:
        """Open the store in a folder; `verify` reads every file once to compare its sha256.

        One at a URL is copied into the cache of this machine first, as far as it is not there (see `fetch_folder`).
        Raises ValueError with one sentence if the folder is no store, is of another version, or a file is missing,
        of the wrong size or altered.
        """
        if is_url(location):
            try:
                folder, verify = fetch_folder(location, STORE_JSON, store_receipts, verify), False
            except FileNotFoundError as error:
                if not str(error.filename).endswith(STORE_JSON):
                    raise
                raise ValueError(_no_store(location)) from None
        else:
            folder = Path(location)
        path = folder / STORE_JSON
        if not path.is_file():
            raise ValueError(_no_store(folder))
        summary = read_json(path)
        _check_summary(summary, path)
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
        wanted = np.ones(self.num_documents, bool)
        wanted[self.held_out] = wanted[self.excluded] = False
        return np.flatnonzero(wanted)

    def document_lengths(self) -> np.ndarray:
        """(num_documents,) int64: tokens in each document."""
        return np.concatenate([np.diff(shard.document_offsets()) for shard in self.shards])

    def vocabulary(self) -> Vocabulary:
        """Load the vocabulary that the tokens were made with."""
        return load_tokenizer(self.folder / "tokenizer")


def _no_store(location: Path | str) -> str:
    return f"{location} is not a token store (it has no store.json): make one with `electra build`"


def _check_summary(summary: Any, path: Path | str) -> None:
    """ValueError if what store.json says is not of this format and version."""
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        raise ValueError(f"{path} does not describe a token store: make one with `electra build`")
    if summary.get("version") != VERSION:
        raise ValueError(
            f"{path} has format version {summary.get('version')!r}, this program reads {VERSION}: "
            "build the store again with this version of electra"
        )


def store_receipts(content: bytes, path: str) -> Receipts:
    """All files of a store by what its store.json says; ValueError if that is damaged or of another version."""
    try:
        summary = json.loads(content)
        _check_summary(summary, path)
        files = dict(summary["files"])
        for shard in summary["shards"]:
            files |= {f"{shard['name']}/{name}": receipt for name, receipt in shard["files"].items()}
        if outside := [name for name in files if name.startswith("/") or ".." in name.split("/")]:
            raise ValueError(f"{path} names {outside[0]}, which is not in the store: somebody has tampered with it")
        return {name: {"bytes": int(file["bytes"]), "sha256": file["sha256"]} for name, file in files.items()}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): send the store there again") from None


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
