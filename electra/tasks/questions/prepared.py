"""Question answering for fine-tuning: where in a passage is the answer to a question, and is there one?

    files -> task.py (questions of each split) -> features.py (windows) -> `QuestionsPrepared`
    heads.py (the models) -> answers.py (outputs -> answers) -> scores.py (official scores)

A row of the model is a window of a passage. Outputs of the simple head are logits, which can be averaged over models;
those of the joint head are the spans of its beam, which cannot. Questions may have no answer if the training file has
such a one: an answer is then given only while the odds of "no answer" are not above a threshold, which is the one
with the best F1 on dev unless it is given. It is a buffer of the model, so that it goes wherever the weights go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from electra.config import FinetuneConfig, QuestionConfig
from electra.encoder import EncoderConfig
from electra.files import write_json
from electra.interop.hf import Pretrained
from electra.interop.network import Tensors
from electra.runtime import Runtime
from electra.tasks.prepared import Export, Outputs
from electra.tasks.problems import Problems
from electra.tasks.questions.answers import Answer, find_answers, given_answers, predict_windows, window_batch
from electra.tasks.questions.features import QuestionFeatures, cached_features
from electra.tasks.questions.files import Question
from electra.tasks.questions.heads import JointHead, JointQuestionModel, QuestionBatch, SimpleQuestionModel
from electra.tasks.questions.scores import best_null_threshold, score_korquad, score_squad1, score_squad2
from electra.tasks.questions.task import QuestionTask, Scores, load_question_data
from electra.tasks.questions.windows import WindowOptions
from electra.tokenizer import Vocabulary

MAX_LENGTH = 384
"""Tokens of a row where nothing else is asked for; Google's code has 512."""
THRESHOLD = "electra_null_threshold"
"""Entry of config.json: the threshold of a model that may answer nothing."""
WINDOWS = "electra_windows"
"""Entry of config.json: how passages were cut."""

SCRIPTS = {"squad1": "SQuAD 1.1", "squad2": "SQuAD 2.0"}

QuestionHead = Literal["simple", "joint"]


@dataclass(frozen=True)
class EncodedQuestions:
    """A split with its windows."""

    questions: list[Question]
    features: QuestionFeatures
    is_labelled: bool


