"""A build in portions gives the store of a build in one; it goes on where it was, can be shared out, and can grow."""

import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import read_documents

from electra import build as module
from electra import encoding, portions
from electra.batches import Rows
from electra.build import build
from electra.config import BuildConfig, RowsConfig
from electra.corpus import Reading, next_document
from electra.portions import plan
from electra.store import Store

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *(f"##{letter}" for letter in "abcdefgh")]


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    """Ten small files and a larger one."""
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    corpus, draw = tmp_path / "corpus", random.Random(0)
    corpus.mkdir()
    for number, lines in enumerate([30, 1, 5, 2, 400, 7, 1, 1, 60, 20]):
        (corpus / f"{number}.txt").write_text("".join(random_line(draw) for _ in range(lines)))
    return BuildConfig(
        corpus=(str(corpus),), vocab=tmp_path / "vocab.txt", out=tmp_path / "store", processes=1, held_out=0.1
    )


def random_line(draw: random.Random) -> str:
    return "".join(draw.choices("abcdefgh  ", k=draw.randint(1, 40))) + draw.choice(["\n", "\n", "\n\n", "\n \t\n"])


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "PORTION_BYTES", 500)
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 64)


def checksums(store: Path) -> list:
    summary = json.loads((store / "store.json").read_text())
    return [summary[name] for name in ("shards", "held_out", "files", "documents", "sources", "left_out")]


# ------------------------------------------------------------------------------------------------------ the plan


@pytest.mark.parametrize("documents", ["blank-lines", "lines", "files"])
def test_the_portions_are_the_corpus(config, small_portions, documents):
    files = sorted(Path(config.corpus[0]).iterdir())
    found = plan(files, Reading(documents=documents))
    pieces = [piece for portion in found for piece in portion.pieces]
    for file, own in itertools.groupby(pieces, key=lambda piece: piece.path):
        ranges = [(piece.start, piece.stop) for piece in own]
        assert ranges[0][0] == 0 and ranges[-1][1] == file.stat().st_size
        assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))
        assert len(ranges) == 1 or documents != "files"
    assert [portion.number for portion in found] == list(range(len(found)))
    assert {piece.path for piece in pieces} == set(files) and len(found) > (5 if documents != "files" else 2)
    for portion in found:
        assert portion.num_bytes <= 500 + 200 or len(portion.pieces) == 1


def test_a_document_begins_where_it_is_said(tmp_path):
    draw = random.Random(1)
    text = "".join(random_line(draw) for _ in range(100))
    path = tmp_path / "a.txt"
    path.write_text(text)
    begins = [0]
    for before, after in itertools.pairwise(itertools.accumulate(len(line) + 1 for line in text.split("\n")[:-1])):
        if not text[before:after].strip():
            begins.append(after)
    for position in range(0, len(text), 7):
        found = next_document(path, position, "blank-lines")
        assert found in [begin for begin in begins if begin > position] or found == len(text)
        assert not text[:found].split("\n")[-1]  # a line has ended there


# ----------------------------------------------------------------------------------------------------- the store


def test_the_store_has_the_documents_of_a_build_in_one(config, monkeypatch):
    build(config)
    expected = read_documents(Store.open(config.out))
    monkeypatch.setattr(portions, "PORTION_BYTES", 500)
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 64)
    for processes in (1, 2):
        summary = build(dataclasses.replace(config, processes=processes, overwrite=True))
        store = Store.open(config.out)
        assert read_documents(store) == expected and len(store.shards) == summary["build"]["portions"] > 5
        assert not Path(f"{config.out}.building").exists()


def test_shared_out_work_is_put_together_to_the_same_bytes(config, small_portions):
    with pytest.raises(ValueError, match=r"building has 0 of \d+ portions"):
        build(dataclasses.replace(config, merge=True))
    assert not Path(f"{config.out}.building").exists()
    build(config)
    expected = checksums(config.out)
    for number in (3, 1):
        done = build(dataclasses.replace(config, overwrite=True, shard=f"{number}/3"))
        assert set(done) == {"build"} and not Path(f"{config.out}.building/store.json").exists()
    with pytest.raises(
        ValueError, match=r"store.building has \d+ of \d+ portions: portion-00001 and \d+ more are missing"
    ):
        build(dataclasses.replace(config, overwrite=True, merge=True))
    build(dataclasses.replace(config, overwrite=True, shard="2/3"))
    build(dataclasses.replace(config, overwrite=True, merge=True))
    assert checksums(config.out) == expected
    with pytest.raises(ValueError, match="store exists already"):
        build(dataclasses.replace(config, shard="1/3"))


def test_clocks_of_machines_may_differ(config, small_portions):
    """Each machine sees its own times of the same files: in the future, before 1970."""
    build(config)
    expected = checksums(config.out)
    for number, when in ((1, 2**33), (2, -1_000_000), (3, 0.5)):
        for file in Path(config.corpus[0]).iterdir():
            os.utime(file, (when, when))
        build(dataclasses.replace(config, overwrite=True, shard=f"{number}/3"))
    build(dataclasses.replace(config, overwrite=True, merge=True))
    assert checksums(config.out) == expected


def test_an_interrupted_build_goes_on(config, small_portions, monkeypatch):
    build(config)
    expected = checksums(config.out)
    make, made = module._make_portion, []

    def break_off(job, portion, progress):
        if len(made) == 4:
            raise OSError(28, "No space left on device")
        made.append(portion.number)
        return make(job, portion, progress)

    again = dataclasses.replace(config, overwrite=True)
    monkeypatch.setattr(module, "_make_portion", break_off)
    with (
        pytest.raises(OSError, match="No space left"),
        pytest.warns(UserWarning, match=r"4 of \d+ portions are finished"),
    ):
        build(again)
    assert checksums(config.out) == expected  # what was there before is there still
    monkeypatch.setattr(module, "_make_portion", lambda *given: made.append(given[1].number) or make(*given))
    build(again)
    assert made == list(range(len(made))) and checksums(config.out) == expected


