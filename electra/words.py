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

_WORDS = 1 << 20  # and
_CHARACTERS = 1 << 25  # after which a table begins anew: about 300 MB
_MARKS = "\n,.\"()'-:;"
_STOP = "."
_GROUP_CHARACTERS = 1 << 17  # encoded at once: an Encoding takes more than 100 bytes a token


class WordTable(dict[str, int]):
    """The ids of the words met so far; looking a word up that is not there gives it a number.

    Memory is bounded: a table that is full is emptied between two calls, which costs little, since frequent words
    are soon there again. The vocabulary must have a full stop.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._stop = tokenizer.token_to_id(_STOP)
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
        words = _words(lines)
        numbers = np.fromiter(map(self.__getitem__, words), np.int64, len(words))
        self._encode_new()
        counts = self._counts[numbers]
        ends = np.cumsum(counts)
        # Where an id stands in the table: where its word's ids begin there, and how many of the word come before it.
        tokens = self._tokens[np.repeat(self._starts[numbers] - (ends - counts), counts) + np.arange(ends[-1])]
        return tokens, np.diff(ends[numbers == self["\n"]], prepend=0)

    def _forget(self) -> None:
        self.clear()
        self.update({"\n": 0, _STOP: 1})
        self._new: list[str] = []
        self._characters = 0
        self._tokens = np.array([self._stop], np.int32)
        """The ids of all words, by their numbers; of each word, where they begin and how many there are:"""
        self._starts = np.array([0, 0], np.int64)
        self._counts = np.array([0, 1], np.int64)

    def _encode_new(self) -> None:
        if not self._new:
            return
        tokens, counts = [self._tokens], []
        for group in groups(self._new, _GROUP_CHARACTERS):
            # One text, with full stops between the words: half the time of asking `tokenizers` for where words end.
            text = f" {_STOP} ".join([*group, ""])
            ids = np.array(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids, np.int32)
            stops = np.flatnonzero(ids == self._stop)
            assert len(stops) == len(group)
            tokens.append(ids[ids != self._stop])
            counts.append(np.diff(stops, prepend=-1) - 1)
        self._characters += sum(map(len, self._new))
        self._new = []
        added = np.concatenate(counts)
        self._starts = np.concatenate([self._starts, len(self._tokens) + np.cumsum(added) - added])
        self._counts = np.concatenate([self._counts, added])
        self._tokens = np.concatenate(tokens)


def _words(lines: Sequence[str]) -> list[str]:
    """What stands between spaces and frequent marks, the marks, and a line break after each line."""
    text = "\n".join([*lines, ""])
    if text.count("\n") > len(lines):  # a line break inside a line is white space like any other
        text = "\n".join([*(line.replace("\n", " ") for line in lines), ""])
    for mark in _MARKS:  # these are pieces of their own anyway, and set apart they leave fewer words distinct
        text = text.replace(mark, f" {mark} ")
    return text.split(" ")


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
