"""Checkpoints: RUN/checkpoints/step-N, complete or absent, verified when read.

The tensors (model and optimizers, by parameter name) go through torch.distributed.checkpoint, which writes one file
a process and reads under any number of processes. `checkpoint.json` is the receipt: step, metrics not yet
logged, fp16's loss scale, and the sha256 of each file. The folder is written under a temporary name and renamed last,
so a run killed while saving finds the checkpoint before. Training goes on while a checkpoint is written: from a copy on
the host, by a thread, which meets those of the other processes in a group of its own.
"""

from __future__ import annotations

import errno
import re
import shutil
import threading
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from electra.files import read_json, sha256, write_json
from electra.optim import named_state
from electra.processes import TIMEOUT
from electra.runtime import Runtime
from electra.scaling import LossScaler

FORMAT_VERSION = 1


@dataclass
class TrainState:
    """All that a resumed run needs beside its config: the data and the randomness follow from the step."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    window: dict[str, float] = field(default_factory=dict)  # metric sums since the last log line
    scaler: LossScaler | None = None  # in fp16

    def tensors(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": named_state(self.model, self.optimizers)}


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, runtime: Runtime, keep: int = 3) -> None:
        self.folder, self.runtime, self.keep = folder, runtime, keep
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._step = 0  # of what the thread writes or wrote last
        self._group = dist.new_group(backend="gloo", timeout=TIMEOUT) if runtime.world_size > 1 else None

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        found = (re.fullmatch(r"step-(\d+)", path.name) for path in self.folder.glob("step-*"))
        return sorted(int(match[1]) for match in found if match)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step}"

    @property
    def failed(self) -> bool:
        """Whether the checkpoint that is being written will not come about; `wait` raises the reason."""
        return self._error is not None

    def save(self, state: TrainState, *, wait: bool = True) -> None:
        """Write a checkpoint of `state.step`, then remove the oldest beyond `keep`.

        A thread writes them. Without `wait` it writes a copy on the host, and the call returns when that is made; with
        it there is no copy, since nobody changes them meanwhile. One checkpoint is written at a time. Raises what the
        method `wait` does.
        """
        self.wait()
        target = self.path(state.step)
        if target.exists():
            return
        self._step = state.step
        try:
            if self.runtime.is_main:
                shutil.rmtree(self._temporary, ignore_errors=True)
                self._temporary.mkdir(parents=True)
        except OSError as error:
            raise self._sentence(error) from None
        self.runtime.barrier()
        receipt = {"format_version": FORMAT_VERSION, "step": state.step, "window": state.window}
        if state.scaler is not None:
            receipt["loss_scale"] = asdict(state.scaler)
        # Not a daemon: a process that ends for another reason completes the file first.
        tensors = state.tensors() if wait else _on_host(state.tensors())
        self._thread = threading.Thread(target=self._write, args=(tensors, receipt), name="checkpoint")
        self._thread.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return when nothing is being written.

        Raises ValueError in a sentence when the disk is full; the checkpoints that exist stay as they are.
        """
        if self._thread is None:
            return
        self._thread.join()
        error, self._thread, self._error = self._error, None, None
        if not self.runtime.sum_over_ranks({"failed": float(error is not None)})["failed"]:
            return
        if self.runtime.is_main:
            shutil.rmtree(self._temporary, ignore_errors=True)
        if error is None:
            raise SystemExit(2)  # the process that failed says why
        raise self._sentence(error) from None

    def _write(self, tensors: dict[str, Any], receipt: dict[str, Any]) -> None:
        """What the thread does."""
        try:
            _dcp("save", tensors, self._temporary, self.runtime.world_size, self._group)
            if self.runtime.is_main:
                receipt["sha256"] = {path.name: sha256(path) for path in sorted(self._temporary.iterdir())}
                write_json(self._temporary / "checkpoint.json", receipt)
                self._temporary.rename(self.path(self._step))
                if self.keep:
                    for step in self.steps()[: -self.keep]:
                        shutil.rmtree(self.path(step))
        except Exception as error:
            self._error = error

    @property
    def _temporary(self) -> Path:
        return self.folder / f".step-{self._step}.tmp"

    def _sentence(self, error: Exception) -> Exception:
        if not _is_full_disk(error):
            return error
        return ValueError(
            f"the disk is full: the checkpoint of step {self._step} could not be saved in {self.folder}; "
            "free some space and run the same command to resume from the one before"
        )

    def load_latest(self, state: TrainState) -> bool:
        """Fill `state` from the newest checkpoint; False if there is none. ValueError if it is damaged."""
        steps = self.steps()
        if not steps:
            return False
        folder = self.path(steps[-1])
        older = f"to resume from step {steps[-2]}" if len(steps) > 1 else "to start again from step 0"
        remedy = f"delete the folder {folder} {older}"
        receipt = verify(folder, remedy)
        tensors = state.tensors()
        try:
            _dcp("load", tensors, folder, self.runtime.world_size, self._group)
        except Exception as error:  # a missing name or another shape
            raise ValueError(f"{folder} does not fit this model ({_first_line(error)}); {remedy}") from None
        state.model.load_state_dict(tensors["model"])
        state.step = receipt["step"]
        state.window = dict(receipt["window"])
        if "loss_scale" in receipt:
            state.scaler = LossScaler(**receipt["loss_scale"])
        return True