def test_an_unfinished_build_of_something_else_is_not_used(config, small_portions):
    build(dataclasses.replace(config, shard="1/2"))
    for change in ({"documents": "lines"}, {"corpus": (f"{config.corpus[0]}/0.txt",)}):
        with pytest.raises(
            ValueError, match="holds an unfinished build of other files, another vocabulary or other settings"
        ):
            build(dataclasses.replace(config, **change))
    build(dataclasses.replace(config, documents="lines", overwrite=True))
    assert Store.open(config.out).num_documents > 500


KILLED = """
import os, signal, sys
from pathlib import Path
from electra import build, encoding, portions
from electra.config import BuildConfig

if __name__ == "__main__":
    portions.PORTION_BYTES, encoding.BLOCK_BYTES = 500, 64
    corpus, vocab, out, stop = sys.argv[1:]
    seen = []

    def progress(done, total):
        seen.append(done)
        if len(seen) == int(stop):
            os.kill(os.getpid(), signal.SIGKILL)

    build.build(BuildConfig(corpus=(corpus,), vocab=Path(vocab), out=Path(out), held_out=0.1, processes=1), progress)
"""


def test_a_build_that_is_killed_again_and_again_ends_with_the_same_bytes(config, small_portions, tmp_path):
    build(config)
    expected = checksums(config.out)
    shutil.rmtree(config.out)
    (tmp_path / "script.py").write_text(KILLED)
    kills = 0
    for stop in ("30", "45", "70", "100000"):
        command = [
            sys.executable,
            str(tmp_path / "script.py"),
            config.corpus[0],
            str(config.vocab),
            str(config.out),
            stop,
        ]
        kills += subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert kills == 3 and checksums(config.out) == expected
    assert not Path(f"{config.out}.building").exists()


# ------------------------------------------------------------------------------------------------------- growing


def test_a_store_grows(config, small_portions):
    files = sorted(Path(config.corpus[0]).iterdir())
    first = dataclasses.replace(config, corpus=tuple(map(str, files[:4])))
    build(first)
    before, inode = Store.open(config.out), os.stat(config.out / "shard-00000" / "tokens.npy").st_ino
    texts, held_out = read_documents(before), set(before.held_out.tolist())
    with pytest.raises(ValueError, match="has all of these files already"):
        build(dataclasses.replace(first, append=True))
    build(dataclasses.replace(config, append=True))
    after = Store.open(config.out)
    assert read_documents(after)[: len(texts)] == texts
    assert os.stat(config.out / "shard-00000" / "tokens.npy").st_ino == inode  # nothing is copied
    assert held_out < set(after.held_out.tolist())
    whole = dataclasses.replace(config, out=config.out.with_name("whole"))
    build(whole)
    assert read_documents(after) == read_documents(Store.open(whole.out))
    assert after.summary["sources"] == Store.open(whole.out).summary["sources"]
    assert np.isin(after.held_out, np.arange(after.num_documents)).all()


def test_repeated_documents_are_not_read(config, small_portions):
    folder = Path(config.corpus[0])
    files = sorted(folder.iterdir())
    documents = read_documents(Store.open(build_at(config, "all", corpus=tuple(map(str, files)))))
    for file in files[:5]:
        (folder / f"again-{file.name}").write_text("\n" + file.read_text().replace("\n", " \n"))
    store = Store.open(build_at(config, "distinct", distinct=True))
    read = sorted([*store.document_ids(held_out=False), *store.document_ids(held_out=True)])
    found = read_documents(store)
    expected = [
        document for number, document in enumerate(found) if tokens(document) not in map(tokens, found[:number])
    ]
    assert [found[number] for number in read] == expected and len(expected) <= len(documents) < len(found)
    assert store.summary["excluded"]["documents"] == len(found) - len(expected)
    # Rows hold no other documents, and a store that grows goes on so.
    rows = Rows(store, RowsConfig(seq_len=16), seed=0)
    assert rows.tokens_per_epoch == sum(len(tokens(found[number])) for number in store.document_ids(held_out=False))
    grown = dataclasses.replace(
        config, out=config.out.with_name("grown"), distinct=True, corpus=tuple(map(str, files[:5]))
    )
    build(grown)
    build(dataclasses.replace(grown, corpus=config.corpus, append=True, distinct=False))
    again = Store.open(grown.out)
    assert len(again.excluded) == len(store.excluded)


def build_at(config: BuildConfig, name: str, **changes: Any) -> Path:
    changed = dataclasses.replace(config, out=config.out.with_name(name), **changes)
    build(changed)
    return changed.out


def tokens(document: list[list[int]]) -> list[int]:
    return [token for line in document for token in line]


def test_what_a_store_cannot_grow_by(config, small_portions, tmp_path):
    grow = dataclasses.replace(config, append=True)
    with pytest.raises(ValueError, match="is not a token store"):
        build(grow)
    build(config)
    (Path(config.corpus[0]) / "0.txt").write_text("abc\n")
    with pytest.raises(ValueError, match=r"0.txt has changed since .*store was built"):
        build(grow)
    (tmp_path / "other.txt").write_text("\n".join([*PIECES, "h"[:0] + "zz"]) + "\n")
    with pytest.raises(ValueError, match="was made with another vocabulary"):
        build(dataclasses.replace(grow, vocab=tmp_path / "other.txt"))


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_bad_shards(config, shard):
    with pytest.raises(ValueError, match="is not I/N"):
        dataclasses.replace(config, shard=shard)
