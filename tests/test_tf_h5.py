"""tf_model.h5 against files that transformers 4.49 and 3.0.2 wrote with TensorFlow (tests/fixtures/make_tf_h5.py)."""

import json
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import transformers

from electra.encoder import Encoder, key_mask
from electra.interop.hf import config_from_hf, encoder_from_hf
from electra.interop.network import OUTPUT, WORDS, Network
from electra.interop.tf_h5 import MODULES, read_h5, tensor_names, write_h5

FIXTURES = Path(__file__).parent / "fixtures"
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
MADE = [(version, name) for version in ("v4", "v3") for name in MODULES]
for later in ("ElectraForSequenceClassification", "ElectraForMultipleChoice"):
    MADE.remove(("v3", later))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tf_h5")
    for version in ("v3", "v4"):
        with zipfile.ZipFile(FIXTURES / f"tf_h5_{version}.zip") as archive:
            archive.extractall(folder / version)
    return folder


def torch_outputs(network: Network, expected: dict[str, np.ndarray]) -> list[torch.Tensor]:
    """The first two outputs of Hugging Face's PyTorch model with these weights; every weight must find its place."""
    config = transformers.ElectraConfig(**network.config)
    model = getattr(transformers, network.architecture)(config).eval()
    state = dict(network.tensors)
    if network.architecture == "ElectraForMaskedLM":
        state.setdefault("generator_lm_head.weight", state["electra.embeddings.word_embeddings.weight"])
    if network.architecture == "ElectraModel":
        state = {name.removeprefix("electra."): value for name, value in state.items()}
    model.load_state_dict(state)
    inputs = {name: torch.from_numpy(expected[name]).long() for name in INPUTS}
    if network.architecture == "ElectraForMultipleChoice":  # one question with two choices
        inputs = {name: value[None] for name, value in inputs.items()}
    with torch.no_grad():
        outputs = model(**inputs)
    return list(outputs.to_tuple()[:2])


@pytest.mark.parametrize(("version", "name"), MADE)
def test_what_tensorflow_wrote_gives_its_outputs(made, version, name):
    expected = dict(np.load(made / version / "expected.npz"))
    network = read_h5(made / version / name)
    assert network.architecture == name
    for index, output in enumerate(torch_outputs(network, expected)):
        torch.testing.assert_close(output, torch.from_numpy(expected[f"{name}|{index}"]), rtol=0, atol=5e-6)


@pytest.mark.parametrize(("version", "name"), MADE)
def test_round_trip_is_bit_equal_and_has_the_layout_of_keras(made, tmp_path, version, name):
    source = made / version / name / "tf_model.h5"
    write_h5(tmp_path, read_h5(source))
    with h5py.File(source) as theirs, h5py.File(tmp_path / "tf_model.h5") as ours:
        assert text(ours.attrs["backend"]) == text(theirs.attrs["backend"])
        layers = [text(layer) for layer in theirs.attrs["layer_names"] if len(theirs[layer])]  # without dropout
        assert [text(layer) for layer in ours.attrs["layer_names"]] == layers
        for layer in layers:
            names = [text(name) for name in theirs[layer].attrs["weight_names"]]
            written = [text(name) for name in ours[layer].attrs["weight_names"]]
            assert sorted(written) == sorted(names)
            if version == "v3":  # which loads by order
                assert written == names
            for variable in names:
                assert ours[layer][variable].dtype == theirs[layer][variable].dtype
                assert np.array_equal(ours[layer][variable], theirs[layer][variable])
    back = read_h5(tmp_path / "tf_model.h5", json.loads((source.parent / "config.json").read_text()))
    first = read_h5(source)
    assert back.tensors.keys() == first.tensors.keys()
    assert all(torch.equal(back.tensors[key], value) for key, value in first.tensors.items())


def text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("name", MODULES)
def test_without_a_config_the_shape_comes_from_the_weights(made, name):
    path = made / "v4" / name / "tf_model.h5"
    stated = config_from_hf(read_h5(path).config, "test")
    (path.parent / "config.json").rename(path.parent / "hidden.json")
    try:
        network = read_h5(path)
    finally:
        (path.parent / "hidden.json").rename(path.parent / "config.json")
    inferred = config_from_hf(network.config, "test")
    assert inferred.num_heads == 1  # one a 64 units, at least one; the file says nothing of the true 2
    for field in ("vocab_size", "embedding_size", "hidden_size", "num_layers", "intermediate_size", "max_positions"):
        assert getattr(inferred, field) == getattr(stated, field)
    assert len(network.config.get("id2label", "12")) == (3 if "Classification" in name else 2)


