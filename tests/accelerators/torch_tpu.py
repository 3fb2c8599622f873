"""Stands in for Google's package: a device "tpu" whose tensors are CPU tensors in disguise.

Registered as a real one is, with torch's PrivateUse1: a tensor says that it is on tpu:0, keeps its strides and its
storage to itself, and meets tensors of the host nowhere but in copies (`HostTensor`). Every operation is done on the
CPU, so that a run gives the bits of a CPU run.
"""

import contextlib
import os
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

SAID = os.environ.get("FAKE_TPU_LOG", os.devnull)


def say(line: str) -> None:
    with open(SAID, "a") as file:
        file.write(line + "\n")


class OnDevice(torch.Tensor):
    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "OnDevice":
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device="tpu:0"
        )
        made.raw = raw
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:
        return f"{self.raw}, tpu"

    def tolist(self) -> list:
        return self.raw.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


LARGE = 8192  # the matrices with which a run measures an accelerator, and which would keep a CPU busy for a minute
COPIES = {"aten::_to_copy", "aten::copy_", "aten::_foreach_copy_"}


def run(function, args, kwargs):
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    on_host = [x for x in tensors if not isinstance(x, OnDevice) and x.dim()]
    if on_host and len(on_host) < len(tensors) and function._schema.name not in COPIES:
        raise RuntimeError(f"{function}: a tensor of the host among those of the device")
    if any(isinstance(x, OnDevice) and x.dtype == torch.float64 for x in tensors):
        raise RuntimeError(f"{function}: a TPU has no float64")
    device = kwargs.get("device")
    if function._schema.name == "aten::empty" and list(args[0]) == [LARGE, LARGE]:
        args = ([2, 2], *args[1:])
    out = function(*tree_map(raw, args), **tree_map(raw, kwargs))
    if device is not None and torch.device(device).type == "cpu":
        return out
    wrapped = tree_map(lambda x: OnDevice(x) if type(x) is torch.Tensor else x, out)
    return return_and_correct_aliasing(function, args, kwargs, wrapped)


def raw(x):
    if isinstance(x, torch.device) and x.type == "tpu":
        return torch.device("cpu")
    return x.raw if isinstance(x, OnDevice) else x


class Precision:
    HIGHEST = "HIGHEST"


@contextlib.contextmanager
def precision(mode):
    say(f"precision {mode}")
    yield


class Stream:
    """Everything is done at once."""

    def synchronize(self) -> None:
        pass

    def wait_stream(self, other: "Stream") -> None:
        pass


_setup_privateuseone_for_python_backend(
    "tpu",
    SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 4,
        current_device=lambda: 0,
        get_device_name=lambda device=None: "TPU v9",
        get_amp_supported_dtype=lambda: [torch.bfloat16],
        synchronize=lambda device=None: None,
        current_stream=lambda device=None: Stream(),
        Stream=lambda *args, **kwargs: Stream(),
        stream=lambda stream: contextlib.nullcontext(),
        manual_seed_all=lambda seed: None,
        _is_in_bad_fork=lambda: False,
        _lazy_init=lambda: None,
        Precision=Precision,
        precision=precision,
    ),
)
_library = torch.library.Library("_", "IMPL")
_library.fallback(lambda function, *args, **kwargs: run(function, args, kwargs), "PrivateUse1")


def collectives(store, rank, size, timeout):
    say(f"tpu_dist {rank} of {size}")
    return dist.ProcessGroupGloo(store, rank, size, timeout)


dist.Backend.register_backend("tpu_dist", collectives, devices=["tpu"])
