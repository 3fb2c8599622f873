import json

import numpy as np
import pytest
from stores import some_rows, tiny_vocabulary
from tiny_models import make_vocabulary

from electra.masking import continuations, global_rng, mask_rows
from electra.tokenizer import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)


def rows(num_rows, length, tokens):
    """`num_rows` times [CLS] ... [SEP] of `tokens` tokens, padded to `length`."""
    ids = np.zeros((num_rows, length), np.int32)
    ids[:, :tokens] = np.random.default_rng(0).integers(5, 500, (num_rows, tokens))
    ids[:, 0], ids[:, tokens - 1] = SPECIAL.cls, SPECIAL.sep
    return ids, np.broadcast_to(np.arange(length) < tokens, ids.shape)


def draw(ids, valid, slots, with_replacement, mask_prob=0.15, step=0, **share):
    return mask_rows(
        ids,
        valid,
        special=SPECIAL,
        mask_prob=mask_prob,
        max_predictions=slots,
        with_replacement=with_replacement,
        rng=global_rng(1, step, 0),
        **share,
    )


@pytest.mark.parametrize("with_replacement", [False, True])
def test_shapes_and_rules(with_replacement):
    """Slot by slot, by plain loops."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(3, 65, 200)
    ids = rng.integers(1, 60, (200, 64)).astype(np.int32)  # with [CLS], [SEP] and [MASK] in all places
    valid = np.arange(64) < lengths[:, None]
    masks = draw(ids, valid, 9, with_replacement)
    assert masks.positions.shape == masks.weights.shape == masks.token_ids.shape == masks.uniforms.shape == (200, 9)
    assert (masks.positions.dtype, masks.token_ids.dtype) == (np.int64, np.int64)
    assert (masks.masked_input_ids.dtype, masks.weights.dtype, masks.uniforms.dtype) == (
        np.int32,
        np.float32,
        np.float32,
    )
    assert masks.uniforms.min() >= 0 and masks.uniforms.max() < 1
    for row in range(200):
        candidates = [i for i in range(lengths[row]) if ids[row, i] not in (2, 3, 4)]
        wanted = max(1, min(9, round(float(np.float32(lengths[row]) * np.float32(0.15)))))
        wanted = (wanted if candidates else 0) if with_replacement else min(wanted, len(candidates))
        used = masks.weights[row] == 1
        assert used.sum() == wanted and used[:wanted].all()
        chosen = masks.positions[row][used].tolist()
        assert set(chosen) <= set(candidates)
        if not with_replacement:
            assert chosen == sorted(set(chosen))
        assert masks.token_ids[row][used].tolist() == ids[row, chosen].tolist()
        assert not masks.positions[row][~used].any() and not masks.token_ids[row][~used].any()
        changed = np.flatnonzero(masks.masked_input_ids[row] != ids[row])
        assert set(changed) <= set(chosen)
        assert (masks.masked_input_ids[row, changed] == SPECIAL.mask).all()


def test_unknown_is_a_candidate_and_specials_are_not():
    ids = np.array([[2, 3, 4, 1, 3, 0, 0, 0]], np.int32)
    for with_replacement in (False, True):
        masks = draw(ids, ids > 0, 2, with_replacement, mask_prob=0.5)
        assert set(masks.positions[masks.weights > 0]) == {3}
    only_specials = np.array([[2, 3, 0, 0]], np.int32)
    for with_replacement in (False, True):
        masks = draw(only_specials, only_specials > 0, 2, with_replacement)
        assert not masks.weights.any() and (masks.masked_input_ids == only_specials).all()


def test_all_positions_are_drawn_alike():
    for with_replacement in (False, True):
        ids, valid = rows(20_000, 16, 12)
        masks = draw(ids, valid, 3, with_replacement, mask_prob=0.25)
        counts = np.bincount(masks.positions.ravel(), minlength=16)
        assert counts[0] == counts[11] == 0 and not counts[12:].any()
        assert np.abs(counts[1:11] / counts.sum() - 0.1).max() < 0.006
        assert abs((masks.uniforms < 0.3).mean() - 0.3) < 0.01


def test_more_slots_than_tokens():
    ids, valid = rows(4, 8, 8)
    for with_replacement in (False, True):
        masks = draw(ids, valid, 12, with_replacement, mask_prob=0.99)
        assert masks.positions.shape == (4, 12)
    assert draw(ids, valid, 12, False, mask_prob=0.99).weights.sum() == 4 * 6


def test_statistics_are_googles(golden):
    """Counts, distinct positions and the share that shows [MASK], as measured on Google's own graph."""
    stats = json.loads((golden / "mask_stats.json").read_text())["by_length"]
    for name, expected in stats.items():
        tokens, length = (128, 128) if name == "128_of_128" else (int(name), 32)
        ids, valid = rows(20_000, length, tokens)
        masks = draw(ids, valid, int(0.155 * length), True)
        assert (masks.weights.sum(axis=1) == expected["n_predictions"]).all()
        count = int(expected["n_predictions"])
        distinct = np.array([len(set(row[:count])) for row in masks.positions.tolist()])
        assert abs(distinct.mean() - expected["mean_distinct_positions"]) < 0.03
        assert abs((distinct < count).mean() - expected["share_rows_with_duplicate"]) < 0.025
        shown = (masks.masked_input_ids == SPECIAL.mask).sum() / distinct.sum()
        assert abs(shown - expected["share_of_positions_showing_MASK"]) < 0.02


def test_without_replacement_shows_85_percent():
    ids, valid = rows(5000, 128, 128)
    masks = draw(ids, valid, 19, False)
    assert (masks.weights == 1).all()
    assert abs((masks.masked_input_ids == SPECIAL.mask).sum() / masks.weights.sum() - 0.85) < 0.005


