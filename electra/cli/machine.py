"""Verbs that need nothing but the machine: doctor, demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from electra.cli.parsing import Arguments, parse


@dataclass(frozen=True)
class DoctorArguments:
    """This machine: versions, devices, precisions and their speed, compiler, processes, disk, and advice."""

    folder: Path = Path()
    """Where the disk is measured: where runs are to be written."""
    store: str | None = None
    """A token store, or the URL of one, to compare with its checksums; exit code 1 if it is damaged."""
    json: bool = False
    """Print one JSON object."""


def doctor(arguments: Arguments) -> int:
    """Devices, precisions, compiler, disk and speed of this machine."""
    given = parse(DoctorArguments, "doctor", "electra doctor    or    electra doctor --store store --json", arguments)

    from electra.doctor import doctor as run

    return 0 if run(given.folder, given.store, given.json) else 1


@dataclass(frozen=True)
class DemoArguments:
    """The whole road on the documentation that every Python carries: vocabulary, store, pre-training, fine-tuning."""

    out: Path = Path("demo")
    """Folder to write."""
    steps: int = 0
    """Pre-training steps; 0 means the demo's own."""
    overwrite: bool = False
    """Replace --out if it exists."""


def demo(arguments: Arguments) -> int:
    """The whole pipeline on text that every machine has."""
    given = parse(DemoArguments, "demo", "electra demo", arguments)

    from electra.demo import demo as run

    run(given.out, given.steps, given.overwrite)
    return 0
