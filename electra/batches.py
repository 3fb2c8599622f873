"""Token store -> rows of fixed length, in an order that is a pure function of (seed, epoch, row number).

`Rows` numbers the rows of all epochs in one sequence, so that a batch is a range of numbers and resuming needs no
state. Every epoch has the same number of rows, visited in another order. Three ways to cut them:

packed  packing.py: every row full, no token dropped, cut afresh each epoch.
google  `GoogleRows`: the rule of google-research/electra, build_pretraining_dataset.py, draw for draw: overflow is
        thrown away, short rows are padded. Made once, by a Python loop, as the original makes its files once.
rows    packing.py: the rows of the TFRecords that the store was imported from, as they were.

`prefetch` prepares the batches of coming steps in a thread. Letters: R rows, L tokens in a row.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import TypeVar

import numpy as np

from electra.config import RowsConfig
from electra.draws import keys, shuffled
from electra.packing import Documents, ImportedRows, PackedRows, RowBatch
from electra.store import Store

T = TypeVar("T")

GROUP_TOKENS = 1 << 30  # whose rows take about a gigabyte at 128 tokens


class Rows:
    """The rows of a store's training documents, or of its held-out ones, over all epochs.

    `documents` are those of that part, where they are known. Raises ValueError if that part of the store holds no text.
    """

    def __init__(
        self,
        store: Store,
        config: RowsConfig,
        *,
        seed: int,
        held_out: bool = False,
        documents: Documents | None = None,
    ) -> None:
        documents = documents or Documents(store, held_out)
        self._source: PackedGroups | GoogleRows | ImportedRows
        if config.packing == "packed":
            self._source = PackedGroups(store, documents, config, seed)
        elif config.packing == "rows":
            self._source = ImportedRows(store, documents, config, seed)
        else:
            self._source = GoogleRows(store, documents, config, seed)
        self._name = f"{'the held-out part of ' if held_out else ''}the store {store.folder}"
        self._seq_len = config.seq_len
        self.rows_per_epoch = self._source.rows_per_epoch
        self.tokens_per_epoch = int(documents.lengths.sum())
        """Tokens of text in these documents; the google rule shows only a part of them."""

    def epoch_of(self, row: int) -> tuple[int, int]:
        """The epoch of a row number, and the row's place within that epoch."""
        return divmod(row, self.rows_per_epoch)

    def rows(self, start: int, count: int) -> RowBatch:
        """Rows start .. start + count, numbered from 0 over all epochs; the range may span epochs."""
        assert start >= 0 and count > 0
        parts = []
        stop = start + count
        while start < stop:
            epoch, first = self.epoch_of(start)
            last = min(first + stop - start, self.rows_per_epoch)
            parts.append(self._source.take(epoch, first, last))
            start += last - first
        return joined(parts)

    def require_rows(self, batch_size: int) -> None:
        """Raise ValueError if an epoch has fewer rows than one batch."""
        if self.rows_per_epoch < batch_size:
            raise ValueError(
                f"{self._name} has only {self.rows_per_epoch} rows of length {self._seq_len} "
                f"but a batch needs {batch_size}: lower loop.batch_size or add text"
            )


def joined(batches: list[RowBatch]) -> RowBatch:
    """The rows of several batches one after the other."""
    if len(batches) == 1:
        return batches[0]
    return RowBatch(*(np.concatenate([getattr(batch, item.name) for batch in batches]) for item in fields(RowBatch)))


# ---------------------------------------------------------------------------------------------- packed


