"""Cut rows from a stream of shuffled documents: nothing thrown away, next to no padding.

The documents of a split, shuffled afresh each epoch, form a stream, and each row is the next window of it. A row
holds pieces, the parts of one document in its window, and attention keeps them apart:

    stream   ... end of document 7 | document 2 ............................... | document 5 ...
    rows     [CLS] A [SEP] B [SEP] [CLS] A [SEP] B [SEP] | [CLS] A [SEP] B [SEP] | ...
             `-- end of 7 -------' `-- start of 2 -----'   `-- more of 2 ------'

In the stream a document occupies its tokens and, before them, the 3 (or 2) special tokens of its first piece; the
specials of a row's first piece come out of the row's own length. So a row begins at a cumulative sum of capacities,
and the pieces of any row are found by binary search: no loop over documents, no state. A window that begins or ends
inside a document's special places leaves those (at most 3 at either end) as padding.

As in ELECTRA's builder (google-research/electra, build_pretraining_dataset.py) a share of the pieces is one segment,
A is about half of a piece and ends with a line, and a share of the rows is cut short; here the rest of a short row
holds another piece. `PackedRows` plans an epoch (`_Plan`), finds the pieces of a range of rows (`_Pieces`), splits
them into A and B, and fills the arrays. `ImportedRows` fills them with one document a row instead, for stores whose
documents were rows of TFRecords. Letters: R rows, L tokens in a row, P pieces, D documents.
"""

from __future__ import annotations

import bisect
import copy
import itertools
from dataclasses import dataclass

import numpy as np

from electra.config import RowsConfig
from electra.draws import keys, mixed, shuffled
from electra.store import Store


@dataclass(frozen=True)
class RowBatch:
    """R rows of L tokens."""

    input_ids: np.ndarray  # (R, L) int32
    segment_ids: np.ndarray  # (R, L) uint8: 0 for [CLS] A [SEP], 1 for B [SEP]
    piece_ids: np.ndarray  # (R, L) int16: 1, 2, ... for the pieces of a row, 0 is padding
    position_ids: np.ndarray  # (R, L) int32, from 0 in each piece

    @property
    def valid(self) -> np.ndarray:
        """(R, L) bool: False at padding."""
        return self.piece_ids > 0


class Documents:
    """Where the documents of one part of a store lie: columns of D entries. Empty documents are left out.

    The columns are as narrow as the shards allow, 10 bytes a document: all that grows with a store and stays in memory.
    """

    def __init__(self, store: Store, held_out: bool) -> None:
        wanted = np.full(store.num_documents, not held_out)
        wanted[store.excluded] = False
        wanted[store.held_out] = held_out
        narrow = np.uint32 if all(shard.lines[-1] < 2**32 for shard in store.shards) else np.int64
        lengths, starts, counts, first = [], [], [], 0
        for shard in store.shards:
            offsets = shard.document_offsets()
            sizes = np.diff(offsets)
            kept = np.flatnonzero(wanted[first : first + len(sizes)] & (sizes > 0))
            lengths.append(sizes[kept].astype(narrow))
            starts.append(offsets[kept].astype(narrow))
            counts.append(len(kept))
            first += len(sizes)
        if sum(counts) == 0:
            part = "held-out" if held_out else "training"
            raise ValueError(
                f"the store {store.folder} has no {part} documents: build it with another --held-out share"
            )
        self.lengths = np.concatenate(lengths)
        self.shards = np.repeat(np.arange(len(counts), dtype=np.min_scalar_type(len(counts))), counts)
        self.starts = np.concatenate(starts)
        """First token of each document, within its shard."""

    def some(self, numbers: np.ndarray) -> Documents:
        """Those of these numbers."""
        chosen = copy.copy(self)
        chosen.lengths, chosen.shards, chosen.starts = self.lengths[numbers], self.shards[numbers], self.starts[numbers]
        return chosen


def _chosen(count: int, quota: int, key: np.uint64) -> np.ndarray:
    """(count,) bool, True in exactly `quota` random places."""
    return shuffled(count, key) < quota


# ---------------------------------------------------------------------------------------------- packed


@dataclass(frozen=True)
class _Plan:
    """One epoch of packed rows. Documents stand in stream order, rows in the order in which they are visited."""

    order: np.ndarray  # (D,) which document
    starts: np.ndarray  # (D,) where in the stream its places begin: specials, then tokens
    specials: np.ndarray  # (D,) 3, or 2 where its first piece is a single segment
    row_starts: np.ndarray  # (rows,) where in the stream the row begins
    cuts: np.ndarray  # (rows,) L, or the place within the row where the second window of a short row begins
    headers: np.ndarray  # (2, rows) specials of the first piece of either window: 3, or 2 for a single segment
    coin: np.uint64  # key of the coin that is thrown for the end of A


