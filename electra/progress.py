"""How far some work is, how fast it goes and how long it will take: one line, for every verb.

    with Progress("building", "bytes", total) as progress: ... progress.add(n)    counted(items, ...) does so in a loop

On a terminal the line stands on standard error and is drawn again four times a second (terminal.py); in a log it is a
line of its own every ten seconds, later every ten minutes. Work that ends within a second shows none. Of several
processes of a run the first alone speaks. One thing is shown at a time: what begins meanwhile says nothing, or moves
the line of the work that it is a part of. A training run has a line of its own kind (log.py), which gives way to these.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from electra.terminal import clear, draw, redrawable

Item = TypeVar("Item")

FIRST, EVERY = 1.0, 0.25  # seconds before a terminal shows anything, and between two drawings: 0.2 ms each
LINE_FIRST, LINE_SHARE, LINE_LONGEST = 10.0, 0.05, 600.0  # of a log: a twentieth of the time so far, within these


class Pace:
    """When it is time to say something again."""

    def __init__(self, on_terminal: bool, at_once: bool = False) -> None:
        self.on_terminal = on_terminal
        self.begin = time.monotonic()
        self._next = self.begin + (0.0 if at_once else FIRST if on_terminal else LINE_FIRST)

    def is_due(self) -> bool:
        """Whether it is; if so, the next time is later."""
        now = time.monotonic()
        if now < self._next:
            return False
        pause = EVERY if self.on_terminal else min(max(LINE_FIRST, LINE_SHARE * (now - self.begin)), LINE_LONGEST)
        self._next = now + pause
        return True


class Progress:
    """Work of `total` things, which `unit` names; bytes are shown as MB and so on. 0: nobody knows how many.

    Where nothing can be counted `unit` is empty, and a terminal shows the title alone as long as it lasts.
    """

    _shown: Progress | None = None
    _choosing = threading.Lock()

    def __init__(self, title: str, unit: str = "", total: int = 0) -> None:
        self.title, self.unit, self.total = title, unit, total
        self._done = self._first = 0.0
        self._begin = 0.0  # since when there is more than `_first`
        self._adding = threading.RLock()
        self._expected, self._parts, self._parts_done = 0, 1, 0
        self._whole: Progress | None = None  # whose line is moved

    def __enter__(self) -> Progress:
        self._thread, self._begin = threading.get_ident(), time.monotonic()
        with Progress._choosing:
            shown = Progress._shown
            if shown is None and is_main_process():
                Progress._shown = self
        if shown is not None and shown._thread == self._thread:
            self._whole = shown
        if Progress._shown is self:
            self._console = redrawable(sys.stderr)
            self._pace = Pace(self._console is not None)
            if self._console is not None and not self.unit:
                draw(self._console, self.title, None, [])
        return self

    def __exit__(self, *exception: object) -> None:
        if self._whole is not None:
            self._whole._parts_done += 1
        if Progress._shown is self:
            clear()
            Progress._shown = None

    def show(self, done: float, total: int | None = None) -> None:
        """So much is done; speed is measured from the first call on, since some may have been done before."""
        with self._adding:
            self.total = self.total if total is None else total
            if not self._done:
                self._first, self._begin = done, time.monotonic()
            self._done = done
            self._say(done)

    def expect(self, amount: int, parts: int = 1) -> None:
        """The next `add` will be of so much, and so many other progresses are going to tell how far that is."""
        self._expected, self._parts, self._parts_done = amount, parts, 0

    def add(self, amount: int) -> None:
        """So much more is done; from any thread."""
        with self._adding:
            self._expected = 0
            self._done += amount
            self._say(self._done)

    def _say(self, done: float) -> None:
        if self._whole is not None and self.total:
            whole = self._whole
            whole._say(whole._done + whole._expected * min((whole._parts_done + done / self.total) / whole._parts, 1.0))
        if Progress._shown is not self or not self._pace.is_due():
            return
        now = time.monotonic()
        rate = (done - self._first) / max(now - self._begin, 1e-9)
        far, fast = amount(done, self.unit, self.total), f"{amount(rate, self.unit)}/s"
        share, long = None, f"{duration(now - self._pace.begin)} so far"
        if self.total:
            share = done / self.total
            long = f"{duration((self.total - done) / rate)} left" if rate else "no speed yet"
        if self._console is not None:
            draw(self._console, self.title, share, [far, long, fast] if share is None else [long, far, fast])
        else:
            percent = "" if share is None else f" ({share:.0%})"
            print(f"{self.title}: {far}{percent}, {fast}, {long}", file=sys.stderr, flush=True)


def counted(items: Iterable[Item], title: str, unit: str, amounts: Iterable[int], total: int) -> Iterator[Item]:
    """The items one by one, with the progress of what is done with them; each is so much of the work."""
    with Progress(title, unit, total) as progress:
        for item, done in zip(items, amounts, strict=True):
            yield item
            progress.add(done)


def is_main_process() -> bool:
    """Whether this is the process of a run that speaks, by what torchrun or srun said."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "SLURM_PROCID"))


def amount(value: float, unit: str, total: int = 0) -> str:
    """'12.3 of 29.1 MB', '1,024 of 4,096 rows', '0.31 rows'."""
    if unit == "bytes":
        size, unit, digits = (1e9, "GB", 2) if max(value, total) >= 1e9 else (1e6, "MB", 1)
        texts = [f"{each / size:,.{digits}f}" for each in (value, total)]
    else:
        texts = [f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.2g}", f"{total:,}"]
    return f"{' of '.join(texts if total else texts[:1])} {unit}"


def duration(seconds: float) -> str:
    """'1:02:03', '2:03' or '2d 3:04:05'."""
    whole = round(seconds)
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    clock = f"{hours}:{minutes:02d}:{secs:02d}" if hours or days else f"{minutes}:{secs:02d}"
    return f"{days}d {clock}" if days else clock
