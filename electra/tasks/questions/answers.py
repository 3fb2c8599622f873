"""From a model's outputs for windows to answers: the best spans of all windows of a question, and "no answer".

    model --`predict_windows`--> Outputs (W, ...) --`best_spans`--> `Spans`, best first --`find_answers`--> `Answer`s
                                          `--`null_scores`--> "no answer": the least score of a question's windows

The rules are those of google-research/electra, finetune/qa/qa_metrics.py, and of transformers' run_qa: a span begins
where its window has more context than any other, ends at most `max_answer_length` tokens later, and is scored by the
sum of start and end. The odds that a question has no answer are the null score minus that of the best span; with the
joint head they are the logit of its classifier alone. Everything but the answers' texts is computed on whole arrays:
10,000 windows take seconds. Letters: W windows, L tokens of the longest row, K beam, N candidate spans, Q questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from electra.runtime import Runtime
from electra.tasks.features import in_turn, length_batches
from electra.tasks.prepared import Outputs
from electra.tasks.questions.features import QuestionFeatures, answer_text, collate_windows
from electra.tasks.questions.files import Question
from electra.tasks.questions.heads import MASKED, JointQuestionModel, QuestionBatch, SimpleQuestionModel
from electra.tasks.questions.text import Span, find_words, span_text
from electra.tokenizer import Vocabulary

CHUNK = 2048
"""Windows whose pairs of start and end are looked at together: 0.8 million pairs of 20 times 20."""
NO_WINDOW = 1_000_000.0
"""Google's null score of a question without a window."""
EMPTY = "empty"
"""Google's answer to a question without a single valid span; ours is nothing."""


@dataclass(frozen=True)
class Spans:
    """Valid spans of all questions: those of a question together, the best first."""

    questions: np.ndarray  # (N,) number of the question
    windows: np.ndarray  # (N,)
    starts: np.ndarray  # (N,) place in the row of the window
    ends: np.ndarray  # (N,) inclusive
    start_scores: np.ndarray  # (N,) float32: logits, or log-probabilities of the joint head
    end_scores: np.ndarray  # (N,)


@dataclass(frozen=True)
class Candidate:
    """One of the best answers to a question."""

    text: str
    probability: float
    """Among the candidates alone."""
    start_score: float
    end_score: float
    begin: int = 0
    """The characters of the passage that its tokens cover, the first and the one after the last."""
    end: int = 0

    def as_json(self) -> dict[str, Any]:
        """As in the files of Google's and transformers' scripts."""
        return {
            "text": self.text,
            "probability": self.probability,
            "start_logit": self.start_score,
            "end_logit": self.end_score,
        }


@dataclass(frozen=True)
class Answer:
    """What is answered to one question."""

    text: str
    """The best answer, whether or not there is one in truth."""
    null_odds: float | None
    """Grows with the belief that there is no answer; None where there always is one."""
    candidates: list[Candidate]
    """The best first, each text once."""

    def given(self, threshold: float | None) -> str:
        """The answer, or nothing where the odds are above the threshold, if there is one."""
        if threshold is None or self.null_odds is None:
            return self.text
        return "" if self.null_odds > threshold else self.text


def window_batch(features: QuestionFeatures, windows: np.ndarray, seed: int = 0) -> QuestionBatch:
    """The windows with these numbers (B,) as tensors."""
    arrays = collate_windows(features, windows)
    return QuestionBatch(
        input_ids=torch.from_numpy(arrays.input_ids),
        segment_ids=torch.from_numpy(arrays.segment_ids),
        valid=torch.from_numpy(arrays.valid),
        starts=torch.from_numpy(arrays.starts),
        ends=torch.from_numpy(arrays.ends),
        impossible=torch.from_numpy(arrays.impossible.astype(np.float32)),
        seed=seed,
    )


