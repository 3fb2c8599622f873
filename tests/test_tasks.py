"""Reading task files, features against Hugging Face's tokenizer, batches, and the head against transformers."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import make_model_folder, make_vocabulary, tiny_config
from transformers import AutoTokenizer, ElectraConfig, ElectraForSequenceClassification

from electra.config import TaskConfig
from electra.interop.hf import encoder_to_hf
from electra.tasks.catalogue import COLA, MRPC, NSMC, RTE, SST2, STSB, TASKS, Task, find_task
from electra.tasks.classifier import Scale, SequenceClassifier, predict_logits
from electra.tasks.examples import TaskData, load_task_data, read_table
from electra.tasks.features import collate, encode_texts, epoch_batches, longest_first, sorted_batches

CUSTOM = find_task("custom", TaskConfig())


def write(folder: Path, **files: str) -> Path:
    """Write train_tsv="..." as train.tsv and so on."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8", newline="")
    return folder


# ------------------------------------------------------------------------------------------------ real files


@pytest.mark.parametrize(
    ("task", "folder", "train", "dev"),
    [
        (SST2, "glue/SST-2", 67349, 872),
        (COLA, "glue/CoLA", 8551, 1043),
        (MRPC, "glue/MRPC", 3668, 408),
        (RTE, "glue/RTE", 2490, None),
        (STSB, "glue/STS-B", 5749, None),
        (NSMC, "nsmc", 150_000, None),
    ],
    ids=list(TASKS),
)
def test_official_files_have_their_official_row_counts(
    real_data: Path, task: Task, folder: str, train: int, dev: int | None
) -> None:
    data = load_task_data(task, real_data / folder)
    orders = 2 if task.both_orders else 1
    if dev is None:
        assert len(data.dev.labels) == round(train / 10)
        assert len(data.train.labels) == orders * (train - round(train / 10))
        assert any("kept apart as the dev set" in note for note in data.notes)
    else:
        assert (len(data.train.labels), len(data.dev.labels)) == (orders * train, dev)
    assert data.test is None
    if task.kind == "regression":
        assert (data.train.labels.min(), data.train.labels.max()) == (0, 5)
    else:
        assert set(data.train.labels.tolist()) == {0, 1}
    assert all((row.pair is not None) == bool(task.pair) for row in data.dev.examples)


def test_mrpc_keeps_quotes_and_the_first_row(real_data: Path) -> None:
    data = load_task_data(MRPC, real_data / "glue/MRPC")
    assert sum('"' in row.text for row in data.dev.examples) > 50
    assert data.dev.examples[0].line == 2
    assert set(data.dev.labels.tolist()) == {0, 1}


# --------------------------------------------------------------------------------------------- small files


def test_three_formats_give_the_same_examples(tmp_path: Path) -> None:
    formats = {
        "train_tsv": 'label\ttext\nyes\ta "quote\nno\tplain',
        "train_csv": 'text,label\n"a ""quote",yes\nplain,no\n',
        "train_jsonl": '{"text": "a \\"quote", "label": "yes"}\n\n{"label": "no", "text": "plain"}\n',
    }
    for name, text in formats.items():
        folder = tmp_path / name
        folder.mkdir()
        data = load_task_data(CUSTOM, write(folder, **{name: text, name.replace("train", "dev"): text}))
        assert data.task.labels == ("no", "yes")
        assert [row.text for row in data.train.examples] == ['a "quote', "plain"]
        assert data.train.labels.tolist() == [1, 0]


def test_line_ends_and_odd_characters(tmp_path: Path) -> None:
    path = write(tmp_path, a_tsv="\ufefftext\tlabel\r\none\u2028line\x85\t1\r\n\t0") / "a.tsv"
    assert list(read_table(path)) == [(2, {"text": "one\u2028line\x85", "label": "1"}), (3, {"text": "", "label": "0"})]


def test_csv_row_may_span_lines(tmp_path: Path) -> None:
    path = write(tmp_path, a_csv='text,label\n"two\nlines",1\nx,2\n') / "a.csv"
    assert [row["text"] for _, row in read_table(path)] == ["two\nlines", "x"]


def test_json_labels_may_be_numbers(tmp_path: Path) -> None:
    rows = "".join(f'{{"text": "t", "label": {label}}}\n' for label in (10, 2, 10))
    data = load_task_data(CUSTOM, write(tmp_path, train_jsonl=rows, dev_jsonl=rows))
    assert data.task.labels == ("2", "10")


