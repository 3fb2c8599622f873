"""Sentence tasks for fine-tuning: one answer to a text, a pair of texts, or a question with choices.

    files -> examples.py (rows, labels) -> features.py (token ids) -> `SentencesPrepared` -> finetune.py
                                                                      classifier.py has its models

A row is an example. Outputs are {"logits": (R, C)}: C classes, labels or choices, or one value on the labels' scale.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from electra.config import FinetuneConfig
from electra.encoder import EncoderConfig
from electra.files import atomic_file
from electra.interop.heads import head_from_hf, head_to_hf
from electra.interop.hf import Pretrained, count_labels
from electra.metrics import classification_metrics, multi_label_metrics, regression_metrics
from electra.runtime import Runtime
from electra.tasks.features import Features, SentenceBatch, collate, encode_texts
from electra.tasks.prepared import Export, Outputs
from electra.tasks.problems import Problems
from electra.tasks.sentences.classifier import ChoiceClassifier, Scale, SequenceClassifier, choice_rows, predict_logits
from electra.tasks.sentences.examples import Fold, Split, load_task_data
from electra.tasks.sentences.labels import class_weights, is_known
from electra.tasks.sentences.task import SentenceTask

MAX_LENGTH = 128
"""Tokens of a row where nothing else is asked for (the paper's)."""
UNKNOWN_SHARE = 0.2
"""With more unknown tokens than this the run says that the vocabulary does not fit."""
BLANKS = str.maketrans("\t\r\n", "   ")
"""What ends a column or a row of predictions; ids and labels of .csv and .jsonl files may hold it."""
PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "regression": "regression",
    "multi-label": "multi_label_classification",
}


@dataclass(frozen=True)
class EncodedSplit:
    """A split as token ids, with its labels as the files have them (a regression's on their own scale)."""

    features: Features
    """One row an example, or one a choice."""
    labels: np.ndarray | None
    """As `labels.label_numbers` gives them; none: the file has no labels."""
    names: tuple[str, ...]
    """What the predictions call each example."""
    submission: str = ""
    """Name of the file that a leaderboard takes the answers in."""


