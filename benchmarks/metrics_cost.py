"""What the metrics of the log line cost in a step: accuracies, precision, recall and the histogram of the AUC.

    python benchmarks/metrics_cost.py --out benchmarks/results/metrics-cost.json

Measured twice. Whole steps with and without `rtd.detection_sums`, in alternation on the same model: the median of the
differences of neighbours is the truth, and on most machines noisier than what it measures. And the counting alone, with
the sums into the log's window, on the output of a forward pass, against the median step. The goal is 1 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from loops import Ours, made_up_store, plan_of
from machine import describe

from electra import rtd
from electra.devices import choose_device, choose_precision, synchronize
from electra.pretrain import load_work
from electra.runtime import Runtime
from electra.train import Window


def seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    begin = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begin


def steps(ours: Ours, repeats: int, warmup: int) -> dict[str, list[float]]:
    """Seconds of steps with and without counting, in alternation; which comes first changes, too."""
    times: dict[str, list[float]] = {"with": [], "without": []}
    for number in range(warmup + repeats):
        for side in ("with", "without") if number % 2 else ("without", "with"):
            count = rtd.detection_sums if side == "with" else lambda batch, out: {}
            with mock.patch.object(rtd, "detection_sums", count):
                elapsed = seconds(partial(ours.step, number), ours.runtime.device)
            if number >= warmup:
                times[side].append(elapsed)
    return times


def counting(ours: Ours, repeats: int) -> float:
    """Median seconds of the counting alone, for all micro-batches of a step."""
    runtime = ours.runtime
    work = load_work(ours.phase, ours.rows, ours.store, runtime, ours.split, 0)
    batch = work.micro_batches[0].to(runtime.device)
    with torch.no_grad(), runtime.autocast():
        out = ours.model.run(batch)
    window = Window({})

    def count() -> None:
        for _ in work.micro_batches:
            sums = rtd.detection_sums(batch, out)
        window.add(sums, 0)

    return statistics.median([seconds(count, runtime.device) for _ in range(repeats)][repeats // 5 :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=("small", "base", "large"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = choose_device(args.device)
    runtime = Runtime(device, *choose_precision(args.precision, device))
    with tempfile.TemporaryDirectory() as folder:
        store = made_up_store(Path(folder) / "text")
        ours = Ours(plan_of(args.size, args.seq_len, args.batch), store, runtime)
        times = steps(ours, args.repeats, args.warmup)
        alone = counting(ours, 10 * args.repeats)
    step = statistics.median(times["without"])
    differences = [a - b for a, b in zip(times["with"], times["without"], strict=True)]
    low, _, high = statistics.quantiles(differences, n=4)
    report = {
        "what": f"metrics of the log line in an ELECTRA-{args.size} step, {args.batch} x {args.seq_len}, not compiled",
        "machine": describe()
        | {"threads": torch.get_num_threads(), "device": str(device), "precision": runtime.precision},
        "torch": torch.__version__,
        "step_ms": 1000 * step,
        "difference_percent": 100 * statistics.median(differences) / step,
        "difference_percent_quartiles": [100 * low / step, 100 * high / step],
        "counting_ms": 1000 * alone,
        "counting_percent": 100 * alone / step,
        "repeats": args.repeats,
    }
    print(
        f"step {report['step_ms']:.1f} ms; with metrics {report['difference_percent']:+.2f} % "
        f"(quartiles {100 * low / step:+.2f} to {100 * high / step:+.2f}); "
        f"counting alone {report['counting_ms']:.3f} ms, {report['counting_percent']:.2f} %"
    )
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
