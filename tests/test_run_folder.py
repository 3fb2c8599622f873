"""Run folders made from foreign weights: equal to Google's checkpoint, resumed by the trainer, refused where unfit."""

import dataclasses
import filecmp
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import make_store, random_documents
from test_rtd import read

from electra.build import build
from electra.checkpoint import Checkpoints, TrainState
from electra.cli import main
from electra.config import (
    BuildConfig,
    LoopConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
)
from electra.export import export_run
from electra.interop.google import read_google
from electra.interop.google_config import PRETRAINING, pretrain_config, read_hparams
from electra.interop.hf import read_hf
from electra.interop.network import Network
from electra.interop.run_folder import infer_model, write_run
from electra.log import read_metrics
from electra.optim import make_optimizers, named_state
from electra.pretrain import pretrain
from electra.rtd import ReplacedTokenDetection
from electra.runtime import Runtime
from electra.store import Store

SHAPE = ModelConfig(
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    intermediate_size=64,
    embedding_size=16,
    generator_width=0.5,
    max_positions=64,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> PretrainConfig:
    """A run of four steps that has ended."""
    folder = tmp_path_factory.mktemp("run")
    store = make_store(folder / "store", random_documents(40), held_out=0.1)
    config = PretrainConfig(
        data=(str(store.folder),),
        out=folder / "run",
        model=SHAPE,
        rows=RowsConfig(seq_len=32),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2),
        loop=LoopConfig(steps=4, batch_size=8, precision="fp32", device="cpu", eval_rows=16),
    )
    pretrain(config, say=lambda line: None)
    return config


@pytest.fixture(scope="module")
def networks(config) -> tuple[Network, Network]:
    export = config.out / "export"
    return read_hf(export / "discriminator"), read_hf(export / "generator")


def longer(config: PretrainConfig, steps: int = 8) -> PretrainConfig:
    return dataclasses.replace(config, loop=dataclasses.replace(config.loop, steps=steps))


def resumed(run: Path, config: PretrainConfig, vocab_size: int) -> TrainState:
    """What the trainer loads from a run folder."""
    model = ReplacedTokenDetection(config.model, config.objective, vocab_size)
    state = TrainState(model, make_optimizers(model, config.optimizer))
    assert Checkpoints(run / "checkpoints", Runtime(torch.device("cpu"), "fp32", "")).load_latest(state)
    return state


def test_run_export_run_export_is_bit_equal(config, networks, tmp_path):
    assert infer_model(*networks) == config.model
    write_run(tmp_path / "run", longer(config), *networks, Store.open(config.data[0]), step=4)
    assert export_run(tmp_path / "run", tmp_path / "export").step == 4
    for network in ("discriminator", "generator"):
        before, after = config.out / "export" / network, tmp_path / "export" / network
        names = sorted(path.name for path in before.iterdir())
        assert names == sorted(path.name for path in after.iterdir())
        names.remove("README.md")  # it quotes the metrics of the run
        assert filecmp.cmpfiles(before, after, names, shallow=False) == (names, [], [])


def test_without_moments_the_run_begins_anew_and_says_so(config, networks, tmp_path):
    run = tmp_path / "run"
    lines = write_run(run, longer(config), *networks, Store.open(config.data[0]))
    assert len(lines) == 2
    assert "no moments of Adam" in lines[0] and "up to 6.6 times as long as the learning rate says" in lines[0]
    assert "optimizer.bias_correction" in lines[0], "two steps of warm-up do not cover that"
    assert "step 0 of 8" in lines[1]
    state = resumed(run, config, 1000)
    assert state.step == 0
    assert all(not value.any() for value in named_state(state.model, state.optimizers).values())
    assert main(["pretrain", "--config", str(run / "config.toml")]) == 0
    assert read_metrics(run, "eval")[-1]["step"] == 8


