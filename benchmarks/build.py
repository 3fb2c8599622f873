"""Speed and memory of `electra build`, against a plain `encode_batch` loop over the same lines, in alternation.

    python benchmarks/build.py TEXT --vocab VOCAB [--processes 1 2] [--repeats 3] [--out benchmarks/results/build.json]

TEXT is one plain text file, VOCAB anything that `electra build --vocab` takes. The other side is what one writes with
`tokenizers` in five lines: one process, one thread, `encode_batch` on 1000 lines a call, ids to numpy; nothing is
stored. Every measurement is a fresh process, imports and start of the workers included; the peak is the sum of the
resident memory of its whole process tree (pages that are shared count once for each process), polled 50 times a
second. Speeds are megabytes of text a second, and that divided by the number of processes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from machine import describe

OURS = """
import sys
from pathlib import Path
from electra.build import build
from electra.config import BuildConfig

if __name__ == "__main__":
    text, vocab, processes, out = sys.argv[1:]
    print(build(BuildConfig(corpus=(text,), vocab=Path(vocab), out=Path(out), processes=int(processes)))["tokens"])
"""

PLAIN = """
import sys
import numpy as np
from pathlib import Path
from electra.tokenizer import load_tokenizer

tokenizer = load_tokenizer(Path(sys.argv[2])).tokenizer
tokens, lines = 0, []

def encode(lines):
    encodings = tokenizer.encode_batch(lines, add_special_tokens=False)
    return sum(len(np.array(encoding.ids, np.uint16)) for encoding in encodings)

with open(sys.argv[1], encoding="utf-8", newline="\\n") as file:
    for line in file:
        lines.append(line.strip())
        if len(lines) == 1000:
            tokens, lines = tokens + encode(lines), []
print(tokens + encode(lines))
"""


def tree_bytes(root: int) -> int:
    """Resident memory of a process and all its descendants."""
    parents, resident = {}, {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            parents[int(entry.name)] = int(fields[1])
            resident[int(entry.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    tree = {root}
    while grown := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= grown
    return sum(resident.get(process, 0) for process in tree)


def run(script: str, arguments: list[str]) -> dict[str, float]:
    """Run a script to its end: seconds, peak megabytes of its process tree, tokens that it printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "script.py")
        path.write_text(script)
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, path, *arguments], stdout=subprocess.PIPE, text=True, env=environment
        )
        peak, ended = 0, threading.Event()

        def poll() -> None:
            nonlocal peak
            while not ended.wait(0.02):
                peak = max(peak, tree_bytes(process.pid))

        poller = threading.Thread(target=poll)
        poller.start()
        output, _ = process.communicate()
        seconds = time.perf_counter() - started
        ended.set()
        poller.join()
    if process.returncode:
        raise SystemExit(f"a measurement failed with exit code {process.returncode}")
    return {"seconds": seconds, "peak_mb": peak / 1e6, "tokens": int(output)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    names = {"plain encode_batch loop": 0} | {f"electra build, processes {count}": count for count in args.processes}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(args.repeats):
        for name, processes in names.items():
            with tempfile.TemporaryDirectory() as folder:
                extra = [str(processes), str(Path(folder, "store"))] if processes else []
                runs[name].append(run(OURS if processes else PLAIN, [str(args.text), args.vocab, *extra]))
    if len({one["tokens"] for many in runs.values() for one in many}) != 1:
        raise SystemExit("the two sides disagree about the number of tokens")

    megabytes = args.text.stat().st_size / 1e6
    results = {}
    for name, many in runs.items():
        speeds = sorted(megabytes / one["seconds"] for one in many)
        median = statistics.median(speeds)
        results[name] = {
            "mb_per_second": {"median": median, "least": speeds[0], "most": speeds[-1]},
            "mb_per_second_per_core": median / max(1, names[name]),
            "peak_mb": max(one["peak_mb"] for one in many),
            "runs": many,
        }
        print(
            f"{name:28s} {median:6.2f} MB/s ({speeds[0]:.2f} to {speeds[-1]:.2f}), "
            f"{median / max(1, names[name]):6.2f} MB/s a core, peak {results[name]['peak_mb']:.0f} MB"
        )
    report = {
        "text_mb": megabytes,
        "tokens": runs["plain encode_batch loop"][0]["tokens"],
        "repeats": args.repeats,
        "machine": describe(),
        "versions": {name: importlib.metadata.version(name) for name in ("electra-toolkit", "tokenizers", "numpy")},
        "results": results,
    }
    print(json.dumps({key: value for key, value in report.items() if key != "results"}))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