def test_it_feeds_our_encoder(made):
    expected = dict(np.load(made / "v4" / "expected.npz"))
    network = read_h5(made / "v4" / "ElectraModel")
    config = config_from_hf(network.config, network.source)
    encoder = Encoder(config).eval()
    encoder.load_state_dict(encoder_from_hf(network.tensors, config, network.source))
    ids, segments = (torch.from_numpy(expected[name]).long() for name in ("input_ids", "token_type_ids"))
    with torch.no_grad():
        ours = encoder(ids, segments, attention_mask=key_mask(torch.from_numpy(expected["attention_mask"]) > 0))
    torch.testing.assert_close(ours, torch.from_numpy(expected["ElectraModel|0"]), rtol=0, atol=5e-6)


def test_attention_kernels_of_transformers_4_2(made, tmp_path):
    """Its EinsumDense layers keep the heads apart: (in, heads, out / heads) and, on the way out, (heads, ., out)."""
    source = made / "v4" / "ElectraForPreTraining" / "tf_model.h5"
    (tmp_path / "tf_model.h5").write_bytes(source.read_bytes())
    with h5py.File(tmp_path / "tf_model.h5", "r+") as file:
        attention = file["electra/tf_electra_for_pre_training/electra/encoder/layer_._1/attention"]
        for layer, kernel, bias in [
            *((f"self/{part}", (16, 2, 8), (2, 8)) for part in ("query", "key", "value")),
            ("output/dense", (2, 8, 16), (16,)),
        ]:
            for variable, shape in (("kernel:0", kernel), ("bias:0", bias)):
                value = attention[f"{layer}/{variable}"][...]
                del attention[f"{layer}/{variable}"]
                attention[f"{layer}/{variable}"] = value.reshape(shape)
    expected = read_h5(source).tensors
    assert all(torch.equal(value, expected[name]) for name, value in read_h5(tmp_path).tensors.items())


