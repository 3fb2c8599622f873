"""Tagging for fine-tuning: a tag for each word, or each character, of a sentence.

    files -> data.py (sentences, tags) -> features.py (windows) -> `TaggingPrepared` -> finetune.py
                                                                                    tagger.py is its model

A row of the model is a window, which is a whole sentence unless that is longer than a row. Outputs are
{"logits": (P, C)}: C classes for each of the P word pieces that decide a tag, in the order of the text.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from electra.config import FinetuneConfig
from electra.encoder import EncoderConfig
from electra.files import atomic_file
from electra.interop.hf import Pretrained
from electra.runtime import Runtime
from electra.tasks.features import SentenceBatch
from electra.tasks.prepared import Export, Outputs
from electra.tasks.problems import Problems
from electra.tasks.sentences.labels import class_weights
from electra.tasks.tagging.conll import one_field
from electra.tasks.tagging.data import TaggingData, load_tagging_data
from electra.tasks.tagging.features import IGNORED, TagFeatures, encode_sentences, piece_labels, tag_batch, unit_tags
from electra.tasks.tagging.schemes import (
    convert_tags,
    entity_types,
    find_entities,
    google_f1,
    is_tag_of,
    macro_f1,
    score_tags,
)
from electra.tasks.tagging.tagger import TokenTagger, tag_logits
from electra.tasks.tagging.task import TaggingTask

MAX_LENGTH = 256
"""Tokens of a row where nothing else is asked for (Google's for chunking)."""
ARCHITECTURE = "ElectraForTokenClassification"
SENTENCE_ENDS = ".!?"


@dataclass(frozen=True)
class TaggingPrepared:
    """`prepared.Prepared` for tagging."""

    data: TaggingData
    encoded: dict[str, TagFeatures]
    train_labels: np.ndarray
    """(P,) int64 classes of the deciding pieces of the training set, IGNORED where there is no right one."""
    unknown: int
    """The id of [UNK]."""
    weights: np.ndarray | None = None
    """(C,) of the classes in the loss."""
    notes: list[str] = field(default_factory=list)

    @property
    def task(self) -> TaggingTask:
        return self.data.task

    @property
    def metric(self) -> str:
        return self.task.metric

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.encoded)

    @property
    def lengths(self) -> np.ndarray:
        return self.encoded["train"].rows.lengths

    @cached_property
    def types(self) -> list[str]:
        """What the model knows of entity types."""
        return entity_types(self.task.labels, self.data.learned)

    def size(self, split: str) -> int:
        return len(self.data.splits[split])

    def is_labelled(self, split: str) -> bool:
        return bool(self.data.splits[split][0].tags)

    def describe(self, split: str) -> str:
        features = self.encoded[split]
        units = "characters" if self.task.characters else "words"
        counts = describe_tags(self.data, split) if self.is_labelled(split) else "no tags"
        return (
            f"{self.size(split):,} sentences, {len(features.is_first):,} {units} ({counts}), "
            f"{features.rows.lengths.mean():.1f} tokens a row on average, "
            f"{np.mean(features.rows.ids == self.unknown):.2%} unknown, "
            f"{features.windowed:,} cut into windows of {features.rows.max_length} tokens"
        )

    def facts(self) -> dict[str, Any]:
        units = "character" if self.task.characters else "word"
        return {
            "labels": list(self.task.labels),
            "scheme": self.data.scheme,
            "learned_scheme": self.data.learned,
            "pipeline": "token-classification",
            "answers": f"a tag for each {units}, one of: {', '.join(self.task.labels)}",
        }

    def make_model(self, encoder: EncoderConfig) -> nn.Module:
        return TokenTagger(encoder, len(self.task.labels), self.weights)

    def load_head(self, model: nn.Module, pretrained: Pretrained) -> None:
        assert isinstance(model, TokenTagger)
        load_tagging_head(model, pretrained)

    def batch(self, rows: np.ndarray, seed: int) -> SentenceBatch:
        return tag_batch(self.encoded["train"], rows, self.train_labels, seed)

    def totals(self, rows: np.ndarray) -> dict[str, float]:
        """{"weight"}: of the labels in these rows; 1 where there are none, so that their loss is 0 and not nan."""
        first = self.encoded["train"].first_piece
        labels = np.concatenate([self.train_labels[first[row] : first[row + 1]] for row in rows])
        labels = labels[labels != IGNORED]
        weight = float(len(labels) if self.weights is None else self.weights[labels].sum())
        return {"weight": weight or 1.0}

    def predict(self, model: nn.Module, split: str, runtime: Runtime) -> Outputs:
        assert isinstance(model, TokenTagger)
        with runtime.autocast():
            return {"logits": tag_logits(model, self.encoded[split])}

    def tags(self, outputs: Outputs, split: str) -> list[list[str]]:
        """The predicted tags of each sentence, as the model writes them."""
        names = self.task.labels
        pieces = [names[best] for best in outputs["logits"].argmax(-1).tolist()]
        return unit_tags(self.encoded[split], pieces, self.data.learned)

    def score(self, outputs: Outputs, split: str) -> dict[str, float]:
        """`schemes.score_tags` in the scheme of the files; Google's and KLUE's second measure where the task has it."""
        gold, predicted, data = self.data.gold(split), self.tags(outputs, split), self.data
        answers = [convert_tags(tags, data.learned, data.scheme) for tags in predicted]
        found = score_tags(gold, answers, data.scheme, self.types, self.task.strict)
        beside = {}
        if self.task.google_f1:
            learned = [convert_tags(tags, data.scheme, data.learned) for tags in gold]
            beside["google_f1"] = google_f1(learned, predicted, data.learned)
        if self.task.characters:
            beside["char_macro_f1"] = macro_f1(gold, answers, self.task.labels)
        return {self.metric: found[self.metric]} | beside | found

    def can_average(self) -> bool:
        return True

    def write_predictions(self, outputs: Outputs, split: str, folder: Path) -> None:
        """`SPLIT.txt`, a line for each unit: it, its gold tag where there is one, the predicted tag.

        That is what conlleval reads. Fields are apart by a blank, by a tab where a unit holds blanks.
        """
        sentences = self.data.splits[split]
        units = [[one_field(unit) for unit in sentence.units(self.task.characters)] for sentence in sentences]
        separator = "\t" if any(len(unit.split()) != 1 for found in units for unit in found) else " "
        answers = [convert_tags(tags, self.data.learned, self.data.scheme) for tags in self.tags(outputs, split)]
        columns = [units, *([self.data.gold(split)] if self.is_labelled(split) else []), answers]
        with atomic_file(folder / f"{split}.txt", "w") as file:
            for sentence in zip(*columns, strict=True):
                file.writelines(separator.join(fields) + "\n" for fields in zip(*sentence, strict=True))
                file.write("\n")

    def export(self, model: nn.Module) -> Export:
        assert isinstance(model, TokenTagger)
        return Export(
            architecture=ARCHITECTURE,
            head=model.head_tensors(),
            config={
                "id2label": {str(number): name for number, name in enumerate(self.task.labels)},
                "label2id": {name: number for number, name in enumerate(self.task.labels)},
                "electra_task": self.task.name,
                "electra_kind": self.task.kind,
                "electra_scheme": self.data.learned,
                "electra_units": "characters" if self.task.characters else "words",
                "electra_punctuation": "attached" if has_attached_punctuation(self.data) else "apart",
            },
        )

    def reachable(self, split: str) -> dict[str, float]:
        """The score of a model that knows the right class of every deciding piece.

        It is below 1 where a piece covers characters of different entities.
        """
        features = self.encoded[split]
        labels = piece_labels(features, unit_labels(self.data, split))
        one_hot = np.eye(len(self.task.labels), dtype=np.float32)[np.maximum(labels, 0)]
        return self.score({"logits": one_hot}, split)


