"""Prediction against transformers' pipelines and classes, its inputs and outputs, and what it refuses."""

import dataclasses
import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_models import make_model_folder, make_vocabulary
from transformers import (
    AutoTokenizer,
    ElectraConfig,
    ElectraForMultipleChoice,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    PreTrainedModel,
    pipeline,
)

import electra.predict
from electra.config import PredictConfig
from electra.predict import cut_chunks, load_predictor, predict
from electra.tasks.predictor import Predictor

TEXTS = ["The film is great!", "a very dull plot with awful music", "", "bad", "actors " * 40, "so long and so bright"]
PAIRS = ["that was not good", None, "the music", "", "a short film " * 9, None]


def make_classifier(
    folder: Path, kind: type[PreTrainedModel] = ElectraForSequenceClassification, seed: int = 1, **config: object
) -> Path:
    """A random fine-tuned model as transformers writes it."""
    vocabulary = make_vocabulary(folder)
    vocabulary.save(folder)
    torch.manual_seed(seed)
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
    kind(shape).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {0: "sad", 1: "plain", 2: "glad"}
    folder = tmp_path_factory.mktemp("classifier")
    return make_classifier(
        folder, id2label=names, label2id={name: number for number, name in names.items()}, classifier_dropout=0.3
    )


def config_for(model: Path, **changes: object) -> PredictConfig:
    return dataclasses.replace(PredictConfig(model=str(model), device="cpu", batch_tokens=60), **changes)


def predictor_for(model: Path, **changes: object) -> Predictor:
    return load_predictor(config_for(model, **changes))


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
    found = predictor_for(folder)(TEXTS)
    theirs = pipeline("text-classification", model=str(folder), tokenizer=AutoTokenizer.from_pretrained(folder))
    for text, answer in zip(TEXTS, found, strict=True):
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


def test_halves_of_characters_in_json(classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "half.jsonl").write_text('{"text": "good \\ud83d film"}\n')
    assert predict(config_for(classifier, file=tmp_path / "half.jsonl", column="text")) == 1
    (answer,) = predictor_for(classifier)(["good \ufffd film"])
    assert capsys.readouterr().out.splitlines()[1] == f"{answer.label}\t{answer.score:.6f}"


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
    with pytest.raises(ValueError, match="has no head for a task: fine-tune it first"):
        predict(config_for(bare, text=("good",)))
    with pytest.raises(ValueError, match="gives a text 3 values; predict gives one"):
        predictor_for(make_classifier(tmp_path / "three", problem_type="regression", num_labels=3))
    with pytest.raises(ValueError, match=r"--max-length 129 is longer than the model can read \(128\)"):
        load_predictor(config_for(classifier, max_length=129))
    with pytest.raises(ValueError, match=r"missing.txt does not exist"):
        predict(config_for(classifier, file=tmp_path / "missing.txt"))
    (tmp_path / "a.tsv").write_text("text\tlabel\ngood\t1\n")
    with pytest.raises(ValueError, match="has named columns: say with --column"):
        predict(config_for(classifier, file=tmp_path / "a.tsv"))
    with pytest.raises(ValueError, match="no column 'review'; the columns here are text, label"):
        predict(config_for(classifier, file=tmp_path / "a.tsv", column="review"))
    with pytest.raises(ValueError, match="a file, --text or --question, not two of them"):
        config_for(classifier, file=tmp_path / "a.tsv", text=("good",))
    with pytest.raises(ValueError, match="--pair-column needs --column"):
        config_for(classifier, file=tmp_path / "a.tsv", pair_column="text")
    with pytest.raises(ValueError, match="--choice-columns needs --column"):
        config_for(classifier, file=tmp_path / "a.tsv", choice_columns=("text",))
    with pytest.raises(ValueError, match="--question and --context belong together"):
        config_for(classifier, question=("who?",))
    (tmp_path / "b.tsv").write_text("text\tlabel\ngood\n")
    with pytest.raises(ValueError, match=r"b.tsv, line 2: 1 columns where 2 \(text, label\) belong"):
        predict(config_for(classifier, file=tmp_path / "b.tsv", column="text"))
    (tmp_path / "c.jsonl").write_text('{"text": "good"}\n["good"]\n')
    with pytest.raises(ValueError, match=r"c.jsonl, line 2: a line must be a JSON object"):
        predict(config_for(classifier, file=tmp_path / "c.jsonl", column="text"))
    (tmp_path / "c.jsonl").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"c.jsonl, line 1: not valid JSON"):
        predict(config_for(classifier, file=tmp_path / "c.jsonl", column="text"))
    with pytest.raises(ValueError, match="--question and --context are for models that answer questions"):
        predict(config_for(classifier, question=("who?",), context="me"))
    with pytest.raises(ValueError, match="--text is not UTF-8 text"):
        predict(config_for(classifier, text=("good\udcff",)))
    with pytest.raises(ValueError, match="is a folder where a file belongs: choose another --out"):
        predict(config_for(classifier, text=("good",), out=tmp_path, overwrite=True))
    with pytest.raises(ValueError, match="--null-threshold must be finite"):
        config_for(classifier, text=("good",), null_threshold=float("nan"))
    (tmp_path / "d.csv").write_text('text\n"good\n')
    with pytest.raises(ValueError, match=r"d.csv, line 2: not valid CSV"):
        predict(config_for(classifier, file=tmp_path / "d.csv", column="text"))


