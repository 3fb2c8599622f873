"""Every objective and generator: against Hugging Face's modules, and from store to export as a run."""

import copy
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from stores import add_documents, make_store, random_documents
from test_rtd import random_batch
from tiny_models import make_vocabulary
from transformers import AutoModel, ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra.announcement import describe, flops_per_token, parameters
from electra.config import LoopConfig, ModelConfig, ObjectiveConfig, OptimizerConfig, PretrainConfig, RowsConfig
from electra.evaluate import evaluate_run
from electra.export import export_run, networks_of, read_run
from electra.interop.hf import load_pretrained
from electra.interop.run_folder import check_objective
from electra.log import read_metrics
from electra.objectives import PretrainingModel, make_model
from electra.optim import make_optimizers, set_learning_rate
from electra.pretrain import pretrain
from electra.rtd import uniform_tokens
from electra.store import StoreWriter

OBJECTIVES = {
    "shared": ObjectiveConfig(),
    "own": ObjectiveConfig(generator="own-embeddings"),
    "same": ObjectiveConfig(generator="same-network"),
    "uniform": ObjectiveConfig(generator="uniform"),
    "uniform-wrong": ObjectiveConfig(generator="uniform", disallow_correct=True),
    "mlm": ObjectiveConfig(objective="masked-lm", generator_weight=2.0),
}
CLASSES = {"ElectraForPreTraining": ElectraForPreTraining, "ElectraForMaskedLM": ElectraForMaskedLM}
FILES = {
    "shared": {"discriminator", "generator"},
    "own": {"discriminator", "generator"},
    "same": {"discriminator", "generator"},
    "uniform": {"discriminator"},
    "uniform-wrong": {"discriminator"},
    "mlm": {"masked_lm"},
}


def shape_for(name: str, dropout: float = 0.0) -> ModelConfig:
    width = 1.0 if name == "same" else 0.5
    return ModelConfig(
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
        embedding_size=24,
        max_positions=64,
        generator_width=width,
        dropout=dropout,
        attention_dropout=dropout,
    )


def model_for(name: str, vocab_size: int = 100) -> PretrainingModel:
    torch.manual_seed(0)
    model = make_model(shape_for(name), OBJECTIVES[name], vocab_size)
    with torch.no_grad():  # biases and norms that are not the same everywhere, so that a swapped one shows
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def hugging_face(model: PretrainingModel) -> dict[str, torch.nn.Module]:
    """Each network as a module of transformers with copied weights and nothing shared among them."""
    found = {}
    for name, network in networks_of(model, "test").items():
        theirs = CLASSES[network.architecture](ElectraConfig(**network.config))
        report = theirs.load_state_dict({key: value.clone() for key, value in network.tensors.items()}, strict=False)
        assert report.missing_keys in ([], ["generator_lm_head.weight"]) and not report.unexpected_keys
        theirs.tie_weights()
        found[name] = theirs
    return found


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_equal_hugging_face(name):
    """The paper's formula on separate modules; the gradient of a shared tensor is the sum of both networks'."""
    model = model_for(name)
    objective = OBJECTIVES[name]
    batch = random_batch(100)
    batch = dataclasses.replace(batch, weights=torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]))
    totals = {"predictions": float(batch.weights.sum()), "tokens": float(batch.input_ids.numel())}
    theirs = hugging_face(model)
    loss, sums = model(batch, totals)
    loss.backward()

    expected = torch.zeros(())
    for network in ("generator", "masked_lm"):
        if network in theirs:
            logits = theirs[network](input_ids=batch.masked_input_ids, token_type_ids=batch.segment_ids).logits
            logits = logits.gather(1, batch.positions[..., None].expand(-1, -1, 100))
            losses = F.cross_entropy(logits.transpose(1, 2), batch.token_ids, reduction="none")
            slot_loss = (losses * batch.weights).sum() / batch.weights.sum()
            torch.testing.assert_close(sums[f"{network}_loss"], slot_loss.detach())
            expected = expected + objective.generator_weight * slot_loss
    if "discriminator" in theirs:
        sampled = model.run(batch).sampled_ids
        corrupted = batch.input_ids.clone()
        for row, (positions, tokens) in enumerate(zip(batch.positions, sampled, strict=True)):
            corrupted[row, positions] = tokens
        labels = (corrupted != batch.input_ids).float()
        logits = theirs["discriminator"](input_ids=corrupted, token_type_ids=batch.segment_ids).logits
        disc_loss = F.binary_cross_entropy_with_logits(logits, labels)
        torch.testing.assert_close(sums["discriminator_loss"], disc_loss.detach())
        expected = expected + objective.discriminator_weight * disc_loss
    torch.testing.assert_close(loss, expected)
    expected.backward()

    gradients = copy.deepcopy(model)
    with torch.no_grad():
        for mine, source in zip(gradients.parameters(), model.parameters(), strict=True):
            mine.copy_(source.grad)
    weights = networks_of(model, "test")
    for network, tensors in networks_of(gradients, "test").items():
        for key, ours in tensors.tensors.items():
            parts = [theirs[network].get_parameter(key).grad]
            for other in theirs.keys() - {network}:
                if key in weights[other].tensors and is_shared(name, key):
                    parts.append(theirs[other].get_parameter(key).grad)
            torch.testing.assert_close(ours, sum(parts), rtol=1e-4, atol=1e-5)


