"""Arrays in files, mapped into memory, without a file descriptor each.

Python's mmap keeps a descriptor open for every mapping (before Python 3.13 there was no choice), and a process often
has 1,024 of them at most, too few for a store of some hundred shards. The kernel needs none once a file is mapped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from pathlib import Path

import numpy as np

_PROT_READ, _MAP_SHARED = 1, 1
_MAP_FAILED = ctypes.c_void_p(-1).value


def map_array(path: Path) -> np.ndarray:
    """A .npy file of one dimension as a read-only array; raises what `np.load` raises, and OSError."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if len(shape) != 1 or dtype.hasobject:
            raise ValueError(f"an array of shape {shape} and type {dtype} cannot be mapped")
        begin, count = file.tell(), shape[0]
        if begin + count * dtype.itemsize > os.fstat(file.fileno()).st_size:
            raise ValueError("the file is shorter than its header says")
        if count == 0:
            return np.zeros(0, dtype)
        return np.frombuffer(_map(file.fileno(), begin + count * dtype.itemsize), dtype, count, begin)


def _map(descriptor: int, size: int) -> memoryview | mmap.mmap:
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ, trackfd=False)
    if os.name != "posix":
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = libc.mmap(None, size, _PROT_READ, _MAP_SHARED, descriptor, 0)
    if address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), f"cannot map {size} bytes: {os.strerror(ctypes.get_errno())}")
    region = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(region, libc.munmap, address, size).atexit = False
    return memoryview(region).toreadonly()
