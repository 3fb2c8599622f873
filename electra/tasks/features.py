"""From texts to batches: token ids, truncation, segments, and batches of rows of similar length.

    texts -> `encode_texts` (flat ids of all examples, once) -> `epoch_batches` / `length_batches` (which rows together)
          -> `collate` (one `SentenceBatch` of tensors)

A row is `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, B in segment 1, truncated as Hugging Face's `longest_first`.
A batch is as long as its longest row, beside an accelerator rounded up to a multiple of 8 or 64 (which matrix units
want and which bounds the number of different shapes; a CPU would compute a quarter more of SST-2 for nothing).
Letters: N examples, B rows of a batch, L tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from electra.devices import to_device
from electra.progress import counted
from electra.tokenizer import Vocabulary

POOL_BATCHES = 50
"""Rows are sorted by length within pools of this many batches: near-equal lengths, yet another mixture each epoch."""
LENGTH_MULTIPLE = 8
FEW_LENGTHS_MULTIPLE = 64
"""On devices that compile what they run for each shape: Gaudi and TPU."""
ENCODED_AT_ONCE = 16_384
"""Texts; a good tenth of a second."""
CPU_BATCH_TOKENS = 2048
"""Tokens of a forward pass on a CPU, few enough for its caches: for ELECTRA-Small 512 to 2,048 are equally fast there,
4,096 are slower."""
BATCH_TOKENS = 32_768
"""Elsewhere, enough to fill the device."""


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

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """(N,) int64, tokens in each example."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class SentenceBatch:
    """A micro-batch of fine-tuning."""

    input_ids: Tensor  # (B, L)
    segment_ids: Tensor  # (B, L) 0 or 1
    valid: Tensor  # (B, L) bool, False at padding
    labels: Tensor | None = None  # (B,) int64 classes, (B,) float32 values in [0, 1], or (B, C) float32 zeros and ones
    weights: Tensor | None = None  # (B,) of the examples in the loss; None: 1 each
    seed: int = 0  # for dropout

    def to(self, device: torch.device) -> SentenceBatch:
        return to_device(self, device)


def encode_texts(
    vocabulary: Vocabulary, texts: Sequence[str], pairs: Sequence[str | None], max_length: int, google: bool = False
) -> Features:
    """Tokenise N texts, each with a second one or None, into rows of at most `max_length` tokens.

    An empty second text counts as none, as in Google's code and in Hugging Face's tokenizers: no lone [SEP].
    `google` cuts pairs as Google's code does, which differs by a token (`longest_first`).
    """
    first_ids, first = _encode(vocabulary, texts)
    has_pair = np.array([bool(pair) for pair in pairs])
    second_ids, lengths = _encode(vocabulary, [pair for pair in pairs if pair])
    second = np.zeros(len(first), dtype=np.int64)
    second[has_pair] = lengths
    kept_first, kept_second = longest_first(first, second, max_length - 2 - has_pair, google)
    offsets = np.concatenate([[0], np.cumsum(kept_first + kept_second + 2 + has_pair)])
    ids = np.full(offsets[-1], vocabulary.special.sep, dtype=np.int32)
    ids[offsets[:-1]] = vocabulary.special.cls
    _copy(first_ids, first, kept_first, ids, offsets[:-1] + 1)
    _copy(second_ids, second, kept_second, ids, offsets[:-1] + kept_first + 2)
    return Features(
        ids=ids,
        offsets=offsets,
        first=(kept_first + 2).astype(np.int32),
        pad=vocabulary.special.pad,
        max_length=max_length,
        truncated=int((kept_first + kept_second < first + second).sum()),
    )


