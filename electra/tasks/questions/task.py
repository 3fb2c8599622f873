"""The tasks of question answering by name, their files, and which passages train and which score.

    `QuestionTask` + folder -> files by pattern -> files.py -> `QuestionData`: the questions of each split

A file may have its official name (train-v2.0.json, KorQuAD_v1.0_dev.json) or that of its split (train.json, dev.jsonl).
Where there is no dev file a tenth of the passages is kept apart, or a fold of them: whole passages, because the
questions about one have answers in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from electra.config import TaskConfig
from electra.tasks.problems import Problems
from electra.tasks.questions.files import Question, read_questions

DEV_SHARE = 0.1
"""Share of the passages of the training file that stands in for a missing dev file."""
DEV_SEED = 0
"""Chooses them, and the questions of --max-train; the same for all seeds of a run."""
SPLITS = ("train", "dev", "test")

Scores = Literal["squad1", "squad2", "korquad"]


@dataclass(frozen=True)
class QuestionTask:
    """What fine-tuning has to know of a task over questions and passages."""

    name: str
    scores: Scores | None
    """The official script whose scores count; none: SQuAD 2.0's if a question has no answer, else SQuAD 1.1's."""
    official: str = ""
    """Pattern of the official files' names; SPLIT stands for train, dev or test."""
    epochs: float = 2.0
    """Clark et al. 2020, table 7."""
    kind: str = "question-answering"

    def patterns(self, split: str) -> list[str]:
        """Names of a split's file: its own, and the official one."""
        names = [f"{split}{suffix}" for suffix in (".json", ".jsonl", ".json.gz", ".jsonl.gz")]
        return names + ([self.official.replace("SPLIT", split)] if self.official else [])


SQUAD = QuestionTask("squad", "squad2", "SPLIT-v2.0*.json")
"""SQuAD 2.0 (Rajpurkar et al. 2018): 130,319 training and 11,873 dev questions, half of these without an answer."""
SQUADV1 = QuestionTask("squadv1", "squad1", "SPLIT-v1.1*.json")
"""SQuAD 1.1 (Rajpurkar et al. 2016): 87,599 training and 10,570 dev questions."""
KORQUAD = QuestionTask("korquad", "korquad", "KorQuAD_v1.0_SPLIT.json")
"""KorQuAD 1.0 (Lim et al. 2019): 60,407 training and 5,774 dev questions in Korean; F1 over characters."""
MRQA = tuple(QuestionTask(name, "squad1") for name in ("newsqa", "naturalqs", "triviaqa", "searchqa"))
"""Of the MRQA 2019 shared task (Fisch et al. 2019), as .jsonl or .jsonl.gz; scored as SQuAD 1.1."""

QUESTION_TASKS = {task.name: task for task in (SQUAD, SQUADV1, KORQUAD, *MRQA)} | {"squad2": SQUAD}


def custom_question_task(name: str, config: TaskConfig) -> QuestionTask:
    """A task over train, dev and test files in a format that files.py reads."""
    if config != TaskConfig(kind="question-answering"):
        raise ValueError("a task of question answering has no columns, labels or metric of its own: leave them out")
    return QuestionTask(name, None)


@dataclass(frozen=True)
class QuestionSplit:
    """The questions of one part of a task's data."""

    path: Path
    questions: list[Question]
    is_labelled: bool


@dataclass(frozen=True)
class QuestionData:
    """Everything read for a task."""

    task: QuestionTask
    splits: dict[str, QuestionSplit]
    notes: list[str]
    """Sentences about what was decided here; they are to be printed."""


