"""The doctor against this machine, and against machines on which something is missing."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from stores import make_store, random_documents

from electra import doctor
from electra.cli import main
from electra.presets import tiny


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds instead of a minute: a tiny model, a short matrix product, and dynamo without inductor's compiler."""
    measure = doctor.matmul_flops
    monkeypatch.setattr(doctor, "electra_small", tiny)
    monkeypatch.setattr(doctor, "matmul_flops", lambda device, name, seconds: measure(device, name, 256, 0.01))
    monkeypatch.setattr(doctor, "BACKENDS", {"cpu": "aot_eager"})


def test_it_measures_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    store = make_store(tmp_path / "store", random_documents(20))
    assert main(["doctor", "--folder", str(folder), "--store", str(store.folder)]) == 0
    shown = capsys.readouterr().out
    expected = ["torch 2.", "GiB", "GFLOP/s in a matrix product", "--precision auto takes this", "MB/s", "tokens/s"]
    expected += ["compile       works", "gloo: works", "every file has its checksum", "with the store's vocabulary"]
    assert [word for word in expected if word not in shown] == [], shown
    assert list(folder.iterdir()) == []


def test_json_has_every_finding_and_the_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "store", random_documents(20))
    with (store.folder / "shard-00000" / "tokens.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 2**30, 2**26))
    monkeypatch.setattr(doctor, "choose_compile", no_compiler)
    assert main(["doctor", "--folder", str(tmp_path), "--store", str(store.folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["packages"]["torch"] == torch.__version__
    assert found["precisions"]["chosen"] in found["precisions"]["gflops"]
    assert found["distributed"] == {"works": True, "backend": "gloo"} or torch.cuda.is_available()
    assert found["compile"]["works"] is False and "a C++ compiler" in found["compile"]["why"]
    assert found["store"]["intact"] is False and "tokens.npy" in found["store"]["why"]
    assert min(found["training"]["tokens_per_second"].values()) > 0
    assert found["disk"]["free_gib"] == 0.1
    advice = " ".join(found["advice"])
    assert "GiB free" in advice and "--shm-size" in advice and "tokens.npy" in advice


def no_compiler(choice: str, cuda_graphs: bool, device: torch.device) -> tuple[bool, str]:
    if choice == "on":
        raise ValueError("loop.compile needs a C++ compiler: install it, or set loop.compile to off")
    return False, "compiling needs a C++ compiler"


def test_a_folder_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--folder", "nowhere"]) == 2
    assert "--folder nowhere is no folder" in capsys.readouterr().err
