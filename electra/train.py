"""The training loop, one for pre-training and fine-tuning. It knows nothing of what is trained.

    for each step: load the rank's work -> forward and backward by micro-batch -> clip -> optimizer step
                   -> log, evaluate, save when due -> stop when asked

A step is an optimizer step on a global batch. `load(step)` makes this rank's share of it on the host (in a thread,
ahead of time); the counts that normalise the losses are summed over all ranks before the first backward pass, so
the gradient is that of the global batch however it was split. Everything random follows from (seed, step).
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from electra.batches import prefetch
from electra.checkpoint import Checkpoints, TrainState
from electra.config import LoopConfig
from electra.devices import peak_memory, sum_dtype
from electra.log import RunLog
from electra.optim import scale_gradients, set_learning_rate
from electra.parallel import accumulating, gradient_norm, replicate, reshard
from electra.profiling import StepProfiler
from electra.runtime import Runtime, StopSignal
from electra.scaling import LossScaler


class MicroBatch(Protocol):
    """Tensors of one forward pass. `seed` decides its dropout and must not depend on the rank."""

    @property
    def seed(self) -> int: ...

    def to(self, device: torch.device) -> Any: ...


@dataclass(frozen=True)
class Work:
    """A rank's share of an optimizer step."""

    micro_batches: list[Any]  # of MicroBatch
    totals: dict[str, float]  # this rank's counts; the model sees them summed over ranks
    tokens: int  # positions in this rank's share, for the speed


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `signal` is None when it reached its last step."""

    step: int
    signal: int | None = None


Summarise = Callable[[dict[str, float], int], dict[str, float]]


def train(
    state: TrainState,
    *,
    loop: LoopConfig,
    clip_norm: float,
    runtime: Runtime,
    learning_rate: Callable[[int], float],
    load: Callable[[int], Work],
    summarise: Summarise,
    log: RunLog,
    checkpoints: Checkpoints | None = None,
    evaluate: Callable[[], dict[str, float]] | None = None,
    flops_per_token: float = 0.0,
    peak_flops: float = 0.0,
    profiler: StepProfiler | None = None,
    is_enough: Callable[[], bool] = lambda: False,
    save_last: bool = True,
) -> Outcome:
    """Train from `state.step` to `loop.steps`; `state` is left at the last step done.

    `state.model(micro_batch, totals)` gives the micro-batch's part of the loss and sums of metrics over it;
    `learning_rate(step)` is the rate of step 0, 1, ...; `summarise(sums, steps)` turns metric sums into a log line;
    `is_enough()`, asked after each evaluation, ends the training early. Without `save_last` the end is not saved.
    Raises ValueError when loss or gradient stop being finite; the checkpoint then saved is from before that step. In
    fp16 a gradient that overflows is no such end: its step is skipped (scaling.py).
    """
    model, optimizers = state.model, state.optimizers
    replica = replicate(model, runtime)
    scaler = state.scaler = (state.scaler or LossScaler()) if runtime.precision == "fp16" else None
    shared = state.window if runtime.is_main else ("steps",)
    window = Window({name: value if name in shared else 0.0 for name, value in state.window.items()})
    model.train()
    with StopSignal().listening() as stop, contextlib.closing(prefetch(load, state.step, loop.steps)) as all_work:
        for work in all_work:
            # One small sum over ranks carries the counts, and whether anybody was told to stop or could not save.
            failed = checkpoints is not None and checkpoints.failed
            events = {"stop": float(stop.received is not None), "failed": float(failed)}
            totals = runtime.sum_over_ranks(work.totals | events)
            if totals.pop("failed") and checkpoints is not None:
                checkpoints.wait()
            if totals.pop("stop"):
                _save(state, window, checkpoints, runtime, wait=True)
                return Outcome(state.step, stop.received or signal.SIGTERM)

            sums = forward_backward(replica, work, totals, runtime, scaler.scale if scaler else 1.0)
            if scaler:
                scale_gradients(model, torch.tensor(1 / scaler.scale, device=runtime.device))
            norm = gradient_norm(model)
            overflows = not math.isfinite(norm)
            if not math.isfinite(sums["loss"]) or (overflows and (scaler is None or scaler.is_smallest)):
                _save(state, window, checkpoints, runtime, wait=True)
                raise _not_finite(state.step, float(sums["loss"]), float(norm), checkpoints)
            rate = learning_rate(state.step)
            if not overflows:
                if clip_norm:
                    scale_gradients(model, (clip_norm / norm).clamp(max=1.0))
                set_learning_rate(optimizers, rate)
                for optimizer in optimizers:
                    optimizer.step()
            if scaler:
                scaler.update(overflows)
            model.zero_grad(set_to_none=not loop.cuda_graphs)  # see compiled.py
            state.step += 1
            window.add(sums, work.tokens * runtime.world_size)
            if profiler is not None:
                profiler.step(state.step)
            log.progress(state.step)

            last = state.step == loop.steps
            if last or state.step % loop.log_every == 0:
                speed = window.speed(flops_per_token, peak_flops)
                values = summarise(window.total(runtime), window.steps)
                values |= {"learning_rate": rate, "gradient_norm": float(norm)}
                if scaler:
                    values |= {"loss_scale": scaler.scale, "skipped_steps": float(scaler.skipped)}
                memory = {"peak_memory_gib": peak_memory(runtime.device) / 2**30}
                log.metrics(state.step, values | speed | memory)
                window = Window({})
            pause = time.monotonic()
            if evaluate is not None and (last or (loop.eval_every and state.step % loop.eval_every == 0)):
                log.metrics(state.step, evaluate(), kind="eval")
                model.train()
                reshard(model)
                last = last or is_enough()
            if (last and save_last) or state.step % loop.save_every == 0:
                _save(state, window, checkpoints, runtime, wait=last)
            window.begin += time.monotonic() - pause  # neither evaluation nor saving counts in tokens/s
            if last:
                break
    return Outcome(state.step)


def forward_backward(
    replica: nn.Module, work: Work, totals: dict[str, float], runtime: Runtime, scale: float = 1.0
) -> dict[str, Tensor]:
    """Accumulate the gradient of the global batch, times `scale`; returns this rank's metric sums, on the device."""
    wide = sum_dtype(runtime.device)
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=wide, device=runtime.device))
    # As numbers they would be constants of a compiled graph, and each step would compile another one.
    counts = {name: torch.full((), value, device=runtime.device) for name, value in totals.items()}
    for index, micro_batch in enumerate(work.micro_batches):
        is_last = index == len(work.micro_batches) - 1
        with accumulating(replica, is_last):
            torch.manual_seed(micro_batch.seed)
            with runtime.autocast():
                loss, parts = replica(micro_batch.to(runtime.device), counts)
            # The loss is a share of the global batch's, and DDP and FSDP average: undo the division.
            (loss * (scale * runtime.world_size)).backward()
        for name, part in parts.items():
            sums[name] = sums[name] + part
    if runtime.world_size > 1:  # every rank has to see a loss that is not finite anywhere
        dist.all_reduce(finite := torch.isfinite(sums["loss"]).float(), dist.ReduceOp.MIN)
        sums["loss"] = torch.where(finite > 0, sums["loss"], torch.nan)
    return sums


