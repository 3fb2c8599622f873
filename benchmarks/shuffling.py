"""How well rows are shuffled over the shards of a store, and what the order costs at 10^11 tokens.

    python benchmarks/shuffling.py --out benchmarks/results/shuffling.json

`statistics` reads one epoch, and the next, of a store of --tokens tokens in --shards shards, in which each token is
its place in the corpus, and compares the rows with the same rows in a perfect permutation (numpy's). The store is also
read in 8 groups of documents, as one of more than 2^30 tokens is; but such a group has some 1.3 M documents, and
what the numbers show of a group falls with that.

    shards      shards of the rows of a batch (by a row's first token): chi-square against those of the whole epoch
    position    rank correlation of a row's place in the epoch and the place of its text in the corpus
    neighbours  share of adjacent rows with text of one document in both
    epochs      rank correlation of the places of a document's text in one epoch and in the next; share of the rows
                that occur again

`scale` makes the order for 10^11 tokens in 1.2e8 documents without the data: 373 shards that are one array of offsets,
so what is measured is memory and CPU time of the program and not the reading of the offsets from disk.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datetime
import itertools
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from electra import batches
from electra.batches import Rows
from electra.config import RowsConfig
from electra.files import read_json, write_json
from electra.packing import RowBatch
from electra.store import EMPTY, Shard, Store
from electra.tokenizer import SpecialIds

SPECIAL = SpecialIds(0, 1, 2, 3, 4)
MEAN_TOKENS, MEAN_LINE = 830, 75


def store_of(shards: list[Shard]) -> Store:
    """A store that is nowhere on a disk."""
    documents = sum(len(shard.documents) - 1 for shard in shards)
    lines = sum(len(shard.lines) - 1 for shard in shards)
    tokens = sum(int(shard.lines[-1]) for shard in shards)
    return Store(Path("made-up"), 2**31, "", SPECIAL, documents, lines, tokens, EMPTY, EMPTY, tuple(shards), {})


def structure(tokens: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the lines and documents of about `tokens` tokens: English articles with a heavy tail."""
    count = tokens // MEAN_TOKENS
    document_lines = np.maximum(1, rng.lognormal(np.log(MEAN_TOKENS / MEAN_LINE) - 0.5, 1.0, count)).astype(np.int64)
    documents = np.concatenate([[0], np.cumsum(document_lines)])
    lines = np.concatenate([[0], np.cumsum(rng.integers(20, 2 * MEAN_LINE - 20, documents[-1]))])
    return lines, documents


# -------------------------------------------------------------------------------------------- statistics


