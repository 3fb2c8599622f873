"""What a run folder tells without its model: settings, machine, curves, results, and whether it is still running.

Everything is read as it is found at this moment: a run that is being written may have half a line at the end of a file,
no evaluation, or nothing yet.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from electra.announcement import flops_per_token
from electra.checkpoint import Checkpoints
from electra.config import FinetuneConfig, PretrainConfig
from electra.files import read_json
from electra.log import read_metrics
from electra.machine import read_starts
from electra.mixture import read_receipts
from electra.phases import Phase, phase_at, plan
from electra.progress import duration
from electra.runtime import Runtime
from electra.toml import read_toml

Row = dict[str, Any]
PATIENCE = 300.0
"""Seconds without a new line after which a run no longer counts as running, if its lines come more often."""


@dataclass(frozen=True)
class History:
    """The metrics.jsonl of one training."""

    name: str  # of the trial
    train: list[Row]
    evaluations: list[Row]
    written: float  # seconds since 1970, 0 if there is no file

    @staticmethod
    def read(folder: Path, name: str = "") -> History:
        path = folder / "metrics.jsonl"
        if not path.exists():
            return History(name, [], [], 0.0)
        return History(name, read_metrics(folder, "train"), read_metrics(folder, "eval"), path.stat().st_mtime)

    @property
    def step(self) -> int:
        """Of the last row, 0 without any."""
        return max((row["step"] for row in (*self.train[-1:], *self.evaluations[-1:])), default=0)

    def metrics(self) -> list[str]:
        """Names of what was logged, in the order of the rows."""
        rows = (*self.train[-1:], *self.evaluations[-1:])
        return list(dict.fromkeys(name for row in rows for name in row if name not in ("step", "kind")))

    def points(self, kind: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (N,) and values (N,) of "train" or "eval", without those that are not finite."""
        rows = self.train if kind == "train" else self.evaluations
        known = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
        steps, values = zip(*known, strict=True) if known else ((), ())
        return np.array(steps, np.float64), np.array(values, np.float64)


