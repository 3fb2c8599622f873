"""What a run ran on: a line in `starts.jsonl` of the run folder each time that it starts or goes on.

The announcement says the same on the terminal, where it is gone the day after.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from electra import __version__
from electra.runtime import Runtime


def describe(runtime: Runtime) -> dict[str, Any]:
    """Device, processes, precision, processor, memory in GiB and versions; without names of hosts or users."""
    facts: dict[str, Any] = {
        "device": device_name(runtime.device),
        "processes": runtime.world_size,
        "precision": runtime.precision,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "electra": __version__,
    }
    if os.name == "posix":
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return facts


def device_name(device: torch.device) -> str:
    """Of an accelerator its model, of a CPU what Linux calls it; the kind of device where nobody knows."""
    named = getattr(torch.get_device_module(device.type), "get_device_name", None)
    if named is not None:
        return str(named(device))
    if device.type == "cpu":
        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return f"CPU, {names[0]}" if names else f"CPU, {platform.processor() or platform.machine()}"
    return device.type


def record_start(folder: Path, step: int, runtime: Runtime) -> None:
    """Add a line for a run that begins, or goes on, after `step` steps."""
    line = json.dumps({"step": step, "time": round(time.time())} | describe(runtime))
    with (folder / "starts.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run, without a half-written last one; none if there is no file."""
    path, rows = folder / "starts.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def hardware(starts: Sequence[dict[str, Any]]) -> str:
    """'8 x NVIDIA H200 in bf16, torch 2.11.0', then what else the run went on with; empty if nothing is known."""
    places = [f"{row['processes']} x {row['device']} in {row['precision']}, torch {row['torch']}" for row in starts]
    return "; then ".join(dict.fromkeys(places))