def test_dev_set_is_cut_the_same_way_each_time_and_apart(tmp_path: Path) -> None:
    write(tmp_path, train_tsv="text\tlabel\n" + "".join(f"t{i}\t{i % 2}\n" for i in range(50)))

    def texts(data: TaskData) -> tuple[list[str], list[str]]:
        return [row.text for row in data.train.examples], [row.text for row in data.dev.examples]

    data = load_task_data(CUSTOM, tmp_path)
    train, dev = texts(data)
    assert (len(train), len(dev)) == (45, 5)
    assert not set(train) & set(dev)
    assert "5 of 50 training examples (10%, seed 0) are kept apart" in data.notes[0]
    assert texts(load_task_data(CUSTOM, tmp_path)) == (train, dev)
    fewer = load_task_data(CUSTOM, tmp_path, max_train=7)
    assert len(fewer.train.labels) == 7
    assert set(texts(fewer)[0]) < set(train)


def test_symmetric_pairs_train_in_both_orders(tmp_path: Path) -> None:
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    write(tmp_path, train_tsv=header + "1\t1\t2\ta\tb\n0\t1\t2\tc\td\n", dev_tsv=header + "1\t3\t4\te\tf\n")
    data = load_task_data(MRPC, tmp_path)
    assert [(row.text, row.pair) for row in data.train.examples] == [("a", "b"), ("c", "d"), ("b", "a"), ("d", "c")]
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert [(row.text, row.pair) for row in data.dev.examples] == [("e", "f")]


def test_test_file_counts_only_with_labels(tmp_path: Path) -> None:
    rows = "text\tlabel\na\t0\nb\t1\n"
    assert load_task_data(CUSTOM, write(tmp_path, train_tsv=rows, dev_tsv=rows, test_tsv="text\na\n")).test is None
    labelled = load_task_data(CUSTOM, write(tmp_path, test_tsv=rows)).test
    assert labelled is not None
    assert labelled.labels.tolist() == [0, 1]


GOOD = "text\tlabel\na\t0\nb\t1\n"


@pytest.mark.parametrize(
    ("files", "task", "sentence"),
    [
        ({}, CUSTOM, "has no train.tsv or train.csv or train.jsonl, which the task custom needs"),
        ({}, SST2, "has no train.tsv, which the task sst2 needs"),
        ({"train_tsv": GOOD, "train_csv": "text,label\n"}, CUSTOM, "has train.tsv and train.csv: keep one"),
        ({"train_tsv": ""}, CUSTOM, "train.tsv holds no examples"),
        ({"train_tsv": "text\tlabel\n"}, CUSTOM, "train.tsv holds no examples"),
        ({"train_tsv": "sentence\tlabel\na\t0\n"}, CUSTOM, "no column 'text'; the columns here are sentence, label"),
        ({"train_tsv": "text\tlabel\na\n"}, CUSTOM, "line 2: 1 columns where 2 (text, label) belong"),
        ({"train_tsv": GOOD, "dev_tsv": "text\tlabel\na\t0\nb\t2\n"}, CUSTOM, "dev.tsv, line 3: label '2' is not in"),
        ({"train_tsv": "sentence\tlabel\na\tx\nb\tx\n"}, SST2, "label 'x' is not in the label set (0, 1)"),
        ({"train_tsv": "text\tlabel\na\t0\nb\t0\n"}, CUSTOM, "the only label is '0'"),
        ({"train_tsv": "sentence\tlabel\na\t0\n"}, SST2, "too few to cut a dev set from"),
        ({"train_jsonl": '{"text": "a"\n'}, CUSTOM, "train.jsonl, line 1: not valid JSON"),
        ({"train_jsonl": "[1]\n"}, CUSTOM, "train.jsonl, line 1: a line must be a JSON object"),
        ({"train_csv": 'text,label\n"a"b,1\n'}, CUSTOM, "train.csv, line 2: not valid CSV"),
    ],
)
def test_bad_files(tmp_path: Path, files: dict[str, str], task: Task, sentence: str) -> None:
    write(tmp_path, **files)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_task_data(task, tmp_path)


