"""The page of `electra report`: whole and closed HTML, the numbers of the files, live and broken runs, comparison."""

import dataclasses
import html.parser
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve
from stores import make_store, random_documents
from test_finetune import config_for as finetune_config
from test_finetune import keyword_data, model_folder  # noqa: F401  (fixtures)

from electra import report as module
from electra.cli import main
from electra.config import LoopConfig, ModelConfig, ObjectiveConfig, PhaseConfig, PretrainConfig, RowsConfig
from electra.evaluate import open_run
from electra.finetune import finetune
from electra.log import read_metrics
from electra.pages.html import number, tag
from electra.pages.plots import POINTS, Curve, curves_plot
from electra.pages.runs import read_runs
from electra.pretrain import pretrain
from electra.report import Reporter, report

VOID = ("meta", "br", "link", "img")
LOOP = LoopConfig(
    steps=8, batch_size=8, log_every=1, eval_every=2, eval_rows=20, save_every=4, precision="fp32", device="cpu"
)


class Page(html.parser.HTMLParser):
    """Reads a page: its elements, text, and tables by the heading before them. Fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.heading, self.cell = "", "", ""
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)
        if name == "table":
            self.tables.append((self.heading, []))
        elif name == "tr":
            self.tables[-1][1].append([])
        elif name in ("h2", "h3", "th", "td"):
            self.cell = ""

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name: str) -> None:
        assert self.open and self.open.pop() == name, f"</{name}> closes nothing"
        if name in ("h2", "h3"):
            self.heading = self.cell
        elif name in ("th", "td"):
            self.tables[-1][1][-1].append(self.cell)

    def handle_data(self, data: str) -> None:
        self.text += data
        self.cell += data

    def table(self, heading: str, place: int = 0) -> list[dict[str, str]]:
        """The rows of a table below a heading, by column."""
        head, *rows = [rows for found, rows in self.tables if found == heading][place]
        return [dict(zip(head, row, strict=True)) for row in rows]

    def facts(self, heading: str) -> dict[str, str]:
        return {row[0]: row[1] for row in next(rows for found, rows in self.tables if found == heading)}


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("report") / "store", random_documents(80), held_out=0.2)


def pretrain_config(store, out: Path, **changes) -> PretrainConfig:
    base = PretrainConfig(
        data=(str(store.folder),),
        out=out,
        model=ModelConfig(32, 1, 2, 64, 16, generator_width=0.5, max_positions=64),
        rows=RowsConfig(seq_len=32),
        loop=LOOP,
        phases=(PhaseConfig(steps=5), PhaseConfig(steps=3, seq_len=48, batch_size=4)),
    )
    return dataclasses.replace(base, **changes)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory) -> Path:
    """A finished run of two phases; tests that change it take a copy."""
    out = tmp_path_factory.mktemp("report-run") / "run"
    pretrain(pretrain_config(store, out))
    return out


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return thinned(Path(shutil.copytree(trained, tmp_path / "run")))


def thinned(run: Path, *more: str) -> Path:
    """Leave few metrics in a run: each is a picture, which takes a fifth of a second."""
    kept = ("step", "kind", "loss", "tokens_per_second", *more)
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({name: row[name] for name in kept if name in row}) + "\n" for row in rows))
    return run


@pytest.fixture(scope="module")
def page(trained) -> Page:
    assert main(["report", str(trained), "--samples", "2"]) == 0
    return read_page(trained / "report.html")


def interrupted(run: Path, rows: int = 4) -> list[str]:
    """Leave the first rows of a run's metrics; returns the others."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:rows]))
    return lines[rows:]


# ------------------------------------------------------------------------------------------------- the page


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(page, trained):
    text = (trained / "report.html").read_text()
    assert not re.search(r"https?://|//\w+\.\w+/", text.replace("http://www.w3.org", ""))
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    for name, attributes in page.elements:
        assert name not in ("script", "link", "img", "iframe", "object", "base"), name
        assert all((attributes.get(key) or "#").startswith("#") for key in ("src", "href", "xlink:href")), attributes
        assert not any(key.startswith("on") for key in attributes)


