"""Corpus -> token store, in parallel processes.

How the pieces nest: `_blocks` cuts the corpus into blocks of a few megabytes (a byte range of a plain file, which a
worker reads itself, or the lines of a compressed or record file, which this process streams), `encode` turns one
block into arrays, `_encode_all` does that in worker processes and hands the results back in order, `build` appends
them to a `StoreWriter`. Blocks end anywhere between two lines: `Encoded` says whether a document goes on across their
border. Where they end depends on the corpus alone, so the store is the same for any number of processes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from electra.config import BuildConfig
from electra.corpus import OnError, Tally, cut, find_files, is_divisible, read_lines, read_range
from electra.files import atomic_folder
from electra.store import StoreWriter
from electra.tokenizer import Vocabulary, load_tokenizer

BLOCK_BYTES = 1 << 22  # about a second of work for a core; two blocks a worker are in flight
_UNKNOWN_WARNING = 0.01


@dataclass
class Block:
    """A unit of work: some consecutive lines of one file."""

    path: Path
    first: bool
    """Whether it begins its file, and so a document."""
    start: int = 0
    stop: int = 0
    """Byte range of a plain text file ..."""
    lines: list[str] | None = None
    """... or the lines themselves; an empty one ends a document."""
    tally: Tally = field(default_factory=Tally)
    """What reading these lines met."""


@dataclass
class Encoded:
    """A block as arrays. Lines without tokens and documents without lines are left out."""

    tokens: np.ndarray
    """(T,) uint16, or uint32 if the vocabulary needs it."""
    line_lengths: np.ndarray
    """(N,) int64, tokens in each line."""
    document_lengths: np.ndarray
    """(D,) int64, lines in each document."""
    begins_document: bool
    """The first line does not go on with a document of the block before."""
    ends_document: bool
    """The next block does not go on with the last line's document."""
    unknown: int
    """Tokens that are [UNK]."""
    text_bytes: int
    tally: Tally


