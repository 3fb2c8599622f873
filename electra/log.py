"""What a run says: one progress line, metrics.jsonl and TensorBoard, from the main process alone.

JSONL is the truth; TensorBoard repeats it. A terminal has one line, drawn in place, also between log steps; a log has a
plain line for each log step.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from electra.files import atomic_file
from electra.progress import Pace, duration
from electra.terminal import clear, draw, redrawable


class RunLog:
    """Metrics of one run folder. `start_step` drops what an interrupted run had written beyond its checkpoint.

    `phases` are (last step, cost of a step in any unit) of each part of the run: the time left is estimated from them.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        start_step: int = 0,
        phases: Sequence[tuple[int, float]] = ((0, 1.0),),
        quiet: bool = False,
    ) -> None:
        self.phases, self.quiet = list(phases), quiet
        self._console = None if quiet else redrawable(sys.stdout)
        self._pace = Pace(on_terminal=True, at_once=True)
        self._latest: dict[str, float] = {}
        self._file: IO[str] | None = None
        self._tensorboard: Any = None
        self._first_step = start_step
        if folder is not None:
            path = folder / "metrics.jsonl"
            if path.exists():
                _cut_after(path, start_step)
            self._file = path.open("a", encoding="utf-8")
            from torch.utils.tensorboard import SummaryWriter  # half a second to import

            self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)

    def metrics(self, step: int, values: dict[str, float], kind: str = "train") -> None:
        """Write a row {"step", "kind", ...} and show it."""
        if self._file is not None:
            row = {"step": step, "kind": kind} | {
                name: value if math.isfinite(value) else None for name, value in values.items()
            }
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            for name, value in values.items():
                self._tensorboard.add_scalar(f"{kind}/{name}", value, step)
        if kind == "train":
            self._latest = values
            if self._console is None and not self.quiet:
                parts = [f"step {step:,}/{self.phases[-1][0]:,}", *self._times_left(step), *format_metrics(values)]
                print("  ".join(parts), flush=True)
        else:
            self.say(f"step {step:,} {kind}: {'  '.join(format_metrics(values))}")

    def say(self, text: str) -> None:
        """Print a line of its own, above the progress line."""
        if not self.quiet:
            clear()
            print(text, flush=True)

    def progress(self, step: int) -> None:
        """Draw the line of a terminal, where it is time: `step`, with the metrics of the last log step."""
        if self._console is not None and self._pace.is_due():
            total = self.phases[-1][0]
            title = f"step {step:,}/{total:,}"
            draw(self._console, title, step / total, [*self._times_left(step), *format_metrics(self._latest)])

    def _times_left(self, step: int) -> list[str]:
        left = [f"{self._time_left(step, self.phases[-1][0])} left"]
        if len(self.phases) > 1:
            index, end = next((i, end) for i, (end, _) in enumerate(self.phases) if step <= end)
            left.append(f"phase {index + 1}/{len(self.phases)}: {self._time_left(step, end)} left")
        return left

    def _time_left(self, step: int, end: int) -> str:
        """The time from `step` to `end` at the speed since the start of this process."""
        done = self._cost(step) - self._cost(self._first_step)
        elapsed = time.monotonic() - self._pace.begin
        return duration(elapsed / done * (self._cost(end) - self._cost(step))) if done else "?"

    def _cost(self, step: int) -> float:
        """What the first `step` steps cost."""
        total, begin = 0.0, 0
        for end, cost in self.phases:
            total += (min(step, end) - begin) * cost if step > begin else 0.0
            begin = end
        return total

    def close(self) -> None:
        clear()
        if self._file is not None:
            self._file.close()
            self._tensorboard.close()


SHORT_NAMES = {
    "learning_rate": "lr",
    "generator_loss": "gen",
    "masked_lm_loss": "mlm",
    "masked_lm_accuracy": "mlm-acc",
    "discriminator_loss": "disc",
    "generator_accuracy": "gen-acc",
    "discriminator_accuracy": "disc-acc",
    "discriminator_precision": "precision",
    "discriminator_recall": "recall",
    "discriminator_f1": "F1",
    "discriminator_auc": "AUC",
    "gradient_norm": "|g|",
    "peak_memory_gib": "GiB",
}
HIDDEN = {"generator_sampled_accuracy", "replaced_share", "seconds"}  # in the files only


def format_metrics(values: dict[str, float]) -> list[str]:
    """'38,400 tok/s', 'loss 9.61', 'gen 8.02', ...: short names, four significant digits, the speed first."""
    parts = []
    for name, value in sorted(values.items(), key=lambda item: item[0] != "tokens_per_second"):
        if name in HIDDEN:
            continue
        if name == "tokens_per_second":
            parts.append(f"{value:,.0f} tok/s")
            continue
        if name == "peak_memory_gib":
            text = f"{value:.1f}"
        elif name == "mfu":
            text = f"{value:.0%}"
        else:
            text = f"{value:.4g}"
        parts.append(f"{SHORT_NAMES.get(name, name)} {text}")
    return parts


def read_metrics(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The rows of one kind in a run's metrics.jsonl; a half-written last line is left out."""
    rows = []
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["kind"] == kind:
            rows.append(row)
    return rows


def _cut_after(path: Path, step: int) -> None:
    """Drop rows beyond `step`, and a half-written last one."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            continue
    with atomic_file(path, "w") as file:
        file.writelines(f"{line}\n" for line in kept)
