"""TFRecords of ELECTRA's pre-training rows, read and written without TensorFlow.

Google's and NVIDIA's builders (build_pretraining_dataset.py) write one row [CLS] A [SEP] B [SEP] a record, a
tf.train.Example of three lists of integers, all of the row's fixed length: input_ids, input_mask (1 up to the last
[SEP]), segment_ids (1 for B [SEP]). AWS's builder calls the last two attention_mask and token_type_ids. How the pieces
nest:

    find_records  names -> files
    read_records  a file -> records, their checksums compared;  read_rows: -> arrays (R, L)
    serialise     arrays -> records, in the builders' own bytes;  frame: a record -> a piece of a file

What becomes of the rows is record_store.py's matter.

On the disk (tensorflow/core/lib/io/record_writer.h, tensorflow/core/example/example.proto):

    file     (length uint64 | masked crc32c of it | record | masked crc32c of it)*     little-endian
    record   Example { features = 1 { feature = 1 { key = 1, value = 2 { int64_list = 3 { value = 1 } } }* } }

Letters: R rows, L tokens in a row.
"""

from __future__ import annotations

import glob
import gzip
import itertools
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from electra.config.location import is_url

_NAME = re.compile(r"\.tfrecords?(-\d+-of-\d+)?(\.gz)?$", re.IGNORECASE)
_NAMES = {  # of each array: Google's and NVIDIA's, then AWS's
    "input_ids": ("input_ids",),
    "input_mask": ("input_mask", "attention_mask"),
    "segment_ids": ("segment_ids", "token_type_ids"),
}
_GZIP = b"\x1f\x8b\x08"
_READ_BYTES = 1 << 22


@dataclass(frozen=True)
class RecordRows:
    """R consecutive rows of one file."""

    input_ids: np.ndarray  # (R, L) int64, unchecked
    input_mask: np.ndarray  # (R, L) of any integer type
    segment_ids: np.ndarray  # (R, L) of any integer type
    first: int  # number of the first of them in its file, from 1
    disk_bytes: int  # of the file read so far, before decompression


# ------------------------------------------------------------------------------------------------ which files


def find_records(names: Sequence[str]) -> list[Path]:
    """The TFRecord files that files, folders (searched recursively) and globs stand for; none if there is only text.

    A TFRecord file is one named like x.tfrecord, x.tfrecords or x.tfrecord-3-of-1000, also with .gz. Shards come in
    the order of their numbers. Raises ValueError if some names stand for TFRecords and others for something else.
    """
    found: dict[Path, Path] = {}
    others: list[Path] = []
    for name in names:
        if is_url(name):
            if _NAME.search(name):
                raise ValueError(f"{name}: TFRecords are read from a disk: copy them to this machine first")
            continue
        path = Path(name).expanduser()
        matches = [path] if path.exists() else list(map(Path, glob.glob(str(path), recursive=True)))
        if not matches and _NAME.search(name):
            raise ValueError(f"corpus {name!r} matches no file or folder: check the name")
        files = [file for match in matches for file in (match.rglob("*") if match.is_dir() else [match])]
        files = [file for file in files if file.is_file() and not file.name.startswith(".")]
        found |= {file.resolve(): file for file in sorted(files, key=_natural) if _NAME.search(file.name)}
        others += [file for file in files if file == path or file.suffix in (".txt", ".jsonl", ".parquet")]
    others = [file for file in others if not _NAME.search(file.name)]
    if found and others:
        record = next(iter(found.values()))
        raise ValueError(f"{record} is a TFRecord but {others[0]} is not: name files of one kind, a store for each")
    return list(found.values())


