"""Files of questions about passages: SQuAD 1.1 and 2.0, KorQuAD 1.0, MRQA, and one question a line.

    file -> its format -> `_Reader` -> `Question`s, those of one passage with the same text object -> `QuestionFile`

    squad    {"version", "data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "is_impossible",
             "answers": [{"text", "answer_start"}]}]}]}]}, in a .json; KorQuAD's and XQuAD's files have it
    mrqa     one JSON a line, the first {"header": ...}, then {"context", "qas": [{"qid", "question", "answers": [text],
             "detected_answers": [{"text", "char_spans": [[first, last]]}]}]}, in a .jsonl
    lines    one JSON a line: {"id", "question", "context", "answers": {"text": [...], "answer_start": [...]}}, in a
             .jsonl, as the library `datasets` has SQuAD; "answers" may also be a list as in SQuAD's own files

Each may be compressed (.gz). What is wrong with a question is counted in `Problems`. For training it is left out where
its answer cannot be found at its place, by the rule of google-research/electra, finetune/qa/qa_tasks.py; for evaluation
every question counts, as in the official scripts.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from electra.tasks.problems import Problems
from electra.tasks.questions.text import Span, find_words
from electra.tasks.tables import whole_text

Format = Literal["squad", "mrqa", "lines"]
Answers = tuple[tuple[str, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a passage."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...] = ()
    """The right answers, of which a prediction is compared with the best; none: unanswerable, or not labelled."""
    starts: tuple[int, ...] = ()
    """The first character of each of `answers` in `context`; -1 where the file does not say (MRQA)."""
    is_impossible: bool = False
    title: str = ""
    detected: tuple[str, int] | None = None
    """MRQA: text and first character of an answer as it stands in the passage, at which training aims."""

    @property
    def target(self) -> tuple[str, int] | None:
        """Text and first character of the answer to train on, the first one; None if there is none."""
        if self.is_impossible:
            return None
        if self.detected is None and self.answers and self.starts[0] >= 0:
            return self.answers[0], self.starts[0]
        return self.detected


@dataclass(frozen=True)
class QuestionFile:
    """What a file holds."""

    path: Path
    questions: list[Question]
    is_labelled: bool
    """Whether it says what is right: there are answers, or `is_impossible`."""
    format: Format
    version: str = ""
    """SQuAD's "version", or the name of the data set in MRQA's header."""


def read_questions(path: Path, problems: Problems, training: bool = False) -> QuestionFile:
    """Read a file of any of the formats.

    With `training` only questions that can be learned from are kept: with text in question and passage, and an answer
    that is found at its place or `is_impossible`. Without it all that have a question and a passage, even empty ones,
    but of several with the same id the first. Both count what they leave out and what is odd.
    Raises ValueError for a file that does not exist, is not UTF-8, JSON or one of the formats, or has no question left.
    """
    reader = _Reader(path, problems, training)
    names = path.name.lower().removesuffix(".gz")
    if names.endswith(".jsonl"):
        reader.read_lines()
    else:
        reader.read_squad()
    if not reader.questions:
        raise ValueError(f"{path} holds no {'question that can be trained on' if training else 'question'}")
    return QuestionFile(path, reader.questions, reader.is_labelled, reader.format, reader.version)


def answer_words(context: str, words: list[Span], answer: str, start: int) -> tuple[int, int] | str:
    """First and last word (inclusive) of an answer; or, where it is not there, a phrase that says so.

    `words` are `find_words(context)`. Google's rule: the words that the characters of the answer lie in must contain
    its text, upper and lower case and the kind of spaces aside.
    """
    if not answer.strip():
        return "answers without a text"
    if start < 0 or start + len(answer) > len(context):
        return "answers that reach beyond the passage"
    # A space counts to the word before it, as in Google's table of words by character.
    first, last = (
        max(0, bisect_right(words, place, key=lambda span: span[0]) - 1) for place in (start, start + len(answer) - 1)
    )
    there = " ".join(context[begin:end] for begin, end in words[first : last + 1])
    if " ".join(answer.split()).lower() not in there.lower():
        return "answers that are not at their place in the passage"
    return first, last


class _Reader:
    """The questions of one file, and how far reading has come."""

    def __init__(self, path: Path, problems: Problems, training: bool) -> None:
        self.path, self.problems, self.training = path, problems, training
        self.questions: list[Question] = []
        self.is_labelled = False
        self.format: Format = "squad"
        self.version = ""
        self._ids: set[str] = set()

    def read_squad(self) -> None:
        with _text_errors(self.path), _open_bytes(self.path) as file:
            text = file.read().decode("utf-8-sig")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also for a number of thousands of digits
            raise ValueError(f"{self.path} is not valid JSON ({error}): correct it, or get it again") from None
        articles = content.get("data") if isinstance(content, dict) else None
        if not isinstance(articles, list):
            raise ValueError(
                f'{self.path} is not in SQuAD\'s format: it must be an object with a list "data" (one object a line '
                "belongs in a .jsonl file)"
            )
        self.version = str(content.get("version", ""))
        for a, article in enumerate(articles):
            title = article.get("title", "") if isinstance(article, dict) else ""
            for p, paragraph in enumerate(self._list(article, "paragraphs", f"data[{a}]")):
                self._add_paragraph(paragraph, str(title), f"data[{a}].paragraphs[{p}]")

    def read_lines(self) -> None:
        self.format = "lines"
        for number, text in _lines(self.path):
            try:
                entry = json.loads(text)
            except (ValueError, RecursionError):
                entry = None
            if not isinstance(entry, dict):
                self.problems.add("lines that are not a JSON object: left out", self.path, number)
                continue
            place = f"line {number}"
            if "header" in entry:
                self.format = "mrqa"
                header = entry["header"]
                self.version = str(header.get("dataset", "")) if isinstance(header, dict) else ""
            elif "qas" in entry:
                self.format = "mrqa"
                self._add_paragraph(entry, "", place)
            else:
                self._add_question(entry, self._context(entry, place), str(entry.get("title", "")), place)

    def _add_paragraph(self, paragraph: Any, title: str, place: str) -> None:
        entries = self._list(paragraph, "qas", place)
        context = self._context(paragraph, place)
        words = find_words(context) if context and entries else []
        for q, entry in enumerate(entries):
            self._add_question(entry, context, title, f"{place}.qas[{q}]", words)

    def _context(self, entry: Any, place: str) -> str | None:
        context = entry.get("context") if isinstance(entry, dict) else None
        if not isinstance(context, str):
            self.problems.add('passages that are missing ("context"): left out', self.path, place)
            return None
        return self._whole(context, place)

    def _whole(self, text: str, place: str) -> str:
        whole = whole_text(text)
        if whole != text:
            self.problems.add("texts with halves of characters: replaced by U+FFFD", self.path, place)
        return whole

    def _add_question(
        self, entry: Any, context: str | None, title: str, place: str, words: list[Span] | None = None
    ) -> None:
        """Keep a question, or count why it is left out. `words` are those of `context`, if they are known."""
        if context is None:
            return
        text = entry.get("question") if isinstance(entry, dict) else None
        if not isinstance(text, str):
            self.problems.add('questions that are missing ("question"): left out', self.path, place)
            return
        name = self._name(entry, place)
        if name is None:
            return
        text = self._whole(text, name)
        left_out = "left out" if self.training else "kept, and scored"
        for empty, what in (
            (not text.strip(), "empty questions"),
            (not context.strip(), "questions on empty passages"),
        ):
            if empty:
                self.problems.add(f"{what}: {left_out}", self.path, name)
                if self.training:
                    return
        (answers, starts), detected = self._answers(entry, name), self._detected(entry, name)
        impossible = entry.get("is_impossible")
        self.is_labelled |= impossible is not None or "answers" in entry or "detected_answers" in entry
        if impossible is None:
            given = entry.get("answers")
            impossible = (given.get("text") if isinstance(given, dict) else given) == [] and detected is None
            if impossible and self.format == "squad":
                self.problems.add("questions without an answer: taken as unanswerable", self.path, name)
        elif impossible and answers:
            self.problems.add("questions with an answer, marked is_impossible: taken as unanswerable", self.path, name)
        question = Question(name, text, context, answers, starts, bool(impossible), title, detected)
        if question.target is not None:
            found = answer_words(context, find_words(context) if words is None else words, *question.target)
            if isinstance(found, str):
                self.problems.add(f"{found}: {left_out}", self.path, name)
                if self.training:
                    return
        elif self.training and not impossible:
            self.problems.add("questions without an answer to train on: left out", self.path, name)
            return
        self.questions.append(question)

    def _name(self, entry: dict[str, Any], place: str) -> str | None:
        """The id of a question; None if it is to be left out. MRQA's predictions are by "qid"."""
        name = entry.get("qid", entry.get("id"))
        if not isinstance(name, str | int) or name == "":
            self.problems.add("questions without an id: their place in the file is taken", self.path, place)
            name = place
        name = str(name)
        if name in self._ids:
            what = "the id matters for answers only" if self.training else "left out"
            self.problems.add(f"questions with the id of an earlier one: {what}", self.path, name)
            return name if self.training else None
        self._ids.add(name)
        return name

    def _answers(self, entry: dict[str, Any], name: str) -> Answers:
        value = entry.get("answers")
        if value is None:
            return (), ()
        if isinstance(value, dict):  # {"text": [...], "answer_start": [...]}
            columns: tuple[Any, Any] = value.get("text"), value.get("answer_start")
            if all(isinstance(column, list) for column in columns) and len(columns[0]) == len(columns[1]):
                value = [{"text": text, "answer_start": start} for text, start in zip(*columns, strict=True)]
        texts, starts = [], []
        for answer in value if isinstance(value, list) else [value]:
            if isinstance(answer, str):  # MRQA
                answer = {"text": answer, "answer_start": -1}
            text, start = (answer.get("text"), answer.get("answer_start")) if isinstance(answer, dict) else (None, None)
            if isinstance(text, str) and isinstance(start, int):
                texts.append(text)
                starts.append(start)
            else:
                self.problems.add("answers that are not {text, answer_start}: left out", self.path, name)
        return tuple(texts), tuple(starts)

    def _detected(self, entry: dict[str, Any], name: str) -> tuple[str, int] | None:
        if "detected_answers" not in entry:
            return None
        try:
            first = entry["detected_answers"][0]
            text, start = first["text"], first["char_spans"][0][0]
        except (LookupError, TypeError):
            text, start = None, None
        if isinstance(text, str) and isinstance(start, int):
            return text, start
        self.problems.add("detected_answers that are not [{text, char_spans}]: left out", self.path, name)
        return None

    def _list(self, entry: Any, key: str, place: str) -> list[Any]:
        value = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(value, list):
            return value
        self.problems.add(f'entries without a list "{key}": left out', self.path, place)
        return []


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, read one after the other: MRQA's files have gigabytes."""
    with _text_errors(path), _open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if text.strip():
                yield number, text


def _open_bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


@contextlib.contextmanager
def _text_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder where a file of questions belongs") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): convert it first") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}): get it again") from None
