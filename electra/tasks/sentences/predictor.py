"""Texts -> labels, values, several labels or choices, with fine-tuned model folders: `electra predict` for sentences.

    (text, second text or None) -> encode_texts -> `SequenceClassifier`s -> mean logits -> `Labelled`,
                                                                                      `Valued` or `Multiple`
    (question, its choices)     -> a row a choice -> `ChoiceClassifier`s -> mean logits -> `Labelled`, a choice

The same numbers as Hugging Face's pipeline("text-classification"): softmax over the labels, a sigmoid for each of
several, the bare output for a regression. (A model with one output and no `problem_type` is taken for a regression,
which it is; the pipeline would put it through a sigmoid.) Letters: N texts, R rows, C labels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy.special import expit, softmax

from electra.config import PredictConfig
from electra.interop.heads import head_from_hf
from electra.interop.hf import Pretrained
from electra.runtime import Runtime
from electra.tasks.features import Features, encode_texts
from electra.tasks.predictor import check_alike
from electra.tasks.sentences.classifier import ChoiceClassifier, SequenceClassifier, predict_logits
from electra.tasks.streams import read_texts
from electra.tokenizer import Vocabulary

TextPair = tuple[str, str | None]
Choice = tuple[str, tuple[str, ...]]
"""A question, and what may follow it."""

Model = TypeVar("Model", SequenceClassifier, ChoiceClassifier)

LABEL_THRESHOLD = 0.5
"""Probability from which on a label of several counts."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """The likeliest label, and what each one is worth; they sum to 1."""

    label: str
    score: float
    scores: dict[str, float]

    def tsv(self) -> str:
        return f"{self.label}\t{self.score:.6f}\n"

    def row(self) -> dict[str, Any]:
        return {"label": self.label, "score": self.score, "scores": self.scores}


@dataclass(frozen=True, slots=True)
class Multiple:
    """All labels that are likelier than not, perhaps none, and what each one is worth by itself."""

    labels: tuple[str, ...]
    scores: dict[str, float]

    def tsv(self) -> str:
        return f"{','.join(self.labels)}\t{','.join(f'{self.scores[label]:.6f}' for label in self.labels)}\n"

    def row(self) -> dict[str, Any]:
        return {"labels": self.labels, "scores": self.scores}


@dataclass(frozen=True, slots=True)
class Valued:
    """The value of a regression, on the scale of its training data."""

    value: float

    def tsv(self) -> str:
        return f"{self.value:.6f}\n"

    def row(self) -> dict[str, Any]:
        return {"value": self.value}


@dataclass(frozen=True)
class SentencePredictor:
    """`predictor.Predictor` for classification, regression and multi-label classification."""

    models: list[SequenceClassifier]
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    kind: str
    """classification, regression or multi-label"""
    max_length: int
    batch_tokens: int
    runtime: Runtime

    @property
    def header(self) -> str:
        if self.kind == "regression":
            return "value\n"
        return "labels\tscores\n" if self.kind == "multi-label" else "label\tscore\n"

    def read(self, config: PredictConfig) -> Iterator[TextPair]:
        for first, *others in read_texts(config):
            yield first, "\t".join(others) if others else None

    def encode(self, inputs: Sequence[TextPair | str]) -> Features:
        """A text without a second one may be the string alone."""
        pairs = [(text, None) if isinstance(text, str) else text for text in inputs]
        return encode_texts(self.vocabulary, [a for a, _ in pairs], [b for _, b in pairs], self.max_length)

    def answer(self, encoded: Features) -> Sequence[Labelled | Multiple | Valued]:
        logits = mean_logits(self.models, encoded, self.runtime, self.batch_tokens)
        if self.kind == "regression":
            return [Valued(value) for value in logits[:, 0].tolist()]
        if self.kind == "multi-label":
            return [self._several(row) for row in expit(logits).tolist()]
        return [best_label(self.labels, row) for row in softmax(logits, axis=-1).tolist()]

    def __call__(self, inputs: Sequence[TextPair | str]) -> Sequence[Labelled | Multiple | Valued]:
        return self.answer(self.encode(inputs)) if inputs else []

    def _several(self, scores: list[float]) -> Multiple:
        named = dict(zip(self.labels, scores, strict=True))
        return Multiple(tuple(name for name, score in named.items() if score > LABEL_THRESHOLD), named)


@dataclass(frozen=True)
class ChoicePredictor:
    """`predictor.Predictor` for multiple choice: any number of choices for each question."""

    models: list[ChoiceClassifier]
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    """Of the choices in their order; a question with another number of them has 0, 1, ..."""
    max_length: int
    batch_tokens: int
    runtime: Runtime

    @property
    def header(self) -> str:
        return "label\tscore\n"

    def read(self, config: PredictConfig) -> Iterator[Choice]:
        for number, (question, *choices) in enumerate(read_texts(config), start=1):
            if len(choices) < 2:
                raise ValueError(
                    f"input {number} has {len(choices)} choices: give the question and at least two, tabs between them "
                    "(or --column and --choice-columns)"
                )
            yield question, tuple(choices)

    def encode(self, inputs: Sequence[Choice]) -> tuple[Features, list[int]]:
        """Features with a row for each choice, and how many each question has."""
        questions = [question for question, choices in inputs for _ in choices]
        choices = [choice for _, choices in inputs for choice in choices]
        features = encode_texts(self.vocabulary, questions, choices, self.max_length)
        return features, [len(choices) for _, choices in inputs]

    def answer(self, encoded: tuple[Features, list[int]]) -> Sequence[Labelled]:
        features, counts = encoded
        logits = mean_logits(self.models, features, self.runtime, self.batch_tokens)[:, 0]
        bounds = itertools.pairwise(itertools.accumulate(counts, initial=0))
        return [self._choice(softmax(logits[begin:end]).tolist()) for begin, end in bounds]

    def __call__(self, inputs: Sequence[Choice]) -> Sequence[Labelled]:
        return self.answer(self.encode(inputs)) if inputs else []

    def _choice(self, scores: list[float]) -> Labelled:
        fits = len(scores) == len(self.labels)
        return best_label(self.labels if fits else tuple(map(str, range(len(scores)))), scores)


def load_sentence_predictor(
    models: Sequence[Pretrained], runtime: Runtime, max_length: int, batch_tokens: int
) -> SentencePredictor:
    """ValueError where the folders differ in vocabulary or labels, or give a text several values."""
    first = models[0]
    labels = [label_names(model, len(model.head_state["classifier.out_proj.bias"])) for model in models]
    check_alike(models, labels)
    problem = first.hf_config.get("problem_type")
    kind = "classification"
    if problem == "multi_label_classification":
        kind = "multi-label"
    elif problem == "regression" or len(labels[0]) == 1:
        kind = "regression"
    if kind == "regression" and len(labels[0]) > 1:
        raise ValueError(f"{first.source} gives a text {len(labels[0])} values; predict gives one")
    return SentencePredictor(
        models=[_load(SequenceClassifier(model.config, len(labels[0])), model, runtime) for model in models],
        vocabulary=first.vocabulary,
        labels=labels[0],
        kind=kind,
        max_length=max_length,
        batch_tokens=batch_tokens,
        runtime=runtime,
    )


def load_choice_predictor(
    models: Sequence[Pretrained], runtime: Runtime, max_length: int, batch_tokens: int
) -> ChoicePredictor:
    """ValueError where the folders differ in vocabulary or labels."""
    labels = [tuple(str(name) for name in (model.hf_config.get("id2label") or {}).values()) for model in models]
    check_alike(models, labels)
    return ChoicePredictor(
        # One choice a row: their number does not matter to the head.
        models=[_load(ChoiceClassifier(model.config, 1), model, runtime) for model in models],
        vocabulary=models[0].vocabulary,
        labels=() if all(name.startswith("LABEL_") for name in labels[0]) else labels[0],
        max_length=max_length,
        batch_tokens=batch_tokens,
        runtime=runtime,
    )


def _load(model: Model, pretrained: Pretrained, runtime: Runtime) -> Model:
    model.encoder.load_state_dict(pretrained.encoder_state)
    head = head_from_hf(pretrained.network.tensors, pretrained.network.architecture, pretrained.config)
    model.head.load_state_dict({name: tensor.float() for name, tensor in head.items()})
    return model.to(runtime.device)


def mean_logits(
    models: Sequence[SequenceClassifier] | Sequence[ChoiceClassifier],
    features: Features,
    runtime: Runtime,
    batch_tokens: int,
) -> np.ndarray:
    """(R, C) float64, the mean over the models."""
    with runtime.autocast():
        logits = np.stack([predict_logits(model, features, batch_tokens) for model in models])
    return np.asarray(logits.mean(axis=0, dtype=np.float64))


def best_label(labels: Sequence[str], scores: list[float]) -> Labelled:
    """Of probabilities (C,); the first of equal ones."""
    best = max(range(len(scores)), key=scores.__getitem__)
    return Labelled(labels[best], scores[best], dict(zip(labels, scores, strict=True)))


def label_names(model: Pretrained, outputs: int) -> tuple[str, ...]:
    """The names of a model's outputs, LABEL_0 ... where the folder has none."""
    names = model.hf_config.get("id2label") or {}
    return tuple(str(names.get(str(number), f"LABEL_{number}")) for number in range(outputs))
