"""Small token stores for tests: a vocabulary of single letters, documents given as lists of lines of ids."""

import dataclasses
import itertools
import string
from pathlib import Path
from typing import Any

import numpy as np

from electra.store import Store, StoreWriter
from electra.tokenizer import Vocabulary, load_tokenizer

Document = list[list[int]]


def tiny_vocabulary(folder: Path, size: int = 1000) -> Vocabulary:
    """Specials 0 to 4, then letters and made-up words."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.txt"
    words = [*string.ascii_lowercase, *map("".join, itertools.product("abcdefghij", repeat=5))]
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words[: size - 5]]) + "\n")
    return load_tokenizer(path, lowercase=True)


def random_documents(count: int, seed: int = 0, mean_lines: float = 6.0, vocab: int = 1000) -> list[Document]:
    """Documents with a heavy tail of lengths; lines of 1 to 40 ids."""
    rng = np.random.default_rng(seed)
    sizes = np.maximum(1, rng.lognormal(np.log(mean_lines), 1.0, count).astype(int))
    return [[rng.integers(5, vocab, rng.integers(1, 41)).tolist() for _ in range(size)] for size in sizes]


def numbered_documents(sizes: list[list[int]]) -> list[Document]:
    """Documents of lines of the given lengths in which every token is another id: 5, 6, 7, ... in order."""
    ids = itertools.count(5)
    return [[list(itertools.islice(ids, length)) for length in document] for document in sizes]


def add_documents(writer: StoreWriter, documents: list[Document], continues: bool = False) -> None:
    lines = [line for document in documents for line in document]
    tokens = np.array([token for line in lines for token in line], np.int32)
    writer.add(
        tokens, np.array([len(line) for line in lines], np.int64), np.array([len(d) for d in documents]), continues
    )


def make_store(
    folder: Path, documents: list[Document], *, held_out: float = 0.0, shard_tokens: int = 2**28, vocab: int = 1000
) -> Store:
    vocabulary = tiny_vocabulary(folder.with_name(f"{folder.name}-vocab"), vocab)
    writer = StoreWriter(
        folder, vocabulary, held_out=held_out, seed=0, sources=[], options={}, shard_tokens=shard_tokens
    )
    add_documents(writer, documents)
    writer.close()
    return Store.open(folder)


def read_documents(store: Store) -> list[Document]:
    """All documents of a store, by plain loops."""
    out = []
    for shard in store.shards:
        for first, last in itertools.pairwise(shard.documents):
            out.append([shard.tokens[shard.lines[n] : shard.lines[n + 1]].tolist() for n in range(first, last)])
    return out


def some_rows(batch: Any, rows: Any) -> Any:
    """Some rows of a RowBatch or of Masks, by their place."""
    return type(batch)(*(getattr(batch, item.name)[rows] for item in dataclasses.fields(batch)))
