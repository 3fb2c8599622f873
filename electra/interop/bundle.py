"""Reader of TensorFlow V2 checkpoints ("bundles") without TensorFlow.

    PREFIX.index                  a table from variable name to dtype, shape, shard, offset, size and checksum
    PREFIX.data-00000-of-00002    the values, one after another, as the index says

The index is a LevelDB table (tensorflow/core/lib/io/table_format.txt): a footer points to an index block, whose
entries point to data blocks; keys are stored as (shared with the last one, rest), and each block ends in one byte of
compression and a masked CRC32C. Values are protocol buffers of tensor_bundle.proto, whose few fields are decoded here
by hand. Tensors are read one at a time into memory of their own, so that reading a checkpoint costs what is kept of it:
a memory map would stay resident beside the copies.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # the one key of TF2's object checkpoints that is no variable

FOOTER_SIZE = 48
TABLE_MAGIC = 0xDB4775248B80FB57
BLOCK_TRAILER = struct.Struct("<BI")  # compression, masked CRC32C of block and compression byte

# tensorflow/core/framework/types.proto; bfloat16 is read as its bits and widened, strings apart
DTYPES: dict[int, Any] = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "<u1",
    5: "<i2",
    6: "<i1",
    9: "<i8",
    10: "?",
    14: "<u2",
    17: "<u2",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}
STRING, BFLOAT16, HALF = 7, 14, 19


@dataclass(frozen=True)
class _Entry:
    """BundleEntryProto: where one tensor lies."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int  # masked CRC32C
    slices: int  # parts of a partitioned variable, which lie under other keys