def _natural(path: Path) -> list[tuple[int, str]]:
    """A sort key in which shard 2 comes before shard 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


# ---------------------------------------------------------------------------------------------------- reading


def read_records(path: Path) -> Iterator[tuple[list[bytes], int]]:
    """Blocks of records of a file, plain or gzip, and the bytes of the file read so far.

    Memory is bounded by some megabytes and one record. Raises ValueError, with the file and the number (from 1) and
    offset of the record, for a wrong checksum, a file that ends within a record, and one that is no TFRecord.
    """
    with open(path, "rb") as raw:
        compressed = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if compressed else raw
        number, offset, rest = 1, 0, b""
        lengths: dict[bytes, int] = {}  # headers seen, so that the checksum of each length is computed once
        while chunk := _read(stream, path):
            data = rest + chunk
            records, place = [], 0
            while place + 12 <= len(data):
                header = data[place : place + 12]
                if header not in lengths:
                    if _checksum(header[:8]) != header[8:]:
                        if number == 1:
                            raise ValueError(f"{path} is not a TFRecord file (its first 12 bytes are no record header)")
                        raise ValueError(_damaged(path, number, offset + place))
                    lengths[header] = int.from_bytes(header[:8], "little")
                begin = place + 12
                end = begin + lengths[header]
                if end + 4 > len(data):
                    break
                record = data[begin:end]
                if _checksum(record) != data[end : end + 4]:
                    raise ValueError(_damaged(path, number, offset + place))
                records.append(record)
                number += 1
                place = end + 4
            offset += place
            rest = data[place:]
            if records:
                yield records, raw.tell()
    if rest:
        raise ValueError(f"{path} ends within record {number} (at byte {offset:,}): copy it again, or leave it out")


def _read(stream: Any, path: Path) -> bytes:
    try:
        data: bytes = stream.read(_READ_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}): copy it again, or leave it out") from None
    return data


def _damaged(path: Path, number: int, offset: int) -> str:
    return f"{path}: record {number} (at byte {offset:,}) has a wrong checksum: copy the file again, or leave it out"


def _checksum(data: bytes) -> bytes:
    """The masked crc32c of a record (tensorflow/core/lib/hash/crc32c.h), as it stands in the file."""
    crc = google_crc32c.value(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def read_rows(path: Path) -> Iterator[RecordRows]:
    """The rows of a file as arrays, some megabytes at a time.

    Raises ValueError, with the file and the number of the record, for what `read_records` names, a record that is no
    tf.train.Example or lacks one of the three lists, and lists that are not all of one length.
    """
    layouts: dict[int, _Layout] = {}
    length, number = 0, 1
    for records, disk_bytes in read_records(path):
        lists: tuple[list[bytes], ...] = ([], [], [])
        for place, record in enumerate(records):
            layout = layouts.get(len(record))
            if layout is None or not layout.fits(record):
                try:
                    layout = _parse(record)
                except (IndexError, UnicodeDecodeError, _Malformed) as error:
                    reason = str(error) if isinstance(error, _Malformed) else "it is no tf.train.Example"
                    raise ValueError(f"{path}: record {number + place} is not a pre-training row: {reason}") from None
                if layout.packed:
                    layouts[len(record)] = layout
            for into, spans in zip(lists, layout.spans, strict=True):
                into.append(record[spans[0]] if layout.packed else b"".join([record[span] for span in spans]))
        arrays = []
        for name, parts in zip(_NAMES, lists, strict=True):
            values, counts = _decode_varints(parts)
            length = length or max(1, int(counts[0]))
            if len(wrong := np.flatnonzero(counts != length)):
                raise ValueError(
                    f"{path}: record {number + int(wrong[0])} has {counts[wrong[0]]} {name} where the file's first "
                    f"has {length} input_ids: all rows of a pre-training file have one length"
                )
            arrays.append(values.reshape(len(records), length))
        yield RecordRows(arrays[0].astype(np.int64), arrays[1], arrays[2], number, disk_bytes)
        number += len(records)


# --------------------------------------------------------------------------------------------- protocol buffers


class _Malformed(Exception):
    """Why a record cannot be read."""


@dataclass(frozen=True)
class _Layout:
    """Where the three lists stand in a record.

    If the lists are packed, the bytes around them decide that alone: another record of this length with the same bytes
    around them has the same layout, so that parsing is a comparison for nearly all records of a file.
    """

    spans: list[list[slice]]
    """For each list, in the order of _NAMES, the bytes that hold its varints."""
    around: list[tuple[slice, bytes]]
    """All other bytes: where, and what."""
    packed: bool
    """Each list is one run of varints; else every varint, or every few, is a field of its own."""

    def fits(self, record: bytes) -> bool:
        for span, content in self.around:  # noqa: SIM110 (`all` takes twice the time)
            if record[span] != content:
                return False
        return True


def _parse(record: bytes) -> _Layout:
    found: dict[str, list[tuple[int, int]]] = {}
    for features in _fields(record, 0, len(record), 1):
        for feature in _fields(record, *features, 1):
            for key in _fields(record, *feature, 1):
                spans = [
                    values
                    for value in _fields(record, *feature, 2)
                    for integers in _fields(record, *value, 3)
                    for values in _fields(record, *integers, 1)
                ]
                found[record[slice(*key)].decode()] = spans
    if "masked_lm_positions" in found:
        raise _Malformed("it is a masked row of BERT's builder, whose text is lost under its masks")
    chosen = []
    for names in _NAMES.values():
        present = [name for name in names if found.get(name)]
        if not present:
            has = ", ".join(sorted(found)) or "none"
            raise _Malformed(f"it has no integers called {' or '.join(names)} (its features: {has})")
        chosen.append(found[present[0]])
    around, place = [], 0
    for begin, end in [*sorted(span for spans in chosen for span in spans), (len(record), len(record))]:
        around.append((slice(place, begin), record[place:begin]))
        place = end
    packed = all(len(spans) == 1 for spans in chosen)
    return _Layout([[slice(*span) for span in spans] for spans in chosen], around, packed)


def _fields(record: bytes, begin: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Where the fields number `wanted` of the message at begin .. end stand: contents, or the varints themselves."""
    while begin < end:
        tag, begin = _varint(record, begin)
        start = begin
        if tag & 7 == 0:
            _, begin = _varint(record, begin)
        elif tag & 7 == 2:
            size, start = _varint(record, begin)
            begin = start + size
        elif tag & 7 in (1, 5):
            begin += 8 if tag & 7 == 1 else 4
        else:
            raise _Malformed("it is no tf.train.Example")
        if begin > end:
            raise _Malformed("it is no tf.train.Example")
        if tag >> 3 == wanted:
            yield start, begin


