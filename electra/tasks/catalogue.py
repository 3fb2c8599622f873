"""The tasks known by name, groups of them, and how a task of one's own becomes the same thing.

    name | FILE.toml | custom and its columns -> `find_task` -> a task, which holds no data

The named tasks stand with those of their benchmark (sentences/glue.py, sentences/korean.py, ...), each with its source.
"""

from __future__ import annotations

from pathlib import Path

from electra.config import TaskConfig
from electra.tasks.questions.task import QUESTION_TASKS, QuestionTask, custom_question_task
from electra.tasks.sentences import glue, korean
from electra.tasks.sentences.task import SentenceTask, custom_task
from electra.tasks.tagging.task import TAGGING_TASKS, TaggingTask, custom_tagging_task
from electra.toml import read_toml

AnyTask = SentenceTask | QuestionTask | TaggingTask

TASKS: dict[str, AnyTask] = {task.name: task for task in (*glue.TASKS, *korean.TASKS)} | QUESTION_TASKS | TAGGING_TASKS

GROUPS = {"glue": glue.FOLDERS, "korean": korean.FOLDERS}
"""Tasks that are asked for under one name, each with the folder of its files below that of the group."""


def find_task(name: str, custom: TaskConfig) -> AnyTask:
    """The task called `name`, the one that a file NAME.toml describes, or for "custom" the one that `custom` does.

    Raises ValueError for an unknown name, and for columns that are given beside a task that has its own.
    """
    if name == "custom":
        return _custom_task(name, custom)
    if custom != TaskConfig():
        raise ValueError(f"--task {name} has its own columns, labels and metric: leave these out, or use --task custom")
    if name.endswith(".toml"):
        return _custom_task(Path(name).stem, read_toml(TaskConfig, Path(name)))
    if name not in TASKS:
        raise ValueError(
            f"unknown task {name!r}: choose one of {', '.join(TASKS)}, a FILE.toml, or custom with its columns"
        )
    return TASKS[name]


def _custom_task(name: str, config: TaskConfig) -> AnyTask:
    if config.kind == "question-answering":
        return custom_question_task(name, config)
    if config.kind == "tagging":
        return custom_tagging_task(name, config)
    return custom_task(name, config)
