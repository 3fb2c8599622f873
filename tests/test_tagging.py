"""Tagging from words to a model folder: pieces and windows, the model against transformers, runs from end to end."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from seqeval.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight
from tiny_models import WORDS, make_model_folder, make_vocabulary, tiny_config
from torch.nn import functional as F
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from electra.config import FinetuneConfig, TaskConfig
from electra.finetune import finetune
from electra.interop.hf import load_pretrained
from electra.runtime import start
from electra.tasks.catalogue import find_task
from electra.tasks.problems import Problems
from electra.tasks.tagging.features import (
    IGNORED,
    encode_sentences,
    nearest_window,
    piece_labels,
    tag_batch,
    unit_tags,
    window_begins,
)
from electra.tasks.tagging.predictor import load_tagging_predictor, split_words
from electra.tasks.tagging.prepared import TaggingPrepared, class_weights, label_names, prepare_tagging
from electra.tasks.tagging.schemes import convert_tags
from electra.tasks.tagging.tagger import TokenTagger, tag_logits
from electra.tokenizer import Vocabulary

FILLER = [word for word in WORDS.split() if word not in ("good", "great", "bad", "awful")]


def sentences(count: int, seed: int) -> list[list[tuple[str, str]]]:
    """Random words with entities: `good great` is one of two words, `bad` one of one."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        rows = [(word, "O") for word in rng.choices(FILLER, k=rng.randint(3, 9))]
        place = rng.randrange(len(rows))
        rows[place:place] = rng.choice([[("good", "B-X"), ("great", "I-X")], [("bad", "B-Y")]])
        found.append([*rows, (".", "O")])
    return found


def as_columns(found: list[list[tuple[str, str]]]) -> str:
    return "".join("".join(f"{word} x {tag}\n" for word, tag in rows) + "\n" for rows in found)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("tagging") / "model")


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return make_vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="session")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    data = tmp_path_factory.mktemp("chunks")
    for name, count, seed in (("train", 480, 0), ("dev", 60, 1), ("test", 40, 2)):
        (data / f"{name}.txt").write_text(as_columns(sentences(count, seed)))
    config = FinetuneConfig(
        model=str(model_folder), data=data, out=data / "out", task="chunk", epochs=5, learning_rate=3e-3,
        layer_decay=1.0, max_length=32, seeds=(0,), device="cpu", precision="fp32",
    )  # fmt: skip
    finetune(config)
    return config


# ------------------------------------------------------------------------------------------------- features


def test_pieces_are_those_of_hugging_face(model_folder: Path, vocabulary: Vocabulary) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    words = [["The", "films", "awful!", "boring", "is"], ["a"]]
    features = encode_sentences(vocabulary, words, characters=False, max_length=32)
    batch = tag_batch(features, np.arange(2), np.array([5, 6, 7, 8, 9, 4]))
    expected = tokenizer(words, is_split_into_words=True, padding="max_length", max_length=batch.input_ids.shape[1])
    assert batch.input_ids.tolist() == expected["input_ids"]
    assert batch.segment_ids.tolist() == expected["token_type_ids"]
    assert batch.valid.long().tolist() == expected["attention_mask"]
    for row in range(2):  # the first piece of a word has its label, the others none
        owners = expected.word_ids(row)
        first = [owner is not None and owner not in owners[:place] for place, owner in enumerate(owners)]
        given = ([5, 6, 7, 8, 9], [4])[row]
        labels = [given[owner] if is_first else IGNORED for owner, is_first in zip(owners, first, strict=True)]
        assert batch.labels is not None
        assert batch.labels[row].tolist() == labels


