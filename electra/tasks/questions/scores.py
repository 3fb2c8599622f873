"""Scores of answers, equal to those of the official evaluation scripts.

    SQuAD 2.0    rajpurkar/SQuAD-explorer, evaluate-v2.0.py; with the odds of "no answer" also the best thresholds
    SQuAD 1.1    its evaluate-v1.1.py
    MRQA         mrqa_official_eval.py of the shared task, which is SQuAD 1.1's with MRQA's answers
    KorQuAD 1.0  evaluate_v1_0.py: quotation marks and brackets become spaces, no articles, F1 over characters

All take questions and {id: answer} and give percentages; the best of a question's right answers counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from electra.tasks.questions.files import Question

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_KORQUAD_SPACES = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))

PerQuestion = dict[str, tuple[float, float]]
"""Exact match and F1, from 0 to 1, by question id."""


def normalize_answer(text: str) -> str:
    """SQuAD's: lower case, without ASCII punctuation, without the words a, an, the; one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def normalize_korquad(text: str) -> str:
    """KorQuAD's: quotation marks and brackets are spaces; lower case, without ASCII punctuation."""
    return " ".join(text.translate(_KORQUAD_SPACES).lower().translate(_NO_PUNCTUATION).split())


def compare_squad1(gold: str, answer: str) -> tuple[float, float]:
    """Exact match and F1 over words of one answer with one right answer, as SQuAD 1.1 and MRQA have it."""
    right, given = normalize_answer(gold), normalize_answer(answer)
    return float(right == given), _f1(right.split(), given.split())


def compare_korquad(gold: str, answer: str) -> tuple[float, float]:
    """Exact match, for which spaces count, and F1 over characters without them."""
    right, given = normalize_korquad(gold), normalize_korquad(answer)
    return float(right == given), _f1(list(right.replace(" ", "")), list(given.replace(" ", "")))


def compare_squad2(gold: str, answer: str) -> tuple[float, float]:
    """As `compare_squad1`; where one of the two has no words, F1 is 1 if the other has none either."""
    exact, f1 = compare_squad1(gold, answer)
    if normalize_answer(gold) and normalize_answer(answer):
        return exact, f1
    return exact, exact


def squad2_per_question(questions: Sequence[Question], answers: Mapping[str, str]) -> PerQuestion:
    """Scores of the questions that have a prediction; the right answer to an unanswerable one is the empty text."""
    golds = {
        question.id: [gold for gold in question.answers if normalize_answer(gold)] or [""] for question in questions
    }
    return {name: _best(compare_squad2, golds[name], answers[name]) for name in golds if name in answers}


def score_squad1(questions: Sequence[Question], answers: Mapping[str, str]) -> dict[str, float]:
    """SQuAD 1.1 and MRQA: exact_match, f1, total, missing. A question without a prediction scores 0."""
    return _score(compare_squad1, questions, answers)


def score_korquad(questions: Sequence[Question], answers: Mapping[str, str]) -> dict[str, float]:
    """KorQuAD 1.0: exact_match, f1 (over characters), total, missing. A question without a prediction scores 0."""
    return _score(compare_korquad, questions, answers)


def score_squad2(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """SQuAD 2.0: exact, f1, total, missing, and the first three of the answerable questions (HasAns_) and the others
    (NoAns_); with `null_odds` also best_exact, best_f1 and their thresholds.

    `null_odds` by id is any number that grows with the belief that there is no answer. Where it is above `threshold`
    an answer counts as none; the best thresholds are those that would have given the most. A question without a
    prediction is missing and scores 0, as in SQuAD 1.1 (the official script leaves it out of `total`, and then stops
    at the scores of HasAns or NoAns).
    """
    has_answer = {question.id: bool(question.answers) for question in questions}
    raw = squad2_per_question(questions, answers)
    scores = {name: raw.get(name, (0.0, 0.0)) for name in has_answer}
    for name in raw:
        if null_odds is not None and null_odds.get(name, 0.0) > threshold:
            scores[name] = (float(not has_answer[name]),) * 2
    result = _means(list(scores.values())) | {"missing": float(len(scores) - len(raw))}
    for prefix, answerable in (("HasAns", True), ("NoAns", False)):
        part = [scores[name] for name in scores if has_answer[name] == answerable]
        if part:
            result |= {f"{prefix}_{metric}": value for metric, value in _means(part).items()}
    if null_odds is not None:
        for number, metric in enumerate(("exact", "f1")):
            points = {name: pair[number] for name, pair in raw.items()}
            best, at = _best_threshold(points, answers, null_odds, has_answer)
            result |= {f"best_{metric}": 100.0 * best / len(scores), f"best_{metric}_thresh": 0.0 if at is None else at}
    return result


def best_null_threshold(
    questions: Sequence[Question], answers: Mapping[str, str], null_odds: Mapping[str, float]
) -> float:
    """The threshold of `null_odds` that gives the best F1, for answering other questions with it.

    The official script reports 0 where no answer at all is best, which is right for probabilities only; here it is
    a number below all odds then.
    """
    has_answer = {question.id: bool(question.answers) for question in questions}
    points = {name: f1 for name, (_, f1) in squad2_per_question(questions, answers).items()}
    _, at = _best_threshold(points, answers, null_odds, has_answer)
    return min(null_odds.values()) - 1.0 if at is None else at


def _score(
    compare: Callable[[str, str], tuple[float, float]], questions: Sequence[Question], answers: Mapping[str, str]
) -> dict[str, float]:
    exact = f1 = 0.0
    missing = 0
    for question in questions:
        if question.id not in answers:
            missing += 1
        elif question.answers:
            best = _best(compare, question.answers, answers[question.id])
            # One after the other, as the scripts do: sum() rounds otherwise, and the last digit would differ.
            exact, f1 = exact + best[0], f1 + best[1]
    total = len(questions)
    return {"exact_match": 100.0 * exact / total, "f1": 100.0 * f1 / total, "total": total, "missing": missing}


def _best(compare: Callable[[str, str], tuple[float, float]], golds: Sequence[str], answer: str) -> tuple[float, float]:
    pairs = [compare(gold, answer) for gold in golds]
    return max(exact for exact, _ in pairs), max(f1 for _, f1 in pairs)


def _f1(right: list[str], given: list[str]) -> float:
    """Overlap of two bags of words or characters; 0 if they share none."""
    same = sum((Counter(right) & Counter(given)).values())
    if same == 0:
        return 0.0
    precision, recall = 1.0 * same / len(given), 1.0 * same / len(right)
    return (2 * precision * recall) / (precision + recall)


def _means(scores: list[tuple[float, float]]) -> dict[str, float]:
    total = len(scores)
    exact, f1 = (sum(values) for values in zip(*scores, strict=True))
    return {"exact": 100.0 * exact / total, "f1": 100.0 * f1 / total, "total": total}


def _best_threshold(
    points: Mapping[str, float],
    answers: Mapping[str, str],
    null_odds: Mapping[str, float],
    has_answer: Mapping[str, bool],
) -> tuple[float, float | None]:
    """The most points that some threshold gives, and that threshold; None: no answer at all.

    From "no answer at all" on, the questions are answered one by one, the surest first (`find_best_thresh`).
    """
    now = best = float(sum(not has_answer[name] for name in points))
    at = None
    for name in sorted(null_odds, key=lambda name: null_odds[name]):
        if name not in points:
            continue
        now += points[name] if has_answer[name] else -float(answers[name] != "")
        if now > best:
            best, at = now, null_odds[name]
    return best, at
