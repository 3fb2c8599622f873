"""Several tasks and several settings from one command, and tables over runs."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
from test_finetune import config_for, keyword_data, model_folder, sentences  # noqa: F401  (fixtures)

from electra.cli import main
from electra.config import FinetuneConfig
from electra.suite import compare, grid_points, run, task_names, task_rows


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks in the layout of GLUE, small."""
    folder = tmp_path_factory.mktemp("glue")
    rng = random.Random(0)
    (folder / "CoLA").mkdir()
    (folder / "RTE").mkdir()
    for name, count in (("train", 60), ("dev", 20)):
        rows = [f"source\t{label}\t\t{text}\n" for text, label in sentences(count, len(name))]
        (folder / "CoLA" / f"{name}.tsv").write_text("".join(rows))
        labels = ("entailment", "not_entailment")
        pairs = [
            f"{index}\tthe film is {rng.choice(['good', 'bad'])}\tgood\t{rng.choice(labels)}\n"
            for index in range(count)
        ]
        (folder / "RTE" / f"{name}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(pairs))
    return folder


@pytest.fixture
def config(model_folder: Path, glue: Path, tmp_path: Path) -> FinetuneConfig:  # noqa: F811
    return config_for(model_folder, glue, tmp_path / "out", epochs=1, seeds=(0, 1))


def test_a_group_of_tasks(config: FinetuneConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = dataclasses.replace(config, task="glue")
    found = run(config)
    said = capsys.readouterr().out
    assert set(found["tasks"]) == {"cola", "rte"}
    assert "SST-2/" in said
    assert "left out" in said
    table = (config.out / "results.md").read_text()
    cola = json.loads((config.out / "cola" / "results.json").read_text())
    assert f"{cola['summary']['dev']['mcc']['median']:.4f}" in table
    assert (config.out / "results.tex").read_text().count(r"\\") == 4
    # The same command again trains nothing.
    run(config)
    assert capsys.readouterr().out.count("finished before") == 4
    # A table beside another model's.
    other = dataclasses.replace(config, from_scratch=True, out=tmp_path / "random")
    run(other)
    rows = compare([config.out, other.out], tmp_path / "table").splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["task", "-" * 6, "cola", "rte", "mean"]
    assert (tmp_path / "table" / "results.json").is_file()


def test_one_bad_task_does_not_stop_the_others(config: FinetuneConfig, glue: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("CoLA", "RTE"):
        (data / name).mkdir(parents=True)
        for path in (glue / name).iterdir():
            (data / name / path.name).write_bytes(path.read_bytes())
    (data / "CoLA" / "train.tsv").write_text("")
    with pytest.raises(ValueError, match=r"cola: .*train\.tsv"):
        run(dataclasses.replace(config, data=data, task="cola, rte"))
    assert (config.out / "rte" / "results.json").is_file()


def test_tasks_may_be_added(config: FinetuneConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('text = "sentence1"\npair = "sentence2"\n')
    (config.data / "own").mkdir(exist_ok=True)
    for name in "train", "dev":
        (config.data / "own" / f"{name}.tsv").write_bytes((config.data / "RTE" / f"{name}.tsv").read_bytes())
    config = dataclasses.replace(config, seeds=(0,))
    run(dataclasses.replace(config, task=f"rte,{own}"))
    assert (config.out / "own" / "model" / "config.json").is_file()
    capsys.readouterr()
    found = run(dataclasses.replace(config, task=f"rte,cola,{own}"))
    assert set(found["tasks"]) == {"rte", "cola", str(own)}
    assert capsys.readouterr().out.count("finished before") == 2
    with pytest.raises(ValueError, match="another configuration"):
        run(dataclasses.replace(config, task="rte,cola"))
    with pytest.raises(ValueError, match="names a task twice"):
        run(dataclasses.replace(config, task="rte,rte"))


def test_names_of_tasks(config: FinetuneConfig, tmp_path: Path) -> None:
    assert task_names("rte") == {"rte": "."}
    assert task_names("rte,sst2") == {"rte": "RTE", "sst2": "SST-2"}
    assert len(task_names("glue")) == 9
    with pytest.raises(ValueError, match="unknown task 'colla'"):
        run(dataclasses.replace(config, task="colla,rte"))
    with pytest.raises(ValueError, match="has no folder of these tasks"):
        run(dataclasses.replace(config, task="glue", data=tmp_path))


def test_grid(config: FinetuneConfig, keyword_data: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    config = dataclasses.replace(config, data=keyword_data, seeds=(0,), grid=("learning-rate=1e-9,3e-3", "epochs=6"))
    found = run(config)
    assert found["learning_rate"] == 3e-3
    said = capsys.readouterr().out
    assert "Best: learning_rate=0.003,epochs=6.0" in said
    assert (config.out / "learning_rate=0.003,epochs=6.0" / "model" / "config.json").is_file()
    assert json.loads((config.out / "results.json").read_text())["best_point"] == "learning_rate=0.003,epochs=6.0"


@pytest.mark.parametrize(
    "axis", ["seeds=1,2", "learning-rate", "learning-rate=", "epochs=many", "warmup=2", "epochs=1,1"]
)
def test_bad_grids(config: FinetuneConfig, axis: str) -> None:
    with pytest.raises(ValueError, match=r"--grid|--warmup"):
        list(grid_points(dataclasses.replace(config, grid=(axis,))))


def test_compare_from_the_command_line(
    config: FinetuneConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(dataclasses.replace(config, task="rte", data=config.data / "RTE", seeds=(0,)))
    capsys.readouterr()
    assert main(["compare", str(config.out)]) == 0
    assert "| rte" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "nothing")]) == 2
    assert "holds no results.json" in capsys.readouterr().err


def test_tasks_of_one_name_with_other_metrics_have_rows_of_their_own() -> None:
    def result(metric: str, value: float) -> dict[str, object]:
        summary = {"dev": {name: {"median": value, "std": 0.0} for name in ("accuracy", "macro_f1")}}
        return {"metric": metric, "trials": [{}], "summary": summary}

    rows = task_rows({"a": {"custom": result("accuracy", 0.5)}, "b": {"custom": result("macro_f1", 0.25)}})
    assert rows[1:] == [["custom", "accuracy", "0.5000", ""], ["custom", "macro_f1", "", "0.2500"]]
