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

Documents are numbered globally in file order; a document never spans two shards. `finish_store` makes a store of
shards, wherever they were written (shards.py); `Store` maps the files and reads nothing until it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from electra.config.location import is_url
from electra.copies import Receipts, fetch_folder
from electra.draws import keys, mixed
from electra.files import read_json, sha256, write_json
from electra.mapping import map_array
from electra.near_duplicates import BandedShard, describe, find
from electra.progress import counted
from electra.shards import SHARD_TOKENS, ShardWriter, receipt_of, save_array
from electra.tokenizer import SpecialIds, Vocabulary, load_tokenizer

FORMAT = "electra token store"
STORE_JSON = "store.json"
VERSION = 1
REPORT = "cleaning.json"
EMPTY = np.zeros(0, np.int64)
_BANDED = ("tokens", "lines", "documents", "bands")


# ------------------------------------------------------------------------------------------------ writing


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
    save_array(folder / "held_out.npy", chosen)
    save_array(folder / "excluded.npy", excluded)
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
        "files": {path.relative_to(folder).as_posix(): receipt_of(path) for path in other},
    }
    write_json(folder / "store.json", summary)
    return summary


def _banded(shard: Path) -> BandedShard:
    tokens, lines, documents, bands = (map_array(shard / f"{name}.npy") for name in _BANDED)
    return BandedShard(tokens, lines[documents], bands)


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
    receipts = {folder / name: receipt for name, receipt in summary["files"].items()}
    for entry in summary["shards"]:
        receipts |= {folder / entry["name"] / name: receipt for name, receipt in entry["files"].items()}
    sizes = [receipt["bytes"] for receipt in receipts.values()]
    for path, receipt in counted(receipts.items(), "checking the store", "bytes", sizes, sum(sizes)):
        _check(path, receipt, verify)
    shards = []
    for entry in summary["shards"]:
        shard = folder / entry["name"]
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