class Bundle:
    """The tensors of one checkpoint, by name.

    `prefix` is the path without ".index". ValueError in a sentence for whatever is missing or damaged; the values
    themselves are checked when they are read.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = Path(prefix)
        self.index = Path(f"{self.prefix}.index")
        try:
            data = self.index.read_bytes()
        except OSError:
            raise ValueError(f"{self.index} does not exist: give the prefix of a TensorFlow checkpoint") from None
        table = dict(_read_table(data, self.index))
        try:
            header = _fields_by_number(table.pop(b""))
            entries = {key: _parse_entry(value) for key, value in table.items()}
            self._entries = {key.decode(): entry for key, entry in entries.items() if not key.startswith(b"\0")}
        except (KeyError, ValueError, TypeError, struct.error):
            raise ValueError(f"{self.index} is a table but not the index of a TensorFlow checkpoint") from None
        if header.get(2, 0) != 0:
            raise ValueError(f"{self.index} was written on a big-endian machine, which is not supported")
        self._shards = self._find_shards(header.get(1, 1))

    @classmethod
    def find(cls, path: Path) -> Bundle:
        """The checkpoint that `path` means: a prefix, one of its files, or a folder of them.

        In a folder the file `checkpoint` names the latest one; without it there must be one .index only.
        """
        path = Path(path)
        if path.is_dir():
            return cls(_latest(path))
        if match := re.fullmatch(r"(.+)\.(index|meta|data-\d{5}-of-\d{5})", path.name):
            return cls(path.with_name(match[1]))
        return cls(path)

    def names(self) -> list[str]:
        """The names of all tensors, sorted; the object graph of a TF2 checkpoint is not one."""
        return sorted(name for name in self._entries if name != OBJECT_GRAPH)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entry(name).shape

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """A tensor in memory of its own, its checksum verified.

        float16 and bfloat16 are widened to float32; strings come as an array of `bytes` objects.
        """
        entry = self._entry(name)
        if entry.slices:
            raise ValueError(
                f"{self.prefix}: {name} is stored in {entry.slices} parts (a partitioned variable), which is not "
                "supported; save it again without a partitioner"
            )
        if entry.dtype == STRING:
            raw = self._raw(entry, np.dtype("u1")).tobytes()
            try:
                strings, checksum = _split_strings(raw, math.prod(entry.shape))
            except (IndexError, struct.error):
                raise self._wrong_data(name, entry) from None
            if mask_crc(checksum) != entry.crc:
                raise self._wrong_data(name, entry)
            array = np.empty(len(strings), dtype=object)
            array[:] = strings
            return array.reshape(entry.shape)
        if entry.dtype not in DTYPES:
            raise ValueError(
                f"{self.prefix}: {name} has dtype number {entry.dtype} of TensorFlow, which is unknown here"
            )
        dtype = np.dtype(DTYPES[entry.dtype])
        if entry.size != math.prod(entry.shape) * dtype.itemsize:
            raise ValueError(f"{self.index} is damaged: {name} of shape {entry.shape} cannot take {entry.size} bytes")
        array = self._raw(entry, dtype)
        if mask_crc(google_crc32c.value(array)) != entry.crc:
            raise self._wrong_data(name, entry)
        if entry.dtype == BFLOAT16:
            array = (array.astype("<u4") << 16).view("<f4")
        elif entry.dtype == HALF:
            array = array.astype("<f4")
        return array.reshape(entry.shape)

    def object_graph(self) -> bytes | None:
        """The serialized TrackableObjectGraph of a TF2 object checkpoint; None for a checkpoint by names (TF1)."""
        return bytes(self.read(OBJECT_GRAPH).item()) if OBJECT_GRAPH in self._entries else None

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise ValueError(f"{self.prefix} has no variable {name}")
        return self._entries[name]

    def _raw(self, entry: _Entry, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        return np.fromfile(self._shards[entry.shard], dtype, entry.size // dtype.itemsize, offset=entry.offset)

    def _find_shards(self, count: int) -> list[Path]:
        shards = [Path(f"{self.prefix}.data-{shard:05d}-of-{count:05d}") for shard in range(count)]
        needed = [0] * count
        for name, entry in self._entries.items():
            if not 0 <= entry.shard < count:
                raise ValueError(f"{self.index} is damaged: {name} is said to lie in shard {entry.shard} of {count}")
            needed[entry.shard] = max(needed[entry.shard], entry.offset + entry.size)
        for shard, size in zip(shards, needed, strict=True):
            if not shard.is_file():
                raise ValueError(f"{shard} is missing: a checkpoint is its .index and all its .data files")
            if shard.stat().st_size < size:
                raise ValueError(
                    f"{shard} has {shard.stat().st_size:,} bytes where the index wants {size:,}: it is cut off or "
                    "belongs to another checkpoint; copy both files again"
                )
        return shards

    def _wrong_data(self, name: str, entry: _Entry) -> ValueError:
        return ValueError(
            f"{self._shards[entry.shard]}: the checksum of {name} is wrong, so the file is damaged or belongs to "
            "another checkpoint; copy it again together with its .index"
        )


def wire_fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a serialized protocol buffer in order: (field number, int for numbers, bytes for the rest).

    Numbers come unsigned: an int64 below zero is 2**64 too large. ValueError if the bytes are no message.
    """
    position = 0
    while position < len(message):
        try:
            tag, position = read_varint(message, position)
            kind = tag & 7
            if kind == 0:
                value, position = read_varint(message, position)
                yield tag >> 3, value
                continue
            size = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                size, position = read_varint(message, position)
        except IndexError:
            raise ValueError("no protocol buffer: a number in it has no end") from None
        field = message[position : position + size]
        if kind not in (1, 2, 5) or len(field) < size:
            raise ValueError("no protocol buffer: a field in it is cut off or of an unknown kind")
        yield tag >> 3, field if kind == 2 else int.from_bytes(field, "little")
        position += size


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """A base-128 number and the position behind it; IndexError where the data end before it does."""
    value = shift = 0
    while data[position] >= 0x80:
        value |= (data[position] & 0x7F) << shift
        shift += 7
        position += 1
    return value | data[position] << shift, position + 1


def _fields_by_number(message: bytes) -> dict[int, Any]:
    return dict(wire_fields(message))


