"""`electra report`: one HTML page about one or several runs, which needs nothing but itself to be read.

    run folders -> read_runs -> sections (pages/) -> RUN/report.html
                        `-> newest checkpoint on held-out rows, unless --fast

Runs that still train, were killed or have just begun are shown as far as they are. With `watch` the page is written
again and again, and a browser that shows it loads it again; the model is asked once for each checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from electra import __version__
from electra.files import atomic_file
from electra.pages.detection import Examination, detection_sections, examine
from electra.pages.finetuning import finetuning_sections
from electra.pages.html import Html, page, tag
from electra.pages.pretraining import pretraining_sections
from electra.pages.runs import FinetuningRun, PretrainingRun, Run, read_runs

GENERATOR = "electra report"


@dataclass
class Reporter:
    """Writes the page of some runs, as often as it is asked to."""

    folders: Sequence[Path]
    out: Path | None = None
    """By default report.html in the run folder, of several runs in the current folder."""
    fast: bool = False
    """Leave out what needs the model."""
    data: str | None = None
    rows: int = 0
    samples: int = 3
    device: str = "auto"
    _examined: dict[Path, tuple[int, Examination | str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.folders:
            raise ValueError("report needs a folder that electra pretrain or electra finetune has written")
        self.path = self.out or (self.folders[0] / "report.html" if len(self.folders) == 1 else Path("report.html"))
        if self.path.is_dir():
            raise ValueError(f"--out {self.path} is a folder: name a file")
        if self.path.exists() and GENERATOR.encode() not in self.path.read_bytes()[:500]:
            raise ValueError(f"{self.path} is not a page that electra report has written: choose another --out")

    def write(self, refresh: int = 0) -> list[Run]:
        """Write the page as things stand and return the runs. Raises ValueError for a folder that is no run."""
        runs = read_runs(self.folders)
        trained = [run for run in runs if isinstance(run, PretrainingRun)]
        tuned = [run for run in runs if isinstance(run, FinetuningRun)]
        sections = pretraining_sections(trained) if trained else []
        if trained:
            sections += detection_sections({run.label: self._examination(run) for run in trained})
        sections += finetuning_sections(tuned) if tuned else []
        is_live = any(not run.is_finished for run in runs)
        text = page(_title(runs), _head(refresh * is_live), sections, GENERATOR, refresh * is_live)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path, "w") as file:
            file.write(text)
        return runs

    def _examination(self, run: PretrainingRun) -> Examination | str:
        """What the newest checkpoint gives, computed once for each; a sentence where it gives nothing."""
        if self.fast:
            return "--fast leaves out what needs the model"
        if not run.checkpoints:
            return "the run has no checkpoint yet"
        step = run.checkpoints[-1]
        if self._examined.get(run.folder, (-1, ""))[0] != step:
            device = "cpu" if self.device == "auto" and run.is_running else self.device  # its memory is the run's
            try:
                found: Examination | str = examine(run.folder, self.data, self.rows, self.samples, device)
            except (ValueError, OSError) as error:
                found = str(error)
            self._examined[run.folder] = (step, found)
        return self._examined[run.folder][1]


def report(reporter: Reporter, watch: int = 0, say: Callable[[str], None] = print) -> None:
    """Write the page once, or with `watch` every so many seconds until all runs are finished or Ctrl-C is pressed."""
    runs = reporter.write(watch)
    kilobytes = reporter.path.stat().st_size / 1000
    say(f"wrote {reporter.path} ({kilobytes:,.0f} kB)")
    for run in runs:
        say(f"  {run.label}: {run.state()}")
    if not watch or all(run.is_finished for run in runs):
        return
    say(f"writing it again every {watch} s until the end; Ctrl-C stops this and nothing else")
    try:
        while not all(run.is_finished for run in runs):
            time.sleep(watch)
            runs = reporter.write(watch)
    except KeyboardInterrupt:
        reporter.write()
        say("stopped")
        return
    say("finished")


def _title(runs: Sequence[Run]) -> str:
    names = [run.label for run in runs]
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _head(refresh: int) -> Html:
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    live = f"; written and loaded again every {refresh} s" if refresh else ""
    return tag("p", f"Made by electra {__version__} on {now}{live}.")
