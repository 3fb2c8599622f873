"""How the passages of a block of questions become tokens and windows; called by features.py in each process.

    passages --tokeniser--> tokens with their characters -> the word of each
    questions -> tokens, cut; room for the passage -> begins of windows -> which tokens count in which window
    answer -> its words -> its tokens (`tighter_span`) -> its place in each window

All as google-research/electra, finetune/qa/qa_tasks.py, which tokenises word by word; the same comes out of whole
passages, as no token spans two words. Letters: Q questions, C passages, T tokens of all passages, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from electra.tasks.questions.files import Question, answer_words
from electra.tasks.questions.text import find_words
from electra.tokenizer import Vocabulary

LEAST_PASSAGE = 32
"""Tokens of passage for which a question is cut, where the row is long enough for both."""
ENCODED_AT_ONCE = 256
"""Passages; an encoding takes more than 100 bytes a token."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class WindowOptions:
    """What decides how passages are cut, besides the vocabulary."""

    max_length: int = 384
    """Tokens in a row."""
    doc_stride: int = 128
    """Tokens between the begins of two windows of a passage."""
    max_query_length: int = 64
    """Tokens of a question; longer ones are cut."""

    @property
    def query_room(self) -> int:
        """Tokens of a question that are kept: `max_query_length`, or fewer so that some passage fits beside it."""
        room = self.max_length - 3  # [CLS], [SEP] and [SEP]
        return min(self.max_query_length, room - min(LEAST_PASSAGE, room // 2))


def block_arrays(questions: Sequence[Question], vocabulary: Vocabulary, options: WindowOptions) -> Arrays:
    """The fields of `QuestionFeatures` that are arrays, for these questions alone."""
    numbers: dict[str, int] = {}
    contexts = np.array([numbers.setdefault(question.context, len(numbers)) for question in questions], np.int32)
    passages = list(numbers)
    words = [find_words(passage) for passage in passages]
    tokens = _passage_tokens(passages, words, vocabulary)

    ids = vocabulary.encode_batch([question.question for question in questions])
    cut = np.array([len(each) > options.query_room for each in ids], bool)
    ids = [each[: options.query_room] for each in ids]
    question_lengths = np.array([len(each) for each in ids], np.int64)

    sizes = np.diff(tokens["context_offsets"])[contexts]
    windows = cut_windows(sizes, options.max_length - 3 - question_lengths, options.doc_stride)
    spans = _answer_spans(questions, passages, words, contexts, tokens, vocabulary)
    first = question_lengths[windows["questions"]] + 2
    starts, ends = _places(spans[windows["questions"]], windows["begins"], windows["sizes"], first)
    return {
        **tokens,
        "question_ids": np.array([token for each in ids for token in each], np.int32),
        "question_offsets": _offsets(question_lengths),
        "question_contexts": contexts,
        "impossible": np.array([question.is_impossible for question in questions], bool),
        "cut": cut,
        **windows,
        "starts": starts,
        "ends": ends,
    }


def cut_windows(sizes: np.ndarray, rooms: np.ndarray, stride: int) -> Arrays:
    """Windows of Q passages of `sizes` (Q,) tokens into rows that have room for `rooms` (Q,) of them.

    Returns `window_offsets` (Q + 1,) int64 and `questions`, `begins`, `sizes`, `best_begins`, `best_ends`, (W,) int32
    (see QuestionFeatures). A passage without tokens has no window.
    """
    step = np.minimum(rooms, stride)
    counts = np.where(sizes > 0, 1 + np.maximum(0, -(-(sizes - rooms) // step)), 0)
    offsets = _offsets(counts)
    owner = np.repeat(np.arange(len(sizes)), counts)
    begins = (np.arange(len(owner)) - offsets[owner]) * step[owner]
    ends = np.minimum(begins + rooms[owner], sizes[owner])
    best_begins, best_ends = np.zeros_like(begins), sizes[owner]
    followed = np.flatnonzero(owner[:-1] == owner[1:])
    border = _borders(begins[followed], ends[followed], begins[followed + 1], ends[followed + 1])
    best_ends[followed] = best_begins[followed + 1] = border
    columns = {
        "questions": owner,
        "begins": begins,
        "sizes": ends - begins,
        "best_begins": best_begins,
        "best_ends": best_ends,
    }
    return {"window_offsets": offsets} | {name: values.astype(np.int32) for name, values in columns.items()}


def tighter_span(tokens: Sequence[int], first: int, last: int, answer: Sequence[int]) -> tuple[int, int]:
    """The first place between `first` and `last` (inclusive) where the tokens are those of the answer itself.

    Words reach beyond the answer: that of "1895" is "(1895-1943)." (Google's `_improve_answer_span`). Unchanged if
    there is no such place.
    """
    size = len(answer)
    for start in range(first, last + 2 - size):
        if size and tokens[start : start + size] == answer:
            return start, start + size - 1
    return first, last


def _passage_tokens(passages: list[str], words: list[list[tuple[int, int]]], vocabulary: Vocabulary) -> Arrays:
    ids: list[np.ndarray] = []
    characters: list[np.ndarray] = []
    for start in range(0, len(passages), ENCODED_AT_ONCE):
        batch = passages[start : start + ENCODED_AT_ONCE]
        for encoding in vocabulary.tokenizer.encode_batch(batch, add_special_tokens=False):
            ids.append(np.array(encoding.ids, np.int32))
            characters.append(np.array(encoding.offsets, np.int32).reshape(-1, 2))
    token_words = []
    for spans, places in zip(words, characters, strict=True):
        word_ends = np.array([end for _, end in spans], np.int32)
        # The first word that ends after the token begins.
        token_words.append(np.searchsorted(word_ends, places[:, 0], side="right").astype(np.int32))
    flat = np.concatenate(characters)
    return {
        "context_ids": np.concatenate(ids),
        "context_offsets": _offsets(np.array([len(each) for each in ids], np.int64)),
        "token_words": np.concatenate(token_words),
        "token_begins": np.ascontiguousarray(flat[:, 0]),
        "token_ends": np.ascontiguousarray(flat[:, 1]),
    }


def _answer_spans(
    questions: Sequence[Question],
    passages: list[str],
    words: list[list[tuple[int, int]]],
    contexts: np.ndarray,
    tokens: Arrays,
    vocabulary: Vocabulary,
) -> np.ndarray:
    """(Q, 2) first and last token of each answer in its passage; -1 where there is none."""
    spans = np.full((len(questions), 2), -1, np.int64)
    found = []
    for number, (question, c) in enumerate(zip(questions, contexts.tolist(), strict=True)):
        if question.target is not None:
            place = answer_words(passages[c], words[c], *question.target)
            if not isinstance(place, str):
                found.append((number, c, question.target[0], place))
    answers = vocabulary.encode_batch([text for _, _, text, _ in found])
    for (number, c, _, (first_word, last_word)), answer in zip(found, answers, strict=True):
        begin, end = tokens["context_offsets"][c : c + 2]
        of_words = tokens["token_words"][begin:end]
        first, last = np.searchsorted(of_words, first_word), np.searchsorted(of_words, last_word, side="right") - 1
        if first <= last:  # a word of control characters has no token
            ids = tokens["context_ids"][begin + first : begin + last + 1].tolist()
            spans[number] = first + np.array(tighter_span(ids, 0, len(ids) - 1, answer))
    return spans


def _places(
    spans: np.ndarray, begins: np.ndarray, sizes: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(W,) and (W,) int32: first and last token of an answer as places in the row, 0 where it is not all there."""
    inside = (spans[:, 0] >= begins) & (spans[:, 1] < begins + sizes)
    moved = np.where(inside[:, None], spans - begins[:, None] + first[:, None], 0).astype(np.int32)
    return np.ascontiguousarray(moved[:, 0]), np.ascontiguousarray(moved[:, 1])


def _borders(a: np.ndarray, a_end: np.ndarray, b: np.ndarray, b_end: np.ndarray) -> np.ndarray:
    """For pairs of windows [a, a_end) and [b, b_end), b the later one: the first token that has more context in b.

    The context of a token is the lesser of those on its left and right, plus a hundredth of the window's length
    (Google's `_check_is_max_context`); counted in hundredths here. The later window's lead over the earlier one never
    falls from token to token, so that the place where it begins is found by halving.
    """

    def context(token: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        return 100 * np.minimum(token - begin, end - 1 - token) + end - begin

    low, high = b.copy(), a_end.copy()
    while (low < high).any():
        middle = (low + high) // 2
        better = context(middle, b, b_end) > context(middle, a, a_end)
        high = np.where((low < high) & better, middle, high)
        low = np.where((low < high) & ~better, middle + 1, low)
    return low


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