def numbered_store(tokens: int, num_shards: int) -> Store:
    """Every token is its place in the corpus, counted from 5."""
    rng, shards, first = np.random.default_rng(0), [], 5
    for _ in range(num_shards):
        lines, documents = structure(tokens // num_shards, rng)
        shards.append(Shard(np.arange(first, first + lines[-1], dtype=np.uint32), lines, documents))
        first += int(lines[-1])
    return store_of(shards)


def pieces(batch: RowBatch, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row and the document of each piece; `ends` are those of the documents in the corpus."""
    rows, columns = np.nonzero((batch.position_ids == 0) & (batch.piece_ids > 0))
    return rows, np.searchsorted(ends, batch.input_ids[rows, columns + 1] - 5, side="right")


def measure(rows: RowBatch, again: RowBatch, store: Store, batch_size: int) -> dict[str, Any]:
    """The statistics of one epoch, and of it against the next."""
    total = store.num_documents
    ends = np.cumsum(store.document_lengths())
    (row, document), (later_row, later) = pieces(rows, ends), pieces(again, ends)
    counts = [len(shard.documents) - 1 for shard in store.shards]
    firsts = np.repeat(np.arange(len(counts)), counts)[document[np.unique(row, return_index=True)[1]]]
    num_batches = len(firsts) // batch_size
    table = np.zeros((num_batches, len(counts)))
    np.add.at(table, (np.arange(num_batches * batch_size) // batch_size, firsts[: num_batches * batch_size]), 1)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    chi_square = float(((table - expected) ** 2 / expected).sum())
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    per_row = np.split(document, np.cumsum(np.bincount(row, minlength=len(rows.input_ids)))[:-1])
    neighbours = np.mean([bool(set(one) & set(two)) for one, two in itertools.pairwise(per_row)])
    first, second = (
        np.bincount(numbers, places, total) / np.bincount(numbers, minlength=total)
        for places, numbers in ((row, document), (later_row, later))
    )
    hashes = [set(map(hash, map(bytes, batch.input_ids))) for batch in (rows, again)]
    return {
        "rows": len(rows.input_ids),
        "chi_square_over_degrees_of_freedom": round(chi_square / freedom, 4),
        "chi_square_p": round(float(stats.chi2.sf(chi_square, freedom)), 4),
        "position_rank_correlation": round(float(stats.spearmanr(row, document).statistic), 5),
        "neighbours_with_one_document": round(float(neighbours), 5),
        "epochs_rank_correlation": round(float(stats.spearmanr(first, second).statistic), 5),
        "rows_that_occur_again": round(len(hashes[0] & hashes[1]) / len(hashes[0]), 5),
    }


def statistics(tokens: int, num_shards: int, batch_size: int) -> list[dict[str, Any]]:
    store = numbered_store(tokens, num_shards)
    found = []
    for groups in (1, 8):
        batches.GROUP_TOKENS = tokens // groups + 1
        for seq_len in (128, 512):
            source = Rows(store, RowsConfig(seq_len=seq_len), seed=0)
            epochs = [source.rows(epoch * source.rows_per_epoch, source.rows_per_epoch) for epoch in (0, 1)]
            rng = np.random.default_rng(1)
            perfect = [shuffled_rows(batch, rng) for batch in epochs]
            for name, (first, second) in (("ours", epochs), ("perfect permutation", perfect)):
                case = {"order": name, "seq_len": seq_len, "documents_a_group": store.num_documents // groups}
                found.append(case | measure(first, second, store, batch_size))
                print(found[-1], flush=True)
    return found


def shuffled_rows(batch: RowBatch, rng: np.random.Generator) -> RowBatch:
    order = rng.permutation(len(batch.input_ids))
    return RowBatch(
        *(getattr(batch, name)[order] for name in ("input_ids", "segment_ids", "piece_ids", "position_ids"))
    )


# -------------------------------------------------------------------------------------------------- scale


def memory(kind: str) -> float:
    """Megabytes of this process as Linux says: VmRSS, RssAnon now, VmHWM at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def scale(tokens: int) -> dict[str, Any]:
    """Memory and seconds of the order of `tokens` tokens; run in a process of its own."""
    lines, documents = structure(2**28, np.random.default_rng(0))
    shard = Shard(np.zeros(lines[-1], np.uint16), lines, documents)
    store = store_of([shard] * round(tokens / lines[-1]))
    rows_before = memory("VmRSS")
    begin = time.process_time()
    source = Rows(store, RowsConfig(seq_len=128), seed=0)
    made = time.process_time()
    peak, kept = memory("VmHWM"), memory("VmRSS")
    source.rows(0, 128)
    first = time.process_time()
    source.rows(source.rows_per_epoch // 2, 128)
    other = time.process_time()
    steps = 200
    for step in range(steps):
        source.rows(source.rows_per_epoch // 2 + 128 * step, 128)
    end = time.process_time()
    return {
        "tokens": store.num_tokens,
        "documents": store.num_documents,
        "shards": len(store.shards),
        "rows_an_epoch": source.rows_per_epoch,
        "cpu_seconds_to_make_the_order": round(made - begin, 1),
        "peak_mb_while_making_it": round(peak - rows_before),
        "mb_kept": round(kept - rows_before),
        "bytes_a_document_kept": round((kept - rows_before) * 2**20 / store.num_documents, 1),
        "cpu_seconds_to_the_first_rows": round(first - made, 1),
        "cpu_seconds_at_another_group": round(other - first, 1),
        "rows_mtok_per_cpu_second": round(steps * 128 * 128 / (end - other) / 1e6, 1),
        "peak_mb_in_all": round(memory("VmHWM") - rows_before),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=24_000_000, help="of the store of the statistics")
    parser.add_argument("--shards", type=int, default=64, help="its shards")
    parser.add_argument("--batch-size", type=int, default=128, help="rows in a batch")
    parser.add_argument("--scale", type=float, default=1e11, help="tokens of the simulated store")
    parser.add_argument("--only-scale", type=Path, help="write the numbers of the simulated store there and stop")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    options = parser.parse_args()
    if options.only_scale:
        write_json(options.only_scale, scale(int(options.scale)))
        return
    report: dict[str, Any] = {
        "what": "one epoch of rows against a perfect permutation of the same rows; then the order of 10^11 tokens",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "numpy": np.__version__,
        "store": {"tokens": options.tokens, "shards": options.shards, "batch_size": options.batch_size},
        "statistics": statistics(options.tokens, options.shards, options.batch_size),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.json"
        subprocess.run([sys.executable, __file__, "--scale", str(options.scale), "--only-scale", str(path)], check=True)
        report["scale"] = read_json(path)
    print(report["scale"])
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()
