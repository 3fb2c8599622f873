"""Documents that are nearly the same -> all but the first of them, by MinHash and its bands, and then exactly.

A document is the set of its shingles: each run of five tokens (of its one run, where it is shorter). Tokens, and not
words between spaces, because they are there for every script. Two documents are alike to the share of their shingles
that both have (Jaccard). Three steps find those alike, in the way of Broder (1997) and Indyk and Motwani (1998):

    signatures   the worker that tokenises: the library `rensa` takes least hashes of each document's shingles, as many
                 that documents alike to the threshold share all of a band with a probability of 99 %
    bands        the shard: a number for each band of each document
    find         the finished store: whatever shares a band is compared shingle by shingle

So nothing is left out that is not alike to something that comes before it, and very little that is alike stays.
Signatures of the parts of a document add up to its own by their minimum, but for shingles across the border of two
blocks, which it does without. Letters: D documents, T tokens, S shingles, K hashes of a signature, B bands.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from electra.draws import keys, mixed

_SHINGLE = 5  # tokens
_ROWS = 5  # hashes of a band
_RECALL = 0.99  # at the threshold
_SEED = 0x5E1EC7A
_FACTORS = keys(_SHINGLE, _SEED) | np.uint64(1)
_NOTHING = (1 << 32) - 1  # where a document is shorter than a shingle
_SORTED_DOCUMENTS = 1 << 26  # at once
_ORIGINALS = 16  # documents with the same band that each is compared with
_READ_TOKENS = 1 << 20
_SAMPLES = 5
_SAMPLE_TOKENS = 50
_MATRIX_DOCUMENTS = 512  # at once: the library gives Python's integers, of which many at a time are slow


def num_bands(threshold: float) -> int:
    """B for documents alike to this share: 12 for 0.8, 26 for 0.7, 146 for 0.5."""
    shared = min(threshold**_ROWS, 1 - 1e-9)
    return math.ceil(math.log(1 - _RECALL) / math.log(1 - shared))


def check_rensa() -> str:
    """The version of the library's signatures, which decides what they are; ValueError if it is missing."""
    try:
        from rensa import RMinHash
    except ImportError:
        raise ValueError("--near-duplicates needs rensa: pip install 'electra-toolkit[cleaning]'") from None
    return str(RMinHash.ALGORITHM_VERSION)


def signatures(tokens: np.ndarray, document_tokens: np.ndarray, threshold: float) -> np.ndarray:
    """(D, K) uint32 of documents of `document_tokens` (D,) tokens each."""
    from rensa import RMinHash

    num_hashes = num_bands(threshold) * _ROWS
    found = [np.zeros((0, num_hashes), np.uint32)]
    if len(document_tokens):
        hashes, offsets = _shingles(tokens, document_tokens)
    for first in range(0, len(document_tokens), _MATRIX_DOCUMENTS):
        rows = offsets[first : first + _MATRIX_DOCUMENTS + 1]
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes[rows[0] : rows[-1]], (rows - rows[0]).astype(np.uint64), num_hashes, _SEED
        )
        found.append(np.array(matrix.to_rows(), np.uint32))
    return np.concatenate(found)


def bands(signatures: np.ndarray) -> np.ndarray:
    """(D, K) uint32 -> (D, B) uint32: equal where all hashes of a band are."""
    by_band = signatures.reshape(len(signatures), -1, _ROWS).astype(np.uint64)
    found = np.zeros(by_band.shape[:2], np.uint64)
    for row in range(_ROWS):
        found = mixed(found ^ by_band[:, :, row], _FACTORS[row])
    return (found >> np.uint64(32)).astype(np.uint32)


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """How alike two documents are, from all their tokens; of very long ones, from an even sample of their shingles."""
    one_in = _one_in(first, second)
    return _alike(_shingle_set(first, one_in), _shingle_set(second, one_in))


