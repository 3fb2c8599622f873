"""Speed and memory of `electra build` against two plain ways to tokenise the same lines, in alternation.

    python benchmarks/build.py enwiki.txt kowiki.txt --vocab vocab_en vocab_ko [--processes 1 2] [--repeats 3] \
        --out benchmarks/results/build.json

Each TEXT is a plain text file, the VOCAB at the same place anything that `electra build --vocab` takes. The other sides
are one process with one thread each, and store nothing:

encode_batch  what one writes with `tokenizers` in five lines: 1000 lines a call, ids to numpy
python        BERT's tokenisation written out in Python, as Google's builder has it (it runs on the first megabytes)

Every measurement is a fresh process, imports and start of the workers included; the peak is the sum of the resident
memory of its whole process tree (pages that are shared count once for each process), polled 50 times a second.
Speeds are megabytes of text a second, and that divided by the number of processes. From the speed a core with most
processes follow the hours that larger corpora take, and what they cost at --core-hour dollars.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

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


PYTHON = """
import sys
import unicodedata
from pathlib import Path
from electra.tokenizer import load_tokenizer

vocabulary = load_tokenizer(Path(sys.argv[2]))
ids = {token: number for number, token in enumerate(vocabulary.tokens)}
lower, strip = vocabulary.options["lowercase"], vocabulary.options["strip_accents"]

def is_punctuation(c):
    return 33 <= ord(c) <= 47 or 58 <= ord(c) <= 64 or 91 <= ord(c) <= 96 or 123 <= ord(c) <= 126 or (
        unicodedata.category(c).startswith("P"))

def is_chinese(c):
    return any(low <= ord(c) <= high for low, high in CHINESE)

CHINESE = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
           (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))

def words(line):
    text = []
    for c in line:
        if c in " \\t\\n\\r" or unicodedata.category(c) == "Zs":
            text.append(" ")
        elif ord(c) not in (0, 0xFFFD) and not unicodedata.category(c).startswith("C"):
            text.append(f" {c} " if is_chinese(c) else c)
    for word in "".join(text).split():
        word = word.lower() if lower else word
        if strip:
            word = "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")
        part = ""
        for c in word:
            if is_punctuation(c):
                yield from filter(None, (part, c))
                part = ""
            else:
                part += c
        if part:
            yield part

def pieces(word):
    found, start = [], 0
    while start < len(word) <= 200:
        stop = len(word)
        while stop > start and ("##" * (start > 0) + word[start:stop]) not in ids:
            stop -= 1
        if stop == start:
            return ["[UNK]"]
        found.append("##" * (start > 0) + word[start:stop])
        start = stop
    return found or ["[UNK]"]

tokens = 0
with open(sys.argv[1], encoding="utf-8", newline="\\n") as file:
    for line in file:
        tokens += len([ids[piece] for word in words(line) for piece in pieces(word)])
print(tokens)
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


def measure(text: Path, vocab: str, processes: list[int], repeats: int, python_mb: float) -> dict[str, Any]:
    """All sides on one text; stops if they disagree about the number of tokens."""
    sides = {"encode_batch": 0} | {f"electra build, {count} process{'es' * (count > 1)}": count for count in processes}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides} | {"python": []}
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder, "head.txt")
        with open(text, "rb") as file:
            head.write_bytes(file.read(int(python_mb * 1e6)).rpartition(b"\n")[0] + b"\n")
        for _ in range(repeats):
            for name, count in sides.items():
                with tempfile.TemporaryDirectory() as out:
                    extra = [str(count), str(Path(out, "store"))] if count else []
                    runs[name].append(run(OURS if count else PLAIN, [str(text), vocab, *extra]))
            runs["python"].append(run(PYTHON, [str(head), vocab]))
        expected = run(PLAIN, [str(head), vocab])["tokens"]
        sizes = {name: text.stat().st_size / 1e6 for name in sides} | {"python": head.stat().st_size / 1e6}
    # Python lower-cases a sigma at the end of a Greek word to another letter than `tokenizers` does.
    differ = abs(runs["python"][0]["tokens"] - expected) > 1e-5 * expected
    if differ or len({one["tokens"] for name in sides for one in runs[name]}) != 1:
        raise SystemExit("the sides disagree about the number of tokens")
    results = {}
    for name, many in runs.items():
        speeds = sorted(sizes[name] / one["seconds"] for one in many)
        median, cores = statistics.median(speeds), max(1, sides.get(name, 1))
        results[name] = {
            "text_mb": sizes[name],
            "mb_per_second": {"median": median, "least": speeds[0], "most": speeds[-1]},
            "mb_per_second_per_core": median / cores,
            "peak_mb": max(one["peak_mb"] for one in many),
            "runs": many,
        }
        print(
            f"{text.name:28}{name:28}{median:7.2f} MB/s ({speeds[0]:.2f} to {speeds[-1]:.2f}), "
            f"{median / cores:6.2f} a core, peak {results[name]['peak_mb']:.0f} MB",
            flush=True,
        )
    return {"vocabulary": Path(vocab).name, "tokens": runs["encode_batch"][0]["tokens"], "results": results}


def project(speed: float, core_hour: float) -> list[dict[str, float]]:
    """Hours and dollars for larger corpora at `speed` MB/s a core, were more cores as fast as one."""
    table = []
    for gigabytes, cores in itertools.product((30, 1000), (1, 64, 1024)):
        hours = gigabytes * 1e3 / speed / cores / 3600
        table.append({"gigabytes": gigabytes, "cores": cores, "hours": hours, "dollars": hours * cores * core_hour})
        print(f"    {gigabytes:,} GB on {cores:,} cores: {hours:.3g} hours, ${table[-1]['dollars']:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--vocab", required=True, nargs="+")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--python-mb", type=float, default=4.0)
    parser.add_argument("--core-hour", type=float, default=0.04, help="dollars; what clouds ask for a core, roughly")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    texts = {}
    for text, vocab in zip(args.text, args.vocab, strict=True):
        found = measure(text, vocab, args.processes, args.repeats, args.python_mb)
        speed = found["results"][f"electra build, {args.processes[-1]} processes"]["mb_per_second_per_core"]
        texts[text.name] = found | {"projection": project(speed, args.core_hour)}
    report = {
        "repeats": args.repeats,
        "machine": describe(),
        "versions": {name: importlib.metadata.version(name) for name in ("electra-toolkit", "tokenizers", "numpy")},
        "dollars_per_core_hour": args.core_hour,
        "texts": texts,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
