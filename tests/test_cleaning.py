"""Cleaning: lines and counts as plain loops have them, whole documents judged wherever blocks end, and all counted."""

import dataclasses
import gzip
import json
import random
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import Document, random_documents, read_documents, tiny_vocabulary

from electra import encoding, portions
from electra.build import build
from electra.cleaning import REASONS, Origin, Report, _identifier, clean, fault, mend_line, report_lines
from electra.cli import main
from electra.config import BuildConfig, CleaningConfig
from electra.shards import ShardWriter
from electra.store import Store
from electra.tokenizer import load_tokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh.#", *(f"##{letter}" for letter in "abcdefgh")]
STRIP = CleaningConfig(strip_control=True)
NOWHERE = Origin(Path("a.txt"), 0, counts_bytes=True)


def mended(line: str, config: CleaningConfig) -> str:
    return mend_line(line, config, Report())


# --------------------------------------------------------------------------------------------------------- lines


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("zero\u200bwidth", "zerowidth"),
        ("soft\u00adhyphen \ufeffmark\u200e", "softhyphen mark"),
        ("page\x0cbreak\u2028line\x85", "page break line"),
        ("bell\x07 \x00nul\x9f", "bell nul"),
        ("tab\tstays,\rreturn", "tab\tstays, return"),
        ("litter\u200c of\u200d pages\u200b", "litter of pages"),
        ("한국어\u200b 문장\u200d", "한국어 문장"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian "I want" is spelt with a non-joiner
        ("क्\u200dष", "क्\u200dष"),  # the half form of ka
        ("👩\u200d👩\u200d👧 ❤\ufe0f\u200d🔥", "👩\u200d👩\u200d👧 ❤\ufe0f\u200d🔥"),
        ("ภาษา\u200bไทย", "ภาษา\u200bไทย"),
        ("\u0600١٢", "\u0600١٢"),  # the Arabic number sign is a format character that is seen
        ("\u200b\ufeff", ""),
    ],
)
def test_invisible_characters_go_unless_something_is_spelt_with_them(line: str, expected: str) -> None:
    assert mended(line, STRIP) == expected


@given(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])))
def test_stripping_takes_nothing_that_is_seen(line: str) -> None:
    found = mended(line.strip(), STRIP)
    assert [c for c in found if unicodedata.category(c)[0] in "LMNPS"] == [
        c for c in line if unicodedata.category(c)[0] in "LMNPS"
    ]
    assert not [c for c in found if unicodedata.category(c) == "Cc" and c != "\t"]
    assert mended(found, STRIP) == found


def test_lines_are_normalised_and_counted() -> None:
    report, config = Report(), CleaningConfig(normalize="NFC", strip_control=True)
    decomposed = unicodedata.normalize("NFD", "한국어 café")
    # What stands between a letter and its accent goes first.
    lines = [decomposed, decomposed.replace("\u0301", "\u00ad\u0301"), "plain", "한국어"]
    assert [mend_line(line, config, report) for line in lines] == ["한국어 café"] * 2 + ["plain", "한국어"]
    assert (report.lines_normalized, report.lines_stripped) == (2, 1)
    assert mended("Ａ１ ﬁ ①", CleaningConfig(normalize="NFKC")) == "A1 fi 1"


# ------------------------------------------------------------------------------------------------------ documents


def naive_reason(lines: list[str], config: CleaningConfig) -> str:
    text = " ".join(lines)
    characters = [c for c in text if not c.isspace()]
    symbols = [c for c in characters if unicodedata.category(c)[0] not in "LMN"]
    if len(characters) < config.min_characters:
        return "too few characters"
    if len(text.split()) < config.min_words:
        return "too few words"
    return "too many symbols" if len(symbols) > config.max_symbols * len(characters) else ""


LINES = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=12).map(str.strip))