def prepare_tagging(
    task: TaggingTask, config: FinetuneConfig, pretrained: Pretrained, fold: int | None, problems: Problems
) -> TaggingPrepared:
    """Read the files of `task` and encode them for the model; ValueError in a sentence for what cannot be used."""
    limit = pretrained.config.max_positions
    max_length = config.max_length or min(MAX_LENGTH, limit)
    if max_length > limit:
        raise ValueError(f"--max-length {max_length} is longer than the model can read ({limit})")
    trains = config.mode in ("train_eval", "train")
    trained = () if trains else folder_labels(task, pretrained)
    data = load_tagging_data(task, config, fold, trained, problems)
    characters = data.task.characters
    encoded = {
        split: encode_sentences(pretrained.vocabulary, [found.words for found in sentences], characters, max_length)
        for split, sentences in data.splits.items()
    }
    train_labels = np.zeros(0, dtype=np.int64)
    weights = None
    notes = list(data.notes)
    if trains:
        train_labels = piece_labels(encoded["train"], unit_labels(data, "train"))
        weights = class_weights(config.class_weights, data.task.labels, train_labels)
        if weights is not None:
            named = zip(data.task.labels, weights, strict=True)
            notes.append(f"class weights: {', '.join(f'{name} {weight:.3g}' for name, weight in named)}")
        if not characters:
            style = "stay attached to words" if has_attached_punctuation(data) else "are words of their own"
            notes.append(f"punctuation marks {style} in the training file: `electra predict` will split raw text so")
    prepared = TaggingPrepared(data, encoded, train_labels, pretrained.vocabulary.special.unk, weights, notes)
    if characters and "dev" in data.splits and prepared.is_labelled("dev"):
        best = prepared.reachable("dev")[prepared.metric]
        notes.append(f"word pieces cross borders of entities: {best:.4f} is the best {prepared.metric} dev allows")
    return prepared


