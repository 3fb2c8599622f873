"""Prediction against transformers' pipeline, its inputs and outputs, and what it refuses."""

import dataclasses
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import make_model_folder, make_vocabulary
from transformers import AutoTokenizer, ElectraConfig, ElectraForSequenceClassification, pipeline

from electra.config import PredictConfig
from electra.predict import Predictor, load_predictor, predict

TEXTS = ["The film is great!", "a very dull plot with awful music", "", "bad", "actors " * 40, "so long and so bright"]
PAIRS = ["that was not good", None, "the music", "", "a short film " * 9, None]


def make_classifier(folder: Path, **config: object) -> Path:
    """A random ElectraForSequenceClassification as transformers writes it."""
    vocabulary = make_vocabulary(folder)
    vocabulary.save(folder)
    torch.manual_seed(1)
    shape = ElectraConfig(
        vocab_size=vocabulary.size,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.3,  # far apart scores
        **config,
    )
    ElectraForSequenceClassification(shape).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {0: "sad", 1: "plain", 2: "glad"}
    folder = tmp_path_factory.mktemp("classifier")
    return make_classifier(
        folder, id2label=names, label2id={name: number for number, name in names.items()}, classifier_dropout=0.3
    )


def config_for(model: Path, **changes: object) -> PredictConfig:
    return dataclasses.replace(PredictConfig(model=str(model), device="cpu", batch_size=4), **changes)


def predictor_for(model: Path) -> Predictor:
    return load_predictor(config_for(model))


def test_equals_the_pipeline(classifier: Path) -> None:
    found = predictor_for(classifier)(list(zip(TEXTS, PAIRS, strict=True)))
    theirs = pipeline("text-classification", model=str(classifier), tokenizer=AutoTokenizer.from_pretrained(classifier))
    assert len({answer.label for answer in found}) > 1
    for text, pair, answer in zip(TEXTS, PAIRS, found, strict=True):
        expected = theirs({"text": text, "text_pair": pair}, top_k=None)
        assert (answer.label, answer.score) == (expected[0]["label"], pytest.approx(expected[0]["score"], abs=1e-5))
        assert answer.scores == {item["label"]: pytest.approx(item["score"], abs=1e-5) for item in expected}


def test_regression_equals_the_pipeline(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m", num_labels=1, problem_type="regression")
    found = predictor_for(folder)([(text, None) for text in TEXTS])
    theirs = pipeline("text-classification", model=str(folder), tokenizer=AutoTokenizer.from_pretrained(folder))
    for text, answer in zip(TEXTS, found, strict=True):
        assert answer.label is None
        assert answer.value == pytest.approx(theirs(text)[0]["score"], abs=1e-5)


def test_all_inputs_give_the_same_answers(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("The film is great!", "bad"), ("", "a plot"), ("so dull", "so long")]
    plain = "".join(f"{a}\t{b}\n" for a, b in rows)
    (tmp_path / "texts.txt").write_text(plain)
    (tmp_path / "texts.tsv").write_text("first\tsecond\n" + plain)
    (tmp_path / "texts.csv").write_text("first,second\n" + "".join(f'"{a}","{b}"\n' for a, b in rows))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"second": b, "first": a}) + "\n" for a, b in rows))
    columns = {"column": "first", "pair_column": "second"}
    inputs = [
        {"text": tuple(f"{a}\t{b}" for a, b in rows)},
        {"file": tmp_path / "texts.txt"},
        *({"file": tmp_path / f"texts.{kind}"} | columns for kind in ("tsv", "csv", "jsonl")),
        {},
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(plain.encode())))
    outputs = []
    for changes in inputs:
        assert predict(config_for(classifier, **changes)) == 3
        outputs.append(capsys.readouterr().out)
    assert len(set(outputs)) == 1
    header, *lines = outputs[0].splitlines()
    assert header == "label\tscore"
    expected = predictor_for(classifier)(rows)
    assert lines == [f"{answer.label}\t{answer.score:.6f}" for answer in expected]


def test_json_lines_in_a_file(classifier: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "answers.jsonl"
    config = config_for(classifier, text=("good", "bad"), out=out, format="jsonl")
    predict(config)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [set(row) for row in rows] == [{"label", "score", "scores"}] * 2
    assert sum(rows[0]["scores"].values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="exists already"):
        predict(config)
    predict(dataclasses.replace(config, text=("good",), overwrite=True))
    assert len(out.read_text().splitlines()) == 1


def test_long_texts_are_cut(classifier: Path) -> None:
    predictor = predictor_for(classifier)
    long, cut = predictor([("film " * 300, None), ("film " * 126, None)])
    assert long.scores == pytest.approx(cut.scores, abs=1e-6)


def test_nothing_in_nothing_out(classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("")
    assert predict(config_for(classifier, file=tmp_path / "empty.txt")) == 0
    assert capsys.readouterr().out == "label\tscore\n"


def test_labels_without_names(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m")
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for name in ("id2label", "label2id"):
        values.pop(name, None)
    path.write_text(json.dumps(values))
    assert predictor_for(folder).labels == ("LABEL_0", "LABEL_1")


def test_refusals(classifier: Path, tmp_path: Path) -> None:
    bare = make_model_folder(tmp_path / "bare")
    with pytest.raises(ValueError, match="has no classification head: fine-tune it first"):
        predict(config_for(bare, text=("good",)))
    with pytest.raises(ValueError, match="several labels or values"):
        predictor_for(make_classifier(tmp_path / "multi", problem_type="multi_label_classification"))
    with pytest.raises(ValueError, match=r"--max-length 129 is longer than the model can read \(128\)"):
        load_predictor(config_for(classifier, max_length=129))
    with pytest.raises(ValueError, match=r"missing.txt does not exist"):
        predict(config_for(classifier, file=tmp_path / "missing.txt"))
    (tmp_path / "a.tsv").write_text("text\tlabel\ngood\t1\n")
    with pytest.raises(ValueError, match="has named columns: say with --column"):
        predict(config_for(classifier, file=tmp_path / "a.tsv"))
    with pytest.raises(ValueError, match="no column 'review'; the columns here are text, label"):
        predict(config_for(classifier, file=tmp_path / "a.tsv", column="review"))
    with pytest.raises(ValueError, match="a file or --text, not both"):
        config_for(classifier, file=tmp_path / "a.tsv", text=("good",))
    with pytest.raises(ValueError, match="--pair-column needs --column"):
        config_for(classifier, file=tmp_path / "a.tsv", pair_column="text")