@settings(deadline=None)  # the first call makes a table
@given(LINES, st.integers(0, 9), st.integers(0, 4), st.sampled_from([0.1, 0.5, 1.0]), st.booleans())
def test_documents_are_judged_as_by_plain_loops(
    lines: list[str], min_characters: int, min_words: int, max_symbols: float, first: bool
) -> None:
    config = CleaningConfig(min_characters=min_characters, min_words=min_words, max_symbols=max_symbols)
    cleaned = clean(lines, first, NOWHERE, config)
    if not config.judges_documents:
        assert (cleaned.lines, cleaned.head, cleaned.tail) == (lines, None, None)
        return
    documents: list[list[str]] = [[]]
    for line in lines:
        documents[-1] += [line] if line else []
        documents += [] if line else [[]]
    facts = {len(documents) - 1: cleaned.tail} if first or len(documents) > 1 else {0: cleaned.head}
    facts |= {} if first or len(documents) == 1 else {0: cleaned.head}
    kept: list[str] = []
    dropped: list[str] = []
    for number, document in enumerate(documents):
        reason = naive_reason(document, config) if document else ""
        if number in facts:
            assert (facts[number] is None) == (not document)
            assert facts[number] is None or fault(facts[number], config) == reason
        elif reason:
            dropped.append(reason)
            document = []
        kept += [*document, ""]
    assert cleaned.lines == kept[:-1]
    counted = {reason: found.documents for reason, found in cleaned.report.dropped.items()}
    assert counted == {reason: dropped.count(reason) for reason in set(dropped)}


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    (tmp_path / "corpus").mkdir()
    return BuildConfig(
        corpus=(str(tmp_path / "corpus"),),
        vocab=tmp_path / "vocab.txt",
        out=tmp_path / "store",
        processes=1,
        held_out=0.1,
        cleaning=CleaningConfig(strip_control=True, min_characters=8, min_words=4, max_symbols=0.25),
    )


def random_text(draw: random.Random, lines: int) -> str:
    words = ["abc", "de.", "f", "gh", "##", "\u200b", "ab\u00adc"]
    kinds = [lambda: " ".join(draw.choices(words, k=draw.randint(1, 6))), str, lambda: "\u200b", lambda: "\u3000"]
    return "".join(draw.choices(kinds, weights=[8, 3, 1, 1])[0]() + "\n" for _ in range(lines))


def naive(texts: list[str], config: BuildConfig) -> tuple[list[Document], dict[str, list[int]]]:
    """The documents that a store of these files should hold, and the documents and characters dropped by reason."""
    vocabulary = load_tokenizer(config.vocab)
    found: list[Document] = []
    dropped: dict[str, list[int]] = {}
    for text in texts:
        document: list[str] = []
        for line in [*text.split("\n"), ""]:
            if line.strip():
                document += [clean] if (clean := mended(line.strip(), config.cleaning)) else []
            elif document:
                if reason := naive_reason(document, config.cleaning):
                    counts = dropped.setdefault(reason, [0, 0])
                    counts[0] += 1
                    counts[1] += len("".join("".join(document).split()))
                else:
                    ids = [ids for ids in vocabulary.encode_batch(document) if ids]
                    found += [ids] if ids else []
                document = []
    return found, dropped


