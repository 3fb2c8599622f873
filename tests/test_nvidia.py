"""Object checkpoints that TensorFlow 2.3 wrote (tests/fixtures/make_tf2_checkpoints.py), with the logits it gave."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from electra.interop.bundle import OBJECT_GRAPH, Bundle
from electra.interop.google import read_google
from electra.interop.hf import check_network
from electra.interop.network import Network
from electra.interop.nvidia import ObjectGraph, read_aws, read_nvidia

FIXTURES = Path(__file__).parent / "fixtures"
WORDS = "electra.embeddings.word_embeddings.weight"
OUTPUT = "generator_lm_head.weight"


def extracted(name: str, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(name)
    with zipfile.ZipFile(FIXTURES / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory) -> Path:
    return extracted("nvidia", tmp_path_factory)


@pytest.fixture(scope="module")
def aws(tmp_path_factory) -> Path:
    return extracted("aws", tmp_path_factory)


def logits(network: Network, expected: dict[str, np.ndarray]) -> torch.Tensor:
    """What Hugging Face's PyTorch model gives with these weights; every weight must find its place."""
    model = getattr(transformers, network.architecture)(transformers.ElectraConfig(**network.config)).eval()
    state = dict(network.tensors)
    if network.architecture == "ElectraForMaskedLM":
        state.setdefault(OUTPUT, state[WORDS])
    model.load_state_dict(state)
    inputs = {n: torch.from_numpy(expected[n]).long() for n in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("prefix", ["ckpt", "ckpt-p2"])
@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_nvidia_networks_give_their_logits(nvidia, prefix, part):
    expected = dict(np.load(nvidia / "expected.npz"))
    network = getattr(read_nvidia(nvidia / f"{prefix}-1"), part)
    assert network.architecture == {"discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}[part]
    theirs = torch.from_numpy(expected[f"{prefix}|{part}"])
    torch.testing.assert_close(logits(network, expected), theirs, rtol=0, atol=2e-6)


def test_nvidia_shapes_steps_and_phases(nvidia):
    first, second = read_nvidia(nvidia / "ckpt-1"), read_nvidia(nvidia / "ckpt-p2-1.index")
    assert (first.step, first.phase2, first.optimizer) == (1, False, "adam")
    assert (second.step, second.phase2, second.optimizer) == (1, True, "lamb")
    assert not first.missing
    discriminator, generator = (check_network(network) for network in (first.discriminator, first.generator))
    assert (discriminator.hidden_size, discriminator.num_layers, discriminator.num_heads) == (16, 2, 1)
    assert (generator.hidden_size, generator.num_layers, generator.intermediate_size) == (64, 1, 16)
    assert generator.embedding_size == discriminator.embedding_size == 8
    assert first.generator.tensors[WORDS] is first.discriminator.tensors[WORDS]  # one node, read once


def test_padding_of_the_vocabulary_is_cut(nvidia):
    whole, cut = read_nvidia(nvidia / "ckpt-1"), read_nvidia(nvidia / "ckpt-1", vocab_size=61)
    assert (whole.padding, cut.padding) == (0, 3)
    for part in ("discriminator", "generator"):
        long, short = getattr(whole, part), getattr(cut, part)
        assert (long.config["vocab_size"], short.config["vocab_size"]) == (64, 61)
        assert torch.equal(long.tensors[WORDS][:61], short.tensors[WORDS])
        assert short.tensors[WORDS].untyped_storage().nbytes() <= long.tensors[WORDS].nbytes
    assert short.tensors["generator_lm_head.bias"].shape == (61,)
    expected = dict(np.load(nvidia / "expected.npz"))
    theirs = torch.from_numpy(expected["ckpt|generator"][..., :61])
    torch.testing.assert_close(logits(cut.generator, expected), theirs, rtol=0, atol=2e-6)
    assert cut.moments("generator", "adam_v")[WORDS].shape == (61, 8)
    with pytest.raises(ValueError, match="has vectors for 64 tokens but the vocabulary 65 entries"):
        read_nvidia(nvidia / "ckpt-1", vocab_size=65)


def test_thirty_thousand_five_hundred_twenty_eight_is_bert(nvidia, monkeypatch):
    monkeypatch.setattr("electra.interop.nvidia.PADDED_BERT", 64)
    monkeypatch.setattr("electra.interop.nvidia.BERT", 58)
    checkpoint = read_nvidia(nvidia / "ckpt-1")
    assert (checkpoint.padding, checkpoint.discriminator.config["vocab_size"]) == (6, 58)


@pytest.mark.parametrize("prefix", ["ckpt", "ckpt-p2"])
@pytest.mark.parametrize(("theirs", "ours"), [("m", "adam_m"), ("v", "adam_v")])
def test_moments_of_the_optimizer(nvidia, prefix, theirs, ours):
    expected = np.load(nvidia / "expected.npz")
    checkpoint = read_nvidia(nvidia / f"{prefix}-1")
    for part in ("discriminator", "generator"):
        moments, weights = checkpoint.moments(part, ours), getattr(checkpoint, part).tensors
        assert {name: value.shape for name, value in moments.items()} == {n: v.shape for n, v in weights.items()}
        assert torch.equal(moments[WORDS], torch.from_numpy(expected[f"{prefix}|words|{theirs}"]))
    query = checkpoint.moments("discriminator", ours)["electra.encoder.layer.1.attention.self.query.weight"]
    assert torch.equal(query, torch.from_numpy(expected[f"{prefix}|query|{theirs}"]).T)


def test_a_folder_means_its_latest_checkpoint(nvidia):
    assert read_nvidia(nvidia).phase2


@pytest.mark.parametrize("run", ["tied", "untied"])
@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_aws_networks_give_their_logits(aws, run, part):
    expected = dict(np.load(aws / "expected.npz"))
    network = read_aws(aws / f"{run}-step1-{part}.ckpt")
    theirs = torch.from_numpy(expected[f"{run}|{part}"])
    torch.testing.assert_close(logits(network, expected), theirs, rtol=0, atol=2e-6)


def test_aws_ties_the_embeddings_but_not_the_output(aws):
    """`gen.electra.embeddings = dis.electra.embeddings` leaves the generator's head the table it was made with."""
    discriminator, generator = (read_aws(aws / f"tied-step1-{part}.ckpt") for part in ("discriminator", "generator"))
    assert torch.equal(generator.tensors[WORDS], discriminator.tensors[WORDS])
    assert not torch.equal(generator.tensors[OUTPUT], generator.tensors[WORDS])
    assert generator.config["tie_word_embeddings"] is False
    untied = read_aws(aws / "untied-step1-generator.ckpt")
    assert OUTPUT not in untied.tensors
    assert untied.config["tie_word_embeddings"] is True


def test_other_checkpoints_are_told_apart(nvidia, aws):
    with pytest.raises(ValueError, match="no variables in model/discriminator or model/generator, only train_iterator"):
        read_nvidia(nvidia / "iter_ckpt_rank_00-1")
    with pytest.raises(ValueError, match=r"no pre-training checkpoint.*only discriminator_predictions, electra"):
        read_nvidia(aws / "tied-step1-discriminator.ckpt")
    with pytest.raises(ValueError, match="holds no ELECTRA model: its object has no `electra`, only train_iterator"):
        read_aws(nvidia / "iter_ckpt_rank_00-1")
    with pytest.raises(ValueError, match="holds no ELECTRA model"):
        read_aws(nvidia / "ckpt-1")
    with pytest.raises(ValueError, match="TensorFlow 2 object checkpoint"):
        read_google(nvidia / "ckpt-1")
    with pytest.raises(ValueError, match="does not exist"):
        read_nvidia(nvidia / "ckpt-2")


def test_a_tensorflow_1_checkpoint(golden):
    with pytest.raises(ValueError, match="has no object graph"):
        read_nvidia(golden / "ckpt_a" / "model.ckpt-10")


def test_damaged_files(nvidia, tmp_path):
    for file in nvidia.glob("ckpt-1.*"):
        shutil.copy(file, tmp_path)
    data = tmp_path / "ckpt-1.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 3] ^= 1
    data.write_bytes(content)
    with pytest.raises(ValueError, match=r"checksum of .* is wrong"):
        read_all(tmp_path / "ckpt-1")
    data.write_bytes(content[:-9])
    with pytest.raises(ValueError, match="cut off or belongs to another"):
        read_nvidia(tmp_path / "ckpt-1")
    data.unlink()
    with pytest.raises(ValueError, match="is missing"):
        read_nvidia(tmp_path / "ckpt-1")


def read_all(prefix: Path) -> None:
    checkpoint = read_nvidia(prefix)
    for part in ("discriminator", "generator"):
        for slot in ("adam_m", "adam_v"):
            checkpoint.moments(part, slot)


class Renamed(Bundle):
    """A checkpoint whose object graph is edited in memory."""

    edit: tuple[bytes, bytes]

    def object_graph(self) -> bytes | None:
        graph = super().object_graph()
        assert graph is not None
        assert len(self.edit[0]) == len(self.edit[1])
        assert self.edit[0] in graph
        return graph.replace(*self.edit)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (
            (b"dense_prediction", b"dense_predictiom"),
            "has variables that no ElectraModel has: model/disc",
        ),
        ((b"intermediate", b"intermedeate"), r"lacks the tensor electra\.encoder\.layer\.0\.intermediate\.dense"),
        ((b"\x05layer", b"\x05lajer"), r"has variables that no ElectraForPreTraining has: .*/layer/0/attention"),
        ((b"\x05gamma", b"\x90gamma"), "its object graph does not parse"),
    ],
)
def test_models_with_other_parts_are_named(nvidia, monkeypatch, edit, sentence):
    monkeypatch.setattr(Renamed, "edit", edit, raising=False)
    monkeypatch.setattr("electra.interop.nvidia.Bundle", Renamed)
    with pytest.raises(ValueError, match=sentence):
        read_nvidia(nvidia / "ckpt-1")


def test_half_a_checkpoint(nvidia, monkeypatch):
    """The generator may be missing, as in a checkpoint of the discriminator alone; it is said."""
    monkeypatch.setattr(Renamed, "edit", (b"\x09generator", b"\x09degenerat"), raising=False)
    monkeypatch.setattr("electra.interop.nvidia.Bundle", Renamed)
    checkpoint = read_nvidia(nvidia / "ckpt-1")
    assert checkpoint.generator is None
    assert checkpoint.missing == ["the generator"]
    assert checkpoint.discriminator.architecture == "ElectraForPreTraining"


def test_the_graph_agrees_with_the_names_in_the_file(nvidia):
    """Each variable's key, as TensorFlow made it, is the path by which the graph reaches it."""
    bundle = Bundle(nvidia / "ckpt-p2-1")
    graph = ObjectGraph(bundle)
    assert OBJECT_GRAPH not in bundle.names()
    variables = {name for name in bundle.names() if ".OPTIMIZER_SLOT" not in name}
    for key in variables:
        node = graph.find(0, key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"))
        assert graph.key(node) == key
    assert len(bundle.names()) - len(variables) == len(graph.slots)
