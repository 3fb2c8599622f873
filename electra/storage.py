"""Files in object storage (s3://, gs:// and whatever else fsspec knows), read in parts as if they were open files.

`find` lists what a URL stands for as `RemoteFile`s; `open_file` opens one of them, or a file of this machine. Whole
folders are moved by copies.py. The libraries behind fsspec find credentials and endpoint in the environment, each its
own way, and repeat requests that fail. What they raise in the end leaves here as an OSError that says who is to blame:
FileNotFoundError or `FileChanged`, that one file; `StorageError`, the storage, which `--on-error skip` does not skip.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

STREAM_BYTES = 1 << 23
"""Asked for at once where a file is read from end to end."""

_VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created", "Last-Modified")
_PACKAGES = {"s3": "'electra-toolkit[storage]'", "s3a": "'electra-toolkit[storage]'", "gs": "gcsfs", "gcs": "gcsfs"}

for _library in ("fsspec", "s3fs", "gcsfs"):  # where nobody asked for their logs, Python would print them: tracebacks
    logging.getLogger(_library).addHandler(logging.NullHandler())


class RemoteError(OSError):
    """OSError(number, sentence, url), whose text is url and sentence."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class FileChanged(RemoteError):
    """The file is not the one that was found."""


class StorageError(RemoteError):
    """The storage does not answer, or refuses."""


@dataclass(frozen=True)
class RemoteFile:
    """A file in object storage, as it was when it was found."""

    url: str
    size: int
    version: str
    """What the storage changes with the content: the ETag, or else a time."""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def read_range(self, start: int, stop: int) -> bytes:
        """Its bytes from `start` to `stop`, in one request."""
        with speaking_to(self.url):
            system, path = connect(self.url)
            try:
                content: bytes = system.cat_file(path, start=start, end=stop)
            except FileNotFoundError:
                raise
            except OSError:
                if self.is_unchanged():
                    raise
                content = b""  # it has become too short
        if len(content) == stop - start:
            return content
        if self.is_unchanged():
            raise StorageError(errno.EIO, "the server gives no parts of files: download it first", self.url)
        raise FileChanged(errno.EIO, "it changed while it was read: let it come to rest, and try again", self.url)

    def is_unchanged(self) -> bool:
        """Whether the storage still has this version of it."""
        with speaking_to(self.url):
            system, path = connect(self.url)
            try:
                return _describe(system, system.info(path)) == self
            except FileNotFoundError:
                return False


File = Path | RemoteFile


def size_of(file: File) -> int:
    """Bytes."""
    return file.size if isinstance(file, RemoteFile) else file.stat().st_size


def open_file(file: File, buffer_bytes: int = STREAM_BYTES, stop: int | None = None) -> IO[bytes]:
    """Open a file for reading; a remote one asks for `buffer_bytes` at a time, and for nothing after `stop`."""
    if isinstance(file, Path):
        return open(file, "rb")
    return io.BufferedReader(_Ranges(file, stop), max(1, buffer_bytes))


class _Ranges(io.RawIOBase):
    """A remote file in which one can seek; every read is a request."""

    def __init__(self, file: RemoteFile, stop: int | None) -> None:
        self.name = file.url
        self._file = file
        self._stop = file.size if stop is None else stop
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._file.size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        stop = min(self._position + len(buffer), self._stop)
        if stop <= self._position:
            return 0
        content = self._file.read_range(self._position, stop)
        buffer[: len(content)] = content
        self._position = stop
        return len(content)


def find(url: str) -> list[tuple[RemoteFile, tuple[str, ...]]]:
    """The files that a URL stands for: a file, all below a folder, or what a glob matches, in the order of paths.

    With each comes its path below the folder in which it was found, in parts; none for a file that was named itself or
    matched. The list is empty where there is nothing of that name.
    """
    found: list[tuple[RemoteFile, tuple[str, ...]]] = []
    with speaking_to(url):
        system, path = connect(url)
        try:
            matches = [system.info(path)]
        except FileNotFoundError:
            is_pattern = any(character in path for character in "*?[")
            matches = list(system.glob(path, detail=True).values()) if is_pattern else []
            if "/." not in path:  # a pattern finds hidden names only if it says so, as everywhere
                matches = [match for match in matches if "/." not in match["name"]]
        for match in sorted(matches, key=_parts):
            if match["type"] != "directory":
                found.append((_describe(system, match), ()))
                continue
            depth = len(_parts(match))
            for info in sorted(system.find(match["name"], detail=True).values(), key=_parts):
                found.append((_describe(system, info), tuple(_parts(info)[depth:])))
    return found


def connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, whose instances fsspec shares, and the path in it; ValueError if a library lacks."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ValueError(f"{url}: reading it needs fsspec: pip install 'electra-toolkit[storage]'") from None
    protocol = url.partition("://")[0]
    # Listings change while a build runs: none is to be answered from memory.
    options = {"use_listings_cache": False} | ({"auto_mkdir": True} if protocol == "file" else {})
    try:
        system, path = url_to_fs(url, **options)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        fix = f"pip install {package}" if package else str(error)
        raise ValueError(f"{url}: a library for {protocol}:// is missing: {fix}") from None
    except ValueError as error:
        raise ValueError(f"{url} is no URL that fsspec reads ({error}): use s3://, gs:// or a path") from None
    return system, path


@contextlib.contextmanager
def speaking_to(url: str) -> Iterator[None]:
    """Whatever a storage's library raises -> FileNotFoundError, FileChanged or StorageError; ValueErrors are ours."""
    try:
        yield
    except (RemoteError, ValueError):
        raise
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no such file, folder or bucket", url) from None
    except PermissionError as error:
        sentence = f"access is denied ({_brief(error)}): check the credentials and what they allow"
        raise StorageError(errno.EACCES, sentence, url) from error
    except Exception as error:  # each library has classes of its own, some of them no OSErrors
        sentence = f"the storage does not answer ({_brief(error)}): check network, endpoint and credentials"
        raise StorageError(errno.EIO, sentence, url) from error


def _brief(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".:")


def _parts(info: Mapping[str, Any]) -> list[str]:
    return str(info["name"]).rstrip("/").split("/")


def _describe(system: Any, info: dict[str, Any]) -> RemoteFile:
    url = str(system.unstrip_protocol(info["name"]))
    if info.get("size") is None:  # lists of web servers have no sizes
        info = system.info(info["name"])
    if info.get("size") is None:
        raise ValueError(f"{url}: the server does not say how large it is: download it first")
    version = next((str(info[key]) for key in _VERSIONS if info.get(key) is not None), "")
    return RemoteFile(url, int(info["size"]), version)
