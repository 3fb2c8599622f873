"""Several token stores read as one: the rows of each in its share, in an order that follows from (seed, row number).

    Mixture    the opened stores, which have one vocabulary, and the share of each
    MixedRows  the `Rows` of each store -> the rows of a run

Rows come in periods of PERIOD, in which each store has a fixed number of rows, its share. The j-th of its n rows falls
on a random moment of the j-th of n equal spans of the period, and the rows of all stores stand in the order of their
moments: so every stretch of rows, a batch too, holds the shares to within a row or two, and which store comes next is
chance. A store has epochs of its own (batches.py), and its rows are numbered through all periods, so that nothing is to
be remembered when a run resumes. Of one store alone these are its own rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from electra.batches import Rows
from electra.config import RowsConfig
from electra.draws import keys, mixed
from electra.files import read_json
from electra.packing import Documents, RowBatch
from electra.store import Store

PERIOD = 1 << 20


@dataclass(frozen=True)
class Mixture:
    """Opened stores of one vocabulary, and how many rows of a period each gives."""

    stores: tuple[Store, ...]
    counts: tuple[int, ...]  # sum to PERIOD

    @staticmethod
    def open(locations: Sequence[str], weights: Sequence[float] = (), verify: bool = True) -> Mixture:
        """Open stores to be read in proportion to `weights`, or to their tokens.

        Raises ValueError as `Store.open`, and if their vocabularies differ or a share is less than a row of a period.
        """
        stores = tuple(Store.open(location, verify) for location in locations)
        for store in stores[1:]:
            if store.vocab_sha256 != stores[0].vocab_sha256:
                raise ValueError(
                    f"the stores {stores[0].folder} and {store.folder} have different vocabularies: build one of them "
                    "again with the vocabulary of the other (--vocab takes a store)"
                )
        counts = row_counts(weights or [training_tokens(store.summary) for store in stores])
        for location, count in zip(locations, counts, strict=True):
            if count == 0:
                raise ValueError(
                    f"the share of the store {location} is less than one row in {PERIOD:,}: leave it out, or give it "
                    "more of --weights"
                )
        return Mixture(stores, counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the rows, for each store; they sum to 1."""
        return tuple(count / PERIOD for count in self.counts)

    @functools.cached_property
    def documents(self) -> tuple[Documents, ...]:
        """Where the training documents of each store lie, for all phases of a run together."""
        return tuple(Documents(store, held_out=False) for store in self.stores)

    @property
    def first(self) -> Store:
        """For what all have in common, the vocabulary."""
        return self.stores[0]

    @property
    def holds_out(self) -> bool:
        """Whether any store has documents to evaluate on."""
        return any(len(store.held_out) for store in self.stores)

    def held_out(self) -> Mixture:
        """The stores that have documents to evaluate on, with the same proportions."""
        assert self.holds_out
        chosen = [number for number, store in enumerate(self.stores) if len(store.held_out)]
        stores, weights = zip(*((self.stores[number], self.counts[number]) for number in chosen), strict=True)
        return Mixture(stores, row_counts(weights))


def training_tokens(summary: Mapping[str, Any]) -> int:
    """Tokens of the documents to train on, by store.json; at least 1, as it is for `Rows` to refuse an empty store."""
    excluded = summary.get("excluded", {"tokens": 0})
    return max(1, int(summary["tokens"] - summary["held_out"]["tokens"] - excluded["tokens"]))


def row_counts(weights: Sequence[float]) -> tuple[int, ...]:
    """PERIOD rows in proportion to weights; fractions of a row go to the largest remainders."""
    exact = np.array(weights, float) / math.fsum(weights) * PERIOD
    counts = exact.astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: PERIOD - counts.sum()]] += 1
    return tuple(counts.tolist())


