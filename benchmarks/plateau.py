"""How long the discriminator stays with the majority answer: preset `tiny` with Muon, AdamW, and a higher temperature.

    python benchmarks/plateau.py --store STORE --steps 600 --out benchmarks/results/plateau.json

Same rows, masks and initial weights; each side runs a full schedule. AdamW is given its peak learning rate from a list.
A side with a temperature samples and is evaluated at that temperature, where fakes are easier to find than at 1: its
AUC says that the discriminator has a signal, not that it knows more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

from machine import describe

from electra.log import read_metrics
from electra.presets import tiny
from electra.pretrain import pretrain


def curve(store: Path, steps: int, optimizer: str, learning_rate: float, temperature: float = 1.0) -> list[dict]:
    base = tiny()
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(
            base,
            data=store,
            out=Path(folder) / "run",
            objective=dataclasses.replace(base.objective, temperature=temperature),
            optimizer=dataclasses.replace(base.optimizer, optimizer=optimizer, learning_rate=learning_rate),
            loop=dataclasses.replace(base.loop, steps=steps, eval_every=steps // 8, log_every=steps, save_every=steps),
        )
        pretrain(config)
        return read_metrics(config.out, "eval")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--adamw", type=float, nargs="+", default=[1e-3, 3e-3])
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="of AdamW beside Muon")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[2.0])
    args = parser.parse_args()
    rate = args.learning_rate
    sides: dict[str, tuple] = {"muon": ("muon", rate)}
    sides |= {f"muon, temperature {value:g}": ("muon", rate, value) for value in args.temperatures}
    sides |= {f"adamw {rate:g}": ("adamw", rate) for rate in args.adamw}
    curves = {name: curve(args.store, args.steps, *side) for name, side in sides.items()}
    print(f"\n{'held-out':20} " + "".join(f"{row['step']:>8}" for row in curves["muon"]))
    for name, rows in curves.items():
        for metric in ("discriminator_auc", "discriminator_f1", "generator_loss"):
            print(f"{name:20} " + "".join(f"{row[metric]:8.3f}" for row in rows) + f"   {metric}")
    if args.out:
        tokens = args.steps * tiny().loop.batch_size * tiny().rows.seq_len
        args.out.write_text(
            json.dumps({"machine": describe(), "steps": args.steps, "tokens": tokens, "curves": curves}, indent=1)
            + "\n"
        )


if __name__ == "__main__":
    main()
