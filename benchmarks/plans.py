"""The plans of other systems run from their presets on real text: 200 steps each, killed once with SIGKILL and resumed.

    ELECTRA_DATA=data python benchmarks/plans.py [--out benchmarks/results/plans.json] [--keep FOLDER]

Width, depth, batch and warm-up are cut down so that a plan takes minutes on two CPU cores; length, objective,
optimizer, schedule, phases, masking and rows are the preset's. The text: novels of 1830 to 1930 with a cased vocabulary
trained on them (historic English), Korean Wikipedia with KoELECTRA's vocabulary, English Wikipedia with BERT's. A run
is killed at a random moment of its first half. What is reported comes from its metrics.jsonl: every 20th step, held-out
losses; no step may be there twice or be missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

from electra.config import PretrainConfig
from electra.log import read_metrics
from electra.presets import PRESETS
from electra.toml import write_toml

MEGABYTES = 30  # of each text
STEPS, BATCH = 200, 16
PLANS = {  # preset -> text, vocabulary (None: trained on the text, as its authors did)
    "historic-english-base": ("corpus/novels98_en.txt", None),
    "koelectra-small": ("corpus/kowiki_part1.txt", "vocab/koelectra_v1v2_vocab.txt"),
    "korean-small++": ("corpus/kowiki_part1.txt", "vocab/koelectra_v1v2_vocab.txt"),
    "sagemaker-small": ("corpus/enwiki_part1.txt", "vocab/bert_uncased_vocab.txt"),
}


def reduced(name: str) -> PretrainConfig:
    """A preset at a width of 128 and two layers, 200 steps of 16 rows, of each phase a share as in the plan."""
    config = PRESETS[name]()
    model = dataclasses.replace(
        config.model, hidden_size=128, num_layers=2, num_heads=2, intermediate_size=512, embedding_size=64
    )
    loop = dataclasses.replace(
        config.loop, steps=STEPS, batch_size=BATCH, log_every=20, eval_every=100, eval_rows=128, save_every=20, keep=2
    )
    phases = tuple(
        dataclasses.replace(
            phase,
            steps=round(STEPS * (0.8 if index == 0 else 0.2)),
            batch_size=BATCH // 4 if phase.batch_size else 0,
            warmup_steps=10 if phase.warmup_steps > 0 else -1,
        )
        for index, phase in enumerate(config.phases)
    )
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=20)
    return dataclasses.replace(config, model=model, loop=loop, optimizer=optimizer, phases=phases)


def electra(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "electra", *arguments]


def make_store(data: Path, folder: Path, text: str, vocab: str | None) -> Path:
    """The token store of the first megabytes of a text."""
    store = folder / f"{Path(text).stem}-store"
    if store.exists():
        return store
    sample = folder / Path(text).name
    with (data / text).open("rb") as file:
        sample.write_bytes(file.read(MEGABYTES * 10**6).rpartition(b"\n")[0] + b"\n")
    vocabulary = data / vocab if vocab else folder / f"{sample.stem}-vocab"
    if vocab is None:
        flags = ["--size", "32000", "--no-lowercase", "--out", str(vocabulary)]
        subprocess.run(electra("vocab", str(sample), *flags), check=True)
    case = ["--lowercase", "False"] if vocab and "koelectra" in vocab else []
    build = electra("build", str(sample), "--vocab", str(vocabulary), "--out", str(store), *case)
    subprocess.run(build, check=True)
    return store


def run(name: str, store: Path, folder: Path, draw: random.Random) -> dict[str, object]:
    """One plan: started, killed, resumed."""
    out = folder / name
    recipe = folder / f"{name}.toml"
    write_toml(dataclasses.replace(reduced(name), data=(str(store),), out=out), recipe)
    command = electra("pretrain", name, "--config", str(recipe))
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    after = draw.randrange(1, STEPS // 2 // 20) * 20
    for line in process.stdout:
        if line.startswith(f"step {after}/"):
            break
    time.sleep(draw.random() * 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    resumed = next(line for line in done.stdout.splitlines() if line.startswith("resuming from"))
    train, held_out = read_metrics(out, "train"), read_metrics(out, "eval")
    steps = [row["step"] for row in train]
    assert steps == list(range(20, STEPS + 1, 20)), steps
    return {
        "seconds": round(time.monotonic() - begin),
        "killed_after_step": after,
        "resumed_from": int(resumed.rpartition("step-")[2]),
        "loss": [round(row["loss"], 3) for row in train],
        "generator_loss": [round(row["generator_loss"], 3) for row in train],
        "held_out_generator_loss": [round(row["generator_loss"], 3) for row in held_out],
        "held_out_discriminator_auc": [round(row["discriminator_auc"], 3) for row in held_out],
        "said": [line for line in done.stdout.splitlines() if line.startswith(("schedule", "phase", "rows"))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="work here and leave everything")
    options = parser.parse_args()
    data = Path(os.environ["ELECTRA_DATA"])
    draw = random.Random()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        results = {}
        for preset, (text, vocab) in PLANS.items():
            results[preset] = run(preset, make_store(data, folder, text, vocab), folder, draw)
            print(preset, json.dumps(results[preset], indent=2), flush=True)
    report = {"machine": describe(), "steps": STEPS, "batch_size": BATCH, "plans": results}
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
