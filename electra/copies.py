"""Folders in object storage: copied into the cache of this machine to be read, sent from it when they are made.

A folder that is copied or sent as one has a manifest, which names its files with size and sha256: store.json of a token
store. `fetch_folder` copies what the cache lacks, each file compared with its checksum, and the manifest last; several
processes may ask at once, one of them copies. `send_folder` sends the manifest last, too, so that nobody reads half a
folder. Both go on where they were broken off, file by file.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from electra.config.location import is_url
from electra.files import atomic_file, atomic_folder, cache_folder, sha256
from electra.progress import Progress, amount
from electra.storage import RemoteFile, StorageError, connect, speaking_to
from electra.terminal import clear

Receipts = Mapping[str, Mapping[str, Any]]
"""File name in the folder -> its "bytes" and "sha256"."""

_PART = ".part"  # behind the name of a manifest that is not there yet
_CONNECTIONS = 8
_RANGE_BYTES = 1 << 24


def cache_place(kind: str, url: str) -> Path:
    """The folder of the cache that belongs to a URL."""
    url = url.rstrip("/")
    return cache_folder() / kind / f"{url.rsplit('/', 1)[-1]}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def _moving(doing: str, what: str, total: int) -> Progress:
    """Say on standard error what is copied or sent, and how far it is."""
    clear()
    print(f"{doing} {what}: {amount(total, 'bytes')}", file=sys.stderr)
    return Progress(doing, "bytes", total)


# ------------------------------------------------------------------------------------------------------- fetch


def fetch_folder(url: str, manifest: str, receipts: Callable[[bytes, str], Receipts], verify: bool) -> Path:
    """The folder at `url` as a folder of the cache, copied as far as need be; `verify` reads what is there already.

    `receipts` is given the manifest's content and name, and may raise ValueError. Where the storage cannot be used, a
    whole copy from before is taken with a UserWarning. Raises FileNotFoundError if there is no manifest, StorageError,
    and ValueError for a disk too small or a file that is not what the manifest says.
    """
    from filelock import FileLock

    url = url.rstrip("/")
    folder = cache_place("stores", url)
    try:
        content = read_all(f"{url}/{manifest}")
    except StorageError as error:
        if not (folder / manifest).is_file():
            raise
        warnings.warn(f"{error}; the copy in {folder} is used, which may be older", stacklevel=4)
        content = (folder / manifest).read_bytes()
    expected = receipts(content, f"{url}/{manifest}")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        is_known = (folder / manifest).is_file() and (folder / manifest).read_bytes() == content
        if not is_known:
            (folder / manifest).unlink(missing_ok=True)
            _remove_others(folder, expected)
        missing = [
            name
            for name, receipt in expected.items()
            if not _is_whole(folder / name, receipt, compare=verify or not is_known)
        ]
        if missing:
            _fetch(url, folder, {name: expected[name] for name in missing})
        if not is_known:
            with atomic_file(folder / manifest) as file:
                file.write(content)
    return folder


def _is_whole(path: Path, receipt: Mapping[str, Any], compare: bool) -> bool:
    if not path.is_file() or path.stat().st_size != receipt["bytes"]:
        return False
    return not compare or bool(sha256(path) == receipt["sha256"])


def _remove_others(folder: Path, expected: Receipts) -> None:
    """What an older version of the folder, or a process that was killed, left behind."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in expected:
            path.unlink()


