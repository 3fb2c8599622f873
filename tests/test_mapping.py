"""Mapped arrays equal numpy's, need no descriptors, and go when nothing refers to them."""

import gc
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stores import make_store, random_documents

from electra.mapping import map_array
from electra.store import Store


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<i8", "<u8"])
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_equals_numpy(tmp_path, dtype, count):
    expected = np.random.default_rng(0).integers(0, 60000, count).astype(dtype)
    np.save(tmp_path / "a.npy", expected)
    found = map_array(tmp_path / "a.npy")
    assert found.dtype == expected.dtype and found.tolist() == expected.tolist()
    assert count == 0 or not found.flags.writeable
    with open(tmp_path / "b.npy", "wb") as file:
        np.lib.format.write_array(file, expected, version=(2, 0))
    assert map_array(tmp_path / "b.npy").tolist() == expected.tolist()


def test_what_cannot_be_mapped(tmp_path):
    whole = io.BytesIO()
    np.save(whole, np.arange(100))
    for data in (b"", b"\x93NUMPY", b"no array at all", whole.getvalue()[:-1]):
        (tmp_path / "a.npy").write_bytes(data)
        with pytest.raises((ValueError, EOFError)):
            map_array(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    with pytest.raises(ValueError, match="cannot be mapped"):
        map_array(tmp_path / "a.npy")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_mapping_goes_with_the_last_array_that_shows_it(tmp_path):
    path = tmp_path / "mapped.npy"
    np.save(path, np.arange(100_000))
    maps = lambda: str(path) in Path("/proc/self/maps").read_text()  # noqa: E731
    part = map_array(path)[50_000:]
    gc.collect()
    assert maps() and part[1] == 50_001
    del part
    gc.collect()
    assert not maps()


READ = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from electra.batches import Rows
from electra.config import RowsConfig
from electra.store import Store
store = Store.open(Path(sys.argv[1]))
rows = Rows(store, RowsConfig(seq_len=32), seed=0)
print(len(store.shards), rows.rows(0, rows.rows_per_epoch).input_ids.sum())
"""


def test_a_store_of_many_shards_opens_with_few_descriptors(tmp_path):
    documents = random_documents(300)
    store = make_store(tmp_path / "store", documents, shard_tokens=1)
    assert len(store.shards) == 300
    done = subprocess.run(
        [sys.executable, "-c", READ, str(store.folder)], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    one = Store.open(make_store(tmp_path / "one", documents).folder)
    assert done.stdout.split()[0] == "300" and one.num_tokens == store.num_tokens
