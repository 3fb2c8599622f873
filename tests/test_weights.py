"""Weight files against torch and safetensors: shards, old pickles, and what is refused."""

import errno
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import ElectraConfig, ElectraForMaskedLM

from electra.interop import weights
from electra.interop.hf import read_hf
from electra.interop.weights import read_weights, write_weights


class Command:
    """Runs a command when it is unpickled, as a malicious checkpoint would."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


def some_tensors() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(3, 5, generator=random) for name in ("a.weight", "b.weight", "c.weight")}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_pickles(tmp_path: Path, zipped: bool) -> None:
    torch.save(some_tensors(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert_equal(read_weights(tmp_path), some_tensors())


def test_safetensors_are_preferred_and_equal_those_of_the_library(tmp_path: Path) -> None:
    tensors = some_tensors()
    torch.save({"other": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    write_weights(tmp_path / "model.safetensors", tensors | {"view": tensors["a.weight"].T})
    assert_equal(read_weights(tmp_path), tensors | {"view": tensors["a.weight"].T})
    save_file(tensors | {"view": tensors["a.weight"].T.contiguous()}, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_views_of_one_storage_are_written_in_full(tmp_path: Path) -> None:
    fused = torch.arange(12.0).view(6, 2)
    write_weights(tmp_path / "model.safetensors", dict(zip("qkv", fused.chunk(3), strict=True)))
    assert_equal(read_weights(tmp_path), dict(zip("qkv", fused.chunk(3), strict=True)))


def test_shards_of_transformers(tmp_path: Path) -> None:
    config = ElectraConfig(vocab_size=53, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    theirs = ElectraForMaskedLM(config)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    tensors, state = read_hf(tmp_path).tensors, theirs.state_dict()
    assert state.keys() - tensors.keys() == {"generator_lm_head.weight"}
    assert all(torch.equal(state[name], value) for name, value in tensors.items())
    victim = next(tmp_path.glob("model-00002-*"))
    victim.unlink()
    with pytest.raises(ValueError, match=rf"lacks {victim.name}, a shard that model.safetensors.index.json names"):
        read_hf(tmp_path)


def test_shards_of_pickles(tmp_path: Path) -> None:
    tensors = some_tensors()
    files = {name: f"pytorch_model-{number}.bin" for number, name in enumerate(tensors)}
    for name, file in files.items():
        torch.save({name: tensors[name]}, tmp_path / file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    assert_equal(read_weights(tmp_path), tensors)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.bin"}}))
    with pytest.raises(ValueError, match=r"lacks \.\./elsewhere\.bin"):
        read_weights(tmp_path)
    index.write_text("[]")
    with pytest.raises(ValueError, match="is no index of shards"):
        read_weights(tmp_path)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "pytorch_model.bin", tmp_path / "trace"
    content = some_tensors() | {"d": Command(f"touch {trace}")}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content["d"], protocol=2))
    with pytest.raises(ValueError, match=r"holds more than tensors.* so it is refused: if you trust it") as caught:
        read_weights(tmp_path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keep", [0, 100, -40])
def test_damaged_pickles_are_named(tmp_path: Path, zipped: bool, keep: int) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(some_tensors(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"pytorch_model.bin (is damaged|holds more)"):
        read_weights(tmp_path)


def test_other_contents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has neither model.safetensors nor pytorch_model.bin"):
        read_weights(tmp_path)
    torch.save({"step": 3, "model": some_tensors()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"is no state dict .* save model.state_dict\(\) there"):
        read_weights(tmp_path)
    save_file({"a": torch.zeros(2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="a is int8: quantised models cannot be read"):
        read_weights(tmp_path)


def test_a_full_disk_is_an_oserror(tmp_path, monkeypatch):
    """Which the command line tells in one sentence; safetensors has an error of its own."""

    def full(*arguments, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_weights(tmp_path / "model.safetensors", {"w": torch.zeros(2)})
    assert caught.value.errno == errno.ENOSPC
