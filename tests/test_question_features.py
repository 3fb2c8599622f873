"""Windows and texts of answers against Google's own (golden values) and against plain loops; the cache."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import WORDS, make_vocabulary

from electra.tasks.problems import Problems
from electra.tasks.questions import features as question_features
from electra.tasks.questions.features import (
    QuestionFeatures,
    answer_text,
    build_features,
    cached_features,
    collate_windows,
)
from electra.tasks.questions.files import Question, answer_words, read_questions
from electra.tasks.questions.scores import score_korquad, score_squad1
from electra.tasks.questions.text import final_text, find_words, pieces_text, span_text
from electra.tasks.questions.windows import WindowOptions, cut_windows, tighter_span
from electra.tokenizer import Vocabulary, load_tokenizer


@pytest.fixture
def vocabulary(tmp_path: Path) -> Vocabulary:
    return make_vocabulary(tmp_path / "vocabulary")


def make_questions(number: int = 6) -> list[Question]:
    """Questions on passages of different lengths, two on each."""
    random = np.random.default_rng(0)
    questions: list[Question] = []
    for passage in range(number // 2):
        words = random.choice(WORDS.split(), size=10 + 40 * passage).tolist()
        context = " ".join(words)
        for word in (3, len(words) - 1):
            start = len(" ".join(words[:word])) + 1
            name = f"{passage}.{word}"
            questions.append(Question(name, "is the plot good?", context, (words[word],), (start,)))
    return questions


def arrays(features: QuestionFeatures) -> dict[str, Any]:
    return {field.name: getattr(features, field.name) for field in dataclasses.fields(features)}


def assert_equal(one: QuestionFeatures, other: QuestionFeatures) -> None:
    for name, value in arrays(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
        assert np.asarray(value).dtype == np.asarray(getattr(other, name)).dtype, name


# ------------------------------------------------------------------------------------------- Google's values


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize(("name", "file"), [("squad", "squad_mini_v2.json"), ("squadv1", "squad_mini_v1.json")])
def test_every_field_equals_googles(golden: Path, name: str, file: str, split: str) -> None:
    expected = json.loads((golden / f"squad_features_{name}.json").read_text())
    settings = expected["config"]
    options = WindowOptions(settings["max_seq_length"], settings["doc_stride"], settings["max_query_length"])
    questions = read_questions(golden / file, Problems(), training=split == "train").questions
    features = build_features(questions, load_tokenizer(golden / "vocab512.txt"), options)

    assert [question.id for question in questions] == [each["qas_id"] for each in expected[split]["examples"]]
    for number, (question, wanted) in enumerate(zip(questions, expected[split]["examples"], strict=True)):
        words = find_words(question.context)
        assert len(words) == wanted["n_words"]
        if split == "train":
            place = answer_words(question.context, words, *question.target) if question.target else (-1, -1)
            assert place == (wanted["start_word"], wanted["end_word"])
            assert features.impossible[number] == wanted["is_impossible"]
        begin, end = features.window_offsets[number : number + 2]
        spans = np.stack([features.begins[begin:end], features.sizes[begin:end]], axis=1)
        assert spans.tolist() == wanted["doc_spans"]
        if wanted["word_of_token"] is not None:
            c = features.question_contexts[number]
            passage = slice(*features.context_offsets[c : c + 2])
            assert features.token_words[passage].tolist() == wanted["word_of_token"]
        for window, row in zip(range(begin, end), wanted["features"], strict=True):
            first = int(features.first[window])
            assert first == row["n_segment0"] == row["first_doc_pos"]
            tokens = features.passage_tokens(window, first, int(features.lengths[window]) - 2)
            of_words = features.token_words[tokens]
            assert (of_words[0], of_words[-1]) == (row["first_word"], row["last_word"])
            assert 1000 * number + window - begin == row["eid"]
            if split == "train":
                assert (features.starts[window], features.ends[window]) == (row["start_position"], row["end_position"])
            else:
                assert features.row(window).tolist() == row["input_ids"]
                flags = features.has_most_context(window).astype(int)
                assert "".join(map(str, flags)) == row["is_max_context"]


def test_final_text_equals_googles(golden: Path) -> None:
    vocabulary = load_tokenizer(golden / "vocab512.txt")
    for case in json.loads((golden / "final_text.json").read_text()):
        assert final_text(vocabulary, case["pred_text"], case["orig_text"]) == case["result"]


def test_whole_passages_give_the_tokens_of_their_words(real_data: Path) -> None:
    """Google tokenises word by word, `build_features` a passage at once."""
    questions = read_questions(real_data / "squad/dev-v1.1.half1.json", Problems()).questions[:300]
    vocabulary = load_tokenizer(real_data / "vocab/bert_uncased_vocab.txt")
    features = build_features(questions, vocabulary, WindowOptions())
    for number, context in enumerate(dict.fromkeys(question.context for question in questions)):
        ids, of_words = [], []
        for word, tokens in enumerate(vocabulary.encode_batch([context[a:b] for a, b in find_words(context)])):
            ids += tokens
            of_words += [word] * len(tokens)
        passage = slice(*features.context_offsets[number : number + 2])
        assert features.context_ids[passage].tolist() == ids
        assert features.token_words[passage].tolist() == of_words


@pytest.mark.parametrize(
    ("file", "vocab", "lowercase", "score", "least"),
    [
        ("squad/dev-v1.1.half1.json", "bert_uncased_vocab.txt", True, score_squad1, 98.9),
        # KoELECTRA's first vocabulary joins particles to the words before them: many answers cannot be cut out.
        ("korquad/KorQuAD_v1.0_dev.json", "koelectra_v1v2_vocab.txt", False, score_korquad, 70.0),
    ],
)
def test_the_tokens_of_answers_give_back_their_text(
    real_data: Path,
    file: str,
    vocab: str,
    lowercase: bool,
    score: Callable[[Sequence[Question], dict[str, str]], dict[str, float]],
    least: float,
) -> None:
    """The exact match that a model could reach; by characters it is no lower than by Google's comparison of texts."""
    questions = read_questions(real_data / file, Problems()).questions[:1500]
    vocabulary = load_tokenizer(real_data / "vocab" / vocab, lowercase=lowercase)
    features = build_features(questions, vocabulary, WindowOptions())
    by_text, by_characters = {}, {}
    for window in np.flatnonzero(features.starts).tolist():
        question = questions[features.questions[window]]
        place = int(features.starts[window]), int(features.ends[window])
        words = find_words(question.context)
        by_text[question.id] = answer_text(features, vocabulary, question.context, words, window, *place)
        tokens = features.passage_tokens(window, *place)
        begin, end = int(features.token_begins[tokens.start]), int(features.token_ends[tokens.stop - 1])
        by_characters[question.id] = span_text(question.context, begin, end)
    google, characters = score(questions, by_text), score(questions, by_characters)
    assert google["missing"] == 0
    assert least < google["exact_match"] <= characters["exact_match"]
    assert google["f1"] <= characters["f1"]


