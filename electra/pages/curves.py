"""The curves of some trainings: a figure for each metric that was logged, with the table behind it.

One training has a colour for its own rows and one for held-out text; several have a colour each, held-out text dashed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from electra.pages.html import Child, Html, figure, table
from electra.pages.plots import Curve, curves_plot
from electra.pages.runs import History, PretrainingRun

ROWS = 60
"""Rows of the table behind a figure, at most."""

TITLES = {
    "loss": ("Loss", "what the training minimises"),
    "generator_loss": ("Generator loss", "cross entropy of the masked tokens, in nats"),
    "masked_lm_loss": ("Masked-LM loss", "cross entropy of the masked tokens, in nats"),
    "discriminator_loss": ("Discriminator loss", "binary cross entropy a token, in nats"),
    "generator_accuracy": ("Generator accuracy", "share of the masked tokens that it holds most likely"),
    "generator_sampled_accuracy": ("Sampled accuracy", "share of the masked tokens that it draws: not replaced"),
    "masked_lm_accuracy": ("Masked-LM accuracy", "share of the masked tokens that it holds most likely"),
    "replaced_share": ("Replaced share", "of all tokens"),
    "discriminator_accuracy": ("Discriminator accuracy", "calling every token original gets 1 - the replaced share"),
    "discriminator_precision": ("Discriminator precision", "of the tokens that it calls replaced"),
    "discriminator_recall": ("Discriminator recall", "of the replaced tokens"),
    "discriminator_f1": ("Discriminator F1", "of replaced tokens"),
    "discriminator_auc": ("Discriminator AUC", "0.5 has learnt nothing; it does not depend on a threshold"),
    "learning_rate": ("Learning rate", "of AdamW or LAMB; those of Muon and of single layers are in proportion"),
    "gradient_norm": ("Gradient norm", "before it is clipped"),
    "tokens_per_second": ("Throughput, tokens/s", "evaluations and saving are not counted"),
    "mfu": ("Model FLOPs utilisation", "of a matrix product measured when the run starts"),
    "peak_memory_gib": ("Peak memory, GiB", "of the main process"),
    "loss_scale": ("Loss scale", "of fp16"),
    "skipped_steps": ("Skipped steps", "whose fp16 gradient overflowed"),
}
SPEEDS = ("tokens_per_second", "mfu")


def metric_title(metric: str) -> str:
    return TITLES[metric][0] if metric in TITLES else metric.replace("_", " ")


def in_order(metrics: Collection[str], first: Sequence[str] = ()) -> list[str]:
    """`first`, then those of `TITLES` in their order, then unknown ones."""
    return [name for name in dict.fromkeys((*first, *TITLES, *sorted(metrics))) if name in metrics]


@dataclass(frozen=True)
class Training:
    """What one colour stands for."""

    label: str
    history: History
    series: int
    run: PretrainingRun | None = None  # which knows tokens and hours
    trial: str = ""


def metric_figures(
    trainings: Sequence[Training],
    held_out: str,
    first: Sequence[str] = (),
    marks: Mapping[float, str] | None = None,
) -> list[Html]:
    """A figure for each metric that has a finite value: `first`, those of `TITLES` in their order, unknown ones.

    `held_out` is what the evaluated text is called; `marks` are steps with a name.
    """
    logged = {name for training in trainings for name in training.history.metrics()}
    order = in_order(logged, first)
    lines = {metric: _curves(metric, trainings, held_out) for metric in order}
    remark = f"dashed: {held_out}" if len(trainings) > 1 else ""
    return [_figure(metric, found, remark, marks or {}) for metric, found in lines.items() if found]


@dataclass(frozen=True)
class _Line:
    """A curve over steps and the training that it is of."""

    training: Training
    curve: Curve

    def over(self, xs: np.ndarray) -> Curve:
        return replace(self.curve, xs=xs)


def _curves(metric: str, trainings: Sequence[Training], held_out: str) -> list[_Line]:
    lines = []
    for training in trainings:
        for kind in ("train", "eval"):
            steps, values = training.history.points(kind, metric)
            if not len(steps):
                continue
            is_held_out = kind == "eval"
            name, series, trial = held_out if is_held_out else "train", int(is_held_out), training.trial
            if len(trainings) > 1:
                name, series = training.label, training.series
                trial = f"{trial} {held_out}".strip() if is_held_out else trial
            lines.append(_Line(training, Curve(name, steps, values, series, is_held_out, trial)))
    return lines


def _figure(metric: str, lines: Sequence[_Line], remark: str, marks: Mapping[float, str]) -> Html:
    """`remark` says what dashed lines are."""
    title, note = metric_title(metric), TITLES.get(metric, ("", ""))[1]
    if any(line.curve.is_held_out for line in lines):
        note = "; ".join(filter(None, (note, remark)))
    runs = [line.training.run for line in lines if line.training.run is not None]
    over_steps = [line.curve for line in lines]
    behind = _table(lines, runs)
    log = metric == "gradient_norm"  # one spike would flatten all the rest
    if metric in SPEEDS and runs:
        in_hours = [
            line.over(np.interp(line.curve.xs, *line.training.run.hours)) for line in lines if line.training.run
        ]
        plot = curves_plot(title, in_hours, unit="hour", xlabel="hours of training", percent=metric == "mfu")
        return figure(title, [plot], behind, note)
    if not runs or _same_tokens(runs):
        top = (*max(runs, key=lambda run: run.steps).token_knots(), "tokens") if runs else None
        plot = curves_plot(title, over_steps, unit="step", xlabel="steps", log=log, marks=marks, top=top)
        return figure(title, [plot], behind, note)
    over_tokens = [line.over(line.training.run.tokens(line.curve.xs)) for line in lines if line.training.run]
    plots = [
        curves_plot(f"{title} over steps", over_steps, unit="step", xlabel="steps", log=log, marks=marks),
        curves_plot(f"{title} over tokens", over_tokens, unit="token", xlabel="tokens", log=log),
    ]
    return figure(title, plots, behind, note)


def _same_tokens(runs: Sequence[PretrainingRun]) -> bool:
    """Whether a step is as many tokens in all runs, so that one picture has both axes."""
    steps = np.linspace(0, min(run.steps for run in runs), 200)
    return all(np.allclose(run.tokens(steps), runs[0].tokens(steps)) for run in runs)


def _table(lines: Sequence[_Line], runs: Sequence[PretrainingRun]) -> Html:
    """The points of the curves; of many those at evenly spaced places."""
    steps = np.unique(np.concatenate([line.curve.xs for line in lines]))
    kept = steps[np.unique(np.linspace(0, len(steps) - 1, ROWS).round().astype(int))]
    columns = [dict(zip(line.curve.xs.tolist(), line.curve.ys.tolist(), strict=True)) for line in lines]
    with_tokens = bool(runs) and _same_tokens(runs)
    longest = max(runs, key=lambda run: run.steps) if runs else None
    rows: list[list[Child]] = []
    for step in kept.tolist():
        tokens = [int(longest.tokens(np.array([step]))[0])] if with_tokens and longest else []
        rows.append([f"{int(step):,}", *tokens, *(column.get(step) for column in columns)])
    names = [" ".join(filter(None, (line.curve.label, line.curve.trial))) for line in lines]
    caption = f"{len(kept):,} of {len(steps):,} steps; metrics.jsonl has all" if len(kept) < len(steps) else ""
    return table(["step", *(["tokens"] if with_tokens else []), *names], rows, caption)
