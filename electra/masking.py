"""Which positions the generator predicts, and what is shown there (ELECTRA's dynamic masking).

Follows google-research/electra, pretrain/pretrain_helpers.py `mask`: a row gets round(mask_prob * tokens) slots,
counted with [CLS] and [SEP], which are never chosen themselves; a chosen position shows [MASK] with probability
0.85 and its own token otherwise, never a random one. Google draws positions with replacement, so that 15 % means
about 14 % distinct positions; without replacement is the default of the toolkit.

Whole words are chosen, when asked for, as by google-research/bert, create_pretraining_data.py
`create_masked_lm_predictions`: words in random order, each with all its pieces if they still fit into the row's count
and left out if not; whether a piece shows [MASK] is drawn for each piece. A word is a token and the `##` pieces that
follow it; a row that begins within a word holds the rest of it as a word.

Shapes are fixed: K slots a row, the unused ones with weight 0 at position 0. Letters: R rows, L tokens, K slots.

The randomness of a step belongs to its global batch, not to a process: everybody draws the numbers of all rows
(`global_rng`) and uses those of his own, so any split over processes and micro-batches sees the same masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from electra.tokenizer import SpecialIds, Vocabulary

SHOW_MASK = 0.85
"""Share of the chosen positions that show [MASK] (pretrain_helpers.py line 202)."""


@dataclass(frozen=True)
class Masks:
    """The masks of R rows of L tokens with K slots each."""

    positions: np.ndarray  # (R, K) int64, 0 in unused slots
    weights: np.ndarray  # (R, K) float32: 1 used, 0 unused
    token_ids: np.ndarray  # (R, K) int64: the original tokens, 0 in unused slots
    masked_input_ids: np.ndarray  # (R, L) int32: what the generator reads
    uniforms: np.ndarray  # (R, K) float32 in [0, 1): with it the generator's token is drawn, by inverting its CDF
    candidates: np.ndarray  # (R, L) bool: where a position may be chosen


def global_rng(seed: int, step: int, stream: int) -> np.random.Generator:
    """The generator of one step's random numbers; `stream` keeps apart what is drawn for different uses."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step, stream))))


def continuations(vocabulary: Vocabulary) -> np.ndarray:
    """(V,) bool: which ids go on with the word of the token before them, `##ing` for one.

    Raises ValueError if there are none: in such a vocabulary each token is a word.
    """
    prefix = str(getattr(vocabulary.tokenizer.model, "continuing_subword_prefix", None) or "")  # of WordPiece and BPE
    found = np.array([bool(prefix) and token.startswith(prefix) and token != prefix for token in vocabulary.tokens])
    if not found.any():
        raise ValueError(
            "objective.whole_word has no meaning with this vocabulary, which has no pieces such as ##ing that go on "
            "with a word: turn it off, or build the store with a WordPiece vocabulary"
        )
    return found


def mask_rows(
    input_ids: np.ndarray,
    valid: np.ndarray,
    *,
    special: SpecialIds,
    mask_prob: float,
    max_predictions: int,
    with_replacement: bool,
    rng: np.random.Generator,
    first_row: int = 0,
    global_rows: int | None = None,
    continuations: np.ndarray | None = None,
) -> Masks:
    """Choose positions in `input_ids` (R, L) where `valid` (R, L) bool says that a token is no padding.

    The rows are rows first_row .. first_row + R of a global batch of `global_rows` (by default: the whole of it); the
    result equals the same rows of the masks of the whole batch. A row of nothing but specials gets no slot.

    `continuations` (V,) bool, which ids are `##` pieces, makes it choose whole words, never with replacement. Then a
    row gets fewer slots where no word that is left fits.
    """
    assert continuations is None or not with_replacement
    num_rows, length = input_ids.shape
    total = num_rows if global_rows is None else global_rows
    assert first_row >= 0 and first_row + num_rows <= total
    mine = slice(first_row, first_row + num_rows)
    if with_replacement:
        places: np.ndarray = rng.random((total, max_predictions))[mine]
    else:
        places = rng.integers(0, 2**32, (total, length), dtype=np.uint32)[mine]
    coins = rng.random((total, max_predictions), dtype=np.float32)[mine]
    uniforms = rng.random((total, max_predictions), dtype=np.float32)[mine]

    ids = input_ids
    candidates = valid & (ids != special.cls) & (ids != special.sep) & (ids != special.mask)
    available = candidates.sum(axis=1)
    # float32 and half to even, as in TensorFlow: the count of a row must not hang on the precision.
    wanted = np.rint(valid.sum(axis=1).astype(np.float32) * np.float32(mask_prob)).astype(np.int64)
    wanted = np.clip(wanted, 1, max_predictions)
    if with_replacement:
        chosen = _draw_with_replacement(candidates, available, places)
        counts = np.where(available > 0, wanted, 0)
    elif continuations is not None:
        chosen, counts = _draw_words(candidates, continuations[ids], wanted, places, max_predictions)
    else:
        counts = np.minimum(wanted, available)
        chosen = _draw_distinct(candidates, counts, places, max_predictions)

    used = np.arange(max_predictions) < counts[:, None]
    positions = np.where(used, chosen, 0)
    rows = np.arange(num_rows)[:, None]
    token_ids = np.where(used, ids[rows, positions], 0).astype(np.int64)
    # A position drawn twice shows [MASK] if either draw says so, as in Google's scatter of the two.
    shown_row, shown_slot = np.nonzero(used & (coins < SHOW_MASK))
    masked = ids.astype(np.int32)
    masked[shown_row, positions[shown_row, shown_slot]] = special.mask
    return Masks(positions, used.astype(np.float32), token_ids, masked, uniforms, candidates)


