"""Attention on a CPU, forward and backward: the formula written out against torch's fused kernel, in alternation.

    python benchmarks/attention.py --out benchmarks/results/attention-cpu.json

ELECTRA-Small's shape (4 heads of 64), rows of 128, block-diagonal mask; `encoder.attention` takes the first on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import describe

from electra.encoder import additive, attention, block_mask


def measure(dtype: torch.dtype, dropout: float, rows: int, repeats: int) -> dict[str, object]:
    fused_qkv = torch.randn(rows, 128, 3, 4, 64, dtype=dtype, requires_grad=True)
    pieces = torch.cat([torch.ones(rows, 64), torch.full((rows, 64), 2)], 1).long()
    bias = additive(block_mask(pieces), fused_qkv)

    def written_out() -> torch.Tensor:
        return attention(*fused_qkv.permute(2, 0, 3, 1, 4).unbind(0), bias, dropout)

    def fused() -> torch.Tensor:
        return F.scaled_dot_product_attention(
            *fused_qkv.permute(2, 0, 3, 1, 4).unbind(0), attn_mask=bias, dropout_p=dropout
        )

    times: dict[str, list[float]] = {"written_out": [], "fused": []}
    for number in range(repeats + 3):
        for name, side in (("written_out", written_out), ("fused", fused)):
            begin = time.perf_counter()
            side().sum().backward()
            if number >= 3:
                times[name].append(1000 * (time.perf_counter() - begin))
    medians = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    ratios = [b / a for a, b in zip(times["written_out"], times["fused"], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "dropout": dropout,
        **medians,
        "ratio": medians["fused_ms"] / medians["written_out_ms"],
        "ratio_quartiles": [low, high],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = [
        measure(dtype, dropout, args.rows, args.repeats)
        for dtype in (torch.float32, torch.bfloat16)
        for dropout in (0.0, 0.1)
    ]
    for row in results:
        low, high = row["ratio_quartiles"]  # type: ignore[misc]
        print(
            f"{row['dtype']} dropout {row['dropout']}: written out {row['written_out_ms']:.1f} ms, "
            f"fused {row['fused_ms']:.1f} ms, ratio {row['ratio']:.2f} (quartiles {low:.2f} to {high:.2f})"
        )
    report = {"machine": describe(), "torch": torch.__version__, "rows": args.rows, "results": results}
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
