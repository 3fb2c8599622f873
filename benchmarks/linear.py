"""A dense layer in fp32 on this CPU: electra's, which multiplies through oneDNN, against torch's, in alternation.

    python benchmarks/linear.py [--repeats 30] [--out benchmarks/results/linear-cpu.json]

Forward and backward for layers of ELECTRA-Small and -Base on 512 and 4,096 tokens. GFLOP/s count the three products.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from machine import describe
from torch import Tensor, nn

from electra.linear import Linear, onednn_available

SHAPES = {"small qkv": (256, 768), "small up": (256, 1024), "small down": (1024, 256), "base up": (768, 3072)}
TOKENS = (512, 4096)


def seconds(layer: nn.Linear, x: Tensor, gradient: Tensor) -> float:
    layer.zero_grad()
    x.grad = None
    begin = time.perf_counter()
    layer(x).backward(gradient)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for what, (inputs, outputs) in SHAPES.items():
        for tokens in TOKENS:
            x = torch.randn(tokens, inputs, requires_grad=True)
            gradient = torch.randn(tokens, outputs)
            sides: dict[str, nn.Linear] = {"torch": nn.Linear(inputs, outputs), "ours": Linear(inputs, outputs)}
            times: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(options.repeats + 1):
                for name, layer in sides.items():
                    times[name].append(seconds(layer, x, gradient))
            medians = {name: statistics.median(values[1:]) for name, values in times.items()}
            work = 6 * tokens * inputs * outputs / 1e9
            row = {f"{name}_gflops": round(work / value, 1) for name, value in medians.items()}
            ratio = round(medians["torch"] / medians["ours"], 2)
            results.append({"what": what, "tokens": tokens} | row | {"ratio": ratio})
    report = {
        "machine": describe(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "onednn": onednn_available(),
        "results": results,
    }
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
