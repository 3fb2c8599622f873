"""Seconds from the command to the first optimizer step, and of `electra --help`.

    python benchmarks/startup.py --store STORE --out benchmarks/results/startup-cpu.json

Starts `electra pretrain electra-small` on a token store as a new process and waits for its first log line (log_every 1,
16 rows of 128); the store's checksums are verified on the way, as always. Median of several starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe


def first_step(store: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--batch-size", "16", "--log-every", "1", "--steps", "1000000"]
        command = [sys.executable, "-m", "electra", "pretrain", "electra-small", "--data", str(store)]
        begin = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--out", f"{folder}/run", *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 1/"):
                break
        else:
            raise SystemExit("the run ended before its first step")
        seconds = time.perf_counter() - begin
        process.kill()
        process.wait()
        return seconds


def help_text() -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "electra", "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    report: dict[str, object] = {"machine": describe(), "store_mb": _megabytes(args.store)}
    for name, measure in (("first_step", lambda: first_step(args.store)), ("help", help_text)):
        times = [measure() for _ in range(args.repeats)]
        report[f"{name}_seconds"] = {"median": statistics.median(times), "min": min(times), "max": max(times)}
        print(f"{name}: median {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
