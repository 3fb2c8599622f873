"""Token stores from TFRecords of pre-training rows, and TFRecords from token stores.

`import_records` makes each row [CLS] A [SEP] B [SEP] a document of two lines, A and B (of one line without B), which
`packing.ImportedRows` turns back into the identical row; with rows.packing = "packed" the documents are cut anew like
any others. `export_records` writes the rows of Google's builder (google-research/electra,
build_pretraining_dataset.py) as shards that Google's and NVIDIA's programs read. Letters: R rows, L tokens in a row,
T tokens, N lines.
"""

from __future__ import annotations

import itertools
import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra.batches import google_rows
from electra.config import BuildConfig, RowsConfig
from electra.files import atomic_folder, write_json
from electra.interop.tfrecord import RecordRows, frame, read_rows, serialise
from electra.packing import Documents, ImportedRows
from electra.store import Store, StoreWriter
from electra.tokenizer import Vocabulary, load_tokenizer

_WRITE_ROWS = 1024  # laid out at once
_WRITE_BYTES = 1 << 26  # kept for all shards together: a thousand files need not be open at the same time
_ROWS_PER_SHARD = 1000
_MAX_SHARDS = 1000  # as many as Google's builder always makes


# ---------------------------------------------------------------------------------------------- TFRecords -> store