class MixedRows:
    """The rows of a mixture over all epochs, those of its training documents or of its held-out ones.

    Raises ValueError as `Rows`.
    """

    def __init__(self, mixture: Mixture, config: RowsConfig, *, seed: int, held_out: bool = False) -> None:
        self.mixture = mixture.held_out() if held_out and mixture.holds_out else mixture
        self.seed = seed
        # Not one seed for all: the n-th documents of two stores, perhaps translations, would come at the same time.
        seeds = [seed, *(int(key) for key in keys(len(self.mixture.stores) - 1, seed, 0, 2))]
        known = [None] * len(seeds) if held_out else self.mixture.documents
        self.sources = tuple(
            Rows(store, config, seed=own, held_out=held_out, documents=documents)
            for store, own, documents in zip(self.mixture.stores, seeds, known, strict=True)
        )
        self.rows_per_epoch = sum(source.rows_per_epoch for source in self.sources)
        """The rows of one epoch of each store, together."""
        self._order: tuple[int, np.ndarray, np.ndarray] = (-1, np.empty(0), np.empty(0))

    def rows(self, start: int, count: int) -> RowBatch:
        """Rows start .. start + count, numbered from 0."""
        assert start >= 0 and count > 0
        if len(self.sources) == 1:
            return self.sources[0].rows(start, count)
        out: RowBatch | None = None
        done = 0
        while done < count:
            period, first = divmod(start + done, PERIOD)
            last = min(first + count - done, PERIOD)
            stores, ranks = self._order_of(period)
            for number, source in enumerate(self.sources):
                places = np.flatnonzero(stores[first:last] == number)
                if len(places) == 0:
                    continue
                # The rows of a store come in their order, so those of a stretch are a range.
                begin = period * self.mixture.counts[number] + int(ranks[first + places[0]])
                part = source.rows(begin, len(places))
                out = _blank(part, count) if out is None else out
                for item in fields(RowBatch):
                    getattr(out, item.name)[done + places] = getattr(part, item.name)
            done += last - first
        assert out is not None
        return out

    def require_rows(self, batch_size: int) -> None:
        """Raise ValueError if an epoch of a store has fewer rows than its share of a batch."""
        for source, share in zip(self.sources, self.mixture.shares, strict=True):
            source.require_rows(math.ceil(batch_size * share))

    def epochs(self, count: int) -> tuple[float, ...]:
        """How many epochs of each store `count` rows are."""
        pairs = zip(self.sources, self.mixture.shares, strict=True)
        return tuple(count * share / source.rows_per_epoch for source, share in pairs)

    def _order_of(self, period: int) -> tuple[np.ndarray, np.ndarray]:
        """(PERIOD,) the store of each row of a period, and which row of that store it is in this period."""
        if self._order[0] != period:
            counts = np.array(self.mixture.counts)
            stores = np.repeat(np.arange(len(counts), dtype=np.min_scalar_type(len(counts))), counts)
            ranks = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
            chance = mixed(np.arange(PERIOD), keys(1, self.seed, period, 3)[0]) >> np.uint64(11)
            order = np.argsort((ranks + chance * 2.0**-53) / counts[stores], kind="stable")
            self._order = (period, stores[order], ranks[order])
        return self._order[1:]


def _blank(like: RowBatch, count: int) -> RowBatch:
    """An unfilled batch of `count` rows."""
    arrays = (getattr(like, item.name) for item in fields(RowBatch))
    return RowBatch(*(np.empty((count, array.shape[1]), array.dtype) for array in arrays))


# ------------------------------------------------------------------------------------------- the run folder


def receipt_path(run: Path, number: int) -> Path:
    """Where a run folder keeps the store.json of its store `number`, from 0."""
    return run / (f"store-{number + 1}.json" if number else "store.json")


def read_receipts(run: Path) -> list[dict[str, Any]]:
    """What store.json said of each store when the run began; ValueError where a run ended before it began."""
    if not receipt_path(run, 0).exists():
        raise ValueError(
            f"{receipt_path(run, 0)} does not exist: {run} was copied in part, or its run ended before it began; "
            "remove the folder, and begin again"
        )
    receipts = [read_json(receipt_path(run, 0))]
    while receipt_path(run, len(receipts)).exists():
        receipts.append(read_json(receipt_path(run, len(receipts))))
    return receipts


def shares_of(weights: Sequence[float], receipts: Sequence[Mapping[str, Any]]) -> list[float]:
    """Share of the rows that each store of a run has."""
    return [count / PERIOD for count in row_counts(weights or [training_tokens(receipt) for receipt in receipts])]