def test_the_schedule_that_remains_is_said(config, networks, tmp_path):
    """Google's README: for 2e-4 after 4,000,000 of 4,010,000 steps set learning_rate to 2e-4 * 4,010,000 / 10,000."""
    late = dataclasses.replace(longer(config, 4_010_000), optimizer=OptimizerConfig(learning_rate=2e-4))
    lines = write_run(tmp_path / "run", late, *networks, Store.open(config.data[0]), step=4_000_000)
    assert "the learning rate is at 4.99e-07 (peak 0.0002)" in lines[1]
    assert f"set optimizer.learning_rate to {2e-4 * 4_010_000 / 10_000:.3g};" in lines[1]


def test_a_schedule_at_its_peak_or_with_an_end_says_so(config, networks, tmp_path):
    store, stable = Store.open(config.data[0]), OptimizerConfig(schedule="warmup-stable-decay", warmup_steps=10)
    lines = write_run(
        tmp_path / "stable", dataclasses.replace(longer(config, 100), optimizer=stable), *networks, store, step=50
    )
    assert "step 50 of 100: the learning rate is at its peak, 0.0005" in lines[1]
    falling = OptimizerConfig(schedule="polynomial", warmup_steps=0, end_learning_rate=1e-4)
    lines = write_run(
        tmp_path / "falling", dataclasses.replace(longer(config, 100), optimizer=falling), *networks, store, step=50
    )
    assert "at 0.0003 (peak 0.0005) on its way down to 0.0001; to go on for longer, raise loop.steps" in lines[1]


# -------------------------------------------------------------------------------- Google's checkpoints


