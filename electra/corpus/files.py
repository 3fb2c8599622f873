"""Names that a user typed -> files, and what kind each of them is."""

from __future__ import annotations

import codecs
import functools
import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from electra import storage
from electra.config.location import is_url
from electra.corpus.decompress import COMPRESSIONS, DAMAGES, decompress
from electra.corpus.text import HEAD_BYTES
from electra.storage import File, RemoteFile, open_file

KINDS = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".tar": "tar",
}
_WHOLE = ("parquet", "arrow")  # compressed inside
_ENDINGS = f"{', '.join(KINDS)} (or .txt.gz and so on, with {', '.join(COMPRESSIONS)})"
_WIKI = re.compile(r"wiki_\d+")  # the files of WikiExtractor


class Format(NamedTuple):
    """What a file holds and how it is compressed ("" for not at all)."""

    kind: str
    compression: str


def find_files(corpus: Sequence[str]) -> list[File]:
    """The files that files, folders (searched recursively) and globs stand for, on this machine or at a URL.

    Sorted within each argument; a file that is reached twice is kept once. In folders only known endings count, and
    hidden entries and caches of `datasets` do not; a file that is named, or matched by a glob, may have any ending if
    it holds text. Raises ValueError if an argument matches nothing, or a named file is of no known kind and no text.
    """
    found: dict[File, File] = {}
    for argument in corpus:
        if is_url(argument):
            found |= {file: file for file in _find_remote(argument)}
            continue
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


def _find_remote(url: str) -> list[RemoteFile]:
    matches = storage.find(url)
    if not matches:
        raise ValueError(f"corpus {url!r} matches no file or folder: check the name")
    files = []
    for file, inside in matches:
        if not inside:
            _check_named(file)
        elif not named_format(file.name).kind or any(map(_is_passed_over, inside)):
            continue
        files.append(file)
    if not files:
        raise ValueError(f"corpus {url!r} has no files ending in {_ENDINGS}: name its files instead")
    return files


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        if path.exists() and not path.is_file():  # a pipe would be waited for for ever
            raise ValueError(f"{path} is a pipe or a device: corpora are read more than once, so write it to a file")
        _check_named(path)
        return [path]
    # Not Path.rglob, which passes over folders that it may not open; nor over links to nothing: their text is missing.
    found = [Path(folder, name) for folder, _, names in os.walk(path, onerror=_raise) for name in names]
    inside = (file for file in sorted(found) if file.is_file() or not file.exists())
    return [
        file
        for file in inside
        if named_format(file.name).kind and not any(map(_is_passed_over, file.relative_to(path).parts))
    ]


def _raise(error: OSError) -> None:
    raise error


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or (name.startswith("cache-") and name.endswith(".arrow"))


def _check_named(path: File) -> None:
    named = named_format(path.name)
    if named.kind or file_format(path).kind != "text":
        return
    head = _head(path, named.compression)
    try:
        # The head may end within a character, which an incremental decoder forgives.
        codecs.getincrementaldecoder("utf-8")().decode(head)
        is_text = b"\0" not in head
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise ValueError(f"{path} is neither text nor of a known format ({_ENDINGS})")


def named_format(name: str) -> Format:
    """What a file's name says; its kind is "" for an ending that says nothing."""
    path = Path(name.lower())
    if path.suffix == ".tgz":
        return Format("tar", ".gz")
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    if compression:
        path = path.with_suffix("")
    kind = "wiki" if _WIKI.fullmatch(path.name) else KINDS.get(path.suffix, "")
    return Format("", "") if compression and kind in _WHOLE else Format(kind, compression)


def file_format(path: File) -> Format:
    """What a file is; where its name leaves that open, its first bytes tell."""
    kind, compression = named_format(path.name)
    if kind in ("", "text", "wiki"):
        head = _remote_head(path, compression) if isinstance(path, RemoteFile) else _head(path, compression)
        kind = sniff(head, kind)
    return Format(kind, compression)


def sniff(head: bytes, kind: str) -> str:
    """The kind of a file whose name says text, WikiExtractor's or nothing, and that begins like this."""
    if kind != "text" and head[257:262] == b"ustar":
        return "tar"
    if kind == "wiki" and head.startswith(b"{"):  # its option --json
        return "jsonl"
    return "wiki" if head.startswith(b"<doc id=") else "text"


def _head(path: File, compression: str) -> bytes:
    """The first bytes of the text; none if the file is damaged, which shows when it is read."""
    with open_file(path, HEAD_BYTES) as raw:
        try:
            return next(decompress(raw, compression, HEAD_BYTES), b"")
        except DAMAGES:
            return b""


_remote_head = functools.lru_cache(_head)
"""Each is a request, and `readers.read_range` wants to know for every block of a file."""
