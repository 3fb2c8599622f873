"""Files -> lines: every format and compression gives the same lines; every kind of broken input gives one sentence."""

import gzip
import itertools
import json
import lzma
import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import zstandard

from electra import corpus
from electra.corpus import Tally, cut, find_files, is_divisible, read_lines, read_range

DOCUMENTS = [["one line", "another line"], ["Zürich \u2028 stays one line \x85 too", "日本語"], ["the end"]]
TEXT = "\n\n".join("\n".join(lines) for lines in DOCUMENTS) + "\n"
LINES = [*DOCUMENTS[0], "", *DOCUMENTS[1], "", *DOCUMENTS[2], ""]

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def records() -> list[dict[str, str]]:
    return [{"text": "\n".join(lines), "id": "x"} for lines in DOCUMENTS]


# ------------------------------------------------------------------------------------------------------ files


def test_find_files_sorts_within_an_argument_and_drops_duplicates(tmp_path: Path) -> None:
    names = ["b/2.txt", "b/1.jsonl", "b/deep/er/3.txt.gz", "b/.hidden/4.txt", "b/.5.txt", "b/image.png", "a.parquet"]
    for name in names:
        write(tmp_path / name, b"x")
    found = find_files([str(tmp_path / "b"), str(tmp_path / "a*"), str(tmp_path / "b/2.txt")])
    relative = [path.relative_to(tmp_path).as_posix() for path in found]
    assert relative == ["b/1.jsonl", "b/2.txt", "b/deep/er/3.txt.gz", "a.parquet"]


def test_a_named_file_may_have_any_ending_if_it_is_text(tmp_path: Path) -> None:
    # The head ends within a character: that must not make a text look binary.
    wiki = write(tmp_path / "wiki_00", ("a" + "é" * 10_000).encode())
    assert find_files([str(tmp_path / "wiki_*")]) == [wiki]
    assert list(read_lines(wiki)) == ["a" + "é" * 10_000, ""]
    write(tmp_path / "wiki_01", b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(ValueError, match="wiki_01 is neither text nor of a known format"):
        find_files([str(tmp_path / "wiki_*")])


def test_find_files_reports_what_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing.txt' matches no file or folder"):
        find_files([str(tmp_path / "nothing.txt")])
    write(tmp_path / "folder/picture.png", b"x")
    with pytest.raises(ValueError, match=r"folder' has no files ending in .txt"):
        find_files([str(tmp_path / "folder")])


def test_a_name_with_brackets_is_taken_literally(tmp_path: Path) -> None:
    path = write(tmp_path / "wiki[1].txt", b"x")
    assert find_files([str(path)]) == [path]


# ---------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("compression", COMPRESS)
def test_every_format_and_compression_gives_the_same_lines(tmp_path: Path, compression: str) -> None:
    compress = COMPRESS[compression]
    text = write(tmp_path / f"a.txt{compression}", compress(TEXT.encode()))
    jsonl = "\n".join(json.dumps(record, ensure_ascii=False) for record in records()) + "\n\n"
    rows = write(tmp_path / f"a.jsonl{compression}", compress(jsonl.encode()))
    for path in (text, rows):
        tally = Tally()
        assert list(read_lines(path, tally=tally)) == LINES
        assert tally == Tally(disk_bytes=path.stat().st_size)
    assert is_divisible(text) == (compression == "") and not is_divisible(rows)


def test_parquet_gives_the_same_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.Table.from_pylist([*records(), {"text": None, "id": "y"}]), path, row_group_size=2)
    assert list(read_lines(path)) == LINES
    parquet.write_table(arrow.table({"body": arrow.array(["one"], arrow.large_string())}), path)
    assert list(read_lines(path, text_field="body")) == ["one", ""]


def test_several_frames_in_one_compressed_file_are_read_to_the_end(tmp_path: Path) -> None:
    for compression in (".gz", ".xz", ".zst"):
        compress = COMPRESS[compression]
        path = write(tmp_path / f"a.txt{compression}", compress(b"one\n") + compress(b"two\n"))
        assert list(read_lines(path)) == ["one", "two", ""]


def test_line_ends_marks_and_blanks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbf one \r\n\t\r\n\r\ntwo\r\nthree")
    assert list(read_lines(path)) == ["one", "", "", "two", "three", ""]
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "one\\n\\n two"}\r\n{"text": null}\n')
    assert list(read_lines(path)) == ["one", "two", "", ""]


def test_lines_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_READ_BYTES", 7)
    path = write(tmp_path / "a.txt", TEXT.encode())
    assert list(read_lines(path)) == LINES


@pytest.mark.parametrize("size", [1, 5, 17, 40, 1000])
def test_ranges_put_together_are_the_file(tmp_path: Path, size: int) -> None:
    for text in (TEXT, TEXT.rstrip("\n"), "\n\n" + TEXT, "x" * 100, "a\n\n\nb\n"):
        path = write(tmp_path / "a.txt", text.encode())
        ranges = list(cut(path, size))
        assert ranges[0][0] == 0 and ranges[-1][1] == len(text.encode())
        assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))
        lines = [line for start, stop in ranges for line in read_range(path, start, stop)]
        assert [*lines, ""] == list(read_lines(path))
    assert list(cut(write(tmp_path / "empty.txt", b""), size)) == []


