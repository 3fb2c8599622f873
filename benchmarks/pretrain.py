"""Pre-training steps: ours against a straightforward Hugging Face loop, in alternation, each turn a fresh process.

    python benchmarks/pretrain.py --sizes small --seq-lens 128 --rounds 5 --out benchmarks/results/pretrain-cpu.json
    python benchmarks/pretrain.py --device cuda --sizes small base large --seq-lens 128 512 --out ...

Variants (`--variants`): `ours` at the device's best precision, compiled where that is the default; `ours-fp32`;
`hf` (fp32, transformers' default attention, which is SDPA), `hf-bf16`, both also as `hf-eager...` with its eager
attention; `hf-best` (SDPA without a mask, bf16, torch.compile). A round runs each variant once, and
measures the machine's bf16 matmul rate before, which MFU divides by. Reports tokens/s, MFU, peak memory and seconds
from the start of the process to the end of the first step: medians and ranges over rounds, and ratios within rounds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import describe

from electra.runtime import matmul_flops


@dataclass(frozen=True)
class Variant:
    """One side of the comparison."""

    side: str  # "ours" or "hf"
    precision: str = "auto"
    compile: str = "off"  # "auto" is the default of the device
    cuda_graphs: bool = False
    varlen: bool = True
    attention_dropout: float | None = None  # None: the preset's
    attention: str = "sdpa"  # of transformers


VARIANTS = {
    "ours": Variant("ours", compile="auto"),
    "ours-fp32": Variant("ours", "fp32", compile="auto"),
    "ours-tf32": Variant("ours", "tf32", compile="auto"),
    "ours-eager": Variant("ours"),
    "ours-cuda-graphs": Variant("ours", compile="on", cuda_graphs=True),
    "ours-sdpa": Variant("ours", compile="auto", varlen=False, attention_dropout=0.0),
    "ours-varlen": Variant("ours", compile="auto", attention_dropout=0.0),
    "hf": Variant("hf", "fp32"),
    "hf-bf16": Variant("hf", "bf16"),
    "hf-eager": Variant("hf", "fp32", attention="eager"),
    "hf-eager-bf16": Variant("hf", "bf16", attention="eager"),
    "hf-best": Variant("hf", "bf16", compile="on"),
}


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Train some steps in this process and time them. `task` is a line of JSON from `turn`."""
    from loops import HuggingFace, Ours, plan_of

    from electra.announcement import flops_per_token
    from electra.compiled import choose_compile
    from electra.runtime import Runtime, start
    from electra.store import Store

    variant = VARIANTS[task["variant"]]
    if variant.side == "ours":
        runtime = start(task["device"], variant.precision)
    else:  # without what `start` sets for the process: the allocator of glibc, for one
        runtime = Runtime(torch.device(task["device"]), variant.precision, "")
    store = Store.open(Path(task["store"]))
    config = plan_of(task["size"], task["seq_len"], task["batch"], task["micro_batch"], variant.attention_dropout)
    cuda = runtime.device.type == "cuda"
    side: Ours | HuggingFace
    if variant.side == "ours":
        compiled, _ = choose_compile(variant.compile, variant.cuda_graphs, runtime.device)
        side = Ours(config, store, runtime, compiled=compiled, cuda_graphs=variant.cuda_graphs, varlen=variant.varlen)
    else:
        compiled = variant.compile == "on"
        side = HuggingFace(config, store, runtime, best=compiled, attention=variant.attention)
    times = []
    first = 0.0
    for number in range(task["warmup"] + task["steps"]):
        begin = time.perf_counter()
        loss = float(side.step(number))  # waits for the device
        if number == 0:
            first = time.time() - task["started"]
        if number >= task["warmup"]:
            times.append(time.perf_counter() - begin)
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "precision": runtime.precision,
        "compiled": compiled,
        "tokens_per_second": task["batch"] * task["seq_len"] / statistics.median(times),
        "seconds_to_first_step": first,
        "peak_memory_gib": peak / 2**30,
        "flops_per_token": flops_per_token(config, store.vocab_size),
        "loss": loss,
    }


