"""The sections of a page about pre-training runs: how far, plan and machine, differences, curves.

A table has a column for each run; the curves of all share their pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from electra.announcement import describe, flops_per_token
from electra.mixture import shares_of
from electra.objectives import make_model
from electra.pages.curves import Training, in_order, metric_figures, metric_title
from electra.pages.html import Child, Html, details, number, section, table, tag
from electra.pages.plots import POINTS
from electra.pages.runs import PretrainingRun, Row
from electra.progress import duration
from electra.toml import to_dict


def pretraining_sections(runs: Sequence[PretrainingRun]) -> list[Html]:
    several = len(runs) > 1
    sections = [
        section("How far, how good", tag("div", _table(runs, _PROGRESS), _last_metrics(runs), class_="side")),
        section("Plan and machine", _table(runs, _PLAN), [_phases(run, several) for run in runs if len(run.phases) > 1],
                [_recipe(run, several) for run in runs]),
    ]  # fmt: skip
    if several:
        sections.append(section("Where the settings differ", _differences(runs)))
    trainings = [Training(run.label, run.history, place, run) for place, run in enumerate(runs)]
    figures = metric_figures(trainings, "held-out", marks=_phase_marks(runs))
    nothing = tag("p", "Nothing has been logged yet.", class_="note")
    is_long = any(len(run.history.train) > POINTS for run in runs)
    band = tag("p", f"Lines are means over {POINTS} stretches, bands go from the lowest to the highest value.")
    plots = [band if is_long else None, tag("div", figures, class_="plots")]
    sections.append(section("Curves", plots if figures else nothing))
    return sections


# ----------------------------------------------------------------------------------------------------- facts


Fact = Callable[[PretrainingRun], Child]


def _table(runs: Sequence[PretrainingRun], facts: Mapping[str, Fact]) -> Html:
    rows = [[name, *(_text(fact(run)) for run in runs)] for name, fact in facts.items()]
    head = ["run", *(run.label for run in runs)] if len(runs) > 1 else ["run", str(runs[0].folder)]
    return table(head, rows, words=True)


def _text(value: Child) -> Child:
    """Numbers in a column of words are words."""
    return number(value) if isinstance(value, int | float) else value


def _tokens_read(run: PretrainingRun) -> str:
    read, total = (int(run.tokens(np.array([step]))[0]) for step in (run.history.step, run.steps))
    return f"{read:,} of {total:,}"


def _time(run: PretrainingRun) -> str:
    _, hours = run.hours
    if not len(hours):
        return "–"
    return f"{duration(3600 * float(hours[-1]))} of training, evaluations and saving not counted"


def _speed(run: PretrainingRun) -> str:
    _, speeds = run.history.points("train", "tokens_per_second")
    _, used = run.history.points("train", "mfu")
    if not len(speeds):
        return "–"
    return f"{speeds[-1]:,.0f} tokens/s at last, median {np.median(speeds):,.0f}" + (
        f"; MFU {used[-1]:.0%}, median {np.median(used):.0%}" if len(used) else ""
    )


_PROGRESS: dict[str, Fact] = {
    "state": lambda run: run.state(),
    "tokens read": _tokens_read,
    "time": _time,
    "speed": _speed,
    "checkpoints": lambda run: ", ".join(f"step {step:,}" for step in run.checkpoints) or "none",
}


def _model(run: PretrainingRun) -> str:
    shape = run.config.model
    with torch.device("meta"):
        words = describe(make_model(shape, run.config.objective, run.vocab_size))
    return (
        f"{shape.num_layers} layer{'s' * (shape.num_layers > 1)} of {shape.hidden_size}, {shape.num_heads} heads, "
        f"feed-forward {shape.intermediate_size:,}, embeddings {shape.embedding_size}; {words}"
    )


def _data(run: PretrainingRun) -> Child:
    """A line for each store, with its share of the rows where there are several."""
    lines: list[Child] = []
    several = len(run.receipts) > 1
    for receipt, share in zip(run.receipts, shares_of(run.config.weights, run.receipts), strict=True):
        names = [Path(source["path"]).name for source in receipt.get("sources", [])]
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6:,} more files" if len(names) > 6 else "")
        words = (
            f"{receipt['tokens']:,} tokens in {receipt['documents']:,} documents, {receipt['held_out']['tokens']:,} "
            f"tokens held out; vocabulary {run.vocab_size:,}; {shown}"
        ).removesuffix("; ")
        lines += [tag("br") if lines else None, f"{share:.1%} of the rows: " * several, words]
    return lines


def _rows(run: PretrainingRun) -> str:
    return "; then ".join(
        f"{phase.steps:,} steps x {phase.config.loop.batch_size:,} rows x {phase.config.rows.seq_len} = "
        f"{phase.tokens:,} tokens"
        for phase in run.phases
    )


def _rates(run: PretrainingRun) -> str:
    """The peaks of all learning rates; the curve shows the first of each."""
    parts = []
    for phase in run.phases:
        given = phase.config.optimizer
        name = "AdamW" if given.optimizer == "muon" else given.optimizer
        rates = f"{name} {number(given.learning_rate)}"
        rates += f", Muon {number(given.muon_learning_rate)}" if given.optimizer == "muon" else ""
        parts.append(rates)
    scale = run.config.optimizer.generator_lr_scale
    generator = f"; the generator's own layers at {number(scale)} times that" if scale != 1 else ""
    return f"at most {'; then '.join(parts)}{generator}"


def _compute(run: PretrainingRun) -> str:
    costs = [flops_per_token(phase.config, run.vocab_size) for phase in run.phases]
    total = sum(cost * phase.tokens for cost, phase in zip(costs, run.phases, strict=True))
    return f"{' and '.join(f'{cost / 1e6:,.1f}' for cost in costs)} MFLOPs a token, {total:.2e} in all"


def _machine(run: PretrainingRun) -> Child:
    return starts_in_words(run.starts)


def starts_in_words(starts: Sequence[Row]) -> Child:
    """What runs were started on, a line for each start; the same machine is not said twice."""
    lines: list[Child] = []
    before = ""
    for start in starts:
        processes = f"{start['processes']} process{'es' * (start['processes'] > 1)}"
        threads = f"{start['threads']} thread{'s' * (start['threads'] > 1)} each"
        memory = f", {start['memory_gib']:g} GiB" if "memory_gib" in start else ""
        facts = (
            f"{start['device']}; {start['cores']} cores{memory}; {processes}, {threads}; "
            f"{start['precision']}; {start['system']}, Python {start['python']}, torch {start['torch']}, "
            f"electra {start['electra']}"
        )
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(start["time"]))
        step = f", after step {start['step']:,}" if start["step"] else ""
        lines += [tag("br") if lines else None, f"{when}{step}: {'the same' if facts == before else facts}"]
        before = facts
    return lines or "not known: the run has no starts.jsonl"


def _memory(run: PretrainingRun) -> str:
    _, peaks = run.history.points("train", "peak_memory_gib")
    return f"{peaks.max():.2f} GiB at most" if len(peaks) else "–"


_PLAN: dict[str, Fact] = {
    "model": _model,
    "data": _data,
    "rows": _rows,
    "schedule": lambda run: "; then ".join(
        f"{phase.config.optimizer.optimizer}, {phase.schedule}" for phase in run.phases
    ),
    "learning rates": _rates,
    "compute": _compute,
    "started on": _machine,
    "memory": _memory,
}


def _last_metrics(runs: Sequence[PretrainingRun]) -> Html | None:
    """The last rows of training and of held-out text."""
    columns: dict[str, Row] = {}
    for run in runs:
        for name, rows in ("training", run.history.train), ("held-out", run.history.evaluations):
            if rows:
                title = f"{run.label}: {name}" if len(runs) > 1 else name
                columns[f"{title}, step {rows[-1]['step']:,}"] = rows[-1]
    return _metrics(columns) if columns else None


def _metrics(columns: Mapping[str, Row]) -> Html:
    names = in_order({name for row in columns.values() for name in row} - {"step", "kind"})
    rows = [[metric_title(name), *(row.get(name) for row in columns.values())] for name in names]
    return table(["metric", *columns], rows)


def _phases(run: PretrainingRun, several: bool) -> Html:
    """What each phase is and the metrics at its end, or as far as it has come."""
    of_run = f" of {run.label}" if several else ""
    rows: list[Sequence[Child]] = []
    columns: dict[str, Row] = {}
    for phase in run.phases:
        name, config = f"phase {phase.index + 1}", phase.config
        rate = number(config.optimizer.learning_rate)
        steps = f"{phase.begin + 1:,}–{phase.end:,}"
        rows.append([name, steps, config.loop.batch_size, config.rows.seq_len, phase.tokens, rate])
        for kind, found in ("training", run.history.train), ("held-out", run.history.evaluations):
            inside = [row for row in found if phase.begin < row["step"] <= phase.end]
            if inside:
                columns[f"{name}: {kind}, step {inside[-1]['step']:,}"] = inside[-1]
    head = ["phase", "steps", "rows a step", "tokens a row", "tokens", "learning rate"]
    return tag(
        "div",
        table(head, rows, f"Phases{of_run}"),
        details(f"The metrics at the end of each phase{of_run}", _metrics(columns)) if columns else None,
    )


def _recipe(run: PretrainingRun, several: bool) -> Html:
    text = (run.folder / "config.toml").read_text(encoding="utf-8")
    return details(f"config.toml{f' of {run.label}' if several else ''}", tag("pre", text))


# ----------------------------------------------------------------------------------------------- comparison


def _differences(runs: Sequence[PretrainingRun]) -> Html:
    settings = [flat(to_dict(run.config)) for run in runs]
    return difference_table([run.label for run in runs], settings)


def difference_table(labels: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> Html:
    """The settings that are not the same in all runs."""
    names = [name for name in dict.fromkeys(key for each in settings for key in each) if name != "out"]
    rows = [
        [name, *(_value(each.get(name)) for each in settings)]
        for name in names
        if any(each.get(name) != settings[0].get(name) for each in settings)
    ]
    if not rows:
        return tag("p", "Nowhere: all have the same settings.")
    return table(["setting", *labels], rows, words=True)


def flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """{"loop": {"steps": 5}} -> {"loop.steps": 5}; a phase is what it has of its own, in words."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{where}{key}.")
        elif isinstance(value, list) and all(isinstance(part, Mapping) for part in value):  # phases, or nothing
            for place, part in enumerate(value, start=1):
                given = (f"{name} {each}" for name, each in part.items() if each not in (0, -1))
                out[f"{where}{key} {place}"] = ", ".join(given)
        else:
            out[f"{where}{key}"] = value
    return out


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return number(value) if isinstance(value, float) else str(value)


def _phase_marks(runs: Sequence[PretrainingRun]) -> dict[float, str]:
    """Where phases end, if they end at the same steps in all runs."""
    ends = {tuple(phase.end for phase in run.phases) for run in runs}
    common = ends.pop() if len(ends) == 1 else ()
    reached = max((run.history.step for run in runs), default=0)
    return {end: f"phase {place}" for place, end in enumerate(common, start=1) if len(common) > 1 and end <= reached}
