"""What only the model of a run can tell: precision over recall, calibration, groups of tokens, rows to look at.

    newest checkpoint + held-out rows -> `examine` -> Examination -> sections

The evaluation is that of `electra evaluate`. Where it cannot be made, the page says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from electra.breakdown import Table, breakdown_of
from electra.evaluate import open_run
from electra.metrics import Calibration, PrecisionRecall, calibration, precision_recall
from electra.mlm import MaskedLM
from electra.pages.curves import metric_title
from electra.pages.html import Child, Html, details, figure, join, section, table, tag
from electra.pages.plots import Curve, calibration_plot, precision_recall_plot
from electra.samples import Sample, draw_sample

POINTS = 400  # of a precision-recall curve in the page


@dataclass(frozen=True)
class Examination:
    """A run's newest model on held-out rows; a masked LM alone has no curves and no samples."""

    step: int
    rows: int
    tables: list[Table]
    replaced_share: float
    curve: PrecisionRecall | None
    calibration: Calibration | None
    samples: list[Sample]
    is_electric: bool


def examine(run: Path, data: str | None, num_rows: int, num_samples: int, device: str) -> Examination:
    """Evaluate the newest checkpoint. ValueError as `evaluate.open_run`."""
    opened = open_run(run, data, num_rows, device)
    breakdown = breakdown_of(opened)
    opened.evaluate(breakdown)
    found, samples = breakdown.detection(), []
    if not isinstance(opened.model, MaskedLM):
        vocabulary = opened.mixture.first.vocabulary()
        count = min(num_samples, opened.evaluator.num_rows)
        samples = [draw_sample(opened.evaluator, opened.model, number, vocabulary) for number in range(count)]
    return Examination(
        step=opened.step,
        rows=opened.evaluator.num_rows,
        tables=breakdown.tables(),
        replaced_share=float(found[1].mean()) if found else 0.0,
        curve=precision_recall(*found) if found else None,
        calibration=calibration(*found) if found else None,
        samples=samples,
        is_electric=opened.model.objective.objective == "electric",
    )


def detection_sections(found: Mapping[str, Examination | str]) -> list[Html]:
    """Of each run, by its label, what was found, or in words why nothing was."""
    known = {label: each for label, each in found.items() if isinstance(each, Examination)}
    several = len(found) > 1
    remarks: list[Child] = []
    for label, each in found.items():
        if isinstance(each, str):
            remarks.append(tag("p", f"{label}: " * several, "Not here: ", each, ".", class_="note"))
            continue
        where = f"Checkpoint of step {each.step:,} on {each.rows:,} held-out rows"
        if each.calibration is None:
            where += "; a masked LM alone detects nothing"
        elif each.curve is None:
            where += "; no token of them is replaced, so that there are no curves"
        elif each.is_electric:
            where += "; replaced are all tokens that were drawn, the true one drawn again as well"
        remarks.append(tag("p", f"{label}: " * several, where, "."))
    plots = _plots({label: each for label, each in known.items() if each.curve is not None})
    sections = [section("Finding replaced tokens", remarks, tag("div", plots, class_="plots") if plots else None)]
    if any(each.tables for each in known.values()):
        sections.append(section("Where it is good and where not", [_groups(*item, several) for item in known.items()]))
    if any(each.samples for each in known.values()):
        sections.append(section("Rows to look at", _legend(), [_rows(*item, several) for item in known.items()]))
    return sections