@dataclass(frozen=True)
class _Pieces:
    """P pieces in the order of the rows: columns of P entries."""

    row: np.ndarray  # row within the batch
    shard: np.ndarray
    start: np.ndarray  # first token within the shard
    length: np.ndarray  # tokens, without specials
    single: np.ndarray  # bool: one segment
    coin: np.ndarray  # bool: A may go past the half


class PackedRows:
    """Rows cut from a stream of shuffled documents so that each token appears exactly once an epoch.

    The shares of single segments and short rows are exact quotas (the places are random): so every epoch has the
    same number of rows, and the epoch of a row number is a division.
    """

    def __init__(self, store: Store, documents: Documents, config: RowsConfig, seed: int) -> None:
        self.store = store
        self.documents = documents
        self.config = config
        self.seed = seed
        self._plans: dict[int, _Plan] = {}
        self._divisible = np.flatnonzero(documents.lengths > 1)
        self._single_documents = int(config.single_segment_prob * len(self._divisible))
        self._stream = int(documents.lengths.sum()) + 2 * len(documents.lengths)
        self._stream += len(self._divisible) - self._single_documents
        # The last row is one single-segment window, which holds L - 2 places. Before it stand as few rows as leave it
        # no more than that; as no row holds more, something is left.
        needed = max(self._stream - (config.seq_len - 2), 0)
        self.rows_per_epoch = 1 + bisect.bisect_left(range(needed), needed, key=self._capacity)

    def _quotas(self, rows: int) -> tuple[int, int]:
        """How many of the first `rows` rows are short, and how many of their windows are single segments."""
        # Either part of a short row has at least 5 places, as in Google's randint(5, max).
        short = int(self.config.short_row_prob * rows) if self.config.seq_len >= 10 else 0
        return short, int(self.config.single_segment_prob * (rows + short))

    def _capacity(self, rows: int) -> int:
        """Places of the stream that the first `rows` rows hold."""
        short, single = self._quotas(rows)
        return rows * self.config.seq_len - 3 * (rows + short) + single

    def take(self, epoch: int, first: int, last: int) -> RowBatch:
        """Rows first .. last of an epoch."""
        pieces = self._pieces(self._plan(epoch), first, last)
        return _fill(self.store, pieces, self._first_segment(pieces), last - first, self.config.seq_len)

    def _plan(self, epoch: int) -> _Plan:
        """The plan of an epoch; the last two are kept, because a batch may span two."""
        if epoch not in self._plans:
            while len(self._plans) >= 2:
                self._plans.pop(next(iter(self._plans)))
            self._plans[epoch] = self._make_plan(epoch)
        return self._plans[epoch]

    def _make_plan(self, epoch: int) -> _Plan:
        order_key, document_key, short_key, cut_key, window_key, visit_key, coin = keys(7, self.seed, epoch)
        length = self.config.seq_len

        order = shuffled(len(self.documents.lengths), order_key)
        specials = np.full(len(order), 2, np.int8)
        specials[self._divisible] += ~_chosen(len(self._divisible), self._single_documents, document_key)
        specials = specials[order]
        sizes = self.documents.lengths[order] + specials
        starts = np.cumsum(sizes) - sizes

        rows = self.rows_per_epoch - 1
        num_short, num_single = self._quotas(rows)
        short = np.append(_chosen(rows, num_short, short_key), False)
        offsets = mixed(np.arange(rows + 1), cut_key) % np.uint64(max(length - 9, 1))
        cuts = np.where(short, 5 + offsets.astype(np.int32), length).astype(np.int32)
        windows = np.append(3 - _chosen(rows + num_short, num_single, window_key).astype(np.int8), np.int8(2))
        window = np.arange(rows + 1) + np.cumsum(short) - short  # number of a row's first window
        headers = np.stack([windows[window], np.where(short, windows[window + short], 0)])
        capacities = length - headers.sum(axis=0, dtype=np.int64)
        row_starts = np.cumsum(capacities) - capacities
        assert row_starts[-1] < self._stream <= row_starts[-1] + capacities[-1]
        visit = shuffled(rows + 1, visit_key)
        return _Plan(order, starts, specials, row_starts[visit], cuts[visit], headers[:, visit], coin)

    def _pieces(self, plan: _Plan, first: int, last: int) -> _Pieces:
        """The pieces of rows first .. last, by binary search of their windows among the documents."""
        cuts, headers = plan.cuts[first:last], plan.headers[:, first:last]
        # One window a row, two in a short one.
        short = cuts < self.config.seq_len
        row = np.repeat(np.arange(last - first), 1 + short)
        second = np.zeros(len(row), np.int64)
        second[1:] = row[1:] == row[:-1]
        header = headers[second, row]
        boundary = plan.row_starts[first:last] + cuts - headers[0]  # stream place where the first window ends
        begin = np.where(second, boundary[row], plan.row_starts[first:last][row])
        end = np.where(second, boundary[row] + self.config.seq_len - cuts[row] - header, boundary[row])
        np.minimum(end, self._stream, out=end)

        # One candidate for each document that a window touches.
        first_document = np.searchsorted(plan.starts, begin, side="right") - 1
        counts = np.searchsorted(plan.starts, end, side="left") - first_document
        window = np.repeat(np.arange(len(row)), counts)
        ordinal = np.arange(len(window)) - (np.cumsum(counts) - counts)[window]
        rank = first_document[window] + ordinal
        document = plan.order[rank]
        specials = plan.specials[rank]
        text = plan.starts[rank] + specials  # stream place of the document's first token
        low = np.maximum(begin[window] - text, 0)
        high = np.minimum(end[window] - text, self.documents.lengths[document])
        specials = np.where(ordinal == 0, header[window], specials)
        kept = high > low  # not where the window ends within the special places of a document

        length = (high - low)[kept]
        return _Pieces(
            row=row[window][kept],
            shard=self.documents.shards[document[kept]],
            start=(self.documents.starts[document] + low)[kept],
            length=length,
            single=(specials[kept] == 2) | (length == 1),
            coin=mixed((text + low)[kept], plan.coin) >= np.uint64(2**63),
        )

    def _first_segment(self, pieces: _Pieces) -> np.ndarray:
        """(P,) tokens of segment A: the whole of a single piece, else about half, to the end of a line if there is one.

        Google's rule for lines: A takes the line that crosses the half in one of two cases.
        """
        half = pieces.length // 2
        before, after = np.empty_like(half), np.empty_like(half)
        order, parts = _by_shard(pieces.shard)
        middle = (pieces.start + half)[order]
        borders = np.empty((2, len(order)), np.int64)  # where the line with the middle begins, and where it ends
        back = np.array([[1], [0]])
        for number, mine in parts:
            lines = self.store.shards[number].lines
            borders[:, mine] = lines[lines.searchsorted(middle[mine]) - back]
        before[order], after[order] = borders - pieces.start[order]
        has_before, has_after = before > 0, after < pieces.length
        at_line = np.where(has_after & (pieces.coin | ~has_before), after, before)
        first = np.where(has_before | has_after, at_line, half)
        return np.where(pieces.single, pieces.length, first)


