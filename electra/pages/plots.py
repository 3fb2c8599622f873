"""Pictures of a report: drawn by matplotlib, written as SVG that lives inside the page.

matplotlib lays out axes, ticks and curves; here its colours are exchanged for those of the page's style sheet, so that
a picture follows dark and light, and it gets a title and a description that a screen reader speaks. Text stays text.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from electra.pages.html import Html, number, tag
from electra.pages.style import SERIES

_INK, _GRID, _PAPER = "#010101", "#020202", "#030303"  # stand for colours of the style sheet
_COLOURS = {_INK: "currentColor", _GRID: "var(--line)", _PAPER: "var(--paper)"} | {
    f"#0000f{n}": f"var(--s{n})" for n in range(1, SERIES + 1)
}
_DASHES = ("-", (0, (6, 1.5, 1, 1.5)), (0, (1, 1)))  # when there are more curves than colours
POINTS = 300
"""Points of a curve that are drawn, at most; of a longer one the mean of each stretch in a band of its extremes."""
_WIDTH, _HEIGHT = 6.4, 3.4  # inches of 72 units


@dataclass(frozen=True)
class Curve:
    """(N,) points of one training, by rising x."""

    label: str
    xs: np.ndarray
    ys: np.ndarray
    series: int  # its colour, from 0
    is_held_out: bool = False  # a dot for each evaluation, joined by dashes
    trial: str = ""  # of several that have one label and one colour

    def stretches(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, lowest, mean and highest y of each of (POINTS,) stretches, so that no peak is lost."""
        parts = np.array_split(np.arange(len(self.xs)), POINTS)
        x, mean = (np.array([values[part].mean() for part in parts]) for values in (self.xs, self.ys))
        low, high = (np.array([extreme(self.ys[part]) for part in parts]) for extreme in (np.min, np.max))
        return x, low, mean, high

    def in_words(self, unit: str) -> str:
        name = " ".join(filter(None, (self.label, self.trial)))
        first, last = ((number(float(self.ys[n])), _place(self.xs[n])) for n in (0, -1))
        if len(self.xs) == 1:
            return f"{name}: {first[0]} at {unit} {first[1]}."
        low, high = number(float(self.ys.min())), number(float(self.ys.max()))
        return (
            f"{name}: {len(self.xs):,} points from {first[0]} at {unit} {first[1]} to {last[0]} at {last[1]}, "
            f"lowest {low}, highest {high}."
        )


