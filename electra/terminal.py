"""The terminal: how wide it is, whether it shows colours, and its last line, drawn again and again in place.

rich lays the line out and knows terminals; nothing is hidden or redirected, so that a process that is killed leaves
its terminal as it was. Whatever else is printed while the line stands calls `clear` first.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_BAR = 30  # columns at most
_drawn: IO[str] | None = None  # where the line stands


def terminal() -> tuple[int, bool]:
    """Columns to print, 120 elsewhere than on a terminal, and whether in colour: there, unless NO_COLOR is set."""
    is_terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if is_terminal else 120
    return columns, is_terminal and not os.environ.get("NO_COLOR")


def redrawable(stream: IO[str]) -> Console | None:
    """What `draw` draws on; None where no line can be drawn again: a file, a pipe, TERM=dumb, Windows before 10."""
    if not stream.isatty():
        return None
    from rich.console import Console

    console = Console(file=stream)
    return None if console.is_dumb_terminal or console.legacy_windows else console


def draw(console: Console, title: str, share: float | None, facts: Sequence[str]) -> None:
    """Draw the line: title, share done (of 1), a bar if there is room, and as many of the facts, in order, as fit."""
    global _drawn
    from rich.cells import cell_len
    from rich.text import Text

    try:  # each time anew: windows change
        columns = os.get_terminal_size(console.file.fileno()).columns
    except OSError:
        columns = 0
    room = (columns or 80) - 1  # a terminal may go to the next line after the last column
    parts = [Text(title, "bold")]
    if share is not None:
        parts.append(Text(f"{min(share, 1.0):4.0%}", "cyan"))
    used = sum(part.cell_len for part in parts) + 2 * (len(parts) - 1)
    fitting = []
    for fact in facts:
        used += 2 + cell_len(fact)
        if used > room:
            break
        fitting.append(Text(fact))
    width = min(_BAR, room - used - 2) // 10 * 10  # in steps, or it would flutter with the length of the numbers
    if share is not None and len(fitting) == len(facts) and width > 0:
        full = round(width * min(share, 1.0))
        parts.append(Text("━" * full, "green").append("─" * (width - full), "dim"))
    line = Text("  ").join(parts + fitting)
    line.truncate(max(room, 1), overflow="ellipsis")
    with console.capture() as captured:
        console.print(line, end="", no_wrap=True, overflow="ignore", crop=False, highlight=False)
    drawn = f"\r{captured.get()}\x1b[K"
    console.file.write(drawn.encode(console.encoding, "replace").decode(console.encoding))
    console.file.flush()
    _drawn = console.file


def clear() -> None:
    """Make room for other lines where the line stands."""
    global _drawn
    if _drawn is not None:
        _drawn.write("\r\x1b[K")
        _drawn.flush()
        _drawn = None
