"""The demo's text and task. The demo itself is `make demo`."""

import csv

import pytest

from electra import demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    packages = demo.write_text_and_task(out / "corpus" / demo.TEXT, out / "task")
    return out, packages


def rows(path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_there_is_some_megabyte_of_english(folder):
    out, packages = folder
    assert (out / "corpus" / demo.TEXT).stat().st_size > 1_000_000
    assert len(packages) == demo.CLASSES and "email" in packages


def test_what_is_tested_on_is_neither_trained_nor_pretrained_on(folder):
    out, packages = folder
    train, dev = rows(out / "task" / "train.tsv"), rows(out / "task" / "dev.tsv")
    assert 0.1 < len(dev) / (len(train) + len(dev)) < 0.3
    assert {row["label"] for row in dev} <= {row["label"] for row in train} == set(packages)
    seen = {row["text"] for row in train} | set((out / "corpus" / demo.TEXT).read_text().splitlines())
    leaked = [row["text"] for row in dev if row["text"] in seen]
    # Standard phrases ("Return a copy of ...") may stand in other docstrings too; they are few.
    assert len(leaked) < 0.1 * len(dev)


def test_the_split_is_the_same_every_time(folder, tmp_path):
    out, packages = folder
    assert demo.write_text_and_task(tmp_path / "corpus.txt", tmp_path / "task") == packages
    assert (tmp_path / "task" / "dev.tsv").read_bytes() == (out / "task" / "dev.tsv").read_bytes()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="exists already"):
            demo.demo(tmp_path, overwrite=overwrite)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_whole_road(tmp_path, monkeypatch, capsys):
    """Every stage, each of them short; the same command again finds them done."""
    monkeypatch.setattr(demo, "EPOCHS", 0.1)
    first = demo.demo(tmp_path / "out", steps=2)
    assert set(first) == {"pretrained", "random"} and all(0 <= value <= 1 for value in first.values())
    said = capsys.readouterr().out
    assert "Dev accuracy of three seeds" in said and "electra pretrain tiny" in said
    assert demo.demo(tmp_path / "out", steps=2) == first
    assert capsys.readouterr().out.count("finished before, its result is kept") == 6
