"""Text -> arrays of ids, in parallel processes.

`blocks` cuts files and parts of files into blocks of a few megabytes (a byte range of a plain file, which a worker
reads itself, or the lines of a compressed or record file, which this process streams), `encode` turns one block
into arrays, `encode_all` does that in worker processes and hands the results back in order. Blocks end anywhere
between two lines: `Encoded` says whether a document goes on across their border. Where they end depends on the
corpus alone, so the result is the same for any number of processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import numpy as np

from electra.cleaning import Cleaned, Origin, clean
from electra.config import CleaningConfig
from electra.corpus import Reading, Tally, Unreadable, cut, is_divisible, read_lines, read_range
from electra.corpus.files import named_format
from electra.near_duplicates import signatures
from electra.portions import Piece
from electra.storage import File, RemoteFile, StorageError
from electra.tokenizer import Vocabulary

BLOCK_BYTES = 1 << 22  # a third of a second of work for a core


@dataclass
class Block:
    """A unit of work: some consecutive lines of one file."""

    path: File
    first: bool
    """Whether it begins its file or part of a file, and so a document."""
    start: int = 0
    stop: int = 0
    """Byte range of a plain text file ..."""
    whole: bool = False
    """... or all of a file, of whatever kind ..."""
    lines: list[str] | None = None
    """... or the lines themselves; an empty one ends a document. Then `start` counts the ends before them."""
    tally: Tally = field(default_factory=Tally)
    """What reading these lines met."""


@dataclass
class Encoded:
    """A block as arrays. Lines without tokens and documents without lines are left out."""

    first: bool
    """As in the block."""
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
    cleaned: Cleaned | None
    """If the text was cleaned, what that found, its lines not included."""
    signatures: np.ndarray | None
    """(D, K) uint32, if near duplicates are looked for."""

    def without_first(self) -> Encoded:
        """The same without the first document, or what there is of it."""
        num_lines = int(self.document_lengths[0])
        return dataclasses.replace(
            self,
            tokens=self.tokens[int(self.line_lengths[:num_lines].sum()) :],
            line_lengths=self.line_lengths[num_lines:],
            document_lengths=self.document_lengths[1:],
            begins_document=True,
            signatures=None if self.signatures is None else self.signatures[1:],
        )


def blocks(pieces: Iterable[Piece], reading: Reading) -> Iterator[Block]:
    """The blocks of files and parts of files; each begins a document."""
    for piece in pieces:
        if _is_for_a_worker(piece.path):
            yield Block(piece.path, True, whole=True)
            continue
        tally = Tally()
        try:
            if is_divisible(piece.path):
                for start, stop in cut(piece.path, BLOCK_BYTES, piece.start, piece.stop):
                    yield Block(piece.path, start == piece.start, start, stop)
                continue
        except (Unreadable, OSError) as error:
            if reading.on_error == "fail" or isinstance(error, StorageError):
                raise
            tally.faults.append(str(error))
            yield Block(piece.path, True, lines=[], tally=tally)
            continue
        ends = 0
        for number, block in enumerate(_group(read_lines(piece.path, reading, tally))):
            yield Block(piece.path, number == 0, ends, lines=block, tally=tally.take())
            ends += block.count("")


def _is_for_a_worker(path: File) -> bool:
    """Whether a worker had better read all of a file: a small remote one, for which this process would wait."""
    if not isinstance(path, RemoteFile) or path.size > BLOCK_BYTES:
        return False
    kind, compression = named_format(path.name)
    return kind in ("", "text", "wiki", "jsonl", "csv", "tsv") and not compression  # others may hold much more text


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


def encode(block: Block, vocabulary: Vocabulary, reading: Reading, cleaning: CleaningConfig) -> Encoded:
    """Read, clean and tokenise one block. A function of its arguments and the file alone, wherever it runs."""
    lines: Iterable[str]
    if block.whole:
        lines = read_lines(block.path, reading, block.tally)
    elif block.lines is None:
        lines = read_range(block.path, block.start, block.stop, reading, block.tally)
    else:
        lines = block.lines
    cleaned = None
    if cleaning.is_on:
        origin = Origin(block.path, block.start, counts_bytes=block.lines is None)
        cleaned = clean(lines, block.first, origin, cleaning)
        lines, cleaned.lines = cleaned.lines, []
    split = sentence_splitter(reading.sentences)
    texts: list[str] = []
    document_of: list[int] = []
    ends = 0  # document ends met so far, which number the documents of this block
    for line in lines:
        if line:
            texts += (sentences := split(line))
            document_of += [ends] * len(sentences)
        else:
            ends += 1
    tokens, lengths = vocabulary.encode_lines(texts)
    kept = lengths > 0
    documents = np.array(document_of, np.int64)[kept]
    document_lengths = np.unique(documents, return_counts=True)[1].astype(np.int64)
    document_signatures = None
    if cleaning.near_duplicates:
        last = np.cumsum(document_lengths) - 1
        document_tokens = np.diff(np.cumsum(lengths[kept])[last], prepend=0)
        document_signatures = signatures(tokens, document_tokens, cleaning.near_duplicates)
    return Encoded(
        first=block.first,
        tokens=tokens.astype(np.uint16 if vocabulary.size <= 1 << 16 else np.uint32),
        line_lengths=lengths[kept],
        document_lengths=document_lengths,
        begins_document=bool(documents[0] > 0) if len(documents) else ends > 0,
        ends_document=bool(documents[-1] < ends) if len(documents) else ends > 0,
        unknown=int(np.count_nonzero(tokens == vocabulary.special.unk)),
        text_bytes=len("\n".join([*texts, ""]).encode()),
        tally=block.tally,
        cleaned=cleaned,
        signatures=document_signatures,
    )


def sentence_splitter(language: str) -> Callable[[str], list[str]]:
    """What makes sentences of a line: the library `sentencex`, or for no language nothing."""
    if not language:
        return lambda line: [line]
    try:
        import sentencex
    except ImportError:
        raise ValueError("--sentences needs sentencex: pip install 'electra-toolkit[sentences]'") from None
    return lambda line: [sentence for found in sentencex.segment(language, line) if (sentence := found.strip())]


# --------------------------------------------------------------------------------------------- worker processes


def encode_all(
    blocks: Iterator[Block], vocabulary: Vocabulary, reading: Reading, cleaning: CleaningConfig, processes: int
) -> Generator[Encoded, None, None]:
    """The arrays of each block in order, with a bounded number of blocks in memory."""
    if processes == 1:
        with _one_thread():
            for block in blocks:
                yield encode(block, vocabulary, reading, cleaning)
        return
    # Not concurrent.futures: its workers share one pipe, and when one of them is killed while it writes (the kernel
    # does that when memory runs out) the build would hang. Here each has its own, whose end is noticed.
    workers: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(processes):
            connection, worker = _start_worker(vocabulary, reading, cleaning)
            workers[connection] = worker
        idle, busy = list(workers), dict[Connection, int]()
        done: dict[int, Encoded] = {}
        sent = wanted = 0
        upcoming = next(blocks, None)
        while busy or upcoming is not None:
            while idle and upcoming is not None and len(done) < processes:
                connection = idle.pop()
                connection.send(upcoming)
                busy[connection] = sent
                sent += 1
                upcoming = next(blocks, None)
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                result = ready.recv()
                if isinstance(result, Exception):
                    raise result
                done[busy.pop(ready)] = result
                idle.append(ready)
            while wanted in done:
                yield done.pop(wanted)
                wanted += 1
    except (EOFError, ConnectionError, MemoryError):
        raise ValueError("a worker process died, perhaps for want of memory: try fewer --processes") from None
    finally:
        for connection, worker in workers.items():
            worker.terminate()  # it holds nothing that could be lost
            worker.join()
            connection.close()


def _start_worker(vocabulary: Vocabulary, reading: Reading, cleaning: CleaningConfig) -> tuple[Connection, BaseProcess]:
    # Spawned, not forked: forking a process in which tokenizers or torch have started threads can deadlock.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_work, args=(theirs, vocabulary.to_json(), reading, cleaning), daemon=True)
    # Ctrl-C is for this process to handle: one that is started while SIGINT is blocked never sees it, even during
    # its imports. The tracker comes first because multiprocessing starts it by need, and unblocks SIGINT then.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        worker.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return ours, worker


def _work(connection: Connection, vocabulary_json: str, reading: Reading, cleaning: CleaningConfig) -> None:
    """What a worker does: block in, arrays (or the exception) out, until the other end is closed or gone."""
    vocabulary = Vocabulary.from_json(vocabulary_json)
    with contextlib.suppress(EOFError, ConnectionError), _one_thread():
        while True:
            block = connection.recv()
            result: Encoded | Exception
            try:
                result = encode(block, vocabulary, reading, cleaning)
            except Exception as error:
                if not isinstance(error, ValueError):
                    error.add_note(traceback.format_exc())  # where it happened is lost on the way
                result = error
            connection.send(result)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep tokenizers from starting a thread a core: the processes are what was asked for."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
