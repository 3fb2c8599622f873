"""Texts of questions and answers: the words of a passage, and an answer's text from the tokens that were chosen.

    passage --`find_words`--> words (character ranges) --tokeniser--> tokens --model--> first and last of an answer
            <--------- `final_text` (Google's way, by comparing texts) or `span_text` (by characters) ---------

Words are split and answers recovered as in google-research/electra, finetune/qa/qa_tasks.py and qa_metrics.py: a word
ends at a space, tab, line end or narrow no-break space; other spaces of Unicode stand inside of words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from electra.tokenizer import Vocabulary

_WORD = re.compile("[^ \t\r\n\u202f]+")

Span = tuple[int, int]
"""First character and the one after the last."""


def find_words(context: str) -> list[Span]:
    """The words of a passage as character ranges, in order."""
    return [match.span() for match in _WORD.finditer(context)]


def join_words(context: str, words: Sequence[Span], first: int, last: int) -> str:
    """Words `first` to `last` (inclusive) with one space between them."""
    return " ".join(context[begin:end] for begin, end in words[first : last + 1])


def pieces_text(tokens: Sequence[str]) -> str:
    """WordPieces as a text: pieces with ## are joined to the one before, spaces stay between words."""
    return " ".join(" ".join(tokens).replace(" ##", "").replace("##", "").split())


def final_text(vocabulary: Vocabulary, predicted: str, original: str) -> str:
    """The part of `original` that the tokens `predicted` (as of `pieces_text`) came from.

    Google's `get_final_text`: "steve smith" in "Steve Smith's" is "Steve Smith". `original` is split into words and
    punctuation as the tokeniser does it, and `predicted` searched in them; letters are then paired by their number.
    Where the tokeniser changed the number of letters, or `predicted` is not found, all of `original` comes back.
    """
    normalizer, splitter = vocabulary.tokenizer.normalizer, vocabulary.tokenizer.pre_tokenizer
    normal = normalizer.normalize_str(original) if normalizer else original
    text = " ".join([word for word, _ in splitter.pre_tokenize_str(normal)] if splitter else normal.split())
    found = text.find(predicted)
    if found < 0 or not predicted:
        return original
    places = [place for place, letter in enumerate(original) if letter != " "]
    if len(places) != len(text) - text.count(" "):
        return original
    first = found - text.count(" ", 0, found)
    last = first + len(predicted) - predicted.count(" ") - 1
    return original[places[first] : places[last] + 1]


def span_text(context: str, begin: int, end: int) -> str:
    """The characters `begin` to `end` (exclusive) of a passage, as they stand there."""
    return context[begin:end].strip()
