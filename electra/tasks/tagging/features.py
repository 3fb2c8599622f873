"""From sentences to the rows of a tagger: word pieces, windows of long sentences, and which piece decides which tag.

    sentences -> `encode_sentences` (pieces of each word, windows) -> `TagFeatures` -> `tag_batch` (tensors)
    tags      -> `piece_labels` (a class for each deciding piece)
    classes   -> `unit_tags` (a tag for each word or character)

Words are cut into pieces one by one, as Hugging Face's tokenizers do with `is_split_into_words`, and the first piece
of a word decides its tag, as in Google's code (finetune/tagging/tagging_tasks.py). Where characters have tags, every
piece decides that of its first character, and the others go on with it (B-X, then I-X), as in the KLUE baseline.

A sentence that is longer than a row is cut into windows that overlap by half, at any piece: a word of a thousand pieces
is read like any other. Each deciding piece counts once, in training too: in the window where it stands nearest to the
middle. A word without pieces (control characters alone) is an [UNK].

Letters: S sentences, U units (words or characters), P deciding pieces, R rows (windows), L tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from electra.tasks.features import Features, SentenceBatch, collate
from electra.tasks.tagging.schemes import Scheme, inside
from electra.tokenizer import Vocabulary

IGNORED = -100
"""The label of tokens that the loss passes over."""

Pieces = tuple[list[int], list[int]]
"""The ids of a word's pieces, and the character at which each begins."""


@dataclass(frozen=True)
class TagFeatures:
    """The rows of S sentences, and where in them their units are decided."""

    rows: Features
    """R windows, in the order of the sentences."""
    first_piece: np.ndarray
    """(R + 1,) int64: row r holds the deciding pieces first_piece[r] to first_piece[r + 1] - 1."""
    positions: np.ndarray
    """(P,) int64: where in its row a deciding piece stands."""
    piece_of_unit: np.ndarray
    """(U,) int64: the piece that decides it."""
    is_first: np.ndarray
    """(U,) bool: whether the piece begins with it; the other characters of a piece follow."""
    first_unit: np.ndarray
    """(S + 1,) int64: sentence s holds the units first_unit[s] to first_unit[s + 1] - 1."""
    windowed: int
    """Sentences that took more than one row."""

    @property
    def row_of_piece(self) -> np.ndarray:
        """(P,) int64."""
        return np.repeat(np.arange(len(self.first_piece) - 1), np.diff(self.first_piece))


def encode_sentences(
    vocabulary: Vocabulary, sentences: Sequence[Sequence[str]], characters: bool, max_length: int
) -> TagFeatures:
    """The features of sentences of words; `characters`: a tag belongs to each of their characters, not to each word."""
    assert sentences, "no sentences"
    words = dict.fromkeys(word for sentence in sentences for word in sentence)
    pieces = dict(zip(words, _word_pieces(vocabulary, list(words), characters), strict=True))
    cls, sep, room = vocabulary.special.cls, vocabulary.special.sep, max_length - 2
    rows, row_pieces, positions = [], [], []
    piece_of_unit: list[int] = []
    is_first: list[bool] = []
    first_unit, total, windowed = [0], 0, 0
    for sentence in sentences:
        ids: list[int] = []
        deciding: list[int] = []  # the place in `ids` of each deciding piece
        for word in sentence:
            word_ids, begins = pieces[word]
            if characters:
                places = np.clip(np.searchsorted(begins, np.arange(len(word)), side="right") - 1, 0, None)
                piece_of_unit += (total + len(deciding) + places).tolist()
                is_first += np.diff(places, prepend=-1).astype(bool).tolist()
                deciding += range(len(ids), len(ids) + len(word_ids))
            else:
                piece_of_unit.append(total + len(deciding))
                is_first.append(True)
                deciding.append(len(ids))
            ids += word_ids
        begins_of_windows = window_begins(len(ids), room)
        all_places = np.array(deciding)
        window = nearest_window(all_places, begins_of_windows, room)
        bounds = np.searchsorted(window, np.arange(len(begins_of_windows) + 1))
        for number, begin in enumerate(begins_of_windows):
            here = all_places[bounds[number] : bounds[number + 1]]
            if len(here) == 0:  # inside a very long word: nothing is decided there
                continue
            rows.append(np.array([cls, *ids[begin : begin + room], sep], dtype=np.int32))
            row_pieces.append(len(here))
            positions.append(here - begin + 1)
        windowed += len(begins_of_windows) > 1
        total += len(deciding)
        first_unit.append(len(piece_of_unit))
    lengths = np.array([len(row) for row in rows])
    return TagFeatures(
        rows=Features(
            ids=np.concatenate(rows),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            first=lengths.astype(np.int32),
            pad=vocabulary.special.pad,
            max_length=max_length,
            truncated=0,
        ),
        first_piece=np.concatenate([[0], np.cumsum(row_pieces)]),
        positions=np.concatenate(positions),
        piece_of_unit=np.array(piece_of_unit, dtype=np.int64),
        is_first=np.array(is_first, dtype=bool),
        first_unit=np.array(first_unit, dtype=np.int64),
        windowed=windowed,
    )


