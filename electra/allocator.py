"""What the C library does with memory that was freed, on a CPU: keeps it for the next step, or returns it.

glibc alone can be told; with another C library nothing here happens.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_TOP_PAD = -4, -1, -2


def keep_freed_memory() -> None:
    """Return no large block to the system when it is freed: the next step allocates the same ones again.

    Saves the page faults of the (B, K, V) logits, which are 70 MB in an ELECTRA-Small step of 32 rows.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26)):
            mallopt(parameter, value)


def return_freed_memory() -> None:
    """Return now all that is free.

    Where the tensors of each step have other sizes, new ones find no room among the old ones: a fine-tuning on SQuAD
    that used 1.3 GB held 5.8.
    """
    if (malloc_trim := _of_glibc("malloc_trim")) is not None:
        malloc_trim(0)


@functools.cache
def _of_glibc(name: str) -> Any:
    """A function of the C library, or None where there is none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
