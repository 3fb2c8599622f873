"""Sentences with a tag for each word or character, from the files that such tasks come in.

    columns     one unit and its tags on a line, an empty line after a sentence (CoNLL, KLUE)
    lines       `words<TAB>tags`, a sentence on a line (Naver NER)
    .jsonl      {"tokens": [...], "tags": [...]} on a line

    file -> `read_sentences` -> Sentence (words, tags as written, line number)

A sentence that cannot be used is left out and counted in a `Problems`; only a file that is of no use as a whole is a
ValueError. Which scheme the tags belong to is not decided here (data.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra.tasks.problems import Problems
from electra.tasks.tables import read_text, whole_text
from electra.tasks.tagging.task import TaggingTask

DOCUMENT = "-DOCSTART-"
"""The word that opens a document in CoNLL-2003; no sentence."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words, and a tag for each word or, where characters are tagged, for each character of the words in turn."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    """Empty where the file has none."""
    line: int
    """Where it begins in its file."""

    def units(self, characters: bool) -> tuple[str, ...]:
        """What has a tag: the words, or all their characters; blanks have none."""
        return tuple("".join(self.words)) if characters else self.words


def one_field(unit: str) -> str:
    """A unit as it can stand in a column; those of .jsonl files may hold tabs and line ends."""
    return re.sub("[\t\r\n]+", " ", unit)


def read_sentences(path: Path, task: TaggingTask, problems: Problems) -> list[Sentence]:
    """The sentences of a file in their order, all with tags or all without.

    ValueError if the file is not text or holds no sentence.
    """
    if path.suffix == ".jsonl":
        found = list(_read_jsonl(path, task, problems))
    elif task.layout == "lines":
        found = list(_read_lines(path, problems))
    else:
        found = list(_read_columns(path, task, problems))
    if task.characters:
        found = list(_characters(path, found, problems))
    if any(sentence.tags for sentence in found) and not all(sentence.tags for sentence in found):
        for sentence in found:
            if not sentence.tags:
                problems.add("sentences without tags in a file that has them: left out", path, sentence.line)
        found = [sentence for sentence in found if sentence.tags]
    if not found:
        raise ValueError(f"{path} holds no sentences that can be read as the layout of the task {task.name}")
    return found


def _read_columns(path: Path, task: TaggingTask, problems: Problems) -> Iterator[Sentence]:
    """The first row says how many fields a row has, and whether tabs part them (a word may then hold blanks)."""
    rows: list[list[str]] = []
    begin = fields = 0
    by_tabs = ragged = False
    # The empty line at the end closes the last sentence; "\n" alone ends lines, since U+2028 and the like are words.
    for number, line in enumerate([*read_text(path, problems).split("\n"), ""], start=1):
        line = line.removesuffix("\r")
        if task.comment and line.startswith(task.comment):
            continue
        if not fields and line.strip():
            by_tabs = "\t" in line
            fields = len(_fields(line, by_tabs))
        row = _fields(line, by_tabs) if line.strip() else []
        if row and row[0] != DOCUMENT:
            begin = begin or number
            ragged |= len(row) != fields
            rows.append(row)
            continue
        if ragged:
            problems.add(f"sentences with a row that has not {fields} fields: left out", path, begin)
        elif rows:
            words = tuple(row[task.word_column] for row in rows) if task.word_column < fields else ()
            if not words:
                raise ValueError(f"{path} has {fields} columns: column {task.word_column} with the words is not there")
            has_tags = task.tag_column < fields if task.tag_column >= 0 else fields > -task.tag_column
            tags = tuple(row[task.tag_column] for row in rows) if has_tags else ()
            yield Sentence(words, tags, begin)
        rows, begin, ragged = [], 0, False


def _fields(line: str, by_tabs: bool) -> list[str]:
    return line.split("\t") if by_tabs else line.split()


def _read_lines(path: Path, problems: Problems) -> Iterator[Sentence]:
    for number, line in enumerate(read_text(path, problems).split("\n"), start=1):
        if not line.strip():
            continue
        text, _, rest = line.partition("\t")
        sentence = _checked(path, number, tuple(text.split()), tuple(rest.split()), problems)
        if sentence is not None:
            yield sentence


def _read_jsonl(path: Path, task: TaggingTask, problems: Problems) -> Iterator[Sentence]:
    """Tags may be numbers: those of the label set where that is given."""
    for number, line in enumerate(read_text(path, problems).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        tokens: Any = row.get(task.tokens) if isinstance(row, dict) else None
        tags: Any = row.get(task.tags, []) if isinstance(row, dict) else None
        if not _is_list_of(tokens, str) or not (_is_list_of(tags, str) or _is_list_of(tags, int)):
            shape = f'{{"{task.tokens}": [...], "{task.tags}": [...]}}'
            problems.add(f"lines that are not a JSON object such as {shape}: left out", path, number)
            continue
        names = tuple(
            task.labels[tag] if isinstance(tag, int) and 0 <= tag < len(task.labels) else whole_text(str(tag))
            for tag in tags
        )
        words = tuple(map(whole_text, tokens))
        if words != tuple(tokens):
            problems.add("sentences with halves of characters: replaced by U+FFFD", path, number)
        sentence = _checked(path, number, words, names, problems)
        if sentence is not None:
            yield sentence


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _checked(
    path: Path, number: int, words: tuple[str, ...], tags: tuple[str, ...], problems: Problems
) -> Sentence | None:
    if not words:
        problems.add("sentences without words: left out", path, number)
    elif tags and len(tags) != len(words):
        more = "more" if len(tags) > len(words) else "fewer"
        problems.add(f"sentences with {more} tags than words: left out", path, number)
    else:
        return Sentence(words, tags, number)
    return None


def _characters(path: Path, sentences: list[Sentence], problems: Problems) -> Iterator[Sentence]:
    """Units that are characters put together to words at the blanks, which have no place in a tag sequence."""
    for sentence in sentences:
        if any(len(unit) != 1 for unit in sentence.words):
            problems.add("sentences with units that are not one character: left out", path, sentence.line)
            continue
        tags = tuple(tag for unit, tag in zip(sentence.words, sentence.tags, strict=False) if not unit.isspace())
        words = tuple("".join(sentence.words).split())
        if not words:
            problems.add("sentences without words: left out", path, sentence.line)
            continue
        yield Sentence(words, tags, sentence.line)