def _word_pieces(vocabulary: Vocabulary, words: list[str], characters: bool) -> Iterable[Pieces]:
    if not characters:  # where pieces begin is of no interest then, and not asking is faster
        for ids in vocabulary.encode_batch(words):
            yield (ids or [vocabulary.special.unk]), [0]
        return
    for encoding in vocabulary.tokenizer.encode_batch(words, add_special_tokens=False):
        yield (encoding.ids or [vocabulary.special.unk]), ([begin for begin, _ in encoding.offsets] or [0])


def window_begins(length: int, room: int) -> np.ndarray:
    """(W,) where windows of `room` pieces begin in a sentence of `length`, half a window apart, the last one full."""
    if length <= room:
        return np.zeros(1, dtype=np.int64)
    stride = max(1, room // 2)
    return np.append(np.arange(0, length - room, stride), length - room)


def nearest_window(places: np.ndarray, begins: np.ndarray, room: int) -> np.ndarray:
    """For each place the window in which it has most context on its poorer side: the one with the nearest middle."""
    middles = begins + (room - 1) / 2
    return np.searchsorted((middles[1:] + middles[:-1]) / 2, places, side="left")


def piece_labels(features: TagFeatures, labels: np.ndarray) -> np.ndarray:
    """(U,) classes of units -> (P,) those of the deciding pieces: what their first unit has."""
    out = np.full(len(features.positions), IGNORED, dtype=np.int64)
    out[features.piece_of_unit[features.is_first]] = labels[features.is_first]
    return out


def unit_tags(features: TagFeatures, pieces: Sequence[str], scheme: Scheme) -> list[list[str]]:
    """(P,) tags of the deciding pieces -> a tag for each unit of each sentence."""
    following = {tag: inside(tag, scheme) for tag in set(pieces)}
    tags = [
        pieces[piece] if first else following[pieces[piece]]
        for piece, first in zip(features.piece_of_unit.tolist(), features.is_first.tolist(), strict=True)
    ]
    bounds = features.first_unit.tolist()
    return [tags[begin:end] for begin, end in itertools.pairwise(bounds)]


def tag_batch(
    features: TagFeatures, rows: np.ndarray, labels: np.ndarray | None = None, seed: int = 0
) -> SentenceBatch:
    """The rows `rows` as tensors; of `labels` (P,), those in the rows become (B, L), IGNORED elsewhere."""
    batch = collate(features.rows, rows, seed=seed)
    if labels is None:
        return batch
    out = np.full(batch.input_ids.shape, IGNORED, dtype=np.int64)
    for place, row in enumerate(rows):
        pieces = slice(features.first_piece[row], features.first_piece[row + 1])
        out[place, features.positions[pieces]] = labels[pieces]
    return dataclasses.replace(batch, labels=torch.from_numpy(out))
