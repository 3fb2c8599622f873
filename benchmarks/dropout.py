"""Dropout on this CPU: electra's against torch's, forward and backward, in alternation.

    python benchmarks/dropout.py [--repeats 30] [--out benchmarks/results/dropout-cpu.json]

The shapes are those of an ELECTRA-Small step of 16 x 128: attention weights, layer outputs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import describe
from torch import Tensor

from electra.dropout import dropout

SHAPES = {"attention weights": (16, 4, 128, 128), "layer output": (16, 128, 256)}


def milliseconds(function: Callable[[Tensor, float], Tensor], x: Tensor, gradient: Tensor) -> float:
    begin = time.perf_counter()
    function(x, 0.1).backward(gradient)
    return 1000 * (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for what, shape in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            x, gradient = (torch.randn(shape).to(dtype).requires_grad_(grad) for grad in (True, False))
            times: dict[str, list[float]] = {"torch": [], "ours": []}
            for _ in range(options.repeats):
                times["torch"].append(milliseconds(F.dropout, x, gradient))
                times["ours"].append(milliseconds(dropout, x, gradient))
            medians = {side: statistics.median(values) for side, values in times.items()}
            row = {f"{side}_ms": round(value, 2) for side, value in medians.items()}
            ratio = round(medians["torch"] / medians["ours"], 2)
            results.append({"what": what, "dtype": str(dtype).removeprefix("torch.")} | row | {"ratio": ratio})
    report = {"machine": describe(), "threads": torch.get_num_threads(), "results": results}
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