@pytest.mark.parametrize("name", ["ElectraForPreTraining", "ElectraForMaskedLM"])
def test_files_of_nvidia_have_one_more_model_in_the_names(made, tmp_path, name):
    """postprocess_pretrained_ckpt.py saves networks that were made inside a PretrainingModel."""
    source = made / "v3" / name / "tf_model.h5"
    (tmp_path / "tf_model.h5").write_bytes(source.read_bytes())
    with h5py.File(tmp_path / "tf_model.h5", "r+") as file:
        for layer in file:
            for model in list(file[layer]):
                file[layer].move(model, f"pretraining_model/{model}")
    expected = read_h5(source).tensors
    found = read_h5(tmp_path).tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def test_an_output_matrix_of_its_own(made, tmp_path):
    """AWS's generators, saved as .h5: the head keeps the table it was made with (see nvidia.py)."""
    path = tmp_path / "tf_model.h5"
    path.write_bytes((made / "v3" / "ElectraForMaskedLM" / "tf_model.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        words = file["generator_lm_head/tf_electra_for_masked_lm/electra/embeddings/word_embeddings/weight:0"]
        words[3, 3] += 1
    network = read_h5(path)
    difference = network.tensors["generator_lm_head.weight"] - network.tensors[WORDS]
    assert difference.abs().sum() == difference[3, 3] == 1
    assert network.config["tie_word_embeddings"] is False


def test_names_too_long_for_one_attribute(made, tmp_path):
    """70 layers have 100 kB of names; Keras splits the attribute into weight_names0, weight_names1, ..."""
    network = read_h5(made / "v4" / "ElectraModel")
    tensors = dict(network.tensors)
    for name in list(tensors):
        if ".layer.0." in name:
            tensors |= {name.replace(".layer.0.", f".layer.{index}."): tensors[name] for index in range(1, 70)}
    write_h5(tmp_path, Network("", "ElectraModel", network.config | {"num_hidden_layers": 70}, tensors))
    with h5py.File(tmp_path / "tf_model.h5") as file:
        attributes = file["electra"].attrs
        chunks = [attributes[f"weight_names{index}"] for index in range(len(attributes))]
        names = [text(name) for chunk in chunks for name in chunk]
    assert len(chunks) > 1
    assert len(names) == len(set(names)) == len(tensors)
    assert sorted(tensor_names("ElectraModel", 70, project=False)) == sorted(tensors)
    assert read_h5(tmp_path).tensors.keys() == tensors.keys()


def test_a_file_is_not_overwritten_silently(made, tmp_path):
    network = read_h5(made / "v4" / "ElectraModel")
    write_h5(tmp_path / "a.h5", network)
    with pytest.raises(ValueError, match=r"a\.h5 exists already"):
        write_h5(tmp_path / "a.h5", network)
    write_h5(tmp_path / "a.h5", network, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("cut", [0, 4, 900, 20_000, 89_000])
def test_cut_off_files(made, tmp_path, cut):
    content = (made / "v4" / "ElectraForPreTraining" / "tf_model.h5").read_bytes()
    (tmp_path / "tf_model.h5").write_bytes(content[:cut])
    with pytest.raises(ValueError, match=r"tf_model\.h5 is (damaged|no HDF5 file)"):
        read_h5(tmp_path)


def test_other_files(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_h5(tmp_path)
    (tmp_path / "tf_model.h5").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="is no HDF5 file"):
        read_h5(tmp_path)


@pytest.mark.parametrize(
    ("remove", "sentence"),
    [
        ("electra/encoder/layer_._0/output/dense/kernel:0", r"lacks the tensor electra\.encoder\.layer\.0\.output"),
        ("electra/embeddings/word_embeddings/weight:0", r"lacks the tensor electra\.embeddings\.word"),
        ("discriminator_predictions/dense/bias:0", r"lacks the tensor discriminator_predictions\.dense\.bias"),
    ],
)
def test_missing_weights_are_named(made, tmp_path, remove, sentence):
    path = tmp_path / "tf_model.h5"
    path.write_bytes((made / "v4" / "ElectraForPreTraining" / "tf_model.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        del file[f"{remove.partition('/')[0]}/tf_electra_for_pre_training/{remove}"]
    with pytest.raises(ValueError, match=sentence):
        read_h5(path)


@pytest.mark.parametrize(
    ("add", "sentence"),
    [
        ("answer_class/tf_model/answer_class/dense/kernel:0", "belongs to no ELECTRA model"),
        (
            "electra/tf_model/electra/pooler/dense/kernel:0",
            "has the tensor electra.pooler.dense.weight, which ElectraForPreTraining",
        ),
        (
            "discriminator_predictions/tf_model/electra/embeddings/LayerNorm/beta:0",
            "two different values of electra.embeddings.LayerNorm.bias",
        ),
    ],
)
def test_unknown_weights_are_named(made, tmp_path, add, sentence):
    path = tmp_path / "tf_model.h5"
    path.write_bytes((made / "v4" / "ElectraForPreTraining" / "tf_model.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file[add] = np.zeros(8, "float32")
    with pytest.raises(ValueError, match=sentence):
        read_h5(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "bert"}, "is a 'bert' model"),
        ({"vocab_size": 60}, r"word_embeddings\.weight is \(61, 8\), but by the config it is \(60, 8\)"),
        ({"num_hidden_layers": 3}, r"lacks the tensor electra\.encoder\.layer\.2"),
        ({"num_attention_heads": 3}, "hidden_size 16 is no multiple of 3 heads"),
    ],
)
def test_a_config_of_another_model(made, change, sentence):
    path = made / "v4" / "ElectraForPreTraining"
    config = json.loads((path / "config.json").read_text()) | change
    with pytest.raises(ValueError, match=sentence):
        read_h5(path, config)


def test_networks_that_do_not_fit_are_not_written(made, tmp_path):
    network = read_h5(made / "v4" / "ElectraForMaskedLM")
    table = network.tensors[WORDS]

    def changed(architecture: str = network.architecture, **tensors: torch.Tensor) -> Network:
        added = {name.replace("__", "."): value for name, value in tensors.items()}
        return Network("here", architecture, network.config, network.tensors | added)

    own_output = network.config | {"tie_word_embeddings": False}
    with pytest.raises(ValueError, match="has an output matrix of its own"):
        write_h5(tmp_path, Network("here", network.architecture, own_output, network.tensors | {OUTPUT: table + 1}))
    with pytest.raises(ValueError, match=r"has the tensor qa_outputs\.weight, which ElectraForMaskedLM"):
        write_h5(tmp_path, changed(qa_outputs__weight=table))
    with pytest.raises(ValueError, match=r"lacks the tensor qa_outputs\.bias, qa_outputs\.weight"):
        write_h5(tmp_path, changed("ElectraForQuestionAnswering"))
    with pytest.raises(ValueError, match="is a ElectraForCausalLM"):
        write_h5(tmp_path, changed("ElectraForCausalLM"))
    assert not list(tmp_path.iterdir())


def test_without_h5py(made, tmp_path, monkeypatch):
    network = read_h5(made / "v4" / "ElectraModel")
    monkeypatch.setitem(sys.modules, "h5py", None)
    for call in (lambda: read_h5(made / "v4" / "ElectraModel"), lambda: write_h5(tmp_path, network)):
        with pytest.raises(ValueError, match=r"pip install electra-toolkit\[h5\]"):
            call()
