"""Faults of the rows of a file: counted and reported, or with --strict an error before training starts.

A reader calls `problems.add` for a row that it leaves out or repairs, and goes on. Only what makes a whole file
useless (no such file, no such column) is an error at once.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

SHOWN = 3
"""Places shown of each kind of fault."""


class Problems:
    """What is wrong with the rows of a task's files, by kind of fault."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = defaultdict(list)

    def add(self, fault: str, path: Path, place: int | str) -> None:
        """Note a fault, a phrase such as "rows with 3 columns where 4 belong: left out", and its line or id."""
        where = f"line {place}" if isinstance(place, int) else str(place)
        self._places[fault].append(f"{path}, {where}")

    def counts(self) -> dict[str, int]:
        return {fault: len(places) for fault, places in self._places.items()}

    def sentences(self) -> list[str]:
        """One for each kind of fault: how many, which, and where the first ones are."""
        return [
            f"{len(places):,} {fault} ({'; '.join(places[:SHOWN])}{'; ...' if len(places) > SHOWN else ''})"
            for fault, places in self._places.items()
        ]

    def refuse(self) -> None:
        """ValueError that tells all faults, if there is one; for --strict."""
        if self._places:
            raise ValueError(f"--strict: {', and '.join(self.sentences())}; correct the files, or leave out --strict")