# ----------------------------------------------------------------------------------------------- plain loops


@pytest.mark.parametrize("seed", range(200))
def test_windows_and_most_context_equal_plain_loops(seed: int) -> None:
    """Against the loops of Google's featurize and _check_is_max_context, for every length, room and stride."""
    random = np.random.default_rng(seed)
    size, room, stride = (int(random.integers(low, 400)) for low in (0, 1, 1))
    windows = cut_windows(np.array([3, size]), np.array([room, room]), stride)
    spans, start = [], 0
    while start < size:
        length = min(size - start, room)
        spans.append((start, length))
        if start + length == size:
            break
        start += min(length, stride)
    mine = slice(*windows["window_offsets"][1:])
    assert list(zip(windows["begins"][mine], windows["sizes"][mine], strict=True)) == spans
    assert (windows["questions"][mine] == 1).all()
    for token in range(size):
        scores = [
            # In whole hundredths: with 0.01 * length, as written there, equal scores differ in their last digit.
            100 * min(token - begin, begin + length - 1 - token) + length if begin <= token < begin + length else -1
            for begin, length in spans
        ]
        inside = (windows["best_begins"][mine] <= token) & (token < windows["best_ends"][mine])
        assert np.flatnonzero(inside).tolist() == [int(np.argmax(scores))]


def test_tighter_span() -> None:
    tokens = [5, 1, 2, 9, 1, 2]
    assert tighter_span(tokens, 0, 5, [1, 2]) == (1, 2)  # the first of two
    assert tighter_span(tokens, 2, 5, [1, 2]) == (4, 5)
    assert tighter_span(tokens, 0, 4, [2, 9]) == (2, 3)
    assert tighter_span(tokens, 0, 3, [7]) == (0, 3)
    assert tighter_span(tokens, 0, 3, []) == (0, 3)
    assert tighter_span(tokens, 4, 4, [1, 2]) == (4, 4)  # longer than the words


def test_pieces_text() -> None:
    assert pieces_text(["film", "##s", ",", "##"]) == "films ,"


# -------------------------------------------------------------------------------------------- odd questions


def test_rows_and_batches(vocabulary: Vocabulary) -> None:
    questions = make_questions()
    features = build_features(questions, vocabulary, WindowOptions(32, 8, 16))
    batch = collate_windows(features, np.array([0, len(features) - 1, 3]))
    assert batch.input_ids.shape[1] == max(features.lengths[[0, len(features) - 1, 3]])
    for place, window in enumerate((0, len(features) - 1, 3)):
        row = features.row(window)
        question = questions[features.questions[window]]
        text = vocabulary.encode_batch([question.question])[0]
        passage = vocabulary.encode_batch([question.context])[0]
        begin, size = features.begins[window], features.sizes[window]
        special = vocabulary.special
        assert row.tolist() == [special.cls, *text, special.sep, *passage[begin : begin + size], special.sep]
        assert batch.input_ids[place][batch.valid[place]].tolist() == row.tolist()
        assert batch.valid[place].sum() == features.lengths[window] == len(row)
        assert (batch.input_ids[place][~batch.valid[place]] == special.pad).all()
        assert batch.segment_ids[place].sum() == size + 1
        assert np.flatnonzero(batch.passage[place]).tolist() == list(range(len(text) + 2, len(text) + 2 + size))
        if batch.starts[place]:
            assert row[batch.starts[place]] == vocabulary.encode_batch([question.answers[0]])[0][0]
    assert (features.starts > 0).sum() >= len(questions)  # each answer is in some window
    assert (features.starts == 0).any()  # and not in every one


