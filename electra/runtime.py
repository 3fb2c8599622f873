"""The machine under a run: device, precision, process group, seeds, and the signal to stop.

    running(device, precision) -> Runtime    devices.py knows the devices, processes.py the other processes

One place for devices and one for randomness. Nothing here knows what is trained.
"""

from __future__ import annotations

import contextlib
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

from electra.allocator import keep_freed_memory
from electra.devices import (
    AUTOCAST,
    choose_device,
    choose_precision,
    device_of_process,
    process_group_backend,
    set_matmul_precision,
    synchronize,
)
from electra.processes import TIMEOUT, find_place, together


@dataclass(frozen=True)
class Runtime:
    """Where this process computes and which share of the work is its own."""

    device: torch.device
    precision: str  # "fp32", "tf32", "bf16" or "fp16"
    why: str  # the reason for the precision, for the announcement
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Matrix products in the run's precision; weights, sums and norms stay fp32."""
        if self.precision not in AUTOCAST:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, AUTOCAST[self.precision])

    @contextlib.contextmanager
    def main_speaks(self) -> Iterator[None]:
        """Whatever is printed is printed by the main process alone."""
        with contextlib.ExitStack() as stack:
            if not self.is_main:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Add up numbers over all processes (fp64, on the host); every rank gets the sums."""
        if self.world_size == 1:
            return values
        stacked = torch.tensor(list(values.values()), dtype=torch.float64)
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
        """Wait for all processes."""
        self.sum_over_ranks({"": 0.0})


@contextlib.contextmanager
def running(device: str, precision: str) -> Iterator[Runtime]:
    """The machine under a run, joined with the run's other processes if torchrun or srun started several.

    When one of them fails all end within a minute, and one says why. Raises what `start` does.
    """
    place = find_place(os.environ)
    if place.world_size == 1:
        yield start(device, precision)
        return
    with together(place) as store:
        runtime = start(device, precision)
        dist.init_process_group(
            process_group_backend(runtime.device),
            store=dist.PrefixStore("electra/collectives", store),
            rank=place.rank,
            world_size=place.world_size,
            timeout=TIMEOUT,
        )
        yield runtime
        dist.destroy_process_group()


def start(device: str, precision: str) -> Runtime:
    """Find the device and the precision. ValueError for a device or precision that is not there, or too few devices."""
    place = find_place(os.environ)
    chosen = choose_device(device)
    if place.world_size > 1 and chosen.type not in ("cpu", "mps") and chosen.index is None:
        chosen = device_of_process(chosen, place.local_rank)
    if chosen.type == "cpu":
        keep_freed_memory()
    name, why = choose_precision(precision, chosen)
    set_matmul_precision(name, chosen)
    return Runtime(chosen, name, why, place.rank, place.world_size)


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
    dtype = AUTOCAST.get(precision, torch.float32)
    if device.type == "cpu":
        size = size // 8 if precision == "fp16" else size  # which CPUs emulate
    else:
        size = 4 * size
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    best = float("inf")
    torch.mm(left, right)
    synchronize(device)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(left, right)
        synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best
