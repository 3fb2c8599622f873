"""Draw the curves of pre-training runs: losses, held-out AUC, generator accuracy. Needs the extra [bench].

python benchmarks/curves.py RUN [RUN ...] --out curves.png [--json curves.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

from electra.log import read_metrics

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = {
    "generator_loss": "generator loss (masked LM)",
    "discriminator_loss": "discriminator loss",
    "discriminator_auc": "held-out discriminator AUC",
    "generator_accuracy": "generator accuracy",
}


def draw(runs: list[Path], out: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for axis, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        for number, run in enumerate(runs):
            colour = f"C{number}"
            label = run.name if len(runs) > 1 else ""
            train, held_out = read_metrics(run, "train"), read_metrics(run, "eval")
            if train and name in train[0]:
                steps, values = [row["step"] for row in train], [row[name] for row in train]
                axis.plot(steps, values, color=colour, alpha=0.35, label=f"{label} training".strip())
            steps, values = [row["step"] for row in held_out], [row[name] for row in held_out]
            axis.plot(steps, values, color=colour, marker=".", label=f"{label} held out".strip())
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[1][0].axhline(0.5, color="grey", linewidth=0.8)
    axes[1][0].annotate("guessing", (0, 0.5), xytext=(3, 3), textcoords="offset points", color="grey")
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="also the held-out metrics as numbers")
    args = parser.parse_args()
    draw(args.runs, args.out)
    if args.json:
        held_out = {run.name: read_metrics(run, "eval") for run in args.runs}
        args.json.write_text(json.dumps(held_out, indent=1) + "\n")


if __name__ == "__main__":
    main()