class BandWriter:
    """Write the bands of a shard's documents: as they come document by document, and in the end band by band."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = path.with_suffix(".rows")
        self._file: IO[bytes] = open(self._rows, "wb")  # noqa: SIM115 (stays open between parts)
        self._last = np.zeros((0, 0), np.uint32)
        """(1, K): the signature of the last document, which may go on; (0, K) if it was dropped."""
        self._num_documents = 0

    def append(self, signatures: np.ndarray, goes_on: bool) -> None:
        """Add documents by their signatures (D, K); with `goes_on`, the first is the rest of the last one."""
        if goes_on:
            self._last = np.minimum(self._last, signatures[:1])
            signatures = signatures[1:]
        if len(signatures):
            self._write(self._last)
            self._write(signatures[:-1])
            self._last = signatures[-1:].copy()

    def drop_last(self) -> None:
        """Take back the last document."""
        self._last = self._last[:0]

    def close(self) -> None:
        self._file.close()

    def finish(self) -> None:
        """Write `path`, uint32: all documents' numbers of one band after the other."""
        self._write(self._last)
        self._file.close()
        rows = np.memmap(self._rows, "<u4", "r").reshape(self._num_documents, -1)
        with open(self.path, "wb") as file:
            header = {"descr": "<u4", "fortran_order": False, "shape": (rows.size,)}
            np.lib.format.write_array_header_1_0(file, header)
            for band in rows.T:
                np.ascontiguousarray(band).tofile(file)
        self._rows.unlink()

    def _write(self, signatures: np.ndarray) -> None:
        if len(signatures):
            bands(signatures).tofile(self._file)
            self._num_documents += len(signatures)


@dataclass(frozen=True)
class BandedShard:
    """What of a shard `find` reads."""

    tokens: np.ndarray  # (T,)
    offsets: np.ndarray  # (D + 1,) int64 into tokens
    bands: np.ndarray  # (B * D,) uint32, all documents of one band after the other


class Texts:
    """The tokens of documents by their global numbers."""

    def __init__(self, shards: Sequence[BandedShard]) -> None:
        self.shards = shards
        self.firsts = np.cumsum([0, *(len(shard.offsets) - 1 for shard in shards)])
        """The number of each shard's first document, and that of all documents."""

    def __getitem__(self, document: int) -> np.ndarray:
        number = int(np.searchsorted(self.firsts, document, "right")) - 1
        begin, end = self.shards[number].offsets[document - self.firsts[number] :][:2]
        return self.shards[number].tokens[begin:end]