def test_windows_cover_everything_with_context_on_both_sides() -> None:
    for room in (6, 7, 30):
        for length in (1, room, room + 1, 2 * room, 100):
            begins = window_begins(length, room)
            places = np.arange(length)
            chosen = nearest_window(places, begins, room)
            inside = (begins[:, None] <= places) & (places < np.minimum(begins + room, length)[:, None])
            assert inside.any(0).all()
            left, right = places - begins[:, None], begins[:, None] + room - 1 - places
            context = np.where(inside, np.minimum(left, right), -1)
            assert (context[chosen, places] == context.max(0)).all()
            if length > room:
                middle = (places >= room // 2) & (places < length - room // 2)
                assert (context[chosen, places][middle] >= room // 4 - 1).all()


def test_long_sentences_and_long_words_lose_nothing(vocabulary: Vocabulary) -> None:
    rng = random.Random(0)
    words = [rng.choice(FILLER) for _ in range(90)]
    words[40] = "b" + "s" * 60  # more pieces than a row has
    words[41] = "\u200b\u0007"  # no piece at all
    words[42] = "z" * 300  # over the 200 letters of a word: one [UNK]
    given = [words, ["bad"]]
    features = encode_sentences(vocabulary, given, characters=False, max_length=20)
    assert features.windowed == 1
    assert features.rows.lengths.max() == 20
    assert len(features.positions) == len(features.is_first) == 91
    ids = [
        int(features.rows.ids[features.rows.offsets[row] + place])
        for row, place in zip(features.row_of_piece, features.positions, strict=True)
    ]
    whole = [vocabulary.encode_batch([word])[0] or [vocabulary.special.unk] for word in [*words, "bad"]]
    assert ids == [pieces[0] for pieces in whole]
    assert len(whole[40]) > 50
    assert ids[41] == ids[42] == vocabulary.special.unk
    assert unit_tags(features, [f"t{piece}" for piece in range(91)], "plain") == [
        [f"t{piece}" for piece in range(90)],
        ["t90"],
    ]
    # Each label is in exactly one row.
    batch = tag_batch(features, np.arange(len(features.rows.lengths)), np.arange(91))
    assert batch.labels is not None
    assert sorted(batch.labels[batch.labels != IGNORED].tolist()) == list(range(91))


def test_characters_are_decided_by_their_pieces(vocabulary: Vocabulary) -> None:
    features = encode_sentences(vocabulary, [["films", "is!"], ["\u200bbad"]], characters=True, max_length=16)
    pieces = ["B-X", "O", "B-Y", "I-Y", "B-X"]  # film ##s is ! bad
    assert unit_tags(features, pieces, "iob2") == [
        ["B-X", "I-X", "I-X", "I-X", "O", "B-Y", "I-Y", "I-Y"],
        ["B-X", "I-X", "I-X", "I-X"],
    ]
    assert piece_labels(features, np.arange(12)).tolist() == [0, 4, 5, 7, 8]


# ---------------------------------------------------------------------------------------------------- model


def test_logits_loss_and_gradients_equal_transformers(finished: FinetuneConfig) -> None:
    folder = finished.out / "model"
    theirs = AutoModelForTokenClassification.from_pretrained(folder).eval()
    pretrained = load_pretrained(str(folder))
    config = dataclasses.replace(pretrained.config, dropout=0.0, attention_dropout=0.0)
    weights = np.linspace(0.5, 2, theirs.config.num_labels)
    model = TokenTagger(config, theirs.config.num_labels, weights)
    model.encoder.load_state_dict(pretrained.encoder_state)
    model.head.load_state_dict({name: pretrained.head_state[name] for name in model.head.state_dict()})
    features = encode_sentences(pretrained.vocabulary, [["a", "good", "films"], ["bad"], []][:2], False, 32)
    batch = tag_batch(features, np.arange(2), np.array([0, 1, 2, 3]))
    expected = theirs(
        input_ids=batch.input_ids, token_type_ids=batch.segment_ids, attention_mask=batch.valid.long()
    ).logits
    logits = model.logits(batch)
    torch.testing.assert_close(logits[batch.valid], expected[batch.valid], atol=1e-5, rtol=1e-5)
    assert batch.labels is not None
    weight = torch.from_numpy(weights).float()
    expected_loss = F.cross_entropy(expected.flatten(0, 1), batch.labels.flatten(), weight=weight)
    loss, sums = model(batch, {"weight": float(weights[:4].sum())})
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-6)
    assert sums["loss"] == loss
    loss.backward()
    expected_loss.backward()
    torch.testing.assert_close(model.head.classifier.weight.grad, theirs.classifier.weight.grad, atol=1e-6, rtol=1e-4)
    table, their_table = model.encoder.embeddings.word, theirs.electra.embeddings.word_embeddings
    torch.testing.assert_close(table.weight.grad[: config.vocab_size], their_table.weight.grad, atol=1e-6, rtol=1e-4)


def test_logits_of_windows_are_in_the_order_of_the_text(vocabulary: Vocabulary) -> None:
    torch.manual_seed(0)
    model = TokenTagger(tiny_config(vocabulary), 3).eval()
    features = encode_sentences(vocabulary, [["bad"] * 30, ["good"], ["a", "film"]], characters=False, max_length=12)
    logits = tag_logits(model, features, batch_tokens=24)
    assert logits.shape == (33, 3)
    alone = encode_sentences(vocabulary, [["a", "film"]], characters=False, max_length=12)
    np.testing.assert_allclose(tag_logits(model, alone), logits[31:], atol=1e-5)


def test_class_weights(vocabulary: Vocabulary) -> None:
    classes = np.array([0, 0, 0, 1, IGNORED, 2, 2])
    labels = ("O", "A", "B", "C")
    balanced = class_weights(("balanced",), labels, classes)
    assert balanced is not None
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=classes[classes != IGNORED])
    np.testing.assert_allclose(balanced, [*theirs, 1])
    assert class_weights((), labels, classes) is None
    assert class_weights(("1", "2", "0", "0.5"), labels, classes).tolist() == [1, 2, 0, 0.5]  # type: ignore[union-attr]
    for given, sentence in (
        (("1", "2"), "has 2 numbers for 4 labels"),
        (("some",), "give the word balanced or numbers"),
        (("1", "-1", "1", "1"), "weights must not be negative"),
    ):
        with pytest.raises(ValueError, match=sentence):
            class_weights(given, labels, classes)


