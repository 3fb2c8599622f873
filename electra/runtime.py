"""The machine under a run: device, precision, process group, seeds, and the signal to stop.

One place for devices and one for randomness. Nothing here knows what is trained.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Runtime:
    """Where this process computes and which share of the work is its own."""

    device: torch.device
    precision: str  # "fp32" or "bf16"
    why: str  # the reason for the precision, for the announcement
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Matrix products in the run's precision; weights, sums and norms stay fp32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Add up numbers over all processes (fp64); every rank gets the sums."""
        if self.world_size == 1:
            return values
        stacked = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(stacked)
        return dict(zip(values, stacked.tolist(), strict=True))

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The arrays of all ranks one after the other, on every rank."""
        if self.world_size == 1:
            return values
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, values)
        return np.concatenate(parts)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is unknown: use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is not supported: use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for but torch finds no CUDA device here: use --device cpu")
    return device


def choose_precision(name: str, device: torch.device) -> tuple[str, str]:
    """The precision of matrix products and the reason for it."""
    if name != "auto":
        return name, "asked for"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU has bf16 tensor cores"
        return "fp32", "this GPU has no bf16 arithmetic"
    if cpu_has_bf16():
        return "bf16", "this CPU has bf16 instructions"
    return "fp32", "this CPU has no bf16 instructions"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively (AVX512-BF16 or AMX); emulation is slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("sve_bf16"))


def start(device: str, precision: str) -> Runtime:
    """Find the device, and join the process group if torchrun (or srun with its variables) started us."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = choose_device(device)
    if world_size > 1:
        if chosen.type == "cuda":
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(chosen)
        if not dist.is_initialized():
            backend = "nccl" if chosen.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=datetime.timedelta(minutes=10))
    if chosen.type == "cpu":
        _keep_freed_memory()
    name, why = choose_precision(precision, chosen)
    return Runtime(chosen, name, why, rank, world_size)


def _keep_freed_memory() -> None:
    """Ask glibc not to return large blocks to the system at each free: a step allocates the same ones again.

    Saves the page faults of the (B, K, V) logits, which are 70 MB in an ELECTRA-Small step of 32 rows. Elsewhere than
    on glibc there is no mallopt, and nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            mallopt(parameter, value)


def finish() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from (seed, step, ...): equal parts give equal seeds on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class StopSignal:
    """SIGTERM and SIGINT set a flag; the training loop saves a checkpoint and leaves when it sees it.

    A second signal raises KeyboardInterrupt at once, for a user who does not want to wait.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopSignal]:
        try:
            before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: the host program owns the signals
            before = {}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def matmul_flops(device: torch.device, precision: str, size: int = 2048, seconds: float = 0.3) -> float:
    """FLOP/s of a square matrix product here and now: the peak that MFU is measured against."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = size if device.type == "cpu" else 4 * size
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    best = float("inf")
    torch.mm(left, right)
    synchronize()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(left, right)
        synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best
