"""The devices a run can use, one line each: how torch comes to know it, its process group, its precisions.

    --device auto | cuda | hpu | tpu | mps | cpu    ->  torch.device
    --precision auto | fp32 | tf32 | bf16 | fp16    ->  what matrix products compute in, and the reason

PyTorch itself knows cuda, mps and cpu. Intel Gaudi (hpu) and Google's TPUs (tpu) come with packages that are imported
here and nowhere else, and only when asked for or found. docs/devices.md says which lines have run on the real thing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class DeviceKind:
    """What differs between devices, beyond the string that torch.device takes."""

    label: str  # in sentences
    backend: str  # of the process group, for tensors on the device
    precisions: tuple[str, ...]
    package: str = ""  # to import before torch knows the device
    settings: tuple[tuple[str, str], ...] = ()  # of the environment, before that; what is set already stays
    collectives: str = ""  # to import before its process group exists
    has_float64: bool = True
    has_own: bool = False  # each process has one, which LOCAL_RANK picks: it goes by no number, and no other can be set
    launched_with: tuple[str, ...] = ()  # variables without which several processes do not find each other's devices


DEVICES = {  # in the order in which `auto` looks for them
    "cuda": DeviceKind("CUDA", "nccl", ("fp32", "tf32", "bf16", "fp16")),
    "hpu": DeviceKind(
        "Gaudi",
        "hccl",
        ("fp32", "bf16"),
        package="habana_frameworks.torch",
        settings=(("PT_HPU_LAZY_MODE", "0"),),  # torch.compile is for eager mode, and older releases begin in another
        collectives="habana_frameworks.torch.distributed.hccl",
        has_float64=False,
        has_own=True,
    ),
    "tpu": DeviceKind(
        "TPU",
        "tpu_dist",
        ("fp32", "bf16"),
        package="torch_tpu",
        has_float64=False,
        has_own=True,
        launched_with=("TORCH_TPU_TOPOLOGY", "TORCH_TPU_SLICEBUILDER_ADDRESSES"),
    ),
    "mps": DeviceKind("Apple", "gloo", ("fp32", "bf16", "fp16"), has_float64=False),
    "cpu": DeviceKind("CPU", "gloo", ("fp32", "bf16", "fp16")),
}
NAMES = ", ".join(DEVICES)
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}  # fp32 and tf32 compute on fp32 tensors


def choose_device(name: str) -> torch.device:
    """The device of a name such as "cuda" or "cuda:1"; `auto` takes the first of the table that is present.

    Raises ValueError for a name that is none, a package that is not installed, a device that is not there.
    """
    if name == "auto":
        return torch.device(next(kind for kind in DEVICES if is_present(kind)))
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise ValueError(f"device {name!r} is unknown: use auto or one of {NAMES}")
    package, label = DEVICES[kind].package, DEVICES[kind].label
    if package and not _import(DEVICES[kind]):
        raise ValueError(
            f"device {name!r} needs the Python package {package}, which cannot be imported here: install it, or use "
            "--device auto"
        )
    if not is_present(kind):
        raise ValueError(f"device {name!r} was asked for but torch finds no {label} device here: use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is unknown: use {kind}, or {kind}:0 for the first of several") from None


def is_present(kind: str) -> bool:
    """Whether a device of the table can be used here; imports its package if it is installed."""
    if kind == "cpu":
        return True
    if kind == "mps":
        return torch.backends.mps.is_available()
    if DEVICES[kind].package and not _import(DEVICES[kind]):
        return False
    return bool(torch.get_device_module(kind).is_available())


def _import(kind: DeviceKind) -> bool:
    for name, value in kind.settings:
        os.environ.setdefault(name, value)
    with contextlib.suppress(ImportError):
        importlib.import_module(kind.package)
        return True
    return False


def device_of_process(device: torch.device, local_rank: int) -> torch.device:
    """The device of one of the processes on this machine, made torch's current one.

    Raises ValueError where there are too few, or where the processes were started without what their devices need.
    """
    kind, module = DEVICES[device.type], torch.get_device_module(device.type)
    if missing := [name for name in kind.launched_with if name not in os.environ]:
        raise ValueError(
            f"several processes on {device.type} need {' and '.join(missing)}, set before torchrun starts them: "
            "recipes/tpu-pod.sh does so"
        )
    count = module.device_count()  # srun may show each process a device of its own, which is then number 0 for all
    if local_rank >= count > 1:
        raise ValueError(f"more processes were started on this machine than its {count} devices: start {count}")
    if kind.has_own:
        return device
    device = torch.device(device.type, local_rank % max(count, 1))
    module.set_device(device)
    return device


def process_group_backend(device: torch.device) -> str:
    """What init_process_group takes: numbers of the host go through gloo, tensors of the device through its own."""
    kind = DEVICES[device.type]
    if kind.backend == "gloo":
        return "gloo"
    if kind.collectives:
        importlib.import_module(kind.collectives)
    return f"cpu:gloo,{device.type}:{kind.backend}"


def sum_dtype(device: torch.device) -> torch.dtype:
    """The widest floating point of the device, for sums of metrics."""
    return torch.float64 if DEVICES[device.type].has_float64 else torch.float32


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A dataclass of tensors and settings with its tensors on the device."""
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    moved: Any = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
    return dataclasses.replace(batch, **moved)  # type: ignore[type-var]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    torch.get_device_module(device.type).synchronize()


