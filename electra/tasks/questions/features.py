"""Windows: questions and their passages as rows of tokens that a model can read.

    questions -> blocks -> windows.py (tokens and windows of a block, in parallel) -> `QuestionFeatures`
              -> `cached_features` keeps them in a file -> `collate_windows` (B rows as arrays)

A row is `[CLS] question [SEP] part of the passage [SEP]`, the passage in segment 1. A passage that does not fit is read
in windows whose begins lie `doc_stride` tokens apart; a token that several windows hold counts in the one where it has
the most context. All as google-research/electra, finetune/qa/qa_tasks.py; only that a window is known by (question,
number) here, not by 1000 * question + number, which collides.

The tokens of a passage are kept once, and a window is a range of them: SQuAD's training set takes 70 MB. Letters: Q
questions, C distinct passages, T tokens of all passages, W windows, B rows of a batch, L tokens of a row.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import signal
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from electra.files import atomic_file, cache_folder
from electra.progress import counted
from electra.tasks.features import padded_length
from electra.tasks.questions.files import Question
from electra.tasks.questions.text import Span, final_text, join_words, pieces_text
from electra.tasks.questions.windows import Arrays, WindowOptions, block_arrays
from electra.tokenizer import Vocabulary

FORMAT = 1
"""Of the cached files; to be raised whenever other features come from the same texts."""
BLOCK_CHARACTERS = 1 << 20
"""Of passages that one process takes at a time; about a fifth of a second."""


@dataclass(frozen=True)
class QuestionFeatures:
    """The windows of Q questions, in their order; a question without a single token of passage has none."""

    cls: int
    sep: int
    pad: int
    max_length: int

    context_ids: np.ndarray
    """(T,) int32 tokens of the passages end to end."""
    context_offsets: np.ndarray
    """(C + 1,) int64; passage c is `context_ids[context_offsets[c] : context_offsets[c + 1]]`."""
    token_words: np.ndarray
    """(T,) int32 number of the word (`question_text.find_words` of the passage) that a token stands in."""
    token_begins: np.ndarray
    """(T,) int32 first character of a token in its passage."""
    token_ends: np.ndarray
    """(T,) int32 the character after its last."""

    question_ids: np.ndarray
    """int32 tokens of the questions end to end, cut to the room that they have."""
    question_offsets: np.ndarray
    """(Q + 1,) int64."""
    question_contexts: np.ndarray
    """(Q,) int32 number of each question's passage."""
    impossible: np.ndarray
    """(Q,) bool, of the question: also its windows that do not hold its answer are "answerable" (Google's)."""
    cut: np.ndarray
    """(Q,) bool: the question was longer than its room."""
    window_offsets: np.ndarray
    """(Q + 1,) int64; the windows of question q are those from `window_offsets[q]` to `window_offsets[q + 1]`."""

    questions: np.ndarray
    """(W,) int32 number of the question of a window."""
    begins: np.ndarray
    """(W,) int32 its first token of the passage."""
    sizes: np.ndarray
    """(W,) int32 how many tokens of the passage it has."""
    best_begins: np.ndarray
    """(W,) int32 first token of the passage that has its most context in this window."""
    best_ends: np.ndarray
    """(W,) int32 the one after the last of them."""
    starts: np.ndarray
    """(W,) int32 place in the row of the answer's first token; 0 if the answer is not in this window, or none."""
    ends: np.ndarray
    """(W,) int32 place in the row of the answer's last token; 0 likewise."""

    def __len__(self) -> int:
        """Windows."""
        return len(self.questions)

    @functools.cached_property
    def first(self) -> np.ndarray:
        """(W,) tokens of segment 0, which is the place in the row of the window's first token of the passage."""
        return np.diff(self.question_offsets)[self.questions] + 2

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """(W,) tokens of a row, special ones included."""
        return self.first + self.sizes + 1

    def row(self, window: int) -> np.ndarray:
        """(L,) int32 token ids of a row without padding."""
        question, begin = self.questions[window], self.begins[window]
        text = self.question_ids[self.question_offsets[question] : self.question_offsets[question + 1]]
        begin = self.context_offsets[self.question_contexts[question]] + begin
        passage = self.context_ids[begin : begin + self.sizes[window]]
        return np.concatenate([[self.cls], text, [self.sep], passage, [self.sep]]).astype(np.int32)

    def has_most_context(self, window: int) -> np.ndarray:
        """(size,) bool for each token of the passage in a window: no other window has more context for it."""
        token = self.begins[window] + np.arange(self.sizes[window])
        return (self.best_begins[window] <= token) & (token < self.best_ends[window])

    def passage_tokens(self, window: int, first: int, last: int) -> slice:
        """Places `first` to `last` (inclusive) of a row as a slice of `context_ids`, `token_words`, ...

        For places of the passage; `token_begins[s.start]` to `token_ends[s.stop - 1]` are an answer's characters.
        """
        question = self.questions[window]
        text = self.question_offsets[question + 1] - self.question_offsets[question]
        begin = self.context_offsets[self.question_contexts[question]] + self.begins[window] - text - 2
        return slice(int(begin + first), int(begin + last + 1))


