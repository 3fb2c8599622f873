"""What a small discriminator should begin with: the same tokens by three plans, and what each is worth in chunking.

    python benchmarks/beginnings.py --store STORE --chunk conll2000 --out OUT [--results benchmarks/results]

Preset `tiny` with 256 units: replaced-token detection from random weights; a masked language model, which has rows of
32 tokens at first and of 128 then; and half of the one, in rows of 32, followed by half of the other. Each step is of
2,048 tokens. The three are fine-tuned on CoNLL-2000 beside random weights, all at one learning rate and without
layer-wise decay. The first half is trained once for all. Sides can run one by one (`--only`), and what was interrupted
goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Literal

from machine import describe

from electra.config import FinetuneConfig
from electra.finetune import finetune
from electra.log import read_metrics
from electra.presets import tiny
from electra.pretrain import pretrain

Objective = Literal["electra", "masked-lm"]
RANDOM, DETECTION, MASKED, BOTH = SIDES = (
    "random weights",
    "replaced tokens",
    "masked LM",
    "masked LM, then replaced tokens",
)
LOSSES = ("masked_lm_loss", "generator_loss")
STEP_TOKENS = 2048


def learn(store: Path, out: Path, objective: Objective, steps: int, seq_len: int, init: Path | None = None) -> Path:
    """A run of one objective: weights that have learnt before learn on at half the rate."""
    base, rate = tiny(), 5e-4 if init else 1e-3
    config = dataclasses.replace(
        base,
        data=(str(store),),
        out=out,
        init=str(init or ""),
        model=dataclasses.replace(base.model, hidden_size=256, num_heads=4, intermediate_size=1024),
        objective=dataclasses.replace(base.objective, objective=objective),
        rows=dataclasses.replace(base.rows, seq_len=seq_len),
        optimizer=dataclasses.replace(
            base.optimizer, learning_rate=rate, muon_learning_rate=2 * rate, warmup_steps=200
        ),
        loop=dataclasses.replace(
            base.loop,
            steps=steps,
            batch_size=STEP_TOKENS // seq_len,
            eval_every=steps // 4,
            log_every=100,
            save_every=500,
        ),
    )
    if pretrain(config).signal is not None:
        raise SystemExit("stopped; the same command goes on")
    return out


def side(name: str, store: Path, chunk: Path, out: Path, steps: int, seeds: int) -> None:
    folder, half = out / folder_name(name), steps // 2
    if name == DETECTION:
        run = learn(store, folder / "run", "electra", 2 * half, 128)
    else:
        run = first = learn(store, out / "first", "masked-lm", half, 32)  # only a shape for random weights
        if name != RANDOM:
            run = learn(store, folder / "run", "masked-lm" if name == MASKED else "electra", half, 128, first)
    config = FinetuneConfig(
        str(run),
        chunk,
        folder / "chunk",
        task="chunk",
        from_scratch=name == RANDOM,
        learning_rate=1e-3,
        layer_decay=1.0,
        seeds=tuple(range(seeds)),
    )
    if finetune(config)["signal"] is not None:
        raise SystemExit("stopped; the same command goes on")


def folder_name(side: str) -> str:
    return side.replace(", ", "-").replace(" ", "-")


def write(out: Path, results: Path, steps: int) -> None:
    """The table of the sides that are there, as beginnings.json and beginnings.md."""
    rows = {}
    for name in SIDES:
        folder = out / folder_name(name)
        if not (folder / "chunk" / "results.json").is_file():
            continue
        trials = json.loads((folder / "chunk" / "results.json").read_text())["trials"]
        curve = read_metrics(folder / "run", "eval") if name != RANDOM else []
        rows[name] = {
            "chunk_f1": [trial["dev"]["f1"] for trial in trials],
            "held_out": [
                {key: row[key] for key in ("step", *LOSSES, "discriminator_auc") if key in row} for row in curve
            ],
        }
    tokens = steps * STEP_TOKENS
    report = {"machine": describe(), "steps": steps, "tokens": tokens, "sides": rows}
    (results / "beginnings.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = [
        "# What a small discriminator should begin with",
        "",
        f"{tokens / 1e6:.1f} M tokens by each plan; then chunks, at a rate of 1e-3: median, least and most.",
        "",
        "| | held-out loss of masked tokens | discriminator AUC | chunk F1 |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        last = row["held_out"][-1] if row["held_out"] else {}
        loss = next((last[key] for key in LOSSES if key in last), None)
        f1 = row["chunk_f1"]
        cells = [
            f"{loss:.2f}" if loss else "",
            f"{last['discriminator_auc']:.3f}" if "discriminator_auc" in last else "",
            f"{statistics.median(f1):.3f} ({min(f1):.3f} to {max(f1):.3f})",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    (results / "beginnings.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--chunk", type=Path, required=True, help="folder with the train.txt of CoNLL-2000")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=7200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    for name in args.only:
        side(name, args.store, args.chunk, args.out, args.steps, args.seeds)
    write(args.out, args.results or args.out, args.steps)


if __name__ == "__main__":
    main()
