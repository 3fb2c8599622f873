"""Prediction: texts and a fine-tuned model folder -> a label and its score, or a value, for each, in their order.

    texts (options, file, standard input) -> `encode_texts` -> batches of similar length -> logits -> TSV or JSON lines

The same numbers as Hugging Face's pipeline("text-classification"): softmax over the labels, the bare output for a
regression. (A model with one output and no `problem_type` is taken for a regression, which it is; the pipeline
would put it through a sigmoid.)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from electra.config import PredictConfig
from electra.files import atomic_file, refuse_existing
from electra.interop.hf import Pretrained, load_pretrained
from electra.runtime import Runtime, start
from electra.tasks.classifier import SequenceClassifier, predict_logits
from electra.tasks.examples import SUFFIXES, get_column, read_table, read_text
from electra.tasks.features import encode_texts
from electra.tokenizer import Vocabulary

TextPair = tuple[str, str | None]

HEAD = {f"{layer}.{kind}" for layer in ("dense", "out_proj") for kind in ("weight", "bias")}


@dataclass(frozen=True)
class Prediction:
    """The answer for one text: `label` with `score` and all `scores`, or of a regression `value`."""

    label: str | None = None
    score: float = 0.0
    scores: dict[str, float] | None = None
    value: float = 0.0


@dataclass(frozen=True)
class Predictor:
    """A fine-tuned model that is ready to answer."""

    model: SequenceClassifier
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    max_length: int
    batch_size: int
    runtime: Runtime

    @property
    def is_regression(self) -> bool:
        return len(self.labels) == 1

    def __call__(self, texts: Sequence[TextPair]) -> list[Prediction]:
        """Answers in the order of the texts, each a text and a second one or None."""
        if not texts:
            return []
        features = encode_texts(self.vocabulary, [a for a, _ in texts], [b for _, b in texts], self.max_length)
        with self.runtime.autocast():
            logits = predict_logits(self.model, features, self.batch_size)
        if self.is_regression:
            return [Prediction(value=float(value)) for value in logits[:, 0]]
        return [self._label(row) for row in softmax(logits.astype(np.float64), axis=-1)]

    def _label(self, scores: np.ndarray) -> Prediction:
        best = int(scores.argmax())
        named = {name: float(score) for name, score in zip(self.labels, scores, strict=True)}
        return Prediction(self.labels[best], float(scores[best]), named)


def predict(config: PredictConfig) -> int:
    """Answer every text of `config` and write the answers; returns how many there were.

    Raises ValueError in a sentence if the model has no classification head, or a file is not what was said.
    """
    if config.out is not None:
        refuse_existing(config.out, config.overwrite)
    texts = read_texts(config)
    predictor = load_predictor(config)
    lines = format_predictions(predictor(texts), predictor.is_regression, config.format)
    if config.out is None:
        sys.stdout.writelines(lines)
        sys.stdout.flush()
    else:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(config.out, "w") as file:
            file.writelines(lines)
    return len(texts)


def load_predictor(config: PredictConfig) -> Predictor:
    """The model of `config.model`; ValueError if it has no classification head."""
    pretrained = load_pretrained(config.model)
    runtime = start(config.device, config.precision)
    model, labels = load_classifier(pretrained)
    limit = pretrained.config.max_positions
    if config.max_length > limit:
        raise ValueError(f"--max-length {config.max_length} is longer than the model can read ({limit})")
    return Predictor(
        model=model.to(runtime.device),
        vocabulary=pretrained.vocabulary,
        labels=labels,
        max_length=config.max_length or limit,
        batch_size=config.batch_size,
        runtime=runtime,
    )


def load_classifier(pretrained: Pretrained) -> tuple[SequenceClassifier, tuple[str, ...]]:
    """The classifier of a model folder and the names of its outputs, LABEL_0 ... where the folder has none."""
    head = {
        name.removeprefix("classifier."): value
        for name, value in pretrained.head_state.items()
        if name.startswith("classifier.")
    }
    if set(head) != HEAD:
        raise ValueError(f"{pretrained.source} has no classification head: fine-tune it first (electra finetune)")
    outputs, problem = len(head["out_proj.bias"]), pretrained.hf_config.get("problem_type")
    if problem == "multi_label_classification" or (problem == "regression" and outputs > 1):
        raise ValueError(f"{pretrained.source} gives a text several labels or values; predict gives one")
    names = pretrained.hf_config.get("id2label") or {}
    model = SequenceClassifier(pretrained.config, outputs)
    model.encoder.load_state_dict(pretrained.encoder_state)
    model.head.load_state_dict({name: value.to(torch.float32) for name, value in head.items()})
    return model, tuple(names.get(str(number), f"LABEL_{number}") for number in range(outputs))


def read_texts(config: PredictConfig) -> list[TextPair]:
    """The texts of the options, of the file, or of standard input."""
    if config.text:
        return [split_pair(text) for text in config.text]
    if config.file is None:
        return list(_lines(_standard_input()))
    if config.column:
        return list(_columns(config.file, config.column, config.pair_column))
    if config.file.suffix in SUFFIXES:
        raise ValueError(f"{config.file} has named columns: say with --column which one holds the text")
    return list(_lines(read_text(config.file)))


def split_pair(line: str) -> TextPair:
    """A line as one text, or as two with a tab between them."""
    first, tab, second = line.partition("\t")
    return first, second if tab else None


def format_predictions(predictions: Iterable[Prediction], is_regression: bool, kind: str) -> Iterator[str]:
    """Lines to write: TSV with a header line, or JSON objects."""
    if kind == "tsv":
        yield "value\n" if is_regression else "label\tscore\n"
    for found in predictions:
        if is_regression:
            yield f"{found.value:.6f}\n" if kind == "tsv" else json.dumps({"value": found.value}) + "\n"
        elif kind == "tsv":
            yield f"{found.label}\t{found.score:.6f}\n"
        else:
            row = {"label": found.label, "score": found.score, "scores": found.scores}
            yield json.dumps(row, ensure_ascii=False) + "\n"


def _lines(text: str) -> Iterator[TextPair]:
    """Each line is a text, an empty one too, so that the n-th answer belongs to the n-th line."""
    for line in text.removesuffix("\n").split("\n") if text else []:
        yield split_pair(line.removesuffix("\r"))


def _columns(path: Path, column: str, pair_column: str) -> Iterator[TextPair]:
    for line, row in read_table(path):
        text = get_column(row, column, path, line)
        yield text, get_column(row, pair_column, path, line) if pair_column else None


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 text (byte {error.start}): convert it first") from None
