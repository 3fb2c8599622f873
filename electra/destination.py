"""Where a store is put together, and how it gets to --out: in its place, or if that is a URL, in the cache and sent."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from electra.config import BuildConfig
from electra.config.location import is_url
from electra.copies import cache_place, prepare_sending, send_folder
from electra.files import refuse_existing
from electra.store import STORE_JSON, store_receipts


def local_out(config: BuildConfig) -> Path:
    """The folder that becomes the store; beside it lie the portions of an unfinished build."""
    return cache_place("builds", config.out) / "store" if is_url(config.out) else Path(config.out)


def check_out(config: BuildConfig) -> None:
    """Before the work: ValueError if there is something at --out; at a URL, the first word that a store is coming."""
    if is_url(config.out):
        prepare_sending(config.out, STORE_JSON, config.overwrite)
        shutil.rmtree(local_out(config), ignore_errors=True)  # not sent to its end; its portions are there still
    else:
        refuse_existing(local_out(config), config.overwrite)


def send(config: BuildConfig) -> None:
    """After the work: if --out is a URL, send the finished store, of which nothing stays here."""
    if not is_url(config.out):
        return
    folder = local_out(config)
    try:
        content = (folder / STORE_JSON).read_bytes()
        send_folder(folder, config.out, STORE_JSON, store_receipts(content, str(folder)))
    except BaseException:
        warnings.warn(f"the store is made and waits in {folder}: the same command sends what is missing", stacklevel=3)
        raise
    shutil.rmtree(folder.parent)
