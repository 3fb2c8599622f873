"""A place that a user names: a path on this machine, or a URL of object storage.

A URL stays a string, because a Path would make s3:/bucket of s3://bucket.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, TypeGuard

from tyro.constructors import PrimitiveConstructorSpec

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")


def is_url(location: Path | str) -> TypeGuard[str]:
    """Whether it is a URL, which `electra/storage.py` reads and writes."""
    return isinstance(location, str) and _URL.match(location) is not None


def _parse(text: str) -> Path | str:
    return text if is_url(text) else Path(text)


Location = Annotated[
    Path | str,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH|URL",
        instance_from_str=lambda words: _parse(words[0]),
        is_instance=lambda value: isinstance(value, Path | str),
        str_from_instance=lambda value: [str(value)],
    ),
]