def test_each_picture_is_told_to_those_who_do_not_see_it(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names)) and len(names) > 20
    pictures = [attributes for name, attributes in page.elements if name == "svg"]
    assert len(pictures) > 12
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert set(attributes["aria-labelledby"].split()) <= set(names)
    for _, attributes in page.elements:  # markers and clip paths are those of the picture that they are in
        for value in attributes.values():
            assert set(re.findall(r"(?:url\(|^)#([\w-]+)", value or "")) <= set(names)
    elements = [name for name, _ in page.elements]
    assert elements.count("figure") == elements.count("details") - 2 - 2  # config.toml, phases, two samples
    assert "Generator loss" in page.text and "8 points from" in page.text


def test_pictures_follow_dark_and_light(trained):
    text = (trained / "report.html").read_text()
    pictures = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.search(r"#[0-9a-fA-F]{6}\b", pictures)
    assert (
        "currentColor" in pictures and "var(--s1)" in pictures and "system-ui" in pictures and "DejaVu" not in pictures
    )
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_curves_are_those_of_the_metrics(page, trained):
    for heading, metric in ("Loss", "loss"), ("Generator loss", "generator_loss"), ("Learning rate", "learning_rate"):
        rows = {int(row["step"]): row for row in page.table(heading)}
        for kind, column in ("train", "train"), ("eval", "held-out"):
            logged = read_metrics(trained, kind)
            assert len(logged) == (8 if kind == "train" else 5)
            for row in logged if metric in logged[0] else []:
                assert rows[row["step"]][column] == number(row[metric]), (heading, row["step"])
    assert [row["tokens"] for row in page.table("Loss")][4:] == ["1,280", "1,472", "1,664", "1,856"]
    last = {row["metric"]: row for row in page.table("How far, how good", 1)}
    expected = read_metrics(trained, "eval")[-1]["discriminator_auc"]
    assert last["Discriminator AUC"]["held-out, step 8"] == number(expected)


def test_plan_and_machine(page, trained):
    facts = page.facts("Plan and machine")
    opened = open_run(trained, None, 1, "cpu")
    counted = sum(parameter.numel() for parameter in opened.model.parameters())
    found = re.findall(r"(?:discriminator|generator) ([\d,]+)", facts["model"])
    assert facts["model"].startswith("1 layer of 32, ")
    assert sum(int(number.replace(",", "")) for number in found) == counted
    assert facts["rows"] == "5 steps x 8 rows x 32 = 1,280 tokens; then 3 steps x 4 rows x 48 = 576 tokens"
    assert facts["learning rates"] == "at most adamw 0.0005; then adamw 0.0005"
    (start,) = [json.loads(line) for line in (trained / "starts.jsonl").read_text().splitlines()]
    assert start["step"] == 0 and start["processes"] == 1 and start["torch"] == torch.__version__
    assert start["device"] in facts["started on"] and "fp32" in facts["started on"]
    phases = page.table("Plan and machine", 1)
    assert [(row["steps"], row["rows a step"], row["tokens"]) for row in phases] == [
        ("1–5", "8", "1,280"),
        ("6–8", "4", "576"),
    ]
    assert "phase 1" in page.text and "batch_size = 8" in page.text


def test_a_run_that_goes_on_is_a_second_start(store, tmp_path):
    config = pretrain_config(store, tmp_path / "run")
    pretrain(config)
    shutil.rmtree(config.out / "checkpoints" / "step-8")
    pretrain(config)
    starts = [json.loads(line) for line in (config.out / "starts.jsonl").read_text().splitlines()]
    assert [start["step"] for start in starts] == [0, 5]
    Reporter([thinned(config.out)], fast=True).write()
    text = read_page(config.out / "report.html").facts("Plan and machine")["started on"]
    assert "after step 5: the same" in text


# ---------------------------------------------------------------------------------------------- the model


