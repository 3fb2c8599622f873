"""Ids from the table of words are those that `tokenizers` gives for the whole line."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from electra import words as module
from electra.tokenizer import Vocabulary, load_tokenizer
from electra.words import WordTable, groups

PIECES = [
    "the",
    "##s",
    "q",
    "##u",
    "a",
    "##a",
    "é",
    "##é",
    "e",
    "##e",
    "İ",
    "i",
    "中",
    "文",
    "##文",
    "[",
    "]",
    ".",
    "'",
    "mask",
]
OPTIONS = list(itertools.product((True, False), (None, True, False), (True, False)))

# Letters that combine, decompose, change case or vanish, what a tokenizer splits at, and white space of every kind.
LETTERS = "aéeİiσςß\u0301\u0308\u1160가각ᆨ中文\U0002070e\u200b\u200d\ufeff\ufffd\0\x07\xad\ue000[]#._-'\"'\u037e"
SPACES = " \t\n\r\u00a0\u2028\u3000\x1c\x85"
LINES = st.lists(
    st.one_of(
        st.text(LETTERS + SPACES, max_size=30),
        st.text(max_size=30),
        st.lists(st.sampled_from(["the", "thes", "[MASK]", "[UNK]", "[CLS]the", "a" * 201, "aa" * 150, "é", ""])).map(
            " ".join
        ),
    ),
    max_size=6,
)


def vocabulary(
    folder: Path, lowercase: bool, strip_accents: bool | None, split_chinese: bool = True, pieces: list[str] = PIECES
) -> Vocabulary:
    path = folder / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]) + "\n", encoding="utf-8")
    path.with_name("tokenizer_config.json").write_text(json.dumps({"tokenize_chinese_chars": split_chinese}))
    return load_tokenizer(path, lowercase=lowercase, strip_accents=strip_accents)


@pytest.fixture(scope="module", params=OPTIONS, ids=str)
def any_vocabulary(request, tmp_path_factory) -> Vocabulary:
    return vocabulary(tmp_path_factory.mktemp("vocabulary"), *request.param)


@pytest.mark.filterwarnings("ignore")
@given(LINES)
@example(["\u0301a e\u0301 \u0301", "e \u0301", "中文 a中", "\u00a0a\u3000b"])
@example(["a\n.the\n", "the. .thes ..", "", "\n"])
@settings(max_examples=200, deadline=None)
def test_equals_tokenizers_on_any_text(any_vocabulary, lines):
    expected = any_vocabulary.encode_batch(lines)
    ids, lengths = any_vocabulary.encode_lines(lines)
    assert lengths.tolist() == [len(line) for line in expected]
    assert ids.tolist() == [token_id for line in expected for token_id in line]


@pytest.mark.parametrize(
    ("name", "vocab"), [("peps_en", "bert_uncased"), ("k8s_en", "bert_cased"), ("peps_en", "koelectra_v1v2")]
)
def test_equals_tokenizers_on_real_text(real_data, name, vocab):
    """benchmarks/words.py compares every line of all the text there is."""
    lowercase = vocab == "bert_uncased"
    loaded = load_tokenizer(real_data / "vocab" / f"{vocab}_vocab.txt", lowercase=lowercase)
    lines = (real_data / "corpus" / f"{name}.txt").read_text(encoding="utf-8")[:1_000_000].split("\n")
    expected = loaded.encode_batch(lines)
    ids, lengths = loaded.encode_lines(lines)
    assert lengths.tolist() == [len(line) for line in expected]
    assert ids.tolist() == [token_id for line in expected for token_id in line]


def test_a_full_table_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WORDS", 10)
    tokenizer = vocabulary(tmp_path, True, None).tokenizer
    table = WordTable(tokenizer)
    rng, sizes = np.random.default_rng(0), []
    for _ in range(50):
        lines = [
            " ".join(rng.choice(["the", "thes", "q", "qu", "a", "aa", "é", "中", "[", "'", "mask", "z"], 4))
            for _ in range(3)
        ]
        expected = [
            token_id for line in table._tokenizer.encode_batch(lines, add_special_tokens=False) for token_id in line.ids
        ]
        assert table.encode(lines)[0].tolist() == expected
        sizes.append(len(table))
    assert max(sizes) <= 10 + 12 and sum(later < earlier for earlier, later in itertools.pairwise(sizes)) > 3


def test_a_vocabulary_without_a_full_stop_is_left_to_tokenizers(tmp_path):
    plain = vocabulary(tmp_path, True, None, pieces=[piece for piece in PIECES if piece != "."])
    lines = ["the. q", "..", "a"]
    expected = plain.encode_batch(lines)
    ids, lengths = plain.encode_lines(lines)
    assert ids.tolist() == [*itertools.chain(*expected)] and lengths.tolist() == [len(line) for line in expected]


def test_words_are_not_looked_at_alone_where_a_token_may_hold_a_space(tmp_path):
    plain = vocabulary(tmp_path, True, None)
    tokenizer = plain.tokenizer
    tokenizer.add_tokens([AddedToken("the the")])
    extended = Vocabulary(tokenizer)
    expected = extended.encode_batch(["a the the a"])[0]
    assert extended.encode_lines(["a the the a"])[0].tolist() == expected
    assert extended.tokens.index("the the") in expected


@pytest.mark.parametrize("size", [1, 3, 100])
def test_groups_hold_all_in_order(size):
    texts = ["", "ab", "c", "defg", "", "h"]
    found = list(groups(texts, size))
    assert [text for group in found for text in group] == texts
    assert all(sum(map(len, group[:-1])) < size for group in found)
