"""Each kind of sentence task from files to predictions, and its exported model in transformers."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight
from tiny_models import WORDS, make_model_folder
from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification, AutoTokenizer

from electra.config import FinetuneConfig, TaskConfig
from electra.finetune import finetune, make_plan
from electra.interop.hf import load_pretrained, save_model_folder
from electra.runtime import start
from electra.tasks.catalogue import find_task
from electra.tasks.prepared import mean_outputs
from electra.tasks.problems import Problems
from electra.tasks.sentences.prepared import SentencesPrepared, prepare_sentences

FIRST = ["the film is good", "a very bad plot", "awful music", "great actors and a great film", "not so dull", "long"]
SECOND = ["good", "so awful", "the music was long", "bright", "", "a short plot"]
CHOICES = ("left", "mid", "right")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("tiny") / "model")


def write_table(path: Path, columns: dict[str, list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["\t".join(columns), *("\t".join(row) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def prepare(model: Path, data: Path, custom: TaskConfig | str, fold: int | None = None, **changes: object):
    name, custom = (custom, TaskConfig()) if isinstance(custom, str) else ("custom", custom)
    config = dataclasses.replace(
        FinetuneConfig(str(model), data, data / "out", name, custom=custom, max_length=32), **changes
    )
    return prepare_sentences(find_task(name, custom), config, load_pretrained(str(model)), fold, Problems())


def make_data(folder: Path, kind: str) -> TaskConfig:
    """A dev and a training file of six rows of a kind, and an unlabelled test file."""
    labels = {
        "classification": ["no", "yes", "maybe", "yes", "no", "yes"],
        "regression": ["1.5", "-2", "0", "3", "2", "1"],
        "multi-label": ["x,y", "", "z", "x", "y,z", "x,y,z"],
        "multiple-choice": ["A", "C", "B", "B", "A", "C"],
    }[kind]
    texts = {"first": FIRST, "second": SECOND}
    if kind == "multiple-choice":
        texts |= {"left": SECOND, "mid": SECOND[::-1], "right": FIRST[::-1]}
    for split in ("train", "dev"):
        write_table(folder / f"{split}.tsv", texts | {"label": labels})
    write_table(folder / "test.tsv", texts | {"id": [f"t{i}" for i in range(6)]})
    choices = CHOICES if kind == "multiple-choice" else ()
    pair = "" if choices else "second"
    return TaskConfig(kind, text="first", pair=pair, choices=choices, id="id")


def random_model(prepared: SentencesPrepared, model_folder: Path, seed: int = 0) -> torch.nn.Module:
    """A model whose logits are far apart."""
    torch.manual_seed(seed)
    model = prepared.make_model(load_pretrained(str(model_folder)).config)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def export(prepared: SentencesPrepared, model: torch.nn.Module, model_folder: Path, out: Path) -> Path:
    pretrained, found = load_pretrained(str(model_folder)), prepared.export(model)
    save_model_folder(
        out,
        config=pretrained.config,
        encoder=model.encoder.state_dict(),
        head=found.head,
        architecture=found.architecture,
        vocabulary=pretrained.vocabulary,
        card="",
        **found.config,
    )
    return out


def transformers_logits(folder: Path, kind: str) -> np.ndarray:
    """(6, C) by the class of transformers that the folder asks for."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if kind == "multiple-choice":
        model = AutoModelForMultipleChoice.from_pretrained(folder).eval()
        choices = [choice or None for row in zip(SECOND, SECOND[::-1], FIRST[::-1], strict=True) for choice in row]
        first = [text for text in FIRST for _ in CHOICES]
        rows = [tokenizer(text, choice) for text, choice in zip(first, choices, strict=True)]
        inputs = tokenizer.pad(rows, return_tensors="pt")
        inputs = {name: tensor.view(len(FIRST), len(CHOICES), -1) for name, tensor in inputs.items()}
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        rows = [tokenizer(a, b or None) for a, b in zip(FIRST, SECOND, strict=True)]
        inputs = tokenizer.pad(rows, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.numpy()


@pytest.mark.parametrize("kind", ["classification", "regression", "multi-label", "multiple-choice"])
def test_every_kind_is_exported_with_equal_logits_and_comes_back(model_folder: Path, tmp_path: Path, kind: str) -> None:
    custom = make_data(tmp_path / "data", kind)
    prepared = prepare(model_folder, tmp_path / "data", custom)
    assert (prepared.splits, prepared.task.kind) == (("train", "dev", "test"), kind)
    runtime, model = start("cpu", "fp32"), random_model(prepared, model_folder)
    outputs = prepared.predict(model, "dev", runtime)
    folder = export(prepared, model, model_folder, tmp_path / "export")
    expected = transformers_logits(folder, kind)
    np.testing.assert_allclose(outputs["logits"], expected, atol=2e-5, rtol=1e-5)

    # The folder scores and answers without a training file.
    (tmp_path / "data" / "train.tsv").unlink()
    again = prepare(folder, tmp_path / "data", custom, mode="predict")
    assert again.splits == ("dev", "test")
    reloaded = again.make_model(load_pretrained(str(folder)).config)
    reloaded.encoder.load_state_dict(load_pretrained(str(folder)).encoder_state)
    again.load_head(reloaded, load_pretrained(str(folder)))
    back = again.predict(reloaded, "dev", runtime)
    np.testing.assert_allclose(back["logits"], outputs["logits"], atol=2e-5, rtol=1e-5)
    assert again.score(back, "dev") == pytest.approx(prepared.score(outputs, "dev"), rel=1e-3)
    prepared.write_predictions(outputs, "dev", tmp_path)
    first = (tmp_path / "dev.tsv").read_text().splitlines()
    again.write_predictions(again.predict(reloaded, "test", runtime), "test", tmp_path)
    header, *lines = (tmp_path / "test.tsv").read_text().splitlines()
    assert header == "index\tprediction"
    assert [line.split("\t")[0] for line in lines] == [f"t{i}" for i in range(6)]
    if kind != "regression":
        assert [line.split("\t")[1] for line in lines] == [line.split("\t")[1] for line in first[1:]]
    assert not again.is_labelled("test")
    with pytest.raises(ValueError, match=r"is a ElectraModel, and the task custom needs"):
        again.load_head(reloaded, load_pretrained(str(model_folder)))


@pytest.mark.parametrize("kind", ["regression", "multi-label", "multiple-choice"])
def test_scores_are_those_of_the_libraries(model_folder: Path, tmp_path: Path, kind: str) -> None:
    prepared = prepare(model_folder, tmp_path / "data", make_data(tmp_path / "data", kind))
    labels = prepared.encoded["dev"].labels
    logits = np.random.default_rng(0).normal(size=(6, labels.shape[1] if labels.ndim == 2 else 3))
    found = prepared.score({"logits": logits[:, :1] if kind == "regression" else logits}, "dev")
    if kind == "regression":
        assert found["spearman"] == pytest.approx(spearmanr(logits[:, 0], labels).statistic)
    elif kind == "multi-label":
        assert found == {
            "micro_f1": pytest.approx(f1_score(labels, logits > 0, average="micro")),
            "macro_f1": pytest.approx(f1_score(labels, logits > 0, average="macro")),
            "accuracy": pytest.approx(accuracy_score(labels, logits > 0)),
        }
    else:
        assert found == {"accuracy": pytest.approx(accuracy_score(labels, logits.argmax(-1)))}
    assert prepared.metric in found


def test_batches_of_choices(model_folder: Path, tmp_path: Path) -> None:
    """The choices of an example stay together; its length is that of its longest."""
    prepared = prepare(model_folder, tmp_path / "data", make_data(tmp_path / "data", "multiple-choice"))
    lengths = prepared.encoded["train"].features.lengths.reshape(6, 3)
    assert prepared.lengths.tolist() == lengths.max(axis=1).tolist()
    batch = prepared.batch(np.array([4, 1]), seed=3)
    assert (batch.input_ids.shape[0], batch.labels.tolist(), batch.seed) == (6, [0, 2], 3)
    assert batch.valid.sum(1).tolist() == [*lengths[4], *lengths[1]]
    model = random_model(prepared, model_folder)
    loss, _ = model(batch, {"examples": 2.0})
    logits = prepared.predict(model, "train", start("cpu", "fp32"))["logits"][[4, 1]]
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), batch.labels)
    torch.testing.assert_close(loss.detach(), expected)


