"""From texts to batches: token ids, truncation, segments, and batches of rows of similar length.

    texts -> `encode_texts` (flat ids of all examples, once) -> `epoch_batches` / `sorted_batches` (which rows together)
          -> `collate` (one `SentenceBatch` of tensors)

A row is `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, B in segment 1, truncated as Hugging Face's `longest_first`.
A batch is as long as its longest row, rounded up to a multiple of 8 (which matrix units want and which bounds
the number of different shapes). Letters: N examples, B rows of a batch, L tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from electra.tokenizer import Vocabulary

POOL_BATCHES = 50
"""Rows are sorted by length within pools of this many batches: near-equal lengths, yet another mixture each epoch."""
LENGTH_MULTIPLE = 8


@dataclass(frozen=True)
class Features:
    """The token ids of N examples end to end; example i is `ids[offsets[i] : offsets[i + 1]]`."""

    ids: np.ndarray
    """(total,) int32, special tokens included."""
    offsets: np.ndarray
    """(N + 1,) int64."""
    first: np.ndarray
    """(N,) int32: how many of an example's tokens are in segment 0."""
    pad: int
    max_length: int
    truncated: int
    """How many of the examples were longer than `max_length`."""

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens in each example."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class SentenceBatch:
    """A micro-batch of fine-tuning."""

    input_ids: Tensor  # (B, L)
    segment_ids: Tensor  # (B, L) 0 or 1
    valid: Tensor  # (B, L) bool, False at padding
    labels: Tensor | None = None  # (B,) int64 class numbers, or float32 values between 0 and 1
    seed: int = 0  # for dropout

    def to(self, device: torch.device) -> SentenceBatch:
        moved: dict[str, Any] = {
            item.name: value.to(device, non_blocking=True)
            for item in dataclasses.fields(self)
            if isinstance(value := getattr(self, item.name), Tensor)
        }
        return dataclasses.replace(self, **moved)


def encode_texts(
    vocabulary: Vocabulary, texts: Sequence[str], pairs: Sequence[str | None], max_length: int
) -> Features:
    """Tokenise N texts, each with a second one or None, into rows of at most `max_length` tokens.

    An empty second text counts as none, as in Google's code and in Hugging Face's tokenizers: no lone [SEP].
    """
    cls, sep = vocabulary.special.cls, vocabulary.special.sep
    first_ids = vocabulary.encode_batch(list(texts))
    second_ids = iter(vocabulary.encode_batch([pair for pair in pairs if pair]))
    rows, first, truncated = [], [], 0
    for a, pair in zip(first_ids, pairs, strict=True):
        if not pair:
            row = [cls, *a[: max_length - 2], sep]
            truncated += len(row) < len(a) + 2
            first.append(len(row))
        else:
            b = next(second_ids)
            keep_a, keep_b = longest_first(len(a), len(b), max_length - 3)
            row = [cls, *a[:keep_a], sep, *b[:keep_b], sep]
            truncated += len(row) < len(a) + len(b) + 3
            first.append(keep_a + 2)
        rows.append(np.array(row, dtype=np.int32))
    return Features(
        ids=np.concatenate(rows),
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
        first=np.array(first, dtype=np.int32),
        pad=vocabulary.special.pad,
        max_length=max_length,
        truncated=truncated,
    )


def longest_first(a: int, b: int, room: int) -> tuple[int, int]:
    """How much stays of two texts of `a` and `b` tokens when `room` tokens may stay in all.

    The longer one is cut down to the length of the shorter, then both are halves of the room; of an odd room
    the longer one, or the second of two equal ones, has the token more (tokenizers, utils/truncation.rs). Google's
    code gives it to the first text.
    """
    if a + b <= room:
        return a, b
    shorter, longer = min(a, b), max(a, b)
    if 2 * shorter <= room:
        longer = room - shorter
    else:
        shorter, longer = room // 2, room - room // 2
    return (longer, shorter) if a > b else (shorter, longer)


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of a training epoch as arrays of example numbers; follows from (seed, epoch) alone.

    Every example occurs once; only the last batch of the last pool can be smaller than `batch_size`.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    batches = []
    for pool in _chunks(order, POOL_BATCHES * batch_size):
        batches += _chunks(pool[np.argsort(lengths[pool], kind="stable")], batch_size)
    return [batches[i] for i in random.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Batches for evaluation and prediction, longest rows first: if memory is short, it is so at once."""
    return _chunks(np.argsort(-lengths, kind="stable"), batch_size)


def collate(features: Features, rows: np.ndarray, labels: np.ndarray | None = None, seed: int = 0) -> SentenceBatch:
    """The examples `rows` as tensors; `labels` (N,) are those of all examples."""
    longest = int(features.lengths[rows].max())
    L = min(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, features.max_length)
    input_ids = np.full((len(rows), L), features.pad, dtype=np.int64)
    for place, row in enumerate(rows):
        ids = features.ids[features.offsets[row] : features.offsets[row + 1]]
        input_ids[place, : len(ids)] = ids
    position = np.arange(L)
    valid = position < features.lengths[rows, None]
    segment_ids = valid & (position >= features.first[rows, None])
    return SentenceBatch(
        input_ids=torch.from_numpy(input_ids),
        segment_ids=torch.from_numpy(segment_ids.astype(np.int64)),
        valid=torch.from_numpy(valid),
        labels=None if labels is None else torch.from_numpy(labels[rows]),
        seed=seed,
    )


def _chunks(values: np.ndarray, size: int) -> list[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]
