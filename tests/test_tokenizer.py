"""Vocabularies: equal to Google's tokenizer, to Hugging Face's AutoTokenizer, and to themselves in another process."""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertTokenizer, ElectraConfig

from electra import tokenizer as module
from electra.config import VocabConfig
from electra.tokenizer import SpecialIds, Vocabulary, load_tokenizer, train_vocabulary

# The small vocabularies here mix cases on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*capitals")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = [
    "The quick brown Fox's [MASK] didn't stop! [SEP] Café naïve",
    "日本語 한국어 Ünï x^2 don’t — 😀",
    "a" * 150 + " " + "b" * 201,
    "",
    "\x07\u200b",
]


def words(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    syllables = ["ka", "to", "mi", "sü", "re", "No", "한", "국", "漢", "é", "st", "ing"]
    return ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(count)]


def corpus_file(folder: Path, seed: int = 0, documents: int = 60) -> Path:
    vocabulary = words(seed, 400)
    draw = random.Random(seed)
    lines = []
    for _ in range(documents):
        lines += [" ".join(draw.choices(vocabulary, k=30)) + "." for _ in range(5)] + [""]
    path = folder / "corpus.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def vocab_txt(folder: Path, extra: list[str], name: str = "vocab.txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("".join(f"{token}\n" for token in [*SPECIALS, *extra]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small() -> list[str]:
    letters = [chr(code) for code in range(97, 123)] + list("ABCDEFGHIJKLMNOPQRSTUVWXYZ!'[].,^2éü")
    return [
        *letters,
        *(f"##{letter}" for letter in letters),
        "the",
        "quick",
        "##own",
        "日",
        "mask",
        "한국어",
        "##\u1100",
    ]


# ------------------------------------------------------------------------------------------------ golden values


def tokens(vocabulary: Vocabulary, text: str) -> list[str]:
    ids, lengths = vocabulary.encode_lines([text])
    assert ids.dtype == np.int32 and lengths.tolist() == [len(ids)]
    assert vocabulary.encode_batch([text]) == [ids.tolist()]
    return [vocabulary.token(token_id) for token_id in ids]


def test_equals_google_with_512_pieces(golden: Path) -> None:
    vocabulary = load_tokenizer(golden / "vocab512.txt")
    for case in json.loads((golden / "tokenizer.json").read_text(encoding="utf-8")):
        assert tokens(vocabulary, case["text"]) == case["tokens_vocab512"]
        assert vocabulary.encode_batch([case["text"]])[0] == case["ids_vocab512"]


@pytest.mark.parametrize(
    ("key", "lowercase", "strip_accents"),
    [
        ("tokens_bert30522", True, None),
        ("tokens_bert30522_no_lower", False, None),
        ("tokens_bert30522_lower_no_strip_accents", True, False),
    ],
)
def test_equals_google_with_the_full_vocabulary(
    golden: Path, real_data: Path, key: str, lowercase: bool, strip_accents: bool | None
) -> None:
    vocabulary = load_tokenizer(real_data / "vocab" / "bert_uncased_vocab.txt", lowercase, strip_accents)
    assert vocabulary.special == SpecialIds(pad=0, unk=100, cls=101, sep=102, mask=103)
    for case in json.loads((golden / "tokenizer.json").read_text(encoding="utf-8")):
        assert tokens(vocabulary, case["text"]) == case[key]


def test_real_vocabularies_load(real_data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_tokenizer(real_data / "vocab" / "bert_uncased_vocab.txt").size == 30522
        assert load_tokenizer(real_data / "vocab" / "koelectra_v1v2_vocab.txt", lowercase=False).size == 32200
    for name in ("bert_cased_vocab.txt", "koelectra_v1v2_vocab.txt"):
        with pytest.warns(UserWarning, match=f"{name} has .* entries with capitals.*pass --no-lowercase"):
            load_tokenizer(real_data / "vocab" / name)


# ----------------------------------------------------------------------------------------------------- encoding


def test_special_tokens_in_a_text_are_text(tmp_path: Path, small: list[str]) -> None:
    vocabulary = load_tokenizer(vocab_txt(tmp_path, small))
    for text in ("[MASK]", "[mask]"):
        assert tokens(vocabulary, text) == ["[", "mask", "]"]
    saved = tmp_path / "saved"
    vocabulary.save(saved)
    assert tokens(load_tokenizer(saved), "[MASK]") == ["[", "mask", "]"]
    assert tokens(Vocabulary.from_json(vocabulary.to_json()), "[MASK]") == ["[", "mask", "]"]


def test_long_lines_and_many_lines_are_cut_without_a_trace(
    tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = load_tokenizer(vocab_txt(tmp_path, small))
    lines = ["the quick [mask] brown fox " * 50, "", "z" * 300, "the", "a " + "b" * 150 + " c", " " * 100]
    expected = vocabulary.encode_batch(lines)
    monkeypatch.setattr(module, "_LONG_LINE", 40)
    monkeypatch.setattr(module, "_TABLE_CHARACTERS", 60)
    ids, lengths = vocabulary.encode_lines(lines)
    assert lengths.tolist() == [len(line) for line in expected]
    assert ids.tolist() == [token_id for line in expected for token_id in line]
    assert [len(part) for part in vocabulary.encode_lines([])] == [0, 0]


def test_a_word_without_end_is_cut(tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no space is, memory has to be bounded too; between marks or Chinese characters that is without a trace."""
    vocabulary = load_tokenizer(vocab_txt(tmp_path, small))
    lines = ["中" * 5000 + " the", "!?" * 3001, "the " + "." * 1000]
    expected = vocabulary.encode_batch(lines)
    monkeypatch.setattr(module, "_LONG_LINE", 40)
    monkeypatch.setattr(module, "_LONG_WORD", 70)
    assert max(map(len, module._cut_at_spaces(lines[0]))) == 70
    ids, lengths = vocabulary.encode_lines(lines)
    assert lengths.tolist() == [len(line) for line in expected]
    assert ids.tolist() == [token_id for line in expected for token_id in line]


def test_truncation_and_padding_of_a_tokenizer_json_are_ignored(tmp_path: Path, small: list[str]) -> None:
    load_tokenizer(vocab_txt(tmp_path, small)).save(tmp_path / "saved")
    path = tmp_path / "saved" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(path))
    assert len(load_tokenizer(path).encode_batch(["the quick the quick the"])[0]) == 5


def test_decode(tmp_path: Path, small: list[str]) -> None:
    vocabulary = load_tokenizer(vocab_txt(tmp_path, small))
    ids = vocabulary.encode_batch(["the brown"])[0]
    assert vocabulary.decode(np.array([vocabulary.special.cls, *ids])) == "[CLS] the brown"


# ---------------------------------------------------------------------------------------------- save and load


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
@pytest.mark.parametrize("in_a_model_folder", [True, False])
def test_transformers_loads_the_folder_with_the_same_ids(
    tmp_path: Path, small: list[str], lowercase: bool, strip_accents: bool | None, in_a_model_folder: bool
) -> None:
    vocabulary = load_tokenizer(vocab_txt(tmp_path, small), lowercase, strip_accents)
    folder = tmp_path / "saved"
    vocabulary.save(folder)
    if in_a_model_folder:
        ElectraConfig().save_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    special = vocabulary.special
    for text in TEXTS[1:]:  # the first has special tokens typed in it, which transformers obeys
        assert theirs(text, add_special_tokens=False)["input_ids"] == vocabulary.encode_batch([text])[0]
    first, second = vocabulary.encode_batch(["the quick", "brown fox"])
    both = theirs("the quick", "brown fox")
    assert both["input_ids"] == [special.cls, *first, special.sep, *second, special.sep]
    assert both["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert theirs("the quick")["input_ids"] == [special.cls, *first, special.sep]
    assert theirs.mask_token_id == special.mask and theirs.pad_token_id == special.pad
    assert theirs.vocab_size == vocabulary.size
    again = load_tokenizer(folder)
    assert (again.sha256, again.options) == (vocabulary.sha256, vocabulary.options)
    # Transformers' own copy is a tokenizer.json like any other.
    theirs.save_pretrained(tmp_path / "theirs")
    assert load_tokenizer(tmp_path / "theirs").sha256 == vocabulary.sha256


def test_bert_tokenizers_of_transformers_load_here(tmp_path: Path, small: list[str]) -> None:
    path = vocab_txt(tmp_path, small)
    theirs = BertTokenizer.from_pretrained(tmp_path, do_lower_case=True, strip_accents=False)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_tokenizer(tmp_path / "theirs")
    assert ours.sha256 == load_tokenizer(path, lowercase=True, strip_accents=False).sha256
    assert ours.encode_batch(["Éa quick"])[0] == theirs("Éa quick", add_special_tokens=False)["input_ids"]


def test_the_hash_tells_vocabularies_and_options_apart(tmp_path: Path, small: list[str]) -> None:
    path, swapped = vocab_txt(tmp_path / "a", small), vocab_txt(tmp_path / "b", [small[1], small[0], *small[2:]])
    flags = [(True, None), (False, None), (True, False), (False, True)]
    hashes = {load_tokenizer(path, *pair).sha256 for pair in flags} | {load_tokenizer(swapped).sha256}
    assert len(hashes) == 5
    assert load_tokenizer(path, True, True).sha256 == load_tokenizer(path).sha256


def test_the_config_beside_a_vocab_txt_says_what_it_does_not(tmp_path: Path, small: list[str]) -> None:
    path = vocab_txt(tmp_path, small)
    said = {"do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    options = {"lowercase": False, "strip_accents": False, "handle_chinese_chars": False, "clean_text": True}
    assert load_tokenizer(path).options == options
    assert load_tokenizer(tmp_path).options == options


def test_a_store_folder_is_a_vocabulary(tmp_path: Path, small: list[str]) -> None:
    vocabulary = load_tokenizer(vocab_txt(tmp_path / "v", small))
    vocabulary.save(tmp_path / "store" / "tokenizer")
    assert load_tokenizer(tmp_path / "store").sha256 == vocabulary.sha256


# -------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("missing", SPECIALS)
def test_a_missing_special_token_is_named(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in [*SPECIALS, "a"] if token != missing))
    with pytest.raises(ValueError, match=rf"vocab.txt has no \{missing[:-1]}\] token"):
        load_tokenizer(path)


def test_bad_files(tmp_path: Path, small: list[str]) -> None:
    with pytest.raises(ValueError, match=r"nothing.txt does not exist"):
        load_tokenizer(tmp_path / "nothing.txt")
    with pytest.raises(ValueError, match=r"is no vocabulary: it has no tokenizer.json and no vocab.txt"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="line 8 repeats 'b' of line 7"):
        load_tokenizer(vocab_txt(tmp_path, ["a", "b", "b"]))
    (tmp_path / "latin.txt").write_bytes(b"[PAD]\n\xe9\n")
    with pytest.raises(ValueError, match=r"latin.txt: byte 6 is not UTF-8"):
        load_tokenizer(tmp_path / "latin.txt")
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"other.json is no tokenizer.json"):
        load_tokenizer(tmp_path / "other.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"half.json is damaged"):
        load_tokenizer(tmp_path / "half.json")


def test_gaps_in_the_ids_are_refused(tmp_path: Path, small: list[str]) -> None:
    load_tokenizer(vocab_txt(tmp_path, small)).save(tmp_path / "saved")
    path = tmp_path / "saved" / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["model"]["vocab"]["zebra"] = 5000
    path.write_text(json.dumps(state))
    with pytest.raises(ValueError, match="tokens but ids up to 5000"):
        load_tokenizer(path)


def test_flags_against_a_tokenizer_json(tmp_path: Path, small: list[str]) -> None:
    load_tokenizer(vocab_txt(tmp_path, small)).save(tmp_path / "saved")
    load_tokenizer(tmp_path / "saved", lowercase=True, strip_accents=True)
    with pytest.raises(ValueError, match=r"tokenizer.json says lowercase = True"):
        load_tokenizer(tmp_path / "saved", lowercase=False)


def test_casing_that_does_not_fit_is_warned_of(tmp_path: Path) -> None:
    uncased = vocab_txt(tmp_path / "uncased", list("abc"))
    with pytest.warns(UserWarning, match="has no capitals.*pass --lowercase"):
        load_tokenizer(uncased, lowercase=False)
    cased = vocab_txt(tmp_path / "cased", list("abcABC"))
    with pytest.warns(UserWarning, match="has 3 entries with capitals.*pass --no-lowercase"):
        load_tokenizer(cased)


# ----------------------------------------------------------------------------------------------------- training

TRAIN = """
import sys
from pathlib import Path
from electra.config import VocabConfig
from electra.tokenizer import train_vocabulary
config = VocabConfig(corpus=(sys.argv[1],), out=Path(sys.argv[2]), size=300, sample_mb=0.03,
                     limit_alphabet=20, unused=2)
print(train_vocabulary(config)["sha256"])
"""


def test_training_is_the_same_in_every_process(tmp_path: Path) -> None:
    path = corpus_file(tmp_path)
    outs = [tmp_path / str(run) for run in range(3)]
    for out in outs:
        subprocess.run([sys.executable, "-c", TRAIN, str(path), str(out)], check=True, stdout=subprocess.PIPE)
    texts = [(out / "vocab.txt").read_bytes() for out in outs]
    assert texts[0] == texts[1] == texts[2]
    entries = texts[0].decode().splitlines()
    assert entries[:7] == [*SPECIALS, "[unused0]", "[unused1]"]
    assert len(entries) == len(set(entries)) == 300
    alphabet = [entry for entry in entries[7:] if len(entry) == 1]
    assert len(alphabet) <= 20 and alphabet == sorted(alphabet)
    assert any(len(entry.removeprefix("##")) > 3 for entry in entries[60:])


@pytest.mark.parametrize("options", [{}, {"lowercase": False}, {"strip_accents": False}, {"split_chinese": False}])
def test_a_trained_vocabulary_covers_its_text(tmp_path: Path, options: dict[str, bool]) -> None:
    path, out = corpus_file(tmp_path), tmp_path / "out"
    config = VocabConfig(corpus=(str(path),), out=out, size=300, **options)  # type: ignore[arg-type]
    summary = train_vocabulary(config)
    vocabulary = load_tokenizer(out)
    assert summary["size"] == vocabulary.size == 300 and summary["sha256"] == vocabulary.sha256
    assert sorted(item.name for item in out.iterdir()) == ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert vocabulary.options["lowercase"] == config.lowercase
    assert vocabulary.options["handle_chinese_chars"] == config.split_chinese
    assert vocabulary.options["strip_accents"] == (config.strip_accents is None and config.lowercase)
    ids, _ = vocabulary.encode_lines(path.read_text(encoding="utf-8").split("\n"))
    assert len(ids) and not (ids == vocabulary.special.unk).any()
    assert any("N" in token for token in vocabulary.tokens[5:]) == (not config.lowercase)


def test_a_bounded_sample_comes_from_the_whole_corpus(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"document {number} " + "x" * 980 for number in range(1000)))
    config = VocabConfig(corpus=(str(path),), out=tmp_path / "out", sample_mb=0.1)
    sample, size = module._draw_sample([path], config, module.Tally())
    numbers = [int(document.split()[1]) for document in sample]
    assert 95 <= len(sample) <= 100 and size == path.stat().st_size - 2 * 999
    assert numbers == sorted(numbers) and 400 < np.mean(numbers) < 600
    other, _ = module._draw_sample([path], dataclasses.replace(config, seed=1), module.Tally())
    assert other != sample


def test_bad_training(tmp_path: Path) -> None:
    path, out = corpus_file(tmp_path), tmp_path / "out"
    with pytest.raises(ValueError, match=r"--size 12 leaves no room beside .* lower --limit-alphabet"):
        train_vocabulary(VocabConfig(corpus=(str(path),), out=out, size=12))
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=r"empty.txt has no text"):
        train_vocabulary(VocabConfig(corpus=(str(tmp_path / "empty.txt"),), out=out))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["corpus.txt", "empty.txt"]
    with pytest.warns(UserWarning, match="the vocabulary has only [0-9]+ of 30522 entries"):
        train_vocabulary(VocabConfig(corpus=(str(path),), out=out))
    with pytest.raises(ValueError, match="exists already"):
        train_vocabulary(VocabConfig(corpus=(str(path),), out=out))
    shutil.rmtree(out)