@torch.inference_mode()
def predict_windows(model: nn.Module, features: QuestionFeatures, runtime: Runtime, batch_tokens: int = 0) -> Outputs:
    """What a model gives for all windows, in their order; leaves it in evaluation mode.

    Simple: {"start", "end"} (W, L) float32 logits, -`MASKED` behind the end of a row. Joint: the fields of `Beam`,
    (W, K) and (W, K, K), with spans that score -`MASKED` where a row is shorter than the beam.
    """
    if not len(features):  # there are questions about empty passages alone
        return {name: np.zeros((0, 1), np.float32) for name in ("start", "end")}
    model.eval()
    device = next(model.parameters()).device
    out: Outputs = {}
    for windows in in_turn(length_batches(features.lengths, device, batch_tokens), features.lengths):
        batch = window_batch(features, windows).to(device)
        with runtime.autocast():
            if isinstance(model, JointQuestionModel):
                tensors = vars(model.beam(batch))
            else:
                assert isinstance(model, SimpleQuestionModel)
                tensors = dict(zip(("start", "end"), model.logits(batch), strict=True))
        for name, tensor in tensors.items():
            found = tensor.cpu().numpy()
            if name not in out:  # the first batch holds the longest rows
                empty, dtype = (0, np.int16) if name.endswith("index") else (-MASKED, np.float32)
                out[name] = np.full((len(features), *found.shape[1:]), empty, dtype)
            rows = out[name][windows]
            rows[(slice(None), *map(slice, found.shape[1:]))] = found
            out[name][windows] = rows
    if "start" in out:
        for name in ("start", "end"):
            out[name][np.arange(out[name].shape[1]) >= features.lengths[:, None]] = -MASKED
    return out


# ---------------------------------------------------------------------------------------------------- spans


def best_spans(outputs: Outputs, features: QuestionFeatures, n_best: int, max_answer_length: int) -> Spans:
    """The valid spans among the best starts and ends of each window, for outputs of `predict_windows`.

    Of the simple head these are the `n_best` starts and ends among the candidates of each window, paired; of the joint
    head those of the beam.
    """
    begins = range(0, max(len(features), 1), CHUNK)
    parts = [_chunk(outputs, features, slice(i, i + CHUNK), n_best, max_answer_length) for i in begins]
    joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    questions, scores = joined[0], joined[4] + joined[5]
    order = np.lexsort((-scores, questions))  # stable: of equal spans the first found stays first, as in Google's sort
    return Spans(*(array[order] for array in joined))


def null_scores(outputs: Outputs, features: QuestionFeatures) -> np.ndarray:
    """(Q,) float32: the least over the windows of each question; of a question without a window `NO_WINDOW`."""
    of_window = outputs["unanswerable"] if "unanswerable" in outputs else outputs["start"][:, 0] + outputs["end"][:, 0]
    scores = np.full(len(features.window_offsets) - 1, NO_WINDOW, np.float32)
    np.minimum.at(scores, features.questions, of_window)
    return scores


def _chunk(
    outputs: Outputs, features: QuestionFeatures, rows: slice, n_best: int, max_answer_length: int
) -> tuple[np.ndarray, ...]:
    """The fields of `Spans` for some windows, in the order of windows, starts and ends."""
    first, begins = features.first[rows, None], features.begins[rows, None]
    sizes = features.sizes[rows, None]
    if "start" in outputs:
        starts, start_scores = _top(outputs["start"][rows], first, sizes, n_best)
        ends, end_scores = _top(outputs["end"][rows], first, sizes, n_best)
        ends, end_scores = ends[:, None], end_scores[:, None]
    else:
        starts, start_scores = outputs["start_index"][rows].astype(np.int64), outputs["start_scores"][rows]
        ends, end_scores = outputs["end_index"][rows].astype(np.int64), outputs["end_scores"][rows]
    token = starts - first + begins  # of the passage
    valid = (starts >= first) & (starts < first + sizes)
    valid &= (token >= features.best_begins[rows, None]) & (token < features.best_ends[rows, None])
    length = ends - starts[..., None] + 1
    pairs = valid[..., None] & (length > 0) & (length <= max_answer_length)
    pairs &= ends < (first + sizes)[..., None]
    window, i, j = np.nonzero(pairs)
    ends, end_scores = np.broadcast_to(ends, pairs.shape), np.broadcast_to(end_scores, pairs.shape)
    number = window + rows.start
    return (
        features.questions[number],
        number,
        starts[window, i],
        ends[window, i, j],
        start_scores[window, i],
        end_scores[window, i, j],
    )


