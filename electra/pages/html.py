"""HTML that is escaped by construction: text goes in, and only what `tag` has made stays as it is.

    tag("p", "a < b", tag("b", "c"), class_="note")   ->   <p class="note">a &lt; b<b>c</b></p>

Above it the shapes that a report has: tables, figures with the table behind them, sections, and the page, which holds
its style and asks nothing of the network.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from electra.pages.style import STYLE

_VOID = ("meta", "br")
_NUMBER = re.compile(r"-?[\d,.]+(e[+-]\d+)?%?")


class Html(str):
    """Text that is HTML already."""


Child = str | int | float | None | Iterable["Child"]
"""What goes into an element: text and numbers, escaped; HTML as it is; None is nothing; lists of these."""


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """An element. `class_` is class, `data_x` is data-x; an attribute that is True stands alone, None or False not."""
    shown = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        shown += f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{join(children)}</{name}>")


def join(parts: Child) -> Html:
    """Children one after the other."""
    if parts is None:
        return Html("")
    if isinstance(parts, Html):
        return parts
    if isinstance(parts, str | int | float):
        return Html(html.escape(number(parts) if not isinstance(parts, str) else parts))
    return Html("".join(map(join, parts)))


def number(value: int | float | None) -> str:
    """'1,234', '0.123457' (six significant digits), and a dash for None."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], caption: str = "", words: bool = False) -> Html:
    """A table whose first column names its rows; it scrolls where it is wider than the page.

    Numbers stand at the right, unless all is to be read as `words`.
    """
    body = [list(row) for row in rows]

    def side(cells: Sequence[Child]) -> str | None:
        return "number" if not words and any(map(_is_number, cells)) else None

    columns = [[row[place] for row in body] for place in range(1, len(head))]
    heads = [tag("th", name, scope="col", class_=side(cells)) for name, cells in zip(head, [[], *columns], strict=True)]
    lines = [
        tag(
            "tr",
            tag("th", first, scope="row"),
            [tag("td", "–" if cell is None else cell, class_=side([cell])) for cell in rest],
        )
        for first, *rest in body
    ]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else None,
            tag("thead", tag("tr", heads)),
            tag("tbody", lines),
        ),
        class_="scroll",
        tabindex="0",  # so that the keyboard can scroll it
        role="region",
        aria_label=caption or f"table by {head[0]}",
    )


def _is_number(cell: Child) -> bool:
    """Also one that was written as text, and where one would stand."""
    return (
        cell is None or isinstance(cell, int | float) or (isinstance(cell, str) and _NUMBER.fullmatch(cell) is not None)
    )


def figure(title: str, pictures: Sequence[Html], behind: Html, note: str = "") -> Html:
    """Pictures of one thing, and the table of what they show."""
    return tag(
        "figure",
        tag("figcaption", tag("h3", title), tag("p", note) if note else None),
        tag("div", pictures, class_="pictures"),
        details("The numbers", behind),
        class_="wide" if len(pictures) > 1 else None,
    )


def details(title: str, *content: Child) -> Html:
    """Something that opens when asked to."""
    return tag("details", tag("summary", title), content)


def section(title: str, *content: Child) -> Html:
    return tag("section", tag("h2", title), content)


def page(title: str, head: Child, sections: Sequence[Html], generator: str, refresh: int = 0) -> str:
    """The whole file. `refresh`: seconds after which a browser loads it again, 0 for never."""
    return "<!DOCTYPE html>\n" + tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="generator", content=generator),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", http_equiv="refresh", content=refresh) if refresh else None,
            tag("title", title),
            tag("style", Html(STYLE)),
        ),
        tag("body", tag("header", tag("h1", title), head), tag("main", sections)),
        lang="en",
    )
