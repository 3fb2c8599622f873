"""Text files of any size -> lines, with a mark where a document ends.

How the pieces nest: `find_files` turns the names that a user typed into files; `read_lines` streams one of them,
whatever its format, as stripped lines in which an empty string ends a document. Plain text can also be read in
parts: `cut` gives byte ranges that end at line ends, `read_range` reads one of them, so that many processes can
share a file. Memory is bounded by one line (or one jsonl or parquet record), never by a file or a document.

What a document is follows google-research/electra, build_pretraining_dataset.py: in plain text an empty line or the
end of the file ends it; in jsonl and parquet every record is one, split into lines at its newlines.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import gzip
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

OnError = Literal["fail", "replace", "skip"]

_KINDS = {".txt": "text", ".jsonl": "jsonl", ".parquet": "parquet"}
_COMPRESSIONS = (".gz", ".zst", ".xz")
_ENDINGS = ".txt, .jsonl, .parquet (or .txt.gz and so on, with .gz, .zst, .xz)"
_READ_BYTES = 1 << 20
_HEAD_BYTES = 8192  # where git, too, looks for a NUL byte to tell a binary file from text


@dataclass
class Tally:
    """What reading has met so far; the readers add to it."""

    disk_bytes: int = 0
    """Bytes taken from the disk, that is before decompression."""
    replaced: int = 0
    """Lines (or records) in which broken bytes became U+FFFD."""
    skipped: int = 0
    """Lines (or records) left out for broken bytes."""

    def add(self, other: Tally) -> None:
        self.disk_bytes += other.disk_bytes
        self.replaced += other.replaced
        self.skipped += other.skipped

    def take(self) -> Tally:
        """Everything counted so far, after which counting starts anew."""
        taken = Tally(self.disk_bytes, self.replaced, self.skipped)
        self.disk_bytes = self.replaced = self.skipped = 0
        return taken


# ------------------------------------------------------------------------------------------------ which files


def find_files(corpus: Sequence[str]) -> list[Path]:
    """The files that files, folders (searched recursively) and globs stand for.

    Sorted within each argument; a file that is reached twice is kept once. In folders only known endings count and
    hidden entries do not; a file that is named, or matched by a glob, may have any ending if it holds text.
    Raises ValueError if an argument matches nothing, or a named file is neither of a known format nor text.
    """
    found: dict[Path, Path] = {}
    for argument in corpus:
        path = Path(argument).expanduser()
        # A name that exists is taken literally, even with a [bracket] in it.
        matches = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))
        files = [file for match in matches for file in _expand(match)]
        if not matches:
            raise ValueError(f"corpus {argument!r} matches no file or folder: check the name")
        if not files:
            raise ValueError(f"corpus {argument!r} has no files ending in {_ENDINGS}: name its files instead")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        _check_named(path)
        return [path]
    inside = (file for file in sorted(path.rglob("*")) if file.is_file() and _is_known(file))
    return [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]


def _format(path: Path) -> tuple[str, str]:
    """Kind ("text", "jsonl", "parquet", or "" for an ending that says nothing) and compression (".gz" ... or "")."""
    name = Path(path.name.lower())
    compression = name.suffix if name.suffix in _COMPRESSIONS else ""
    if compression:
        name = name.with_suffix("")
    kind = _KINDS.get(name.suffix, "")
    return ("", "") if kind == "parquet" and compression else (kind, compression)


def _is_known(path: Path) -> bool:
    return _format(path)[0] != ""


def _check_named(path: Path) -> None:
    if _is_known(path):
        return
    head = next(_blocks(path, Tally()), b"")[:_HEAD_BYTES]
    try:
        # The head may end within a character, which an incremental decoder forgives.
        codecs.getincrementaldecoder("utf-8")().decode(head)
        is_text = b"\0" not in head
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise ValueError(f"{path} is neither text nor of a known format ({_ENDINGS})")


# ------------------------------------------------------------------------------------------------------ lines


def read_lines(
    path: Path, *, text_field: str = "text", on_error: OnError = "fail", tally: Tally | None = None
) -> Iterator[str]:
    """Stream the stripped lines of a file; an empty string ends a document (several in a row end nothing more).

    `text_field` is the column that holds the text in jsonl and parquet. Raises ValueError for bytes that are not
    UTF-8 (with their offset in the decompressed text; see `on_error`), binary files, damaged or truncated
    compressed files, records that are not JSON, and missing text columns.
    """
    tally = tally or Tally()
    kind, _ = _format(path)
    if kind == "parquet":
        yield from _read_parquet(path, text_field, on_error, tally)
    elif kind == "jsonl":
        yield from _read_jsonl(path, text_field, on_error, tally)
    else:
        yield from _read_text(path, _blocks(path, tally), 0, on_error, tally)
        yield ""


def is_divisible(path: Path) -> bool:
    """Whether `cut` and `read_range` work on the file: plain text that is not compressed."""
    return _format(path) in (("text", ""), ("", ""))


def cut(path: Path, size: int) -> Iterator[tuple[int, int]]:
    """Cut plain text into byte ranges of about `size`, each of which ends with a line."""
    with open(path, "rb") as file:
        start, end = 0, file.seek(0, 2)
        while start < end:
            file.seek(min(start + size, end) - 1)
            while (piece := file.readline(_READ_BYTES)) and not piece.endswith(b"\n"):
                pass
            stop = file.tell()
            yield start, stop
            start = stop


def read_range(
    path: Path, start: int, stop: int, *, on_error: OnError = "fail", tally: Tally | None = None
) -> Iterator[str]:
    """The stripped lines of a byte range that `cut` made; a document may go on into the next range."""
    tally = tally or Tally()

    def blocks() -> Iterator[bytes]:
        with open(path, "rb") as file:
            file.seek(start)
            while block := file.read(min(_READ_BYTES, stop - file.tell())):
                tally.disk_bytes += len(block)
                yield block

    return _read_text(path, blocks(), start, on_error, tally)


def _read_text(path: Path, blocks: Iterator[bytes], offset: int, on_error: OnError, tally: Tally) -> Iterator[str]:
    for whole in _whole_lines(blocks):
        if offset == 0:
            _check_head(path, whole)
        lines = _decode_lines(path, whole, offset, on_error, tally)
        if offset == 0 and lines:
            lines[0] = lines[0].removeprefix("\ufeff").strip()
        yield from lines
        offset += len(whole)


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Regroup blocks so that each ends with a line end (the last one need not)."""
    carry: list[bytes] = []
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*carry, block[:end]])
            carry = []
        if end < len(block):
            carry.append(block[end:])
    if carry:
        yield b"".join(carry)


