"""Scores against those of the official scripts, and their rules at the edges."""

import json
from pathlib import Path

import pytest

from electra.tasks.problems import Problems
from electra.tasks.questions.files import Question, read_questions
from electra.tasks.questions.scores import (
    best_null_threshold,
    normalize_answer,
    normalize_korquad,
    score_korquad,
    score_squad1,
    score_squad2,
    squad2_per_question,
)


def ask(name: str, *answers: str) -> Question:
    return Question(name, "?", "...", answers, (0,) * len(answers), not answers)


def test_squad_2_equals_the_official_script(golden: Path) -> None:
    official = json.loads((golden / "eval_official.json").read_text())
    questions = read_questions(golden / "squad_mini_v2.json", Problems()).questions
    answers = json.loads((golden / "eval_v2_preds.json").read_text())
    odds = json.loads((golden / "eval_v2_na_probs.json").read_text())
    for scores, expected in (
        (score_squad2(questions, answers), "no_na_probs"),
        (score_squad2(questions, answers, odds), "na_probs_thresh_default_1.0"),
        (score_squad2(questions, answers, odds, 0.5), "na_probs_thresh_0.5"),
    ):
        assert scores == official["v2"][expected] | {"missing": 0}  # to the last digit
    pairs = squad2_per_question(questions, answers)
    assert {name: list(pair) for name, pair in pairs.items()} == official["v2_per_question"]
    best = official["v2"]["na_probs_thresh_0.5"]["best_f1_thresh"]
    assert best_null_threshold(questions, answers, odds) == best
    for case in official["normalize_answer"]:
        assert normalize_answer(case["text"]) == case["normalized"]


def test_squad_1_equals_the_official_script(golden: Path) -> None:
    official = json.loads((golden / "eval_official.json").read_text())
    questions = read_questions(golden / "squad_mini_v1.json", Problems()).questions
    answers = json.loads((golden / "eval_v1_preds.json").read_text())
    assert score_squad1(questions, answers) == official["v1"] | {"total": 5, "missing": 1}


def test_squad_1_where_nothing_is_left_of_both() -> None:
    """evaluate-v1.1.py: equal texts, yet no word in common."""
    assert score_squad1([ask("a", "The")], {"a": "an"}) == {"exact_match": 100, "f1": 0, "total": 1, "missing": 0}
    assert score_squad2([ask("a", "The")], {"a": "an"})["f1"] == 100
    assert score_squad1([ask("a")], {"a": "x"})["f1"] == 0  # the script fails


def test_korquad_counts_characters() -> None:
    assert normalize_korquad("《경고: 현실주의》와 ‘A-b’ (林)") == "경고 현실주의 와 ab 林"
    assert normalize_korquad("the Mill") == "the mill"  # no articles in Korean
    questions = [ask("a", "임수경"), ask("b", "1989년 2월"), ask("c", "서울", "부산 시"), ask("d", "x")]
    scores = score_korquad(questions, {"a": "임수경을", "b": "1989년2월", "c": "부산 시"})
    # a: 3 of 4 characters right, all 3 found. b: spaces count for exact match alone. c: the best answer. d: missing.
    assert scores == {"exact_match": 25.0, "f1": 100 * (6 / 7 + 1 + 1) / 4, "total": 4, "missing": 1}
    nothing = score_korquad([ask("a", "()")], {"a": "''"})
    assert (nothing["exact_match"], nothing["f1"]) == (100, 0)


def test_missing_predictions_score_nothing_and_are_counted() -> None:
    questions = [ask("a", "corn"), ask("b", "mill"), ask("c"), ask("d")]
    scores = score_squad2(questions, {"a": "corn", "c": ""}, {"a": 0.1, "c": 0.9})
    assert scores["exact"] == scores["best_exact"] == 50
    assert (scores["total"], scores["missing"]) == (4, 2)
    assert (scores["HasAns_exact"], scores["NoAns_exact"]) == (50, 50)


def test_thresholds_of_odds_that_are_no_probabilities() -> None:
    """Odds such as differences of logits: where no answer at all is best, the official 0 would let some through."""
    questions, odds = [ask("a"), ask("b")], {"a": -3.0, "b": 2.0}
    answers = {"a": "corn", "b": "mill"}
    scores = score_squad2(questions, answers, odds)
    assert (scores["best_f1"], scores["best_f1_thresh"]) == (100, 0)
    threshold = best_null_threshold(questions, answers, odds)
    assert score_squad2(questions, answers, odds, threshold)["f1"] == 100


@pytest.mark.parametrize("splits", [("a", "b"), ("c",)])
def test_a_file_with_one_kind_of_question(splits: tuple[str, ...]) -> None:
    questions = [ask(name, *(("corn",) if name != "c" else ())) for name in splits]
    scores = score_squad2(questions, dict.fromkeys(splits, "corn"))
    assert {name.split("_")[0] for name in scores if "_" in name} == {"NoAns" if splits == ("c",) else "HasAns"}