def _draw_with_replacement(candidates: np.ndarray, available: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(R, K) positions, each drawn uniformly from the candidates of its row (0 in a row without)."""
    num_rows, length = candidates.shape
    # All candidates in reading order; those of row r begin at begins[r]. One more entry keeps an empty end in range.
    flat = np.append(np.flatnonzero(candidates), 0)
    begins = np.cumsum(available) - available
    rank = (places * available[:, None]).astype(np.int64)
    return np.where(available[:, None] > 0, flat[begins[:, None] + rank] - np.arange(num_rows)[:, None] * length, 0)


def _draw_distinct(candidates: np.ndarray, counts: np.ndarray, places: np.ndarray, slots: int) -> np.ndarray:
    """(R, K) positions: in row r the first counts[r] are distinct candidates in ascending order, the rest anything.

    Those with the smallest random numbers are chosen. The position is kept in the low bits of its number, so that a
    plain sort does, which numpy vectorises: 5 times as fast as an argpartition.
    """
    num_rows, length = candidates.shape
    low_bits = np.uint32(2 ** length.bit_length() - 1)
    keys = (places & ~low_bits) | np.arange(length, dtype=np.uint32)
    keys = np.sort(np.where(candidates, keys, ~np.uint32(0)), axis=1)[:, :slots]
    chosen = np.full((num_rows, slots), length, np.int64)
    width = keys.shape[1]
    chosen[:, :width] = np.where(np.arange(width) < counts[:, None], keys & low_bits, length)
    return np.sort(chosen, axis=1)


def _draw_words(
    candidates: np.ndarray, continues: np.ndarray, wanted: np.ndarray, places: np.ndarray, slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """(R, K) positions of whole words, ascending, and (R,) how many of them there are, at most `wanted`.

    `continues` (R, L) says which tokens are `##` pieces. The words of a row are tried in the order of the random
    numbers of their first tokens, all rows at once; a loop of about as many rounds as there are slots.
    """
    num_rows, length = candidates.shape
    begins = candidates.copy()
    begins[:, 1:] &= ~(continues[:, 1:] & candidates[:, :-1])
    # Words are numbered from 0 in each row. What is no candidate gets the number behind the last.
    word = np.where(candidates, begins.cumsum(axis=1) - 1, length)
    rows = np.arange(num_rows)[:, None]
    sizes = np.bincount((rows * (length + 1) + word).ravel(), minlength=num_rows * (length + 1))
    sizes = sizes.reshape(num_rows, length + 1)
    sizes[:, length] = 0

    low_bits = np.uint32(2 ** length.bit_length() - 1)
    keys = (places & ~low_bits) | np.arange(length, dtype=np.uint32)
    order = np.sort(np.where(begins, keys, ~np.uint32(0)), axis=1) & low_bits
    order = np.append(word, np.full((num_rows, 1), length), axis=1)[rows, np.minimum(order, length)]
    sizes_in_order = sizes[rows, order].T
    left, takes = wanted.copy(), np.zeros((length, num_rows), bool)
    for turn in range(length):
        size = sizes_in_order[turn]
        takes[turn] = size <= left
        left -= size * takes[turn]
        if not left.any():
            break
    is_chosen = np.zeros((num_rows, length + 1), bool)
    is_chosen[rows, np.where(takes.T, order, length)] = True
    is_chosen[:, length] = False

    row, position = np.nonzero(is_chosen[rows, word])
    counts = wanted - left
    chosen = np.zeros((num_rows, slots), np.int64)
    chosen[row, np.arange(len(row)) - (np.cumsum(counts) - counts)[row]] = position
    return chosen, counts
