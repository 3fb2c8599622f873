"""Tags and entities for raw text, with a fine-tuned tagger: the part of `electra predict` for tagging.

    text -> `split_words` (words and where they stand) -> features.py (windows, whatever the length)
         -> TokenTagger -> softmax -> `TaggedText` (a tag and a score for each unit, entities with their characters)

How text is split into words follows from the training: where punctuation marks were words of their own there, as in
CoNLL's files, they are split off the begin and the end of a word; where they were not (Naver's), words end at blanks.
Characters as units have their words at blanks too. Words that come as a list are left as they are.
"""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from electra.config import PredictConfig
from electra.interop.hf import Pretrained
from electra.runtime import Runtime
from electra.tasks.predictor import check_alike
from electra.tasks.streams import read_texts
from electra.tasks.tagging.conll import one_field
from electra.tasks.tagging.features import TagFeatures, encode_sentences, unit_tags
from electra.tasks.tagging.prepared import label_names, load_tagging_head
from electra.tasks.tagging.schemes import SCHEMES, Scheme, detect_scheme, find_entities
from electra.tasks.tagging.tagger import TokenTagger, tag_logits
from electra.tokenizer import Vocabulary


@dataclass(frozen=True)
class Span:
    """A word or a character, and where it begins in its text."""

    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True)
class FoundEntity:
    """An entity: `text` is what stands from character `start` to `end` - 1; `score` the mean of its units'."""

    type: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class TaggedText:
    """The answer for a text: its units, each with the likeliest tag and the probability of that."""

    units: list[Span]
    tags: list[str]
    scores: list[float]
    entities: list[FoundEntity]

    def tsv(self) -> str:
        """A line for each unit, its tag and score beside it, and an empty line after the text."""
        rows = zip(self.units, self.tags, self.scores, strict=True)
        return "".join(f"{one_field(unit.text)}\t{tag}\t{score:.6f}\n" for unit, tag, score in rows) + "\n"

    def row(self) -> dict[str, Any]:
        """{"tokens", "tags", "entities": [{"type", "text", "start", "end", "score"}]}"""
        return {
            "tokens": [unit.text for unit in self.units],
            "tags": self.tags,
            "entities": [asdict(entity) for entity in self.entities],
        }


@dataclass(frozen=True)
class EncodedTexts:
    """Some texts and, of those with a word in them, the features."""

    texts: list[str]
    words: list[list[Span]]
    filled: list[int]
    """The numbers of the texts that have words."""
    features: TagFeatures | None


@dataclass(frozen=True)
class TaggingPredictor:
    """`predictor.Predictor` for tagging: fine-tuned taggers whose logits are averaged."""

    models: list[TokenTagger]
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    scheme: Scheme
    """In which the labels name entities; plain: they name none."""
    characters: bool
    splits_punctuation: bool
    max_length: int
    batch_tokens: int
    runtime: Runtime

    @property
    def header(self) -> str:
        return ""

    def read(self, config: PredictConfig) -> Iterator[str | list[str]]:
        """Texts; in a column of a .jsonl file also lists of words."""
        for text, *others in read_texts(config):
            if config.column and text.startswith("["):
                with contextlib.suppress(ValueError, RecursionError):
                    words = json.loads(text)
                    if isinstance(words, list) and all(isinstance(word, str) for word in words):
                        yield words
                        continue
            yield "\t".join([text, *others])

    def __call__(self, texts: Sequence[str | Sequence[str]]) -> list[TaggedText]:
        """Answers in the order of the texts; one that is a list of words counts as these with blanks between."""
        return self.answer(self.encode(texts))

    def encode(self, texts: Sequence[str | Sequence[str]]) -> EncodedTexts:
        split = [self._words(text) for text in texts]
        plain = [text if isinstance(text, str) else " ".join(text) for text in texts]
        filled = [number for number, words in enumerate(split) if words]
        sentences = [[word.text for word in split[number]] for number in filled]
        features = None
        if filled:
            features = encode_sentences(self.vocabulary, sentences, self.characters, self.max_length)
        return EncodedTexts(plain, split, filled, features)

    def answer(self, encoded: EncodedTexts) -> list[TaggedText]:
        plain, split, filled, features = encoded.texts, encoded.words, encoded.filled, encoded.features
        answers = [TaggedText([], [], [], []) for _ in plain]
        if features is None:
            return answers
        with self.runtime.autocast():
            logits = np.mean([tag_logits(model, features, self.batch_tokens) for model in self.models], axis=0)
        pieces = [self.labels[best] for best in logits.argmax(-1).tolist()]
        scores = _likeliest(logits)[features.piece_of_unit].tolist()
        for index, (number, tags) in enumerate(zip(filled, unit_tags(features, pieces, self.scheme), strict=True)):
            here = scores[features.first_unit[index] : features.first_unit[index + 1]]
            answers[number] = self._answer(plain[number], split[number], tags, here)
        return answers

    def _words(self, text: str | Sequence[str]) -> list[Span]:
        if isinstance(text, str):
            return list(split_words(text, self.splits_punctuation))
        words, start = [], 0
        for word in text:
            words.append(Span(word, start))
            start += len(word) + 1
        return words

    def _answer(self, text: str, words: list[Span], tags: list[str], scores: list[float]) -> TaggedText:
        units = words
        if self.characters:
            units = [Span(letter, word.start + index) for word in words for index, letter in enumerate(word.text)]
        entities = []
        for found in find_entities(tags, self.scheme):
            start, end = units[found.start].start, units[found.end - 1].end
            score = sum(scores[found.start : found.end]) / (found.end - found.start)
            entities.append(FoundEntity(found.type, text[start:end], start, end, score))
        return TaggedText(units, tags, scores, entities)