def _check_head(path: Path, whole: bytes) -> None:
    if b"\0" in whole[:_HEAD_BYTES] or whole.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{path} is not UTF-8 text but binary, or UTF-16: leave it out, or convert it to UTF-8")


def _decode_lines(path: Path, whole: bytes, offset: int, on_error: OnError, tally: Tally) -> list[str]:
    # Decoding some 100 kB at once is the fast way; only where that fails are lines looked at one by one.
    if b"\0" not in whole:
        try:
            # Not str.splitlines: it would also split at U+0085, U+2028 and other characters within a line.
            return [line.strip() for line in whole.decode().removesuffix("\n").split("\n")]
        except UnicodeDecodeError:
            pass
    lines = []
    for raw in whole.removesuffix(b"\n").split(b"\n"):
        line = _decode(raw, f"{path}:", offset, on_error, tally)
        if line is not None:
            lines.append(line.strip())
        offset += len(raw) + 1
    return lines


def _decode(raw: bytes, place: str, offset: int, on_error: OnError, tally: Tally) -> str | None:
    """The text of one line or record that starts at `offset` of `place`, or None if it is left out."""
    fault = raw.find(b"\0")
    try:
        text = raw.decode()
        if fault < 0:
            return text
    except UnicodeDecodeError as error:
        fault = error.start if fault < 0 else min(fault, error.start)
    if on_error == "fail":
        raise ValueError(f"{place} byte {offset + fault} is not UTF-8: mend it, or pass --on-error replace or skip")
    if on_error == "skip":
        tally.skipped += 1
        return None
    tally.replaced += 1
    return raw.decode(errors="replace").replace("\0", "\ufffd")


