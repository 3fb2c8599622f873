"""Verbs that need nothing but the machine: doctor, demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from electra.cli.parsing import Arguments, parse


@dataclass(frozen=True)
class DoctorArguments:
    """This machine: versions, device, precisions and their speed, disk."""

    folder: Path = Path()
    """Where the disk is measured."""


def doctor(arguments: Arguments) -> int:
    """Device, precisions, disk and speed of this machine."""
    given = parse(DoctorArguments, "doctor", "electra doctor", arguments)

    from electra.doctor import doctor as run

    run(given.folder)
    return 0


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