def _varint(record: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = record[place]
        value |= (byte & 127) << shift
        place += 1
        if byte < 128:
            return value, place
        shift += 7


def _decode_varints(parts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The integers of R byte strings: all values, uint8 or int64, and (R,) how many there are in each.

    A string that ends within an integer counts as having none.
    """
    data = np.frombuffer(b"".join(parts), np.uint8)
    stops = np.fromiter(map(len, parts), np.int64, len(parts)).cumsum()
    last = data < 128
    if last.all():
        return data, np.diff(stops, prepend=0)
    ends = np.flatnonzero(last)
    counts = np.diff(np.searchsorted(ends, stops), prepend=0)
    whole = last[stops - 1]
    if not whole.all():
        return data[:0], counts * whole
    starts = np.concatenate([[0], ends[:-1] + 1])
    widths = ends - starts + 1
    values = (data[starts] & 127).astype(np.int64)
    for more in range(1, min(10, int(widths.max()))):
        long = np.flatnonzero(widths > more)
        values[long] |= (data[starts[long] + more] & 127).astype(np.int64) << 7 * more
    return values, counts


# ---------------------------------------------------------------------------------------------------- writing


def frame(record: bytes) -> bytes:
    """A record as it stands in a file: its length and checksums around it."""
    header = struct.pack("<Q", len(record))
    return b"".join((header, _checksum(header), record, _checksum(record)))


def serialise(ids: np.ndarray, mask: np.ndarray, segments: np.ndarray) -> list[bytes]:
    """Rows (R, L) of integers >= 0 or bool as R tf.train.Example's.

    The three features stand in the order in which TensorFlow's SerializeToString writes them.
    """
    arrays = {"input_mask": mask, "input_ids": ids, "segment_ids": segments}
    encoded = [_encode_varints(array.astype(np.int64)) for array in arrays.values()]
    keys = [_message(1, name.encode()) for name in arrays]
    return [
        _message(
            1,
            b"".join(
                _message(1, key + _message(2, _message(3, _message(1, values))))
                for key, values in zip(keys, lists, strict=True)
            ),
        )
        for lists in zip(*encoded, strict=True)
    ]


def _encode_varints(values: np.ndarray) -> list[bytes]:
    """Each row of (R, L) integers >= 0 as varints."""
    widths = np.ones(values.shape, np.int64)
    for more in range(1, 5):
        widths += values >= 1 << 7 * more
    place = np.arange(int(widths.max()))
    septets = ((values[..., None] >> 7 * place) & 127).astype(np.uint8)
    septets[place < widths[..., None] - 1] |= 128
    data = septets[place < widths[..., None]].tobytes()
    stops = widths.sum(axis=1).cumsum().tolist()
    return [data[begin:end] for begin, end in itertools.pairwise([0, *stops])]


def _message(field: int, content: bytes) -> bytes:
    """A field that holds a message or bytes."""
    size = len(content)
    head = bytearray([field << 3 | 2])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + content