def build(config: BuildConfig, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Write the token store `config.out` and return store.json's content plus the key "build".

    summary["build"]: files, text_mb, seconds, mb_per_second, processes, unknown_share, lines_replaced,
    lines_skipped. `progress` is called with the bytes of the corpus done so far and in all. Warns (UserWarning) when
    more than 1 % of the tokens are [UNK]. Raises ValueError for an empty corpus, an `out` that exists, and all that
    `corpus.find_files`, `corpus.read_lines` and `tokenizer.load_tokenizer` raise; whatever is raised, nothing is left
    behind.
    """
    started = time.perf_counter()
    with atomic_folder(config.out, config.overwrite) as folder:
        vocabulary = load_tokenizer(config.vocab, config.lowercase, config.strip_accents)
        files = find_files(config.corpus)
        sizes = [file.stat().st_size for file in files]
        writer = StoreWriter(
            folder,
            vocabulary,
            held_out=config.held_out,
            seed=config.seed,
            sources=[{"path": str(file), "bytes": size} for file, size in zip(files, sizes, strict=True)],
            options={"text_field": config.text_field, "on_error": config.on_error},
        )
        processes = min(config.processes or _cores(), 1 + sum(sizes) // BLOCK_BYTES)
        total, unknown, text_bytes, is_open = Tally(), 0, 0, False
        with contextlib.closing(_encode_all(_blocks(files, config), vocabulary, config.on_error, processes)) as results:
            for first, part in results:
                is_open &= not first
                if len(part.tokens):
                    continues = is_open and not part.begins_document
                    writer.add(part.tokens, part.line_lengths, part.document_lengths, continues=continues)
                    is_open = not part.ends_document
                else:
                    is_open &= not part.ends_document
                total.add(part.tally)
                unknown += part.unknown
                text_bytes += part.text_bytes
                if progress is not None:
                    progress(total.disk_bytes, sum(sizes))
        summary = writer.close()
    seconds = time.perf_counter() - started
    unknown_share = unknown / summary["tokens"]
    if unknown_share > _UNKNOWN_WARNING:
        warnings.warn(
            f"{unknown_share:.1%} of the tokens are [UNK]: does the vocabulary {config.vocab} fit the text's language, "
            "and --lowercase and --strip-accents the vocabulary?",
            stacklevel=2,
        )
    return summary | {
        "build": {
            "files": len(files),
            "text_mb": text_bytes / 1e6,
            "seconds": seconds,
            "mb_per_second": text_bytes / 1e6 / seconds,
            "processes": processes,
            "unknown_share": unknown_share,
            "lines_replaced": total.replaced,
            "lines_skipped": total.skipped,
        }
    }


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress line on the terminal, for `build`'s argument `progress`."""
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _cores() -> int:
    """The cores that this process may use, which in a container or a batch job are not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _blocks(files: Iterable[Path], config: BuildConfig) -> Iterator[Block]:
    for file in files:
        if is_divisible(file):
            for start, stop in cut(file, BLOCK_BYTES):
                yield Block(file, start == 0, start, stop)
        else:
            tally = Tally()
            lines = read_lines(file, text_field=config.text_field, on_error=config.on_error, tally=tally)
            for number, block in enumerate(_group(lines)):
                yield Block(file, number == 0, lines=block, tally=tally.take())


def _group(lines: Iterator[str]) -> Iterator[list[str]]:
    """Lists of lines of about BLOCK_BYTES characters."""
    group: list[str] = []
    size = 0
    for line in lines:
        group.append(line)
        size += len(line) + 1
        if size >= BLOCK_BYTES:
            yield group
            group, size = [], 0
    yield group


def encode(block: Block, vocabulary: Vocabulary, on_error: OnError) -> Encoded:
    """Read and tokenise one block. A function of its arguments and the file alone, wherever it runs."""
    lines: Iterable[str]
    if block.lines is None:
        lines = read_range(block.path, block.start, block.stop, on_error=on_error, tally=block.tally)
    else:
        lines = block.lines
    texts: list[str] = []
    document_of: list[int] = []
    ends = 0  # document ends met so far, which number the documents of this block
    for line in lines:
        if line:
            texts.append(line)
            document_of.append(ends)
        else:
            ends += 1
    tokens, lengths = vocabulary.encode_lines(texts)
    kept = lengths > 0
    documents = np.array(document_of, np.int64)[kept]
    return Encoded(
        tokens=tokens.astype(np.uint16 if vocabulary.size <= 1 << 16 else np.uint32),
        line_lengths=lengths[kept],
        document_lengths=np.unique(documents, return_counts=True)[1].astype(np.int64),
        begins_document=bool(documents[0] > 0) if len(documents) else ends > 0,
        ends_document=bool(documents[-1] < ends) if len(documents) else ends > 0,
        unknown=int(np.count_nonzero(tokens == vocabulary.special.unk)),
        text_bytes=sum(len(text.encode()) + 1 for text in texts),
        tally=block.tally,
    )


# --------------------------------------------------------------------------------------------- worker processes


def _encode_all(
    blocks: Iterator[Block], vocabulary: Vocabulary, on_error: OnError, processes: int
) -> Generator[tuple[bool, Encoded], None, None]:
    """(whether it begins a file, its arrays) of each block in order, with a bounded number of blocks in memory."""
    if processes == 1:
        with _one_thread():
            for block in blocks:
                yield block.first, encode(block, vocabulary, on_error)
        return
    # Spawned, not forked: forking a process in which tokenizers or torch have started threads can deadlock.
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _start_worker, (vocabulary.to_json(), on_error)
    )
    pending: deque[tuple[bool, Future[Encoded]]] = deque()
    try:
        for block in blocks:
            pending.append((block.first, pool.submit(_work, block)))
            if len(pending) > 2 * processes:
                first, result = pending.popleft()
                yield first, result.result()
        for first, result in pending:
            yield first, result.result()
    except BrokenProcessPool:
        raise RuntimeError("a worker process was killed, perhaps for want of memory: use fewer --processes") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[Vocabulary, OnError] | None = None  # what a worker process keeps between blocks


def _start_worker(vocabulary: str, on_error: OnError) -> None:
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C is the parent's to handle; and a parent that was killed must not leave workers behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = (Vocabulary.from_json(vocabulary), on_error)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(block: Block) -> Encoded:
    assert _worker is not None
    return encode(block, *_worker)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep tokenizers from starting a thread a core when a single process was asked for."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