def find(shards: Sequence[BandedShard], threshold: float, excluded: np.ndarray) -> np.ndarray:
    """(M, 2) int64: each document that is alike to an earlier one to `threshold`, and that one, sorted.

    Those of `excluded` (their global numbers) are left out of it. Memory: 16 bytes a document, a gigabyte at most, one
    more for each of all documents, and what a document takes. What comes later changes nothing of what is found among
    the documents before it.
    """
    texts = Texts(shards)
    total = int(texts.firsts[-1])
    assert total < 1 << 32
    alive = np.ones(total, bool)
    alive[excluded] = False
    found: list[tuple[int, int]] = []
    parts = 1 + total // _SORTED_DOCUMENTS
    for band, part in itertools.product(range(num_bands(threshold)), range(parts)):
        # Sorted by the band's number, and of equal ones by the document's: both in one number of 64 bits.
        pairs = []
        for shard, first in zip(shards, texts.firsts[:-1], strict=True):
            count = len(shard.offsets) - 1
            values = shard.bands[band * count : (band + 1) * count].astype(np.uint64)
            chosen = alive[first : first + count] & (values * np.uint64(parts) >> np.uint64(32) == part)
            pairs.append(values[chosen] << np.uint64(32) | (first + np.flatnonzero(chosen)).astype(np.uint64))
        for group in _groups(np.concatenate(pairs)):
            for later, earlier in _compare(group, texts, threshold):
                alive[later] = False
                found.append((later, earlier))
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def describe(shards: Sequence[BandedShard], near: np.ndarray, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
    """What `find` found, for a report: counts, and some pairs, as their tokens read, from all over the store."""
    texts = Texts(shards)
    samples = []
    for later, earlier in near[np.unique(np.linspace(0, len(near) - 1, _SAMPLES, dtype=np.int64))] if len(near) else []:
        samples.append(
            {
                "documents": [int(later), int(earlier)],
                "alike": round(jaccard(texts[later], texts[earlier]), 3),
                "texts": [decode(texts[each][:_SAMPLE_TOKENS].tolist()) for each in (later, earlier)],
            }
        )
    tokens = sum(len(texts[later]) for later in near[:, 0].tolist())
    return {"documents": len(near), "tokens": tokens, "samples": samples}


def _groups(pairs: np.ndarray) -> Iterator[np.ndarray]:
    """Of pairs of value and document, the documents of each value that several have, in order."""
    pairs.sort()
    values = pairs >> np.uint64(32)
    borders = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1, [len(pairs)]])
    for number in np.flatnonzero(np.diff(borders) > 1):
        yield (pairs[borders[number] : borders[number + 1]] & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _compare(group: np.ndarray, texts: Texts, threshold: float) -> Iterator[tuple[int, int]]:
    """Each document of a group that is alike to an earlier one, and that one."""

    @functools.lru_cache(maxsize=_ORIGINALS + 1)
    def shingles(document: int, one_in: int) -> np.ndarray:
        return _shingle_set(texts[document], one_in)

    originals: list[int] = []
    for document in group.tolist():
        for original in originals:
            one_in = _one_in(texts[document], texts[original])
            if _alike(shingles(document, one_in), shingles(original, one_in)) >= threshold:
                yield document, original
                break
        else:
            if len(originals) < _ORIGINALS:
                originals.append(document)


def _one_in(first: np.ndarray, second: np.ndarray) -> int:
    """How many shingles of two documents there are for each that is looked at, so that memory is bounded."""
    return 1 + max(len(first), len(second)) // _READ_TOKENS


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / max(1, len(first) + len(second) - both)


def _shingle_set(tokens: np.ndarray, one_in: int) -> np.ndarray:
    """The different shingles of a document, uint64, sorted; of `one_in` those whose hash is lowest."""
    found = []
    for start in range(0, max(1, len(tokens) - _SHINGLE + 1), _READ_TOKENS):
        part = tokens[start : start + _READ_TOKENS + _SHINGLE - 1]
        hashes = _shingles(part, np.array([len(part)]))[0]
        found.append(hashes[hashes <= np.uint64((1 << 64) // one_in - 1)])
    return np.unique(np.concatenate(found))


def _shingles(tokens: np.ndarray, document_tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (S,) uint64 of all shingles of documents one after the other, and where each one's begin, (D + 1,)."""
    lengths = np.maximum(document_tokens, _SHINGLE)
    ends = np.cumsum(lengths)
    if len(tokens) < ends[-1]:  # documents shorter than a shingle are filled up
        padded = np.full(ends[-1], _NOTHING, np.uint64)
        moved = np.repeat((ends - lengths) - (np.cumsum(document_tokens) - document_tokens), document_tokens)
        padded[np.arange(len(tokens)) + moved] = tokens
        tokens = padded
    tokens = tokens.astype(np.uint64)
    count = len(tokens) - _SHINGLE + 1
    hashes = np.zeros(count, np.uint64)
    for place, factor in enumerate(_FACTORS):
        hashes += (tokens[place : place + count] + np.uint64(1)) * factor
    begins_inside = np.ones(len(tokens), bool)
    for place in range(1, _SHINGLE):
        begins_inside[ends - place] = False
    return mixed(hashes, _FACTORS[0])[begins_inside[:count]], np.concatenate([[0], np.cumsum(lengths - _SHINGLE + 1)])