def unit_labels(data: TaggingData, split: str) -> np.ndarray:
    """(U,) classes of the units of a split; IGNORED for tags that are not of the scheme or not in the label set."""
    numbers = {name: number for number, name in enumerate(data.task.labels)}
    found = []
    for sentence in data.splits[split]:
        learned = convert_tags(sentence.tags, data.scheme, data.learned)
        for tag, written in zip(learned, sentence.tags, strict=True):
            found.append(numbers.get(tag, IGNORED) if is_tag_of(written, data.scheme) else IGNORED)
    return np.array(found, dtype=np.int64)


def describe_tags(data: TaggingData, split: str) -> str:
    """How often each type of entity occurs, frequent ones first; of the scheme plain each tag."""
    if data.scheme == "plain":
        counts = Counter(tag for sentence in data.splits[split] for tag in sentence.tags)
    else:
        counts = Counter(found.type for tags in data.gold(split) for found in find_entities(tags, data.scheme))
    names = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
    return names or "no entities"


def has_attached_punctuation(data: TaggingData) -> bool:
    """Whether most of the training sentences that end with a full stop or the like have it on the last word.

    Where characters have tags, words are what stands between blanks, marks and all.
    """
    if data.task.characters:
        return True
    sentences = data.splits.get("train") or next(iter(data.splits.values()))
    last = [sentence.words[-1] for sentence in sentences if sentence.words[-1][-1:] in tuple(SENTENCE_ENDS)]
    return sum(len(word) > 1 for word in last) > len(last) / 2


def label_names(pretrained: Pretrained) -> tuple[str, ...]:
    """The labels of a fine-tuned folder, LABEL_0 ... where it names none; ValueError if it has no tagging head."""
    weight = pretrained.head_state.get("classifier.weight")
    if weight is None or weight.dim() != 2:
        raise ValueError(f"{pretrained.source} has no tagging head: fine-tune it first (electra finetune)")
    names = pretrained.hf_config.get("id2label") or {}
    return tuple(str(names.get(str(number), f"LABEL_{number}")) for number in range(len(weight)))


def folder_labels(task: TaggingTask, pretrained: Pretrained) -> tuple[str, ...]:
    """The tags that a fine-tuned folder answers with, in its order; ValueError where those of `task` are others."""
    names = label_names(pretrained)
    if task.labels and names == tuple(f"LABEL_{number}" for number in range(len(task.labels))):
        return task.labels
    if task.labels and set(names) != set(task.labels):
        raise ValueError(
            f"{pretrained.source} answers with {', '.join(names)}, and the task {task.name} has "
            f"{', '.join(task.labels)}: give the model that was fine-tuned on it"
        )
    return names


def load_tagging_head(model: TokenTagger, pretrained: Pretrained) -> None:
    """Give `model` the head of a fine-tuned folder; ValueError if it has none, or one of other labels."""
    count, here = len(label_names(pretrained)), model.head.classifier.out_features
    if count != here:
        raise ValueError(f"{pretrained.source} has a head for {count} tags, and the task has {here}")
    model.head.load_state_dict(
        {f"classifier.{kind}": pretrained.head_state[f"classifier.{kind}"].float() for kind in ("weight", "bias")}
    )