def _encode(vocabulary: Vocabulary, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """`Vocabulary.encode_lines`, with a line of progress."""
    begins = range(0, len(texts), ENCODED_AT_ONCE) or [0]
    sizes = [min(ENCODED_AT_ONCE, len(texts) - begin) for begin in begins]
    parts = [
        vocabulary.encode_lines(texts[begin : begin + ENCODED_AT_ONCE])
        for begin in counted(begins, "encoding", "texts", sizes, len(texts))
    ]
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([lengths for _, lengths in parts])


def longest_first(
    a: np.ndarray, b: np.ndarray, room: np.ndarray | int, google: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """How much stays of pairs of texts of `a` and `b` tokens (N,) when `room` tokens may stay of both together.

    The longer one is cut down to the length of the shorter, then both are halves of the room; of an odd room
    the longer one, or the second of two equal ones, has the token more (tokenizers, utils/truncation.rs). `google`: the
    first one has it (google-research/electra util/utils.py and classification_tasks.py).
    """
    shorter, longer = np.minimum(a, b), np.maximum(a, b)
    cut_shorter = np.minimum(shorter, room // 2)
    cut_longer = np.minimum(longer, room - cut_shorter)
    first_is_longer = a > b
    kept_a = np.where(first_is_longer, cut_longer, cut_shorter)
    kept_b = np.where(first_is_longer, cut_shorter, cut_longer)
    if google:
        more = np.asarray((a + b > room) & (kept_b == kept_a + 1) & (a > kept_a))
        kept_a, kept_b = kept_a + more, kept_b - more
    return kept_a, kept_b


def _copy(source: np.ndarray, lengths: np.ndarray, kept: np.ndarray, target: np.ndarray, places: np.ndarray) -> None:
    """Copy the first `kept` of each text's tokens, which lie end to end in `source`, to `places` in `target`."""
    within = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
    target[np.repeat(places, kept) + within] = source[np.repeat(np.cumsum(lengths) - lengths, kept) + within]


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


def length_batches(lengths: np.ndarray, device: torch.device, tokens: int = 0) -> list[np.ndarray]:
    """Batches for evaluation and prediction, longest rows first: if memory is short, it is so at once.

    Rows of these lengths (N,) that padded have about `tokens` tokens together; 0: as many as suit the device.
    """
    room = tokens or (CPU_BATCH_TOKENS if device.type == "cpu" else BATCH_TOKENS)
    order = np.argsort(-lengths, kind="stable")
    batches, begin = [], 0
    while begin < len(order):
        end = begin + max(1, room // int(lengths[order[begin]]))
        batches.append(order[begin:end])
        begin = end
    return batches


def in_turn(batches: list[np.ndarray], lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The batches one after the other, with a line of progress by the tokens of their rows."""
    return counted(batches, "answering", "tokens", (int(lengths[rows].sum()) for rows in batches), int(lengths.sum()))


def padded_length(longest: int, max_length: int) -> int:
    """How long the rows of a batch are made whose longest has so many tokens.

    On a CPU up to a sixteenth longer: oneDNN makes and keeps kernels of its own for each length, so that memory grew
    with the number of lengths that occurred.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        multiple = 1 << max(0, longest.bit_length() - 5)
    else:
        multiple = FEW_LENGTHS_MULTIPLE if accelerator.type in ("hpu", "tpu") else LENGTH_MULTIPLE
    return min(-(-longest // multiple) * multiple, max_length)


def collate(
    features: Features,
    rows: np.ndarray,
    labels: np.ndarray | None = None,
    seed: int = 0,
    weights: np.ndarray | None = None,
) -> SentenceBatch:
    """The examples `rows` as tensors, with the `labels` (B, ...) and `weights` (B,) that belong to the batch."""
    begins, lengths = features.offsets[rows, None], features.lengths[rows, None]
    L = padded_length(int(lengths.max()), features.max_length)
    position = np.arange(L)
    valid = position < lengths
    input_ids = np.where(valid, features.ids[np.where(valid, begins + position, 0)], features.pad)
    segment_ids = valid & (position >= features.first[rows, None])
    return SentenceBatch(
        input_ids=torch.from_numpy(input_ids.astype(np.int64)),
        segment_ids=torch.from_numpy(segment_ids.astype(np.int64)),
        valid=torch.from_numpy(valid),
        labels=None if labels is None else torch.from_numpy(labels),
        weights=None if weights is None else torch.from_numpy(weights),
        seed=seed,
    )


def _chunks(values: np.ndarray, size: int) -> list[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]
