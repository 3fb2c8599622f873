"""What a fine-tuning found, over its trials: summary, table, and the card of the model that it leaves.

    one result a trial -> `summarise_trials` (median, mean, deviation, best) -> tables, `model_card`

Plain dictionaries, as they stand in results.json. A trial is a seed, and with folds a part of the data. "Best" is by
the task's metric on the dev set; the test metrics of all trials are shown and none is chosen by them.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from pathlib import Path
from typing import Any

from electra import __version__
from electra.config import FinetuneConfig
from electra.front_matter import front_matter
from electra.machine import hardware, read_starts
from electra.metrics import summarise

Result = dict[str, Any]
COLUMNS = 6
"""With more trials than these a table leaves out what each of them found."""
LAST = "Every trial counts as it was after its last step."
BEST = "Every trial counts as it was at its best evaluation on dev, whose metric is flattered by that choice."


def trial_name(trial: Result) -> str:
    """The name of a trial's folder; "model" where none was trained."""
    if "seed" not in trial:
        return "model"
    return f"seed-{trial['seed']}" + (f"-fold-{trial['fold']}" if "fold" in trial else "")


def summarise_trials(trials: list[Result], metric: str) -> Result:
    """{"trials", "best_trial", "summary": {split: {metric: {"median", "mean", "std"}}}}.

    The first of several trials with equal metrics is the best, the first of all without dev metrics, None of none.
    """
    splits = [name for name, value in trials[0].items() if isinstance(value, dict)] if trials else []
    summary = {
        split: {
            name: dataclasses.asdict(summarise([trial[split][name] for trial in trials])) for name in trials[0][split]
        }
        for split in splits
    }
    best = max(trials, key=lambda trial: trial.get("dev", {}).get(metric, 0.0)) if trials else None
    return {"trials": trials, "best_trial": trial_name(best) if best else None, "summary": summary}


def results_table(found: Result) -> str:
    """Markdown that also reads as plain text: a row for each split and metric, the task's own metric marked as main."""
    ensemble = found.get("ensemble", {})
    names = [trial_name(trial).replace("-", " ") for trial in found["trials"]]
    many, shown = len(names) > 1, found["trials"] if len(names) <= COLUMNS else []
    names = names[: len(shown)]
    rows = [
        ["split", "metric", *names, *(("median", "mean", "std") if many else ()), *(("ensemble",) * bool(ensemble))]
    ]
    for split, metrics in found["summary"].items():
        for name, summary in metrics.items():
            marked = f"{name} (main)" if name == found["metric"] else name
            values = [trial[split][name] for trial in shown]
            values += [summary["median"], summary["mean"], summary["std"]] if many else []
            values += [ensemble[split][name]] if split in ensemble else []
            rows.append([split, marked, *(f"{value:.4f}" for value in values)])
    if len(rows) == 1:
        return f"{title(found)}\n\nNothing was scored."
    notes = ["main: names the best trial, on dev."] if found["mode"] == "train_eval" else []
    if found["steps"]:
        notes.append(BEST if found["select"] == "best" else LAST)
    if not shown:
        notes.append(f"results.json has each of the {len(found['trials'])} trials.")
    if ensemble:
        notes.append("ensemble: the mean of the outputs of all trials.")
    return "\n\n".join([title(found), markdown(rows), *([" ".join(notes)] if notes else [])])