def test_class_weights(model_folder: Path, tmp_path: Path) -> None:
    custom = make_data(tmp_path / "data", "classification")
    prepared = prepare(model_folder, tmp_path / "data", custom, class_weights=("balanced",))
    labels = prepared.encoded["train"].labels
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    rows = np.array([0, 2, 5])
    assert prepared.batch(rows, 0).weights.tolist() == pytest.approx(expected[labels[rows]].tolist())
    assert prepared.totals(rows)["examples"] == pytest.approx(expected[labels[rows]].sum())
    assert prepared.totals(np.arange(6))["examples"] == pytest.approx(6)
    assert "class weights: maybe 2, no 1, yes 0.667" in prepared.notes
    given = prepare(model_folder, tmp_path / "data", custom, class_weights=("1", "2", "0.5"))
    assert given.batch(np.array([0]), 0).weights.tolist() == [2]
    for weights, sentence in {
        ("1", "2"): "2 numbers for 3 labels: maybe, no, yes",
        ("1", "2", "much"): "the word balanced",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            prepare(model_folder, tmp_path / "data", custom, class_weights=weights)
    custom = make_data(tmp_path / "data", "regression")
    with pytest.raises(ValueError, match="--class-weights is for classification, and custom is regression"):
        prepare(model_folder, tmp_path / "data", custom, class_weights=("balanced",))


def test_averaged_models_answer_on_the_scale_of_the_labels(model_folder: Path, tmp_path: Path) -> None:
    prepared = prepare(model_folder, tmp_path / "data", make_data(tmp_path / "data", "regression"))
    runtime = start("cpu", "fp32")
    outputs = [prepared.predict(random_model(prepared, model_folder, seed), "dev", runtime) for seed in (0, 1)]
    mean = mean_outputs(outputs)["logits"][:, 0]
    np.testing.assert_allclose(mean, (outputs[0]["logits"] + outputs[1]["logits"])[:, 0] / 2, rtol=1e-6)
    assert prepared.batch(np.arange(6), 0).labels.tolist() == pytest.approx([0.7, 0, 0.4, 1, 0.8, 0.6])


def test_rows_with_unknown_labels_are_not_scored(model_folder: Path, tmp_path: Path) -> None:
    custom = make_data(tmp_path, "classification")
    write_table(tmp_path / "dev.tsv", {"first": FIRST[:3], "second": SECOND[:3], "label": ["no", "nope", "yes"]})
    prepared = prepare(model_folder, tmp_path, custom)
    logits = np.eye(3, dtype=np.float32)[[1, 1, 0]]  # maybe, no, yes
    assert prepared.score({"logits": logits}, "dev")["accuracy"] == 0.5
    assert prepared.size("dev") == 3
    assert "(maybe 0, no 1, yes 1)" in prepared.describe("dev")


def test_glue_predictions_have_the_labels_of_the_leaderboard(model_folder: Path, tmp_path: Path) -> None:
    for task, columns, labels, answers in (
        ("cola", {"index": ["0", "1"], "sentence": FIRST[:2]}, ["0", "1"], ["0", "1"]),
        ("rte", {"index": ["0", "1"], "sentence1": FIRST[:2], "sentence2": SECOND[:2]}, None, None),
        ("stsb", {"index": ["0", "1"], "sentence1": FIRST[:2], "sentence2": SECOND[:2]}, ["0.0", "5.0"], None),
    ):
        data = tmp_path / task
        if task == "cola":
            data.mkdir()
            for split in ("train", "dev"):
                (data / f"{split}.tsv").write_text("a\t0\t\tbad\na\t1\t\tgood\n")
        else:
            labels = labels or ["entailment", "not_entailment"]
            for split in ("train", "dev"):
                write_table(data / f"{split}.tsv", columns | {"score" if task == "stsb" else "label": labels})
        write_table(data / "test.tsv", columns)
        prepared = prepare(model_folder, data, task)
        logits = np.array([[7.0], [-1.0]]) if task == "stsb" else np.array([[1.0, 0.0], [0.0, 1.0]])
        prepared.write_predictions({"logits": logits}, "test", tmp_path)
        name = {"cola": "CoLA.tsv", "rte": "RTE.tsv", "stsb": "STS-B.tsv"}[task]
        lines = (tmp_path / name).read_text().splitlines()
        answers = answers or (["5.0000", "0.0000"] if task == "stsb" else ["entailment", "not_entailment"])
        assert lines == ["index\tprediction", f"0\t{answers[0]}", f"1\t{answers[1]}"]


def test_labels_of_a_folder_keep_their_order(model_folder: Path, tmp_path: Path) -> None:
    """Models of others name MNLI's classes in another order; the answers follow the model, the files the task."""
    pretrained = load_pretrained(str(model_folder))
    columns = {"index": ["0"], "sentence1": ["good"], "sentence2": ["bad"], "gold_label": ["neutral"]}
    write_table(tmp_path / "dev_matched.tsv", columns)

    def prepared_with(names: list[str]) -> SentencesPrepared:
        config = pretrained.network.config | {"id2label": {str(i): name for i, name in enumerate(names)}}
        network = dataclasses.replace(pretrained.network, config=config)
        model = dataclasses.replace(pretrained, network=network)
        run = FinetuneConfig("m", tmp_path, tmp_path / "out", "mnli", mode="eval")
        return prepare_sentences(find_task("mnli", TaskConfig()), run, model, None, Problems())

    other = prepared_with(["entailment", "neutral", "contradiction"])
    assert other.task.labels == ("entailment", "neutral", "contradiction")
    assert other.encoded["dev"].labels.tolist() == [1]
    assert prepared_with(["LABEL_0", "LABEL_1", "LABEL_2"]).encoded["dev"].labels.tolist() == [2]
    with pytest.raises(ValueError, match=r"answers with good, bad, and the task mnli has contradiction"):
        prepared_with(["good", "bad"])


def test_lengths(model_folder: Path, tmp_path: Path) -> None:
    custom = make_data(tmp_path, "classification")
    assert prepare(model_folder, tmp_path, custom, max_length=0).encoded["dev"].features.max_length == 64
    with pytest.raises(ValueError, match=r"--max-length 65 is longer than the model can read \(64\)"):
        prepare(model_folder, tmp_path, custom, max_length=65)


def keyword_table(path: Path, kind: str, count: int, seed: int) -> None:
    """Choices of which the right one has a good word, or texts whose labels are the words in them."""
    rng, fill = random.Random(seed), [word for word in WORDS.split() if word not in ("good", "bad", "great", "awful")]
    columns: dict[str, list[str]] = {"text": [], "first": [], "second": [], "label": []}
    for _ in range(count):
        words = rng.sample(["good", "bad"], 2)
        first, second = (" ".join([*rng.choices(fill, k=3), word, rng.choice(fill)]) for word in words)
        there = words[: rng.choice([1, 2])]
        label = "12"[words.index("good")] if kind == "multiple-choice" else "|".join(there)
        texts = "the film" if kind == "multiple-choice" else " ".join(["a film", *there])
        for name, value in zip(columns, (texts, first, second, label), strict=True):
            columns[name].append(value)
    write_table(path, columns)


def test_multiple_choice_learns_from_a_description_in_a_file(model_folder: Path, tmp_path: Path) -> None:
    keyword_table(tmp_path / "data" / "train.tsv", "multiple-choice", 480, 0)
    keyword_table(tmp_path / "data" / "dev.tsv", "multiple-choice", 60, 1)
    task = tmp_path / "endings.toml"
    task.write_text('kind = "multiple-choice"\nchoices = ["first", "second"]\n')
    config = FinetuneConfig(str(model_folder), tmp_path / "data", tmp_path / "out", str(task), epochs=5, seeds=(0,))
    config = dataclasses.replace(config, learning_rate=3e-3, device="cpu", precision="fp32")
    found = finetune(config)
    assert (found["task"], found["labels"]) == ("endings", ["1", "2"])
    assert found["summary"]["dev"]["accuracy"]["median"] > 0.9
    card = (config.out / "model" / "README.md").read_text()
    assert "AutoModelForMultipleChoice.from_pretrained" in card
    assert "pipeline_tag: multiple-choice" in card
    values = json.loads((config.out / "model" / "config.json").read_text())
    assert (values["electra_task"], values["electra_kind"]) == ("endings", "multiple-choice")
    scored = finetune(dataclasses.replace(config, model=str(config.out), out=tmp_path / "eval", mode="eval"))
    assert scored["summary"]["dev"] == found["summary"]["dev"]


def test_multi_label_learns(model_folder: Path, tmp_path: Path) -> None:
    keyword_table(tmp_path / "data" / "train.tsv", "multi-label", 480, 0)
    custom = TaskConfig(kind="multi-label", separator="|")
    config = FinetuneConfig(
        str(model_folder), tmp_path / "data", tmp_path / "out", custom=custom, epochs=10, seeds=(0,)
    )
    config = dataclasses.replace(config, learning_rate=3e-3, device="cpu", precision="fp32", dropout=0.0, layer_decay=1)
    found = finetune(config)
    assert found["metric"] == "micro_f1"
    assert found["summary"]["dev"]["micro_f1"]["median"] > 0.9


def test_faulty_rows_are_reported_and_strict_refuses_them(model_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = "".join(f"a {('bad', 'good')[i % 2]} film\t{i % 2}\n" for i in range(40)).encode()
    faulty = b"text\tlabel\n" + rows + b"no label\n\nb\xffd film\t0\nnul\0\t1\n\t1\n"
    (data / "train.tsv").write_bytes(faulty)
    (data / "dev.tsv").write_bytes(b"text\tlabel\n" + rows + b"a film\tone\n")
    config = FinetuneConfig(str(model_folder), data, tmp_path / "out", epochs=1, seeds=(0,), device="cpu")
    with pytest.raises(ValueError, match=r"--strict: 1 lines that are not UTF-8.*correct the files, or leave out"):
        finetune(dataclasses.replace(config, strict=True))
    assert not config.out.exists()
    found = finetune(config)
    assert [fault.split(" (")[0] for fault in found["faults"]] == [
        "1 lines that are not UTF-8: their wrong bytes are replaced by U+FFFD",
        "1 lines with NUL bytes: these are removed",
        "1 rows with another number of columns than 2: left out",
        "1 empty lines: left out",
        "1 rows with an empty text: kept",
        "1 rows whose label is not in the label set",
    ]
    assert found["examples"]["train"] == 43


def test_a_folder_or_another_column_in_the_place_of_what_is_needed(model_folder: Path, tmp_path: Path) -> None:
    config = FinetuneConfig(str(model_folder), tmp_path / "data", tmp_path / "out", device="cpu")
    keyword_table(tmp_path / "data" / "train.tsv", "classification", 20, 0)
    (tmp_path / "data" / "dev.tsv").mkdir()
    with pytest.raises(ValueError, match=r"dev\.tsv is a folder where a file belongs"):
        finetune(config)
    with pytest.raises(ValueError, match=r"has no column 'stars' for the labels.*it has .*label"):
        finetune(dataclasses.replace(config, custom=TaskConfig(label="stars")))


def test_names_and_labels_with_tabs_are_one_column_of_the_predictions(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in "train", "dev":
        rows = [{"id": f"a\tb{i}", "text": "a film", "label": ("x\ty", "x\nz")[i % 2]} for i in range(20)]
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = FinetuneConfig(str(model_folder), tmp_path / "data", tmp_path / "out", epochs=1, seeds=(0,), device="cpu")
    finetune(dataclasses.replace(config, custom=TaskConfig(id="id")))
    lines = (config.out / "predictions" / "dev.tsv").read_text().splitlines()
    assert len(lines) == 21
    assert {line.count("\t") for line in lines} == {1}


def test_a_vocabulary_that_does_not_fit_is_pointed_out(model_folder: Path, tmp_path: Path) -> None:
    rows = "".join(f"좋은 영화 {i}\t{i % 2}\n" for i in range(20))
    (tmp_path / "train.tsv").write_text(f"text\tlabel\n{rows}", encoding="utf-8")
    config = FinetuneConfig(str(model_folder), tmp_path, tmp_path / "out", device="cpu")
    assert any("unknown to the model's vocabulary" in note for note in make_plan(config).notes)


def test_a_class_may_weigh_nothing(model_folder: Path, tmp_path: Path) -> None:
    keyword_table(tmp_path / "train.tsv", "classification", 40, 0)
    config = FinetuneConfig(str(model_folder), tmp_path, tmp_path / "out", epochs=1, seeds=(0,), device="cpu")
    found = finetune(dataclasses.replace(config, batch_size=1, class_weights=("1", "0", "0", "0")))
    assert np.isfinite(found["summary"]["dev"]["accuracy"]["median"])