def test_several_labels_equal_the_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {0: "sad", 1: "plain", 2: "glad"}
    folder = make_classifier(tmp_path / "m", problem_type="multi_label_classification", id2label=names)
    theirs = pipeline("text-classification", model=str(folder), tokenizer=AutoTokenizer.from_pretrained(folder))
    found = predictor_for(folder)(TEXTS)
    for text, answer in zip(TEXTS, found, strict=True):
        expected = {item["label"]: item["score"] for item in theirs(text, top_k=None)}
        assert answer.scores == pytest.approx(expected, abs=1e-5)
        assert set(answer.labels) == {name for name, score in expected.items() if score > 0.5}
    assert len({answer.labels for answer in found}) > 1
    predict(config_for(folder, text=tuple(TEXTS)))
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "labels\tscores"
    assert [line.split("\t")[0] for line in lines] == [",".join(answer.labels) for answer in found]


def test_choices_equal_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_classifier(tmp_path / "m", ElectraForMultipleChoice)
    questions = [
        ("the film was", ("good", "very long and dull", "bad")),
        ("the plot", ("is so bright", "and the music")),
        ("awful", ("bad", "dull", "short film")),
    ]
    model = ElectraForMultipleChoice.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = predictor_for(folder)(questions)
    for (question, choices), answer in zip(questions, found, strict=True):
        inputs = tokenizer([question] * len(choices), list(choices), return_tensors="pt", padding=True)
        with torch.no_grad():
            logits = model(**{name: ids[None] for name, ids in inputs.items()}).logits[0]
        assert list(answer.scores.values()) == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)
        assert answer.label == str(int(logits.argmax()))
    (tmp_path / "q.tsv").write_text("q\ta\tb\tc\n" + "".join(f"{q}\t" + "\t".join(c) + "\n" for q, c in questions[::2]))
    predict(config_for(folder, file=tmp_path / "q.tsv", column="q", choice_columns=("a", "b", "c")))
    table = capsys.readouterr().out
    predict(config_for(folder, text=tuple("\t".join([q, *c]) for q, c in questions[::2])))
    assert capsys.readouterr().out == table
    assert [line.split("\t")[0] for line in table.splitlines()[1:]] == [found[0].label, found[2].label]
    with pytest.raises(ValueError, match="input 1 has 1 choices: give the question and at least two"):
        predict(config_for(folder, text=("the film\tgood",)))


def test_tags_equal_the_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {0: "O", 1: "B-X", 2: "I-X"}
    folder = make_classifier(tmp_path / "m", ElectraForTokenClassification, id2label=names)
    texts = ["the film is great", "", "a very dull plot with music"]
    theirs = pipeline("token-classification", model=str(folder), tokenizer=AutoTokenizer.from_pretrained(folder))
    theirs.ignore_labels = []
    predict(config_for(folder, text=tuple(texts), format="jsonl"))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["tokens"] for row in rows] == [text.split() for text in texts]
    for text, row in zip(texts, rows, strict=True):  # all these words are one piece
        assert row["tags"] == ([item["entity"] for item in theirs(text, ignore_labels=[])] if text else [])
    predict(config_for(folder, text=tuple(texts)))
    lines = capsys.readouterr().out.split("\n")
    assert [line.split("\t")[:2] for line in lines if line] == [
        [word, tag] for row in rows for word, tag in zip(row["tokens"], row["tags"], strict=True)
    ]