def load_question_data(
    task: QuestionTask,
    folder: Path,
    problems: Problems,
    *,
    max_train: int = 0,
    fold: int | None = None,
    folds: int = 0,
    train: bool = True,
    cut_dev: bool = True,
) -> QuestionData:
    """Read the files of `task` in `folder`.

    Without a dev file a tenth of the passages of the training file becomes the dev set (`cut_dev`), or part `fold` of
    `folds`. `max_train` > 0 keeps that many training questions. Without `train` the training file is not read.
    Raises ValueError for a folder without the files, or with two that could be meant.
    """
    if not folder.is_dir():
        raise ValueError(f"--data {folder} is not a folder: give the one that holds the files of the task {task.name}")
    splits: dict[str, QuestionSplit] = {}
    notes: list[str] = []
    for split in SPLITS if train else SPLITS[1:]:
        path = find_question_file(task, folder, split)
        if path is not None:
            found = read_questions(path, problems, training=split == "train")
            splits[split] = QuestionSplit(path, found.questions, found.is_labelled)
        elif split == "train":
            raise ValueError(f"{folder} has no {' or '.join(task.patterns(split))}, which the task {task.name} needs")
    if fold is not None and "dev" in splits:
        raise ValueError(f"--folds is for tasks without a dev file, and {splits['dev'].path} is one: leave it out")
    if train and "dev" not in splits and (fold is not None or cut_dev):
        splits = _cut_dev(splits, fold, folds, notes)
    if not splits:
        names = " or ".join(name for split in SPLITS[1:] for name in task.patterns(split))
        raise ValueError(f"{folder} has no {names}, in which the task {task.name} has its questions")
    if train and 0 < max_train < len(splits["train"].questions):
        rows = splits["train"].questions
        notes.append(f"{max_train:,} of {len(rows):,} training questions are used (seed {DEV_SEED})")
        chosen = np.sort(np.random.default_rng(DEV_SEED).permutation(len(rows))[:max_train])
        splits["train"] = QuestionSplit(splits["train"].path, [rows[i] for i in chosen], True)
    return QuestionData(task, splits, notes)


def find_question_file(task: QuestionTask, folder: Path, split: str) -> Path | None:
    """The file of a split; ValueError if several names fit."""
    found = sorted({path for pattern in task.patterns(split) for path in folder.glob(pattern)})
    if len(found) > 1:
        raise ValueError(f"{folder} has {' and '.join(path.name for path in found)}: keep one of them")
    return found[0] if found else None


def _cut_dev(
    splits: dict[str, QuestionSplit], fold: int | None, folds: int, notes: list[str]
) -> dict[str, QuestionSplit]:
    """The training file's passages cut into train and dev."""
    whole = splits["train"]
    passages = list(dict.fromkeys(question.context for question in whole.questions))
    parts = folds if fold is not None else 2
    if len(passages) < parts:
        raise ValueError(
            f"{whole.path} has questions about {len(passages)} passages, too few to keep some apart for {parts} parts: "
            "add passages or a dev file"
        )
    order = np.random.default_rng(DEV_SEED).permutation(len(passages))
    apart = order[fold::folds] if fold is not None else order[: max(1, round(DEV_SHARE * len(passages)))]
    chosen = {passages[i] for i in apart}
    apart_questions = [question for question in whole.questions if question.context in chosen]
    by_id: dict[str, Question] = {}
    for question in apart_questions:
        by_id.setdefault(question.id, question)  # answers are known by their ids; training does not need these
    dev = list(by_id.values())
    rest = [question for question in whole.questions if question.context not in chosen]
    what = f"fold {fold + 1} of {folds}" if fold is not None else f"no dev file: {DEV_SHARE:.0%}, seed {DEV_SEED}"
    notes.append(
        f"{what}: {len(dev):,} of {len(whole.questions):,} training questions, those about {len(chosen):,} of "
        f"{len(passages):,} passages, are kept apart as the dev set"
    )
    if repeated := len(apart_questions) - len(dev):
        notes.append(f"{repeated:,} of the questions kept apart have the id of an earlier one: left out")
    cut = {"train": QuestionSplit(whole.path, rest, True), "dev": QuestionSplit(whole.path, dev, True)}
    return cut | {name: split for name, split in splits.items() if name != "train"}