def _plots(found: Mapping[str, Examination]) -> list[Html]:
    ranked, calibrated = [], []
    rank_rows: list[list[Child]] = []
    bin_rows: list[list[Child]] = []
    for place, (label, each) in enumerate(found.items()):
        curve, bins = each.curve, each.calibration
        assert curve is not None and bins is not None
        shown = np.unique(np.linspace(0, len(curve.recall) - 1, POINTS).round().astype(int))
        name = f"{label} (AP {curve.average_precision:.3f})"
        half = np.searchsorted(-curve.threshold, -0.5, side="right") - 1  # the last point at 0.5 or above
        point = (float(curve.recall[half]), float(curve.precision[half]))
        ranked.append((Curve(name, curve.recall[shown], curve.precision[shown], place), each.replaced_share, point))
        for recall in np.linspace(0.1, 1.0, 10):
            at = np.searchsorted(curve.recall, recall)
            there = (curve.recall[at], curve.precision[at], curve.threshold[at])
            rank_rows.append([label, *map(float, there)])
        used = bins.counts > 0
        name = f"{label} (error {bins.error:.4f})"
        calibrated.append((Curve(name, bins.predicted[used], bins.replaced[used], place), bins.edges, bins.counts))
        for number in np.flatnonzero(used):
            span = f"{bins.edges[number]:.2f} to {bins.edges[number + 1]:.2f}"
            values = (float(bins.predicted[number]), float(bins.replaced[number]))
            bin_rows.append([label, span, int(bins.counts[number]), *values])
    if not ranked:
        return []
    return [
        figure(
            "Precision and recall",
            [precision_recall_plot(ranked)],
            table(["run", "recall", "precision", "probability from which on"], rank_rows),
            "AP is the average precision. Dotted: the share of replaced tokens, which guessing gets. "
            "The dot is where a probability of one half decides.",
        ),
        figure(
            "Calibration",
            [calibration_plot(calibrated)],
            table(["run", "probability", "tokens", "mean probability", "share replaced"], bin_rows),
            "On the dotted line a probability is what it says. The error is the mean distance of all tokens from it.",
        ),
    ]


def _groups(label: str, each: Examination, several: bool) -> Html:
    content = []
    for found in each.tables:
        columns = list(dict.fromkeys(name for row in found.rows.values() for name in row))
        rows = [[group, *(_places(row.get(name)) for name in columns)] for group, row in found.rows.items()]
        content.append(table([found.title, *map(metric_title, columns)], rows))
    return join([tag("h3", label) if several else None, content])


def _places(value: float | None) -> Child:
    """Four places, as `electra evaluate` prints."""
    return value if value is None or isinstance(value, int) else f"{value:.4f}"


# ------------------------------------------------------------------------------------------------------ samples

VERDICTS = {"+": "caught", "-": "missed", "!": "alarm"}
WORDS = {"caught": "caught", "missed": "missed", "alarm": "false alarm"}


def _legend() -> Html:
    return tag(
        "p",
        "Each token as the discriminator reads it; above a replaced one the original, below the probability of having "
        "been replaced: ",
        [
            [tag("span", tag("span", f"{mark} {WORDS[name]}", class_="verdict"), class_=name), ", "]
            for mark, name in VERDICTS.items()
        ],
        "the stronger the ground, the more probable.",
    )


def _rows(label: str, each: Examination, several: bool) -> Html:
    blocks = [
        join([_sample(sample, f"Held-out row {number}"), _sample_table(sample)])
        for number, sample in enumerate(each.samples, start=1)
    ]
    return join([tag("h3", label) if several else None, blocks])


def _sample(sample: Sample, title: str) -> Html:
    tokens = []
    for original, corrupted, mark, p in zip(
        sample.original, sample.corrupted, sample.marks(), sample.probability, strict=True
    ):
        ground = f"color-mix(in srgb, var(--s1) {45 * p:.0f}%, transparent)"
        tokens.append(
            tag(
                "span",
                tag("small", original if mark and original != corrupted else ""),
                tag("span", corrupted, class_="shown", style=f"background: {ground}"),
                tag("small", f"{mark} {p:.0%}" if mark else "", class_="verdict"),
                class_=f"token {VERDICTS.get(mark, '')}".strip(),
                title=f"{p:.1%}",
            )
        )
    return join([tag("h3", title), tag("div", tokens, class_="sample")])


def _sample_table(sample: Sample) -> Html:
    rows: list[Sequence[Child]] = [
        [place, original, corrupted, WORDS[VERDICTS[mark]], p]
        for place, (original, corrupted, mark, p) in enumerate(
            zip(sample.original, sample.corrupted, sample.marks(), sample.probability, strict=True), start=1
        )
        if mark
    ]
    return details(
        "Its replaced tokens and false alarms",
        tag("p", "Original: ", " ".join(sample.original)),
        table(["token", "original", "corrupted", "discriminator", "probability"], rows),
    )