def turn(task: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
    """`work` in a fresh process; {"error": ...} if that fails or takes longer than so many seconds."""
    command = [sys.executable, __file__, "--worker", json.dumps(task | {"started": time.time()})]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"longer than {seconds:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def compare(
    task: dict[str, Any], variants: list[str], rounds: int, seconds: float | None = None
) -> dict[str, dict[str, Any]]:
    """Alternate variants over rounds and sum up; `seconds` bounds all of it: what does not fit is left out."""
    end = time.monotonic() + seconds if seconds else None
    seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
    errors: dict[str, str] = {}
    for number in range(rounds):
        rate = matmul_flops(torch.device(task["device"]), "bf16")
        for name in variants:
            left = end - time.monotonic() if end else None
            if name in errors or (left is not None and left < 5):
                continue
            result = turn(task | {"variant": name}, left)
            if "error" in result:
                errors[name] = result["error"]
                continue
            result["mfu"] = result["tokens_per_second"] * result["flops_per_token"] / rate
            seen[name].append(result | {"round": number, "matmul_flops": rate})
    return {name: summary(seen[name]) for name in variants if seen[name]} | {
        name: {"error": error} for name, error in errors.items()
    }


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and ranges of a variant's rounds."""
    report: dict[str, Any] = {"precision": results[0]["precision"], "compiled": results[0]["compiled"]}
    for name in ("tokens_per_second", "mfu", "seconds_to_first_step", "peak_memory_gib", "matmul_flops"):
        values = [result[name] for result in results]
        report[name] = statistics.median(values)
        report[f"{name}_range"] = [min(values), max(values)]
    return report | {"rounds": [(result["round"], result["tokens_per_second"]) for result in results]}


def ratios(report: dict[str, dict[str, Any]], ours: str = "ours") -> dict[str, list[float]]:
    """Our speed over each other variant's in the same round: median, lowest, highest."""
    if "rounds" not in report.get(ours, {}):
        return {}
    mine = dict(report[ours]["rounds"])
    found = {}
    for name, row in report.items():
        values = [mine[number] / speed for number, speed in row.get("rounds", []) if number in mine]
        if name != ours and values:
            found[name] = [statistics.median(values), min(values), max(values)]
    return found


def table(title: str, report: dict[str, dict[str, Any]]) -> None:
    print(title)
    faster = ratios(report)
    for name, row in report.items():
        if "error" in row:
            print(f"  {name:17} {row['error']}")
            continue
        low, high = row["tokens_per_second_range"]
        beside = f"; ours {faster[name][0]:.2f} times as fast" if name in faster else ""
        print(
            f"  {name:17} {row['tokens_per_second']:12,.0f} tokens/s ({low:,.0f} to {high:,.0f}), "
            f"MFU {row['mfu']:.1%}, {row['peak_memory_gib']:.2f} GiB, first step after "
            f"{row['seconds_to_first_step']:.1f} s{beside}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small"], choices=["small", "base", "large"])
    parser.add_argument("--seq-lens", nargs="+", type=int, default=[128])
    parser.add_argument(
        "--variants", nargs="+", default=["ours", "ours-fp32", "hf", "hf-bf16", "hf-eager-bf16"], choices=list(VARIANTS)
    )
    parser.add_argument("--batch", type=int, default=16, help="rows of a step")
    parser.add_argument("--micro-batch", type=int, default=0, help="rows of a forward pass; 0: as electra pretrain")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2, help="steps not counted")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vocab-size", type=int, default=30_522)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(json.loads(args.worker))))
        return

    import transformers
    from loops import made_up_store

    report: dict[str, Any] = {
        "machine": describe() | {"threads": torch.get_num_threads(), "device": args.device},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "asked": {key: value for key, value in vars(args).items() if key not in ("out", "worker")},
        "results": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        made_up_store(Path(folder) / "data", args.vocab_size)
        task = {
            "store": f"{folder}/data/store", "batch": args.batch, "micro_batch": args.micro_batch,
            "warmup": args.warmup, "steps": args.steps, "device": args.device,
        }  # fmt: skip
        for size in args.sizes:
            for seq_len in args.seq_lens:
                rows = compare(task | {"size": size, "seq_len": seq_len}, args.variants, args.rounds)
                title = f"electra-{size}, {args.batch} x {seq_len}"
                table(title, rows)
                report["results"][title] = {"variants": rows, "ours_over": ratios(rows)}
                if args.out:
                    args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
