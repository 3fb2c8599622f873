"""Memory that glibc holds, as Linux counts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from electra.allocator import return_freed_memory

KEEP = """
import resource
import torch
from electra.allocator import keep_freed_memory

if {keep}:
    keep_freed_memory()
for _ in range(10):  # the first ones leave gaps that are a little too small for the next
    torch.ones(25_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(25_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def held() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for the memory that is held")
def test_freed_memory_below_what_is_in_use_goes_back():
    tensors = [torch.ones(25_000) for _ in range(2_000)]  # of 100 kB, which no mapping of its own is made for
    before, tensors[:-1] = held(), []
    return_freed_memory()
    assert before - held() > 150e6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="is about glibc")
def test_kept_memory_needs_no_new_pages():
    faults = [
        int(subprocess.run([sys.executable, "-c", KEEP.format(keep=keep)], capture_output=True, check=True).stdout)
        for keep in (False, True)
    ]
    assert faults[1] < faults[0] / 4
