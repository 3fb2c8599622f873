"""The zip file of GLUE predictions."""

import zipfile
from pathlib import Path

import pytest

from electra.tasks.sentences.glue import FOLDERS, SUBMISSION, TASKS, zip_submission


def write_predictions(folder: Path, name: str, rows: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("index\tprediction\n" + "".join(f"{i}\t0\n" for i in range(rows)))


def test_every_task_has_its_file() -> None:
    assert {part.submission for task in TASKS for part in task.parts if part.submission} == set(SUBMISSION)
    assert [task.name for task in TASKS] == list(FOLDERS)


def test_a_zip_of_what_is_there(tmp_path: Path) -> None:
    tree = tmp_path / "runs"
    write_predictions(tree / "cola" / "predictions", "CoLA.tsv", 1063)
    write_predictions(tree / "cola" / "seed-0" / "predictions", "CoLA.tsv", 3)
    write_predictions(tree / "wnli" / "predictions", "WNLI.tsv", 145)
    lacks = zip_submission(tree, tmp_path / "submission.zip")
    assert "the right number of rows in WNLI.tsv (145, not 146)" in lacks
    assert len(lacks) == 10
    assert "AX.tsv" in lacks
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.namelist() == ["CoLA.tsv", "WNLI.tsv"]
        assert archive.read("CoLA.tsv") == (tree / "cola" / "predictions" / "CoLA.tsv").read_bytes()
    before = (tmp_path / "submission.zip").read_bytes()
    zip_submission(tree, tmp_path / "submission.zip")
    assert (tmp_path / "submission.zip").read_bytes() == before


def test_a_whole_submission_lacks_nothing(tmp_path: Path) -> None:
    for name, rows in SUBMISSION.items():
        write_predictions(tmp_path / "all", name, rows)
    assert zip_submission(tmp_path / "all", tmp_path / "submission.zip") == []


def test_what_cannot_be_zipped(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no predictions for GLUE"):
        zip_submission(tmp_path, tmp_path / "submission.zip")
    for seed in (0, 1):
        write_predictions(tmp_path / f"seed-{seed}", "RTE.tsv", 3000)
    with pytest.raises(ValueError, match=r"both predictions for RTE.tsv: keep one"):
        zip_submission(tmp_path, tmp_path / "submission.zip")