def is_shared(name: str, key: str) -> bool:
    prefix = {"shared": "electra.embeddings.", "same": "electra."}.get(name)
    return prefix is not None and key.startswith(prefix)


@pytest.mark.parametrize("name", ["shared", "own", "same"])
def test_what_is_shared_is_one_storage(name):
    networks = networks_of(model_for(name), "test")
    pointers = {
        network: {key: value.untyped_storage().data_ptr() for key, value in found.tensors.items()}
        for network, found in networks.items()
    }
    discriminator, generator = pointers["discriminator"], pointers["generator"]
    for key in discriminator.keys() & generator.keys():
        assert (discriminator[key] == generator[key]) == is_shared(name, key), key


def test_embeddings_of_its_own_are_as_wide_as_the_generator():
    """run_pretraining.py: embedding_size None, which is the hidden size, and so no projection."""
    model = model_for("own")
    assert model.generator_config.embedding_size == model.generator_config.hidden_size == 16
    assert model.generator.project is None and model.config.embedding_size == 24


def test_parameters_and_flops_of_each():
    """Counted from the networks that are exported: tables without padding, query, key and value apart."""
    counts = {}
    for name in OBJECTIVES:
        counts[name] = parameters(make_model(shape_for(name), OBJECTIVES[name], 128))
        tensors = {}
        for found in networks_of(make_model(shape_for(name), OBJECTIVES[name], 128), "test").values():
            for key, value in found.tensors.items():
                tensors[key if is_shared(name, key) else (found.architecture, key)] = value.numel()
        assert sum(counts[name].values()) == sum(tensors.values()), name
    assert counts["mlm"].keys() == {"masked_lm"} and counts["uniform"].keys() == {"discriminator"}

    def flops(name: str) -> float:
        rows = RowsConfig(seq_len=64)
        return flops_per_token(PretrainConfig(model=shape_for(name), objective=OBJECTIVES[name], rows=rows), 128)

    assert flops("uniform") < flops("own") < flops("shared") < flops("same")
    assert flops("same") == pytest.approx(flops("mlm") + flops("uniform"))


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "muon"])
@pytest.mark.parametrize("name", ["shared", "own"])
def test_a_slower_or_frozen_generator(name, optimizer):
    """Of one step, the generator's own parameters make the share; the rest, the shared embeddings too, the whole."""
    start = model_for(name)
    batch = random_batch(100)
    totals = {"predictions": float(batch.weights.sum()), "tokens": float(batch.input_ids.numel())}
    moved = {}
    for scale in (1.0, 0.25, 0.0):
        model = copy.deepcopy(start)
        optimizers = make_optimizers(model, OptimizerConfig(optimizer=optimizer, generator_lr_scale=scale))
        set_learning_rate(optimizers, 1e-2)
        model(batch, totals)[0].backward()
        for each in optimizers:
            each.step()
        moved[scale] = {key: value - start.get_parameter(key) for key, value in model.named_parameters()}
        assert all(
            (value.grad is None) == (scale == 0 and key.startswith("generator"))
            for key, value in model.named_parameters()
        )
    for key, whole in moved[1.0].items():
        for scale in (0.25, 0.0):
            share = scale if key.startswith("generator") else 1.0
            torch.testing.assert_close(moved[scale][key], share * whole, rtol=1e-3, atol=1e-6)
        if key.startswith("generator"):
            assert not moved[0.0][key].any()