def test_agrees_with_a_naive_reader_on_random_bytes(tmp_path: Path) -> None:
    draw = random.Random(0)
    alphabet = [b"a", b"\n", b"\r", b" ", "é".encode(), "한".encode(), "😀".encode(), b"\xff", b"\xe3\x81", b"\0"]
    for _ in range(200):
        data = b"x" * 9000 + b"".join(draw.choices(alphabet, k=60))
        path = write(tmp_path / "a.txt", data)
        raw = data.removesuffix(b"\n").split(b"\n")
        expected = [line.decode(errors="replace").replace("\0", "\ufffd").strip() for line in raw]
        assert list(read_lines(path, on_error="replace")) == [*expected, ""]


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("compression", COMPRESS)
def test_broken_utf8_is_found_replaced_or_left_out(tmp_path: Path, compression: str) -> None:
    data = b"good line\n\nbad \xff here\nbad again \xe3\x81\nlast\n"
    path = write(tmp_path / f"a.txt{compression}", COMPRESS[compression](data))
    with pytest.raises(ValueError, match=f"a.txt{compression}: byte 15 is not UTF-8"):
        list(read_lines(path))
    tally = Tally()
    replaced = ["good line", "", "bad \ufffd here", "bad again \ufffd", "last", ""]
    assert list(read_lines(path, on_error="replace", tally=tally)) == replaced
    assert (tally.replaced, tally.skipped) == (2, 0)
    tally = Tally()
    assert list(read_lines(path, on_error="skip", tally=tally)) == ["good line", "", "last", ""]
    assert (tally.replaced, tally.skipped) == (0, 2)


def test_the_offset_counts_from_the_start_of_the_file(tmp_path: Path) -> None:
    data = b"line\n" * 400_000 + b"br\xf0ken\n"
    path = write(tmp_path / "a.txt", data)
    sentence = "byte 2000002 is not UTF-8"
    with pytest.raises(ValueError, match=sentence):
        list(read_lines(path))
    *_, (start, stop) = cut(path, 1 << 20)
    with pytest.raises(ValueError, match=sentence):
        list(read_range(path, start, stop))


def test_broken_utf8_in_records(tmp_path: Path) -> None:
    rows = write(tmp_path / "a.jsonl", b'{"text": "good"}\n{"text": "b\xffd"}\n{"text": "half \\ud800"}\n')
    table = tmp_path / "a.parquet"
    strings = arrow.array([b"good", b"b\xffd", b"half \xed\xa0\x80"], arrow.binary()).view(arrow.string())
    parquet.write_table(arrow.table({"text": strings}), table)
    for path, place in ((rows, "a.jsonl: byte 28 is"), (table, "a.parquet: record 2, byte 1 is")):
        with pytest.raises(ValueError, match=place):
            list(read_lines(path))
        tally = Tally()
        good, end, bad, end2, half, end3 = read_lines(path, on_error="replace", tally=tally)
        assert (good, end, bad, end2, end3) == ("good", "", "b\ufffdd", "", "")
        assert re.fullmatch("half \ufffd+", half) and tally.replaced == 2
        tally = Tally()
        assert [line for line in read_lines(path, on_error="skip", tally=tally) if line] == ["good"]
        assert tally.skipped == 2


@pytest.mark.parametrize("data", [b"\x7fELF\x02\x01\0\0rest", "utf-16 text\n".encode("utf-16"), b"\xff\xfea\0"])
def test_binary_files_and_utf16_are_refused(tmp_path: Path, data: bytes) -> None:
    for on_error in ("fail", "replace", "skip"):
        for name in ("a.txt", "a.jsonl"):
            with pytest.raises(ValueError, match=f"{name} is not UTF-8 text but binary, or UTF-16"):
                list(read_lines(write(tmp_path / name, data), on_error=on_error))


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
def test_damaged_compressed_files(tmp_path: Path, compression: str) -> None:
    draw = random.Random(0)
    whole = COMPRESS[compression](bytes(draw.choices(b"abcdefgh \n", k=300_000)))
    junk_inside = whole[:1000] + b"junk" * 9 + whole[1036:]
    for data in (whole[: len(whole) // 2], whole[:-1], b"no compressed file", junk_inside):
        path = write(tmp_path / f"a.txt{compression}", data)
        with pytest.raises(ValueError, match=f"a.txt{compression} is damaged or cut short"):
            list(read_lines(path))


def test_bad_records(tmp_path: Path) -> None:
    for line, sentence in {
        '{"body": "x", "id": 1}': r"a.jsonl: line 2 has no 'text' but 'body', 'id'",
        '{"text": 3}': "line 2: 'text' is not text but int",
        '["text"]': "line 2 is not a JSON object but list",
        '{"text": "x"': "line 2 is not JSON",
    }.items():
        path = write(tmp_path / "a.jsonl", b'{"text": "fine"}\n' + line.encode())
        with pytest.raises(ValueError, match=sentence):
            list(read_lines(path))
    table = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"body": ["x"], "n": [1]}), table)
    with pytest.raises(ValueError, match=r"a.parquet has no column 'text' but 'body', 'n'"):
        list(read_lines(table))
    with pytest.raises(ValueError, match="column 'n' is not text but int64"):
        list(read_lines(table, text_field="n"))
    with pytest.raises(ValueError, match=r"a.parquet is damaged or no parquet file"):
        list(read_lines(write(table, b"PAR1 and nothing else")))
