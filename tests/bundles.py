"""Writers of TensorFlow V2 checkpoints, just enough to make fixtures; TensorFlow reads those of `write_bundle`."""

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np

NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def write_bundle(
    prefix: Path, tensors: dict[str, np.ndarray], shards: int = 1, block_size: int = 4096, compression: int = 0
) -> Path:
    """Write PREFIX.index and its shards; the tensors go round the shards in turn. Returns the prefix.

    An array of one `bytes` object is a string tensor, for which nothing but a scalar is needed here.
    """
    prefix.parent.mkdir(parents=True, exist_ok=True)
    data = [bytearray() for _ in range(shards)]
    entries = {b"": field(1, shards) + field(3, field(1, 1))}
    for turn, name in enumerate(sorted(tensors)):
        array = np.asarray(tensors[name])
        kind, raw, crc32c = encode(array)
        shard = turn % shards
        dims = b"".join(field(2, field(1, size)) for size in array.shape)
        numbers = [(1, kind), (2, dims), (3, shard), (4, len(data[shard])), (5, len(raw))]
        crc = varint(6 << 3 | 5) + struct.pack("<I", mask(crc32c))
        entries[name.encode()] = b"".join(field(number, value) for number, value in numbers) + crc
        data[shard] += raw
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    Path(f"{prefix}.index").write_bytes(table(entries, block_size, compression))
    return prefix


def write_objects(prefix: Path, variables: dict[str, np.ndarray], shared: dict[str, str] | None = None) -> Path:
    """Write an object checkpoint of TensorFlow 2: attribute paths ("model/step") -> values.

    `shared` are further paths to a variable, path -> path.
    """
    children: list[dict[str, int]] = [{}]
    keys: dict[int, str] = {}

    def node(path: str) -> int:
        current = 0
        for attribute in path.split("/"):
            if attribute not in children[current]:
                children.append({})
                children[current][attribute] = len(children) - 1
            current = children[current][attribute]
        return current

    for path in variables:
        keys[node(path)] = f"{path}/.ATTRIBUTES/VARIABLE_VALUE"
    for path, other in (shared or {}).items():
        parent, _, attribute = path.rpartition("/")
        children[node(parent)][attribute] = node(other)
    graph = b""
    for index, attributes in enumerate(children):
        message = b"".join(field(1, field(1, to) + field(2, name.encode())) for name, to in attributes.items())
        if index in keys:
            message += field(2, field(1, b"VARIABLE_VALUE") + field(3, keys[index].encode()))
        graph += field(1, message)
    tensors = {f"{path}/.ATTRIBUTES/VARIABLE_VALUE": value for path, value in variables.items()}
    return write_bundle(prefix, tensors | {"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(graph, object)})


def encode(array: np.ndarray) -> tuple[int, bytes, int]:
    """The number of its type, its bytes, and their CRC32C; a string's takes the length as uint32."""
    if array.dtype != object:
        raw = array.tobytes()
        return NUMBERS[array.dtype.name], raw, google_crc32c.value(raw)
    text = array.item()
    size = struct.pack("<I", len(text))
    tail = struct.pack("<I", mask(google_crc32c.value(size))) + text
    return 7, varint(len(text)) + tail, google_crc32c.extend(google_crc32c.value(size), tail)


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
