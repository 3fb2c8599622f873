"""TFRecords: Google's own rows in and out of a store, byte for byte; damaged and foreign files in one sentence."""

import dataclasses
import gzip
import json
import random
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from stores import make_store, random_documents, read_documents, tiny_vocabulary

from electra import cli
from electra.batches import Rows, google_examples
from electra.build import build
from electra.config import BuildConfig, RowsConfig
from electra.interop import record_store
from electra.interop.record_store import export_records
from electra.interop.tfrecord import find_records, frame, read_records, read_rows, serialise
from electra.packing import RowBatch
from electra.store import Store

CLS, SEP = 2, 3
NAMES = ("input_ids", "input_mask", "segment_ids")
AWS_NAMES = ("input_ids", "attention_mask", "token_type_ids")


# ------------------------------------------------------------------- a naive writer, in the words of the definitions


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: dict[str, list[int]], packed: bool = True) -> bytes:
    entries = b""
    for name, values in features.items():
        if packed:
            integers = field(1, b"".join(map(varint, values)))
        else:
            integers = b"".join(varint(1 << 3) + varint(value) for value in values)
        entries += field(1, field(1, name.encode()) + field(2, field(3, integers)))
    return field(1, entries)


def masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(*records: bytes) -> bytes:
    return b"".join(
        header + masked_crc(header) + record + masked_crc(record)
        for record in records
        for header in [struct.pack("<Q", len(record))]
    )


def row(first: list[int], second: list[int], length: int, names: tuple[str, ...] = NAMES) -> dict[str, list[int]]:
    ids = [CLS, *first, SEP, *second, *([SEP] if second else [])]
    segments = [0] * (len(first) + 2) + [1] * (len(ids) - len(first) - 2)
    blank = [0] * (length - len(ids))
    return dict(zip(names, (ids + blank, [1] * len(ids) + blank, segments + blank), strict=True))


def random_rows(count: int, length: int, seed: int = 0, vocab: int = 1000, **more) -> list[dict[str, list[int]]]:
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        total = draw.randint(2, length - 3)
        ids = [draw.randrange(5, vocab) for _ in range(total)]
        cut = draw.choice([total, draw.randint(1, total - 1)])
        rows.append(row(ids[:cut], ids[cut:], length, **more))
    return rows


def as_rows(batch: RowBatch) -> list[dict[str, list[int]]]:
    arrays = (batch.input_ids, batch.valid.astype(int), batch.segment_ids)
    return [dict(zip(NAMES, map(np.ndarray.tolist, parts), strict=True)) for parts in zip(*arrays, strict=True)]


def file_rows(path: Path) -> list[dict[str, list[int]]]:
    return [
        dict(zip(NAMES, map(np.ndarray.tolist, parts), strict=True))
        for block in read_rows(path)
        for parts in zip(block.input_ids, block.input_mask, block.segment_ids, strict=True)
    ]


def store_rows(store: Store, length: int, epoch: int = 0, **more) -> list[dict[str, list[int]]]:
    rows = Rows(store, RowsConfig(seq_len=length, packing="rows"), seed=3, **more)
    return as_rows(rows.rows(epoch * rows.rows_per_epoch, rows.rows_per_epoch))


def in_order(rows: list[dict[str, list[int]]]) -> list[dict[str, list[int]]]:
    return sorted(rows, key=lambda row: list(row.values()))


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    """Import of tmp_path/rows.tfrecord with a vocabulary of 1000."""
    tiny_vocabulary(tmp_path / "vocab")
    return BuildConfig(
        corpus=(str(tmp_path / "rows.tfrecord"),),
        vocab=tmp_path / "vocab" / "vocab.txt",
        out=tmp_path / "store",
        held_out=0,
    )


def load(config: BuildConfig) -> Store:
    build(config)
    return Store.open(config.out)


# ------------------------------------------------------------------------------------------------ Google's own