# --------------------------------------------------------------------------------------------------- a run


def test_it_learns_and_its_scores_are_those_of_its_predictions(finished: FinetuneConfig) -> None:
    found = json.loads((finished.out / "results.json").read_text())
    assert found["metric"] == "f1"
    dev = found["summary"]["dev"]
    assert dev["f1"]["median"] > 0.9
    assert list(dev)[:4] == ["f1", "google_f1", "precision", "recall"]
    assert {"f1_X", "f1_Y"} < set(dev)
    assert found["labels"] == ["O", "B-X", "E-X", "S-Y"]
    for split, count in (("dev", 60), ("test", 40)):
        text = (finished.out / "predictions" / f"{split}.txt").read_text()
        rows = [[line.split(" ") for line in part.split("\n")] for part in text.strip().split("\n\n")]
        seed = 1 if split == "dev" else 2
        assert [[(word, gold) for word, gold, _ in part] for part in rows] == sentences(count, seed)
        gold, predicted = [[[row[column] for row in part] for part in rows] for column in (1, 2)]
        assert found["summary"][split]["f1"]["median"] == f1_score(gold, predicted)
        assert {tag[0] for tags in predicted for tag in tags} <= set("BIO")  # the scheme of the file


def test_the_export_answers_alike_in_transformers(finished: FinetuneConfig) -> None:
    folder = finished.out / "model"
    theirs = AutoModelForTokenClassification.from_pretrained(folder).eval()
    assert theirs.config.id2label == {0: "O", 1: "B-X", 2: "E-X", 3: "S-Y"}
    predict = load_tagging_predictor([load_pretrained(str(folder))], start("cpu", "fp32"))
    text = "The music was good great, and bad!"
    tag = pipeline("token-classification", model=str(folder), ignore_labels=[])
    answer = predict([text])[0]
    starts = {found["start"]: found for found in tag(text)}
    assert [unit.text for unit in answer.units] == ["The", "music", "was", "good", "great", ",", "and", "bad", "!"]
    for unit, label, score in zip(answer.units, answer.tags, answer.scores, strict=True):
        assert starts[unit.start]["entity"] == label
        assert starts[unit.start]["score"] == pytest.approx(score, abs=1e-5)
    assert [(found.type, found.text) for found in answer.entities] == [("X", "good great"), ("Y", "bad")]
    for found in answer.entities:
        assert text[found.start : found.end] == found.text
        assert 0 < found.score <= 1


def test_predictor_takes_texts_of_any_length(finished: FinetuneConfig) -> None:
    predict = load_tagging_predictor([load_pretrained(str(finished.out / "model"))], start("cpu", "fp32"), 32)
    texts = ["", "film and bad", " ".join(["music", "was"] * 500) + " bad", "  "]
    empty, short, long, blank = predict(texts)
    assert empty.tags == blank.tags == []
    assert [unit.text for unit in short.units] == ["film", "and", "bad"]
    assert len(long.tags) == 1001
    assert [(found.type, found.start) for found in long.entities] == [("Y", len(texts[2]) - 3)]
    given = predict([["film", "and", "bad"]])[0]
    assert given.units == short.units
    assert given.tags == short.tags
    row = short.row()
    assert row["tokens"] == ["film", "and", "bad"]
    assert row["entities"][0]["text"] == "bad"