def test_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer is the best span of transformers' logits; a file and the command line give the same."""
    folder = make_classifier(tmp_path / "m", ElectraForQuestionAnswering)
    question, context = "is the film good?", "the plot was very dull and the music awful but the actors were great"
    predict(config_for(folder, question=(question,), context=context, format="jsonl"))
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["answer"] and row["answer"] in context
    paragraph = {"context": context, "qas": [{"id": "0", "question": question, "answers": []}]}
    (tmp_path / "q.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    predict(config_for(folder, file=tmp_path / "q.json", format="jsonl"))
    assert json.loads(capsys.readouterr().out) == row
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets, segments = inputs.pop("offset_mapping")[0], inputs["token_type_ids"][0]
    with torch.no_grad():
        out = ElectraForQuestionAnswering.from_pretrained(folder).eval()(**inputs)
    places = [i for i, segment in enumerate(segments.tolist()) if segment][:-1]
    pairs = [(i, j) for i in places for j in places if i <= j < i + 30]
    start, end = max(pairs, key=lambda pair: float(out.start_logits[0, pair[0]] + out.end_logits[0, pair[1]]))
    assert row["answer"] == context[offsets[start][0] : offsets[end][1]]
    with pytest.raises(ValueError, match="--text is for models of another kind"):
        predict(config_for(folder, text=("good",)))


def test_several_models_answer_with_their_mean(classifier: Path, tmp_path: Path) -> None:
    names = {0: "sad", 1: "plain", 2: "glad"}
    other = make_classifier(tmp_path / "other", seed=2, id2label=names, label2id={n: i for i, n in names.items()})
    logits = []
    for folder in (classifier, other):
        model = ElectraForSequenceClassification.from_pretrained(folder).eval()
        inputs = AutoTokenizer.from_pretrained(folder)("a very dull plot", return_tensors="pt")
        with torch.no_grad():
            logits.append(model(**inputs).logits[0])
    expected = (sum(logits) / 2).softmax(-1)
    (answer,) = predictor_for(classifier, also=(str(other),))(["a very dull plot"])
    assert list(answer.scores.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    with pytest.raises(ValueError, match="has other labels than"):
        predictor_for(classifier, also=(str(make_classifier(tmp_path / "two")),))
    with pytest.raises(ValueError, match=r"is no ElectraForSequenceClassification as .* is: use them apart"):
        predictor_for(classifier, also=(str(make_classifier(tmp_path / "tags", ElectraForTokenClassification)),))


def test_inputs_of_any_size(
    classifier: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Chunks change no answer, at most two are in memory, and those before a faulty line are written."""
    monkeypatch.setattr(electra.predict, "CHUNK_INPUTS", 7)
    texts = [f"{TEXTS[i % 6]} {'dull ' * (i % 11)}" for i in range(100)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    assert predict(config_for(classifier, file=tmp_path / "texts.txt")) == 100
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    expected = predictor_for(classifier)(texts)
    assert [label for label, _ in lines] == [answer.label for answer in expected]
    assert [float(score) for _, score in lines] == pytest.approx([answer.score for answer in expected], abs=1e-5)

    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "good"

    answers = electra.predict.answer_chunks(predictor_for(classifier), endless())
    assert len(next(answers)) == 7
    assert taken <= 2 * 7
    answers.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]

    (tmp_path / "junk.txt").write_bytes(b"good\n" * 20 + b"\xff\xfe\n" + b"bad\n")
    for changes in ({}, {"out": tmp_path / "out.tsv"}):
        with pytest.raises(ValueError, match=r"junk.txt, line 21 is not UTF-8 text \(byte 0 of the line\)"):
            predict(config_for(classifier, file=tmp_path / "junk.txt", **changes))
    assert len(capsys.readouterr().out.splitlines()) == 1 + 14
    assert not [path for path in tmp_path.iterdir() if "out.tsv" in path.name]
    (tmp_path / "zeros.txt").write_bytes(b"good\n\0\0\0")
    with pytest.raises(ValueError, match=r"zeros.txt, line 2 holds a NUL byte: is this a text file"):
        predict(config_for(classifier, file=tmp_path / "zeros.txt"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfgood\r\n\xe9")))
    with pytest.raises(ValueError, match="standard input, line 2 is not UTF-8 text"):
        predict(config_for(classifier))


def test_chunks_of_long_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(electra.predict, "CHUNK_CHARACTERS", 10)
    inputs = ["abc", ("abcd", "abc"), ("a", ("b", "c")), "a" * 99]
    assert [len(chunk) for chunk in cut_chunks(inputs)] == [2, 2]
