"""The sections of a page about fine-tuning runs: results with their spread, settings, and the curves of each trial.

Runs of one task stand together: their trials as dots in one picture, their curves in one colour each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from electra.pages.curves import Training, metric_figures
from electra.pages.html import Child, Html, details, figure, join, number, section, table, tag
from electra.pages.plots import spread_plot
from electra.pages.pretraining import difference_table, flat, starts_in_words
from electra.pages.runs import FinetuningRun
from electra.results import BEST, LAST, trial_name
from electra.toml import to_dict


def finetuning_sections(runs: Sequence[FinetuningRun]) -> list[Html]:
    sections = [section("Fine-tuning", _overview(runs))] if len(runs) > 1 else []
    for task in dict.fromkeys(run.task for run in runs):
        mine = [run for run in runs if run.task == task]
        several = len(mine) > 1
        content: list[Child] = [_spread(mine), [_run(run) for run in mine]]
        if several:
            settings = [flat(to_dict(run.config)) for run in mine]
            content += [tag("h3", "Where the settings differ"), difference_table([run.label for run in mine], settings)]
        figures = _curves(mine)
        content.append(tag("div", figures, class_="plots") if figures else None)
        sections.append(section(f"Task {task}", content))
    return sections


def _overview(runs: Sequence[FinetuningRun]) -> Html:
    """A row for each run: the task's own metric on dev, or on what else was scored."""
    rows: list[Sequence[Child]] = []
    for run in runs:
        summary = run.found["summary"] if run.found else {}
        split = "dev" if "dev" in summary else next(iter(summary), "")
        metric = run.found["metric"] if run.found else ""
        value = summary.get(split, {}).get(metric, {})
        numbers = [_four(value.get(kind)) for kind in ("median", "mean", "std")]
        trials = len(run.found["trials"]) if run.found else 0
        rows.append([run.label, run.task, f"{split} {metric}".strip(), *numbers, trials, _start(run), run.state()])
    head = ["run", "task", "metric", "median", "mean", "sd", "trials", "from", "state"]
    return table(head, rows, "sd: sample standard deviation over the trials")


def _start(run: FinetuningRun) -> str:
    return f"{'random weights of the shape of ' * run.config.from_scratch}{run.config.model}"


def _four(value: float | None) -> str | None:
    """Scores have four places, as in results.md."""
    return None if value is None else f"{value:.4f}"


def _spread(runs: Sequence[FinetuningRun]) -> Html | None:
    """The main metric of every trial of every run."""
    dots: dict[str, list[tuple[str, list[float]]]] = {}
    for run in runs:
        for split in run.found["summary"] if run.found else ():
            metric = run.found["metric"] if run.found else ""
            values = [trial[split][metric] for trial in (run.found or {})["trials"] if metric in trial.get(split, {})]
            if values:
                dots.setdefault(f"{split} {metric}", []).append((run.label, values))
    figures = [
        figure(
            f"{name} of each trial",
            [spread_plot(name, rows)],
            table(
                ["run", "trial", name],
                [[label, place, _four(value)] for label, values in rows for place, value in enumerate(values, 1)],
            ),
            "The bar is the median.",
        )
        for name, rows in dots.items()
        if len(rows) > 1 or len(rows[0][1]) > 1
    ]
    return tag("div", figures, class_="plots") if figures else None


def _run(run: FinetuningRun) -> Html:
    facts: list[Sequence[Child]] = [["state", run.state()], ["from", _start(run)]]
    found = run.found
    if found:
        examples = ", ".join(f"{count:,} {split}" for split, count in found["examples"].items())
        facts.append(["examples", examples])
        if found["steps"]:
            facts.append(["training", _training(found)])
        facts += [["note", note] for note in found["notes"]] + [["fault", fault] for fault in found["faults"]]
        seconds = [trial["seconds"] for trial in found["trials"] if "seconds" in trial]
        if seconds:
            facts.append(["time", f"{', '.join(f'{each:,.0f}' for each in seconds)} s a trial"])
    if run.starts:
        facts.append(["started on", starts_in_words(run.starts)])
    recipe = (run.folder / "config.toml").read_text(encoding="utf-8")
    return join(
        [
            tag("h3", run.label),
            table(["run", str(run.folder)], facts),
            _results(found) if found else tag("p", "No trial is finished yet.", class_="note"),
            details(f"config.toml of {run.label}", tag("pre", recipe)),
        ]
    )


def _training(found: dict[str, Any]) -> str:
    return (
        f"{found['steps']:,} steps of {found['batch_size']} rows ({found['epochs']:g} epochs), learning rate "
        f"{number(found['learning_rate'])} ({found['why_rate']}), warm-up {found['warmup']:.0%}, layer-wise decay "
        f"{found['layer_decay']:g} ({found['why_decay']}), recipe {found['recipe']}"
    )


def _results(found: dict[str, Any]) -> Html:
    """Each metric of each split: every trial, median, mean, deviation, and the ensemble of all."""
    trials, ensemble = found["trials"], found.get("ensemble", {})
    many = len(trials) > 1
    rows: list[Sequence[Child]] = []
    for split, metrics in found["summary"].items():
        for name, summary in metrics.items():
            values = [trial[split][name] for trial in trials]
            values += [summary[kind] for kind in ("median", "mean", "std")] if many else []
            values += [ensemble.get(split, {}).get(name)] if ensemble else []
            main = " (main)" if name == found["metric"] else ""
            rows.append([f"{split} {name}{main}", *map(_four, values)])
    if not rows:
        return tag("p", "Nothing was scored.", class_="note")
    head = ["metric", *(trial_name(trial).replace("-", " ") for trial in trials)]
    head += ["median", "mean", "sd"] if many else []
    head += ["ensemble"] if ensemble else []
    note = (BEST if found["select"] == "best" else LAST) if found["steps"] else ""
    best = f" The best by dev is {found['best_trial']}." if many and found["mode"] == "train_eval" else ""
    return table(head, rows, note + best)


def _curves(runs: Sequence[FinetuningRun]) -> list[Html]:
    trainings = []
    for place, run in enumerate(runs):
        for trial, history in enumerate(run.histories):
            name = history.name.replace("-", " ")
            if len(runs) > 1:
                trainings.append(Training(run.label, history, place, trial=name))
            else:
                trainings.append(Training(name, history, trial))
    scored = [name for run in runs for history in run.histories for row in history.evaluations[-1:] for name in row]
    main = [run.found["metric"] for run in runs if run.found]
    return metric_figures(trainings, "dev", first=[*main, *scored])