@pytest.mark.parametrize("with_replacement", [False, True])
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_see_their_part_of_the_global_masks(with_replacement, ranks):
    ids, valid = rows(24, 32, 30)
    whole = draw(ids, valid, 4, with_replacement, step=7)
    size = 24 // ranks
    for rank in range(ranks):
        mine = slice(rank * size, (rank + 1) * size)
        part = draw(ids[mine], valid[mine], 4, with_replacement, step=7, first_row=rank * size, global_rows=24)
        expected = some_rows(whole, mine)
        for name in ("positions", "weights", "token_ids", "masked_input_ids", "uniforms"):
            assert (getattr(part, name) == getattr(expected, name)).all()


def test_randomness_is_a_function_of_seed_step_and_stream():
    def first(*numbers):
        return global_rng(*numbers).random(4).tolist()

    assert first(1, 2, 3) == first(1, 2, 3)
    assert len({tuple(first(*numbers)) for numbers in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3)]}) == 5


# ------------------------------------------------------------------------------------------- whole words

PIECES = np.arange(500) >= 300  # ids that go on with a word


def text_rows(num_rows, length, seed=0):
    """Rows of different lengths in which two tokens of five go on with a word, the first of a row too at times."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, length + 1, num_rows)
    valid = np.arange(length) < lengths[:, None]
    ids = np.where(valid, rng.integers(5, 500, (num_rows, length)), 0).astype(np.int32)
    ids[:, 0] = SPECIAL.cls
    ids[rng.random(ids.shape) < 0.05] = SPECIAL.sep
    return np.where(valid, ids, 0), valid


def words_of(ids, valid):
    """The words of a row as lists of positions, by plain loops."""
    words: list[list[int]] = []
    for position, token in enumerate(ids):
        if not valid[position] or token in (2, 3, 4):
            continue
        if words and words[-1][-1] == position - 1 and PIECES[token]:
            words[-1].append(position)
        else:
            words.append([position])
    return words


@pytest.mark.parametrize(("length", "mask_prob"), [(16, 0.15), (63, 0.15), (64, 0.4), (128, 0.15)])
def test_whole_words_are_chosen_one_by_one(length, mask_prob):
    """google-research/bert create_masked_lm_predictions, word after word, in the same random order."""
    ids, valid = text_rows(200, length)
    slots = int((mask_prob + 0.005) * length)
    masks = draw(ids, valid, slots, False, mask_prob, step=3, continuations=PIECES)
    places = global_rng(1, 3, 0).integers(0, 2**32, ids.shape, dtype=np.uint32) >> length.bit_length()
    for row in range(200):
        wanted = max(1, min(slots, round(float(np.float32(valid[row].sum()) * np.float32(mask_prob)))))
        expected: list[int] = []
        for word in sorted(words_of(ids[row], valid[row]), key=lambda word: (places[row, word[0]], word[0])):
            if len(expected) + len(word) <= wanted:
                expected += word
        used = masks.weights[row] == 1
        assert used[: len(expected)].all() and used.sum() == len(expected)
        assert masks.positions[row][used].tolist() == sorted(expected)
        assert masks.token_ids[row][used].tolist() == ids[row, sorted(expected)].tolist()
        assert not masks.positions[row][~used].any()
        assert set(np.flatnonzero(masks.masked_input_ids[row] != ids[row])) <= set(expected)


def test_whole_words_use_nearly_all_slots():
    ids = np.random.default_rng(0).integers(5, 500, (2000, 128)).astype(np.int32)
    masks = draw(ids, np.ones_like(ids, bool), 19, False, continuations=PIECES)
    assert masks.weights.sum(axis=1).mean() > 18.9
    assert abs((masks.masked_input_ids == SPECIAL.mask).sum() / masks.weights.sum() - 0.85) < 0.01


def test_one_piece_a_word_is_as_likely_as_any_token():
    ids, valid = rows(20_000, 16, 12)
    masks = draw(ids, valid, 3, False, mask_prob=0.25, continuations=np.zeros(500, bool))
    counts = np.bincount(masks.positions.ravel(), minlength=16)
    assert (masks.weights == 1).all()
    assert np.abs(counts[1:11] / counts.sum() - 0.1).max() < 0.006


def test_a_word_longer_than_the_slots_is_never_masked():
    ids = np.array([[2, 5, 300, 301, 302, 3]], np.int32)
    assert not draw(ids, ids > 0, 1, False, continuations=PIECES).weights.any()
    only_specials = np.array([[2, 3, 0, 0]], np.int32)
    assert not draw(only_specials, only_specials > 0, 2, False, continuations=PIECES).weights.any()


def test_ranks_see_their_part_of_the_words():
    ids, valid = text_rows(24, 32)
    whole = draw(ids, valid, 4, False, step=7, continuations=PIECES)
    for first in (0, 8, 16):
        mine = slice(first, first + 8)
        part = draw(ids[mine], valid[mine], 4, False, step=7, first_row=first, global_rows=24, continuations=PIECES)
        assert (part.positions == whole.positions[mine]).all() and (part.weights == whole.weights[mine]).all()


def test_the_vocabulary_says_what_goes_on_with_a_word(tmp_path):
    vocabulary = make_vocabulary(tmp_path / "with")
    found = {vocabulary.token(int(token)) for token in np.flatnonzero(continuations(vocabulary))}
    assert found == {"##s", "##ing", "##e"}
    with pytest.raises(ValueError, match=r"objective.whole_word has no meaning with this vocabulary, .* WordPiece"):
        continuations(tiny_vocabulary(tmp_path / "without"))