# ---------------------------------------------------------------------------------------------------- records


def _read_jsonl(path: Path, text_field: str, on_error: OnError, tally: Tally) -> Iterator[str]:
    offset = number = 0
    for whole in _whole_lines(_blocks(path, tally)):
        if offset == 0:
            _check_head(path, whole)
        for raw in whole.removesuffix(b"\n").split(b"\n"):
            number += 1
            line = _decode(raw, f"{path}:", offset, on_error, tally)
            offset += len(raw) + 1
            if line is not None and (line := line.removeprefix("\ufeff").strip()):
                place = f"{path}: line {number}"
                yield from _record_lines(_json_text(line, text_field, place), place, on_error, tally)


def _json_text(line: str, text_field: str, place: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place} is not JSON ({error}): every line must be a JSON object") from None
    if not isinstance(record, dict):
        raise ValueError(f"{place} is not a JSON object but {type(record).__name__}: every line must be an object")
    if text_field not in record:
        raise ValueError(f"{place} has no {text_field!r} but {_names(record)}: choose one with --text-field")
    text = record[text_field]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{place}: {text_field!r} is not text but {type(text).__name__}: choose another --text-field")
    return text or ""


def _record_lines(text: str, place: str, on_error: OnError, tally: Tally) -> Iterator[str]:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell but UTF-8 cannot
        text = _decode(text.encode(errors="surrogatepass"), f"{place}, its text at", 0, on_error, tally) or ""
    for line in text.split("\n"):
        if stripped := line.strip():
            yield stripped
    yield ""


def _read_parquet(path: Path, text_field: str, on_error: OnError, tally: Tally) -> Iterator[str]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs pyarrow: pip install 'electra-toolkit[parquet]'") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            if text_field not in schema.names:
                raise ValueError(f"{path} has no column {text_field!r} but {_names(schema.names)}: see --text-field")
            kind = schema.field(text_field).type
            if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
                raise ValueError(f"{path}: column {text_field!r} is not text but {kind}: choose another --text-field")
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=256, row_groups=[group], columns=[text_field]):
                    # As bytes, because Arrow does not check that its strings are UTF-8.
                    for raw in batch.column(0).cast(arrow.large_binary()).to_pylist():
                        number += 1
                        place = f"{path}: record {number}"
                        text = _decode(raw or b"", f"{place},", 0, on_error, tally)
                        if text:
                            yield from _record_lines(text, place, on_error, tally)
                tally.disk_bytes += path.stat().st_size // file.num_row_groups
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged or no parquet file ({_brief(error)}): make it again") from None


def _names(names: Any) -> str:
    return ", ".join(map(repr, names)) or "nothing"


# ---------------------------------------------------------------------------------------------- decompression


def _blocks(path: Path, tally: Tally) -> Iterator[bytes]:
    """The decompressed bytes of a file, about 1 MB at a time."""
    _, compression = _format(path)
    with open(path, "rb") as raw:
        taken = 0
        try:
            for block in _decompress(raw, compression):
                tally.disk_bytes += raw.tell() - taken
                taken = raw.tell()
                yield block
        except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"{path} is damaged or cut short ({_brief(error)}): fetch or make it again") from None


def _decompress(raw: IO[bytes], compression: str) -> Iterator[bytes]:
    if compression == ".zst":
        yield from _decompress_zstd(raw)
        return
    opener: Any = {"": contextlib.nullcontext, ".gz": gzip.open, ".xz": lzma.open}[compression]
    with opener(raw) as file:
        while block := file.read(_READ_BYTES):
            yield block


def _decompress_zstd(raw: IO[bytes]) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise ValueError(f"{raw.name}: reading .zst needs zstandard: pip install 'electra-toolkit[zstd]'") from None
    # Not zstandard's stream_reader: it takes the end of a truncated file for the end of the text.
    frame = zstandard.ZstdDecompressor().decompressobj()
    fresh = True
    while chunk := raw.read(_READ_BYTES >> 3):
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


def _brief(error: Exception) -> str:
    return str(error).split("\n")[0]