@dataclass(frozen=True)
class SentencesPrepared:
    """`prepared.Prepared` for classification, regression, multi-label classification and multiple choice."""

    task: SentenceTask
    encoded: dict[str, EncodedSplit]
    unknown: int
    """The id of [UNK]."""
    scale: Scale | None = None
    """Of a regression that trains; a fine-tuned model answers on the labels' scale."""
    class_weights: np.ndarray | None = None
    """(C,) float32."""
    notes: list[str] = field(default_factory=list)

    @property
    def metric(self) -> str:
        return self.task.metric

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.encoded)

    @property
    def choices(self) -> int:
        """Rows of the features that belong to one example."""
        return len(self.task.choices) or 1

    @property
    def lengths(self) -> np.ndarray:
        return np.asarray(self.encoded["train"].features.lengths.reshape(-1, self.choices).max(axis=1))

    def size(self, split: str) -> int:
        return len(self.encoded[split].names)

    def is_labelled(self, split: str) -> bool:
        return self.encoded[split].labels is not None

    def describe(self, split: str) -> str:
        features, labels = self.encoded[split].features, self.encoded[split].labels
        counts = "no labels" if labels is None else describe_labels(self.task, labels)
        return (
            f"{self.size(split):,} examples ({counts}), {features.lengths.mean():.1f} tokens on average, "
            f"{np.mean(features.ids == self.unknown):.2%} unknown, "
            f"{features.truncated:,} cut at {features.max_length} tokens"
        )

    def facts(self) -> dict[str, Any]:
        names = self.task.output_names
        answers = {
            "classification": f"one of: {', '.join(names)}",
            "regression": f"the value of `{names[0]}`, on the scale of the training data (training was on [0, 1]; the "
            "map back is folded into `out_proj`)",
            "multi-label": f"any of: {', '.join(names)}",
            "multiple-choice": f"a logit for each of {len(names)} choices, the right one's the highest",
        }
        found = {"labels": list(names), "pipeline": "text-classification", "answers": answers[self.task.kind]}
        if self.task.kind == "multiple-choice":
            found |= {"pipeline": "", "auto_class": "AutoModelForMultipleChoice", "tag": "multiple-choice"}
        return found

    def make_model(self, encoder: EncoderConfig) -> nn.Module:
        if self.task.kind == "multiple-choice":
            return ChoiceClassifier(encoder, self.choices)
        return SequenceClassifier(encoder, len(self.task.output_names))

    def load_head(self, model: nn.Module, pretrained: Pretrained) -> None:
        assert isinstance(model, SequenceClassifier | ChoiceClassifier)
        found = pretrained.network.architecture
        if found != self._architecture:
            raise ValueError(
                f"{pretrained.source} is a {found}, and the task {self.task.name} needs a {self._architecture}: "
                "fine-tune it"
            )
        head = head_from_hf(pretrained.network.tensors, found, pretrained.config)
        model.head.load_state_dict({name: tensor.float() for name, tensor in head.items()})

    def batch(self, rows: np.ndarray, seed: int) -> SentenceBatch:
        train = self.encoded["train"]
        assert train.labels is not None
        labels = train.labels[rows] if self.scale is None else self.scale.to_unit(train.labels[rows])
        weights = None if self.class_weights is None else self.class_weights[labels]
        return collate(train.features, choice_rows(rows, self.choices), labels, seed, weights)

    def totals(self, rows: np.ndarray) -> dict[str, float]:
        if self.class_weights is None:
            return {"examples": float(len(rows))}
        labels = self.encoded["train"].labels
        assert labels is not None
        # A step whose rows all weigh nothing has a loss of 0, not of 0 / 0.
        return {"examples": max(float(self.class_weights[labels[rows]].sum()), 1e-12)}

    def predict(self, model: nn.Module, split: str, runtime: Runtime) -> Outputs:
        assert isinstance(model, SequenceClassifier | ChoiceClassifier)
        with runtime.autocast():
            logits = predict_logits(model, self.encoded[split].features)
        return {"logits": logits if self.scale is None else self.scale.to_labels(logits)}

    def score(self, outputs: Outputs, split: str) -> dict[str, float]:
        labels = self.encoded[split].labels
        assert labels is not None
        known = is_known(labels)
        logits, labels = outputs["logits"][known], labels[known]
        if self.task.kind == "regression":
            return regression_metrics(logits[:, 0], labels)
        if self.task.kind == "multi-label":
            return multi_label_metrics(logits > 0, labels)
        if self.task.kind == "multiple-choice":
            return {"accuracy": float(np.mean(logits.argmax(-1) == labels))}
        return classification_metrics(logits.argmax(-1), labels, len(self.task.labels))

    def can_average(self) -> bool:
        return True

    def write_predictions(self, outputs: Outputs, split: str, folder: Path) -> None:
        """A TSV file with the columns index and prediction, labels as the task's files have them.

        It has the leaderboard's name where there is one, and the name of the split otherwise.
        """
        encoded = self.encoded[split]
        with atomic_file(folder / (encoded.submission or f"{split}.tsv"), "w") as file:
            file.write("index\tprediction\n")
            for name, row in zip(encoded.names, outputs["logits"], strict=True):
                answer = self._answer(row, clip=bool(encoded.submission))
                file.write(f"{name.translate(BLANKS)}\t{answer.translate(BLANKS)}\n")

    def export(self, model: nn.Module) -> Export:
        assert isinstance(model, SequenceClassifier | ChoiceClassifier)
        names = self.task.output_names
        config = {
            "id2label": {str(number): name for number, name in enumerate(names)},
            "label2id": {name: number for number, name in enumerate(names)},
            "electra_task": self.task.name,
            "electra_kind": self.task.kind,
        }
        if self.task.kind in PROBLEM_TYPES:
            config["problem_type"] = PROBLEM_TYPES[self.task.kind]
        if isinstance(model, SequenceClassifier):
            head = model.head_tensors(self.scale)
        else:
            state = {name: tensor.detach().clone() for name, tensor in model.head.state_dict().items()}
            head = head_to_hf(state, self._architecture, model.encoder.config)
        return Export(architecture=self._architecture, head=head, config=config)

    @property
    def _architecture(self) -> str:
        return f"ElectraFor{'MultipleChoice' if self.task.kind == 'multiple-choice' else 'SequenceClassification'}"

    def _answer(self, row: np.ndarray, clip: bool) -> str:
        """The answer for an example (C,) as a file has it; `clip` keeps values in the range of the labels."""
        if self.task.kind == "regression":
            low, high = self.task.value_range if clip and self.task.value_range else (-np.inf, np.inf)
            return f"{float(np.clip(row[0], low, high)):.4f}"
        if self.task.kind == "multi-label":
            return self.task.separator.join(self.task.labels[number] for number in np.flatnonzero(row > 0))
        return self.task.labels[int(row.argmax())]


