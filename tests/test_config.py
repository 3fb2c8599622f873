"""Configurations: TOML both ways, and each mistake in one sentence."""

import dataclasses
from pathlib import Path

import pytest

from electra.config import (
    BuildConfig,
    FinetuneConfig,
    LoopConfig,
    ModelConfig,
    ObjectiveConfig,
    PretrainConfig,
    RowsConfig,
    VocabConfig,
)
from electra.presets import PRESETS
from electra.toml import differences, read_toml, to_dict, write_toml


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_toml(name, tmp_path):
    config = dataclasses.replace(PRESETS[name](), data=("store",), out=Path("run"))
    write_toml(config, tmp_path / "config.toml")
    assert read_toml(PretrainConfig, tmp_path / "config.toml") == config


def test_finetune_config_survives_toml(tmp_path):
    config = FinetuneConfig("model", Path("data"), Path("out"), seeds=(3, 4))
    write_toml(config, tmp_path / "config.toml")
    assert read_toml(FinetuneConfig, tmp_path / "config.toml") == config


def test_max_predictions_follow_the_length():
    assert ObjectiveConfig().max_predictions(128) == 19
    assert ObjectiveConfig().max_predictions(512) == 79
    assert ObjectiveConfig(mask_prob=0.25).max_predictions(512) == 130


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[optimizer]\nlerning_rate = 1.0\n", "unknown key 'optimizer.lerning_rate'"),
        ("colour = 3\n", "unknown key 'colour'"),
        ("[loop]\nsteps = 'many'\n", "loop.steps must be of type int, not 'many'"),
        ("[loop]\nsteps = true\n", "loop.steps must be of type int, not True"),
        ("[rows]\npacking = 'tight'\n", "rows.packing must be one of packed, google, rows, not 'tight'"),
        ("loop = 3\n", "loop must be a table of keys"),
        ("[loop]\nsteps = -1\n", "loop.steps must be positive, not -1"),
        ("[model]\nhidden_size = 100\nnum_heads = 3\n", "hidden_size 100 is not a multiple of model.num_heads 3"),
        ("[rows]\nseq_len = 1024\n", "rows.seq_len 1024 is longer than model.max_positions 512"),
        ("steps = \n", "is not valid TOML"),
    ],
)
def test_mistakes_in_a_file_are_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_toml(PretrainConfig, path)
    assert sentence in str(caught.value) and "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value).split("TOML")[0]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent.toml does not exist"):
        read_toml(PretrainConfig, tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: VocabConfig((), Path("v")), "name at least one corpus"),
        (lambda: VocabConfig(("c",), Path("v"), size=4), "leaves no room"),
        (lambda: BuildConfig(("c",), Path("v"), Path("s"), held_out=0.7), "--held-out"),
        (lambda: ModelConfig(dropout=1.0), "model.dropout"),
        (lambda: ModelConfig(generator_width=1.5), "model.generator_width"),
        (lambda: ObjectiveConfig(mask_prob=0), "objective.mask_prob"),
        (lambda: ObjectiveConfig(temperature=0), "objective.temperature"),
        (lambda: RowsConfig(seq_len=4), "rows.seq_len must be at least 8"),
        (lambda: LoopConfig(batch_size=0), "loop.batch_size must be positive"),
        (lambda: FinetuneConfig("m", Path("d"), Path("o"), warmup=1.0), "--warmup"),
        (lambda: FinetuneConfig("m", Path("d"), Path("o"), seeds=()), "--seeds"),
    ],
)
def test_impossible_values_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_differences_name_the_fields():
    old = PretrainConfig()
    new = dataclasses.replace(old, loop=dataclasses.replace(old.loop, steps=3), data=("elsewhere",))
    assert differences(old, new) == ["data is () there, ('elsewhere',) now", "loop.steps is 1000000 there, 3 now"]


def test_to_dict_leaves_none_out():
    assert "strip_accents" not in to_dict(VocabConfig(("c",), Path("v")))
