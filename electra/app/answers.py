"""The answers of `electra predict` as HTML: bars of probabilities, a value, entities in their text, an answer's span.

Every colour has a word or a number beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from electra.pages.html import Child, Html, details, join, table, tag
from electra.pages.style import SERIES
from electra.tasks.questions.answers import Answer
from electra.tasks.sentences.predictor import LABEL_THRESHOLD, Labelled, Multiple, Valued
from electra.tasks.tagging.predictor import TaggedText

MOST_LABELS = 50
"""Bars that are drawn, of a model with hundreds of labels."""
MOST_CANDIDATES = 10
"""Answers that are listed."""
CANDIDATES = "The best answers, how probability is shared among them, and the scores of their begins and ends"


def sentence_html(answer: Labelled | Multiple | Valued) -> Html:
    """What a text, a pair or a question with choices was given."""
    if isinstance(answer, Valued):
        return tag("p", tag("b", f"{answer.value:.4g}", class_="big"), class_="headline")
    if isinstance(answer, Multiple):
        named = ", ".join(answer.labels) or "No label"
        note = f"Each label has a probability of its own; those above {LABEL_THRESHOLD:.0%} count."
        return join([_headline(named), _bars(answer.scores, set(answer.labels)), tag("p", note, class_="note")])
    return join([_headline(answer.label, answer.score), _bars(answer.scores, {answer.label})])


def tagged_html(text: str, answer: TaggedText, types: Sequence[str]) -> Html:
    """A text with its entities, or with a tag under each word where the labels name none (`types` is empty)."""
    units = table(
        ["word", "tag", "probability"],
        [[unit.text, name, p] for unit, name, p in zip(answer.units, answer.tags, answer.scores, strict=True)],
    )
    if not types:
        rows = zip(answer.units, answer.tags, answer.scores, strict=True)
        words = [
            tag(
                "span",
                tag("span", unit.text, class_="shown"),
                tag("small", name, class_="verdict"),
                class_="token",
                title=f"{unit.text}: {name} ({p:.1%})",
                role="listitem",
            )
            for unit, name, p in rows
        ]
        shown = tag("div", words, class_="sample", role="list", aria_label="The words with their tags")
        return join([shown, details("As a table", units)])
    parts: list[Child] = []
    at = 0
    for entity in answer.entities:
        series = f"--ground: var(--s{types.index(entity.type) % SERIES + 1})"
        mark = tag(
            "mark", entity.text, tag("small", entity.type), style=series, title=f"{entity.type} {entity.score:.1%}"
        )
        parts += [text[at : entity.start], mark]
        at = entity.end
    found = len(answer.entities)
    listed = table(
        ["text", "type", "probability", "characters"],
        [[each.text, each.type, f"{each.score:.1%}", f"{each.start} to {each.end}"] for each in answer.entities],
    )
    return join(
        [
            _headline(f"{found} {'entity' if found == 1 else 'entities'}" if found else "No entity found"),
            tag("p", parts, text[at:], class_="passage"),
            listed if found else None,
            details("Each word", units),
        ]
    )


def question_html(passage: str, answer: Answer, threshold: float | None) -> Html:
    """The answer, where it stands in the passage, the next best ones, and what speaks for none."""
    best, given = answer.candidates[0], answer.given(threshold)
    if given:
        head = _headline(given, best.probability)
    else:
        head = _headline("No answer", note=f"the best span would be “{best.text}”" if best.text else "")
    span = tag("mark", passage[best.begin : best.end], class_="" if given else "unsure")
    shown = answer.candidates[:MOST_CANDIDATES]
    rows = [
        [each.text, f"{each.probability:.1%}", f"{each.start_score:.2f}", f"{each.end_score:.2f}"] for each in shown
    ]
    return join(
        [
            head,
            tag("p", passage[: best.begin], span, passage[best.end :], class_="passage") if best.text else None,
            tag("p", _no_answer(answer.null_odds, threshold), class_="note"),
            table(["answer", "share", "begin", "end"], rows, CANDIDATES) if best.text else None,
        ]
    )


def _no_answer(odds: float | None, threshold: float | None) -> str:
    if odds is None:
        return "This model always answers."
    if threshold is None:
        return f"No-answer score {odds:.2f}; without a threshold there is always an answer."
    side, does = ("above", "is no answer") if odds > threshold else ("not above", "is an answer")
    return f"No-answer score {odds:.2f}, {side} the threshold of {threshold:.2f}: there {does}."


def _headline(text: str, probability: float | None = None, note: str = "") -> Html:
    return tag(
        "p",
        tag("b", text),
        tag("span", f" {probability:.1%}", class_="note") if probability is not None else None,
        tag("span", f" {note}", class_="note") if note else None,
        class_="headline",
    )


def _bars(scores: Mapping[str, float], chosen: set[str]) -> Html:
    """A bar for each label, the longest first."""
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    rows = [
        tag(
            "tr",
            tag("th", label, scope="row"),
            tag("td", tag("span", class_="bar", style=f"width: {100 * p:.2f}%"), class_="track"),
            tag("td", f"{p:.1%}", class_="number"),
            class_="chosen" if label in chosen else None,
        )
        for label, p in ranked[:MOST_LABELS]
    ]
    more = len(ranked) - len(rows)
    return join(
        [
            tag("table", tag("tbody", rows), class_="bars", aria_label="Probabilities of the labels"),
            tag("p", f"and {more:,} less likely labels", class_="note") if more else None,
        ]
    )