def prepare_sentences(
    task: SentenceTask, config: FinetuneConfig, pretrained: Pretrained, fold: int | None, problems: Problems
) -> SentencesPrepared:
    """Read the files of `task` and encode them for the model; ValueError in a sentence for what cannot be used."""
    limit = pretrained.config.max_positions
    max_length = config.max_length or min(MAX_LENGTH, limit)
    if max_length > limit:
        raise ValueError(f"--max-length {max_length} is longer than the model can read ({limit})")
    trains = config.mode in ("train_eval", "train")
    data = load_task_data(
        task if trains else task_of_folder(task, pretrained),
        config.data,
        problems,
        max_train=config.max_train,
        fold=None if fold is None else Fold(fold, config.folds),
        published=config.published_protocol,
        train=trains,
        cut_dev=config.mode == "train_eval",
    )
    task = data.task
    if task.metric == "f1" and len(task.labels) != 2:
        path = next(iter(data.splits.values())).path
        raise ValueError(f"custom.metric f1 is for two labels, {path} has {len(task.labels)}: use macro_f1")
    notes = list(data.notes)
    weights = None
    if config.class_weights and trains:
        if task.kind != "classification":
            raise ValueError(f"--class-weights is for classification, and {task.name} is {task.kind}: leave it out")
        classes = data.splits["train"].labels
        assert classes is not None
        weights = class_weights(config.class_weights, task.labels, classes)
    if weights is not None:
        named = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(task.output_names, weights, strict=True))
        notes.append(f"class weights: {named}")

    def encode(split: Split) -> EncodedSplit:
        return encode_split(split, task, pretrained, max_length, google=config.recipe == "google")

    encoded = {name: encode(split) for name, split in data.splits.items()}
    unknown = float(np.mean(next(iter(encoded.values())).features.ids == pretrained.vocabulary.special.unk))
    if unknown > UNKNOWN_SHARE:
        notes.append(
            f"{unknown:.0%} of the tokens are unknown to the model's vocabulary: it may be of another language, or its "
            "tokenizer_config.json may treat capitals and accents in another way (do_lower_case, strip_accents)"
        )
    return SentencesPrepared(
        task=task,
        encoded=encoded,
        unknown=pretrained.vocabulary.special.unk,
        scale=Scale(*task.value_range) if trains and task.value_range is not None else None,
        class_weights=None if weights is None else weights.astype(np.float32),
        notes=notes,
    )


def encode_split(
    split: Split, task: SentenceTask, pretrained: Pretrained, max_length: int, google: bool
) -> EncodedSplit:
    """The texts of a split as token ids; with choices, each is the last text of a row.

    Of a question in two texts the second is the begin of each choice, as in SWAG.
    """
    if task.choices:
        texts = [row.text for row in split.examples for _ in row.choices]
        pairs = [f"{row.pair} {choice}" if row.pair else choice for row in split.examples for choice in row.choices]
        features = encode_texts(pretrained.vocabulary, texts, pairs, max_length, google)
    else:
        texts = [row.text for row in split.examples]
        features = encode_texts(pretrained.vocabulary, texts, [row.pair for row in split.examples], max_length, google)
    names = tuple(str(number) if row.id is None else row.id for number, row in enumerate(split.examples))
    return EncodedSplit(features, split.labels, names, split.submission)


def task_of_folder(task: SentenceTask, pretrained: Pretrained) -> SentenceTask:
    """`task` with its labels in the order in which a fine-tuned folder answers.

    ValueError where the folder's labels are not those of the task.
    """
    named = pretrained.hf_config.get("id2label") or {}
    names = tuple(str(named[key]) for key in sorted(named, key=int))
    # transformers leaves the names LABEL_0 and LABEL_1 out of config.json.
    names = names or tuple(f"LABEL_{number}" for number in range(count_labels(pretrained.hf_config)))
    if task.kind == "regression":
        if len(names) > 1:
            raise ValueError(f"{pretrained.source} answers with labels, and the task {task.name} is a regression")
        return task
    if not task.labels:
        return replace(task, labels=names)
    if len(names) == len(task.labels) and all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        return task
    for own in (task.output_names, task.labels):
        if sorted(own) == sorted(names):
            order = [own.index(name) for name in names]
            label_names = tuple(task.label_names[number] for number in order) if task.label_names else ()
            return replace(task, labels=tuple(task.labels[number] for number in order), label_names=label_names)
    raise ValueError(
        f"{pretrained.source} answers with {', '.join(names) or 'nothing'}, and the task {task.name} has "
        f"{', '.join(task.output_names)}: give the model that was fine-tuned on it"
    )


def describe_labels(task: SentenceTask, labels: np.ndarray) -> str:
    """How often each label occurs, or the span and mean of the values."""
    labels = labels[is_known(labels)]
    if task.kind == "regression":
        return f"values {labels.min():g} to {labels.max():g}, mean {labels.mean():.3g}"
    if task.kind == "multi-label":
        counts = dict(enumerate(labels.sum(axis=0).astype(int).tolist()))
    else:
        counts = Counter(labels.tolist())
    return ", ".join(f"{name} {counts[number]:,}" for number, name in enumerate(task.output_names))