class Window:
    """Metric sums and the clock since the last log line."""

    def __init__(self, sums: dict[str, float]) -> None:
        self.sums = _vectors({name: value for name, value in sums.items() if name != "steps"})
        self.steps = int(sums.get("steps", 0))
        self.tokens, self.begin = 0, time.monotonic()

    def add(self, sums: dict[str, Tensor], tokens: int) -> None:
        for name, value in sums.items():
            before = self.sums.get(name, 0.0)
            self.sums[name] = value + (before.to(value) if isinstance(before, Tensor) else before)
        self.steps += 1
        self.tokens += tokens

    def total(self, runtime: Runtime) -> dict[str, float]:
        """Sums over all ranks, as numbers: a vector as name.0, name.1, ..."""
        return runtime.sum_over_ranks(_numbers(self.sums))

    def speed(self, flops_per_token: float, peak_flops: float) -> dict[str, float]:
        seconds = max(time.monotonic() - self.begin, 1e-9)
        values = {"tokens_per_second": self.tokens / seconds}
        if peak_flops:
            values["mfu"] = values["tokens_per_second"] * flops_per_token / peak_flops
        return values


def _numbers(sums: dict[str, Tensor | float]) -> dict[str, float]:
    """Sums of () and (N,) as numbers, those of a vector named name.0 to name.N-1."""
    numbers: dict[str, float] = {}
    for name, value in sums.items():
        if isinstance(value, Tensor) and value.dim():
            numbers |= {f"{name}.{index}": number for index, number in enumerate(value.tolist())}
        else:
            numbers[name] = float(value)
    return numbers


def _vectors(numbers: dict[str, float]) -> dict[str, Tensor | float]:
    """The inverse of `_numbers`, on the host."""
    parts: dict[str, list[float]] = defaultdict(list)
    for name, number in numbers.items():
        parts[name.partition(".")[0]].append(number)
    return {
        name: numbers[name] if name in numbers else torch.tensor(values, dtype=torch.float64)
        for name, values in parts.items()
    }


def _save(
    state: TrainState, window: Window, checkpoints: Checkpoints | None, runtime: Runtime, wait: bool = False
) -> None:
    if checkpoints is not None:
        state.window = window.total(runtime) | {"steps": window.steps} if window.steps else {}
        checkpoints.save(state, wait=wait)


def _not_finite(step: int, loss: float, norm: float, checkpoints: Checkpoints | None) -> ValueError:
    what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient norm became {norm}"
    where = f"; {checkpoints.path(step)} holds the state before it" if checkpoints is not None else ""
    return ValueError(f"{what} in step {step + 1}{where}: lower the learning rate or use --precision fp32")
