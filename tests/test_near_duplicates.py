"""Near duplicates: signatures against exact set arithmetic, and what is found against every pair compared."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
from stores import read_documents

from electra import encoding, near_duplicates
from electra.build import build
from electra.config import BuildConfig, CleaningConfig
from electra.near_duplicates import BandedShard, BandWriter, bands, find, jaccard, num_bands, signatures
from electra.store import Store

pytest.importorskip("rensa")


def runs(text: np.ndarray) -> set[tuple[int, ...]]:
    tokens = text.tolist()
    return {tuple(tokens[place : place + 5]) for place in range(max(1, len(tokens) - 4))}


def exact(first: np.ndarray, second: np.ndarray) -> float:
    """The Jaccard index of the sets of runs of five tokens."""
    return len(runs(first) & runs(second)) / len(runs(first) | runs(second))


def edited(text: np.ndarray, rng: np.random.Generator, edits: int) -> np.ndarray:
    """Some tokens replaced, removed or added."""
    out = text.tolist()
    for _ in range(edits):
        place, what = int(rng.integers(len(out))), rng.integers(3)
        out[place : place + int(what < 2)] = [int(rng.integers(30_000))] if what else []
    return np.array(out, np.uint16)


def banded(texts: list[np.ndarray], threshold: float) -> BandedShard:
    lengths = np.array([len(text) for text in texts])
    tokens = np.concatenate(texts)
    rows = bands(signatures(tokens, lengths, threshold))
    return BandedShard(tokens, np.concatenate([[0], np.cumsum(lengths)]), rows.T.ravel())


def test_signatures_agree_to_the_share_of_common_shingles() -> None:
    rng = np.random.default_rng(0)
    for length in (12, 100, 3000):
        pairs = []
        for _ in range(60):
            text = rng.integers(0, 30_000, length).astype(np.uint16)
            pairs.append((text, edited(text, rng, max(1, length // 40))))
        flat = [text for pair in pairs for text in pair]
        found = signatures(np.concatenate(flat), np.array([len(text) for text in flat]), 0.7)
        assert found.shape == (120, num_bands(0.7) * 5) and found.dtype == np.uint32
        shares = (found[::2] == found[1::2]).mean(axis=1)
        truth = np.array([exact(*pair) for pair in pairs])
        assert [jaccard(*pair) for pair in pairs] == pytest.approx(truth)
        assert abs((shares - truth).mean()) < 0.02
        assert np.sqrt(((shares - truth) ** 2).mean()) < 1.3 * np.sqrt((truth * (1 - truth)).mean() / found.shape[1])


def test_signatures_of_parts_add_up_by_their_minimum() -> None:
    rng = np.random.default_rng(1)
    text = rng.integers(0, 30_000, 500).astype(np.uint16)
    # What crosses the border is in neither part: four shingles of 496, given to both sides here.
    parts = signatures(np.concatenate([text[:204], text[200:]]), np.array([204, 300]), 0.8)
    assert np.array_equal(parts.min(axis=0), signatures(text, np.array([500]), 0.8)[0])
    assert signatures(text[:0], np.zeros(0, np.int64), 0.8).shape == (0, 60)


def test_signatures_are_those_of_earlier_stores() -> None:
    """Stores that grow depend on it: another version of the library that changes them says so in its number."""
    tokens = np.arange(40, dtype=np.uint16) ** 2
    found = bands(signatures(tokens, np.array([3, 37]), 0.9))
    assert found.tolist() == [
        [4078410455, 4250836822, 1277279335, 2538872880, 914682937, 1344626573],
        [1052693281, 1093893956, 1808619234, 3677009014, 1671775466, 1325997415],
    ]


def test_little_that_is_alike_stays_and_nothing_else_goes() -> None:
    """Documents of 20 to 400 tokens with up to five copies each, edited by up to a tenth: recall and precision."""
    rng = np.random.default_rng(2)
    for threshold in (0.6, 0.8):
        texts: list[np.ndarray] = []
        for _ in range(150):
            text = rng.integers(0, 30_000, rng.integers(20, 400)).astype(np.uint16)
            copies = [edited(text, rng, int(rng.integers(len(text) // 10))) for _ in range(rng.integers(0, 6))]
            texts += [text, *copies]
        texts = [texts[number] for number in rng.permutation(len(texts))]
        third = len(texts) // 3
        shards = [banded(part, threshold) for part in (texts[:third], texts[third:])]
        found = find(shards, threshold, np.zeros(0, np.int64))
        kept: list[int] = []
        gone = set()
        sets = list(map(runs, texts))
        for number, these in enumerate(sets):
            alike = any(len(these & sets[each]) >= threshold * len(these | sets[each]) for each in kept)
            (gone.add if alike else kept.append)(number)
        assert len(gone) > 100
        assert all(earlier < later and exact(texts[later], texts[earlier]) >= threshold for later, earlier in found)
        assert len(gone & set(found[:, 0].tolist())) >= 0.98 * len(gone)
        # What comes later changes nothing.
        before = find(shards[:1], threshold, np.zeros(0, np.int64))
        assert np.array_equal(before, found[found[:, 0] < third])


def test_one_band_may_hold_many_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting in several goes finds the same; documents already left out are not looked at."""
    rng = np.random.default_rng(3)
    base = rng.integers(0, 30_000, 300).astype(np.uint16)
    shard = banded([edited(base, rng, 1) for _ in range(300)], 0.8)
    found = find([shard], 0.8, np.array([0]))
    assert found[:, 0].tolist() == list(range(2, 300)) and found[:, 1].min() >= 1 and (found[:, 1] < found[:, 0]).all()
    monkeypatch.setattr(near_duplicates, "_SORTED_DOCUMENTS", 40)
    assert np.array_equal(find([shard], 0.8, np.array([0])), found)