def test_googles_records_load_back_identical(golden: Path, tmp_path: Path) -> None:
    expected = json.loads((golden / "tiny_examples.json").read_text())["examples"]
    assert file_rows(golden / "tiny.tfrecord") == expected

    config = BuildConfig(
        corpus=(str(golden / "tiny.tfrecord"),), vocab=golden / "vocab512.txt", out=tmp_path / "store", held_out=0
    )
    summary = build(config)
    store = Store.open(config.out)
    assert len(expected) == summary["build"]["rows"] == store.num_documents == 161 and store.imported_seq_len == 32
    for epoch in (0, 1):
        assert in_order(store_rows(store, 32, epoch)) == in_order(expected)
    assert store_rows(store, 32, 0) != store_rows(store, 32, 1)
    padding = 1 - sum(sum(row["input_mask"]) for row in expected) / (161 * 32)
    assert summary["build"]["padding_share"] == pytest.approx(padding)

    # Out again: the file that TensorFlow wrote, byte for byte.
    receipt = export_records(store, tmp_path / "out", 32, shards=1)
    assert receipt["rows"] == 161
    assert (tmp_path / "out" / "pretrain_data.tfrecord-0-of-1").read_bytes() == (golden / "tiny.tfrecord").read_bytes()


def test_export_of_text_is_googles_file_byte_for_byte(golden: Path, tmp_path: Path) -> None:
    build(
        BuildConfig(
            corpus=(str(golden / "tiny_corpus"),), vocab=golden / "vocab512.txt", out=tmp_path / "store", held_out=0
        )
    )
    arguments = ["--format", "tfrecord", "--seq-len", "32", "--shards", "1", "--seed", "12345"]
    assert cli.main(["export", str(tmp_path / "store"), "--out", str(tmp_path / "out"), *arguments]) == 0
    assert (tmp_path / "out" / "pretrain_data.tfrecord-0-of-1").read_bytes() == (golden / "tiny.tfrecord").read_bytes()


# -------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("kind", ["packed", "unpacked", "aws", "gzip", "reordered", "extra"])
def test_every_way_to_write_a_record_is_read(kind: str, config: BuildConfig) -> None:
    rows = random_rows(300, 24, names=AWS_NAMES if kind == "aws" else NAMES)
    written = rows
    if kind == "reordered":
        written = [dict(random.Random(number).sample(list(row.items()), 3)) for number, row in enumerate(rows)]
    if kind == "extra":
        written = [{"label": [number], **row} for number, row in enumerate(rows)]
    data = framed(*(example(row, packed=kind != "unpacked") for row in written))
    Path(config.corpus[0]).write_bytes(gzip.compress(data) if kind == "gzip" else data)
    expected = [dict(zip(NAMES, row.values(), strict=True)) for row in rows]
    assert file_rows(Path(config.corpus[0])) == expected
    assert in_order(store_rows(load(config), 24)) == in_order(expected)


def test_serialise_equals_the_naive_writer() -> None:
    rows = random_rows(50, 40, vocab=300_000)
    arrays = [np.array([row[name] for row in rows]) for name in NAMES]
    order = ("input_mask", "input_ids", "segment_ids")
    expected = [example({name: row[name] for name in order}) for row in rows]
    assert serialise(*arrays) == expected
    assert b"".join(map(frame, expected)) == framed(*expected)


def test_records_across_the_blocks_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(40, 24)
    path = tmp_path / "x.tfrecord"
    path.write_bytes(framed(*map(example, rows)))
    for size in (1, 7, 100, 1000):
        monkeypatch.setattr("electra.interop.tfrecord._READ_BYTES", size)
        assert file_rows(path) == rows
        assert next(block.first for block in read_rows(path)) == 1


def test_store_to_records_to_store(tmp_path: Path) -> None:
    """A store of text -> Google's rows in shards -> a store of rows -> TFRecords -> the same store and records."""
    documents = random_documents(200, seed=5)
    text = make_store(tmp_path / "text", documents)
    receipt = export_records(text, tmp_path / "records", 64, shards=7, seed=4)
    paths = find_records([str(tmp_path / "records")])
    assert [path.name for path in paths] == [f"pretrain_data.tfrecord-{shard}-of-7" for shard in range(7)]
    expected = [row(*segments, 64) for segments in google_examples(documents, 64, random.Random(4))]
    assert receipt["rows"] == len(expected)
    for shard, path in enumerate(paths):
        assert file_rows(path) == expected[shard::7]

    def imported(source: Path, out: Path) -> Store:
        return load(
            BuildConfig(corpus=(str(source),), vocab=tmp_path / "text-vocab" / "vocab.txt", out=out, held_out=0)
        )

    first = imported(tmp_path / "records", tmp_path / "first")
    assert in_order(store_rows(first, 64)) == in_order(expected)
    export_records(first, tmp_path / "again", 64, shards=1)
    second = imported(tmp_path / "again", tmp_path / "second")
    assert first.summary["shards"] == second.summary["shards"] and first.summary["files"] == second.summary["files"]
    assert read_documents(first) == read_documents(second)
    # As documents they serve any length.
    packed = Rows(first, RowsConfig(seq_len=128), seed=0)
    assert packed.tokens_per_epoch == sum(sum(row["input_mask"]) - 2 - (1 in row["segment_ids"]) for row in expected)


