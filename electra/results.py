"""What a fine-tuning found, over its seeds: summary, table, and the card of the model that it leaves.

    one result a seed -> `summarise_seeds` (median, mean, deviation, best seed) -> `results_table`, `model_card`

Plain dictionaries, as they stand in results.json. "Best" is by the task's metric on the dev set; the test metrics
of all seeds are shown and none is chosen by them.
"""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from electra import __version__
from electra.config import FinetuneConfig
from electra.metrics import summarise

Result = dict[str, Any]
FOOTNOTE = "main: names the best seed, on dev. Every seed counts as it was after its last step."


def summarise_seeds(seeds: list[Result], metric: str) -> Result:
    """{"seeds", "best_seed", "summary": {split: {metric: {"median", "mean", "std"}}}}.

    The first of several seeds with equal metrics is the best; None without a seed.
    """
    splits = [split for split in ("dev", "test") if seeds and split in seeds[0]]
    summary = {
        split: {name: dataclasses.asdict(summarise([seed[split][name] for seed in seeds])) for name in seeds[0][split]}
        for split in splits
    }
    best = max(seeds, key=lambda seed: seed["dev"][metric])["seed"] if seeds else None
    return {"seeds": seeds, "best_seed": best, "summary": summary}


def results_table(found: Result) -> str:
    """Markdown that also reads as plain text: a row for each split and metric, the task's own metric marked as main."""
    seeds = [seed["seed"] for seed in found["seeds"]]
    header = ["split", "metric", *(f"seed {seed}" for seed in seeds), "median", "mean", "std"]
    rows = [header]
    for split, metrics in found["summary"].items():
        for name, summary in metrics.items():
            marked = f"{name} (main)" if name == found["metric"] else name
            values = [seed[split][name] for seed in found["seeds"]]
            numbers = [f"{value:.4f}" for value in (*values, summary["median"], summary["mean"], summary["std"])]
            rows.append([split, marked, *numbers])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    start = "random weights" if found["from_scratch"] else found["model"]
    title = f"{found['task']} from {start}: {found['train_examples']:,} training examples, {found['steps']:,} steps"
    return f"{title}\n\n" + "\n".join(lines) + f"\n\n{FOOTNOTE}"


def model_card(config: FinetuneConfig, found: Result) -> str:
    """README.md of the model folder: data, recipe, metrics, the command, and how to use it."""
    labels = ", ".join(found["labels"])
    if found["kind"] == "regression":
        scale = "on the scale of the training data (training was on [0, 1]; the map back is folded into `out_proj`)"
        answers = f"the value of `{labels}`, {scale}"
    else:
        answers = f"one of: {labels}"
    start = f"the shape of {config.model} with random weights" if config.from_scratch else config.model
    points = [
        f"{found['train_examples']:,} training, {found['dev_examples']:,} dev, {found['test_examples']:,} test "
        f"examples, cut at {config.max_length} tokens",
        *found["notes"],
        f"{found['steps']:,} steps of {config.batch_size} examples, learning rate {found['learning_rate']:g} with "
        f"{config.warmup:.0%} warm-up and linear decay, layer-wise decay {found['layer_decay']:g}",
    ]
    recipe = "\n".join(f"* {point}" for point in points)
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [electra]
---

# ELECTRA fine-tuned on {found["task"]}

Fine-tuned with electra-toolkit {__version__} from {start}. It answers with {answers}.

```python
from transformers import pipeline

classify = pipeline("text-classification", model="PATH OF THIS FOLDER")
```

## Data and recipe

{recipe}

## Results

This is the model of seed {found["best_seed"]}, the best of {len(found["seeds"])} by {found["metric"]} on dev.
The median is the fairer figure.

{results_table(found)}

## Command

```
{command(config)}
```
"""


def command(config: FinetuneConfig) -> str:
    """The command line that repeats the run: every option that is not the default."""
    words = ["electra", "finetune", config.model]
    for section in (config, config.custom):
        for item in dataclasses.fields(section):
            value = getattr(section, item.name)
            if item.name in ("model", "custom", "overwrite") or value == item.default:
                continue
            words.append(f"--{item.name.replace('_', '-')}")
            if isinstance(value, tuple):
                words += map(str, value)
            elif not isinstance(value, bool):
                words.append(str(value))
            elif not value:
                words[-1] = f"--no-{words[-1].removeprefix('--')}"
    return shlex.join(words)