class PackedGroups:
    """Packed rows of any number of documents, with memory bounded by GROUP_TOKENS and 14 bytes a document.

    A store of more tokens is read in groups of documents, which are drawn at random once, and visited in
    another order each epoch; rows are shuffled within their group. Of a group that is not being read only the numbers
    of its documents are kept.
    """

    def __init__(self, store: Store, documents: Documents, config: RowsConfig, seed: int) -> None:
        self.store, self.documents, self.config, self.seed = store, documents, config, seed
        number_of = len(documents.lengths)
        count = min(-(-int(documents.lengths.sum()) // GROUP_TOKENS), number_of)
        self._members: list[np.ndarray] = []
        if count > 1:
            (key,) = keys(1, seed)
            narrow = np.uint32 if number_of <= 2**32 else np.int64
            self._members = np.array_split(shuffled(number_of, key).astype(narrow), count)
        self._seeds = [seed, *(int(key) for key in keys(count - 1, seed, 1))]
        self._sizes = np.array([self._make_group(number).rows_per_epoch for number in range(count)])
        self.rows_per_epoch = int(self._sizes.sum())
        self._number, self._at_work = 0, self._make_group(0)

    def take(self, epoch: int, first: int, last: int) -> RowBatch:
        """Rows first .. last of an epoch."""
        order = shuffled(len(self._sizes), keys(2, self.seed, epoch)[1])
        ends = np.cumsum(self._sizes[order])
        parts = []
        while first < last:
            place = int(np.searchsorted(ends, first, side="right"))
            begin, stop = int(ends[place] - self._sizes[order[place]]), min(last, int(ends[place]))
            parts.append(self._group(int(order[place])).take(epoch, first - begin, stop - begin))
            first = stop
        return joined(parts)

    def _group(self, number: int) -> PackedRows:
        """A group to take rows from; the one before is dropped."""
        if number != self._number:
            self._number, self._at_work = number, self._make_group(number)
        return self._at_work

    def _make_group(self, number: int) -> PackedRows:
        documents = self.documents.some(self._members[number]) if self._members else self.documents
        return PackedRows(self.store, documents, self.config, self._seeds[number])


# ---------------------------------------------------------------------------------------------- google


def google_examples(
    documents: Iterable[list[list[int]]],
    max_length: int,
    draw: random.Random,
    single_segment_prob: float = 0.1,
    short_row_prob: float = 0.05,
) -> Iterator[tuple[list[int], list[int]]]:
    """Segments A and B of each example that Google's ExampleBuilder makes of documents (lists of lines of ids).

    The random calls are the original's, in its order. Known faults are kept: what does not fit is thrown away, and a
    short line may return to A after B has begun (build_pretraining_dataset.py lines 48-100).
    """
    target = max_length
    for document in documents:
        lines: list[list[int]] = []
        total = 0
        for number, line in enumerate(document):
            lines.append(line)
            total += len(line)
            at_end = number == len(document) - 1
            if total < target and not (at_end and total):
                continue
            limit = 100_000 if draw.random() < single_segment_prob else (target - 3) // 2
            first: list[int] = []
            second: list[int] = []
            for part in lines:
                if (
                    not first
                    or len(first) + len(part) < limit
                    or (not second and len(first) < limit and draw.random() < 0.5)
                ):
                    first = first + part
                else:
                    second = second + part
            first = first[: max_length - 2]
            yield first, second[: max(0, max_length - len(first) - 3)]
            lines, total = [], 0
            target = draw.randint(5, max_length) if draw.random() < short_row_prob else max_length


def google_rows(
    store: Store, documents: Documents, config: RowsConfig, draw: random.Random
) -> Iterator[tuple[list[int], int]]:
    """The rows of `google_examples`, unpadded: [CLS] A [SEP] B [SEP] and the length of [CLS] A [SEP]."""
    special = store.special
    lines = _document_lines(store, documents)
    for first, second in google_examples(
        lines, config.seq_len, draw, config.single_segment_prob, config.short_row_prob
    ):
        row = [special.cls, *first, special.sep, *second]
        row += [special.sep] if second else []
        yield row, len(first) + 2


class GoogleRows:
    """The rows of Google's builder, padded, one piece each: made once from the seed, reordered each epoch."""

    def __init__(self, store: Store, documents: Documents, config: RowsConfig, seed: int) -> None:
        self.seed = seed
        self._visit: tuple[int, np.ndarray] = (-1, np.empty(0))
        rows, firsts, totals = [], [], []
        for row, first in google_rows(store, documents, config, random.Random(seed)):
            firsts.append(first)
            totals.append(len(row))
            row += [store.special.pad] * (config.seq_len - len(row))
            rows.append(np.array(row, store.shards[0].tokens.dtype))
        self._ids = np.stack(rows)
        self._first, self._total = np.array(firsts), np.array(totals)
        self.rows_per_epoch = len(rows)

    def take(self, epoch: int, first: int, last: int) -> RowBatch:
        """Rows first .. last of an epoch."""
        if self._visit[0] != epoch:
            self._visit = (epoch, shuffled(self.rows_per_epoch, keys(1, self.seed, epoch)[0]))
        which = self._visit[1][first:last]
        place = np.arange(self._ids.shape[1])
        valid = place < self._total[which, None]
        return RowBatch(
            self._ids[which].astype(np.int32),
            (valid & (place >= self._first[which, None])).astype(np.uint8),
            valid.astype(np.int16),
            np.where(valid, place, 0).astype(np.int32),
        )


def _document_lines(store: Store, documents: Documents) -> Iterator[list[list[int]]]:
    """The documents in file order, as lists of lines of ids."""
    for number, start, length in zip(documents.shards, documents.starts, documents.lengths, strict=True):
        shard = store.shards[number]
        low, high = np.searchsorted(shard.lines, [start, start + length])
        bounds = shard.lines[low : high + 1] - start
        tokens = shard.tokens[start : start + length].tolist()
        yield [tokens[begin:end] for begin, end in itertools.pairwise(bounds)]


# --------------------------------------------------------------------------------------------- prefetch


def prefetch(make: Callable[[int], T], start: int, stop: int, depth: int = 2) -> Generator[T]:
    """Yield make(start), ..., make(stop - 1), with up to `depth` of them prepared ahead in one background thread.

    An exception of `make` is raised where its value would have been yielded. Closing the iterator stops the thread.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        pending = deque(pool.submit(make, step) for step in range(start, min(start + depth, stop)))
        try:
            for step in range(start + depth, stop + depth):
                if not pending:
                    return
                value = pending.popleft().result()
                if step < stop:
                    pending.append(pool.submit(make, step))
                yield value
        finally:
            for future in pending:
                future.cancel()