def test_precision_recall_and_calibration_are_those_of_scikit_learn(page, trained):
    opened = open_run(trained, None, 0, "cpu")
    logits, labels = [], []

    def keep(batch, out):
        logits.append(out.logits[batch.piece_ids > 0])
        labels.append(out.labels[batch.piece_ids > 0])

    opened.evaluate(keep)
    scores, truth = torch.cat(logits).double().numpy(), torch.cat(labels).numpy()
    assert f"run (AP {average_precision_score(truth, scores):.3f})" in page.text
    precision, recall, threshold = precision_recall_curve(truth, scores)
    for row in page.table("Precision and recall"):
        at = np.flatnonzero(recall >= float(row["recall"]) - 1e-6)[-1]
        assert float(row["precision"]) == pytest.approx(precision[at], rel=1e-5)
        assert float(row["probability from which on"]) == pytest.approx(1 / (1 + np.exp(-threshold[at])), rel=1e-5)
    rows = page.table("Calibration")
    given = 1 / (1 + np.exp(-scores))
    assert sum(int(row["tokens"].replace(",", "")) for row in rows) == len(truth)
    for row in rows:
        low, high = map(float, row["probability"].split(" to "))
        inside = (given > low) & (given <= high)
        assert float(row["mean probability"]) == pytest.approx(given[inside].mean(), rel=1e-4)
        assert float(row["share replaced"]) == pytest.approx(truth[inside].mean(), rel=1e-4, abs=1e-9)


def test_samples_and_groups(page, trained):
    opened = open_run(trained, None, 0, "cpu")
    batch, out = opened.evaluator.row(opened.model, 1)
    vocabulary = opened.mixture.first.vocabulary()
    replaced = [place for place, label in enumerate(out.labels[0].tolist(), start=1) if label]
    shown = {int(row["token"]): row for row in page.table("Held-out row 2")}
    assert replaced and set(replaced) <= set(shown)
    for place in replaced:
        row, p = shown[place], torch.sigmoid(out.logits[0, place - 1]).item()
        assert row["original"] == vocabulary.token(int(batch.input_ids[0, place - 1]))
        assert row["corrupted"] == vocabulary.token(int(out.corrupted_ids[0, place - 1]))
        assert row["discriminator"] == ("caught" if p > 0.5 else "missed")
        assert float(row["probability"]) == pytest.approx(p, rel=1e-4)
    groups = page.table("Where it is good and where not")
    assert groups[0]["position in row"] == "0-5" and len(groups) == 8
    assert page.table("Where it is good and where not", 1)[0]["frequency rank"] == "1-100"


def test_fast_and_a_missing_store_say_so(run, capsys):
    assert main(["report", str(run), "--fast"]) == 0
    assert "Not here: --fast leaves out what needs the model." in read_page(run / "report.html").text
    config = run / "config.toml"
    config.write_text(re.sub(r"data = \[[^]]*\]", 'data = ["/nowhere/store"]', config.read_text()))
    assert main(["report", str(run)]) == 0
    found = read_page(run / "report.html")
    assert "Not here: " in found.text and "/nowhere/store" in found.text and found.table("Loss")
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_on_several_stores(store, tmp_path):
    other = make_store(tmp_path / "other", random_documents(40, seed=1), held_out=0.2)
    config = pretrain_config(
        store,
        tmp_path / "run",
        data=(str(store.folder), str(other.folder)),
        weights=(3.0, 1.0),
        phases=(),
        loop=dataclasses.replace(LOOP, steps=2),
    )
    pretrain(config)
    Reporter([thinned(config.out)]).write()
    found = read_page(config.out / "report.html")
    data = found.facts("Plan and machine")["data"]
    assert f"75.0% of the rows: {store.num_tokens:,} tokens" in data
    assert f"25.0% of the rows: {other.num_tokens:,} tokens" in data
    assert found.table("Precision and recall")