@dataclass(frozen=True)
class PretrainingRun:
    """A folder of `electra pretrain`."""

    folder: Path
    label: str
    config: PretrainConfig
    receipts: list[dict[str, Any]]  # store.json of each store
    history: History
    starts: list[Row]

    @cached_property
    def phases(self) -> list[Phase]:
        return plan(self.config)

    @property
    def vocab_size(self) -> int:
        return int(self.receipts[0]["vocabulary"]["size"])

    @property
    def steps(self) -> int:
        """Of the whole plan."""
        return self.phases[-1].end

    @property
    def checkpoints(self) -> list[int]:
        return Checkpoints(self.folder / "checkpoints", Runtime(torch.device("cpu"), "fp32", "")).steps()

    def tokens(self, steps: np.ndarray) -> np.ndarray:
        """Tokens read after each of (N,) steps."""
        return np.interp(steps, *self.token_knots())

    def token_knots(self) -> tuple[list[int], list[int]]:
        """Steps and tokens at the ends of the phases, between which both grow evenly."""
        steps, tokens = [0], [0]
        for phase in self.phases:
            steps.append(phase.end)
            tokens.append(tokens[-1] + phase.tokens)
        return steps, tokens

    @cached_property
    def hours(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps (N,) and the hours of training up to each, from the speeds logged; evaluations are not in them."""
        steps, speeds = self.history.points("train", "tokens_per_second")
        read = np.diff(self.tokens(steps), prepend=0.0)
        return steps, np.cumsum(read / np.maximum(speeds, 1e-9)) / 3600

    def seconds_left(self) -> float | None:
        """At the last speed, a token of a later phase costing what its FLOPs say."""
        _, speeds = self.history.points("train", "tokens_per_second")
        if not len(speeds):
            return None
        step = self.history.step
        now = flops_per_token(phase_at(self.phases, step).config, self.vocab_size)
        left = 0.0
        for phase in self.phases:
            steps = phase.end - max(phase.begin, step)
            if steps > 0:
                cost = flops_per_token(phase.config, self.vocab_size) / now
                left += steps * phase.tokens / phase.steps * cost
        return left / max(float(speeds[-1]), 1e-9)

    @property
    def is_finished(self) -> bool:
        """Whether the last step is done, and saved unless that is long ago: it is logged before it is evaluated."""
        is_saved = self.steps in self.checkpoints or _age(self.folder, self.history.written) > PATIENCE
        return self.history.step >= self.steps and is_saved

    @property
    def is_running(self) -> bool:
        """Whether the last line is no older than three times the time between two."""
        if self.is_finished:
            return False
        _, speeds = self.history.points("train", "tokens_per_second")
        phase = phase_at(self.phases, self.history.step + 1)
        between = self.config.loop.log_every * phase.tokens / phase.steps / float(speeds[-1]) if len(speeds) else 0.0
        return _age(self.folder, self.history.written) < max(PATIENCE, 3 * between)

    def state(self) -> str:
        step, total = self.history.step, self.steps
        if self.is_finished:
            return f"finished at step {total:,}"
        where = f"step {step:,} of {total:,}" if step else f"nothing logged yet, {total:,} steps to go"
        if self.is_running:
            left = self.seconds_left()
            return f"running: {where}" + (f", {duration(left)} left" if left is not None and step else "")
        ago = duration(_age(self.folder, self.history.written))
        resume = f"goes on from step {self.checkpoints[-1]:,}" if self.checkpoints else "begins again"
        return f"stopped or killed: {where}; the last line is {ago} old. The same command {resume}"


@dataclass(frozen=True)
class FinetuningRun:
    """A folder of `electra finetune` with one task at one setting."""

    folder: Path
    label: str
    config: FinetuneConfig
    found: dict[str, Any] | None  # results.json, once a trial is finished
    histories: list[History]  # of each trial that has begun
    starts: list[Row]

    @property
    def task(self) -> str:
        """Its name; tasks of one's own are told apart by their data."""
        name = str(self.found["task"]) if self.found else self.config.task
        return f"{name} ({self.config.data})" if name == "custom" else name

    @property
    def trials(self) -> int:
        """That were asked for."""
        if self.config.mode in ("eval", "predict"):
            return 1
        return len(self.config.seeds) * max(1, self.config.folds)

    @property
    def is_finished(self) -> bool:
        return self.found is not None and len(self.found["trials"]) >= self.trials

    @property
    def is_running(self) -> bool:
        written = max((history.written for history in self.histories), default=0.0)
        return not self.is_finished and _age(self.folder, written) < PATIENCE

    def state(self) -> str:
        done = len(self.found["trials"]) if self.found else 0
        if self.is_finished:
            return f"finished, {done:,} {'trial' if done == 1 else 'trials'}"
        where = f"{done:,} of {self.trials:,} trials done"
        if self.is_running:
            return f"running: {where}"
        return f"stopped or killed: {where}; the same command goes on"


Run = PretrainingRun | FinetuningRun


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in some folders; a fine-tuning of several tasks or settings is one run for each.

    Labels are the folders' names, or where these are alike their paths below the folder that they share.
    Raises ValueError, in a sentence, for a folder that is none of a run.
    """
    found = list({path.resolve(): path for folder in folders for path in _expand(folder)}.values())
    names = [path.resolve().name for path in found]
    if len(set(names)) < len(names):
        common = os.path.commonpath([path.resolve() for path in found])
        names = [os.path.relpath(path.resolve(), common) for path in found]
    return [_read(path, label) for path, label in zip(found, names, strict=True)]


def _expand(folder: Path) -> list[Path]:
    """The folder, or those of the tasks or settings in it."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name one that electra pretrain or electra finetune has written")
    parts = sorted(path.parent for path in folder.glob("*/config.toml"))
    if parts and _kind(folder, or_none=True) != "pretrain":
        return [part for path in parts for part in _expand(path)]
    return [folder]


def _kind(folder: Path, or_none: bool = False) -> Literal["pretrain", "finetune"] | None:
    """Which verb has written a folder, by the keys of its config.toml."""
    path = folder / "config.toml"
    values: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    if "objective" in values and "rows" in values:
        return "pretrain"
    if "task" in values and "seeds" in values:
        return "finetune"
    if or_none:
        return None
    what = "holds no config.toml" if not path.exists() else "has a config.toml that is not one of ours"
    raise ValueError(f"{folder} {what}: name a folder that electra pretrain or electra finetune has written")


def _read(folder: Path, label: str) -> Run:
    starts = read_starts(folder)
    if _kind(folder) == "pretrain":
        config = read_toml(PretrainConfig, folder / "config.toml")
        return PretrainingRun(folder, label, config, read_receipts(folder), History.read(folder), starts)
    given = read_toml(FinetuneConfig, folder / "config.toml")
    results = folder / "results.json"
    found = read_json(results) if results.exists() else None
    trials = [History.read(path.parent, path.parent.name) for path in sorted(folder.glob("seed-*/metrics.jsonl"))]
    return FinetuningRun(folder, label, given, found, sorted(trials, key=lambda trial: _numbers(trial.name)), starts)


def _numbers(name: str) -> list[int]:
    """'seed-10-fold-2' -> [10, 2], so that seed 10 comes after seed 9."""
    return [int(digits) for digits in re.findall(r"\d+", name)]


def _age(folder: Path, written: float) -> float:
    """Seconds since the last line, or since the run was begun."""
    return max(0.0, time.time() - (written or (folder / "config.toml").stat().st_mtime))