def title(found: Result) -> str:
    start = "random weights" if found["from_scratch"] else found["model"]
    if not found["steps"]:
        return f"{found['task']} by {start}"
    return f"{found['task']} from {start}: {found['examples']['train']:,} training examples, {found['steps']:,} steps"


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is the header, its columns aligned."""
    full = [[cell.replace("|", r"\|") for cell in row] + [""] * (len(rows[0]) - len(row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in full
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def latex(rows: list[list[str]], caption: str) -> str:
    """The same as a LaTeX table for the package booktabs; cells may hold $...$."""
    lines = [" & ".join(_escape(cell) for cell in row) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    body = "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:]])
    return (
        f"\\begin{{table}}\n\\centering\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
        f"\\caption{{{_escape(caption)}}}\n\\end{{table}}"
    )


def latex_table(found: Result) -> str:
    """Median, and mean with standard deviation, of each metric."""
    rows = [["metric", "median", r"$\mathrm{mean} \pm \mathrm{sd}$"]]
    for split, metrics in found["summary"].items():
        for name, value in metrics.items():
            mean = rf"${value['mean']:.4f} \pm {value['std']:.4f}$"
            rows.append([f"{split} {name}", f"{value['median']:.4f}", mean])
    return latex(rows, f"{title(found)}, {len(found['trials'])} trials.")


ESCAPES = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _escape(cell: str) -> str:
    if cell.startswith("$"):
        return cell
    return "".join(ESCAPES.get(letter, letter) for letter in cell)


def model_card(config: FinetuneConfig, found: Result) -> str:
    """README.md of the model folder: data, recipe, metrics, the command, and how to use it."""
    start = f"the shape of {config.model} with random weights" if config.from_scratch else config.model
    examples = ", ".join(f"{count:,} {split}" for split, count in found["examples"].items())
    points = [
        f"{examples} examples",
        *found["notes"],
        *found["faults"],
        f"{found['steps']:,} steps of {found['batch_size']} rows, learning rate {found['learning_rate']:g} with "
        f"{found['warmup']:.0%} warm-up and linear decay, layer-wise decay {found['layer_decay']:g}",
    ]
    recipe = "\n".join(f"* {point}" for point in points)
    pipeline = found["pipeline"]
    if pipeline:
        code = f'from transformers import pipeline\n\nanswer = pipeline("{pipeline}", model="PATH OF THIS FOLDER")'
        use = f"```python\n{code}\n```"
    elif "auto_class" in found:
        load = f'{found["auto_class"]}.from_pretrained("PATH OF THIS FOLDER")'
        code = f"from transformers import {found['auto_class']}\n\nmodel = {load}"
        use = f"```python\n{code}\n```"
    else:
        use = "No class of transformers holds its head: it answers through `electra predict PATH-OF-THIS-FOLDER`."
    chosen = ""
    if len(found["trials"]) > 1:
        by_dev = f"best of {len(found['trials'])} by {found['metric']} on dev; the median is the fairer figure"
        unscored = f"first of {len(found['trials'])}, none of which was scored on dev"
        chosen = f", the {by_dev if found['mode'] == 'train_eval' else unscored}"
    kind = pipeline or found.get("tag", "question-answering")
    base = [] if config.from_scratch or Path(config.model).exists() else [config.model]
    head = front_matter(
        pipeline_tag=kind,
        tags=["electra"],
        base_model=base[0] if base else None,
        **_model_index(found, kind),
    )
    return f"""{head}
# ELECTRA fine-tuned on {found["task"]}

Fine-tuned with electra-toolkit {__version__} from {start}. It answers with {found["answers"]}.

{use}

## Data and recipe

{recipe}
* hardware: {hardware(read_starts(config.out)) or "unknown"}

## Limits

It was trained for this task on these examples alone and scored on no other text; what its pre-training has read, with
its errors and prejudices, is still in it.

## Results

This is the model of {found["best_trial"]}{chosen}.

{results_table(found)}

## Command

```
{command(config)}
```
"""


def _model_index(found: Result, kind: str) -> dict[str, Any]:
    """The metrics of the trial that the folder holds, as huggingface_hub writes them into a card's model-index."""
    from huggingface_hub import EvalResult  # slow to import

    trial: Result = next((trial for trial in found["trials"] if trial_name(trial) == found["best_trial"]), {})
    results = [
        EvalResult(
            task_type=kind,
            dataset_type=found["task"],
            dataset_name=found["task"],
            dataset_split=split,
            metric_type=metric,
            metric_name=metric.replace("_", " "),
            metric_value=round(value, 6),
        )
        for split in found["summary"]
        for metric, value in trial.get(split, {}).items()
        if math.isfinite(value)
    ]
    return {"model_name": f"ELECTRA fine-tuned on {found['task']}", "eval_results": results} if results else {}


def command(config: FinetuneConfig) -> str:
    """The command line that repeats the run: every option that is not the default."""
    words = ["electra", "finetune", config.model]
    for section in (config, config.custom, config.questions):
        for item in dataclasses.fields(section):
            value = getattr(section, item.name)
            is_section = dataclasses.is_dataclass(value)
            if is_section or item.name in ("model", "overwrite") or value == item.default:
                continue
            words.append(f"--{item.name.replace('_', '-')}")
            if isinstance(value, tuple):
                words += map(str, value)
            elif not isinstance(value, bool) or item.type == "bool | None":
                words.append(str(value))
            elif not value:
                words[-1] = f"--no-{words[-1].removeprefix('--')}"
    return shlex.join(words)