@dataclass(frozen=True)
class QuestionsPrepared:
    """`prepared.Prepared` for question answering."""

    task: QuestionTask
    scores: Scores
    head: QuestionHead
    options: QuestionConfig
    windows: WindowOptions
    vocabulary: Vocabulary
    encoded: dict[str, EncodedQuestions]
    threshold: float | None
    """Of the null odds; none: the best on dev."""
    google_text: bool = False
    """Recover texts as Google's code does."""
    notes: list[str] = field(default_factory=list)

    @property
    def metric(self) -> str:
        return "f1"

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.encoded)

    @property
    def lengths(self) -> np.ndarray:
        return self.encoded["train"].features.lengths

    @property
    def unanswerable(self) -> bool:
        """Whether a question may have no answer."""
        return self.scores == "squad2"

    def size(self, split: str) -> int:
        return len(self.encoded[split].questions)

    def is_labelled(self, split: str) -> bool:
        return self.encoded[split].is_labelled

    def describe(self, split: str) -> str:
        found = self.encoded[split]
        features, questions = found.features, found.questions
        none = f", {sum(question.is_impossible for question in questions):,} without an answer" * self.unanswerable
        mean = features.lengths.sum() / max(len(features), 1)
        unknown = np.sum(features.context_ids == self.vocabulary.special.unk) / max(len(features.context_ids), 1)
        text = (
            f"{len(questions):,} questions{none if found.is_labelled else ', no answers'}, {len(features):,} windows "
            f"of {mean:.1f} tokens on average and {features.max_length} at most, {unknown:.2%} unknown"
        )
        if split == "train":
            text += f", {int((features.ends == 0).sum()):,} windows without an answer"
        return text

    def facts(self) -> dict[str, Any]:
        answers = "a span of the passage" + (", or nothing where there is no answer" if self.unanswerable else "")
        if self.head == "joint":
            answers += "; its end is predicted from its start"
        return {
            "labels": [],
            "head": self.head,
            "unanswerable": self.unanswerable,
            "max_length": self.windows.max_length,
            "doc_stride": self.windows.doc_stride,
            "pipeline": "",  # that for questions left transformers with version 5
            "answers": answers,
        } | ({"auto_class": "AutoModelForQuestionAnswering"} if self.head == "simple" else {})

    def make_model(self, encoder: EncoderConfig) -> nn.Module:
        model: SimpleQuestionModel | JointQuestionModel
        if self.head == "simple":
            model = SimpleQuestionModel(encoder)
        else:
            model = JointQuestionModel(encoder, self.options.beam_size, self.options.answerable_weight)
        model.null_threshold.fill_(self.threshold or 0.0)
        return model

    def load_head(self, model: nn.Module, pretrained: Pretrained) -> None:
        model.get_submodule("head").load_state_dict(question_head(pretrained)[1])

    def batch(self, rows: np.ndarray, seed: int) -> QuestionBatch:
        return window_batch(self.encoded["train"].features, rows, seed)

    def totals(self, rows: np.ndarray) -> dict[str, float]:
        return {"windows": float(len(rows))}

    def predict(self, model: nn.Module, split: str, runtime: Runtime) -> Outputs:
        """Outputs of `predict_windows`, and {"threshold": (W,)} where there may be no answer.

        Where none is given, that is found on dev and kept in the model.
        """
        assert isinstance(model, SimpleQuestionModel | JointQuestionModel)
        found = self.encoded[split]
        outputs = predict_windows(model, found.features, runtime)
        if self.unanswerable:
            if split == "dev" and self.threshold is None and found.is_labelled:
                texts, odds = self._by_id(self.answers(outputs, split), split)
                model.null_threshold.fill_(best_null_threshold(found.questions, texts, odds))
            outputs["threshold"] = np.full(len(found.features), float(model.null_threshold), np.float32)
        return outputs

    def score(self, outputs: Outputs, split: str) -> dict[str, float]:
        """The official scores, without the counts of questions."""
        questions = self.encoded[split].questions
        texts, odds = self._by_id(self.answers(outputs, split), split)
        if self.scores == "squad2":
            found = score_squad2(questions, texts, odds, _threshold(outputs))
        else:
            found = (score_korquad if self.scores == "korquad" else score_squad1)(questions, texts)
        return {name: value for name, value in found.items() if not name.endswith(("total", "missing"))}

    def _by_id(self, answers: Sequence[Answer], split: str) -> tuple[dict[str, str], dict[str, float]]:
        """The answers and, where there may be none, the odds of that."""
        pairs = list(zip(self.encoded[split].questions, answers, strict=True))
        texts = {question.id: answer.text for question, answer in pairs}
        return texts, {q.id: answer.null_odds for q, answer in pairs if answer.null_odds is not None}

    def answers(self, outputs: Outputs, split: str, candidates: int = 1) -> list[Answer]:
        """The answers to the questions of a split."""
        found = self.encoded[split]
        return find_answers(
            outputs,
            found.questions,
            found.features,
            self.vocabulary,
            n_best=self.options.n_best,
            max_answer_length=self.options.max_answer_length,
            unanswerable=self.unanswerable,
            google_text=self.google_text,
            candidates=candidates,
        )

    def can_average(self) -> bool:
        return self.head == "simple"

    def write_predictions(self, outputs: Outputs, split: str, folder: Path) -> None:
        """The files of Google's and transformers' scripts.

        SPLIT_predictions.json {id: answer} for the official scripts, SPLIT_nbest_predictions.json {id: [{text,
        probability, start_logit, end_logit}]}, and where there may be no answer SPLIT_null_odds.json {id: odds}.
        """
        questions = self.encoded[split].questions
        answers = self.answers(outputs, split, self.options.n_best)
        write_json(folder / f"{split}_predictions.json", given_answers(questions, answers, _threshold(outputs)))
        pairs = list(zip(questions, answers, strict=True))
        best = {question.id: [candidate.as_json() for candidate in answer.candidates] for question, answer in pairs}
        write_json(folder / f"{split}_nbest_predictions.json", best)
        if self.unanswerable:
            write_json(folder / f"{split}_null_odds.json", self._by_id(answers, split)[1])

    def export(self, model: nn.Module) -> Export:
        assert isinstance(model, SimpleQuestionModel | JointQuestionModel)
        head = {name: value.detach().clone() for name, value in model.head.state_dict().items()}
        simple = self.head == "simple"
        config: dict[str, Any] = {
            "electra_task": self.task.name,
            "electra_kind": self.task.kind,
            WINDOWS: {
                "max_length": self.windows.max_length,
                "doc_stride": self.windows.doc_stride,
                "max_query_length": self.windows.max_query_length,
            },
        }
        if self.unanswerable:
            config[THRESHOLD] = float(model.null_threshold)
        return Export(
            architecture="ElectraForQuestionAnswering" if simple else "ElectraModel",
            head={f"qa_outputs.{name}": value for name, value in head.items()} if simple else {},
            config=config,
            extra={} if simple else head,
        )


def _threshold(outputs: Outputs) -> float:
    values = outputs.get("threshold", np.zeros(0))
    return float(values[0]) if len(values) else 0.0


