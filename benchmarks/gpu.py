"""One command for a machine with one GPU: is it right, and how fast. Ten minutes, no data, no network.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json
    python benchmarks/gpu.py --parts parity modes --sizes base --out gpu.json
    python benchmarks/gpu.py --device cpu --quick            (every line but CUDA's own, where there is no GPU)

parity   losses and gradients on the device against the CPU in fp32: block mask, full rows, the compiled step; and in
         bf16 the variable-length kernel against the mask. The masked LM and the discriminator each by itself, with
         uniform replacements: a sample moves with the last bit of a sum, and with it all that follows. Ends with an
         error where a difference is too large.
compare  ours against the Hugging Face loops of pretrain.py, in alternation
micro    rows of a forward pass: tokens/s and memory
modes    eager, compiled, CUDA graphs; fp32, TF32, bf16; variable-length attention against SDPA; time to first step

Each part has its own share of `--minutes` and runs in processes of its own; the JSON is written after each part and
within the long ones, so that a run that is cut off keeps what it has.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe
from pretrain import compare, ratios, table, turn

PARTS = {"parity": 0.15, "compare": 0.4, "micro": 0.2, "modes": 0.25}  # shares of the time
ROWS = {"small": 512, "base": 256, "large": 128}  # of 128 tokens in a forward pass; at 512 a quarter
MODES = ["ours-eager", "ours", "ours-cuda-graphs", "ours-sdpa", "ours-varlen", "ours-tf32", "ours-fp32"]
SEQ_LENS = (128, 512)

# --------------------------------------------------------------------------------------------------- parity


def parity(device: torch.device, store_folder: Path) -> dict[str, Any]:
    """How far losses and gradients of a small model on two devices are apart: norm of the difference over the norm."""
    from loops import plan_of

    from electra.batches import Rows
    from electra.compiled import choose_compile, compile_forward
    from electra.config import ObjectiveConfig
    from electra.objectives import make_model
    from electra.phases import plan
    from electra.pretrain import load_work
    from electra.rtd import RTDBatch
    from electra.runtime import Runtime, start
    from electra.store import Store
    from electra.train import Work, forward_backward
    from electra.varlen import varlen_available

    store = Store.open(store_folder)
    base = plan_of("small", 128, 8)
    shape = dataclasses.replace(base.model, num_layers=2, dropout=0.0, attention_dropout=0.0)
    config = dataclasses.replace(base, model=shape)
    cpu = Runtime(torch.device("cpu"), "fp32", "reference")
    [batch] = load_work(plan(config)[0], Rows(store, config.rows, seed=0), store, cpu, 8, 0).micro_batches
    ones, places = torch.ones_like(batch.piece_ids), torch.arange(128).expand(8, 128)
    cases = {"block mask": batch, "full rows": dataclasses.replace(batch, piece_ids=ones, position_ids=places)}

    objectives = {
        "masked LM": ObjectiveConfig(objective="masked-lm"),
        "discriminator": ObjectiveConfig(generator="uniform"),
    }

    def results(runtime: Runtime, micro_batch: RTDBatch, compiled: bool = False) -> dict[str, torch.Tensor]:
        predictions, tokens = float(micro_batch.weights.sum()), float((micro_batch.piece_ids > 0).sum())
        totals = {"predictions": predictions, "tokens": tokens}
        found = {}
        for kind, objective in objectives.items():
            torch.manual_seed(0)
            model = make_model(config.model, objective, store.vocab_size).to(runtime.device)
            if compiled:
                compile_forward(model, runtime.device)
            sums = forward_backward(model, Work([micro_batch], totals, batch.input_ids.numel()), totals, runtime)
            found[f"{kind}: loss"] = sums["loss"].float().cpu()
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    found[f"{kind}: {name}"] = parameter.grad.float().cpu()
        return found

    def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, Any]:
        def relative(name: str) -> float:
            return float((one[name] - other[name]).norm() / other[name].norm().clamp(min=1e-6))

        worst = max(one, key=relative)
        losses = max(relative(f"{kind}: loss") for kind in objectives)
        return {"losses": losses, "largest": relative(worst), "where": worst}

    found: dict[str, Any] = {}
    there = start(str(device), "fp32")  # sets TF32 off as well
    for name, rows in cases.items():
        micro_batch = rows.part(slice(None))
        assert micro_batch.full_rows == (name == "full rows")
        expected = results(cpu, micro_batch)
        found[name] = difference(results(there, micro_batch), expected) | {"bound": 1e-3}
        if name == "block mask" and choose_compile("auto", False, device)[0]:
            found["compiled"] = difference(results(there, micro_batch, compiled=True), expected) | {"bound": 1e-3}
    if varlen_available(device, "bf16", [64], 0.0):
        half = dataclasses.replace(there, precision="bf16")
        masked, bounded = (results(half, batch.part(slice(None), varlen=varlen)) for varlen in (False, True))
        found["varlen, bf16"] = difference(bounded, masked) | {"bound": 0.1}
    else:
        found["varlen, bf16"] = {"left out": f"no variable-length kernel on {device}"}
    for name, row in found.items():
        row["ok"] = "left out" in row or row["largest"] <= row["bound"]
        print(f"  {name:12} {row}", file=sys.stderr, flush=True)
    return found


# ---------------------------------------------------------------------------------------------------- speed


def measure_parity(task: dict[str, Any], args: argparse.Namespace, seconds: float, save: Callable[[Any], None]) -> None:
    command = [sys.executable, __file__, "--device", args.device, "--parity-of", task["store"]]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        save({"error": f"longer than {seconds:.0f} s"})
        return
    save(json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"error": "failed; see above"})


def measure_compare(
    task: dict[str, Any], args: argparse.Namespace, seconds: float, save: Callable[[Any], None]
) -> None:
    variants = ["ours", "hf", "hf-bf16"] + ["hf-best"] * (not args.quick)
    cases = [(size, length) for length in args.seq_lens for size in args.sizes]
    end, found = time.monotonic() + seconds, {}
    for index, (size, seq_len) in enumerate(cases):
        left = (end - time.monotonic()) / (len(cases) - index)
        rows = compare(task | case(size, seq_len, args), variants, args.rounds, left)
        found[title := f"electra-{size} at {seq_len}"] = {"variants": rows, "ours_over": ratios(rows)}
        table(title, rows)
        save(found)


def measure_micro(task: dict[str, Any], args: argparse.Namespace, seconds: float, save: Callable[[Any], None]) -> None:
    end, found = time.monotonic() + seconds, {}
    size, seq_len = args.sizes[0], args.seq_lens[0]
    middle = case(size, seq_len, args)["batch"]
    for rows in (middle, middle // 4, middle // 2, middle * 2, middle * 4)[: 2 if args.quick else 5]:
        if (left := end - time.monotonic()) < 5:
            break
        asked = {"size": size, "seq_len": seq_len, "batch": rows, "micro_batch": rows, "variant": "ours"}
        found[f"electra-{size} at {seq_len}, {rows} rows"] = result = turn(task | asked, left)
        print(f"  {rows} rows: {result}", flush=True)
        save(found)


def measure_modes(task: dict[str, Any], args: argparse.Namespace, seconds: float, save: Callable[[Any], None]) -> None:
    size, seq_len = args.sizes[0], args.seq_lens[0]
    modes = ["ours-eager", "ours", "ours-sdpa", "ours-cuda-graphs"] if args.quick else MODES
    rows = compare(task | case(size, seq_len, args), modes, 1, seconds)
    table(f"electra-{size} at {seq_len}", rows)
    save({f"electra-{size} at {seq_len}": {"variants": rows, "ours_over": ratios(rows)}})


def case(size: str, seq_len: int, args: argparse.Namespace) -> dict[str, Any]:
    """A size and row length with as many rows as go through it at once."""
    rows = 4 if args.quick else max(1, ROWS[size] * 128 // seq_len)
    return {"size": size, "seq_len": seq_len, "batch": rows, "micro_batch": rows}


MEASURES = {"parity": measure_parity, "compare": measure_compare, "micro": measure_micro, "modes": measure_modes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--sizes", nargs="+", default=["small", "base", "large"], choices=list(ROWS))
    parser.add_argument("--seq-lens", nargs="+", type=int, default=list(SEQ_LENS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=9.5, help="for all parts together")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="few rows, one round: to see that it runs")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parity-of", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.parity_of:
        print(json.dumps(parity(torch.device(args.device), args.parity_of)))
        return
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here: --device cpu --quick tries what runs without one")
    if args.quick:
        args.sizes, args.seq_lens, args.rounds, args.steps = ["small"], [128], 1, 1

    from loops import made_up_store

    report: dict[str, Any] = {
        "machine": describe() | {"device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu"},
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda},
        "parts": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        made_up_store(Path(folder) / "data", 3000 if args.quick else 30_522)
        task = {
            "store": f"{folder}/data/store", "device": args.device, "steps": args.steps,
            "warmup": 1 if args.quick else 3,
        }  # fmt: skip
        whole = sum(PARTS[part] for part in args.parts)
        for part in args.parts:
            print(part, flush=True)
            begin = time.monotonic()

            def save(found: Any, part: str = part, begin: float = begin) -> None:
                report["parts"][part] = {"seconds": time.monotonic() - begin, "results": found}
                if args.out:
                    args.out.write_text(json.dumps(report, indent=2) + "\n")

            MEASURES[part](task, args, 60 * args.minutes * PARTS[part] / whole, save)
    wrong = [
        name
        for name, row in report["parts"].get("parity", {}).get("results", {}).items()
        if not (isinstance(row, dict) and row["ok"])
    ]
    if wrong:
        raise SystemExit(f"parity failed: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
