"""Readers of question files: every format in its official layout, and each kind of fault."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from electra.tasks.problems import Problems
from electra.tasks.questions.files import Question, QuestionFile, answer_words, read_questions
from electra.tasks.questions.text import find_words

PASSAGE = "Mills grind corn. The mill at Brook (built 1702) stands\u202fempty."


def squad(*qas: Any, context: Any = PASSAGE, version: str = "1.1") -> dict[str, Any]:
    return {"version": version, "data": [{"title": "Mills", "paragraphs": [{"context": context, "qas": list(qas)}]}]}


def qa(name: str = "q1", text: str = "corn", start: int = 12, **more: Any) -> dict[str, Any]:
    return {"id": name, "question": "What?", "answers": [{"text": text, "answer_start": start}]} | more


def write(folder: Path, content: Any, name: str = "train.json") -> Path:
    path = folder / name
    lines = content if isinstance(content, list) else [content]
    data = "\n".join(json.dumps(line) for line in lines).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def read(path: Path, training: bool = True) -> tuple[QuestionFile, dict[str, int]]:
    problems = Problems()
    return read_questions(path, problems, training), problems.counts()


def test_squad_1_and_its_korean_sibling(tmp_path: Path) -> None:
    file, faults = read(write(tmp_path, squad(qa(), qa("q2", "1702", 43))))
    assert file.questions[0] == Question("q1", "What?", PASSAGE, ("corn",), (12,), False, "Mills")
    assert (file.format, file.version, file.is_labelled, faults) == ("squad", "1.1", True, {})
    assert file.questions[0].context is file.questions[1].context  # one text for one passage
    assert file.questions[1].target == ("1702", 43)


def test_squad_2(tmp_path: Path) -> None:
    answerable, impossible = qa(is_impossible=False), qa("q2", is_impossible=True) | {"answers": []}
    file, faults = read(write(tmp_path, squad(answerable, impossible, version="v2.0"), "dev.json.gz"))
    assert [question.is_impossible for question in file.questions] == [False, True]
    assert file.questions[1].target is None
    assert faults == {}


def test_a_file_without_answers_is_read_for_predicting(tmp_path: Path) -> None:
    path = write(tmp_path, squad({"id": "a", "question": "What?"}))
    file, faults = read(path, training=False)
    assert not file.is_labelled
    assert not file.questions[0].is_impossible
    assert faults == {}
    with pytest.raises(ValueError, match="no question that can be trained on"):
        read(path)


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
def test_mrqa(tmp_path: Path, name: str) -> None:
    detected = [{"text": "Brook", "char_spans": [[30, 34], [30, 34]], "token_spans": [[7, 7]]}]
    entry = {"qid": "7f", "id": "other", "question": "Where?", "answers": ["brook"], "detected_answers": detected}
    lines = [{"header": {"dataset": "NewsQA", "split": "train"}}, {"id": "", "context": PASSAGE, "qas": [entry]}]
    file, faults = read(write(tmp_path, lines, name))
    question = file.questions[0]
    assert (file.format, file.version, faults) == ("mrqa", "NewsQA", {})
    # Scored against "answers" by "qid", trained on the first detected answer: as mrqa_official_eval.py and Google do.
    assert (question.id, question.answers, question.starts) == ("7f", ("brook",), (-1,))
    assert question.target == ("Brook", 30)


def test_one_question_a_line(tmp_path: Path) -> None:
    common = {"question": "What?", "context": PASSAGE}
    lines = [
        {"id": "a", **common, "answers": {"text": ["corn"], "answer_start": [12]}},
        {"id": "b", **common, "answers": [{"text": "corn", "answer_start": 12}]},
        {"id": "c", **common, "answers": {"text": [], "answer_start": []}},
    ]
    file, faults = read(write(tmp_path, lines, "train.jsonl"))
    assert [question.target for question in file.questions] == [("corn", 12), ("corn", 12), None]
    assert [question.is_impossible for question in file.questions] == [False, False, True]
    assert (file.format, faults) == ("lines", {})


FAULTS: dict[str, tuple[Any, str]] = {
    "the answer is elsewhere": (qa("bad", "corn", 3), "answers that are not at their place in the passage: left out"),
    "the answer ends too late": (qa("bad", "empty.!", 56), "answers that reach beyond the passage: left out"),
    "the answer begins too late": (qa("bad", "x", 900), "answers that reach beyond the passage: left out"),
    "the place is negative": (qa("bad", "x", -3), "questions without an answer to train on: left out"),
    "the answer has no text": (qa("bad", " ", 5), "answers without a text: left out"),
    "no question": (qa("bad") | {"question": None}, 'questions that are missing ("question"): left out'),
    "empty question": (qa("bad") | {"question": " \n"}, "empty questions: left out"),
    "an entry is no object": (["bad"], 'questions that are missing ("question"): left out'),
}


@pytest.mark.parametrize("name", FAULTS)
def test_training_leaves_out_and_counts(tmp_path: Path, name: str) -> None:
    entry, fault = FAULTS[name]
    file, faults = read(write(tmp_path, squad(entry, qa("good"))))
    assert [question.id for question in file.questions] == ["good"]
    assert faults == {fault: 1}


def test_evaluation_keeps_what_is_scored(tmp_path: Path) -> None:
    entries = [qa("a", "corn", 3), qa("b", "x", 900), qa("c") | {"question": ""}, qa("d"), qa("d", "mill", 22)]
    file, faults = read(write(tmp_path, squad(*entries)), training=False)
    assert [question.id for question in file.questions] == ["a", "b", "c", "d"]
    assert file.questions[3].answers == ("corn",)  # the first of two with one id
    assert faults == {
        "answers that are not at their place in the passage: kept, and scored": 1,
        "answers that reach beyond the passage: kept, and scored": 1,
        "empty questions: kept, and scored": 1,
        "questions with the id of an earlier one: left out": 1,
    }


def test_an_empty_passage(tmp_path: Path) -> None:
    path = write(tmp_path, squad(qa(is_impossible=True) | {"answers": []}, context=" "))
    assert read(path, training=False)[1] == {"questions on empty passages: kept, and scored": 1}
    with pytest.raises(ValueError, match="holds no question that can be trained on"):
        read(path)


def test_ids_that_are_repeated_or_missing(tmp_path: Path) -> None:
    nameless = {key: value for key, value in qa().items() if key != "id"}
    file, faults = read(write(tmp_path, squad(qa("a"), qa("a"), nameless, qa() | {"id": 5})))
    assert [question.id for question in file.questions] == ["a", "a", "data[0].paragraphs[0].qas[2]", "5"]
    assert faults == {
        "questions with the id of an earlier one: the id matters for answers only": 1,
        "questions without an id: their place in the file is taken": 1,
    }


def test_odd_entries_are_counted(tmp_path: Path) -> None:
    content = squad(
        qa("odd", answers=["corn", {"text": "corn"}, {"text": "corn", "answer_start": 12}]),
        qa("none", answers=[]),
        qa("both", is_impossible=True),
    )
    content["data"] += [7, {"paragraphs": [{"qas": [qa("lost")]}, {"context": "text"}]}]
    file, faults = read(write(tmp_path, content), training=False)
    assert [question.id for question in file.questions] == ["odd", "none", "both"]
    assert file.questions[0].answers == ("corn", "corn")
    assert faults == {
        "answers that are not {text, answer_start}: left out": 1,
        "questions without an answer: taken as unanswerable": 1,
        "questions with an answer, marked is_impossible: taken as unanswerable": 1,
        'entries without a list "paragraphs": left out': 1,
        'entries without a list "qas": left out': 1,
        'passages that are missing ("context"): left out': 1,
    }


def test_malformed_answers_do_not_make_a_question_unanswerable(tmp_path: Path) -> None:
    file, faults = read(write(tmp_path, squad(qa("good"), qa("bad", answers=[{"text": "corn"}]))))
    assert [question.id for question in file.questions] == ["good"]
    assert sum(faults.values()) == 2


def test_lines_that_are_not_json_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, {"context": PASSAGE, "qas": [qa(detected_answers=[])]}, "dev.jsonl")
    path.write_text(path.read_text() + '\n\n{"context": "cut o\n[1]\n' + "[" * 100_000)
    file, faults = read(path, training=False)
    assert len(file.questions) == 1
    assert faults == {
        "lines that are not a JSON object: left out": 3,
        "detected_answers that are not [{text, char_spans}]: left out": 1,
    }


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    file, faults = read(write(tmp_path, squad(qa(), context=PASSAGE + "\ud800")))
    assert file.questions[0].context == PASSAGE + "\ufffd"
    assert sum(faults.values()) == 1


def test_files_of_no_use_are_told_in_a_sentence(tmp_path: Path) -> None:
    def told(content: bytes, match: str, name: str = "x.json") -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=match):
            read(tmp_path / name)

    told(b'{"data": [', r"x.json is not valid JSON \(.*line 1 column 11")
    told(b"[" * 100_000, "x.json is not valid JSON")
    told(b'{"data": ' + b"1" * 5000, "x.json is not valid JSON")
    told(b"[1, 2]", "not in SQuAD's format")
    told(b'{"data": {}}', "not in SQuAD's format")
    told(b'{"data": []}', "x.json holds no question")
    told(b'{"data": "\xff"}', r"not UTF-8 text \(byte 10\)")
    told(b"plain", "x.json.gz is damaged", "x.json.gz")
    told(gzip.compress(b'{"data": []}' * 99)[:30], "x.jsonl.gz is damaged", "x.jsonl.gz")
    told(b"", "x.jsonl holds no question", "x.jsonl")
    with pytest.raises(ValueError, match="does not exist"):
        read(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)


def test_where_an_answer_is() -> None:
    words = find_words(PASSAGE)
    assert [PASSAGE[begin:end] for begin, end in words][-3:] == ["1702)", "stands", "empty."]
    assert answer_words(PASSAGE, words, "1702", 43) == (8, 8)  # inside of its word
    assert answer_words(PASSAGE, words, "STANDS EMPTY", 49) == (9, 10)  # case and kind of space aside
    assert answer_words("  late", find_words("  late"), " late", 1) == (0, 0)
    assert isinstance(answer_words(" ", [], "x", 0), str)


def test_official_files_have_their_official_counts(real_data: Path) -> None:
    for name, questions, impossible in (
        ("squad/dev-v1.1.half1.json", 4961, 0),
        ("squad/train-v2.0.10articles.json", 4719, 348),
        ("korquad/KorQuAD_v1.0_dev.json", 5774, 0),
    ):
        file, faults = read(real_data / name)
        assert (len(file.questions), sum(question.is_impossible for question in file.questions)) == (
            questions,
            impossible,
        )
        assert faults == {}
