"""Gather what recipes/wikipedia-small.sh left in its folder into one JSON and one Markdown file.

python benchmarks/summarise_wikipedia.py OUT --results benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path

from curves import draw
from machine import describe
from plateau import auc_at

from electra.log import read_metrics

COLUMNS = {
    "step": "step",
    "generator_loss": "generator loss",
    "generator_accuracy": "generator accuracy",
    "discriminator_loss": "discriminator loss",
    "discriminator_auc": "discriminator AUC",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    run = args.folder / "run"
    held_out = read_metrics(run, "eval")
    config = tomllib.loads((run / "config.toml").read_text())
    store = json.loads((run / "store.json").read_text())
    tables: dict[str, dict[str, object]] = {}
    for task in ("sst2", "mrpc"):
        for start in ("pretrained", "random"):
            path = args.folder / f"{task}-{start}" / "results.json"
            if path.exists():
                found = json.loads(path.read_text())
                metric = found["metric"]
                tables[f"{task} {start}"] = {
                    "metric": metric,
                    "train_examples": found["examples"]["train"],
                    "steps": found["steps"],
                    "seeds": [seed["dev"][metric] for seed in found["trials"]],
                    **found["summary"]["dev"][metric],
                }
    report = {
        "machine": describe(),
        "store": {name: store[name] for name in ("tokens", "documents", "held_out")},
        "config": {name: table for name, table in config.items() if isinstance(table, dict)},
        "held_out": held_out,
        "auc_at_temperature_1": auc_at(run, 1.0),
        "finetuning": tables,
    }
    (args.results / "wikipedia-small.json").write_text(json.dumps(report, indent=1) + "\n")
    draw([run], args.results / "wikipedia-small.png")
    (args.results / "wikipedia-small.md").write_text(markdown(report))


def markdown(report: dict) -> str:
    machine, config = report["machine"], report["config"]
    loop, rows, temperature = config["loop"], config["rows"], config["objective"]["temperature"]
    tokens = loop["steps"] * loop["batch_size"] * rows["seq_len"]
    lines = [
        "# ELECTRA-Small on English Wikipedia, an hour of CPU time on two cores",
        "",
        f"`recipes/wikipedia-small.sh`, {machine['date']}, {machine['cpu']}, {machine['cores']} cores.",
        f"{report['store']['tokens']:,} tokens in {report['store']['documents']:,} articles.",
        f"{loop['steps']:,} steps of {loop['batch_size']} x {rows['seq_len']} = {tokens / 1e6:.1f} M tokens, "
        f"temperature {temperature:g}.",
        "",
        "## Held-out text while training",
        "",
        "| " + " | ".join(COLUMNS.values()) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    for row in report["held_out"]:
        cells = [f"{row[name]:,}" if name == "step" else f"{row[name]:.3f}" for name in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    if temperature != 1:
        auc = report["auc_at_temperature_1"]
        lines += ["", f"At temperature 1 the discriminator of the last step has an AUC of {auc:.3f}."]
    lines += [
        "",
        "![curves](wikipedia-small.png)",
        "",
        "## Fine-tuning on the same budget, dev set",
        "",
        "| task and start | examples | steps | metric | seeds | median | mean | sd |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in report["finetuning"].items():
        seeds = ", ".join(f"{value:.3f}" for value in row["seeds"])
        lines.append(
            f"| {name} | {row['train_examples']:,} | {row['steps']:,} | {row['metric']} | {seeds} "
            f"| {row['median']:.3f} | {row['mean']:.3f} | {row['std']:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
