"""Files -> bytes, about 1 MB at a time, decompressed."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
READ_BYTES = 1 << 20
DAMAGES = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
"""What `decompress` raises for damaged or truncated files; bz2 raises a bare OSError."""


def decompress(raw: IO[bytes], compression: str, read_bytes: int = READ_BYTES) -> Iterator[bytes]:
    """The bytes of an open file whose name ends in `compression` ("" for none); raises one of DAMAGES."""
    if compression == ".zst":
        yield from _decompress_zstd(raw, read_bytes)
        return
    openers: dict[str, Callable[[IO[bytes]], Any]] = {
        "": contextlib.nullcontext,
        ".gz": gzip.open,
        ".xz": lzma.open,
        ".bz2": bz2.open,
    }
    with openers[compression](raw) as file:
        while block := _read(file, read_bytes):
            yield block


def _read(file: IO[bytes], size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        if error.errno is None:  # bz2's word for bytes that it did not write; a disk's errors have a number
            raise EOFError(str(error)) from None
        raise


def _decompress_zstd(raw: IO[bytes], read_bytes: int) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise ValueError(f"{raw.name}: reading .zst needs zstandard: pip install 'electra-toolkit[zstd]'") from None
    # Not zstandard's stream_reader: it takes the end of a truncated file for the end of the text.
    frame = zstandard.ZstdDecompressor().decompressobj()
    fresh = True
    while chunk := raw.read(max(1, read_bytes >> 3)):
        while chunk:
            try:
                block, fresh = frame.decompress(chunk), False
            except zstandard.ZstdError as error:
                raise EOFError(str(error)) from None
            if block:
                yield block
            chunk = b""
            if frame.eof:
                chunk, fresh = frame.unused_data, True
                frame = zstandard.ZstdDecompressor().decompressobj()
    if not fresh:
        raise EOFError("the last frame has no end")


class BlockFile(io.RawIOBase):
    """Blocks of bytes as a file that can be read once, from the beginning to the end."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
