"""Rows of the three formats, and bytes and lines that are not as they should be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from electra.tasks.problems import Problems
from electra.tasks.tables import read_table, read_text


def rows_of(path: Path, data: str | bytes, **options: object) -> list[tuple[int, dict[str, str]]]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read_table(path, **options))


def test_line_ends_and_odd_characters(tmp_path: Path) -> None:
    found = rows_of(tmp_path / "a.tsv", "\ufefftext\tlabel\r\none\u2028line\x85\t1\r\n\t0")
    assert found == [(2, {"text": "one\u2028line\x85", "label": "1"}), (3, {"text": "", "label": "0"})]


def test_quotes_of_tab_separated_files_are_text(tmp_path: Path) -> None:
    found = rows_of(tmp_path / "a.tsv", 'text\tlabel\n"open\t1\n"a" b\t2\n', problems=Problems())
    assert [row["text"] for _, row in found] == ['"open', '"a" b']


def test_csv_row_may_span_lines(tmp_path: Path) -> None:
    found = rows_of(tmp_path / "a.csv", 'text,label\n"two\nlines",1\nx,2\n')
    assert [row["text"] for _, row in found] == ["two\nlines", "x"]


def test_json_values_become_text(tmp_path: Path) -> None:
    found = rows_of(tmp_path / "a.jsonl", '{"text": null, "label": 3, "names": ["가"]}\n')
    assert found == [(1, {"text": "", "label": "3", "names": '["가"]'})]


def test_a_header_may_be_given(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "a.tsv", "x\t1\n", header=("text", "label")) == [(1, {"text": "x", "label": "1"})]


@pytest.mark.parametrize(
    ("name", "data", "texts", "fault", "line"),
    [
        ("a.tsv", "text\tlabel\nx\t1\ny\nz\t1\t2\nw\t3\n", ["x", "w"], "another number of columns than 2: left out", 3),
        ("a.tsv", "text\tlabel\nx\t1\n\n \t\ny\t2\n", ["x", "y"], "empty lines: left out", 3),
        ("a.tsv", b"text\tlabel\nx\xff\t1\ny\t2\n", ["x\ufffd", "y"], "not UTF-8: their wrong bytes are replaced", 2),
        ("a.tsv", "text\tlabel\nx\0z\t1\ny\t2\n", ["xz", "y"], "lines with NUL bytes: these are removed", 2),
        ("a.csv", 'text,label\n"a"b,1\ny,2\n', ["y"], "rows that are not valid CSV", 2),
        ("a.csv", "text,label\nx,1,3\n\ny,2\n", ["y"], "another number of columns than 2: left out", 2),
        ("a.jsonl", '{"text": "x"\n[1]\n{"text": "y"}\n', ["y"], "not a JSON object", 1),
    ],
)
def test_faults_of_rows_are_counted(
    tmp_path: Path, name: str, data: str | bytes, texts: list[str], fault: str, line: int
) -> None:
    problems = Problems()
    assert [row["text"] for _, row in rows_of(tmp_path / name, data, problems=problems)] == texts
    sentence = problems.sentences()[0]
    assert fault in sentence
    assert f"{name}, line {line}" in sentence
    with pytest.raises(ValueError, match=r"--strict: .*correct the files"):
        problems.refuse()


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.tsv", b"text\tlabel\nx\n", "line 2: 1 columns where 2"),
        ("a.tsv", b"text\n\xff\n", r"is not UTF-8 text \(byte 5\)"),
        ("a.csv", b'text,label\n"a"b,1\n', "line 2: not valid CSV"),
        ("a.jsonl", b"{\n", "line 1: not valid JSON"),
        ("a.jsonl", b"[1]\n", "line 1: a line must be a JSON object"),
    ],
)
def test_without_a_count_a_fault_is_an_error(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        rows_of(tmp_path / name, data)


@pytest.mark.parametrize(
    ("encode", "sentence"),
    [
        (lambda text: text.encode("utf-16"), "is not UTF-8 but UTF-16"),
        (lambda text: text.encode("utf-16-le"), "is not UTF-8 but UTF-16"),
        (lambda text: text.encode("cp949"), r"\(40 of 42 lines are not; it could be CP949"),
    ],
)
def test_a_file_in_another_encoding_is_an_error(tmp_path: Path, encode: Callable[[str], bytes], sentence: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(encode("text\tlabel\n" + "영화가 좋다\t1\n" * 40))
    with pytest.raises(ValueError, match=sentence):
        read_text(path, Problems())


def test_a_quote_that_is_never_closed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.csv, line 3: not valid CSV \(unexpected end of data\)"):
        rows_of(tmp_path / "a.csv", 'text,label\nx,1\n"y,2\nz,3\n', problems=Problems())


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"b.tsv does not exist"):
        read_text(tmp_path / "b.tsv")
    with pytest.raises(ValueError, match="is a folder where a file belongs"):
        read_text(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [("a.tsv", "text\tlabel\tlabel\nx\t1\t2\n"), ("a.csv", "text,,,text\nx,,,y\n")]
)
def test_two_columns_of_one_name_are_an_error(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"line 1: two columns are called '(label|text)'"):
        list(read_table(tmp_path / name, problems=Problems()))
