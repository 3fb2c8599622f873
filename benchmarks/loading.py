"""How fast rows and masks come from a token store, in one thread: tokens a second of `Rows.rows` and `mask_rows`.

    python benchmarks/loading.py --out benchmarks/results/loading.json           # a made-up store of 30 M tokens
    python benchmarks/loading.py --store STORE --out benchmarks/results/loading.json

The made-up store has lines of 20 to 130 tokens and documents with a heavy tail (mean about 830 tokens); its contents do
not matter for speed, its structure does; it is measured in one shard, in --shards of them, and both mixed. Files are in
the page cache: each shape is measured after a warm-up, over consecutive batches, in CPU time of the thread, as the
machine may do other work. Needed: 20 M tokens/s a process at length 128.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datetime
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from electra.config import ObjectiveConfig, RowsConfig
from electra.files import write_json
from electra.masking import global_rng, mask_rows
from electra.mixture import PERIOD, MixedRows, Mixture, row_counts
from electra.store import Store, StoreWriter
from electra.tokenizer import load_tokenizer


def make_store(folder: Path, tokens: int, shard_tokens: int) -> Store:
    """A store of about `tokens` random tokens of a vocabulary of 30,522."""
    folder.mkdir()
    vocab = folder / "vocab.txt"
    words = [f"w{number}" for number in range(30522 - 5)]
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n", encoding="utf-8")
    writer = StoreWriter(
        folder / "store",
        load_tokenizer(vocab, lowercase=True),
        held_out=0.005,
        seed=0,
        sources=[],
        options={},
        shard_tokens=shard_tokens,
    )
    rng = np.random.default_rng(0)
    written = 0
    while written < tokens:
        document_lengths = np.maximum(1, rng.lognormal(np.log(7), 1.0, 2000).astype(np.int64))
        line_lengths = rng.integers(20, 130, document_lengths.sum())
        part = rng.integers(5, 30522, line_lengths.sum())
        writer.add(part, line_lengths, document_lengths)
        written += len(part)
    writer.close()
    return Store.open(folder / "store")


def measure(mixture: Mixture, seq_len: int, batch_size: int, with_replacement: bool, batches: int) -> dict[str, Any]:
    """Seconds of `batches` batches of B = batch_size rows of L = seq_len tokens."""
    rows = MixedRows(mixture, RowsConfig(seq_len=seq_len), seed=0)
    slots = ObjectiveConfig().max_predictions(seq_len)
    begin = time.thread_time()
    rows.rows(0, 1)
    plan_seconds = time.thread_time() - begin
    row_seconds, mask_seconds, valid = [], [], 0
    warm_up = 5
    for step in range(warm_up + batches):
        begin = time.thread_time()
        batch = rows.rows(step * batch_size, batch_size)
        middle = time.thread_time()
        mask_rows(
            batch.input_ids,
            batch.valid,
            special=mixture.first.special,
            mask_prob=0.15,
            max_predictions=slots,
            with_replacement=with_replacement,
            rng=global_rng(0, step, 0),
        )
        end = time.thread_time()
        if step >= warm_up:
            row_seconds.append(middle - begin)
            mask_seconds.append(end - middle)
            valid += int(batch.valid.sum())
    size = seq_len * batch_size
    both = [first + second for first, second in zip(row_seconds, mask_seconds, strict=True)]
    deciles = [size / second / 1e6 for second in statistics.quantiles(both, n=10)]
    return {
        "seq_len": seq_len,
        "batch_size": batch_size,
        "with_replacement": with_replacement,
        "batches": batches,
        "epoch_plan_seconds": round(plan_seconds, 4),
        "rows_mtok_s": round(size / statistics.median(row_seconds) / 1e6, 1),
        "masks_mtok_s": round(size / statistics.median(mask_seconds) / 1e6, 1),
        "both_mtok_s": round(size / statistics.median(both) / 1e6, 1),
        "both_mtok_s_p10_p90": [round(deciles[-1], 1), round(deciles[0], 1)],
        "filled": round(valid / (size * batches), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a token store; by default one is made up")
    parser.add_argument("--tokens", type=int, default=30_000_000, help="size of the made-up store")
    parser.add_argument("--shards", type=int, default=400, help="shards of the made-up store that has many")
    parser.add_argument("--batches", type=int, default=100, help="batches measured of each shape")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.store:
            stores = [Store.open(options.store)]
        else:
            sizes = (2**28, options.tokens // options.shards)
            stores = [make_store(Path(folder) / str(size), options.tokens, size) for size in sizes]
        cases = {f"{len(store.shards)} shards": Mixture((store,), (PERIOD,)) for store in stores}
        if len(stores) > 1:
            cases["both, 70 % and 30 %"] = Mixture(tuple(stores), row_counts((0.7, 0.3)))
        results = []
        for name, mixture in cases.items():
            for seq_len in (128, 512):
                for batch_size in (128, 1024):
                    for with_replacement in (False, True):
                        result = measure(mixture, seq_len, batch_size, with_replacement, options.batches)
                        results.append({"store": name} | result)
                        print(json.dumps(results[-1]), flush=True)
        report = {
            "what": "M tokens a CPU second in one thread, medians; p10 and p90 of rows and masks together",
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "load_average": os.getloadavg()[0],
            "numpy": np.__version__,
            "store": {
                "made_up": options.store is None,
                "tokens": stores[0].num_tokens,
                "documents": stores[0].num_documents,
                "lines": stores[0].num_lines,
            },
            "results": results,
        }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, report)


if __name__ == "__main__":
    main()