def test_bad_values_of_a_regression(tmp_path: Path) -> None:
    task = find_task("custom", TaskConfig(kind="regression"))
    write(tmp_path, train_tsv="text\tlabel\na\t1.5\nb\thigh\n", dev_tsv="text\tlabel\na\t1\n")
    with pytest.raises(ValueError, match=r"train.tsv, line 3: the label 'high' is not a number"):
        load_task_data(task, tmp_path)
    write(tmp_path, train_tsv="text\tlabel\na\tnan\n")
    with pytest.raises(ValueError, match="'nan' is not a number"):
        load_task_data(task, tmp_path)
    write(tmp_path, train_tsv="text\tlabel\na\t2\nb\t2\n")
    with pytest.raises(ValueError, match="there is nothing to learn"):
        load_task_data(task, tmp_path)
    write(tmp_path, train_tsv="text\tlabel\na\t-2\nb\t6\n")
    assert load_task_data(task, tmp_path).task.value_range == (-2, 6)


def test_bad_folder_and_bytes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        load_task_data(CUSTOM, tmp_path / "nowhere")
    (tmp_path / "train.tsv").write_bytes(b"text\tlabel\n\xff\xfe\t0\n")
    with pytest.raises(ValueError, match=r"is not UTF-8 text \(byte 11\)"):
        load_task_data(CUSTOM, tmp_path)


def test_unknown_task_and_misplaced_columns() -> None:
    with pytest.raises(ValueError, match="unknown task 'sst': choose one of sst2, cola, mrpc, rte, stsb, nsmc"):
        find_task("sst", TaskConfig())
    with pytest.raises(ValueError, match="--task sst2 has its own columns"):
        find_task("sst2", TaskConfig(text="review"))


# ------------------------------------------------------------------------------------- features and batches


def test_longest_first_equals_the_tokenizer_library(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_model_folder(tmp_path / "model"))
    for max_length in (8, 9, 16):
        for a in range(18):
            for b in range(1, 18):
                ours = longest_first(a, b, max_length - 3)
                theirs = tokenizer("a " * a, "b " * b, truncation="longest_first", max_length=max_length)
                segments = theirs["token_type_ids"]
                assert (segments.count(0) - 2, segments.count(1) - 1) == ours, (a, b, max_length)


def test_features_equal_hugging_face(tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "model")
    vocabulary, tokenizer = make_vocabulary(tmp_path / "v"), AutoTokenizer.from_pretrained(folder)
    texts = ["The film is GREAT!", "", "so dull, so long " * 5, "bad", "films"]
    pairs = [None, "music", "that was not a good plot " * 4, "", None]
    features = encode_texts(vocabulary, texts, pairs, max_length=21)
    assert features.truncated == 1
    batch = collate(features, np.arange(5))
    assert batch.input_ids.shape == (5, 21)  # 24 would be longer than max_length
    for row, (text, pair) in enumerate(zip(texts, pairs, strict=True)):
        expected = tokenizer(text, pair, truncation="longest_first", max_length=21, padding="max_length")
        assert batch.input_ids[row].tolist() == expected["input_ids"]
        assert batch.segment_ids[row].tolist() == expected["token_type_ids"]
        assert batch.valid[row].tolist() == [bool(x) for x in expected["attention_mask"]]


def test_epoch_batches_are_a_bucketed_permutation() -> None:
    lengths = np.random.default_rng(0).integers(5, 128, 10_007)
    batches = epoch_batches(lengths, 32, seed=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, batches))[:2] == [10_007 % 32, 32]
    again, other_epoch, other_seed = (epoch_batches(lengths, 32, *key) for key in ((1, 0), (1, 1), (2, 0)))
    assert all(np.array_equal(x, y) for x, y in zip(batches, again, strict=True))
    for other in (other_epoch, other_seed):
        assert not any(set(batches[0].tolist()) == set(batch.tolist()) for batch in other)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    assert padded < 1.06 * lengths.sum()  # random batches of this kind would be 1.9 times as long


def test_sorted_batches_hold_each_row_once() -> None:
    lengths = np.array([3, 9, 5, 9, 1])
    assert [batch.tolist() for batch in sorted_batches(lengths, 2)] == [[1, 3], [2, 0], [4]]


# ---------------------------------------------------------------------------------------------------- model