# -------------------------------------------------------------------------------------------- imported


class ImportedRows:
    """One row a document, padded: the rows of the TFRecords that a store was imported from (interop/tfrecord.py).

    The import made each row a document of one line, A, or of two, A and B. Raises ValueError if the store was built
    from text, or from rows of another length.
    """

    def __init__(self, store: Store, documents: Documents, config: RowsConfig, seed: int) -> None:
        if store.imported_seq_len is None:
            raise ValueError(
                f"the store {store.folder} was built from text, not from TFRecords, so it has no rows of its own: "
                "set rows.packing to packed or google"
            )
        if store.imported_seq_len != config.seq_len:
            raise ValueError(
                f"the store {store.folder} was imported from rows of {store.imported_seq_len} tokens, not "
                f"{config.seq_len}: give --seq-len {store.imported_seq_len}, or cut them anew with --packing packed"
            )
        self.store = store
        self.documents = documents
        self.seed = seed
        self.seq_len = config.seq_len
        self.rows_per_epoch = len(documents.lengths)
        self._visit: tuple[int, np.ndarray] = (-1, np.empty(0))

    def take(self, epoch: int, first: int, last: int) -> RowBatch:
        """Rows first .. last of an epoch."""
        if self._visit[0] != epoch:
            self._visit = (epoch, shuffled(self.rows_per_epoch, keys(1, self.seed, epoch)[0]))
        return self._rows(self._visit[1][first:last])

    def in_order(self, first: int, last: int) -> RowBatch:
        """Rows first .. last in the order in which they were imported."""
        return self._rows(np.arange(first, last))

    def _rows(self, which: np.ndarray) -> RowBatch:
        shards, starts, lengths = (
            column[which].astype(np.int64)
            for column in (self.documents.shards, self.documents.starts, self.documents.lengths)
        )
        order, parts = _by_shard(shards)
        sorted_starts, line_ends = starts[order], np.empty_like(starts)
        for number, mine in parts:
            lines = self.store.shards[number].lines
            line_ends[mine] = lines[lines.searchsorted(sorted_starts[mine], side="right")]
        first_segment = np.empty_like(lengths)
        first_segment[order] = line_ends - sorted_starts
        pieces = _Pieces(
            row=np.arange(len(which)),
            shard=shards,
            start=starts,
            length=lengths,
            single=first_segment == lengths,
            coin=np.zeros(len(which), bool),
        )
        return _fill(self.store, pieces, first_segment, len(which), self.seq_len)


