"""The two files in which Hugging Face keeps weights: safetensors and pytorch_model.bin, in one piece or in shards.

Reading is lazy: tensors are views of the mapped file, whose pages come into memory when they are used. A pickle is
opened with `weights_only=True`, which rebuilds tensors and refuses everything else: opening a foreign file never runs
its code. Writing passes pointers to safetensors, which copies nothing (since 0.8), so that reading, renaming and
writing take about one file's size of memory.
"""

from __future__ import annotations

import errno
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from electra.files import read_json

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
TASK_HEADS = "task_heads.safetensors"
"""Tensors of heads that no class of transformers holds, beside the weights of the encoder."""


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a model folder under the names in the file, in fp32 whatever floating type the file has.

    ValueError for a folder without weights, a missing shard, a damaged file, a pickle with code in it, and tensors
    that are no floating-point numbers (a quantised model).
    """
    tensors: dict[str, Tensor] = {}
    for path in _find_files(folder):
        tensors |= read_file(path)
    return {name: _as_float(name, value, folder) for name, value in tensors.items() if not _is_buffer(name)}


def has_weights(folder: Path) -> bool:
    """Whether a folder has one of the two files, or a part of one."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a .safetensors file in fp32. Its folder is a temporary one of `files.atomic_folder`."""
    ready = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in tensors.items()}
    try:
        save_file(ready, path, metadata={"format": "pt"})
    except SafetensorError as error:
        if "No space left" in str(error) or "os error 28" in str(error):
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from None
        raise
    path.chmod(0o644)  # safetensors writes for the owner alone


def _find_files(folder: Path) -> list[Path]:
    for name in (SAFETENSORS, PICKLE):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
    raise ValueError(f"{folder} has neither {SAFETENSORS} nor {PICKLE}")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{index} is no index of shards (it has no weight_map); copy it again") from None
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ValueError(f"{index.parent} lacks {name}, a shard that {index.name} names: copy all {len(names)}")
    return [index.parent / name for name in names]


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file as they are; ValueError for a damaged one, and a pickle with code in it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read is said below
            # Only the zip files of torch >= 1.6 can be mapped.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        what = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path} holds more than tensors{f' ({what[1]})' if what else ''} and could run code when it is opened, so "
            f"it is refused: if you trust it, load it with torch yourself and save its tensors as {SAFETENSORS}"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or ["it is empty"])[0]
        raise ValueError(f"{path} is damaged and cannot be read ({reason}); copy it again") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} is no state dict (names with a tensor each): save model.state_dict() there")
    return dict(found)


def _is_buffer(name: str) -> bool:
    """Constants that transformers before 4.31 wrote among the weights."""
    return name.endswith(("embeddings.position_ids", "embeddings.token_type_ids"))


def _as_float(name: str, value: Tensor, folder: Path) -> Tensor:
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise ValueError(f"{folder}: {name} is {kind}: quantised models cannot be read, only floating-point ones")
    return value.float()