@dataclass(frozen=True)
class WindowArrays:
    """B windows as arrays of one length L."""

    input_ids: np.ndarray
    """(B, L) int64."""
    segment_ids: np.ndarray
    """(B, L) int64, 1 for the passage and the [SEP] after it."""
    valid: np.ndarray
    """(B, L) bool, False at padding."""
    passage: np.ndarray
    """(B, L) bool, True for tokens of the passage alone."""
    starts: np.ndarray
    """(B,) int64."""
    ends: np.ndarray
    """(B,) int64."""
    impossible: np.ndarray
    """(B,) bool."""


def build_features(
    questions: Sequence[Question], vocabulary: Vocabulary, options: WindowOptions, processes: int = 1
) -> QuestionFeatures:
    """Tokenise and cut at least one question; the result does not depend on `processes` (0: one for each core)."""
    blocks = list(_blocks(questions))
    processes = min(len(blocks), processes or _cores())
    if processes > 1:
        parts = _in_parallel(blocks, vocabulary, options, processes)
    else:
        parts = list(_counted(blocks, (block_arrays(block, vocabulary, options) for block in blocks)))
    special = vocabulary.special
    return QuestionFeatures(special.cls, special.sep, special.pad, options.max_length, **_join(parts))


def cached_features(
    questions: Sequence[Question],
    vocabulary: Vocabulary,
    options: WindowOptions,
    processes: int = 1,
    cache: Path | None = None,
) -> QuestionFeatures:
    """`build_features`, or what it gave before for the same texts, answers, vocabulary and options.

    `cache` is the folder of the files; None: `electra` in the user's cache folder. A file is found by the sha256 of all
    that it follows from, and one that is damaged is made anew. Where no file can be written, a UserWarning says so.
    """
    key = _key(questions, vocabulary, options)
    path = (cache or cache_folder()) / f"questions-{key[:32]}.npz"
    arrays = _load(path, key)
    if arrays is not None:
        special = vocabulary.special
        return QuestionFeatures(special.cls, special.sep, special.pad, options.max_length, **arrays)
    features = build_features(questions, vocabulary, options, processes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            np.savez(file, key=np.array(key), **{name: getattr(features, name) for name in _array_names()})
    except OSError as error:
        warnings.warn(
            f"features are not kept for the next run, {path.parent} cannot be written ({error})", stacklevel=2
        )
    return features


def collate_windows(features: QuestionFeatures, windows: np.ndarray) -> WindowArrays:
    """The windows with the numbers `windows` (B,), padded as `features.padded_length` says."""
    first, lengths = features.first[windows, None], features.lengths[windows, None]
    L = padded_length(int(lengths.max()), features.max_length)
    input_ids = np.full((len(windows), L), features.pad, np.int64)
    for place, window in enumerate(windows.tolist()):
        row = features.row(window)
        input_ids[place, : len(row)] = row
    position = np.arange(L)
    valid = position < lengths
    return WindowArrays(
        input_ids=input_ids,
        segment_ids=(valid & (position >= first)).astype(np.int64),
        valid=valid,
        passage=(position >= first) & (position < lengths - 1),
        starts=features.starts[windows].astype(np.int64),
        ends=features.ends[windows].astype(np.int64),
        impossible=features.impossible[features.questions[windows]],
    )


def answer_text(
    features: QuestionFeatures,
    vocabulary: Vocabulary,
    context: str,
    words: Sequence[Span],
    window: int,
    first: int,
    last: int,
) -> str:
    """The text of the answer from place `first` to place `last` (inclusive) of a window, as Google recovers it.

    `words` are the `find_words` of the passage `context`.
    """
    tokens = features.passage_tokens(window, first, last)
    pieces = [vocabulary.tokens[token] for token in features.context_ids[tokens].tolist()]
    original = join_words(context, words, features.token_words[tokens.start], features.token_words[tokens.stop - 1])
    return final_text(vocabulary, pieces_text(pieces), original)


# ------------------------------------------------------------------------------------------------- in parallel


def _blocks(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """Neighbours with together about BLOCK_CHARACTERS of passages; those of one passage stay together."""
    block: list[Question] = []
    characters = 0
    for question in questions:
        if block and question.context != block[-1].context:
            characters += len(block[-1].context)
            if characters >= BLOCK_CHARACTERS:
                yield block
                block, characters = [], 0
        block.append(question)
    yield block


_worker: tuple[Vocabulary, WindowOptions] | None = None
"""What a worker process has been given once, for all its blocks."""


def _counted(blocks: list[list[Question]], made: Iterable[Arrays]) -> Iterator[Arrays]:
    sizes = list(map(len, blocks))
    return counted(made, "cutting passages", "questions", sizes, sum(sizes))


def _in_parallel(
    blocks: list[list[Question]], vocabulary: Vocabulary, options: WindowOptions, processes: int
) -> list[Arrays]:
    # Spawned, not forked: forking a process in which tokenizers or torch have started threads can deadlock.
    context = multiprocessing.get_context("spawn")
    arguments = (vocabulary.to_json(), options)
    try:
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker, initargs=arguments) as pool:
            return list(_counted(blocks, pool.map(_work, blocks)))
    except BrokenProcessPool:
        raise ValueError(
            "a process that makes features died, perhaps for want of memory: try fewer --processes"
        ) from None


def _start_worker(vocabulary_json: str, options: WindowOptions) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are what was asked for
    _worker = Vocabulary.from_json(vocabulary_json), options


def _work(block: list[Question]) -> Arrays:
    assert _worker is not None
    return block_arrays(block, *_worker)


def _join(parts: list[Arrays]) -> Arrays:
    """Blocks end to end: offsets and numbers of questions and passages go on from block to block."""
    joined = {}
    for name in _array_names():
        if name.endswith("_offsets"):
            lengths = np.concatenate([np.diff(part[name]) for part in parts])
            joined[name] = np.concatenate([[0], np.cumsum(lengths)])
            continue
        counted = {"question_contexts": "context_offsets", "questions": "question_offsets"}.get(name)
        before = 0
        columns = []
        for part in parts:
            columns.append(part[name] + np.int32(before) if counted else part[name])
            before += len(part[counted]) - 1 if counted else 0
        joined[name] = np.concatenate(columns)
    return joined


def _array_names() -> list[str]:
    numbers = ("cls", "sep", "pad", "max_length")
    return [field.name for field in dataclasses.fields(QuestionFeatures) if field.name not in numbers]


def _cores() -> int:
    """The cores that this process may use, which in a container or a batch job are not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------------ cache


def _key(questions: Sequence[Question], vocabulary: Vocabulary, options: WindowOptions) -> str:
    """sha256 of everything that the features follow from."""
    settings = [FORMAT, tokenizers.__version__, dataclasses.asdict(options)]
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(vocabulary.to_json().encode())
    before = None
    for question in questions:
        # The passage of the question before is not hashed again: SQuAD has five questions on each.
        context = None if question.context == before else question.context
        before = question.context
        digest.update(json.dumps([question.question, context, question.target, question.is_impossible]).encode())
    return digest.hexdigest()


def _load(path: Path, key: str) -> Arrays | None:
    """The arrays of a cached file; None if there is none, or none that is whole (the format has checksums)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
    if str(arrays.pop("key", "")) != key or set(arrays) != set(_array_names()):
        return None
    return arrays
