"""Tags of tokens and the entities they stand for: five ways of writing them, and the official scores.

    tags (B-PER I-PER O ...) <-> `Entity` (first unit, end, type);  gold and predicted tags -> `score_tags` (seqeval)

    iob1    I-X, and B-X only where an entity follows another one of its type (CoNLL-2003's own files)
    iob2    B-X opens every entity (CoNLL-2000; what most call BIO)
    bioes   B-X I-X E-X, S-X for an entity of one unit (what Google's chunking learns)
    suffix  X-B X-I (Naver NER)
    plain   a tag is a class of its own: parts of speech

Entities are read as conlleval reads them, which is seqeval's default: an I-X after something else opens one too, so
that every sequence a model can produce has a reading. A unit is a word, or a character where characters have tags.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

Scheme = Literal["iob1", "iob2", "bioes", "suffix", "plain"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
OUTSIDE = "O"
_POSITIONS = {"iob1": "BI", "iob2": "BI", "bioes": "BIES", "suffix": "BI"}


@dataclass(frozen=True, slots=True)
class Entity:
    """Units `start` to `end` - 1 of a sentence."""

    start: int
    end: int
    type: str


@functools.lru_cache(maxsize=4096)  # there are few tags and many words
def split_tag(tag: str, scheme: Scheme) -> tuple[str, str]:
    """A tag as position (B, I, E, S; O for none) and type; what is no tag of the scheme counts as O."""
    if scheme == "suffix":
        kind, dash, position = tag.rpartition("-")
    else:
        position, dash, kind = tag.partition("-")
    is_tag = dash and kind and len(position) == 1 and position in _POSITIONS.get(scheme, "")
    return (position, kind) if is_tag else (OUTSIDE, "")


def is_tag_of(tag: str, scheme: Scheme) -> bool:
    """Whether `scheme` has such a tag."""
    return scheme == "plain" or tag == OUTSIDE or split_tag(tag, scheme)[0] != OUTSIDE


def entity_types(tags: Iterable[str], scheme: Scheme) -> list[str]:
    """The types that occur, sorted; of the scheme plain none."""
    return sorted({split_tag(tag, scheme)[1] for tag in tags} - {""})


def find_entities(tags: Sequence[str], scheme: Scheme) -> list[Entity]:
    """The entities of a sentence in their order, as conlleval and seqeval's default mode find them."""
    found, start, before, kind_before = [], 0, OUTSIDE, ""
    for index, tag in enumerate([*tags, OUTSIDE]):
        position, kind = split_tag(tag, scheme)
        opens = position in "BS" or before in "OES" or kind != kind_before
        if before != OUTSIDE and (position == OUTSIDE or opens):
            found.append(Entity(start, index, kind_before))
        if position != OUTSIDE and opens:
            start = index
        before, kind_before = position, kind
    return found


def find_google_entities(tags: Sequence[str], scheme: Scheme) -> list[Entity]:
    """The entities as Google's chunking scores them (google-research/electra finetune/tagging/tagging_utils.py).

    Only B, S and O end an entity, and its last tag names it. Of well-formed tags it finds what `find_entities` does.
    """
    found, start, before, kind_before = [], 0, OUTSIDE, ""
    for index, tag in enumerate([*tags, OUTSIDE]):
        position, kind = split_tag(tag, scheme)
        if position in "BSO" and before != OUTSIDE:
            found.append(Entity(start, index, kind_before))
        if position in "BS" or before == OUTSIDE:
            start = index
        before, kind_before = position, kind
    return found


def write_entities(entities: Iterable[Entity], length: int, scheme: Scheme) -> list[str]:
    """The tags of a sentence of `length` units with these entities, which are in order and do not overlap."""
    tags = [OUTSIDE] * length
    last = Entity(-1, -1, "")
    for entity in entities:
        positions = ["I"] * (entity.end - entity.start)
        if scheme != "iob1" or (last.end == entity.start and last.type == entity.type):
            positions[0] = "B"
        if scheme == "bioes":
            positions[-1] = "S" if len(positions) == 1 else "E"
        for index, position in zip(range(entity.start, entity.end), positions, strict=True):
            tags[index] = f"{entity.type}-{position}" if scheme == "suffix" else f"{position}-{entity.type}"
        last = entity
    return tags


def convert_tags(tags: Sequence[str], source: Scheme, target: Scheme) -> list[str]:
    """The same entities in another scheme; unchanged in the same one, ill-formed sequences too."""
    if source == target or "plain" in (source, target):
        return list(tags)
    return write_entities(find_entities(tags, source), len(tags), target)


def inside(tag: str, scheme: Scheme) -> str:
    """The tag of the next unit of the same entity: I-X after B-X. A plain tag or O goes on as it is."""
    position, kind = split_tag(tag, scheme)
    if position == OUTSIDE:
        return tag
    return f"{kind}-I" if scheme == "suffix" else f"I-{kind}"


