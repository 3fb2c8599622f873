"""The panels of fine-tuned models: what each kind asks for, and `electra predict`'s answer to it.

    predictor (predict.py) -> `task_panel` -> `TaskPanel`: fields, and values -> HTML (answers.py)

The second text of a pair is asked for where the name of the task says that there is one, and else may be left empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from electra.app.answers import question_html, sentence_html, tagged_html
from electra.app.fields import MAX_PASSAGE, Field, NumberField, TextField, Values, check_known
from electra.pages.html import Html, join, tag
from electra.tasks.catalogue import TASKS
from electra.tasks.predictor import Predictor
from electra.tasks.questions.files import Question
from electra.tasks.questions.predictor import QuestionPredictor
from electra.tasks.sentences.predictor import ChoicePredictor, SentencePredictor
from electra.tasks.sentences.task import SentenceTask
from electra.tasks.tagging.predictor import TaggingPredictor
from electra.tasks.tagging.schemes import find_entities
from electra.tokenizer import Vocabulary


@dataclass(frozen=True)
class TaskPanel:
    """What a tab asks for and what it answers."""

    about: str
    """One line that says what can be done here."""
    button: str
    fields: tuple[Field, ...]
    answer: Callable[[Values], Html]
    """From values that the fields have read; ValueError in a sentence."""


def task_panel(predictor: Predictor, task: str) -> TaskPanel:
    """The panel of a fine-tuned model; `task` is the name that its config.json gives its task, or nothing."""
    if isinstance(predictor, SentencePredictor):
        return _sentence_panel(predictor, task)
    if isinstance(predictor, ChoicePredictor):
        return _choice_panel(predictor)
    if isinstance(predictor, TaggingPredictor):
        return _tagging_panel(predictor)
    assert isinstance(predictor, QuestionPredictor)
    return _question_panel(predictor)


def _sentence_panel(predictor: SentencePredictor, task: str) -> TaskPanel:
    known = TASKS.get(task)
    is_pair = bool(known.pair) if isinstance(known, SentenceTask) else None
    first = TextField("text", "First text" if is_pair else "Text", lines=3)
    second = TextField("text2", "Second text", lines=3, optional=not is_pair)
    if is_pair is None:  # nothing says whether it was trained on pairs
        second = TextField("text2", "Second text, for a model that compares two", lines=2, optional=True)

    def answer(values: Values) -> Html:
        texts = _texts(values, (first, second) if is_pair is not False else (first,), predictor.vocabulary)
        encoded = predictor.encode([(texts[0], texts[1] if len(texts) > 1 and texts[1].strip() else None)])
        (found,) = predictor.answer(encoded)
        return join([sentence_html(found), _cut(encoded.truncated, predictor.max_length)])

    about = {
        "classification": f"Gives {'a pair of texts' if is_pair else 'a text'} one of {len(predictor.labels)} labels.",
        "multi-label": f"Gives a text any of {len(predictor.labels)} labels.",
        "regression": f"Gives {'a pair of texts' if is_pair else 'a text'} a number: {predictor.labels[0]}.",
    }[predictor.kind]
    button = "Rate" if predictor.kind == "regression" else "Classify"
    return TaskPanel(about, button, (first,) if is_pair is False else (first, second), answer)


def _choice_panel(predictor: ChoicePredictor) -> TaskPanel:
    question = TextField("text", "Question, or how a text begins", lines=2)
    choices = TextField("choices", "Choices, one a line", lines=4)

    def answer(values: Values) -> Html:
        text, lines = _texts(values, (question, choices), predictor.vocabulary)
        given = tuple(line.strip() for line in lines.splitlines() if line.strip())
        if not 2 <= len(given) <= 50:
            raise ValueError(f"{choices.label}: there are {len(given)}, and there must be from 2 to 50.")
        encoded = predictor.encode([(text, given)])
        (found,) = predictor.answer(encoded)
        named = {
            f"{place}. {choice}": p
            for place, (choice, p) in enumerate(zip(given, found.scores.values(), strict=True), 1)
        }
        best = max(named, key=named.__getitem__)
        shown = type(found)(best, named[best], named)
        return join([sentence_html(shown), _cut(encoded[0].truncated, predictor.max_length)])

    return TaskPanel("Chooses what fits a question best.", "Choose", (question, choices), answer)


def _tagging_panel(predictor: TaggingPredictor) -> TaskPanel:
    field = TextField("text", "Text", lines=4)
    types = list(
        dict.fromkeys(
            entity.type
            for label in sorted(predictor.labels)
            for entity in ([] if predictor.scheme == "plain" else find_entities([label], predictor.scheme))
        )
    )

    def answer(values: Values) -> Html:
        (text,) = _texts(values, (field,), predictor.vocabulary)
        (found,) = predictor([text])
        return tagged_html(text, found, types)

    about = f"Finds {len(types)} kinds of entities: {', '.join(types)}." if types else "Gives each word a tag."
    return TaskPanel(about, "Tag", (field,), answer)


def _question_panel(predictor: QuestionPredictor) -> TaskPanel:
    question = TextField("question", "Question", limit=1_000)
    passage = TextField("passage", "Passage", lines=8, limit=MAX_PASSAGE)
    threshold = NumberField(
        "threshold",
        "Threshold of the no-answer score",
        predictor.threshold,
        low=-1e6,
        high=1e6,
        slider=False,
        optional=True,
        info="Above it the answer is nothing; leave it empty to have always an answer.",
    )

    def answer(values: Values) -> Html:
        asked, text = _texts(values, (question, passage), predictor.vocabulary)
        (found,) = predictor([Question("1", asked, text)])
        limit = values[threshold.name]
        assert not isinstance(limit, str)
        return question_html(text, found.found, limit)

    about = "Answers a question with a part of the passage."
    return TaskPanel(about, "Answer", (question, passage, threshold), answer)


def _texts(values: Values, fields: tuple[TextField, ...], vocabulary: Vocabulary) -> list[str]:
    """The texts, of which the vocabulary knows something."""
    texts = [str(values[field.name] or "") for field in fields]
    for field, text, ids in zip(fields, texts, vocabulary.encode_batch(texts), strict=True):
        if text.strip() or not field.optional:
            check_known(field.label, ids, vocabulary)
    return texts


def _cut(truncated: int, limit: int) -> Html | None:
    return tag("p", f"Longer than {limit:,} tokens: the end was left out.", class_="note") if truncated else None
