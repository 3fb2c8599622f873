"""The reader of TensorFlow checkpoints: files that TensorFlow wrote, and every way in which one can be damaged."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bundles import field, table, write_bundle

from electra.interop.bundle import Bundle, read_varint, wire_fields

FIXTURE = Path(__file__).parent / "fixtures" / "bundle.zip"  # written by TensorFlow 2.21, see make_bundle.py
FLOATS = ["float16", "bfloat16", "float32", "float64"]
DTYPES = [*FLOATS, *(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u"))]
TENSORS = {
    "a/kernel": np.arange(12, dtype="f4").reshape(3, 4),
    "a/kernel/adam_m": np.arange(12, dtype="f4").reshape(3, 4) / 7,
    "b": np.array(5, dtype="i8"),
    "c/bias": np.linspace(-1, 1, 5, dtype="f4"),
}


@pytest.fixture
def tensorflow(tmp_path: Path) -> Path:
    with zipfile.ZipFile(FIXTURE) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_reads_what_tensorflow_wrote(tensorflow):
    bundle = Bundle(tensorflow / "mixed")
    for dtype in DTYPES:
        found = bundle.read(f"number/{dtype}")
        assert found.dtype == ("float32" if dtype.endswith("float16") else dtype)
        assert np.array_equal(found, np.arange(6).reshape(2, 3)) and bundle.shape(f"number/{dtype}") == (2, 3)
    assert bundle.read("flag").tolist() == [True, False]
    assert bundle.read("scalar") == 7 and bundle.read("scalar").shape == ()
    assert bundle.read("empty").shape == (0, 3)
    assert bundle.read("word").item() == b"one"
    assert bundle.read("words").tolist() == [[b"", b"a"], [b"b" * 300, b"\0"]]  # of the second shard
    assert bundle.object_graph() is None
    assert len(bundle.names()) == len(DTYPES) + 6


def test_an_object_checkpoint_has_its_graph(tensorflow):
    bundle = Bundle(tensorflow / "object")
    assert bundle.names() == ["weight/.ATTRIBUTES/VARIABLE_VALUE"]
    graph = bundle.object_graph()
    nodes = [value for number, value in wire_fields(graph) if number == 1]  # TrackableObjectGraph.nodes
    assert len(nodes) == 2 and b"weight/.ATTRIBUTES/VARIABLE_VALUE" in nodes[1]


@pytest.mark.parametrize(("shards", "block_size"), [(1, 4096), (3, 1), (2, 200)])
def test_many_variables_in_several_shards_and_blocks(tmp_path, shards, block_size):
    random = np.random.default_rng(0)
    tensors = {f"layer_{n}/dense/kernel": random.normal(size=(n % 7, 3)).astype("f4") for n in range(200)}
    bundle = Bundle(write_bundle(tmp_path / "x", tensors, shards, block_size))
    assert bundle.names() == sorted(tensors)
    for name, tensor in tensors.items():
        assert np.array_equal(bundle.read(name), tensor) and bundle.shape(name) == tensor.shape


def test_what_is_read_is_ours_to_change(tmp_path):
    bundle = Bundle(write_bundle(tmp_path / "x", TENSORS))
    bundle.read("a/kernel")[:] = 0
    assert np.array_equal(bundle.read("a/kernel"), TENSORS["a/kernel"])


def test_find_takes_prefixes_files_and_folders(tmp_path):
    prefix = write_bundle(tmp_path / "run" / "model.ckpt-10", TENSORS)
    for path in (prefix, Path(f"{prefix}.index"), Path(f"{prefix}.meta"), Path(f"{prefix}.data-00000-of-00001")):
        assert Bundle.find(path).prefix == prefix
    assert Bundle.find(prefix.parent).prefix == prefix
    write_bundle(tmp_path / "run" / "model.ckpt-20", TENSORS)
    with pytest.raises(ValueError, match=r"holds several checkpoints \(model.ckpt-10, model.ckpt-20\)"):
        Bundle.find(prefix.parent)
    (prefix.parent / "checkpoint").write_text('model_checkpoint_path: "/their/machine/model.ckpt-10"\nall_model')
    assert Bundle.find(prefix.parent).prefix == prefix
    (prefix.parent / "checkpoint").write_text("nothing")
    with pytest.raises(ValueError, match="names no model_checkpoint_path"):
        Bundle.find(prefix.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no TensorFlow checkpoint"):
        Bundle.find(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"other\.index does not exist"):
        Bundle.find(tmp_path / "other")


def test_any_damage_to_the_index_is_a_sentence(tmp_path):
    """Each byte changed, and each length cut: an error that names the file, or (unused padding) the same content."""
    index = Path(f"{write_bundle(tmp_path / 'x', TENSORS, block_size=60)}.index")
    good = index.read_bytes()
    refused = 0
    for position in range(len(good)):
        index.write_bytes(good[:position] + bytes([good[position] ^ 0x41]) + good[position + 1 :])
        try:
            bundle = Bundle(tmp_path / "x")
            assert all(np.array_equal(bundle.read(name), tensor) for name, tensor in TENSORS.items())
        except ValueError as error:
            assert str(index) in str(error)
            refused += 1
    assert refused >= len(good) - 50  # the footer's padding and the empty meta index are never looked at
    for length in range(len(good)):
        index.write_bytes(good[:length])
        with pytest.raises(ValueError, match=r"x\.index does not end like the index .* cut off"):
            Bundle(tmp_path / "x")


def test_any_damage_to_the_data_is_a_sentence(tmp_path):
    prefix = write_bundle(tmp_path / "x", TENSORS)
    data = Path(f"{prefix}.data-00000-of-00001")
    good = data.read_bytes()
    for position in range(len(good)):
        data.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        bundle = Bundle(prefix)
        with pytest.raises(ValueError, match=r"data-00000-of-00001: the checksum of .* is wrong"):
            [bundle.read(name) for name in TENSORS]
    data.write_bytes(good[:-1])
    with pytest.raises(ValueError, match="has 123 bytes where the index wants 124"):
        Bundle(prefix)


def test_the_data_of_another_checkpoint(tmp_path):
    prefix = write_bundle(tmp_path / "x", TENSORS)
    other = write_bundle(tmp_path / "other", {name: tensor + 1 for name, tensor in TENSORS.items()})
    shutil.copy(f"{other}.data-00000-of-00001", f"{prefix}.data-00000-of-00001")
    with pytest.raises(ValueError, match=r"the checksum of a/kernel is wrong.*belongs to another checkpoint"):
        Bundle(prefix).read("a/kernel")


def test_strings_are_checked_too(tensorflow):
    data = tensorflow / "mixed.data-00001-of-00002"
    good = data.read_bytes()
    wrong = 0
    for position in range(len(good)):
        data.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        try:
            bundle = Bundle(tensorflow / "mixed")
            bundle.read("word"), bundle.read("words")
        except ValueError as error:
            assert "data-00001-of-00002: the checksum of word" in str(error)
            wrong += 1
    assert wrong == len(good) - 16  # the 16 bytes are a part of the partitioned variable


def test_a_missing_shard(tmp_path):
    prefix = write_bundle(tmp_path / "x", TENSORS, shards=2)
    Path(f"{prefix}.data-00001-of-00002").unlink()
    with pytest.raises(ValueError, match="data-00001-of-00002 is missing"):
        Bundle(prefix)


def test_other_files_are_not_taken_for_a_bundle(tmp_path):
    (tmp_path / "x.index").write_text("a search index\n" * 100)
    with pytest.raises(ValueError, match="another kind of file"):
        Bundle(tmp_path / "x")
    (tmp_path / "x.index").write_bytes(table({b"key": b"\xff\xff"}))
    with pytest.raises(ValueError, match="is a table but not the index of a TensorFlow checkpoint"):
        Bundle(tmp_path / "x")


def test_what_is_not_supported_is_said(tmp_path, tensorflow):
    write_bundle(tmp_path / "x", TENSORS, compression=1)
    with pytest.raises(ValueError, match="is compressed"):
        Bundle(tmp_path / "x")
    (tmp_path / "x.index").write_bytes(table({b"": field(1, 1) + field(2, 1)}))
    with pytest.raises(ValueError, match="big-endian"):
        Bundle(tmp_path / "x")
    bundle = Bundle(tensorflow / "mixed")
    assert bundle.shape("partitioned") == (4, 2)
    with pytest.raises(ValueError, match="partitioned is stored in 2 parts"):
        bundle.read("partitioned")
    with pytest.raises(ValueError, match="mixed has no variable nothing"):
        bundle.read("nothing")
    entry = field(1, 11) + field(3, 0)  # DT_QINT8
    (tmp_path / "x.index").write_bytes(table({b"": field(1, 1), b"quantised": entry}))
    with pytest.raises(ValueError, match="quantised has dtype number 11"):
        Bundle(tmp_path / "x").read("quantised")


def test_wire_format():
    message = field(1, 300) + field(2, b"text") + bytes([3 << 3 | 5, 1, 0, 0, 0, 4 << 3 | 1, *[255] * 8])
    assert list(wire_fields(message)) == [(1, 300), (2, b"text"), (3, 1), (4, 2**64 - 1)]
    assert read_varint(b"\xac\x02", 0) == (300, 2)
    for bad in (message[:-1], b"\x08", b"\x0f\x00"):
        with pytest.raises(ValueError, match="no protocol buffer"):
            list(wire_fields(bad))