def verify(folder: Path, remedy: str) -> dict[str, Any]:
    """Check a checkpoint against its receipt and return that; ValueError names the damaged file."""
    try:
        receipt = read_json(folder / "checkpoint.json")
    except ValueError:
        receipt = None
    if not isinstance(receipt, dict) or receipt.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{folder / 'checkpoint.json'} is damaged, or of another version; {remedy}")
    for name, digest in receipt["sha256"].items():
        path = folder / name
        if not path.exists():
            raise ValueError(f"{path} is missing; {remedy}")
        if sha256(path) != digest:
            raise ValueError(f"{path} is damaged (its sha256 is not the one written); {remedy}")
    return receipt


def load_model(run: Path, model: nn.Module) -> int:
    """Fill a model alone from the newest checkpoint of a run folder; returns the step."""
    checkpoints = Checkpoints(run / "checkpoints", Runtime(torch.device("cpu"), "fp32", ""))
    steps = checkpoints.steps()
    if not steps:
        raise ValueError(f"{run} holds no checkpoint: pre-train it first, or name a run folder")
    folder = checkpoints.path(steps[-1])
    verify(folder, f"delete the folder {folder} to use an older checkpoint")
    tensors: dict[str, dict[str, Tensor]] = {"model": model.state_dict()}
    _dcp("load", tensors, folder)
    model.load_state_dict(tensors["model"])
    return steps[-1]


def _on_host(tensors: dict[str, Any]) -> dict[str, Any]:
    """A copy in the memory of the host, sharded as the tensors are."""
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    copy = DefaultStager(StagingOptions(*[False] * 4)).stage(tensors)
    assert isinstance(copy, dict)
    return copy


def _dcp(
    action: Literal["save", "load"],
    tensors: dict[str, Any],
    folder: Path,
    world_size: int = 1,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Write `tensors` to `folder` or fill them from it, with all processes, or with this one alone if it is the only.

    Its failures come out as Exceptions: torch's CheckpointException is a BaseException.
    """
    import torch.distributed.checkpoint as dcp  # here, as it costs every verb 50 MB and a second to import
    from torch.distributed.checkpoint.api import CheckpointException

    # One process is one process. No catch_warnings, which is not for threads.
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    call = dcp.save if action == "save" else dcp.load
    try:
        call(tensors, checkpoint_id=folder, process_group=group, no_dist=world_size == 1)
    except CheckpointException as error:
        raise RuntimeError(_first_line(error)) from error


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether ENOSPC hides in the chain; torch's writer reports a short write as a RuntimeError of its own."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(sign in str(error) for sign in ("No space left", "PytorchStreamWriter failed", "unexpected pos")):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: BaseException) -> str:
    return next((line for line in reversed(str(error).strip().splitlines()) if line.strip()), type(error).__name__)
