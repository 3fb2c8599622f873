"""What fine-tuning has to know about a tagging task: where its sentences are and how their tags are written.

    a named task below, or `custom_tagging_task` -> `TaggingTask` -> conll.py, which reads the files

It holds no data. The files are those of the official distributions, taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from electra.config import TaskConfig
from electra.tasks.tagging.schemes import Scheme

Layout = Literal["columns", "lines"]
"""columns: a unit on a line, its fields apart by tabs or blanks, an empty line after a sentence. lines: a sentence on
a line, words, a tab, tags. A file that ends in .jsonl has an object on a line in either."""


@dataclass(frozen=True)
class TaggingTask:
    """What fine-tuning has to know about a task that gives each word, or each character, a tag."""

    name: str
    scheme: Scheme | Literal["auto"] = "auto"
    """How the files write entities; auto: told by their tags."""
    learned: Scheme | None = None
    """How the model writes them; none: as the files do, iob1 as iob2."""
    train: tuple[str, ...] = ("train",)
    dev: tuple[str, ...] = ("dev", "valid")
    test: tuple[str, ...] = ("test",)
    """Names that the files may have; without a suffix, .txt, .tsv, .conll and .jsonl are tried."""
    layout: Layout = "columns"
    word_column: int = 0
    tag_column: int = -1
    """Columns from 0; -1 is the last one."""
    comment: str = ""
    """What comment lines begin with, in the layout columns."""
    tokens: str = "tokens"
    tags: str = "tags"
    """Keys in .jsonl files."""
    characters: bool = False
    """A tag belongs to a character, not to a word."""
    labels: tuple[str, ...] = ()
    """The label set of the model in its order; empty: the tags of the training file."""
    metric: str = "auto"
    """The metric that names the best model; auto: f1, accuracy of the scheme plain."""
    strict: bool = False
    """Only well-formed entities count (seqeval's mode "strict")."""
    google_f1: bool = False
    """Score also as Google's code does, which reads ill-formed answers in another way."""
    epochs: float = 3.0
    """Passes over the training data in the paper's recipe."""
    kind: str = "tagging"
    published_dev: str = ""
    """The split that published results chose their checkpoint on, where that was not dev."""


CHUNK = TaggingTask(
    name="chunk",
    scheme="iob2",
    learned="bioes",
    train=("train.txt",),
    dev=("dev.txt", "valid.txt"),
    test=("test.txt",),
    tag_column=2,
    google_f1=True,
)
"""CoNLL-2000 chunking (Tjong Kim Sang and Buchholz 2000): 8,936 / 2,012 sentences; word, part of speech, chunk. The
model learns BIOES tags, as in google-research/electra finetune/tagging; F1 over chunks, and Google's beside it. Google
calls the official test file dev.txt."""

CONLL2003 = TaggingTask(
    name="conll2003",
    train=("train.txt", "eng.train"),
    dev=("valid.txt", "dev.txt", "eng.testa"),
    test=("test.txt", "eng.testb"),
    tag_column=3,
)
"""CoNLL-2003 English names (Tjong Kim Sang and De Meulder 2003): word, part of speech, chunk, name; iob1 in the
original files, iob2 in most copies. F1 over entities."""

NAVER_TYPES = ("PER", "FLD", "AFW", "ORG", "LOC", "CVL", "DAT", "TIM", "NUM", "EVT", "ANM", "PLT", "MAT", "TRM")

NAVER_NER = TaggingTask(
    name="naver-ner",
    scheme="suffix",
    train=("train.tsv",),
    dev=("dev.tsv",),
    test=("test.tsv",),
    layout="lines",
    labels=("O", *(f"{kind}-{position}" for kind in NAVER_TYPES for position in "BI")),
    published_dev="test",
)
"""Naver NLP Challenge 2018 as monologg/KoELECTRA has it (finetune/data/naver-ner): 81,000 / 9,000 sentences, words and
tags apart by a tab, 29 tags. F1 over entities by seqeval with suffix=True. There is no dev file; KoELECTRA chose its
checkpoints on the test file."""

KLUE_NER = TaggingTask(
    name="klue-ner",
    scheme="iob2",
    train=("klue-ner-v1.1_train.tsv", "train.tsv"),
    dev=("klue-ner-v1.1_dev.tsv", "dev.tsv"),
    test=("klue-ner-v1.1_test.tsv", "test.tsv"),
    tag_column=1,
    comment="## ",
    characters=True,
    labels=(*(f"{position}-{kind}" for kind in ("PS", "LC", "OG", "DT", "TI", "QT") for position in "BI"), "O"),
    metric="macro_f1",
    strict=True,
)
"""KLUE-NER (Park et al. 2021, github.com/KLUE-benchmark): 21,008 / 5,000 sentences, a character and its tag on a line,
lines that begin with "## " between. Metrics of the KLUE baseline (metrics/functional.py): macro F1 over entities in
seqeval's strict mode, and macro F1 over the tags of characters; blanks do not count."""

TAGGING_TASKS = {
    "chunk": CHUNK,
    "conll2000": CHUNK,
    "conll2003": CONLL2003,
    "naver-ner": NAVER_NER,
    "klue-ner": KLUE_NER,
}


def custom_tagging_task(name: str, config: TaskConfig) -> TaggingTask:
    """A task over train / dev / test files in the layout that `config` describes.

    `text` and `label` are keys of .jsonl files, or numbers of columns; left alone they mean tokens and tags, the
    first column and the last.
    """
    word, tag = config.text, config.label
    return TaggingTask(
        name=name,
        scheme=config.scheme,
        layout=config.layout,
        word_column=int(word) if _is_number(word) else 0,
        tag_column=int(tag) if _is_number(tag) else -1,
        tokens="tokens" if word == TaskConfig.text else word,
        tags="tags" if tag == TaskConfig.label else tag,
        comment=config.comment,
        characters=config.characters,
        labels=config.labels,
        metric=config.metric,
    )


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