def _place(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 or x == int(x) else f"{x:.3g}"


def curves_plot(
    title: str,
    curves: Sequence[Curve],
    *,
    unit: str,
    xlabel: str,
    percent: bool = False,
    log: bool = False,
    marks: Mapping[float, str] | None = None,
    top: tuple[Sequence[float], Sequence[float], str] | None = None,
) -> Html:
    """Curves over steps, tokens or time.

    `unit` is what x counts, in words. With `log` values that span more than a factor of 20 are on a logarithmic scale.
    `marks` are vertical lines with their names. `top` is a second x axis: places (K,) on the first one, the values (K,)
    there, both rising, and its label.
    """

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for curve in curves:
            xs, ys, colour = curve.xs, curve.ys, _series(curve.series)
            if len(xs) > POINTS:  # the mean, and around it a band from the lowest to the highest
                xs, low, ys, high = curve.stretches()
                axes.fill_between(xs, low, high, color=colour, alpha=0.25, linewidth=0)
            dash = _DASHES[curve.series // SERIES % len(_DASHES)]
            style: dict[str, Any] = {"linestyle": dash, "linewidth": 1.6}
            if curve.is_held_out:
                style = {"linestyle": (0, (3, 2)), "linewidth": 1.2}
                if len(xs) <= 40:
                    style |= {"marker": "o", "markersize": 3.5, "clip_on": False}
            elif len(xs) == 1:
                style = {"marker": "s", "markersize": 4, "linestyle": "none", "clip_on": False}
            axes.plot(xs, ys, color=colour, **style)
        least, most = min(float(curve.ys.min()) for curve in curves), max(float(curve.ys.max()) for curve in curves)
        if log and least > 0 and most > 20 * least:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: _tick(value))
        end = max(float(curve.xs[-1]) for curve in curves)
        axes.set_xlim(0, end or 1)
        axes.set_xlabel(xlabel)
        axes.xaxis.set_major_formatter(lambda value, _: _tick(value))
        axes.xaxis.get_major_locator().set_params(nbins=6)
        if percent:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
        elif most >= 10_000 or most < 1e-3:
            axes.yaxis.set_major_formatter(lambda value, _: _tick(value))
        for place, name in (marks or {}).items():
            axes.axvline(place, color=_INK, linewidth=0.8, linestyle=(0, (1, 2)))
            axes.annotate(
                name, (place, 1), xycoords=("data", "axes fraction"), xytext=(-3, -3), textcoords="offset points",
                ha="right", va="top", fontsize=8, bbox={"facecolor": _PAPER, "edgecolor": "none", "pad": 1},
            )  # fmt: skip
        if top is not None:
            places, values = ([*knots, 3 * knots[-1] - 2 * knots[-2]] for knots in top[:2])  # ticks may lie beyond
            second = axes.secondary_xaxis(
                "top",
                functions=(lambda x: np.interp(x, places, values), lambda y: np.interp(y, values, places)),
            )
            second.set_xlabel(top[2])
            second.xaxis.set_major_formatter(lambda value, _: _tick(value))
        _legend(figure, axes, [curve.label for curve in curves])

    words = [curve.in_words(unit) for curve in curves]
    return draw(title, f"Over {xlabel}. {' '.join(words)}", paint)


def _tick(value: float) -> str:
    """'2.5k', '30M'."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def precision_recall_plot(curves: Sequence[tuple[Curve, float, tuple[float, float]]]) -> Html:
    """Each with the share of replaced tokens, and (recall, precision) where a probability of one half decides."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for curve, share, (recall, precision) in curves:
            colour = _series(curve.series)
            axes.plot(curve.xs, curve.ys, color=colour, linewidth=1.6)
            axes.axhline(share, color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
            axes.plot([recall], [precision], color=colour, marker="o", markersize=5, linestyle="none")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        _legend(figure, axes, [curve.label for curve, *_ in curves], each=3)

    words = [
        f"{curve.label}: precision {_at(curve, 0.1):.3f} at recall 0.1, {_at(curve, 0.5):.3f} at 0.5, "
        f"{_at(curve, 0.9):.3f} at 0.9; {share:.3f} of the tokens are replaced; at probability one half recall "
        f"{point[0]:.3f} and precision {point[1]:.3f}."
        for curve, share, point in curves
    ]
    return draw("Precision over recall", " ".join(words), paint)


def _at(curve: Curve, x: float) -> float:
    return float(np.interp(x, curve.xs, curve.ys))


def calibration_plot(curves: Sequence[tuple[Curve, np.ndarray, np.ndarray]]) -> Html:
    """Share of replaced tokens over the probability given, each with edges (N + 1,) and tokens (N,) of all bins."""

    def paint(figure: Any) -> None:
        axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=(0, (1, 2)))
        for curve, edges, counts in curves:
            axes.plot(curve.xs, curve.ys, color=_series(curve.series), marker="o", markersize=3.5, linewidth=1.4)
            below.stairs(counts, edges, color=_series(curve.series), linewidth=1.2)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share replaced")
        below.set(xlabel="probability that the discriminator gives", ylabel="tokens", yscale="log")
        below.yaxis.set_major_formatter(lambda value, _: _tick(value))
        below.tick_params(axis="y", which="minor", left=False)
        _legend(figure, axes, [curve.label for curve, *_ in curves], first=1)

    words = [
        f"{curve.label}: "
        + ", ".join(f"{y:.2f} where it says {x:.2f}" for x, y in zip(curve.xs, curve.ys, strict=True))
        + "."
        for curve, *_ in curves
    ]
    return draw("Calibration: share of replaced tokens", " ".join(words), paint, height=4.2)


def spread_plot(metric: str, rows: Sequence[tuple[str, Sequence[float]]]) -> Html:
    """The trials of several runs as dots, a bar at the median."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for place, (_, values) in enumerate(rows):
            colour = _series(place)
            axes.plot(
                values, [place] * len(values), color=colour, marker="o", markersize=6, linestyle="none", alpha=0.7
            )
            axes.plot([np.median(values)], [place], color=_INK, marker="|", markersize=16, markeredgewidth=2)
        axes.set_yticks(range(len(rows)), [_short(name) for name, _ in rows])
        axes.set(xlabel=metric, ylim=(len(rows) - 0.5, -0.5))

    words = [
        f"{name}: median {np.median(values):.4f} of {len(values)}, from {min(values):.4f} to {max(values):.4f}."
        for name, values in rows
    ]
    return draw(f"{metric} of each trial", " ".join(words), paint, height=1.0 + 0.4 * len(rows))


def _series(place: int) -> str:
    return f"#0000f{place % SERIES + 1}"


def _short(name: str, length: int = 34) -> str:
    """A name that fits, its middle left out; a legend would hide one that begins with an underscore."""
    short = name if len(name) <= length else f"{name[: length // 2]}…{name[-length // 2 + 1 :]}"
    return f" {short}" if short.startswith("_") else short


def _legend(figure: Any, axes: Any, names: Sequence[str], each: int = 1, first: int = 0) -> None:
    """Names below the axes; a curve is drawn as `each` lines, after `first` that have no name."""
    lines = dict(zip(reversed(names), reversed(axes.lines[first:][::each][: len(names)]), strict=True))
    handles, labels = zip(*((lines[name], _short(name)) for name in dict.fromkeys(names)), strict=True)
    columns = max(1, min(3, len(labels), 60 // (max(map(len, labels)) + 6)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


# -------------------------------------------------------------------------------------------------- matplotlib to SVG

_NAMES = itertools.count()


def draw(title: str, description: str, paint: Callable[[Any], None], height: float = _HEIGHT) -> Html:
    """What `paint` draws on a matplotlib figure, as an element of the page."""
    matplotlib, figure_class = _matplotlib()
    file = io.StringIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters that its font lacks the reader's will have
        figure = figure_class(figsize=(_WIDTH, height), layout="constrained")
        paint(figure)
        for axes in figure.axes:
            axes.grid(True, color=_GRID, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _inline(file.getvalue(), f"plot{next(_NAMES)}", title, description)


_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "electra",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


def _inline(text: str, name: str, title: str, description: str) -> Html:
    """matplotlib's file as an element: colours of the page, names of its own, and what a screen reader says."""
    view = re.search(r'viewBox="([^"]*)"', text)
    assert view is not None, "matplotlib writes a viewBox"
    body = text[text.index(">", view.end()) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>|<!--.*?-->|<defs>\s*</defs>", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", body).replace("xlink:href", "href")
    for sign, colour in _COLOURS.items():
        body = body.replace(sign, colour)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", body)
    body = re.sub(r' (?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)  # half the bytes
    body = re.sub(r"\s*\n\s*", "\n", body)
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-desc"),
        Html(body),
        class_="plot",
        viewBox=view[1],
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def _matplotlib() -> tuple[Any, Any]:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("electra report needs matplotlib: pip install 'electra-toolkit[plot]'") from None
    return matplotlib, Figure
