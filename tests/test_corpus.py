"""Files -> lines: every format and compression gives the same lines; every kind of broken input gives one sentence."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import random
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import zstandard

from electra.corpus import (
    Reading,
    Tally,
    Unreadable,
    cut,
    decompress,
    find_files,
    is_divisible,
    read_lines,
    read_range,
    readers,
    text,
)

DOCUMENTS = [["one line", "another line"], ["Zürich \u2028 stays one line \x85 too", "日本語"], ["the end"]]
TEXT = "\n\n".join("\n".join(lines) for lines in DOCUMENTS) + "\n"
LINES = [*DOCUMENTS[0], "", *DOCUMENTS[1], "", *DOCUMENTS[2], ""]

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
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
    wiki = write(tmp_path / "part_00", ("a" + "é" * 10_000).encode())
    assert find_files([str(tmp_path / "part_*")]) == [wiki]
    assert list(read_lines(wiki)) == ["a" + "é" * 10_000, ""]
    write(tmp_path / "part_01", b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(ValueError, match="part_01 is neither text nor of a known format"):
        find_files([str(tmp_path / "part_*")])


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
    plain = write(tmp_path / f"a.txt{compression}", compress(TEXT.encode()))
    jsonl = "\n".join(json.dumps(record, ensure_ascii=False) for record in records()) + "\n\n"
    rows = write(tmp_path / f"a.jsonl{compression}", compress(jsonl.encode()))
    for path in (plain, rows):
        tally = Tally()
        assert list(read_lines(path, tally=tally)) == LINES
        assert tally == Tally(disk_bytes=path.stat().st_size)
    assert is_divisible(plain) == (compression == "") and not is_divisible(rows)


def test_parquet_gives_the_same_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.Table.from_pylist([*records(), {"text": None, "id": "y"}]), path, row_group_size=2)
    assert list(read_lines(path)) == LINES
    parquet.write_table(arrow.table({"body": arrow.array(["one"], arrow.large_string())}), path)
    assert list(read_lines(path, Reading(text_field="body"))) == ["one", ""]


@pytest.mark.parametrize("is_stream", [True, False])
def test_arrow_files_give_the_same_lines(tmp_path: Path, is_stream: bool) -> None:
    """The first is what `datasets` writes: Dataset.save_to_disk."""
    table = arrow.Table.from_pylist([*records(), {"text": None, "id": "y"}])
    path = tmp_path / "set" / "data-00000-of-00001.arrow"
    path.parent.mkdir()
    with (arrow.ipc.new_stream if is_stream else arrow.ipc.new_file)(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    write(tmp_path / "set" / "cache-123.arrow", path.read_bytes())
    assert find_files([str(tmp_path / "set")]) == [path]
    tally = Tally()
    assert list(read_lines(path, tally=tally)) == LINES
    assert tally == Tally(disk_bytes=path.stat().st_size)
    with pytest.raises(Unreadable, match="has no column 'body' but 'text', 'id'"):
        list(read_lines(path, Reading(text_field="body")))
    write(path, path.read_bytes()[:-80])
    with pytest.raises(Unreadable, match="is damaged or no Arrow file"):
        list(read_lines(path))


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
@pytest.mark.parametrize("compression", COMPRESS)
def test_tables_give_the_same_lines(tmp_path: Path, ending: str, compression: str) -> None:
    out = io.StringIO()
    rows = csv.DictWriter(out, ["id", "text"], delimiter="," if ending == ".csv" else "\t")
    rows.writeheader()
    rows.writerows(records())
    path = write(tmp_path / f"a{ending}{compression}", COMPRESS[compression](out.getvalue().encode("utf-8-sig")))
    assert list(read_lines(path)) == LINES


def test_bad_tables(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"id,text\n1,one\n2\n3,three\n")
    with pytest.raises(ValueError, match=r"a.csv: line 3 has 1 fields where the header has 2"):
        list(read_lines(path))
    tally = Tally()
    assert list(read_lines(path, Reading(on_error="skip"), tally)) == ["one", "", "three", ""] and tally.skipped == 1
    with pytest.raises(Unreadable, match=r"a.csv has no column 'body' but 'id', 'text'"):
        list(read_lines(path, Reading(text_field="body")))
    monster = write(tmp_path / "b.csv", b'text\n"' + b"x" * 2**25)
    with pytest.raises(Unreadable, match=r"b.csv: line \d+ is no row of a table"):
        list(read_lines(monster))


def tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def test_archives_in_archives_as_openwebtext_has_them(tmp_path: Path) -> None:
    first = {f"00000{i}.txt": ("\n\n".join(lines)).encode() for i, lines in enumerate(DOCUMENTS[:2])}
    second = {"a/more.jsonl.gz": gzip.compress(json.dumps({"text": "\n".join(DOCUMENTS[2])}).encode())}
    ignored = {"picture.jpg": b"\xff\xd8\0", "a/.hidden.txt": b"no", "x.parquet": b"PAR1"}
    subsets = {"owt/subset00_data.xz": lzma.compress(tar(first | ignored)), "owt/b.tar": tar(second)}
    whole, all_subsets = Reading(documents="files"), tar(subsets)
    packed = {"owt.tar.xz": lzma.compress(all_subsets), "owt.tar": all_subsets, "o.tgz": gzip.compress(all_subsets)}
    for name, data in packed.items():
        path, tally = write(tmp_path / name, data), Tally()
        assert find_files([str(path)]) == [path] and not is_divisible(path)
        assert list(read_lines(path, whole, tally)) == LINES
        assert tally == Tally(disk_bytes=path.stat().st_size)
    alone = write(tmp_path / "urlsf_subset00-1_data.xz", subsets["owt/subset00_data.xz"])
    assert find_files([str(alone)]) == [alone]
    assert list(read_lines(alone, whole)) == [*DOCUMENTS[0], "", *DOCUMENTS[1], ""]
    with pytest.raises(Unreadable, match=r"owt.tar is damaged or cut short"):
        list(read_lines(write(tmp_path / "owt.tar", all_subsets[:700])))


def test_wikiextractor(tmp_path: Path) -> None:
    marked = "".join(
        f'<doc id="{i}" url="https://x.org/?curid={i}" title="T">\n' + "\n\n".join(lines) + "\n\n</doc>\n"
        for i, lines in enumerate(DOCUMENTS)
    )
    rows = "\n".join(json.dumps(record) for record in records()) + "\n"
    plain = write(tmp_path / "AA" / "wiki_00", marked.encode())
    packed = write(tmp_path / "AA" / "wiki_01.bz2", bz2.compress(marked.encode()))
    json_rows = write(tmp_path / "AB" / "wiki_02", rows.encode())
    write(tmp_path / "AB" / "wiki.log", b"no text")
    assert find_files([str(tmp_path)]) == [plain, packed, json_rows]
    for path in (plain, packed, json_rows):
        assert "\n".join(read_lines(path)).strip().replace("\n\n\n", "\n\n") == "\n".join(LINES).strip()
    assert is_divisible(plain) and not is_divisible(packed) and not is_divisible(json_rows)
    ranges = [line for start, stop in cut(plain, 50) for line in read_range(plain, start, stop)]
    assert [*ranges, ""] == list(read_lines(plain))


def test_what_ends_a_document_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\ntwo\n\nthree\n")
    assert list(read_lines(path, Reading(documents="files"))) == ["one", "two", "three", ""]
    assert list(read_lines(path, Reading(documents="lines"))) == ["one", "", "two", "", "three", "", ""]


def test_very_long_lines_are_cut_at_spaces_or_between_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "READ_BYTES", 64)
    monkeypatch.setattr(text, "LONG_LINE", 200)
    monkeypatch.setattr(readers, "LONG_LINE", 200)
    words = " ".join(f"wörd{i}" for i in range(300))
    for line in (words, "日本" * 500):
        path = write(tmp_path / "a.txt", f"short\n{line}\nend\n".encode())
        packed = write(tmp_path / "a.txt.gz", gzip.compress(path.read_bytes()))
        ranged = [line for start, stop in cut(path, 100) for line in read_range(path, start, stop)]
        assert len(list(cut(path, 100))) > 5
        for lines in (list(read_lines(path)), list(read_lines(packed)), ranged):
            assert max(len(line.encode()) for line in lines) <= 200 + 100 + 2 * 64
            assert lines[0] == "short" and "end" in lines[-2:]
            joiner = " " if line == words else ""
            assert (
                joiner.join(lines).strip().split() == ["short", *line.split(), "end"]
                if joiner
                else line in "".join(lines)
            )


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst", ".bz2"])
def test_what_can_be_read_of_a_damaged_file_is_kept(tmp_path: Path, compression: str) -> None:
    draw = random.Random(0)
    lines = ["".join(draw.choices("abcdefgh", k=70)) for _ in range(60_000)]
    whole = COMPRESS[compression]("\n".join(lines).encode())
    path, tally = write(tmp_path / f"a.txt{compression}", whole[: len(whole) // 2]), Tally()
    found = list(read_lines(path, Reading(on_error="skip"), tally))
    assert 10_000 < len(found) < 60_000 and found[-1] == "" and found[:-1] == lines[: len(found) - 1]
    assert len(tally.faults) == 1 and f"a.txt{compression} is damaged or cut short" in tally.faults[0]


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "gone.txt"
    with pytest.raises(OSError, match=r"gone.txt"):
        list(read_lines(path))
    tally = Tally()
    assert list(read_lines(path, Reading(on_error="skip"), tally)) == [""] and "gone.txt" in tally.faults[0]


def test_several_frames_in_one_compressed_file_are_read_to_the_end(tmp_path: Path) -> None:
    for compression in (".gz", ".xz", ".zst", ".bz2"):
        compress = COMPRESS[compression]
        path = write(tmp_path / f"a.txt{compression}", compress(b"one\n") + compress(b"two\n"))
        assert list(read_lines(path)) == ["one", "two", ""]


def test_line_ends_marks_and_blanks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbf one \r\n\t\r\n\r\ntwo\r\nthree")
    assert list(read_lines(path)) == ["one", "", "", "two", "three", ""]
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "one\\n\\n two"}\r\n{"text": null}\n')
    assert list(read_lines(path)) == ["one", "two", "", ""]


def test_lines_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "READ_BYTES", 7)
    path = write(tmp_path / "a.txt", TEXT.encode())
    assert list(read_lines(path)) == LINES


@pytest.mark.parametrize("size", [1, 5, 17, 40, 1000])
def test_ranges_put_together_are_the_file(tmp_path: Path, size: int) -> None:
    for whole in (TEXT, TEXT.rstrip("\n"), "\n\n" + TEXT, "x" * 100, "a\n\n\nb\n"):
        path = write(tmp_path / "a.txt", whole.encode())
        ranges = list(cut(path, size))
        assert ranges[0][0] == 0 and ranges[-1][1] == len(whole.encode())
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
        assert list(read_lines(path, Reading(on_error="replace"))) == [*expected, ""]


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("compression", COMPRESS)
def test_broken_utf8_is_found_replaced_or_left_out(tmp_path: Path, compression: str) -> None:
    data = b"good line\n\nbad \xff here\nbad again \xe3\x81\nlast\n"
    path = write(tmp_path / f"a.txt{compression}", COMPRESS[compression](data))
    with pytest.raises(ValueError, match=f"a.txt{compression}: byte 15 is not UTF-8"):
        list(read_lines(path))
    tally = Tally()
    replaced = ["good line", "", "bad \ufffd here", "bad again \ufffd", "last", ""]
    assert list(read_lines(path, Reading(on_error="replace"), tally=tally)) == replaced
    assert (tally.replaced, tally.skipped) == (2, 0)
    tally = Tally()
    assert list(read_lines(path, Reading(on_error="skip"), tally=tally)) == ["good line", "", "last", ""]
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
        good, end, bad, end2, half, end3 = read_lines(path, Reading(on_error="replace"), tally=tally)
        assert (good, end, bad, end2, end3) == ("good", "", "b\ufffdd", "", "")
        assert re.fullmatch("half \ufffd+", half) and tally.replaced == 2
        tally = Tally()
        assert [line for line in read_lines(path, Reading(on_error="skip"), tally=tally) if line] == ["good"]
        assert tally.skipped == 2


@pytest.mark.parametrize("data", [b"\x7fELF\x02\x01\0\0rest", "utf-16 text\n".encode("utf-16"), b"\xff\xfea\0"])
def test_binary_files_and_utf16_are_refused(tmp_path: Path, data: bytes) -> None:
    for name in ("a.txt", "a.jsonl", "a.csv"):
        path, tally = write(tmp_path / name, data), Tally()
        with pytest.raises(Unreadable, match=f"{name} is not UTF-8 text but binary, or UTF-16"):
            list(read_lines(path))
        assert list(read_lines(path, Reading(on_error="skip"), tally)) == [""]
        assert len(tally.faults) == 1 and name in tally.faults[0]
    with pytest.raises(Unreadable, match=r"a.txt is not UTF-8 text but binary"):
        list(cut(tmp_path / "a.txt", 5))


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst", ".bz2"])
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
        tally = Tally()
        assert list(read_lines(path, Reading(on_error="skip"), tally)) == ["fine", ""] and tally.skipped == 1
    table = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"body": ["x"], "n": [1]}), table)
    with pytest.raises(ValueError, match=r"a.parquet has no column 'text' but 'body', 'n'"):
        list(read_lines(table))
    with pytest.raises(ValueError, match="column 'n' is not text but int64"):
        list(read_lines(table, Reading(text_field="n")))
    with pytest.raises(ValueError, match=r"a.parquet is damaged or no parquet file"):
        list(read_lines(write(table, b"PAR1 and nothing else")))