def test_a_question_longer_than_the_window_leaves_room(vocabulary: Vocabulary) -> None:
    question = dataclasses.replace(make_questions()[0], question="good " * 500)
    for max_length, kept in ((8, 3), (64, 31), (128, 93), (384, 349)):
        options = WindowOptions(max_length, 128, 10_000)
        features = build_features([question], vocabulary, options)
        assert features.cut.tolist() == [True]
        assert options.query_room == kept == features.first[0] - 2
        assert (features.lengths <= max_length).all()
        assert (features.sizes > 0).all()
    assert WindowOptions(128, 64, 24).query_room == 24


def test_passages_without_a_token_have_no_window(vocabulary: Vocabulary) -> None:
    questions = [Question("a", "is it?", ""), *make_questions(2), Question("b", "is it?", "\x01 \x02", ("x",), (0,))]
    features = build_features(questions, vocabulary, WindowOptions(32, 8, 16))
    assert np.diff(features.window_offsets).tolist() == [0, 1, 1, 0]
    assert features.questions.tolist() == [1, 2]


def test_an_answer_that_is_not_there_trains_on_nothing(vocabulary: Vocabulary) -> None:
    question = dataclasses.replace(make_questions()[0], answers=("zzz",))
    features = build_features([question], vocabulary, WindowOptions(32, 8, 16))
    assert (features.starts.tolist(), features.ends.tolist(), features.impossible.tolist()) == ([0], [0], [False])


def test_more_than_a_thousand_windows(vocabulary: Vocabulary) -> None:
    """Google's id of a window, 1000 * question + number, would be that of the next question."""
    long, short = make_questions(4)[2:4], make_questions(2)
    long = [dataclasses.replace(long[0], context=" ".join([long[0].context] * 40))]
    features = build_features([*long, *short], vocabulary, WindowOptions(32, 1, 16))
    assert np.diff(features.window_offsets)[0] > 1000
    assert features.questions[-2:].tolist() == [1, 2]
    assert features.starts[-2] > 0


# ------------------------------------------------------------------------------------- processes and cache


def test_the_number_of_processes_changes_nothing(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = make_questions(20)
    options = WindowOptions(32, 8, 16)
    whole = build_features(questions, vocabulary, options)
    monkeypatch.setattr(question_features, "BLOCK_CHARACTERS", 500)
    assert len(list(question_features._blocks(questions))) > 3
    assert_equal(build_features(questions, vocabulary, options, processes=2), whole)


def test_the_cache_is_found_by_content(vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counting(*arguments: Any) -> QuestionFeatures:
        made.append(1)
        return build_features(*arguments)

    monkeypatch.setattr(question_features, "build_features", counting)
    questions, options, cache = make_questions(), WindowOptions(32, 8, 16), tmp_path / "new" / "cache"

    def features(**changes: Any) -> QuestionFeatures:
        arguments: dict[str, Any] = {"questions": questions, "options": options} | changes
        return cached_features(vocabulary=vocabulary, cache=cache, **arguments)

    whole = build_features(questions, vocabulary, options)
    assert_equal(features(), whole)
    assert_equal(features(), whole)
    assert len(made) == 1
    path = next(cache.iterdir())

    changed = [dataclasses.replace(questions[0], starts=(0,)), *questions[1:]]
    features(questions=changed)
    features(options=WindowOptions(32, 9, 16))
    features(questions=questions[1:])
    assert len(made) == len(list(cache.iterdir())) == 4

    good = path.read_bytes()
    middle = len(good) // 2
    damage = [good[:middle], b"", good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]]
    damage.append(next(other for other in cache.iterdir() if other != path).read_bytes())  # that of other questions
    for number, content in enumerate(damage, start=5):
        path.write_bytes(content)
        assert_equal(features(), whole)
        assert len(made) == number
        assert path.read_bytes() == good


def test_the_users_cache_folder_and_one_that_cannot_be_written(
    vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    questions, options = make_questions(2), WindowOptions(32, 8, 16)
    cached_features(questions, vocabulary, options)
    assert [path.suffix for path in (tmp_path / "xdg" / "electra").iterdir()] == [".npz"]
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="features are not kept for the next run"):
        features = cached_features(questions, vocabulary, options, cache=tmp_path / "file")
    assert len(features) == 2
