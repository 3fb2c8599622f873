"""From outputs of windows to answers: Google's own results, a slow computation, and questions without a passage."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from google_checkpoints import Arrays, read_npz
from tiny_models import WORDS, make_vocabulary, tiny_config

from electra.runtime import start
from electra.tasks.prepared import Outputs
from electra.tasks.problems import Problems
from electra.tasks.questions.answers import (
    NO_WINDOW,
    Answer,
    best_spans,
    find_answers,
    given_answers,
    predict_windows,
    window_batch,
)
from electra.tasks.questions.features import QuestionFeatures, build_features
from electra.tasks.questions.files import Question, read_questions
from electra.tasks.questions.heads import JointQuestionModel, SimpleQuestionModel
from electra.tasks.questions.scores import score_squad1, score_squad2
from electra.tasks.questions.windows import WindowOptions
from electra.tokenizer import Vocabulary, load_tokenizer

POST = ["v1_independent_random", "v1_joint_random", "v2_independent_random", "v2_joint_model", "v2_joint_random"]


def golden_outputs(values: Arrays, features: QuestionFeatures, joint: bool) -> Outputs:
    """Google's arrays in the order of our windows."""
    row_of = {int(eid): row for row, eid in enumerate(values["eid"])}
    number = np.arange(len(features)) - features.window_offsets[features.questions]
    rows = [row_of[1000 * int(question) + int(n)] for question, n in zip(features.questions, number, strict=True)]
    assert len(rows) == len(values["eid"])
    if not joint:
        return {"start": values["start_logits"][rows], "end": values["end_logits"][rows]}
    names = {"start_top_log_probs": "start_scores", "start_top_index": "start_index"}
    names |= {"end_top_log_probs": "end_scores", "end_top_index": "end_index", "answerable_logit": "unanswerable"}
    return {ours: values[theirs][rows] for theirs, ours in names.items()}


@pytest.mark.parametrize("tag", POST)
def test_answers_are_googles(golden: Path, tag: str) -> None:
    """Texts, odds to the last bit, and scores at Google's threshold."""
    expected = json.loads((golden / f"qa_post_{tag}.json").read_text())
    unanswerable = expected["task"] == "squad"
    vocabulary = load_tokenizer(golden / "vocab512.txt")
    path = golden / f"squad_mini_{'v2' if unanswerable else 'v1'}.json"
    questions = read_questions(path, Problems()).questions
    features = build_features(questions, vocabulary, WindowOptions(128, 64, 24))
    outputs = golden_outputs(read_npz(golden / f"qa_post_{tag}.npz"), features, expected["joint_prediction"])
    answers = find_answers(
        outputs,
        questions,
        features,
        vocabulary,
        n_best=expected["n_best_size"],
        max_answer_length=expected["max_answer_length"],
        unanswerable=unanswerable,
        google_text=True,
    )
    texts = {question.id: answer.text for question, answer in zip(questions, answers, strict=True)}
    assert texts == expected["predictions"]
    if not unanswerable:
        assert all(answer.null_odds is None for answer in answers)
        assert score_squad1(questions, texts) | expected["eval"] == score_squad1(questions, texts)
        return
    odds = {question.id: answer.null_odds for question, answer in zip(questions, answers, strict=True)}
    assert odds == expected["null_odds"]
    scores = score_squad2(questions, texts, odds, expected["qa_na_threshold"])
    assert scores | expected["eval"] == scores


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return make_vocabulary(tmp_path_factory.mktemp("vocabulary"))


def random_questions(count: int = 12) -> list[Question]:
    """Passages of 1 to 90 words, which windows of 32 tokens cut up to ten times."""
    draw, words = np.random.default_rng(4), WORDS.split()
    return [
        Question(str(i), " ".join(draw.choice(words, 1 + i % 7)), " ".join(draw.choice(words, draw.integers(1, 91))))
        for i in range(count)
    ]


def slow_answers(
    outputs: Outputs, questions: list[Question], features: QuestionFeatures, n_best: int, longest: int
) -> list[tuple[list[str], np.float32]]:
    """The rules one span at a time, for the simple head: the best texts, and the odds of no answer."""
    found = []
    for number, question in enumerate(questions):
        spans, null = [], np.float32(np.inf)
        for window in np.flatnonzero(features.questions == number):
            start, end = outputs["start"][window], outputs["end"][window]
            null = min(null, start[0] + end[0])
            first, size = int(features.first[window]), int(features.sizes[window])
            places = [0, *range(first, first + size + 1)]
            counts = dict(enumerate(features.has_most_context(window), first))
            for i in sorted(places, key=lambda place: -start[place])[:n_best]:
                for j in sorted(places, key=lambda place: -end[place])[:n_best]:
                    if i and first <= i <= j < first + size and j - i < longest and counts[i]:
                        spans.append((start[i] + end[j], window, i, j))
        texts: dict[str, np.float32] = {}
        for score, window, i, j in sorted(spans, key=lambda span: -span[0]):
            tokens = features.passage_tokens(window, i, j)
            begin, stop = features.token_begins[tokens.start], features.token_ends[tokens.stop - 1]
            texts.setdefault(question.context[begin:stop], score)
        found.append((list(texts)[:n_best], null - next(iter(texts.values()))))
    return found