def _top(logits: np.ndarray, first: np.ndarray, sizes: np.ndarray, n_best: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and logits of the best `n_best` candidates ([CLS], passage, its [SEP]), the first of equal ones first."""
    place = np.arange(logits.shape[1])
    candidate = (place == 0) | ((place >= first) & (place <= first + sizes))
    order = np.argsort(np.where(candidate, -logits, MASKED - logits), axis=1, kind="stable")[:, :n_best]
    return order, np.take_along_axis(logits, order, axis=1)


# -------------------------------------------------------------------------------------------------- answers


def find_answers(
    outputs: Outputs,
    questions: Sequence[Question],
    features: QuestionFeatures,
    vocabulary: Vocabulary,
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
    unanswerable: bool = False,
    google_text: bool = False,
    candidates: int | None = None,
) -> list[Answer]:
    """The answers to all questions, in their order.

    With `unanswerable` they have null odds. An answer's text is what its tokens cover in the passage; `google_text`
    finds it as Google's code does, by comparing texts, which takes whole words where that fails. `candidates` is how
    many are to be found, `n_best` if it is not said: 1 is faster.
    """
    spans = best_spans(outputs, features, n_best, max_answer_length)
    recover = _Recovery(questions, features, vocabulary, google_text)
    nulls = null_scores(outputs, features) if unanswerable else None
    is_classified = "unanswerable" in outputs
    bounds = np.searchsorted(spans.questions, np.arange(len(questions) + 1))
    answers = []
    for number in range(len(questions)):
        found: dict[str, int] = {}  # text -> its best span
        for index in range(bounds[number], bounds[number + 1]):
            if len(found) >= (candidates or n_best):
                break
            found.setdefault(recover(spans, index), index)
        best = list(found.values())
        start_scores, end_scores = spans.start_scores[best], spans.end_scores[best]
        texts = list(found)
        places = [recover.place(spans, index) for index in best]
        if not best:
            texts, places = [EMPTY if google_text else ""], [(0, 0)]
            start_scores = end_scores = np.zeros(1, np.float32)
        odds = None
        if nulls is not None:
            odds = float(nulls[number] if is_classified else nulls[number] - start_scores[0] - end_scores[0])
        scores = start_scores + end_scores
        weights = np.exp(scores - scores.max())
        rows = zip(texts, weights / weights.sum(), start_scores, end_scores, places, strict=True)
        ranked = [
            Candidate(text, float(probability), float(start), float(end), *place)
            for text, probability, start, end, place in rows
        ]
        answers.append(Answer(texts[0], odds, ranked))
    return answers


class _Recovery:
    """The text of a span, as it stands in its passage; the words of a passage are found once."""

    def __init__(
        self, questions: Sequence[Question], features: QuestionFeatures, vocabulary: Vocabulary, google_text: bool
    ) -> None:
        self.questions, self.features, self.vocabulary = questions, features, vocabulary
        self.google_text = google_text
        self._words: tuple[int, list[Span]] = (-1, [])

    def __call__(self, spans: Spans, index: int) -> str:
        question = int(spans.questions[index])
        context = self.questions[question].context
        if not self.google_text:
            return span_text(context, *self.place(spans, index))
        span = int(spans.windows[index]), int(spans.starts[index]), int(spans.ends[index])
        number = int(self.features.question_contexts[question])
        if self._words[0] != number:
            self._words = number, find_words(context)
        return answer_text(self.features, self.vocabulary, context, self._words[1], *span)

    def place(self, spans: Spans, index: int) -> Span:
        """The characters of a span in its passage."""
        tokens = self.features.passage_tokens(
            int(spans.windows[index]), int(spans.starts[index]), int(spans.ends[index])
        )
        return int(self.features.token_begins[tokens.start]), int(self.features.token_ends[tokens.stop - 1])


def given_answers(questions: Sequence[Question], answers: Sequence[Answer], threshold: float) -> dict[str, str]:
    """{id: answer}, nothing where the odds of no answer are above the threshold."""
    return {question.id: answer.given(threshold) for question, answer in zip(questions, answers, strict=True)}