def detect_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme that most of the tags belong to, each time they occur; plain if most belong to none.

    Not of the distinct ones: typing errors are few, but each is another tag.

    iob1 and iob2 have the same tags: it is iob1 where a B-X never stands except after an entity of type X.
    """
    sequences = list(sentences)
    counts = Counter(tag for tags in sequences for tag in tags if tag != OUTSIDE)
    if not counts:
        return "iob2"
    belonging: dict[Scheme, int] = {
        scheme: sum(count for tag, count in counts.items() if is_tag_of(tag, scheme)) for scheme in ("bioes", "suffix")
    }
    shares = {scheme: count / counts.total() for scheme, count in belonging.items()}
    if shares["suffix"] > 0.5 and shares["suffix"] > shares["bioes"]:
        return "suffix"
    if shares["bioes"] <= 0.5:
        return "plain"
    if any(split_tag(tag, "bioes")[0] in "ES" for tag in counts):
        return "bioes"
    opening = [
        (tags[index - 1] if index else OUTSIDE)[2:] == tag[2:]
        for tags in sequences
        for index, tag in enumerate(tags)
        if tag.startswith("B-")
    ]
    has_inside_opening = any(opens_inside(tags, "iob2") for tags in sequences)
    return "iob1" if all(opening) and has_inside_opening else "iob2"


def opens_inside(tags: Sequence[str], scheme: Scheme) -> list[int]:
    """The units at which an entity begins with an I (or E), which a well-formed sequence has in iob1 alone."""
    return [entity.start for entity in find_entities(tags, scheme) if split_tag(tags[entity.start], scheme)[0] in "IE"]


def label_set(tags: Iterable[str], scheme: Scheme) -> tuple[str, ...]:
    """The tags of the scheme that occur, O first, then by type and position; plain tags sorted, without a first."""
    distinct = {tag for tag in tags if is_tag_of(tag, scheme)}
    if scheme == "plain":
        return tuple(sorted(distinct))
    entities = sorted(distinct - {OUTSIDE}, key=lambda tag: split_tag(tag, scheme)[::-1])
    return (OUTSIDE, *entities)


def score_tags(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: Scheme,
    types: Sequence[str] = (),
    strict: bool = False,
) -> dict[str, float]:
    """f1, precision, recall over entities, accuracy over units, macro_f1 over types, and f1_X of each of `types`.

    The numbers are seqeval's: in its default mode, which is conlleval's; with `strict` (KLUE's measure) only entities
    that the scheme writes so count. Of plain tags: accuracy, and macro_f1 over the tags (scikit-learn's).
    A score that is undefined is 0.
    """
    flat_gold, flat_predicted = _flat(gold), _flat(predicted)
    assert len(flat_gold) == len(flat_predicted) > 0, "as many predicted tags as gold ones, and some"
    accuracy = float(np.mean([a == b for a, b in zip(flat_gold, flat_predicted, strict=True)]))
    if scheme == "plain":
        return {"accuracy": accuracy, "macro_f1": macro_f1(gold, predicted, sorted({*flat_gold, *flat_predicted}))}
    truth, answers = [list(tags) for tags in gold], [list(tags) for tags in predicted]
    precision, recall, f1 = map(float, _seqeval(truth, answers, scheme, strict, "micro")[:3])
    of_type = dict(
        zip(
            sorted(_found_types(truth, scheme, strict) | _found_types(answers, scheme, strict)),
            map(float, _seqeval(truth, answers, scheme, strict, None)[2]),
            strict=True,
        )
    )
    macro = float(np.mean(list(of_type.values()))) if of_type else 0.0
    found = {"f1": f1, "precision": precision, "recall": recall, "accuracy": accuracy, "macro_f1": macro}
    return found | {f"f1_{kind}": of_type.get(kind, 0.0) for kind in types}


def macro_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], labels: Sequence[str]) -> float:
    """The mean F1 of `labels` over units (KLUE's `char_macro_f1`); 1 for one that neither side has, as KLUE has it."""
    from sklearn.metrics import f1_score

    found = f1_score(_flat(gold), _flat(predicted), labels=list(labels), average="macro", zero_division=1.0)
    return float(found)


def google_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: Scheme) -> float:
    """F1 of the entities that Google's chunking counts (`EntityLevelF1Scorer`); 0 where nothing is right."""
    counts = np.zeros(3)
    for tags, answer in zip(gold, predicted, strict=True):
        truth, found = set(find_google_entities(tags, scheme)), set(find_google_entities(answer, scheme))
        counts += (len(truth & found), len(truth), len(found))
    right, of_gold, of_predicted = counts
    return float(2 * right / (of_gold + of_predicted)) if right else 0.0


def _found_types(sentences: list[list[str]], scheme: Scheme, strict: bool) -> set[str]:
    """The types for which seqeval gives a score each, in the order of their names."""
    if strict:
        from seqeval.scheme import Entities

        return set(Entities(sentences, _strict_rule(scheme)).unique_tags)
    return {entity.type for tags in sentences for entity in find_entities(tags, scheme)}


def _seqeval(
    gold: list[list[str]], predicted: list[list[str]], scheme: Scheme, strict: bool, average: str | None
) -> tuple[Any, Any, Any, Any]:
    """Precision, recall, F1 and support, over all entities ("micro") or for each type (None)."""
    from seqeval.metrics import sequence_labeling, v1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of undefined scores, which are 0 here
        if strict:
            rule = _strict_rule(scheme)
            return v1.precision_recall_fscore_support(gold, predicted, average=average, scheme=rule, zero_division=0)
        suffix = scheme == "suffix"
        return sequence_labeling.precision_recall_fscore_support(
            gold, predicted, average=average, suffix=suffix, zero_division=0
        )


def _strict_rule(scheme: Scheme) -> Any:
    """The class of seqeval that says what is well-formed."""
    from seqeval.scheme import IOB2, IOBES

    assert scheme in ("iob2", "bioes"), scheme
    return IOBES if scheme == "bioes" else IOB2


def _flat(sentences: Sequence[Sequence[str]]) -> list[str]:
    return [tag for tags in sentences for tag in tags]
