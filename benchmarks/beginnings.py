"""What a small discriminator should begin with: the same tokens by three plans, and what each is worth in chunking.

    python benchmarks/beginnings.py --store STORE --chunk conll2000 --out OUT [--results benchmarks/results]

Preset `tiny` with 256 units, rows of 32 tokens: replaced-token detection from random weights, a masked language model,
and first the one and then the other, each half of the steps. The three are fine-tuned on CoNLL-2000 beside random
weights, all at one learning rate and without layer-wise decay. Sides can run in processes of their own (`--only`), and
what was interrupted goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

from machine import describe

from electra.config import FinetuneConfig
from electra.finetune import finetune
from electra.log import read_metrics
from electra.presets import tiny
from electra.pretrain import pretrain

FIRST = "masked LM"
SIDES = ("random weights", "replaced tokens", FIRST, f"{FIRST}, then replaced tokens")
METRICS = ("masked_lm_loss", "generator_loss", "discriminator_auc")


def learn(store: Path, out: Path, objective: str, steps: int, init: str = "") -> Path:
    base = tiny()
    config = dataclasses.replace(
        base,
        data=(str(store),),
        out=out,
        init=init,
        model=dataclasses.replace(base.model, hidden_size=256, num_heads=4, intermediate_size=1024),
        objective=dataclasses.replace(base.objective, objective=objective),
        rows=dataclasses.replace(base.rows, seq_len=32),
        optimizer=dataclasses.replace(
            base.optimizer, learning_rate=1e-3, muon_learning_rate=2e-3, warmup_steps=steps // 20
        ),
        loop=dataclasses.replace(
            base.loop, steps=steps, batch_size=64, eval_every=steps // 4, log_every=100, save_every=500
        ),
    )
    if pretrain(config).signal is not None:
        raise SystemExit("stopped; the same command goes on")
    return out


def side(name: str, store: Path, chunk: Path, out: Path, steps: int, seeds: int) -> None:
    folder = out / name.replace(", ", "-").replace(" ", "-")
    run = folder / "run"
    if name == "replaced tokens":
        learn(store, run, "electra", steps)
    elif name == FIRST:
        learn(store, run, "masked-lm", steps)
    elif name != "random weights":
        first = learn(store, folder / "first", "masked-lm", steps // 2)
        learn(store, run, "electra", steps - steps // 2, str(first))
    else:  # the shape of any
        run = learn(store, folder / "shape", "electra", 1)
    config = FinetuneConfig(
        str(run),
        chunk,
        folder / "chunk",
        task="chunk",
        from_scratch=name == "random weights",
        learning_rate=1e-3,
        layer_decay=1.0,
        seeds=tuple(range(seeds)),
    )
    if finetune(config)["signal"] is not None:
        raise SystemExit("stopped; the same command goes on")


def write(out: Path, results: Path, steps: int) -> None:
    """The table of the sides that are there, as beginnings.json and beginnings.md."""
    rows = {}
    for name in SIDES:
        folder = out / name.replace(", ", "-").replace(" ", "-")
        if not (folder / "chunk" / "results.json").is_file():
            continue
        trials = json.loads((folder / "chunk" / "results.json").read_text())["trials"]
        curve = read_metrics(folder / "run", "eval") if (folder / "run").is_dir() else []
        rows[name] = {
            "chunk_f1": [trial["dev"]["f1"] for trial in trials],
            "held_out": [{key: row[key] for key in ("step", *METRICS) if key in row} for row in curve],
        }
    tokens = steps * 64 * 32
    report = {"machine": describe(), "steps": steps, "tokens": tokens, "sides": rows}
    (results / "beginnings.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = [
        "# What a small discriminator should begin with",
        "",
        f"{tokens / 1e6:.1f} M tokens in rows of 32, by each plan; chunks at a rate of 1e-3: median, least and most.",
        "",
        "| | held-out loss of masked tokens | discriminator AUC | chunk F1 |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        last = row["held_out"][-1] if row["held_out"] else {}
        loss = last.get("masked_lm_loss", last.get("generator_loss"))
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
    parser.add_argument("--steps", type=int, default=4800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    for name in args.only:
        side(name, args.store, args.chunk, args.out, args.steps, args.seeds)
    write(args.out, args.results or args.out, args.steps)


if __name__ == "__main__":
    main()