def import_records(
    files: list[Path], config: BuildConfig, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    """Write the rows of TFRecord files as a store from which `packing.ImportedRows` makes the identical rows.

    summary["build"]: files, rows, seq_len, padding_share, megabytes, seconds, mb_per_second, unknown_share. Warns of
    rows that other builders than Google's make: without [SEP] at their end, or with specials within their text.
    Raises what `tfrecord.read_rows` and `to_documents` raise, and ValueError for files whose rows differ in
    length and for files without rows.
    """
    started = time.perf_counter()
    with atomic_folder(Path(config.out), config.overwrite) as folder:
        vocabulary = load_tokenizer(config.vocab, config.lowercase, config.strip_accents)
        sizes = [file.stat().st_size for file in files]
        sources = [{"path": str(file), "bytes": size} for file, size in zip(files, sizes, strict=True)]
        writer = StoreWriter(
            folder, vocabulary, held_out=config.held_out, seed=config.seed, sources=sources, options={}
        )
        rows = seq_len = done = unknown = without_end = with_specials = 0
        for file, size in zip(files, sizes, strict=True):
            for block in read_rows(file):
                length = block.input_ids.shape[1]
                seq_len = seq_len or length
                if length != seq_len:
                    raise ValueError(
                        f"{file} holds rows of {length} tokens but {files[0]} rows of {seq_len}: build a store of each"
                    )
                part = to_documents(block, file, vocabulary)
                writer.add(part.tokens, part.line_lengths, part.document_lengths)
                rows += len(part.document_lengths)
                unknown += int(np.count_nonzero(part.tokens == vocabulary.special.unk))
                without_end += part.without_end
                with_specials += part.with_specials
                if progress is not None:
                    progress(done + block.disk_bytes, sum(sizes))
            done += size
        if rows == 0:
            raise ValueError(f"{files[0]} holds no records{f', nor do {len(files) - 1} more files' * (len(files) > 1)}")
        writer.options["imported_seq_len"] = seq_len
        summary = writer.close()
    if without_end:
        warnings.warn(
            f"{without_end:,} of {rows:,} rows end without [SEP], cut off by their builder: "
            "the last token of each gives way to one",
            stacklevel=3,
        )
    if with_specials:
        warnings.warn(
            f"{with_specials:,} of {rows:,} rows hold [CLS] or [SEP] within a segment, where they stay "
            "(AWS's builder marks no segments)",
            stacklevel=3,
        )
    seconds = time.perf_counter() - started
    specials = rows + summary["lines"]
    return summary | {
        "build": {
            "files": len(files),
            "rows": rows,
            "seq_len": seq_len,
            "padding_share": 1 - (summary["tokens"] + specials) / (rows * seq_len),
            "megabytes": sum(sizes) / 1e6,
            "seconds": seconds,
            "mb_per_second": sum(sizes) / 1e6 / seconds,
            "unknown_share": unknown / summary["tokens"],
        }
    }


@dataclass(frozen=True)
class RowText:
    """Rows without their special tokens, as `StoreWriter.add` takes them."""

    tokens: np.ndarray  # (T,)
    line_lengths: np.ndarray  # (N,) one line for A, one for B
    document_lengths: np.ndarray  # (R,) 1 or 2 lines
    without_end: int
    """Rows cut by their builder so that no [SEP] ends them; loaded back, their last token is one."""
    with_specials: int
    """Rows with a [CLS] or [SEP] inside of A or B."""


def to_documents(rows: RecordRows, path: Path, vocabulary: Vocabulary) -> RowText:
    """Take rows apart; `path` names them in messages.

    Raises ValueError with the number of the record for an id outside of the vocabulary, and for a row that is not
    [CLS] A [SEP] or [CLS] A [SEP] B [SEP], padded, so that it could not be loaded back.
    """
    ids, special = rows.input_ids, vocabulary.special
    count, length = ids.shape
    place, row = np.arange(length), np.arange(count)

    def refuse(wrong: np.ndarray, reason: str) -> None:
        """Raise for the first row of which something is wrong: (R,) or (R, L) bool."""
        if wrong.any():
            bad = int(np.flatnonzero(wrong.reshape(count, -1).any(axis=1))[0])
            raise ValueError(f"{path}: record {rows.first + bad} {reason.format(id=ids[bad, np.argmax(wrong[bad])])}")

    outside = (ids < 0) | (ids >= vocabulary.size)
    refuse(
        outside,
        f"has the id {{id}}, but the vocabulary has only {vocabulary.size:,} entries: "
        "give the vocabulary that the records were made with",
    )
    total = np.minimum(rows.input_mask.sum(axis=1, dtype=np.int64), length)
    first = total - rows.segment_ids.sum(axis=1, dtype=np.int64)  # [CLS] A [SEP]
    valid = place < total[:, None]
    second = valid & (place >= first[:, None])
    refuse((rows.input_mask != valid) | (rows.segment_ids != second), "has a mask or segments of another kind of data")
    paired = total > first
    refuse((first < 3) | (paired & (total < first + 2)), "holds no text in one of its segments")
    # Not the end of the last segment: a builder that cuts rows (AWS's) may have cut it off.
    begins = (ids[:, 0] == special.cls) & (~paired | (ids[row, first - 1] == special.sep))
    without_end = ids[row, total - 1] != special.sep
    refuse(
        ~begins | (without_end & (total < length)),
        f"is not [CLS] A [SEP] B [SEP] ([CLS] is {special.cls}, [SEP] {special.sep}; it begins with {{id}}): "
        "give the vocabulary that the records were made with",
    )
    # Builders pad with 0, whatever [PAD] is.
    refuse(~valid & (ids != 0) & (ids != special.pad), "has the id {id} where its input_mask says padding")

    text = valid
    text[:, 0] = text[row, first - 1] = text[row, total - 1] = False
    lines = np.stack([first - 2, total - first - 1], axis=1)
    inside = text & ((ids == special.cls) | (ids == special.sep))
    return RowText(
        ids[text],
        lines[lines > 0],
        1 + paired.astype(np.int64),
        int(without_end.sum()),
        int(inside.any(axis=1).sum()),
    )


# ---------------------------------------------------------------------------------------------- store -> TFRecords


def export_records(
    store: Store, out: Path, seq_len: int, *, shards: int = 0, seed: int = 0, overwrite: bool = False
) -> dict[str, Any]:
    """Write the training documents of a store as `out`/pretrain_data.tfrecord-0-of-N ... and a receipt, records.json.

    The rows are those of Google's ExampleBuilder with random.seed(seed), record i in shard i mod N, the bytes those
    of its SerializeToString; or, from a store imported from TFRecords, the rows as they were. `shards` 0: one for a
    thousand rows or so, at most 1000. Returns the receipt. Raises ValueError if `out` is not empty, unless
    `overwrite`, for a store without training documents, and for imported rows of another length than `seq_len`.
    """
    if shards < 0:
        raise ValueError("--shards must not be negative")
    config = RowsConfig(seq_len=seq_len, packing="google" if store.imported_seq_len is None else "rows")
    documents = Documents(store, held_out=False)
    shards = shards or min(_MAX_SHARDS, 1 + int(documents.lengths.sum()) // (seq_len * _ROWS_PER_SHARD))
    with atomic_folder(out, overwrite) as folder:
        paths = [folder / f"pretrain_data.tfrecord-{number}-of-{shards}" for number in range(shards)]
        for path in paths:
            path.touch()
        waiting: list[list[bytes]] = [[] for _ in paths]
        count = size = 0
        for records in _records(store, documents, config, seed):
            for record in records:
                waiting[count % shards].append(frame(record))
                count += 1
                size += len(record)
            if size >= _WRITE_BYTES:
                _append(paths, waiting)
                size = 0
        _append(paths, waiting)
        held_out = len(store.document_ids(held_out=True))
        receipt = {
            "rows": count,
            "seq_len": seq_len,
            "shards": shards,
            "seed": seed,
            "documents": len(documents.lengths),
            "held_out_documents_left_out": held_out,
            "vocabulary": store.summary["vocabulary"],
        }
        write_json(folder / "records.json", receipt)
    return receipt


def _append(paths: list[Path], waiting: list[list[bytes]]) -> None:
    for path, parts in zip(paths, waiting, strict=True):
        with open(path, "ab") as file:
            file.writelines(parts)
        parts.clear()


def _records(store: Store, documents: Documents, config: RowsConfig, seed: int) -> Iterator[list[bytes]]:
    """The rows as serialised examples, about a thousand at a time."""
    if config.packing == "rows":
        imported = ImportedRows(store, documents, config, seed)
        for start in range(0, imported.rows_per_epoch, _WRITE_ROWS):
            batch = imported.in_order(start, min(start + _WRITE_ROWS, imported.rows_per_epoch))
            yield serialise(batch.input_ids * batch.valid, batch.valid, batch.segment_ids)
        return
    examples = google_rows(store, documents, config, random.Random(seed))
    place = np.arange(config.seq_len)
    while group := list(itertools.islice(examples, _WRITE_ROWS)):
        ids = np.zeros((len(group), config.seq_len), np.int64)
        for row, (tokens, _) in zip(ids, group, strict=True):
            row[: len(tokens)] = tokens
        valid = place < np.array([[len(tokens)] for tokens, _ in group])
        yield serialise(ids, valid, valid & (place >= np.array([[first] for _, first in group])))
