"""Task heads of Google's fine-tuned checkpoints: Google's own logits, and a naive computation on the variables."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import write_bundle
from google_checkpoints import (
    CONFIG,
    IDS,
    MASK,
    SEGMENTS,
    Arrays,
    close,
    dense,
    naive_dense,
    naive_encoder,
    outputs,
    random_arrays,
    read_npz,
)

from electra.interop.bundle import Bundle
from electra.interop.google import GoogleCheckpoint, encoder_variables, read_google
from electra.interop.google_heads import classification_head


def fine_tuned(tmp_path: Path, task: str, *heads: dict[str, tuple[int, ...]], seed: int = 1) -> GoogleCheckpoint:
    variables = random_arrays(encoder_variables(CONFIG, "electra", "electra"), *heads, seed=seed)
    return read_google(write_bundle(tmp_path / "model", variables | {"global_step": np.array(3, "i8")}))


def test_a_dense_layer_fits_into_the_head_of_hugging_face():
    """x = gelu(x) - gelu(-x), far from 0 too."""
    weight, bias = torch.randn(3, 8) * 10, torch.randn(3)
    state = classification_head(weight, bias)
    first = torch.randn(50, 8)
    hidden = torch.nn.functional.gelu(first @ state["classifier.dense.weight"].T + state["classifier.dense.bias"])
    found = hidden @ state["classifier.out_proj.weight"].T + state["classifier.out_proj.bias"]
    torch.testing.assert_close(found, first @ weight.T + bias, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("task", "labels", "kind", "architecture"),
    [
        ("mnli", 3, "classification", "ElectraForSequenceClassification"),
        ("sts", 1, "regression", "ElectraForSequenceClassification"),
        ("chunk", 23, "tagging", "ElectraForTokenClassification"),
    ],
)
def test_heads_of_one_dense(tmp_path, task, labels, kind, architecture):
    head = dense(f"task_specific/{task}/dense", 16, labels)
    checkpoint = fine_tuned(tmp_path, task, head)
    found = checkpoint.tasks[task]
    assert (found.kind, found.network.architecture, found.extra) == (kind, architecture, {})
    variables = random_arrays(encoder_variables(CONFIG, "electra", "electra"), head, seed=1)
    states = naive_encoder(variables, "electra", "electra")
    expected = naive_dense(variables, f"task_specific/{task}/dense", states if kind == "tagging" else states[:, 0])
    close(outputs(found.network, IDS, SEGMENTS, MASK)[0], expected.astype("f4"))
    names = found.network.config["id2label"]
    assert (
        list(names.values())[:2]
        == {
            "mnli": ["contradiction", "entailment"],
            "sts": ["LABEL_0"],
            "chunk": ["LABEL_0", "LABEL_1"],
        }[task]
    )
    assert checkpoint.missing[:2] == ["the discriminator's head", "the generator"] and checkpoint.step == 3


def test_several_tasks_share_one_encoder(tmp_path):
    checkpoint = fine_tuned(
        tmp_path, "two", dense("task_specific/sst/dense", 16, 2), dense("task_specific/qnli/dense", 16, 2)
    )
    word = "electra.embeddings.word_embeddings.weight"
    assert set(checkpoint.tasks) == {"sst", "qnli"}
    assert checkpoint.tasks["sst"].network.tensors[word] is checkpoint.tasks["qnli"].network.tensors[word]
    assert checkpoint.tasks["qnli"].network.config["id2label"] == {"0": "entailment", "1": "not_entailment"}


def test_a_head_with_too_many_labels_is_kept_beside_the_encoder(tmp_path):
    found = fine_tuned(tmp_path, "many", dense("task_specific/many/dense", 16, 9)).tasks["many"]
    assert found.network.architecture == "ElectraModel"
    assert {name: tuple(tensor.shape) for name, tensor in found.extra.items()} == {
        "classifier.weight": (9, 16),
        "classifier.bias": (9,),
    }


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ({"dense": (17, 2)}, r"the dense layer of the task x is no dense layer on 16 units: .*weight \(2, 17\)"),
        ({"lstm": (16, 2)}, "a task head that is unknown here: task_specific/x/lstm"),
        ({"dense": (16, 1), "dense_1": (16, 2)}, "the end layer of the task x has 2 outputs instead of one"),
        ({"dense": (16, 1), "dense_1": (512, 1), "qa_hidden": (16, 512)}, "the end_hidden layer of the task x is no"),
        ({"dense": (16, 1), "dense_1": (16, 1), "dense_3": (512, 1)}, "the answerable layer of the task x is no"),
    ],
)
def test_unknown_heads_are_refused(tmp_path, layers, sentence):
    heads = [dense(f"task_specific/x/{name}", *shape) for name, shape in layers.items()]
    with pytest.raises(ValueError, match=sentence):
        fine_tuned(tmp_path, "x", *heads)


def test_a_head_without_kernel_or_bias_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown here: task_specific/x/dense/gamma"):
        fine_tuned(tmp_path, "x", {"task_specific/x/dense/gamma": (3,)})
    with pytest.raises(ValueError, match="is no dense layer on 16 units: bias"):
        fine_tuned(tmp_path, "x", {"task_specific/x/dense/bias": (3,)})


def fine_tuned_golden(golden: Path, tmp_path: Path, name: str) -> tuple[GoogleCheckpoint, Arrays, Arrays]:
    """(checkpoint of ckpt_a's encoder and the task's initial head, inputs, Google's outputs)."""
    bundle = Bundle.find(golden / "ckpt_a")
    encoder = {n: bundle.read(n) for n in bundle.names() if n.startswith("electra/") and "/adam_" not in n}
    variables = encoder | read_npz(golden / f"{name}.npz", "task_init|")
    hparams = json.loads((golden / "pre_a_meta.json").read_text())["config"]
    found = read_google(write_bundle(tmp_path / name, variables), hparams)
    return found, read_npz(golden / f"{name}.npz", "in|"), read_npz(golden / f"{name}.npz", "out|")


def test_classification_logits_equal_google(golden, tmp_path):
    found, batch, out = fine_tuned_golden(golden, tmp_path, "ft_sst")
    head = found.tasks["sst"]
    logits = outputs(head.network, batch["input_ids"], batch["segment_ids"], batch["input_mask"])[0]
    close(logits, out["logits"])
    assert found.missing[:2] == ["the discriminator's head", "the generator"]


def answer_mask(batch: Arrays) -> torch.Tensor:
    """Google's: only [CLS] and the passage can be answers."""
    allowed = batch["input_mask"] * batch["segment_ids"]
    allowed[:, 0] += 1
    return torch.from_numpy(1000.0 * (allowed - 1)).float()


def apply(extra: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(x, extra[f"{name}.weight"], extra[f"{name}.bias"])


def test_independent_spans_equal_google(golden, tmp_path):
    found, batch, out = fine_tuned_golden(golden, tmp_path, "ft_squad_independent")
    head = found.tasks["squad"]
    assert (head.kind, head.network.architecture) == ("question answering", "ElectraForQuestionAnswering")
    inputs = batch["input_ids"], batch["segment_ids"], batch["input_mask"]
    start, end = outputs(head.network, *inputs)
    close(start + answer_mask(batch), out["start_logits"])
    close(end + answer_mask(batch), out["end_logits"])
    states = outputs(found.discriminator, *inputs)[0]
    close(apply(head.extra, "answerable", states[:, 0])[:, 0], out["answerable_logit"])


def test_joint_spans_equal_google(golden, tmp_path):
    found, batch, out = fine_tuned_golden(golden, tmp_path, "ft_squad_joint")
    head = found.tasks["squad"]
    assert (head.kind, head.network.architecture) == ("question answering", "ElectraModel")
    states = outputs(head.network, batch["input_ids"], batch["segment_ids"], batch["input_mask"])[0]
    mask, gelu = answer_mask(batch), torch.nn.functional.gelu
    start = apply(head.extra, "start", states)[..., 0] + mask
    close(start, out["start_logits"])
    gold = states[torch.arange(4), torch.from_numpy(batch["squad_start_positions"]).long()]
    pairs = torch.cat([gold[:, None].expand_as(states), states], -1)
    close(apply(head.extra, "end", gelu(apply(head.extra, "end_hidden", pairs)))[..., 0] + mask, out["end_logits"])
    mixed = (start.softmax(-1)[..., None] * states).sum(1)
    hidden = gelu(apply(head.extra, "answerable_hidden", torch.cat([states[:, 0], mixed], -1)))
    close(apply(head.extra, "answerable", hidden)[:, 0], out["answerable_logit"])