@pytest.fixture(scope="module")
def google_store(golden, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("google") / "store"
    corpus = (str(golden / "tiny_corpus" / "tiny.txt"),)
    build(BuildConfig(corpus=corpus, vocab=golden / "vocab512.txt", out=folder, held_out=0.05, processes=1))
    return folder


def from_google(golden: Path, tag: str, store: Path, out: Path) -> tuple[PretrainConfig, list[str], dict]:
    meta = json.loads((golden / f"pre_{tag}_meta.json").read_text())
    hparams = read_hparams(json.dumps(meta["config"]), PRETRAINING)
    config = dataclasses.replace(pretrain_config(hparams), data=(str(store),), out=out)
    found = read_google(golden / f"ckpt_{tag}" / "model.ckpt-10", hparams.given)
    lines = write_run(
        out,
        config,
        found.discriminator,
        found.generator,
        Store.open(store),
        step=found.step,
        moments=found.moments if found.has_moments else None,
    )
    return config, lines, meta


@pytest.mark.parametrize("tag", ["a", "b"])
def test_google_checkpoint_goes_on_with_the_same_numbers(golden, google_store, tmp_path, tag):
    """Parameters and both moments of each variable after Google's ten steps, through the trainer's own loading."""
    config, lines, meta = from_google(golden, tag, google_store, tmp_path / "run")
    state = resumed(tmp_path / "run", config, 512)
    assert state.step == meta["global_step_in_checkpoint"] == 10
    moments = named_state(state.model, state.optimizers)
    by_key = {
        "after10": state.model.state_dict(),
        "adam_m_after10": {name.removesuffix(".exp_avg"): value for name, value in moments.items()},
        "adam_v_after10": {name.removesuffix(".exp_avg_sq"): value for name, value in moments.items()},
    }
    largest = 0.0
    for name, checks in meta["variables"].items():
        for key, tensors in by_key.items():
            value = read(tensors, name.replace("/", "|")).double()
            ours = np.array([value.sum(), value.abs().sum(), value.square().sum()])
            if tag == "b" and key != "after10":
                assert not ours.any(), "ckpt_b has no moments"
                continue
            scale = np.maximum(np.abs(checks[key]), np.finfo(np.float32).tiny)
            scale[0] = max(scale[0], checks[key][1])  # a sum that cancels has the digits of its terms
            largest = max(largest, float((np.abs(ours - checks[key]) / scale).max()))
    assert largest < 1e-6
    assert ("the moments of Adam as they were at step 10" in lines[0]) == (tag == "a")
    assert "step 10 of 20: the learning rate is at 0.0005 (peak 0.001)" in lines[1]


def test_google_moments_element_by_element(golden, google_store, tmp_path):
    from electra.interop.bundle import Bundle

    config, _, meta = from_google(golden, "a", google_store, tmp_path / "run")
    state = resumed(tmp_path / "run", config, 512)
    bundle, moments = Bundle(golden / "ckpt_a" / "model.ckpt-10"), named_state(state.model, state.optimizers)
    for name in meta["variables"]:
        for slot, ours in (("", ""), ("/adam_m", ".exp_avg"), ("/adam_v", ".exp_avg_sq")):
            tensors = moments if slot else state.model.state_dict()
            tensors = {key.removesuffix(ours): value for key, value in tensors.items() if key.endswith(ours)}
            assert np.array_equal(read(tensors, name.replace("/", "|")).numpy(), bundle.read(f"{name}{slot}")), name
    assert all(float(value) == 10 for key, value in moments.items() if key.endswith(".steps"))


def test_electra_pretrain_resumes_at_step_ten(golden, google_store, tmp_path, capsys):
    config, _, meta = from_google(golden, "a", google_store, tmp_path / "run")
    hparams = json.dumps(meta["config"])
    flags = ["--data", str(google_store), "--out", str(config.out), "--device", "cpu"]
    assert main(["pretrain", "--google-hparams", hparams, *flags, "--dry-run"]) == 0
    assert main(["pretrain", "--config", str(config.out / "config.toml"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert f"resuming from {config.out / 'checkpoints' / 'step-10'}" in said
    (row,) = read_metrics(config.out, "train")
    assert row["step"] == 20 and row["learning_rate"] == pytest.approx(1e-3 / 20)
    assert row["loss"] < meta["total_loss_before_update"][0]
    assert {path.name for path in (config.out / "checkpoints").iterdir()} == {"step-10", "step-20"}


# ------------------------------------------------------------------------------------------- mistakes


def test_mistakes_are_named_and_leave_nothing_behind(config, networks, tmp_path):
    store, run = Store.open(config.data[0]), tmp_path / "run"
    discriminator, generator = networks
    wide = dataclasses.replace(config.model, generator_width=0.25)
    muon = dataclasses.replace(config.optimizer, optimizer="muon")
    stranger = dict(generator.tensors)
    stranger["electra.embeddings.word_embeddings.weight"] = stranger["electra.embeddings.word_embeddings.weight"] + 1
    small = make_store(tmp_path / "small", random_documents(5, vocab=100), vocab=100)

    def refuse(sentence: str, settings=None, disc=discriminator, gen=generator, data=store, **more) -> None:
        with pytest.raises(ValueError, match=sentence):
            write_run(run, settings or longer(config), disc, gen, data, **more)
        assert not run.exists()

    refuse("generator .* has hidden_size 16, but .* would have 8", dataclasses.replace(longer(config), model=wide))
    refuse("has a vocabulary of 1000 entries and the store one of 100", data=small)
    refuse("another .*word_embeddings.* than the discriminator", gen=dataclasses.replace(generator, tensors=stranger))
    refuse("is an ElectraForMaskedLM: pre-training goes on from an ElectraForPreTraining", disc=generator)
    refuse("is at step 4 and loop.steps is 4: raise loop.steps", config, step=4)
    uniform = ObjectiveConfig(generator="uniform")
    refuse("objective.generator is uniform", dataclasses.replace(longer(config), objective=uniform))
    refuse("choose adamw", dataclasses.replace(longer(config), optimizer=muon), moments=lambda network, slot: {})
    lacking = {name: value for name, value in generator.tensors.items() if name != "generator_lm_head.bias"}
    refuse("lacks the tensor generator_lm_head.bias", gen=dataclasses.replace(generator, tensors=lacking))
    run.mkdir()
    (run / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        write_run(run, longer(config), discriminator, generator, store)
    assert (run / "mine.txt").read_text() == "mine"
    write_run(run, longer(config), discriminator, generator, store, overwrite=True)
    assert not (run / "mine.txt").exists()