def test_words_of_raw_text() -> None:
    text = " \"It's (over), U.S.!  ..."
    assert [word.text for word in split_words(text, True)] == [
        '"', "It's", "(", "over", ")", ",", "U.S.", "!", ".", ".", ".",
    ]  # fmt: skip
    assert [word.text for word in split_words(text, False)] == ["\"It's", "(over),", "U.S.!", "..."]
    for splits in (True, False):
        assert all(text[word.start : word.end] == word.text for word in split_words(text, splits))


def test_eval_and_predict_take_the_fine_tuned_folder(
    finished: FinetuneConfig, model_folder: Path, tmp_path: Path
) -> None:
    found = json.loads((finished.out / "results.json").read_text())
    data = tmp_path / "data"
    data.mkdir()
    (data / "dev.txt").write_text((finished.data / "dev.txt").read_text())
    (data / "test.txt").write_text("good x\ngreat x\n\nbad x\n")
    folder = str(finished.out / "model")
    config = dataclasses.replace(finished, model=folder, data=data, out=tmp_path / "eval", mode="eval")
    scored = finetune(config)
    assert scored["summary"]["dev"]["f1"] == found["summary"]["dev"]["f1"]
    finetune(dataclasses.replace(config, out=tmp_path / "predict", mode="predict"))
    answers = (tmp_path / "predict" / "predictions" / "test.txt").read_text()
    assert answers == "good B-X\ngreat I-X\n\nbad B-Y\n\n"
    with pytest.raises(ValueError, match="has no tagging head: fine-tune it first"):
        label_names(load_pretrained(str(model_folder)))
    (data / "dev.tsv").write_text("a\tPER-B\n")
    with pytest.raises(ValueError, match=r"answers with O, B-X, .*, and the task naver-ner has O, PER-B"):
        finetune(dataclasses.replace(config, task="naver-ner", out=tmp_path / "other"))


def prepared(model_folder: Path, data: Path, name: str = "custom", custom: TaskConfig | None = None) -> TaggingPrepared:
    task = find_task(name, custom or TaskConfig())
    config = FinetuneConfig(model=str(model_folder), data=data, out=data / "out")
    return prepare_tagging(task, config, load_pretrained(str(model_folder)), None, Problems())  # type: ignore[arg-type]


def test_perfect_answers_score_one_in_every_scheme(model_folder: Path, tmp_path: Path) -> None:
    found = sentences(40, 0)
    for scheme in ("iob1", "iob2", "bioes", "suffix"):
        folder = tmp_path / scheme
        folder.mkdir()
        for name in ("train", "dev"):
            text = []
            for rows in found:
                words, tags = zip(*rows, strict=True)
                text.append(list(zip(words, convert_tags(tags, "iob2", scheme), strict=True)))
            (folder / f"{name}.txt").write_text(as_columns(text))
        ready = prepared(model_folder, folder, custom=TaskConfig(kind="tagging"))
        assert ready.data.scheme == scheme
        score = ready.reachable("dev")
        assert (score["f1"], score["accuracy"], score["f1_Y"]) == (1, 1, 1)
        assert "words (X " in ready.describe("dev") or "words (Y " in ready.describe("dev")


def test_klue_says_what_pieces_cannot_express(model_folder: Path, tmp_path: Path) -> None:
    """`films` has the pieces film and ##s, `good` one piece, so that an entity `goo` in it cannot be found."""
    rows = "f\tB-PS\ni\tI-PS\nl\tI-PS\nm\tI-PS\ns\tO\n \tO\nb\tB-LC\na\tI-LC\nd\tI-LC\n\n"
    (tmp_path / "train.tsv").write_text(f"## id\tx\n{rows}" * 4)
    (tmp_path / "dev.tsv").write_text(rows + "g\tB-PS\no\tI-PS\no\tI-PS\nd\tO\n\n")
    ready = prepared(model_folder, tmp_path, "klue-ner")
    assert ready.metric == "macro_f1"
    score = ready.reachable("dev")
    assert score["macro_f1"] == pytest.approx((1 + 1 / 2) / 2)
    assert list(score)[:2] == ["macro_f1", "char_macro_f1"]
    assert ready.notes[-1] == "word pieces cross borders of entities: 0.7500 is the best macro_f1 dev allows"
    outputs = {"logits": np.eye(13)[np.maximum(piece_labels(ready.encoded["dev"], np.zeros(12, int)), 0)]}
    ready.write_predictions(outputs, "dev", tmp_path)
    assert (tmp_path / "dev.txt").read_text().startswith("f B-PS B-PS\ni I-PS I-PS\n")
