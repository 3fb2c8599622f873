"""Fixtures shared by all tests. Golden values and real data are outside the project: tests skip without them."""

import os
from pathlib import Path

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