def test_other_objectives(store, tmp_path):
    shared = {"phases": (), "loop": dataclasses.replace(LOOP, steps=2)}
    folders = []
    for name, objective in (
        ("masked", ObjectiveConfig(objective="masked-lm")),
        ("electric", ObjectiveConfig(objective="electric", generator="two-tower")),
    ):
        pretrain(pretrain_config(store, tmp_path / name, objective=objective, **shared))
        folders.append(thinned(tmp_path / name, "masked_lm_loss"))
    Reporter(folders, tmp_path / "r.html").write()
    found = read_page(tmp_path / "r.html")
    assert "masked: Checkpoint of step 2 on 20 held-out rows; a masked LM alone detects nothing." in found.text
    assert "electric: Checkpoint of step 2 on 20 held-out rows; replaced are all tokens that were drawn" in found.text
    assert found.table("Masked-LM loss") and {row["run"] for row in found.table("Calibration")} == {"electric"}


# --------------------------------------------------------------------------------------- live and broken runs


def test_a_run_that_is_being_written(run):
    interrupted(run)
    shutil.rmtree(run / "checkpoints")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "kind": "train", "lo')
    (found,) = read_runs([run])
    assert found.is_running and not found.is_finished
    assert re.fullmatch(r"running: step 3 of 8, \d+:\d\d left", found.state())
    Reporter([run]).write()
    shown = read_page(run / "report.html")
    assert "the run has no checkpoint yet" in shown.text
    assert [row["step"] for row in shown.table("Loss")] == ["1", "2", "3"]


def test_a_run_is_finished_when_its_last_step_is_saved(run):
    """The row of the last step comes before its evaluation and its checkpoint."""
    shutil.rmtree(run / "checkpoints" / "step-8")
    assert read_runs([run])[0].state().startswith("running: step 8 of 8")
    long_ago = time.time() - 7200
    os.utime(run / "metrics.jsonl", (long_ago, long_ago))
    assert read_runs([run])[0].state() == "finished at step 8"


def test_a_killed_run(run):
    interrupted(run, 6)
    long_ago = time.time() - 7200
    os.utime(run / "metrics.jsonl", (long_ago, long_ago))
    (found,) = read_runs([run])
    assert not found.is_running
    assert found.state() == (
        "stopped or killed: step 4 of 8; the last line is 2:00:00 old. The same command goes on from step 8"
    )


def test_a_run_that_has_just_begun_and_one_without_evaluations(run):
    rest = interrupted(run, 0)
    (found,) = read_runs([run])
    assert found.state() == "running: nothing logged yet, 8 steps to go"
    Reporter([run], fast=True).write()
    assert "Nothing has been logged yet." in read_page(run / "report.html").text
    (run / "metrics.jsonl").unlink()
    Reporter([run], fast=True).write()
    assert "Nothing has been logged yet." in read_page(run / "report.html").text
    (run / "metrics.jsonl").write_text("".join(line for line in rest if '"train"' in line))
    Reporter([run], fast=True).write()
    assert list(read_page(run / "report.html").table("Loss")[0]) == ["step", "tokens", "train"]


