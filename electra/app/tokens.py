"""Judged tokens as HTML: each with its probability as a colour and as a number.

    `Replacement` -> original over token over verdict (+ caught, - missed, ! false alarm)       `Judgement` -> moves

Nobody depends on the colour, and a table says it all again for a screen reader.
"""

from __future__ import annotations

from electra.app.detection import Judgement, Replacement
from electra.pages.detection import VERDICTS, WORDS
from electra.pages.html import Child, Html, details, join, table, tag


def replacement_html(found: Replacement) -> Html:
    """What became of a text: a sentence, the tokens, and all of it as a table."""
    sample = found.sample
    marks = sample.marks()
    replaced, caught, alarms = sum(sample.replaced), marks.count("+"), marks.count("!")
    again = found.drawn - replaced
    sentence = [
        tag("b", f"{_count(replaced, 'token')} of {len(marks)} replaced"),
        f", {caught} caught" if replaced else "",
        f", {_count(alarms, 'false alarm')}" if alarms else "",
        f"; {again} of the drawn tokens {'is' if again == 1 else 'are'} what stood there" if again else "",
        ".",
    ]
    tokens: list[Html] = []
    rows: list[list[Child]] = []
    for place, (original, token, mark, p) in enumerate(
        zip(sample.original, sample.corrupted, marks, sample.probability, strict=True), start=1
    ):
        is_replaced = original != token
        name = VERDICTS.get(mark, "")
        verdict = WORDS[name] if name else "left as it is"
        title = f"{token}: {p:.1%} replaced ({verdict}{f'; was {original}' if is_replaced else ''})"
        tokens.append(_token(token, p, title, name, original if is_replaced else None, mark))
        rows.append([place, original, token if is_replaced else "", p, verdict])
    return join(
        [
            tag("p", sentence, class_="headline"),
            _left_out(found.left_out),
            _row(tokens, "The text with its replaced tokens"),
            _legend(),
            details("As a table", table(["token", "original", "replaced by", "probability", "verdict"], rows)),
        ]
    )


def judgement_html(found: Judgement) -> Html:
    """What the discriminator says of an edited text, and how far that moved."""
    tokens = []
    rows: list[list[Child]] = []
    is_edit = any(p is not None for p in found.before)
    for place, (token, p, before) in enumerate(zip(found.tokens, found.probability, found.before, strict=True), 1):
        move = _move(p, before) if is_edit else ""
        was = "new" if before is None else f"was {before:.1%}"
        title = f"{token}: {p:.1%} replaced" + (f" ({was})" if is_edit else "")
        tokens.append(_token(token, p, title, "alarm" if p > 0.5 else "", move or None))
        rows.append([place, token, p, before])
    suspects = sum(p > 0.5 for p in found.probability)
    head = ["token", "text", "probability", "before"]
    return join(
        [
            tag("p", tag("b", f"Looks replaced: {suspects or 'none'} of {_count(len(tokens), 'token')}"), "."),
            _left_out(found.left_out),
            _row(tokens, "The text as it stands"),
            details("As a table", table(head if is_edit else head[:-1], [row[: 3 + is_edit] for row in rows])),
        ]
    )


def _token(token: str, p: float, title: str, name: str, above: str | None, mark: str = "") -> Html:
    ground = f"background: color-mix(in srgb, var(--s2) {6 + 54 * p:.0f}%, transparent)" if p >= 0.005 else None
    return tag(
        "span",
        tag("small", above or "", class_="above"),
        tag("span", token, class_="shown", style=ground),
        tag("small", f"{mark} {p:.0%}".strip(), class_="verdict"),
        class_=f"token {name}".strip(),
        title=title,
        role="listitem",
    )


def _row(tokens: list[Html], label: str) -> Html:
    return tag("div", tokens, class_="sample", role="list", aria_label=label)


def _move(p: float, before: float | None) -> str:
    if before is None:
        return "new"
    points = round(100 * p) - round(100 * before)
    return f"{'▲' if points > 0 else '▼'}{abs(points)}" if points else ""


def _left_out(tokens: int) -> Html | None:
    return (
        tag("p", f"The last {_count(tokens, 'token')} did not fit into the model.", class_="note") if tokens else None
    )


def _legend() -> Html:
    marks = [
        [tag("span", tag("span", f"{mark} {WORDS[name]}", class_="verdict"), class_=name), ", "]
        for mark, name in VERDICTS.items()
    ]
    return tag(
        "p",
        "Below each token the probability that it was replaced, above a replaced one the original: ",
        marks,
        "the stronger the ground, the more probable.",
        class_="note",
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