def test_uniform_tokens_are_uniform_and_stay_in_the_vocabulary():
    draws = 40_000
    uniforms = torch.rand(1, draws, generator=torch.Generator().manual_seed(1))
    counts = np.bincount(uniform_tokens(uniforms, 12).flatten(), minlength=12)
    assert len(counts) == 12 and stats.chisquare(counts).pvalue > 1e-3
    counts = np.bincount(uniform_tokens(uniforms, 12, torch.full((1, draws), 5)).flatten(), minlength=12)
    assert counts[5] == 0 and stats.chisquare(np.delete(counts, 5)).pvalue > 1e-3
    for vocab_size in (3, 1001, 30_522, 250_000):
        ends = uniform_tokens(torch.tensor([[0.0, 1 - 2**-24]]), vocab_size)
        assert ends.tolist() == [[0, vocab_size - 1]]
        for forbidden in (0, vocab_size - 1):
            ends = uniform_tokens(torch.tensor([[0.0, 1 - 2**-24]]), vocab_size, torch.full((1, 2), forbidden))
            assert int(ends.min()) >= 0 and int(ends.max()) < vocab_size and forbidden not in ends


# ------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store", random_documents(60), held_out=0.1).folder


def config_for(store: Path, out: Path, name: str) -> PretrainConfig:
    return PretrainConfig(
        data=(str(store),),
        out=out,
        model=shape_for(name, dropout=0.1),
        objective=OBJECTIVES[name],
        rows=RowsConfig(seq_len=32),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1),
        loop=LoopConfig(
            steps=3, batch_size=8, micro_batch_size=4, precision="fp32", device="cpu",
            log_every=1, eval_every=2, eval_rows=16, save_every=1, keep=0,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
@torch.no_grad()
def test_from_store_to_export(store, tmp_path, name):
    said: list[str] = []
    config = config_for(store, tmp_path / "run", name)
    with torch.enable_grad():
        assert pretrain(config, say=said.append).step == 3
    train, evaluation = read_metrics(config.out, "train"), read_metrics(config.out, "eval")[-1]
    assert train[-1]["loss"] != train[0]["loss"]
    has = {prefix for prefix in ("discriminator", "generator", "masked_lm") if f"{prefix}_loss" in evaluation}
    assert has == FILES[name]
    for row in (train[-1], evaluation):
        assert {key for key in row if key.startswith("discriminator")} == set() or "discriminator" in has
        assert (f"{'masked_lm' if name == 'mlm' else 'generator'}_accuracy" in row) == (has != {"discriminator"})
    found = evaluate_run(config.out, None, 0, "cpu")
    assert {key: found[key] for key in found if key in evaluation} == pytest.approx(
        {key: value for key, value in evaluation.items() if key != "kind"}
    )

    # the bits of an uninterrupted run, from the step before the last
    before = read_run(config.out)
    shutil.rmtree(config.out / "checkpoints" / "step-3")
    shutil.rmtree(config.out / "export")
    with torch.enable_grad():
        assert pretrain(config, say=said.append).step == 3
    after = read_run(config.out)
    assert any("resuming from" in line for line in said)
    for network in FILES[name]:
        for key, value in before.networks[network].tensors.items():
            assert torch.equal(value, after.networks[network].tensors[key]), key

    export = config.out / "export"
    assert {path.name for path in export.iterdir()} == FILES[name]
    assert {*export_run(config.out, tmp_path / "again").networks} == FILES[name]
    ids = torch.randint(5, 1000, (2, 20))
    for network, read in after.networks.items():
        model, report = CLASSES[read.architecture].from_pretrained(export / network, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
        assert torch.isfinite(model.eval()(input_ids=ids).logits).all()
        for key, value in read.tensors.items():
            assert torch.equal(model.get_parameter(key), value)
        card = (export / network / "README.md").read_text()
        assert read.architecture in card
        assert ("masked language modelling" in card) == (name == "mlm")
    AutoModel.from_pretrained(export / next(iter(FILES[name])))
    assert load_pretrained(str(config.out)).network.architecture == (
        "ElectraForMaskedLM" if name == "mlm" else "ElectraForPreTraining"
    )


def test_whole_words_from_store_to_export(tmp_path):
    vocabulary = make_vocabulary(tmp_path / "vocabulary")
    writer = StoreWriter(tmp_path / "store", vocabulary, held_out=0.1, seed=0, sources=[], options={})
    add_documents(writer, random_documents(60, vocab=vocabulary.size))
    writer.close()
    config = config_for(tmp_path / "store", tmp_path / "run", "shared")
    config = dataclasses.replace(config, objective=ObjectiveConfig(whole_word=True))
    said: list[str] = []
    assert pretrain(config, say=said.append).step == 3
    assert any(line.startswith("masking ") and line.endswith("of whole words") for line in said)
    logged = read_metrics(config.out, "eval")[-1]
    assert evaluate_run(config.out, None, 0, "cpu")["generator_loss"] == pytest.approx(logged["generator_loss"])


def test_whole_words_need_pieces_of_words(store, tmp_path):
    config = dataclasses.replace(
        config_for(store, tmp_path / "run", "shared"), objective=ObjectiveConfig(whole_word=True)
    )
    with pytest.raises(ValueError, match=r"objective.whole_word has no meaning with this vocabulary"):
        pretrain(config)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shared", "more (2 x 16; embeddings shared)"),
        ("own", "more (2 x 16; nothing shared)"),
        ("same", "more (2 x 32; all but its head is the discriminator)"),
        ("uniform", "no generator: replacements are drawn from all 100 tokens alike"),
        ("mlm", "masked LM alone"),
    ],
)
def test_the_announcement_says_which(name, words):
    assert words in describe(model_for(name))


