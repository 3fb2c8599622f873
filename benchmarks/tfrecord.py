"""TFRecords of pre-training rows: MB/s out of a store by Google's rule, checksums, rows, and into a store again.

    python benchmarks/tfrecord.py --store STORE [--seq-len 128] [--repeats 3] [--out benchmarks/results/tfrecord.json]

One process, files in the page cache; medians of the repeats, the steps in alternation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import describe

from electra.build import build
from electra.config import BuildConfig
from electra.interop.record_store import export_records
from electra.interop.tfrecord import find_records, read_records, read_rows
from electra.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    store = Store.open(args.store)
    with tempfile.TemporaryDirectory() as name:
        records, imported = Path(name) / "records", Path(name) / "store"
        config = BuildConfig((str(records),), store.folder / "tokenizer", imported, overwrite=True)
        steps: dict[str, Callable[[], object]] = {
            "export": lambda: export_records(store, records, args.seq_len, overwrite=True),
            "checksums": lambda: sum(
                len(part) for file in find_records([str(records)]) for part, _ in read_records(file)
            ),
            "rows": lambda: sum(
                len(part.input_ids) for file in find_records([str(records)]) for part in read_rows(file)
            ),
            "import": lambda: build(config),
        }
        seconds: dict[str, list[float]] = {step: [] for step in steps}
        for _ in range(args.repeats):
            for step, run in steps.items():
                start = time.perf_counter()
                run()
                seconds[step].append(time.perf_counter() - start)
        megabytes = sum(file.stat().st_size for file in find_records([str(records)])) / 1e6
    report = {
        "machine": describe(),
        "megabytes": round(megabytes, 1),
        "seconds": {step: [round(value, 3) for value in values] for step, values in seconds.items()},
        "mb_per_s": {step: round(megabytes / statistics.median(values), 1) for step, values in seconds.items()},
    }
    print(json.dumps(report, indent=2))
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
