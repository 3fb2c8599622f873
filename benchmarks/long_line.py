"""`electra build` on one file that is a single line of any length: does its memory stay?

    python benchmarks/long_line.py enwiki.txt --vocab vocab [--gb 5] [--processes 2] \
        [--out benchmarks/results/long-line.json]

The text is repeated until the line is long enough, its newlines made spaces. The peak is that of the process tree.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from build import OURS, run
from machine import describe


def write_line(text: Path, size: int, out: Path) -> None:
    words = text.read_bytes().replace(b"\n", b" ")
    with open(out, "wb") as file:
        while file.tell() < size:
            file.write(words[: size - file.tell()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--gb", type=float, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        line, size = Path(folder, "line.txt"), int(args.gb * 1e9)
        write_line(args.text, size, line)
        found = run(OURS, [str(line), args.vocab, str(args.processes), str(Path(folder, "store"))])
    row = {"gb": args.gb, "processes": args.processes, "mb_per_second": size / 1e6 / found["seconds"], **found}
    print(json.dumps(row))
    if args.out:
        args.out.write_text(json.dumps({"machine": describe(), "text": args.text.name, **row}, indent=1) + "\n")


if __name__ == "__main__":
    main()