def test_held_out_rows_are_apart_and_left_out(config: BuildConfig) -> None:
    rows = random_rows(200, 24)
    Path(config.corpus[0]).write_bytes(framed(*map(example, rows)))
    store = load(dataclasses.replace(config, held_out=0.1))
    training, held_out = store_rows(store, 24), store_rows(store, 24, held_out=True)
    assert len(held_out) > 5 and in_order(training + held_out) == in_order(rows)
    receipt = export_records(store, config.out.with_name("out"), 24, shards=1)
    assert receipt["rows"] == len(training) and receipt["held_out_documents_left_out"] == len(held_out)


def test_shards_of_a_store_with_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More records than are kept in memory, rows out of several shards of the store, shards without a row."""
    text = make_store(tmp_path / "text", random_documents(300), shard_tokens=1000)
    monkeypatch.setattr(record_store, "_WRITE_BYTES", 1000)
    monkeypatch.setattr(record_store, "_WRITE_ROWS", 10)
    rows = export_records(text, tmp_path / "a", 32, shards=1)["rows"]
    assert export_records(text, tmp_path / "b", 32, shards=rows + 1)["rows"] == rows
    whole = file_rows(tmp_path / "a" / "pretrain_data.tfrecord-0-of-1")
    paths = find_records([str(tmp_path / "b")])
    assert len(paths) == rows + 1 and paths[-1].stat().st_size == 0
    assert [row for path in paths for row in file_rows(path)] == whole
    # By itself: a thousand rows or so a shard.
    assert len(find_records([str(tmp_path / "b")])) > 1
    assert export_records(text, tmp_path / "c", 32)["shards"] == 1 + text.num_tokens // 32_000


def test_padding_is_zero_in_the_file_whatever_pad_is(tmp_path: Path) -> None:
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join([*"abcde", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]"]) + "\n")
    text = tmp_path / "text.txt"
    text.write_text("a b c\n\nd e\n")
    (tmp_path / "corpus.txt").write_text("a b c\nd e\n")
    build(BuildConfig(corpus=(str(text),), vocab=vocab, out=tmp_path / "store", held_out=0))
    export_records(Store.open(tmp_path / "store"), tmp_path / "out", 8, shards=1)
    (path,) = find_records([str(tmp_path / "out")])
    rows = file_rows(path)
    assert [row["input_ids"][-1] for row in rows] == [0, 0]
    imported = load(BuildConfig(corpus=(str(path),), vocab=vocab, out=tmp_path / "imported", held_out=0))
    assert {row["input_ids"][-1] for row in store_rows(imported, 8)} == {9}
    export_records(imported, tmp_path / "again", 8, shards=1)
    assert file_rows(tmp_path / "again" / path.name) == rows


def test_rows_that_awss_builder_cuts_or_does_not_mark(config: BuildConfig) -> None:
    whole = row([5, 6, SEP, 7, 8], [], 12, AWS_NAMES)  # two segments that token_type_ids do not tell apart
    cut = dict(whole, input_ids=[CLS, *range(10, 21)], attention_mask=[1] * 12)
    Path(config.corpus[0]).write_bytes(framed(example(whole), example(cut)))
    with pytest.warns(UserWarning) as warned:
        store = load(config)
    assert any("1 of 2 rows end without [SEP]" in str(one.message) for one in warned)
    assert any("1 of 2 rows hold [CLS] or [SEP] within a segment" in str(one.message) for one in warned)
    found = [row["input_ids"] for row in in_order(store_rows(store, 12))]
    assert found == [whole["input_ids"], [CLS, *range(10, 20), SEP]]


# --------------------------------------------------------------------------------------------------- which files


def test_find_records(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    names = ["a.tfrecord", "b.tfrecords.gz", "deep/x.tfrecord-2-of-11", "deep/x.tfrecord-10-of-11"]
    for name in [*names, "notes.md", ".hidden.tfrecord", "records.json", "a.tfrecord.index"]:
        (folder / name).touch()
    expected = [folder / name for name in names]
    assert find_records([str(folder)]) == expected
    assert find_records([str(folder / "deep/x.tfrecord-*"), str(folder / "a.tfrecord")]) == [*expected[2:], expected[0]]
    assert find_records([str(folder / "deep"), str(folder / "deep")]) == expected[2:]
    (tmp_path / "corpus.txt").touch()
    assert find_records([str(tmp_path / "corpus.txt"), "nothing*"]) == []
    with pytest.raises(ValueError, match=r"a\.tfrecord is a TFRecord but .*corpus\.txt is not: name files of one kind"):
        find_records([str(folder), str(tmp_path / "corpus.txt")])
    (folder / "vocab.txt").touch()
    with pytest.raises(ValueError, match=r"a\.tfrecord is a TFRecord but .*vocab\.txt is not"):
        find_records([str(folder)])
    with pytest.raises(ValueError, match=r"missing\.tfrecord' matches no file or folder: check the name"):
        find_records([str(tmp_path / "missing.tfrecord")])


# ------------------------------------------------------------------------------------------------------ bad input


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


GOOD = [example(row) for row in random_rows(3, 24)]
ALL = framed(*GOOD)
SECOND = len(framed(GOOD[0]))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (ALL[:-1], rf"ends within record 3 \(at byte {len(framed(*GOOD[:2]))}\): copy it again"),
        (ALL[: SECOND + 5], rf"ends within record 2 \(at byte {SECOND}\)"),
        (flipped(ALL, SECOND + 40), rf"record 2 \(at byte {SECOND}\) has a wrong checksum"),
        (flipped(ALL, SECOND + 2), rf"record 2 \(at byte {SECOND}\) has a wrong checksum"),
        (flipped(ALL, len(ALL) - 1), r"record 3 \(at byte \d+\) has a wrong checksum"),
        (b"some text that is longer than a header\n" * 9, r"rows\.tfrecord is not a TFRecord file"),
        (gzip.compress(ALL)[:-20], r"is damaged or truncated \(.*\): copy it again"),
        (b"", "holds no records"),
        (framed(GOOD[0], b"\xff\xff"), "record 2 is not a pre-training row: it is no tf.train.Example"),
        (framed(GOOD[0], field(1, b"\x0a\x7f")), "record 2 is not a pre-training row: it is no tf.train.Example"),
        (framed(b""), r"record 1 is not .*: it has no integers called input_ids \(its features: none\)"),
        (
            framed(GOOD[0], example({"input_ids": [1] * 24, "segment_ids": [0] * 24})),
            r"record 2 .* no integers called input_mask or attention_mask \(its features: input_ids, segment_ids\)",
        ),
        (framed(example(row([5], [], 24) | {"masked_lm_positions": [3]})), "a masked row of BERT's builder"),
        (framed(GOOD[0], *map(example, random_rows(1, 32))), "record 2 has 32 input_ids where the file's first has 24"),
        (
            framed(example(row([5], [], 24) | {"input_mask": [1]})),
            "record 1 has 1 input_mask where .* has 24",
        ),
        (
            framed(GOOD[0], example(row([5, 1000], [], 24))),
            "record 2 has the id 1000, but .* has only 1,000",
        ),
        (framed(example(row([5, -1], [], 24))), r"record 1 has the id -1, but the vocabulary"),
        (framed(GOOD[0], example(row([], [7], 24))), "record 2 holds no text in one of its segments"),
        (framed(example(row([], [], 24))), "record 1 holds no text"),
        (framed(example(row([5], [], 24) | {"input_mask": [0, 1] * 12})), "record 1 has a mask or segments of another"),
        (framed(example(row([5], [], 24) | {"segment_ids": [1] * 24})), "record 1 has a mask or segments of another"),
        (
            framed(example(row([5, 6], [], 24) | {"input_ids": [101, 5, 6, 102] + [0] * 20})),
            r"record 1 is not \[CLS\] A \[SEP\] B \[SEP\] \(\[CLS\] is 2, \[SEP\] 3; it begins with 101\): "
            "give the vocabulary",
        ),
        (
            framed(example(row([5], [], 24) | {"input_ids": [CLS, 5, SEP] + [9] * 21})),
            "the id 9 where its input_mask",
        ),
    ],
)
def test_bad_records(data: bytes, sentence: str, config: BuildConfig) -> None:
    path = Path(config.corpus[0])
    path.write_bytes(data)
    with pytest.raises(ValueError, match=sentence) as raised:
        build(config)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert not config.out.exists() and not list(config.out.parent.glob(".*"))


def test_files_of_different_lengths(config: BuildConfig) -> None:
    path = Path(config.corpus[0])
    path.write_bytes(ALL)
    path.with_name("z.tfrecord").write_bytes(framed(*map(example, random_rows(2, 32))))
    with pytest.raises(ValueError, match=r"z\.tfrecord holds rows of 32 tokens but .*rows\.tfrecord rows of 24: build"):
        build(dataclasses.replace(config, corpus=(str(path.parent / "*.tfrecord"),)))


def test_rows_of_another_length_and_stores_of_text(config: BuildConfig, tmp_path: Path) -> None:
    Path(config.corpus[0]).write_bytes(ALL)
    store = load(config)
    for length in (16, 32):
        with pytest.raises(ValueError, match=rf"was imported from rows of 24 tokens, not {length}: give --seq-len 24"):
            store_rows(store, length)
        with pytest.raises(ValueError, match="was imported from rows of 24 tokens"):
            export_records(store, tmp_path / "out", length)
    text = make_store(tmp_path / "text", random_documents(5))
    with pytest.raises(ValueError, match="was built from text, not from TFRecords, so it has no rows of its own"):
        store_rows(text, 24)
    assert not (tmp_path / "out").exists()


def test_export_refuses_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    store = make_store(tmp_path / "store", random_documents(50))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(ValueError, match="out exists already: choose another --out, or pass --overwrite"):
        export_records(store, tmp_path / "out", 32)
    with pytest.raises(ValueError, match="--shards must not be negative"):
        export_records(store, tmp_path / "new", 32, shards=-1)
    with pytest.raises(ValueError, match="is not a token store"):
        Store.open(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record_store, "_append", full)
    assert cli.main(["export", str(store.folder), "--format", "tfrecord", "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err == "electra: the disk is full: free some space and try again\n"
    with pytest.raises(OSError):
        export_records(store, tmp_path / "out", 32, overwrite=True)
    assert (tmp_path / "out" / "precious").exists() and not (tmp_path / "new").exists()
    monkeypatch.undo()
    export_records(store, tmp_path / "out", 32, overwrite=True)
    assert not (tmp_path / "out" / "precious").exists()
    assert len(list(read_records(find_records([str(tmp_path / "out")])[0]))) == 1


# -------------------------------------------------------------------------------------------------------- inspect


def test_inspect(config: BuildConfig, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row([5, 6], [7], 16), row([8, 9, 10], [], 16)]
    path = Path(config.corpus[0])
    path.write_bytes(framed(*map(example, rows)))
    assert cli.main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "1 files" in shown and "2 of 16 tokens, 50.0% of them with a segment B" in shown
    assert "5 to 6 tokens, 5.5 on average" in shown and f"{1 - 11 / 32:.2%}" in shown and "largest id   10" in shown
    assert "2 5 6 3 «7 3»" in shown and "2 8 9 10 3\n" in shown
    assert cli.main(["inspect", str(path.parent), "--vocab", str(config.vocab.parent), "--rows", "1"]) == 2
    assert "vocab.txt is not: name files of one kind" in capsys.readouterr().err
    assert cli.main(["inspect", str(path), "--vocab", str(config.vocab), "--rows", "1"]) == 0
    shown = capsys.readouterr().out
    assert "[CLS] a b [SEP] «c [SEP]»" in shown and "d e f" not in shown
    load(config)
    assert cli.main(["inspect", str(config.out)]) == 0
    shown = capsys.readouterr().out
    assert 'from TFRecords, rows of 16 tokens: rows.packing = "rows"' in shown and "[CLS] a b [SEP] «c [SEP]»" in shown
    path.write_bytes(framed(example(row([5, 2000], [], 16))))
    assert cli.main(["inspect", str(path), "--vocab", str(config.vocab)]) == 2
    assert "holds the id 2000 but" in capsys.readouterr().err
    assert cli.main(["inspect", str(config.vocab)]) == 2
    assert "neither a token store, nor a run or model folder, nor TFRecords" in capsys.readouterr().err