def test_whole_documents_are_judged_wherever_blocks_end(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Path(config.corpus[0])
    seen = set()
    for seed in range(40):
        draw = random.Random(seed)
        texts = [random_text(draw, draw.randint(1, 30)) for _ in range(3)]
        for number, text in enumerate(texts):
            (corpus / f"{number}.txt").write_bytes(text.encode())
        # The second file once more, as a stream instead of byte ranges.
        (corpus / "3.txt.gz").write_bytes(gzip.compress(texts[1].encode()))
        expected, dropped = naive([*texts, texts[1]], config)
        if not expected:
            continue
        monkeypatch.setattr(encoding, "BLOCK_BYTES", draw.choice([1, 3, 10, 40, 1000]))
        summary = build(dataclasses.replace(config, overwrite=True))
        assert read_documents(Store.open(config.out)) == expected
        assert summary["tokens"] == sum(len(line) for document in expected for line in document)
        report = json.loads((config.out / "cleaning.json").read_text())
        counted = {why: [entry["documents"], entry["characters"]] for why, entry in report["dropped"].items()}
        assert counted == dropped
        seen |= set(dropped)
    assert seen == set(REASONS[1:4])


def test_a_document_of_many_blocks_is_taken_back(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where shards began with it, or before it; what is hashed, and so held out, is as if it had not been."""
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 50)
    folder = Path(config.corpus[0])
    junk, good = "ab ## ## ## ##\n" * 40, "abc de f gh\n" * 40 + "\n"
    for number, text in enumerate([junk, junk + "\n" + good + junk, good.replace("f", "g") + junk, good + good]):
        (folder / f"{number}.txt").write_text(text)
    build(config)
    for number, text in enumerate(["", good, good.replace("f", "g"), good + good]):
        (folder / f"{number}.txt").write_text(text)
    (folder / "0.txt").unlink()
    out = config.out.with_name("other")
    build(dataclasses.replace(config, out=out))
    stores = [Store.open(folder) for folder in (config.out, out)]
    assert stores[0].summary["shards"] == stores[1].summary["shards"] and len(stores[0].shards) == 1
    assert np.array_equal(stores[0].held_out, stores[1].held_out)
    report = json.loads((config.out / "cleaning.json").read_text())["dropped"]["too many symbols"]
    assert report["documents"] == 4 and report["characters"] == 4 * 40 * 10
    assert sorted(sample["place"] for sample in report["samples"]) == [
        "0.txt, about byte 0",
        "1.txt, about byte 0",
        "1.txt, about byte 1,082",
        "2.txt, about byte 481",
    ]
    assert {sample["text"][:20] for sample in report["samples"]} == {"ab ## ## ## ## ab ##"}


def test_what_is_taken_back_leaves_no_trace(tmp_path: Path) -> None:
    """Shards are those of a writer that never saw the dropped documents, wherever parts and shards end."""
    vocabulary = tiny_vocabulary(tmp_path / "vocab")
    for seed in range(30):
        documents = random_documents(40, seed)
        shards = []
        for name in ("all", "kept"):
            choices = random.Random(seed)
            writer = ShardWriter(tmp_path / f"{name}-{seed}", vocabulary, shard_tokens=choices.choice([1, 300, 3000]))
            for document in documents:
                is_dropped, cut = choices.random() < 0.4, choices.randrange(len(document) + 1)
                if is_dropped and name == "kept":
                    continue
                rows = np.array([[sum(map(sum, document)) % 1000 + band for band in range(10)]], np.uint32)
                for number, part in enumerate((document[:cut], document[cut:])):
                    if part:
                        lengths = np.array([len(line) for line in part])
                        tokens = np.array([token for line in part for token in line])
                        writer.add(tokens, lengths, np.array([len(part)]), number == 1 and cut > 0, rows)
                if is_dropped:
                    writer.drop_last()
            shards.append(writer.finish())
        assert shards[0] == shards[1] and len(shards[0]) > 0


def checksums(folder: Path) -> list:
    summary = Store.open(folder).summary
    return [summary[name] for name in ("shards", "held_out", "files", "documents", "options")]


def test_processes_and_machines_change_nothing(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 300)
    monkeypatch.setattr(portions, "PORTION_BYTES", 8000)
    draw = random.Random(1)
    for number in range(4):
        (Path(config.corpus[0]) / f"{number}.txt").write_text(random_text(draw, 300))
    build(config)
    expected = checksums(config.out)
    build(dataclasses.replace(config, overwrite=True, processes=2))
    assert checksums(config.out) == expected
    for shard in ("2/2", "1/2"):
        other = dataclasses.replace(config, out=config.out.with_name("merged"), shard=shard)
        assert sum(found["documents"] for found in build(other)["build"]["cleaning"]["dropped"].values()) > 0
    build(dataclasses.replace(other, shard="", merge=True))
    assert checksums(other.out) == expected


def test_text_that_is_added_is_cleaned_like_the_old(config: BuildConfig) -> None:
    folder = Path(config.corpus[0])
    draw = random.Random(2)
    for number in range(2):
        (folder / f"{number}.txt").write_text(random_text(draw, 200))
    build(config)
    together = checksums(config.out)
    report = (config.out / "cleaning.json").read_bytes()
    build(dataclasses.replace(config, corpus=(str(folder / "0.txt"),), overwrite=True))
    added = dataclasses.replace(config, cleaning=CleaningConfig(), append=True)
    with pytest.raises(ValueError, match=r"store was built with min_words = 4: leave out the flags for cleaning"):
        build(dataclasses.replace(added, cleaning=dataclasses.replace(config.cleaning, min_words=5)))
    build(added)
    assert (config.out / "cleaning.json").read_bytes() == report
    assert checksums(config.out)[3:] == together[3:]
    assert Store.open(config.out).num_tokens == sum(shard["tokens"] for shard in together[0])


def test_mistakes_are_told(config: BuildConfig, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(config.corpus[0])
    (folder / "a.txt").write_text("abc de f\n\nabc\n")
    strict = dataclasses.replace(config, cleaning=CleaningConfig(min_characters=1000))
    with pytest.raises(ValueError, match=r"cleaning left nothing of the corpus \(2 for too few characters\)"):
        build(strict)
    assert not config.out.exists() and not (config.out.parent / "store.building").exists()
    # An unfinished build with other settings does not go on.
    build(dataclasses.replace(config, shard="1/2"))
    with pytest.raises(ValueError, match=r"holds an unfinished build of other files, another vocabulary or other"):
        build(dataclasses.replace(config, cleaning=CleaningConfig()))
    for flags, sentence in [
        (["--max-symbols", "0"], "--max-symbols must be a share above 0"),
        (["--near-duplicates", "0.2"], "--near-duplicates must be a share from 0.5 to 1"),
        (["--min-words", "-1"], "--min-words must not be negative"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            main(["build", str(folder), "--vocab", str(config.vocab), "--out", str(config.out), *flags])
        assert sentence in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("library", "flag", "cleaning"),
    [
        ("rensa", "--near-duplicates", CleaningConfig(near_duplicates=0.8)),
        ("py3langid.langid", "--languages", CleaningConfig(languages=("en",))),
    ],
)
def test_a_missing_library_is_named(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch, library: str, flag: str, cleaning: CleaningConfig
) -> None:
    (Path(config.corpus[0]) / "a.txt").write_text("abc\n")
    monkeypatch.setitem(sys.modules, library, None)
    _identifier.cache_clear()
    with pytest.raises(ValueError, match=rf"{flag} needs \w+: pip install 'electra-toolkit\[cleaning\]'"):
        build(dataclasses.replace(config, cleaning=cleaning))
    assert not config.out.with_name("store.building").exists()


def test_what_was_done_is_printed(config: BuildConfig, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(config.corpus[0])
    (folder / "a.txt").write_text("abc de f\u200b gh\n\nabc\n\n## ## ## ## ##\n\n" + "abc de f gh\n\n" * 50)
    flags = ["--strip-control", "--min-characters", "5", "--max-symbols", "0.5"]
    assert main(["build", str(folder), "--vocab", str(config.vocab), "--out", str(config.out), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines == [
        "cleaned      1 lines stripped",
        "left out     too few characters: 1 documents, 3 characters",
        "left out     too many symbols: 1 documents, 10 characters",
    ]
    assert main(["inspect", str(config.out)]) == 0
    assert "               a.txt, about byte 13: abc" in capsys.readouterr().out.splitlines()
    assert report_lines({}) == []


# ------------------------------------------------------------------------------------------------------ languages

ENGLISH = "The committee will meet again next week to discuss the proposal in detail. "
KOREAN = "위원회는 다음 주에 다시 모여 그 제안을 자세히 논의할 예정이다. "
GERMAN = "Der Ausschuss wird nächste Woche wieder zusammentreten und den Vorschlag beraten. "


def test_documents_in_other_languages_are_left_out(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("py3langid")
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 700)
    text = "\n\n".join([ENGLISH, GERMAN, KOREAN, (GERMAN + "\n") * 30, (KOREAN + "\n") * 30, (ENGLISH + "\n") * 30])
    (Path(config.corpus[0]) / "a.txt").write_text(text)
    wanted = dataclasses.replace(config, cleaning=CleaningConfig(languages=("en", "ko")))
    with pytest.warns(UserWarning, match="UNK"):
        summary = build(wanted)
    assert summary["documents"] == 4 and summary["lines"] == 62
    dropped = summary["build"]["cleaning"]["dropped"]
    assert list(dropped) == ["other language"] and dropped["other language"]["documents"] == 2
    assert all(sample["text"].startswith("Der Ausschuss") for sample in dropped["other language"]["samples"])
    with pytest.raises(ValueError, match=r"--languages english is unknown, py3langid knows .* en, "):
        build(dataclasses.replace(config, cleaning=CleaningConfig(languages=("english",)), overwrite=True))


def test_paragraphs_of_real_text_are_told_apart(real_data: Path) -> None:
    """Paragraphs of Wikipedia of 300 characters and more, as documents: 99 % are taken for what they are."""
    pytest.importorskip("py3langid")
    found = {}
    for name, language in (("squad/dev-v1.1.half1.json", "en"), ("korquad/KorQuAD_v1.0_dev.json", "ko")):
        articles = json.loads((real_data / name).read_text(encoding="utf-8"))["data"]
        paragraphs = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
        paragraphs = [text.replace("\n", " ") for text in paragraphs if len(text) > 300][:300]
        for wanted in ("en", "ko"):
            lines = [part for text in paragraphs for part in (text, "")]
            cleaned = clean(lines, True, NOWHERE, CleaningConfig(languages=(wanted,)))
            found[language, wanted] = sum(line != "" for line in cleaned.lines) / len(paragraphs)
    assert min(found["en", "en"], found["ko", "ko"]) > 0.99 and max(found["en", "ko"], found["ko", "en"]) < 0.01
