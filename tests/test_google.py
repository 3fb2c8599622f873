"""Google's checkpoints: against values of Google's own code, transformers, and a naive network on the raw variables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import write_bundle
from google_checkpoints import (
    IDS,
    MASK,
    SEGMENTS,
    Arrays,
    close,
    erf_gelu,
    naive_dense,
    naive_encoder,
    naive_norm,
    outputs,
    pretraining,
    read_npz,
)
from test_bundle import tensorflow  # noqa: F401  (a fixture)

from electra.interop.bundle import Bundle
from electra.interop.google import hf_name, read_google
from electra.interop.hf import check_network, encoder_from_hf


@pytest.mark.parametrize("ties", ["embeddings", "all", "none"])
def test_networks_equal_a_naive_one_on_the_variables(tmp_path, ties):
    variables = pretraining(ties)
    checkpoint = read_google(write_bundle(tmp_path / "model", variables, shards=2))
    assert checkpoint.ties == ties and checkpoint.step is None and not checkpoint.has_moments
    assert checkpoint.missing == ["Adam's moments", "the step"]
    states = naive_encoder(variables, "electra", "electra")
    head = erf_gelu(naive_dense(variables, "discriminator_predictions/dense", states))
    expected = naive_dense(variables, "discriminator_predictions/dense_1", head)[..., 0]
    close(outputs(checkpoint.discriminator, IDS, SEGMENTS, MASK)[0], expected.astype("f4"))

    scope = "electra" if ties == "all" else "generator"
    owner = "generator" if ties == "none" else "electra"
    states = naive_encoder(variables, scope, owner)
    head = erf_gelu(naive_dense(variables, "generator_predictions/dense", states))
    head = naive_norm(variables, "generator_predictions/LayerNorm", head)
    expected = (
        head @ variables[f"{owner}/embeddings/word_embeddings"].T + variables["generator_predictions/output_bias"]
    )
    close(outputs(checkpoint.generator, IDS, SEGMENTS, MASK)[0], expected.astype("f4"))
    word = "electra.embeddings.word_embeddings.weight"
    shared = checkpoint.generator.tensors[word] is checkpoint.discriminator.tensors[word]
    assert shared == (ties != "none")  # held once


def test_names_go_to_one_place_each():
    assert hf_name("electra/encoder/layer_11/attention/self/query/kernel") == (
        "discriminator",
        "electra.encoder.layer.11.attention.self.query.weight",
        True,
    )
    assert hf_name("generator/encoder/layer_0/attention/output/LayerNorm/gamma")[1:] == (
        "electra.encoder.layer.0.attention.output.LayerNorm.weight",
        False,
    )
    assert hf_name("electra/embeddings/token_type_embeddings")[1:] == (
        "electra.embeddings.token_type_embeddings.weight",
        False,
    )
    assert hf_name("discriminator_predictions/dense_1/kernel")[1] == "discriminator_predictions.dense_prediction.weight"
    assert hf_name("generator_predictions/output_bias") == ("generator", "generator_lm_head.bias", False)
    places = [hf_name(name) for name in pretraining()]
    assert len({place[:2] for place in places}) == len(places)
    for bad in ("bert/pooler/dense/kernel", "electra/encoder/layer_0/output/dense/kernel/adam_m", "global_step"):
        with pytest.raises(ValueError, match=f"{bad} is no variable"):
            hf_name(bad)


def test_half_a_checkpoint_is_read_and_said(tmp_path):
    only = {name: array for name, array in pretraining().items() if not name.startswith("generator")}
    checkpoint = read_google(write_bundle(tmp_path / "a", only))
    assert checkpoint.generator is None and checkpoint.ties is None
    assert checkpoint.missing == ["the generator", "Adam's moments", "the step"]
    check_network(checkpoint.discriminator)
    body = {name: array for name, array in only.items() if name.startswith("electra/")}
    checkpoint = read_google(write_bundle(tmp_path / "b", body))
    assert checkpoint.discriminator.architecture == "ElectraModel"
    assert checkpoint.missing[:2] == ["the discriminator's head", "the generator"]
    check_network(checkpoint.discriminator)


def test_of_a_two_tower_generator_the_discriminator_is_read(tmp_path):
    """run_pretraining.py with two_tower_generator: towers in the place of the generator, a head of another name."""
    scopes = {"generator": ("generator_ltr", "generator_rtl"), "generator_predictions": ("cloze_predictions",)}
    variables = {}
    for name, array in pretraining().items():
        scope, _, rest = name.partition("/")
        variables |= {f"{other}/{rest}": array for other in scopes.get(scope, (scope,))}
    checkpoint = read_google(write_bundle(tmp_path / "x", variables), {"electric_objective": True})
    assert checkpoint.generator is None and checkpoint.has_towers
    assert checkpoint.missing[0] == "the generator (its two towers are no model of their own)"
    plain = read_google(write_bundle(tmp_path / "y", pretraining()))
    assert not plain.has_towers
    assert checkpoint.discriminator.tensors.keys() == plain.discriminator.tensors.keys()
    for name, tensor in plain.discriminator.tensors.items():
        assert torch.equal(checkpoint.discriminator.tensors[name], tensor), name


def test_masked_language_models_are_read(tmp_path):
    """electra_objective=false trains a plain masked-LM: one encoder, one head."""
    variables = {name: a for name, a in pretraining("all").items() if not name.startswith("discriminator_predictions")}
    checkpoint = read_google(write_bundle(tmp_path / "x", variables), {"electra_objective": False})
    assert checkpoint.ties == "all" and checkpoint.generator is not None
    assert checkpoint.missing[0] == "the discriminator's head"


def test_wrong_checkpoints_are_refused_by_name(tmp_path, tensorflow):  # noqa: F811
    good = pretraining()

    def refused(change: Arrays, sentence: str, drop: str = "nothing") -> None:
        variables = {name: array for name, array in (good | change).items() if name != drop}
        with pytest.raises(ValueError, match=sentence):
            read_google(write_bundle(tmp_path / "x", variables))

    zero = np.zeros(3, "f4")
    refused(
        {"bert/pooler/dense/bias": zero, "cls/predictions/output_bias": zero},
        r"has variables that Google's ELECTRA of this shape has not: bert/pooler/dense/bias, cls/predictions",
    )
    refused({f"x{number}": zero for number in range(5)}, r"has not: x0, x1, x2 and 2 more")
    name = "electra/encoder/layer_1/attention/self/key/bias"
    refused({}, f"x lacks the variable {name}", drop=name)
    refused({name: zero}, rf"{name} has the shape \(3,\) where \(16,\) is needed")
    refused({}, "lacks the variable generator_predictions/output_bias", drop="generator_predictions/output_bias")
    refused({}, "lacks the tensor .*word_embeddings", drop="electra/embeddings/word_embeddings")
    with pytest.raises(ValueError, match="object is a TensorFlow 2 object checkpoint"):
        read_google(tensorflow / "object")


@pytest.mark.parametrize(
    ("hparams", "sentence"),
    [
        ({"model_size": "small"}, r"model_size \(hidden_size 256\) disagrees with .*x, whose hidden_size is 16"),
        ({"model_size": "tiny"}, "model_size is 'tiny', not small, base or large"),
        ({"vocab_size": 99}, "hparam vocab_size 99 disagrees with .*x, whose vocab_size is 100"),
        ({"embedding_size": 16}, "hparam embedding_size 16 disagrees with .*x, whose embedding_size is 12"),
        ({"model_hparam_overrides": {"num_hidden_layers": 3}}, r"model_hparam_overrides.num_hidden_layers 3 disagrees"),
        ({"model_hparam_overrides": {"hidden_size": 16}}, r"hidden_size \(intermediate_size 64\) disagrees"),
        ({"model_hparam_overrides": {"num_attention_heads": 3}}, "not a multiple of 3 attention heads"),
        ({"model_hparam_overrides": {"hidden_act": "relu"}}, "hidden_act 'relu' is not supported"),
        ({"model_hparam_overrides": "x"}, "model_hparam_overrides is no JSON object"),
        ({"max_seq_length": 21}, "max_seq_length 21 disagrees with .*, which has 20 positions"),
        ({"generator_hidden_size": 0.25}, "generator_hidden_size 0.25 disagrees with .*whose generator has 8 units"),
        ({"generator_layers": 1.0}, "generator_layers 1.0 disagrees with .*whose generator has 1 layers"),
        ({"untied_generator": False}, "untied_generator False disagrees with .*whose generator has layers of its own"),
        ({"untied_generator_embeddings": True}, "untied_generator_embeddings True disagrees"),
        ({"debug": True}, r"debug \((num_hidden_layers 3|hidden_size 144)\) disagrees"),
    ],
)
def test_an_hparam_that_disagrees_is_named(tmp_path, hparams, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_google(write_bundle(tmp_path / "x", pretraining()), hparams)


def test_hparams_give_what_leaves_no_trace(tmp_path):
    overrides = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 20,
        "num_attention_heads": 4,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.2,
    }
    hparams = {
        "model_size": "small",
        "model_hparam_overrides": overrides,
        "embedding_size": 12,
        "vocab_size": 100,
        "generator_hidden_size": 0.5,
        "generator_layers": 0.5,
        "untied_generator": True,
        "train_batch_size": 3,
    }
    prefix = write_bundle(tmp_path / "x", pretraining())
    found = read_google(prefix, hparams)
    assert found.discriminator.config | overrides == found.discriminator.config
    assert found.generator.config["num_attention_heads"] == 1  # Google's rule, whatever the discriminator has
    assert found.generator.config["hidden_dropout_prob"] == 0.0
    assert read_google(prefix).discriminator.config["num_attention_heads"] == 1


# ----------------------------------------------------------------------------------- values of Google's own code


@pytest.fixture(scope="module", params=["a", "b"])
def case(request, golden: Path) -> tuple[str, Path, dict[str, Any]]:
    return request.param, golden, json.loads((golden / f"pre_{request.param}_meta.json").read_text())


def checks(array: np.ndarray | torch.Tensor) -> list[float]:
    values = np.asarray(array, dtype="f8")
    return [values.sum(), abs(values).sum(), (values**2).sum()]


def test_logits_equal_google(case, tmp_path):
    """Both networks at the initial weights, written as a checkpoint, through transformers and ours."""
    tag, golden, meta = case
    io = read_npz(golden / f"pre_{tag}_io.npz")
    found = read_google(write_bundle(tmp_path / "x", read_npz(golden / f"pre_{tag}_init.npz")), meta["config"])
    mask, segments = io["in_input_mask"], io["in_segment_ids"]
    close(outputs(found.discriminator, io["disc_input_ids"], segments, mask)[0], io["disc_logits"])
    logits = outputs(found.generator, io["masked_input_ids"], segments, mask)[0].numpy()
    close(np.take_along_axis(logits, io["masked_masked_lm_positions"][..., None].astype(int), 1), io["gen_logits"])


def test_the_checkpoint_of_tensorflow_has_googles_values(case):
    """Every variable, and in fixture a both moments, after ten steps of Google's optimizer: sums to 7 digits."""
    tag, golden, meta = case
    found = read_google(golden / f"ckpt_{tag}", meta["config"])
    assert (found.step, found.ties, found.has_moments) == (10, "embeddings", tag == "a")
    assert found.missing == ([] if tag == "a" else ["Adam's moments"])
    seen = {hf_name(name).name for name in meta["variables"]}
    assert seen == set(found.discriminator.tensors) | set(found.generator.tensors)
    columns = {"after10": lambda network: getattr(found, network).tensors}
    if tag == "a":
        moments = {(n, s): found.moments(n, s) for n in ("discriminator", "generator") for s in ("adam_m", "adam_v")}
        columns |= {f"{s}_after10": lambda network, s=s: moments[network, s] for s in ("adam_m", "adam_v")}
    for name, values in meta["variables"].items():
        network, place, transpose = hf_name(name)
        for column, tensors in columns.items():
            tensor = tensors(network)[place]
            assert tuple(tensor.shape) == tuple(values["shape"][::-1] if transpose else values["shape"])
            assert tensor.is_contiguous()
            size = values[column][1]
            assert checks(tensor) == pytest.approx(values[column], rel=1e-6, abs=1e-6 * size)
    raw = Bundle.find(golden / f"ckpt_{tag}").read("electra/encoder/layer_0/intermediate/dense/kernel")
    tensor = found.discriminator.tensors["electra.encoder.layer.0.intermediate.dense.weight"]
    assert np.array_equal(tensor.numpy().T, raw)


def test_moments_load_like_weights(golden):
    meta = json.loads((golden / "pre_a_meta.json").read_text())
    found = read_google(golden / "ckpt_a", meta["config"])
    state = encoder_from_hf(found.moments("generator", "adam_v"), check_network(found.generator), "here")
    bundle = found.bundle
    qkv = [
        bundle.read(f"generator/encoder/layer_1/attention/self/{p}/kernel/adam_v") for p in ("query", "key", "value")
    ]
    assert np.array_equal(state["body.layers.1.qkv.weight"].numpy(), np.concatenate([part.T for part in qkv]))
    bare = read_google(golden / "ckpt_b")
    with pytest.raises(ValueError, match=r"has no variable electra/embeddings/word_embeddings/adam_m"):
        bare.moments("discriminator", "adam_m")
