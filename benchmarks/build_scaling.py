"""`electra build` on more text, more files and more processes: does its speed keep up, and its memory stay?

    python benchmarks/build_scaling.py enwiki.txt --vocab vocab [--mb 60 120 240] [--files 1 16] [--processes 1 2] \
        --out benchmarks/results/build-scaling.json

The first megabytes of TEXT (again from its beginning where it is shorter) are given once as one file and once cut into
several between two documents. As in build.py, every measurement is a fresh process, imports and start of the workers
included, and the peak is that of the whole process tree; the measurements take turns --repeats times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from pathlib import Path

from build import OURS, run
from machine import describe


def write_corpus(text: Path, megabytes: int, files: int, folder: Path) -> None:
    """Write the beginning of `text` as so many files; each but the last ends with a document."""
    whole = text.read_bytes()
    wanted = megabytes * 1_000_000
    whole = (whole * (wanted // len(whole) + 1))[:wanted]
    borders = [0]
    for number in range(1, files):
        borders.append(whole.index(b"\n\n", wanted * number // files) + 2)
    for number, (start, stop) in enumerate(itertools.pairwise([*borders, whole.rindex(b"\n") + 1])):
        (folder / f"{number:05}.txt").write_bytes(whole[start:stop])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--mb", type=int, nargs="+", default=[60, 120, 240])
    parser.add_argument("--files", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cases = list(itertools.product(args.mb, args.files, args.processes))
    runs: dict[tuple[int, int, int], list[dict[str, float]]] = {case: [] for case in cases}
    for _, case in itertools.product(range(args.repeats), cases):
        megabytes, files, processes = case
        with tempfile.TemporaryDirectory() as corpus, tempfile.TemporaryDirectory() as out:
            write_corpus(args.text, megabytes, files, Path(corpus))
            runs[case].append(run(OURS, [corpus, args.vocab, str(processes), str(Path(out, "store"))]))
    rows = []
    for (megabytes, files, processes), many in runs.items():
        if len({one["tokens"] for case in cases if case[0] == megabytes for one in runs[case]}) != 1:
            raise SystemExit(f"the number of files or processes changes the tokens of {megabytes} MB")
        speed = statistics.median(megabytes / one["seconds"] for one in many)
        peak = max(one["peak_mb"] for one in many)
        row = {"mb": megabytes, "files": files, "processes": processes, "mb_per_second": speed, "peak_mb": peak}
        rows.append(row | {"runs": many})
        print(
            f"{megabytes:5} MB in {files:3} file{'s' * (files > 1):1}, {processes} process{'es' * (processes > 1):2}"
            f"{speed:8.2f} MB/s, {speed / processes:6.2f} a process, peak {peak:.0f} MB",
            flush=True,
        )
    if args.out:
        args.out.write_text(json.dumps({"machine": describe(), "text": args.text.name, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