def question_head(pretrained: Pretrained) -> tuple[QuestionHead, Tensors]:
    """Which head a fine-tuned folder has, and its state dict.

    Folders of `electra finetune`, of transformers, and of `electra convert` from Google's checkpoints. ValueError if
    there is none.
    """
    names = set(JointHead(1).state_dict())
    if set(pretrained.extra) == names:
        return "joint", {name: value.float() for name, value in pretrained.extra.items()}
    if "end_hidden.weight" in pretrained.extra:
        missing = sorted(names - set(pretrained.extra)) or sorted(set(pretrained.extra) - names)
        raise ValueError(f"{pretrained.source} has another joint head than those that run here: see {missing[0]}")
    if "qa_outputs.weight" not in pretrained.head_state:
        raise ValueError(f"{pretrained.source} has no head for question answering: fine-tune it first")
    head = {kind: pretrained.head_state[f"qa_outputs.{kind}"].float() for kind in ("weight", "bias")}
    if len(head["bias"]) != 2:
        raise ValueError(
            f"{pretrained.source} has {len(head['bias'])} outputs for a span, which has a start and an end"
        )
    return "simple", head


def window_options(
    pretrained: Pretrained, questions: QuestionConfig, max_length: int, trained: bool = False
) -> WindowOptions:
    """How passages are cut: as asked for, 0 tokens meaning the usual number or as many as the model can read.

    With `trained` a value that is not asked for is what the folder was trained with, where it says so. ValueError if
    the model cannot read as many tokens.
    """
    limit = pretrained.config.max_positions
    if max_length > limit:
        raise ValueError(f"--max-length {max_length} is longer than the model can read ({limit})")
    stored = pretrained.hf_config.get(WINDOWS, {}) if trained else {}
    usual = QuestionConfig()

    def option(name: str) -> int:
        value: int = getattr(questions, name)
        return stored.get(name, value) if value == getattr(usual, name) else value

    length = max_length or stored.get("max_length", min(MAX_LENGTH, limit))
    return WindowOptions(length, option("doc_stride"), option("max_query_length"))


def prepare_questions(
    task: QuestionTask, config: FinetuneConfig, pretrained: Pretrained, fold: int | None, problems: Problems
) -> QuestionsPrepared:
    """Read the files of `task` and cut its passages for the model; ValueError in a sentence for what cannot be used."""
    trains = config.mode in ("train_eval", "train")
    options = window_options(pretrained, config.questions, config.max_length, trained=not trains)
    data = load_question_data(
        task,
        config.data,
        problems,
        max_train=config.max_train,
        fold=fold,
        folds=config.folds,
        train=trains,
        cut_dev=config.mode == "train_eval",
    )
    if config.mode == "train_eval" and not data.splits["dev"].is_labelled:
        raise ValueError(f"{data.splits['dev'].path} has no answers, which the task {task.name} needs there")
    notes = list(data.notes)
    threshold = config.questions.null_threshold
    head: QuestionHead = config.questions.head
    scores = task.scores
    if scores is None:
        labelled = [question for split in data.splits.values() for question in split.questions]
        has_none = THRESHOLD in pretrained.hf_config if not trains else any(q.is_impossible for q in labelled)
        scores = "squad2" if has_none else "squad1"
        notes.append(
            f"{'some questions have no' if has_none else 'all questions have an'} answer: scored as {SCRIPTS[scores]}"
        )
    if not trains:
        head = question_head(pretrained)[0]
        threshold = pretrained.hf_config.get(THRESHOLD, threshold) if threshold is None else threshold
    if scores == "squad2" and threshold is None:
        if config.mode == "train":
            how = "0, as --mode train asks nothing of a dev set"
        elif "dev" in data.splits and data.splits["dev"].is_labelled:
            how = "the one with the best F1 on dev, so that f1 is best_f1 there"
        else:
            how = "0, as there is no dev set to find it on"
        notes.append(f"the threshold of the odds of no answer is {how}")
    if scores != "squad2" and config.questions.null_threshold is not None:
        notes.append("--null-threshold changes nothing: every question is taken to have an answer")
    encoded = {}
    for name, split in data.splits.items():
        features = cached_features(split.questions, pretrained.vocabulary, options, config.processes, config.cache)
        encoded[name] = EncodedQuestions(split.questions, features, split.is_labelled)
        if name == "train" and not len(features):
            raise ValueError(f"{split.path}: no passage has a character that {pretrained.source} can read")
        for number in np.flatnonzero(features.cut):
            fault = f"questions longer than {options.query_room} tokens: cut"
            problems.add(fault, split.path, split.questions[number].id)
    return QuestionsPrepared(
        task=task,
        scores=scores,
        head=head,
        options=config.questions,
        windows=options,
        vocabulary=pretrained.vocabulary,
        encoded=encoded,
        threshold=threshold,
        google_text=config.recipe == "google",
        notes=notes,
    )
