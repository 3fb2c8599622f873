"""A writer of TensorFlow V2 checkpoints, just enough to make fixtures; what it writes TensorFlow reads too."""

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np

NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def write_bundle(
    prefix: Path, tensors: dict[str, np.ndarray], shards: int = 1, block_size: int = 4096, compression: int = 0
) -> Path:
    """Write PREFIX.index and its shards; the tensors go round the shards in turn. Returns the prefix."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    data = [bytearray() for _ in range(shards)]
    entries = {b"": field(1, shards) + field(3, field(1, 1))}
    for turn, name in enumerate(sorted(tensors)):
        array = np.asarray(tensors[name])
        raw, shard = array.tobytes(), turn % shards
        dims = b"".join(field(2, field(1, size)) for size in array.shape)
        numbers = [(1, NUMBERS[array.dtype.name]), (2, dims), (3, shard), (4, len(data[shard])), (5, len(raw))]
        crc = varint(6 << 3 | 5) + struct.pack("<I", mask(google_crc32c.value(raw)))
        entries[name.encode()] = b"".join(field(number, value) for number, value in numbers) + crc
        data[shard] += raw
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    Path(f"{prefix}.index").write_bytes(table(entries, block_size, compression))
    return prefix


def table(entries: dict[bytes, bytes], block_size: int = 4096, compression: int = 0) -> bytes:
    """A LevelDB table with prefix-compressed keys."""
    out = bytearray()
    index: dict[bytes, bytes] = {}
    for content, last in blocks(entries, block_size):
        index[last] = append(out, content, compression)
    empty = append(out, next(blocks({}, block_size))[0], 0)
    footer = empty + append(out, next(blocks(index, 1 << 30))[0], 0)
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def blocks(entries: dict[bytes, bytes], block_size: int) -> Iterator[tuple[bytes, bytes]]:
    """(block, its last key) with a restart point at each 16th entry."""
    content, restarts, count, last = bytearray(), [0], 0, b""
    for key, value in entries.items():
        if len(content) >= block_size:
            yield bytes(content) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts)), last
            content, restarts, count, last = bytearray(), [0], 0, b""
        shared = 0
        if count and count % 16 == 0:
            restarts.append(len(content))
        elif count:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        count, last = count + 1, key
    yield bytes(content) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts)), last


def append(out: bytearray, content: bytes, compression: int) -> bytes:
    """Add a block with its trailer; returns its handle."""
    handle = varint(len(out)) + varint(len(content))
    block = content + bytes([compression])
    out += block + struct.pack("<I", mask(google_crc32c.value(block)))
    return handle


def mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