def _fetch(url: str, folder: Path, files: Receipts) -> None:
    total = sum(receipt["bytes"] for receipt in files.values())
    free = shutil.disk_usage(folder).free
    if total > free:
        raise ValueError(
            f"{folder} has room for {free / 1e6:,.0f} MB, but the copy of {url} needs {total / 1e6:,.0f} MB: "
            "let ELECTRA_CACHE name a folder on a larger disk"
        )
    over = threading.Event()  # one has failed, or Ctrl-C: the others need not go on to the end of their files
    with _moving("copying", f"{url} to {folder}", total) as progress, ThreadPoolExecutor(_CONNECTIONS) as pool:
        try:
            given = [
                pool.submit(_fetch_file, f"{url}/{name}", folder / name, receipt, progress.add, over)
                for name, receipt in files.items()
            ]
            for done in as_completed(given):
                done.result()
        finally:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _fetch_file(
    url: str, path: Path, receipt: Mapping[str, Any], told: Callable[[int], None], over: threading.Event
) -> None:
    size, digest = receipt["bytes"], hashlib.sha256()
    source = RemoteFile(url, size, "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        for start in range(0, size, _RANGE_BYTES):
            if over.is_set():
                raise InterruptedError(f"{url} was not copied to its end")
            content = source.read_range(start, min(start + _RANGE_BYTES, size))
            digest.update(content)
            file.write(content)
            told(len(content))
        if digest.hexdigest() != receipt["sha256"]:
            raise ValueError(f"{url} is damaged (its sha256 is not the one on record): send it there again")


def fetch_vocabulary(url: str) -> Path:
    """A vocabulary folder, or one file of it, copied into the cache anew each time; ValueError if it is none."""
    url = url.rstrip("/")
    place, folder = cache_place("vocabularies", url), url
    names = ["tokenizer.json", "vocab.txt"]
    if url.endswith((".json", ".txt")):
        folder, _, name = url.rpartition("/")
        names = [name]
    place.mkdir(parents=True, exist_ok=True)
    for each in (folder, f"{folder}/tokenizer"):
        copied = [_copy(f"{each}/{name}", place / name) for name in names]
        if any(copied):
            _copy(f"{each}/tokenizer_config.json", place / "tokenizer_config.json")
            return place / names[0] if len(names) == 1 else place
    raise ValueError(f"{url} is no vocabulary: it has no tokenizer.json and no vocab.txt")


def _copy(url: str, path: Path) -> bool:
    """Make `path` what there is at `url`; whether that is anything."""
    try:
        content = read_all(url)
    except FileNotFoundError:
        path.unlink(missing_ok=True)
        return False
    with atomic_file(path) as file:
        file.write(content)
    return True


def read_all(url: str) -> bytes:
    """The content of a small file."""
    with speaking_to(url):
        system, path = connect(url)
        content: bytes = system.cat_file(path)
        return content


# -------------------------------------------------------------------------------------------------------- send


def prepare_sending(url: str, manifest: str, overwrite: bool) -> None:
    """Say at the beginning of the work that its result will come, which shows that one may write there.

    Raises ValueError if there is something else than what an interrupted command left, unless `overwrite`; and even so
    if it is not such a folder, for `send_folder` leaves nothing else there, and it may be a whole bucket.
    """
    with speaking_to(url):
        system, root = connect(url)
        names = _sizes(system, root)
        if names and manifest not in names and f"{manifest}{_PART}" not in names:
            raise ValueError(f"{url} holds other files and no {manifest}: choose another --out")
        if manifest in names and not overwrite:
            raise ValueError(f"{url} exists already: choose another --out, or pass --overwrite to replace it")
        if f"{manifest}{_PART}" not in names:
            system.pipe_file(f"{root}/{manifest}{_PART}", b"being made\n")


def send_folder(folder: Path, url: str, manifest: str, receipts: Receipts) -> None:
    """Send a folder, after `prepare_sending`; whatever else there is at `url` goes.

    While files are on their way a copy of the manifest stands there under another name. If that is this manifest, then
    the files that are there were sent from this folder, and are not sent again.
    """
    content = (folder / manifest).read_bytes()
    with speaking_to(url):
        system, root = connect(url)
        part = f"{root}/{manifest}{_PART}"
        there = _sizes(system, root)
        if manifest in there:
            system.rm_file(f"{root}/{manifest}")
        if f"{manifest}{_PART}" not in there or system.cat_file(part) != content:
            system.pipe_file(part, content)
            there = dict.fromkeys(there, -1)
        missing = {name: receipt for name, receipt in receipts.items() if there.get(name) != receipt["bytes"]}
        total = sum(receipt["bytes"] for receipt in missing.values())
        with _moving("sending", f"{folder} to {url}", total) as progress:
            for name, receipt in missing.items():
                system.put_file(str(folder / name), f"{root}/{name}")
                progress.add(receipt["bytes"])
        for name in there.keys() - receipts.keys() - {manifest, f"{manifest}{_PART}"}:
            system.rm_file(f"{root}/{name}")
        system.pipe_file(f"{root}/{manifest}", content)
        system.rm_file(part)


def _sizes(system: Any, root: str) -> dict[str, int]:
    """The files below a folder by their names in it."""
    found = system.find(root, detail=True)
    return {name[len(root) :].strip("/"): info["size"] for name, info in found.items() if name != root}


@contextlib.contextmanager
def new_folder(out: Path | str, overwrite: bool) -> Iterator[Path]:
    """As `files.atomic_folder`, also at a URL, to which the files of this one go in the order of their names."""
    if not is_url(out):
        with atomic_folder(Path(out), overwrite) as folder:
            yield folder
        return
    with speaking_to(out):
        system, root = connect(out)
        if _sizes(system, root) and not overwrite:
            raise ValueError(f"{out} exists already: choose another --out, or pass --overwrite to replace it")
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
        with speaking_to(out):
            for path in sorted(Path(temporary).iterdir()):
                system.pipe_file(f"{root}/{path.name}", path.read_bytes())
