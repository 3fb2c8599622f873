"""Lines -> token ids, each distinct word tokenised once.

    lines -> words between spaces -> a number for each distinct word -> the ids that `tokenizers` gave for it

Almost all text repeats words that were seen before, and a tokenizer of BERT's kind looks at nothing beyond a space: it
cleans, lower-cases and decomposes character by character (an accent can only follow its letter), splits at
white space and punctuation, and cuts each piece for itself. So the ids of a line are those of its words one after the
other, which a table finds several times as fast as `tokenizers` makes them (benchmarks/build.py). What stands between
spaces and frequent marks is a word here; everything else about it is left to `tokenizers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer

_WORDS = 1 << 19  # and
_CHARACTERS = 1 << 24  # after which a table begins anew: about 150 MB
_MARKS = ",.\"()'-:;"
_GROUP_CHARACTERS = 1 << 17  # encoded at once: an Encoding takes more than 100 bytes a token


class WordTable(dict[str, int]):
    """The ids of the words met so far; looking a word up that is not there gives it a number.

    Memory is bounded: a table that is full is emptied between two calls, which costs little, since frequent words
    are soon there again.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._forget()

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        self._new.append(word)
        return number

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids of all lines in a row, int32, and the number of ids of each line, int64."""
        if not lines:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        if len(self) > _WORDS or self._characters > _CHARACTERS:
            self._forget()
        lines = _apart(lines)
        words = " ".join(lines).split(" ")
        numbers = np.fromiter(map(self.__getitem__, words), np.int64, len(words))
        self._encode_new()
        counts = self._counts[numbers]
        ends = np.cumsum(counts)
        # Where an id stands in the table: where its word's ids begin there, and how many of the word come before it.
        tokens = self._tokens[np.repeat(self._starts[numbers] - (ends - counts), counts) + np.arange(ends[-1])]
        words_of_line = np.fromiter((line.count(" ") for line in lines), np.int64, len(lines)) + 1
        return tokens, np.diff(ends[np.cumsum(words_of_line) - 1], prepend=0)

    def _forget(self) -> None:
        self.clear()
        self._new: list[str] = []
        self._characters = 0
        self._tokens = np.zeros(0, np.int32)
        """The ids of all words, by their numbers; of each word, where they begin and how many there are:"""
        self._starts = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)

    def _encode_new(self) -> None:
        if not self._new:
            return
        tokens, counts = [self._tokens], []
        for group in groups(self._new, _GROUP_CHARACTERS):
            # A group is one Encoding, which says of each id from which word it came.
            encoding = self._tokenizer.encode(group, is_pretokenized=True, add_special_tokens=False)
            tokens.append(np.array(encoding.ids, np.int32))
            counts.append(np.bincount(np.array(encoding.word_ids, np.int64), minlength=len(group)))
        self._characters += sum(map(len, self._new))
        self._new = []
        added = np.concatenate(counts)
        self._starts = np.concatenate([self._starts, len(self._tokens) + np.cumsum(added) - added])
        self._counts = np.concatenate([self._counts, added])
        self._tokens = np.concatenate(tokens)


def _apart(lines: Sequence[str]) -> Sequence[str]:
    """The lines with spaces around frequent marks, which are pieces of their own anyway: fewer words are distinct."""
    text = "\n".join(lines)
    if text.count("\n") >= len(lines):  # a line break inside a line is white space like any other
        text = "\n".join(line.replace("\n", " ") for line in lines)
    for mark in _MARKS:
        text = text.replace(mark, f" {mark} ")
    return text.split("\n")


def groups(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The texts in groups of about `size` characters; the last one of a group may go beyond it."""
    start = characters = 0
    for index, text in enumerate(texts):
        characters += len(text)
        if characters >= size:
            yield texts[start : index + 1]
            start, characters = index + 1, 0
    if start < len(texts):
        yield texts[start:]
