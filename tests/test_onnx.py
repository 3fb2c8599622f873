"""ONNX files against transformers, run by onnxruntime alone, and what the export refuses."""

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from tiny_models import make_vocabulary
from transformers import AutoConfig, AutoTokenizer, ElectraConfig

from electra.cli import main
from electra.interop import onnx as onnx_module
from electra.interop.heads import HEADS, HeadedEncoder
from electra.interop.hf import build_model, read_hf
from electra.interop.network import Network
from electra.interop.onnx import INT8, MODEL, TOLERANCE, compare, write_onnx


def make_folder(folder: Path, name: str, layers: int = 1) -> transformers.PreTrainedModel:
    """A random model of a class of transformers, with a tokenizer beside it."""
    vocabulary = make_vocabulary(folder)
    vocabulary.save(folder)
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=vocabulary.size,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    model = getattr(transformers, name)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return model.eval()


def inputs(shape: tuple[int, ...], padding: int) -> dict[str, torch.Tensor]:
    length = shape[-1]
    batch = {
        "input_ids": torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(1)),
        "attention_mask": torch.ones(shape, dtype=torch.long),
        "token_type_ids": (torch.arange(length) > length // 2).long().expand(shape).clone(),
    }
    batch["attention_mask"][-1, ..., length - padding :] = 0
    return batch


def run(path: Path, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {name: ids.numpy() for name, ids in batch.items()}), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "ElectraForPreTraining",
        "ElectraForMaskedLM",
        "ElectraForTokenClassification",
        "ElectraForQuestionAnswering",
    ],
)
@torch.no_grad()
def test_onnxruntime_gives_the_results_of_transformers(tmp_path: Path, name: str) -> None:
    theirs = make_folder(tmp_path / "model", name)
    differences = write_onnx(tmp_path / "onnx", read_hf(tmp_path / "model"), None)
    assert differences.keys() == {MODEL}
    assert differences[MODEL].largest <= TOLERANCE
    for shape, padding in (((1, 5), 0), ((2, 64), 9), ((7, 33), 20)):  # none of them is a probe batch
        batch = inputs(shape, padding)
        found = run(tmp_path / "onnx" / MODEL, batch)
        expected = theirs(**batch)
        assert tuple(found) == HEADS[name].outputs
        for key, value in found.items():
            np.testing.assert_allclose(value, expected[key].numpy(), rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_multiple_choice_has_a_free_number_of_choices(tmp_path: Path) -> None:
    theirs = make_folder(tmp_path / "model", "ElectraForMultipleChoice")
    write_onnx(tmp_path / "onnx", read_hf(tmp_path / "model"), None)
    batch = inputs((2, 5, 12), 3)
    found = run(tmp_path / "onnx" / MODEL, batch)["logits"]
    np.testing.assert_allclose(found, theirs(**batch).logits.numpy(), rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_export_of_a_fine_tuned_folder_with_int8(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The verb: a folder that runs without torch, a few plain lines, and the measured difference of int8."""
    theirs = make_folder(tmp_path / "model", "ElectraForSequenceClassification", layers=2)
    out = tmp_path / "onnx"
    capfd.readouterr()
    assert main(["export", str(tmp_path / "model"), "--format", "onnx", "--int8", "--out", str(out)]) == 0
    said = capfd.readouterr()
    lines = said.out.splitlines()
    assert said.err == ""
    assert [line.split(":")[0] for line in lines] == [str(out / MODEL), str(out / INT8)]
    assert {file.name for file in out.iterdir()} == {
        *(MODEL, INT8, "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    }
    encoded = AutoTokenizer.from_pretrained(out)(
        ["good film", "the plot"], ["dull", "so bright and long"], padding=True
    )
    batch = {name: torch.tensor(ids) for name, ids in encoded.items()}
    expected = theirs(**batch).logits.numpy()
    np.testing.assert_allclose(run(out / MODEL, batch)["logits"], expected, rtol=0, atol=TOLERANCE)
    quantized = run(out / INT8, batch)["logits"]
    assert 0 < np.abs(quantized - expected).max() < 0.2 * np.abs(expected).max()
    said_difference = float(re.search(r"at most (\S+)", lines[1])[1])
    model = build_model(read_hf(tmp_path / "model"))
    assert said_difference == pytest.approx(compare(model, out / INT8).largest, rel=0.05)
    assert AutoConfig.from_pretrained(out).architectures == ["ElectraForSequenceClassification"]

    kinds = {node.op_type for node in onnx.load(out / INT8).graph.node}
    assert {"MatMulInteger", "DynamicQuantizeLinear"} <= kinds
    onnx.checker.check_model(onnx.load(out / MODEL), full_check=True)
    assert str(Path(onnx_module.__file__).parent).encode() not in (out / MODEL).read_bytes()

    assert main(["export", str(tmp_path / "model"), "--format", "onnx", "--out", str(out)]) == 2
    assert "exists already" in capfd.readouterr().err


def test_nothing_is_left_behind_above_tolerance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose file gives other results than torch, here because torch's weights change after the export."""
    make_folder(tmp_path / "model", "ElectraModel")
    network = read_hf(tmp_path / "model")
    export = onnx_module._export

    def export_and_change(model: HeadedEncoder, path: Path) -> None:
        export(model, path)
        with torch.no_grad():
            model.encoder.body.layers[0].down.bias[0] += 0.01

    monkeypatch.setattr(onnx_module, "_export", export_and_change)
    with pytest.raises(ValueError, match=r"differ from torch's by .*e-0[23] .*no ONNX file was written"):
        write_onnx(tmp_path / "onnx", network, None)
    assert not (tmp_path / "onnx").exists()


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "model", "ElectraModel")
    network = read_hf(tmp_path / "model")
    half = {name: value for name, value in network.tensors.items() if "layer.0" not in name}
    with pytest.raises(ValueError, match=r"lacks the tensor electra.encoder.layer.0.* and 13 more"):
        write_onnx(tmp_path / "onnx", dataclasses.replace(network, tensors=half), None)
    with monkeypatch.context() as patch:
        patch.setattr(onnx_module, "PROTOBUF_LIMIT", 1000)
        with pytest.raises(ValueError, match="an ONNX file holds less than"):
            write_onnx(tmp_path / "onnx", network, None)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"needs onnxscript, .*pip install electra-toolkit\[onnx\]"):
        write_onnx(tmp_path / "onnx", Network("x", "ElectraModel", {}, {}), None)
