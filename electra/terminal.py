"""Standard output: how wide it is, and whether it shows colours."""

from __future__ import annotations

import os
import shutil
import sys


def terminal() -> tuple[int, bool]:
    """Columns to print, 120 elsewhere than on a terminal, and whether in colour: there, unless NO_COLOR is set."""
    is_terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if is_terminal else 120
    return columns, is_terminal and not os.environ.get("NO_COLOR")