def load_tagging_predictor(
    folders: Sequence[Pretrained],
    runtime: Runtime,
    max_length: int = 0,
    batch_tokens: int = 0,
    splits: bool | None = None,
) -> TaggingPredictor:
    """The taggers of model folders, ours or other ones for ElectraForTokenClassification.

    `splits`: whether to split punctuation marks off words; None as the folder says, which is yes where it says nothing.
    ValueError if a folder has no tagging head, or they differ in vocabulary or labels.
    """
    all_labels = [label_names(pretrained) for pretrained in folders]
    check_alike(folders, all_labels)
    first, labels, config = folders[0], all_labels[0], folders[0].hf_config
    models = []
    for pretrained in folders:
        model = TokenTagger(pretrained.config, len(labels))
        model.encoder.load_state_dict(pretrained.encoder_state)
        load_tagging_head(model, pretrained)
        models.append(model.to(runtime.device))
    said = config.get("electra_scheme")
    return TaggingPredictor(
        models=models,
        vocabulary=first.vocabulary,
        labels=labels,
        scheme=said if said in SCHEMES else detect_scheme([labels]),
        characters=config.get("electra_units") == "characters",
        splits_punctuation=config.get("electra_punctuation") != "attached" if splits is None else splits,
        max_length=max_length or first.config.max_positions,
        batch_tokens=batch_tokens,
        runtime=runtime,
    )


def split_words(text: str, splits_punctuation: bool) -> Iterator[Span]:
    """The words of a text at its blanks; with `splits_punctuation` marks at their begin and end stand alone.

    The full stop of an abbreviation that can be told by itself (U.S., J.) stays, as in the Penn Treebank's words.
    """
    position = 0
    for word in text.split():
        start = text.index(word, position)
        position = start + len(word)
        if not splits_punctuation:
            yield Span(word, start)
            continue
        first, last = 0, len(word)
        while first < last and _is_mark(word[first]):
            first += 1
        while last > first and _is_mark(word[last - 1]):
            last -= 1
        if word[last : last + 1] == "." and ("." in word[first:last] or (last - first == 1 and word[first].isupper())):
            last += 1
        for index in range(first):
            yield Span(word[index], start + index)
        if first < last:
            yield Span(word[first:last], start + first)
        for index in range(last, len(word)):
            yield Span(word[index], start + index)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("P")


def _likeliest(logits: np.ndarray) -> np.ndarray:
    """(P, C) logits -> (P,) the probability of the likeliest class: 1 over the sum of what all are beside it."""
    return 1 / np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True)).sum(-1)
