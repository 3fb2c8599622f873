"""Atomic writes: the old state or the new one, never half."""

import json

import pytest

from electra.files import atomic_file, atomic_folder, read_json, refuse_existing, sha256, write_json


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"v": 1})
    with pytest.raises(RuntimeError), atomic_file(path, "w") as file:
        file.write("half")
        raise RuntimeError
    assert read_json(path) == {"v": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failing_folder_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "new") as folder:
        (folder / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_only_when_asked(tmp_path):
    target = tmp_path / "out"
    with atomic_folder(target) as folder:
        (folder / "old").write_text("1")
    with (
        pytest.raises(ValueError, match="exists already: choose another --out, or pass --overwrite"),
        atomic_folder(target),
    ):
        pass
    assert (target / "old").exists()
    with atomic_folder(target, overwrite=True) as folder:
        (folder / "new").write_text("2")
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failing_replacement_keeps_the_old_folder(tmp_path):
    target = tmp_path / "out"
    with atomic_folder(target) as folder:
        (folder / "old").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(target, overwrite=True):
        raise RuntimeError
    assert (target / "old").read_text() == "1"


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    refuse_existing(tmp_path / "out", overwrite=False)
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
    assert (tmp_path / "out" / "x").exists()


def test_damaged_json_is_one_sentence(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": 1})[:-2])
    with pytest.raises(ValueError, match=r"a.json is damaged \(not valid JSON"):
        read_json(path)
    with pytest.raises(ValueError, match="does not exist"):
        read_json(tmp_path / "b.json")


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
