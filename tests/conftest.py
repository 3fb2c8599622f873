"""Fixtures shared by all tests. Golden values and real data are outside the project: tests skip without them."""

import os
from pathlib import Path

# One thread: models this small gain nothing from more, several processes at once lose, and the same number
# everywhere gives the same bits. Before torch is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of values computed with Google's own code."""
    return _folder("ELECTRA_GOLDEN")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the unpacked real data sets."""
    return _folder("ELECTRA_DATA")