@pytest.mark.parametrize("ties", [False, True])
def test_answers_are_those_of_the_rules(vocabulary: Vocabulary, ties: bool) -> None:
    questions = random_questions()
    features = build_features(questions, vocabulary, WindowOptions(32, 9, 5))
    draw, shape = np.random.default_rng(5), (len(features), 32)
    outputs = {name: draw.normal(0, 3, shape).astype(np.float32) for name in ("start", "end")}
    if ties:
        outputs = {name: values.round() for name, values in outputs.items()}
    found = find_answers(
        outputs, questions, features, vocabulary, n_best=6, max_answer_length=4, unanswerable=True, candidates=6
    )
    for answer, (texts, odds) in zip(found, slow_answers(outputs, questions, features, 6, 4), strict=True):
        assert [candidate.text for candidate in answer.candidates] == texts
        assert answer.text == texts[0]
        assert answer.null_odds == pytest.approx(odds, abs=1e-5)
        assert sum(candidate.probability for candidate in answer.candidates) == pytest.approx(1)
    quick = find_answers(
        outputs, questions, features, vocabulary, n_best=6, max_answer_length=4, unanswerable=True, candidates=1
    )
    assert [(each.text, each.null_odds) for each in quick] == [(each.text, each.null_odds) for each in found]


@pytest.mark.parametrize("head", [SimpleQuestionModel, JointQuestionModel])
def test_windows_are_predicted_in_their_order(vocabulary: Vocabulary, head: type) -> None:
    """Batches of like length, padded, give what each window gives alone; beams are filled up to one width."""
    questions = random_questions()
    features = build_features(questions, vocabulary, WindowOptions(32, 9, 5))
    torch.manual_seed(0)
    model = head(tiny_config(vocabulary))
    for weights in model.parameters():  # far apart, so that rounding changes no order
        torch.nn.init.normal_(weights, std=0.3)
    outputs = predict_windows(model, features, start("cpu", "fp32"), batch_tokens=160)
    assert not model.training
    for window in range(len(features)):
        batch = window_batch(features, np.array([window]))
        with torch.no_grad():
            alone = vars(model.beam(batch)) if head is JointQuestionModel else {"start": model.logits(batch)[0]}
        for name, value in alone.items():
            expected = value[0].numpy()
            if name == "start":
                expected = expected[: features.lengths[window]]
            part = outputs[name][window][tuple(map(slice, expected.shape))]
            scores = alone[name.replace("index", "scores")][0].numpy()[tuple(map(slice, expected.shape))]
            real = scores > -500  # not a question's token or padding, of which longer rows have more
            if name.startswith("end_"):
                real &= alone["start_scores"][0].numpy()[:, None] > -500
            if name.endswith("index"):
                assert np.mean((part == expected)[real]) > 0.95  # equal but for ties
            else:
                np.testing.assert_allclose(part[real], expected[real], atol=2e-5)
    # What is filled up is never a span.
    spans = best_spans(outputs, features, 20, 30)
    places = features.first[spans.windows], features.first[spans.windows] + features.sizes[spans.windows]
    assert np.all((spans.starts >= places[0]) & (spans.ends < places[1]) & (spans.starts <= spans.ends))
    assert set(spans.questions) == set(range(len(questions)))


def test_questions_without_a_passage(vocabulary: Vocabulary) -> None:
    """They are answered with nothing, among others and alone."""
    questions = [Question("0", "the film", ""), Question("1", "bright", "so bright was the plot")]
    model = SimpleQuestionModel(tiny_config(vocabulary))
    for some in (questions, questions[:1]):
        features = build_features(some, vocabulary, WindowOptions(32))
        outputs = predict_windows(model, features, start("cpu", "fp32"))
        answers = find_answers(outputs, some, features, vocabulary, unanswerable=True)
        assert (answers[0].text, answers[0].null_odds) == ("", NO_WINDOW)
        assert find_answers(outputs, some, features, vocabulary, google_text=True)[0].text == "empty"
        assert answers[-1].text == "" or answers[-1].text in questions[1].context


def test_texts_are_those_of_the_passage(vocabulary: Vocabulary) -> None:
    """A letter that the tokeniser makes into two is no reason to take more words than the model chose."""
    context = "(İ plot) was long"
    features = build_features([Question("0", "film", context)], vocabulary, WindowOptions(32))
    tokens = [vocabulary.tokens[token] for token in features.row(0)]
    place = tokens.index("plot")
    outputs = {"start": np.zeros((1, 32), np.float32), "end": np.zeros((1, 32), np.float32)}
    outputs["start"][0, place] = outputs["end"][0, place] = 9
    assert find_answers(outputs, [Question("0", "film", context)], features, vocabulary)[0].text == "plot"


def test_threshold() -> None:
    questions = [Question(name, "q", "c") for name in "abc"]
    answers = [Answer("x", 0.5, []), Answer("y", 0.6, []), Answer("z", None, [])]
    assert given_answers(questions, answers, 0.5) == {"a": "x", "b": "", "c": "z"}
    assert answers[1].given(None) == "y"