# -------------------------------------------------------------------------------------------- the arrays


def _by_shard(shards: np.ndarray) -> tuple[np.ndarray, list[tuple[int, slice]]]:
    """An order that brings what lies in one shard together, and in that order each shard's number and its place.

    A batch of a large store touches nearly as many shards as it has pieces: what is done for each must be little.
    """
    order = np.argsort(shards, kind="stable")
    ordered = shards[order]
    borders = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(ordered)]
    numbers = ordered[borders[:-1]].tolist()
    return order, [(number, slice(*pair)) for number, pair in zip(numbers, itertools.pairwise(borders), strict=True)]


def _fill(store: Store, pieces: _Pieces, first_segment: np.ndarray, num_rows: int, length: int) -> RowBatch:
    """Lay out the pieces as rows.

    A row is a sequence of runs: for each piece [CLS] A [SEP] and B [SEP], then one run of padding. All arrays are
    repeats of one value a run, without a loop over pieces. In a run, the place in the row
    and the place in the store differ by a constant, so one gather fetches all tokens, specials overwritten after.
    """
    counts = np.bincount(pieces.row, minlength=num_rows)
    number = np.arange(len(pieces.row)) - (np.cumsum(counts) - counts)[pieces.row]  # of the piece within its row
    second_segment = pieces.length - first_segment
    places = pieces.length + np.where(second_segment > 0, 3, 2)
    filled = np.bincount(pieces.row, weights=places, minlength=num_rows).astype(np.int64)
    assert filled.max() <= length
    # Place of a piece in the flattened rows: pieces before it, and the padding of the rows before its own.
    padding = length - filled
    begin = np.cumsum(places) - places + (np.cumsum(padding) - padding)[pieces.row]

    head = 2 * np.arange(len(pieces.row)) + pieces.row  # run [CLS] A [SEP]; B [SEP] follows; a run of padding per row
    run_length = np.zeros(2 * len(head) + num_rows, np.int64)
    run_length[np.cumsum(2 * counts + 1) - 1] = padding
    run_length[head] = first_segment + 2
    run_length[head + 1] = places - first_segment - 2

    def spread(first: np.ndarray | int, second: np.ndarray | int, dtype: type) -> np.ndarray:
        """A value for each piece's two runs (0 for padding), repeated over their places: (R * L,)."""
        values: np.ndarray = np.zeros(len(run_length), dtype)
        values[head] = first
        values[head + 1] = second
        return np.repeat(values, run_length)

    place = np.arange(num_rows * length)
    piece_ids = spread(number + 1, number + 1, np.int16)
    position_ids = (place - spread(begin, begin, np.int64)).astype(np.int32)
    # [CLS] stands before A, [SEP] between A and B: so A is read one place further left, B two.
    source = place + spread(pieces.start - begin - 1, pieces.start - begin - 2, np.int64)
    input_ids = np.empty(len(place), np.int32)
    # "clip": at the specials an index may lie outside of the shard; what it fetches is overwritten.
    order, parts = _by_shard(pieces.shard)
    if len(parts) == 1:
        input_ids[:] = store.shards[parts[0][0]].tokens.take(source, mode="clip")
    else:
        ends = np.cumsum(places[order])
        where = np.arange(ends[-1]) + np.repeat(begin[order] - ends + places[order], places[order])
        sources, tokens = source[where], np.empty(len(where), store.shards[0].tokens.dtype)
        first = 0
        for (shard, _), last in zip(parts, ends[[mine.stop - 1 for _, mine in parts]].tolist(), strict=True):
            store.shards[shard].tokens.take(sources[first:last], out=tokens[first:last], mode="clip")
            first = last
        input_ids[where] = tokens
    input_ids[begin] = store.special.cls
    input_ids[begin + first_segment + 1] = store.special.sep
    input_ids[begin + places - 1] = store.special.sep
    blank = np.flatnonzero(piece_ids == 0)
    input_ids[blank] = store.special.pad
    position_ids[blank] = 0
    shape = (num_rows, length)
    return RowBatch(
        input_ids.reshape(shape),
        spread(0, 1, np.uint8).reshape(shape),
        piece_ids.reshape(shape),
        position_ids.reshape(shape),
    )