def hugging_face(model: SequenceClassifier, scale: Scale | None = None) -> ElectraForSequenceClassification:
    config = model.encoder.config
    theirs = ElectraForSequenceClassification(
        ElectraConfig(
            vocab_size=config.vocab_size,
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_positions,
            num_labels=model.head.out_proj.out_features,
        )
    )
    tensors = encoder_to_hf(model.encoder.state_dict(), config) | model.head_tensors(scale)
    report = theirs.load_state_dict(tensors, strict=False)
    assert not report.unexpected_keys
    assert not [key for key in report.missing_keys if "position_ids" not in key]
    return theirs.eval()


@pytest.mark.parametrize("outputs", [3, 1])
def test_logits_loss_and_gradients_equal_transformers(tmp_path: Path, outputs: int) -> None:
    vocabulary = make_vocabulary(tmp_path)
    torch.manual_seed(0)
    config = dataclasses.replace(tiny_config(vocabulary), dropout=0.0, attention_dropout=0.0)
    model = SequenceClassifier(config, outputs)
    theirs = hugging_face(model)
    features = encode_texts(vocabulary, ["a good film", "bad", "the plot"], ["so dull", None, "was long"], 32)
    labels = np.array([2, 0, 1]) if outputs == 3 else np.array([0.5, 0.0, 1.0], dtype=np.float32)
    batch = collate(features, np.arange(3), labels)
    expected = theirs(
        input_ids=batch.input_ids,
        token_type_ids=batch.segment_ids,
        attention_mask=batch.valid.long(),
        labels=batch.labels,
    )
    logits = model.logits(batch)
    torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=1e-5)
    loss, _ = model(batch, {"examples": 3.0})
    assert loss.item() == pytest.approx(expected.loss.item(), abs=1e-6)
    loss.backward()
    expected.loss.backward()
    torch.testing.assert_close(model.head.dense.weight.grad, theirs.classifier.dense.weight.grad, atol=1e-6, rtol=1e-4)
    ours_grad, theirs_grad = (
        model.encoder.embeddings.position.weight.grad,
        theirs.electra.embeddings.position_embeddings,
    )
    torch.testing.assert_close(ours_grad, theirs_grad.weight.grad, atol=1e-6, rtol=1e-4)
    # Two micro-batches add up to the batch.
    parts = [model(collate(features, np.array(rows), labels), {"examples": 3.0})[0].item() for rows in ([0, 1], [2])]
    assert sum(parts) == pytest.approx(loss.item(), abs=1e-6)


def test_head_stays_fp32_under_autocast(tmp_path: Path) -> None:
    """In bf16 the predictions of a regression would be a few hundredths apart and tie."""
    vocabulary = make_vocabulary(tmp_path)
    model = SequenceClassifier(tiny_config(vocabulary), 1).eval()
    batch = collate(encode_texts(vocabulary, ["good film", "bad"], [None, None], 32), np.arange(2))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model.logits(batch)
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())


def test_scale_is_folded_into_the_exported_head(tmp_path: Path) -> None:
    vocabulary = make_vocabulary(tmp_path)
    model, scale = SequenceClassifier(tiny_config(vocabulary), 1).eval(), Scale(-1.0, 5.0)
    features = encode_texts(vocabulary, ["good film", "bad"], [None, None], 32)
    batch = collate(features, np.arange(2))
    with torch.no_grad():
        exported = hugging_face(model, scale)(batch.input_ids, batch.valid.long(), batch.segment_ids).logits[:, 0]
        ours = scale.to_labels(model.logits(batch)[:, 0].numpy())
    np.testing.assert_allclose(exported.numpy(), ours, atol=1e-5)
    np.testing.assert_allclose(scale.to_unit(np.array([-1.0, 2.0, 5.0])), [0, 0.5, 1])


def test_predictions_come_in_the_order_of_the_texts(tmp_path: Path) -> None:
    vocabulary = make_vocabulary(tmp_path)
    model = SequenceClassifier(tiny_config(vocabulary), 2)
    texts = ["a " * n for n in (9, 1, 20, 3, 14)]
    features = encode_texts(vocabulary, texts, [None] * 5, 64)
    found = predict_logits(model, features, batch_size=2)
    with torch.no_grad():
        for row in range(5):
            one = model.logits(collate(features, np.array([row])))
            np.testing.assert_allclose(found[row], one[0].numpy(), atol=1e-6)
