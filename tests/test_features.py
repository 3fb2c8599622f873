"""Token ids and truncation against Hugging Face's tokenizer and Google's features, batches of similar length."""

import json
from pathlib import Path

import numpy as np
import torch
from tiny_models import make_model_folder, make_vocabulary
from transformers import AutoTokenizer

from electra.tasks.features import (
    collate,
    encode_texts,
    epoch_batches,
    length_batches,
    longest_first,
    padded_length,
)
from electra.tasks.tables import read_table
from electra.tokenizer import load_tokenizer


def test_longest_first_equals_the_tokenizer_library(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_model_folder(tmp_path / "model"))
    for max_length in (8, 9, 16):
        for a in range(18):
            kept = longest_first(np.full(17, a), np.arange(1, 18), max_length - 3)
            for b, ours in enumerate(zip(*kept, strict=True), start=1):
                theirs = tokenizer("a " * a, "b " * b, truncation="longest_first", max_length=max_length)
                segments = theirs["token_type_ids"]
                assert (segments.count(0) - 2, segments.count(1) - 1) == ours, (a, b, max_length)


def test_features_equal_hugging_face(tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "model")
    vocabulary, tokenizer = make_vocabulary(tmp_path / "v"), AutoTokenizer.from_pretrained(folder)
    texts = ["The film is GREAT!", "", "so dull, so long " * 5, "bad", "films"]
    pairs = [None, "music", "that was not a good plot " * 4, "", None]
    features = encode_texts(vocabulary, texts, pairs, max_length=21)
    assert features.truncated == 1
    batch = collate(features, np.arange(5))
    assert batch.input_ids.shape == (5, 21)  # 24 would be longer than max_length
    for row, (text, pair) in enumerate(zip(texts, pairs, strict=True)):
        expected = tokenizer(text, pair, truncation="longest_first", max_length=21, padding="max_length")
        assert batch.input_ids[row].tolist() == expected["input_ids"]
        assert batch.segment_ids[row].tolist() == expected["token_type_ids"]
        assert batch.valid[row].tolist() == [bool(x) for x in expected["attention_mask"]]


def test_epoch_batches_are_a_bucketed_permutation() -> None:
    lengths = np.random.default_rng(0).integers(5, 128, 10_007)
    batches = epoch_batches(lengths, 32, seed=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, batches))[:2] == [10_007 % 32, 32]
    again, other_epoch, other_seed = (epoch_batches(lengths, 32, *key) for key in ((1, 0), (1, 1), (2, 0)))
    assert all(np.array_equal(x, y) for x, y in zip(batches, again, strict=True))
    for other in (other_epoch, other_seed):
        assert not any(set(batches[0].tolist()) == set(batch.tolist()) for batch in other)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    assert padded < 1.06 * lengths.sum()  # random batches of this kind would be 1.9 times as long


def test_length_batches_hold_each_row_once() -> None:
    lengths = np.array([3, 9, 5, 9, 1])
    assert [batch.tolist() for batch in length_batches(lengths, torch.device("cpu"), 18)] == [[1, 3], [2, 0, 4]]


def test_features_of_pairs_equal_google(golden: Path) -> None:
    """MRPC at length 64 in both orders, with Google's truncation; the library's differs by a token in some rows."""
    expected = json.loads((golden / "mrpc_features.json").read_text())
    rows = [row for _, row in read_table(golden / "mrpc_sample.tsv")]
    texts, pairs = [row["#1 String"] for row in rows], [row["#2 String"] for row in rows]
    vocabulary = load_tokenizer(golden / "vocab512.txt")
    for split, first, second in (("train", texts + pairs, pairs + texts), ("dev", texts, pairs)):
        features = encode_texts(vocabulary, first, second, expected["max_seq_length"], google=True)
        ids = [row.tolist() for row in np.split(features.ids, features.offsets[1:-1])]
        assert ids == [example["input_ids"] for example in expected[split]]
        assert (features.lengths - features.first).tolist() == [example["n_segment1"] for example in expected[split]]
        library = encode_texts(vocabulary, first, second, expected["max_seq_length"])
        np.testing.assert_array_equal(library.lengths, features.lengths)
        assert set((features.first - library.first).tolist()) == {0, 1}


def test_rows_are_padded_by_a_sixteenth_at_most_so_that_few_lengths_occur(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    padded = [padded_length(length, 512) for length in range(1, 513)]
    assert all(length <= found <= length * 17 / 16 + 1e-9 for length, found in enumerate(padded, start=1))
    assert padded[:32] == list(range(1, 33)) and len(set(padded)) == 32 + 4 * 16 and padded_length(300, 300) == 300
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    assert [padded_length(length, 100) for length in (1, 8, 9, 99)] == [8, 8, 16, 100]


def test_many_texts_are_encoded_in_parts(monkeypatch, tmp_path):
    vocabulary = make_vocabulary(tmp_path)
    texts, pairs = ["the film", "", "bad music", "so long", "good"], ["great", None, "dull", "", None]
    whole = encode_texts(vocabulary, texts, pairs, 16)
    monkeypatch.setattr("electra.tasks.features.ENCODED_AT_ONCE", 2)
    parts = encode_texts(vocabulary, texts, pairs, 16)
    np.testing.assert_array_equal(parts.ids, whole.ids)
    np.testing.assert_array_equal(parts.offsets, whole.offsets)
    assert len(encode_texts(vocabulary, ["the film"], [None], 16).lengths) == 1