# --------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"whole_word": True, "mask_with_replacement": True}, "whole_word draws words without replacement"),
        ({"objective": "masked-lm", "generator": "uniform"}, "objective.generator has no meaning when .* masked-lm"),
        ({"objective": "masked-lm", "temperature": 2.0}, "objective.temperature has no meaning when .* masked-lm"),
        ({"objective": "masked-lm", "disallow_correct": True}, "objective.disallow_correct has no meaning"),
        ({"generator": "uniform", "temperature": 0.5}, "objective.temperature has no meaning when .* uniform"),
    ],
)
def test_settings_that_exclude_each_other(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        ObjectiveConfig(**fields)


@pytest.mark.parametrize("name", ["same", "uniform", "mlm"])
def test_only_a_generator_of_its_own_can_be_slower(name):
    with pytest.raises(ValueError, match="generator_lr_scale has no meaning without a generator"):
        PretrainConfig(
            model=shape_for(name),
            objective=OBJECTIVES[name],
            rows=RowsConfig(seq_len=32),
            optimizer=OptimizerConfig(generator_lr_scale=0.5),
        )
    with pytest.raises(ValueError, match="generator_lr_scale must not be negative"):
        OptimizerConfig(generator_lr_scale=-1)


def test_the_same_network_has_the_same_size():
    with pytest.raises(ValueError, match=r"set model.generator_width and model.generator_depth to 1, not 0.25 and 1"):
        PretrainConfig(objective=OBJECTIVES["same"])


@pytest.mark.parametrize("name", ["own", "same", "uniform", "mlm"])
def test_no_run_of_these_is_made_from_foreign_weights(name):
    with pytest.raises(ValueError, match=r"only runs with (electra|shared-embeddings) can go on from weights"):
        check_objective(OBJECTIVES[name])
