"""How long the discriminator stays with the majority answer: preset `tiny` with Muon, AdamW, and a higher temperature.

    python benchmarks/plateau.py --store STORE --steps 600 --out benchmarks/results/plateau.json

Same rows, masks and initial weights; each side runs a full schedule. AdamW is given its peak learning rate from a list.
A side with a temperature is trained and evaluated at it, where fakes are easier to find than at 1; its last
model is asked at temperature 1 as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

from machine import describe

from electra.config import PretrainConfig
from electra.evaluate import evaluate_run
from electra.log import read_metrics
from electra.presets import tiny
from electra.pretrain import pretrain
from electra.toml import read_toml, write_toml


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
        rows = read_metrics(config.out, "eval")
        if temperature != 1:
            rows[-1]["discriminator_auc_at_temperature_1"] = auc_at(config.out, 1.0)
        return rows


def auc_at(run: Path, temperature: float) -> float:
    """The held-out AUC of a run's newest checkpoint with fakes drawn at another temperature."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("checkpoints", "store.json", "metrics.jsonl"):
            (copy / name).symlink_to((run / name).resolve())
        config = read_toml(PretrainConfig, run / "config.toml")
        objective = dataclasses.replace(config.objective, temperature=temperature)
        write_toml(dataclasses.replace(config, objective=objective), copy / "config.toml")
        return evaluate_run(copy, None, 0, "auto")["discriminator_auc"]


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
        if "discriminator_auc_at_temperature_1" in rows[-1]:
            print(f"{name:20} {rows[-1]['discriminator_auc_at_temperature_1']:.3f} at temperature 1 in the end")
    if args.out:
        tokens = args.steps * tiny().loop.batch_size * tiny().rows.seq_len
        args.out.write_text(
            json.dumps({"machine": describe(), "steps": args.steps, "tokens": tokens, "curves": curves}, indent=1)
            + "\n"
        )


if __name__ == "__main__":
    main()