def _parse_entry(message: bytes) -> _Entry:
    dims: list[int] = []
    slices = 0
    values: dict[int, int] = {}
    for number, value in wire_fields(message):
        if number == 2:  # TensorShapeProto: repeated dim (2) of size (1)
            dims = [_fields_by_number(dim).get(1, 0) for field, dim in wire_fields(value) if field == 2]
        elif number == 7:
            slices += 1
        else:
            values[number] = value
    return _Entry(
        dtype=values.get(1, 0),
        shape=tuple(dims),
        shard=values.get(3, 0),
        offset=values.get(4, 0),
        size=values.get(5, 0),
        crc=values.get(6, 0),
        slices=slices,
    )


def _read_table(data: bytes, source: Path) -> Iterator[tuple[bytes, bytes]]:
    """All (key, value) of a LevelDB table."""
    if len(data) < FOOTER_SIZE or int.from_bytes(data[-8:], "little") != TABLE_MAGIC:
        raise ValueError(
            f"{source} does not end like the index of a TensorFlow checkpoint: it is cut off, or another kind of file"
        )
    footer = data[-FOOTER_SIZE:]
    try:
        position = _read_handle(footer, 0)[1]  # the meta index, which TensorFlow leaves empty
        handle, _ = _read_handle(footer, position)
        for _, value in _block_entries(_block(data, handle, source)):
            yield from _block_entries(_block(data, _read_handle(value, 0)[0], source))
    except (IndexError, struct.error):
        raise ValueError(f"{source} is damaged: a block of it does not parse; copy it again") from None


def _read_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """BlockHandle: ((offset, size), position behind it)."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _block(data: bytes, handle: tuple[int, int], source: Path) -> bytes:
    offset, size = handle
    block = data[offset : offset + size]
    compression, checksum = BLOCK_TRAILER.unpack_from(data, offset + size)
    if mask_crc(google_crc32c.value(data[offset : offset + size + 1])) != checksum:
        raise ValueError(f"{source} is damaged: the checksum of its block at byte {offset} is wrong; copy it again")
    if compression:
        raise ValueError(f"{source} is compressed (snappy), which no TensorFlow checkpoint is; save it again")
    return block


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block; its restart points, which serve binary search, are skipped."""
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 * (restarts + 1)
    key, position = b"", 0
    while position < end:
        shared, position = read_varint(block, position)
        unshared, position = read_varint(block, position)
        length, position = read_varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _split_strings(raw: bytes, count: int) -> tuple[list[bytes], int]:
    """The strings of a string tensor and the CRC32C that its entry has.

    On disk: lengths as varints, masked CRC of the lengths, all bytes. The checksum takes the lengths as uint32
    (uint64 where they need it), as tensor_bundle.cc does.
    """
    lengths, position, checksum = [], 0, 0
    for _ in range(count):
        length, position = read_varint(raw, position)
        lengths.append(length)
        checksum = google_crc32c.extend(checksum, struct.pack("<I" if length < 2**32 else "<Q", length))
    checksum = google_crc32c.extend(checksum, raw[position:])  # the four bytes of the lengths' checksum, the strings
    position += 4
    strings = []
    for length in lengths:
        strings.append(raw[position : position + length])
        position += length
    if position != len(raw):
        raise IndexError
    return strings, checksum


def mask_crc(crc: int) -> int:
    """LevelDB's masked form of a CRC: a CRC of data that holds CRCs would be weak."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _latest(folder: Path) -> Path:
    """The prefix of the newest checkpoint in a folder."""
    state = folder / "checkpoint"
    if state.is_file():
        match = re.search(r'^model_checkpoint_path: "(.+)"', state.read_text(encoding="utf-8", errors="replace"), re.M)
        if match is None:
            raise ValueError(f"{state} names no model_checkpoint_path: give the prefix of the checkpoint instead")
        return folder / Path(match[1]).name  # absolute paths in it are those of the machine that wrote it
    prefixes = sorted(folder.glob("*.index"))
    if not prefixes:
        raise ValueError(f"{folder} holds no TensorFlow checkpoint: it has no .index file")
    if len(prefixes) > 1:
        names = ", ".join(prefix.stem for prefix in prefixes)
        raise ValueError(f"{folder} holds several checkpoints ({names}) and no file `checkpoint`: name one of them")
    return prefixes[0].with_suffix("")
