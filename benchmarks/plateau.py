"""How soon a small model goes beyond word frequencies: the position table's first values, Muon and AdamW.

    python benchmarks/plateau.py --store STORE --steps 2000 --out benchmarks/results/plateau.json

Preset `tiny` with 256 units instead of 128, as a masked language model of two layers and as ELECTRA; the sides differ
in how the position table begins, or in the optimizer. Same rows, masks and other weights; each side runs a full
schedule. The held-out loss of masked tokens tells whether a network uses the words around them: word frequencies alone
are a plateau, and only context leads below it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import torch
from machine import describe

from electra import encoder
from electra.log import read_metrics
from electra.presets import tiny
from electra.pretrain import pretrain

GOOGLE = encoder.INITIALIZER_RANGE


def normal(positions: int, size: int) -> torch.Tensor:
    """A draw as long as the sines and cosines are."""
    return torch.randn(positions, size) * encoder.POSITION_RANGE


def short(positions: int, size: int) -> torch.Tensor:
    """Sines and cosines as long as Google's draw is."""
    return sinusoids(positions, size) * (GOOGLE / encoder.POSITION_RANGE)


sinusoids = encoder.sinusoids
TABLES = {"normal .02": None, "normal .06": normal, "sinusoidal .02": short, "sinusoidal .06": sinusoids}
SIDES = {
    **{f"masked-lm, {name}": ("masked-lm", name, "muon") for name in TABLES},
    **{f"electra, {name}": ("electra", name, "muon") for name in ("normal .02", "sinusoidal .06")},
    **{f"electra, {name}, AdamW": ("electra", name, "adamw") for name in ("normal .02", "sinusoidal .06")},
}


def curve(store: Path, steps: int, objective: str, table: str, optimizer: str) -> list[dict]:
    """The held-out metrics of one side, eight times over its steps."""
    make, base = TABLES[table], tiny()
    encoder.sinusoids = make or sinusoids  # what position_init sinusoidal calls
    shape = {"num_layers": 2} if objective == "masked-lm" else {"generator_width": 0.5}
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(
            base,
            data=(str(store),),
            out=Path(folder) / "run",
            model=dataclasses.replace(
                base.model,
                hidden_size=256,
                num_heads=4,
                intermediate_size=1024,
                position_init="sinusoidal" if make else "normal",
                **shape,
            ),
            objective=dataclasses.replace(base.objective, objective=objective),
            optimizer=dataclasses.replace(
                base.optimizer, optimizer=optimizer, learning_rate=1e-3, muon_learning_rate=2e-3, warmup_steps=200
            ),
            loop=dataclasses.replace(base.loop, steps=steps, eval_every=steps // 8, log_every=steps, save_every=steps),
        )
        pretrain(config)
        return read_metrics(config.out, "eval")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--only", nargs="*", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--out", type=Path, help="sides that stand in this file are kept")
    args = parser.parse_args()
    curves = json.loads(args.out.read_text())["curves"] if args.out and args.out.is_file() else {}
    for name in args.only:
        curves[name] = curve(args.store, args.steps, *SIDES[name])
        if args.out:
            tokens = args.steps * tiny().loop.batch_size * tiny().rows.seq_len
            report = {"machine": describe(), "steps": args.steps, "tokens": tokens, "curves": curves}
            args.out.write_text(json.dumps(report, indent=1) + "\n")
    for name, rows in curves.items():
        for metric in ("masked_lm_loss", "generator_loss", "discriminator_auc"):
            if metric in rows[0]:
                print(f"{name:32}" + "".join(f"{row[metric]:8.3f}" for row in rows) + f"   {metric}")


if __name__ == "__main__":
    main()
