"""From a task of the catalogue to its data, encoded: the one place that knows which kinds of task there are."""

from __future__ import annotations

from electra.config import FinetuneConfig
from electra.interop.hf import Pretrained
from electra.tasks.catalogue import AnyTask
from electra.tasks.prepared import Prepared
from electra.tasks.problems import Problems
from electra.tasks.questions.prepared import prepare_questions
from electra.tasks.questions.task import QuestionTask
from electra.tasks.sentences.prepared import prepare_sentences
from electra.tasks.tagging.prepared import prepare_tagging
from electra.tasks.tagging.task import TaggingTask


def prepare(
    task: AnyTask, config: FinetuneConfig, pretrained: Pretrained, fold: int | None, problems: Problems
) -> Prepared:
    """Read and encode the files of a task; ValueError for files that are of no use."""
    if isinstance(task, QuestionTask):
        return prepare_questions(task, config, pretrained, fold, problems)
    if isinstance(task, TaggingTask):
        return prepare_tagging(task, config, pretrained, fold, problems)
    return prepare_sentences(task, config, pretrained, fold, problems)