def peak_memory(device: torch.device) -> int:
    """The most bytes that tensors of this process took on its device, or that the process took where torch counts none.

    0 on Windows, which has no such count either.
    """
    counted = getattr(torch.get_device_module(device.type), "max_memory_allocated", None)
    if counted is not None:
        return int(counted(device))
    if os.name != "posix":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# ------------------------------------------------------------------------------------------ precision


def choose_precision(name: str, device: torch.device) -> tuple[str, str]:
    """The precision of matrix products and the reason for it. ValueError for one that the device has not."""
    if name == "auto":
        return _default_precision(device)
    known = DEVICES[device.type].precisions
    if name not in known:
        raise ValueError(
            f"precision {name!r} has no meaning on {device.type}, which computes in {', '.join(known)}: choose one of "
            "these, or auto"
        )
    if name == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError("precision 'tf32' needs a GPU of compute capability 8.0 (Ampere) or later: use fp32 or fp16")
    return name, "asked for"


def _default_precision(device: torch.device) -> tuple[str, str]:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU has bf16 tensor cores"
        if torch.cuda.get_device_capability(device) >= (7, 0):
            return "fp16", "this GPU has fp16 tensor cores and no bf16; the loss is scaled"
        return "fp32", "this GPU has no tensor cores"
    if device.type == "hpu":
        return "bf16", "Gaudi's matrix engine is made for bf16"
    if device.type == "tpu":
        return "bf16", "a TPU's matrix units multiply bf16"
    if device.type == "mps":
        return "fp32", "half precision has not been measured on Apple's GPUs"
    if cpu_has_bf16():
        return "bf16", "this CPU has bf16 instructions"
    return "fp32", "this CPU has no bf16 instructions"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively (AVX512-BF16 or AMX); emulation is slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("sve_bf16"))


_lasting = contextlib.ExitStack()  # contexts that last as long as the process


def set_matmul_precision(precision: str, device: torch.device) -> None:
    """What fp32 products are made of, where a device has a choice.

    Let CUDA round their inputs to TF32's 10 bits of mantissa, or forbid it; forbid a TPU, which rounds them to bf16
    (7 bits) unless told otherwise.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    elif device.type == "tpu" and precision == "fp32":
        tpu: Any = torch.get_device_module("tpu")
        _lasting.enter_context(tpu.precision(tpu.Precision.HIGHEST))
