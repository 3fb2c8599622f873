"""What is in a token store: how often each token comes, and how long documents and lines are.

Counts are exact up to COUNTED tokens; of a larger store they are those of evenly spaced stretches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from electra.store import Store
from electra.tokenizer import Vocabulary

COUNTED = 1 << 28
_STRETCH = 1 << 20
_FREQUENT = 12  # tokens shown
_BAR = 40  # columns


@dataclass(frozen=True)
class Census:
    """Letters: V tokens of the vocabulary; lengths are counted by powers of two."""

    tokens: np.ndarray
    """(V,) int64: how often each token was met."""
    documents: np.ndarray
    """int64: documents of 1, 2 to 3, 4 to 7, ... tokens."""
    lines: np.ndarray
    """The same of lines."""
    is_sample: bool
    """Whether `tokens` counts a part of the store."""


def take_census(store: Store, counted: int = COUNTED) -> Census:
    """Count a store, a shard at a time."""
    tokens = np.zeros(store.vocab_size, np.int64)
    for stretch in _stretches(store, counted):
        tokens += np.bincount(stretch, minlength=store.vocab_size)
    documents = lines = np.zeros(0, np.int64)
    for shard in store.shards:
        documents = _sum(documents, _by_powers(np.diff(shard.document_offsets())))
        lines = _sum(lines, _by_powers(np.diff(shard.lines)))
    return Census(tokens, documents, lines, store.num_tokens > counted)


def _stretches(store: Store, counted: int) -> Iterator[np.ndarray]:
    step = max(1, -(-store.num_tokens // counted)) * _STRETCH
    for shard in store.shards:
        for start in range(0, len(shard.tokens), step):
            yield shard.tokens[start : start + _STRETCH]


def _by_powers(lengths: np.ndarray) -> np.ndarray:
    return np.bincount(np.log2(lengths[lengths > 0]).astype(np.int64))


def _sum(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    size = max(len(first), len(second))
    return np.pad(first, (0, size - len(first))) + np.pad(second, (0, size - len(second)))


def census_lines(census: Census, vocabulary: Vocabulary) -> list[str]:
    """The census as lines to print."""
    shares = census.tokens / max(1, census.tokens.sum())
    frequent = [f"{vocabulary.token(number)} {shares[number]:.1%}" for number in np.argsort(-shares)[:_FREQUENT]]
    of_what = "of a sample of the tokens" if census.is_sample else "of the tokens"
    unused = int(np.count_nonzero(census.tokens == 0))
    return [
        f"  [UNK]        {shares[vocabulary.special.unk]:.3%} {of_what}",
        f"  not met      {unused:,} of the vocabulary's entries",
        f"  frequent     {', '.join(frequent)}",
        *_histogram("documents by tokens", census.documents),
        *_histogram("lines by tokens", census.lines),
    ]


def _histogram(title: str, counts: np.ndarray) -> list[str]:
    lines = [f"  {title}"]
    for power in range(np.flatnonzero(counts)[0], len(counts)):
        span = f"{1 << power:,} to {(2 << power) - 1:,}" if power else "1"
        bar = "█" * -(-_BAR * int(counts[power]) // int(counts.max()))
        lines.append(f"  {span:>24} {bar:{_BAR}} {counts[power]:,}")
    return lines


def plot_census(census: Census, title: str, path: Path) -> None:
    """A picture: tokens by rank, and the lengths of documents and lines; needs matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("--plot needs matplotlib: pip install 'electra-toolkit[plot]'") from None
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    ranks, documents, lines = figure.subplots(1, 3)
    counts = np.sort(census.tokens[census.tokens > 0])[::-1]
    ranks.loglog(np.arange(1, len(counts) + 1), counts)
    ranks.set(title="tokens by frequency", xlabel="rank", ylabel="times met")
    for axes, lengths, name in ((documents, census.documents, "documents"), (lines, census.lines, "lines")):
        powers = range(np.flatnonzero(lengths)[0], len(lengths))
        axes.bar(powers, lengths[powers.start :])
        axes.set_xticks(powers[::2], [f"{1 << power:,}" for power in powers[::2]])
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.tick_params(axis="x", labelrotation=45)
        axes.set(title=f"{name} by length", xlabel="tokens, at least", ylabel=name)
    figure.suptitle(title)
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise ValueError(f"--plot {path}: {str(error).splitlines()[0]}") from None