def test_very_long_documents_are_compared_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    text = rng.integers(0, 30_000, 100_000).astype(np.uint16)
    other = edited(text, rng, 3000)
    truth = exact(text, other)
    monkeypatch.setattr(near_duplicates, "_READ_TOKENS", 10_000)
    assert jaccard(text, text) == 1 and jaccard(text, other) == pytest.approx(truth, abs=0.02)


def test_bands_are_the_same_however_documents_come(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    found = rng.integers(0, 1 << 32, (50, 20), dtype=np.uint32)
    for seed in range(20):
        draw = random.Random(seed)
        writer, place = BandWriter(tmp_path / f"{seed}.npy"), 0
        while place < 50:
            count = draw.randint(1, 9)
            part = found[place : place + count].copy()
            rest = part[-1].copy()
            part[-1, ::2] = 0xFFFFFFFF  # the last one's other half comes with the next part
            rest[1::2] = 0xFFFFFFFF
            writer.append(part, goes_on=False)
            writer.append(np.concatenate([rest[None], found[:1]]), goes_on=True)
            writer.drop_last()
            place += count
        writer.finish()
        assert np.load(tmp_path / f"{seed}.npy").reshape(4, 50).T.tolist() == bands(found).tolist()
        assert [path.suffix for path in tmp_path.iterdir()] == [".npy"] * (seed + 1)


# ------------------------------------------------------------------------------------------------------ in stores

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    """Three files of articles, of which some come again, the same or with a word changed."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    folder, draw = tmp_path / "corpus", random.Random(6)
    folder.mkdir()
    articles = [["".join(draw.choices(LETTERS, k=draw.randint(2, 8))) for _ in range(80)] for _ in range(30)]
    for number in range(3):
        part = articles[8 * number : 8 * number + 12]
        if number:  # four articles of the file before: two as they were, two with another word in the middle
            part = [*part[:2], *([*words[:40], "other", *words[41:]] for words in part[2:4]), *part[4:]]
        lines = ("\n".join(" ".join(words[start : start + 10]) for start in range(0, 80, 10)) for words in part)
        (folder / f"{number}.txt").write_text("\n\n".join(lines))
    return BuildConfig(
        corpus=(str(folder),),
        vocab=tmp_path / "vocab.txt",
        out=tmp_path / "store",
        processes=1,
        held_out=0.1,
        cleaning=CleaningConfig(near_duplicates=0.8),
    )


def checksums(folder: Path) -> list:
    summary = Store.open(folder).summary
    return [summary[name] for name in ("shards", "held_out", "excluded", "files", "documents")]


def test_a_store_reads_only_the_first(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = build(config)
    store = Store.open(config.out)
    assert store.num_documents == 36 and store.excluded.tolist() == [12, 13, 14, 15, 24, 25, 26, 27]
    assert summary["excluded"]["documents"] == 8 and not set(store.held_out) & set(store.excluded)
    report = json.loads((config.out / "cleaning.json").read_text())["near_duplicates"]
    assert (report["repeated"], report["documents"]) == (4, 4)
    assert [sample["documents"] for sample in report["samples"]] == [[14, 10], [15, 11], [26, 22], [27, 23]]
    lines = read_documents(store)
    for sample in report["samples"]:
        later, earlier = sample["documents"]
        texts = [np.array([token for line in lines[each] for token in line]) for each in (later, earlier)]
        assert sample["alike"] == round(exact(*texts), 3)
        assert all(sample["texts"])
    expected = checksums(config.out)
    build(dataclasses.replace(config, processes=2, overwrite=True))
    assert checksums(config.out) == expected
    # Wherever blocks end the same documents are found; bands of documents that go on differ by some shingles.
    for size in (100, 500):
        monkeypatch.setattr(encoding, "BLOCK_BYTES", size)
        build(dataclasses.replace(config, overwrite=True))
        assert Store.open(config.out).excluded.tolist() == store.excluded.tolist()


def test_a_store_that_grows_knows_its_documents(config: BuildConfig) -> None:
    build(config)
    documents = Store.open(config.out).excluded.tolist()
    files = sorted(Path(config.corpus[0]).iterdir())
    build(dataclasses.replace(config, corpus=(str(files[0]),), overwrite=True))
    build(dataclasses.replace(config, append=True, cleaning=CleaningConfig()))
    store = Store.open(config.out)
    assert store.excluded.tolist() == documents
    summary = json.loads((config.out / "store.json").read_text())
    assert summary["options"]["cleaning"]["versions"]["rensa"] == "2"
    summary["options"]["cleaning"]["versions"]["rensa"] = "1"
    (config.out / "store.json").write_text(json.dumps(summary))
    (Path(config.corpus[0]) / "3.txt").write_text("more text\n")
    with pytest.raises(ValueError, match=r"store has signatures of rensa's version 1, but the one installed makes ver"):
        build(dataclasses.replace(config, append=True))
