"""Verbs to look at runs and models: report, app."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from electra.cli.parsing import Arguments, parse


@dataclass(frozen=True)
class ReportArguments:
    """One HTML page about runs of electra pretrain and electra finetune, to be read without a network."""

    runs: Positional[tuple[Path, ...]]
    """Run folders; several are compared. A fine-tuning of several tasks or settings is a run for each."""
    out: Path | None = None
    """File to write; by default report.html in the run folder, of several runs in the current folder."""
    fast: bool = False
    """Leave out what needs the model of a pre-training run."""
    data: str | None = None
    """A token store for that, or the URL of one; by default what each run was trained on, in the same shares."""
    rows: int = 0
    """Held-out rows for that; 0 means as many as the run's own evaluations."""
    samples: int = 3
    """Held-out rows to show with what the discriminator says of them."""
    watch: int = 0
    """Seconds after which the page is written again, until the runs are finished; 0 means once."""
    device: str = "auto"
    """cuda, cpu, or auto, which is cpu while the run is training."""

    def __post_init__(self) -> None:
        for name in ("rows", "samples", "watch"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must not be negative")


def report(arguments: Arguments) -> int:
    """One HTML page with curves, machine, samples and results of runs."""
    given = parse(ReportArguments, "report", "electra report run    or    electra report run --watch 30", arguments)

    from electra.report import Reporter
    from electra.report import report as run

    reporter = Reporter(given.runs, given.out, given.fast, given.data, given.rows, given.samples, given.device)
    run(reporter, given.watch)
    return 0


def app(arguments: Arguments) -> int:
    """A web page to try models out: replaced tokens, answers."""
    from electra.config.serving import AppConfig

    config = parse(AppConfig, "app", "electra app run sst2    or    electra app run --space space", arguments)
    if config.space is not None:
        from electra.app.space import write_space

        write_space(config)
    else:
        from electra.app.serve import app as run

        run(config)
    return 0