def test_values_that_were_not_finite_are_gaps(run):
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines() if '"train"' in line]
    rows[2]["loss"] = rows[3]["loss"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    Reporter([run], fast=True).write()
    assert [row["step"] for row in read_page(run / "report.html").table("Loss")] == ["1", "2", "5", "6", "7", "8"]


def test_watching_writes_again_until_the_end_and_asks_the_model_once(run, monkeypatch):
    rest, asked, refreshed, said = interrupted(run), [], [], []
    examine = module.examine
    monkeypatch.setattr(module, "examine", lambda *given: asked.append(given) or examine(*given))

    def sleep(seconds):
        refreshed.append('http-equiv="refresh" content="7"' in (run / "report.html").read_text())
        assert seconds == 7
        with (run / "metrics.jsonl").open("a") as file:
            file.write("".join(rest.pop(0) for _ in range(min(5, len(rest)))))

    monkeypatch.setattr(module.time, "sleep", sleep)
    report(Reporter([run]), watch=7, say=said.append)
    assert refreshed == [True, True] and len(asked) == 1
    assert asked[0][-1] == "cpu"  # the run is training: its device is left to it
    assert "refresh" not in (run / "report.html").read_text().partition("<body>")[0]
    assert "finished" in said and any("running: step 3 of 8" in line for line in said)


def test_watching_ends_with_control_c(run, monkeypatch):
    interrupted(run)

    def sleep(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", sleep)
    said = []
    report(Reporter([run], fast=True), watch=7, say=said.append)
    assert said[-1] == "stopped" and "refresh" not in (run / "report.html").read_text().partition("<body>")[0]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder.mkdir(), "holds no config.toml: name a folder that electra pretrain or electra"),
        (lambda folder: None, "is no folder: name one that electra pretrain or electra finetune has written"),
        (lambda folder: (folder.mkdir(), (folder / "config.toml").write_text("[server]\n")), "is not one of ours"),
        (lambda folder: (folder.mkdir(), (folder / "config.toml").write_bytes(b"\xff = [")), "is not one of ours"),
    ],
)
def test_foreign_folders_are_one_sentence(make, sentence, tmp_path, capsys):
    make(tmp_path / "x")
    assert main(["report", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not list(tmp_path.rglob("report.html"))


def test_a_page_that_is_not_ours_is_kept(run, capsys):
    (run / "report.html").write_text("<p>my notes")
    assert main(["report", str(run), "--fast"]) == 2
    assert "is not a page that electra report has written: choose another --out" in capsys.readouterr().err
    assert (run / "report.html").read_text() == "<p>my notes"
    assert main(["report", str(run), "--fast", "--out", str(run)]) == 2
    assert "is a folder: name a file" in capsys.readouterr().err


def test_without_matplotlib_one_sentence_says_what_to_install(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(run), "--fast"]) == 2
    assert "pip install 'electra-toolkit[plot]'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ comparison


def test_several_runs(trained, store, tmp_path):
    name = "<b>&\"'$x$_"
    config = pretrain_config(store, tmp_path / name, phases=())
    config = dataclasses.replace(config, loop=dataclasses.replace(LOOP, batch_size=4, steps=3))
    pretrain(config)
    thinned(config.out, "generator_loss")
    other = thinned(Path(shutil.copytree(trained, tmp_path / "run")), "generator_loss")
    Reporter([other, config.out], tmp_path / "both.html").write()
    text, found = (tmp_path / "both.html").read_text(), read_page(tmp_path / "both.html")
    assert "<b>" not in text and name in found.text
    differing = {row["setting"]: (row["run"], row[name]) for row in found.table("Where the settings differ")}
    assert differing == {
        "phases 1": ("steps 5, restart steps", "–"),
        "phases 2": ("steps 3, seq_len 48, batch_size 4, restart steps", "–"),
        "loop.steps": ("8", "3"),
        "loop.batch_size": ("8", "4"),
    }
    assert "Loss over steps" in found.text and "Loss over tokens" in found.text  # a step is not as many tokens
    first = found.table("Generator loss")[0]
    assert first["run"] == number(read_metrics(trained, "train")[0]["generator_loss"])
    assert first[name] == number(read_metrics(config.out, "train")[0]["generator_loss"])
    assert {row["run"] for row in found.table("Precision and recall")} == {"run", name}


def test_runs_of_one_name_are_told_apart_by_their_folders(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "other" / "run")
    labels = [run.label for run in read_runs([trained, tmp_path / "other" / "run"])]
    assert labels[1].endswith("other/run") and len(set(labels)) == 2
    assert len(read_runs([trained, trained])) == 1


# ----------------------------------------------------------------------------------------------- fine-tuning


@pytest.fixture(scope="module")
def tuned(model_folder, keyword_data, tmp_path_factory) -> Path:  # noqa: F811
    """A folder with two fine-tunings of one task."""
    out = tmp_path_factory.mktemp("report-tuned")
    for name, scratch in (("a", False), ("b", True)):
        finetune(finetune_config(model_folder, keyword_data, out / name, epochs=1, from_scratch=scratch))
    return out


def test_fine_tunings_with_their_spread(tuned):
    Reporter([tuned], tuned / "r.html").write()
    found = read_page(tuned / "r.html")
    for name in "ab":
        results = json.loads((tuned / name / "results.json").read_text())
        rows = {row["metric"]: row for row in found.table(name, 1)}
        for split, metric, shown in (("dev", "accuracy", "dev accuracy (main)"), ("test", "mcc", "test mcc")):
            summary = results["summary"][split][metric]
            assert rows[shown]["seed 1"] == f"{results['trials'][1][split][metric]:.4f}"
            assert [rows[shown][kind] for kind in ("median", "mean", "sd")] == [
                f"{summary[kind]:.4f}" for kind in ("median", "mean", "std")
            ]
            assert rows[shown]["ensemble"] == f"{results['ensemble'][split][metric]:.4f}"
        logged = read_metrics(tuned / name / "seed-1", "eval")[-1]
        row = next(row for row in found.table("accuracy") if int(row["step"].replace(",", "")) == logged["step"])
        assert row[f"{name} seed 1 dev"] == number(logged["accuracy"])
    overview = {row["run"]: row for row in found.table("Fine-tuning")}
    assert overview["b"]["from"].startswith("random weights") and overview["a"]["trials"] == "2"
    assert {row["setting"] for row in found.table("Where the settings differ")} == {"from_scratch"}
    assert len(found.table("dev accuracy of each trial")) == 4
    assert (tuned / "a" / "starts.jsonl").read_text().count("\n") == 1


def test_tasks_of_ones_own_are_told_apart_by_their_data(tuned, tmp_path):
    other = Path(shutil.copytree(tuned / "b", tmp_path / "b"))
    config = other / "config.toml"
    config.write_text(re.sub('data = ".*"', 'data = "elsewhere"', config.read_text()))
    thinned(other / "seed-0"), thinned(other / "seed-1")
    Reporter([tuned / "b", other], tmp_path / "r.html", fast=True).write()
    found = read_page(tmp_path / "r.html")
    assert "Task custom (elsewhere)" in found.text and found.text.count("Task custom (") == 2
    assert [len(rows) for heading, rows in found.tables if heading == "dev accuracy of each trial"] == [3, 3]


def test_a_fine_tuning_that_is_not_finished(tuned, tmp_path):
    run = Path(shutil.copytree(tuned / "a", tmp_path / "run"))
    (run / "results.json").unlink()
    shutil.rmtree(run / "seed-1")
    thinned(run / "seed-0")
    Reporter([run]).write()
    found = read_page(run / "report.html")
    assert "running: 0 of 2 trials done" in found.text and "No trial is finished yet." in found.text
    assert found.table("Loss")
    long_ago = time.time() - 7200
    os.utime(run / "seed-0" / "metrics.jsonl", (long_ago, long_ago))
    assert read_runs([run])[0].state() == "stopped or killed: 0 of 2 trials done; the same command goes on"


# --------------------------------------------------------------------------------------------------- pieces


def test_text_is_escaped_and_html_is_not():
    assert tag("p", "a<b&", tag("br"), None, ["c", 1234], class_='x"y', hidden=True) == (
        '<p class="x&quot;y" hidden>a&lt;b&amp;<br>c1,234</p>'
    )


def test_a_long_curve_keeps_its_peaks():
    ys = np.sin(np.arange(100_000) / 999.0)
    ys[31_234], ys[77_777] = 5.0, -5.0
    curve = Curve("a", np.arange(100_000.0), ys, 0)
    xs, low, mean, high = curve.stretches()
    assert len(xs) == POINTS and (np.diff(xs) > 0).all()
    assert (low.min(), high.max()) == (-5.0, 5.0) and (low <= mean).all() and (mean <= high).all()
    assert mean == pytest.approx(np.sin(xs / 999), abs=0.05)
    picture = curves_plot("t", [curve], unit="step", xlabel="steps")
    assert len(picture) < 40_000 and "lowest -5, highest 5." in picture
