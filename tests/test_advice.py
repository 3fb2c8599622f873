"""Each warning where it is due and not where it is not, in a sentence, once."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from stores import add_documents, make_store, random_documents

from electra.advice import Adviser
from electra.batches import Rows
from electra.config import LoopConfig, ModelConfig, OptimizerConfig, PhaseConfig, PretrainConfig, RowsConfig
from electra.mixture import PERIOD, MixedRows, Mixture
from electra.phases import plan
from electra.pretrain import pretrain
from electra.store import Store, StoreWriter
from electra.tokenizer import load_tokenizer

GOOD = PretrainConfig(
    model=ModelConfig(32, 1, 2, 64, 16, generator_width=0.5, max_positions=64),
    rows=RowsConfig(seq_len=32),
    optimizer=OptimizerConfig(warmup_steps=10),
    loop=LoopConfig(steps=100, batch_size=8),
)
HEALTHY = {"generator_accuracy": 0.5, "discriminator_recall": 0.4, "discriminator_auc": 0.9}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("advice") / "store", random_documents(60))


def changed(config: PretrainConfig = GOOD, **sections) -> PretrainConfig:
    """`config` with fields of sections: changed(loop={"steps": 5})."""
    values = {
        name: dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in sections.items()
    }
    return dataclasses.replace(config, **values)


def before(config: PretrainConfig, store: Store, first_step: int = 0) -> list[str]:
    phases = plan(config)
    mixture = Mixture((store,), (PERIOD,))
    rows = [MixedRows(mixture, phase.config.rows, seed=phase.row_seed) for phase in phases]
    return Adviser(phases).before_training(rows, first_step)


def test_a_sound_plan_gets_no_warning(store):
    assert before(GOOD, store) == []
    assert before(GOOD, store, first_step=97) == []  # the end of a decay is no idle run


def test_too_little_text_for_the_plan(store):
    epoch = Rows(store, GOOD.rows, seed=0).rows_per_epoch
    steps = 50 * epoch // 8
    (line,) = before(changed(loop={"steps": steps}, optimizer={"warmup_steps": 10}), store)
    assert "50 times" in line and f"or stop after about {steps * 40 // 50 // 100}" in line.replace(",", "")
    assert before(changed(loop={"steps": 39 * epoch // 8}), store) == []
    halves = (PhaseConfig(steps=steps // 2), PhaseConfig(steps=steps - steps // 2, seq_len=64))  # a half as many rows
    (line,) = before(changed(loop={"steps": steps}, phases=halves), store)
    long_epoch = Rows(store, RowsConfig(seq_len=64), seed=0).rows_per_epoch
    assert f"{8 * halves[0].steps / epoch + 8 * halves[1].steps / long_epoch:.0f} times" in line


def a_store(folder: Path, tokens: list[str], lines: list[str], lowercase: bool) -> Store:
    """A store of lines of text, built with a vocabulary of the given entries."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tokens]) + "\n")
    vocabulary = load_tokenizer(folder / "vocab.txt", lowercase=lowercase)
    writer = StoreWriter(folder / "store", vocabulary, held_out=0.0, seed=0, sources=[], options={})
    add_documents(writer, [vocabulary.encode_batch(lines) for _ in range(20)])
    writer.close()
    return Store.open(folder / "store")


@pytest.mark.filterwarnings("ignore:.*capitals")
def test_casing_of_the_vocabulary_against_the_text(tmp_path):
    small, cased = ["the", "cat", "sat", "on", "mat"], ["The", "the", "Cat", "cat", "sat", "on", "mat"]
    text = ["The cat sat on the mat", "the Cat sat"]
    config = changed(rows={"seq_len": 16}, loop={"steps": 2}, optimizer={"warmup_steps": 1})
    (line,) = before(config, a_store(tmp_path / "a", small, text, lowercase=False))
    assert line.startswith("warning: 22.") and "of the first" in line
    assert line.endswith("has no capitals but the store kept those of the text: build it again with --lowercase True")
    (line,) = before(config, a_store(tmp_path / "b", cased, text, lowercase=True))
    assert "17% of the vocabulary's entries have capitals" in line and "--lowercase False" in line
    (line,) = before(config, a_store(tmp_path / "c", ["dog"], text, lowercase=True))
    assert "100.0% of the first" in line and "train one on it with electra vocab" in line
    assert before(config, a_store(tmp_path / "d", cased, text, lowercase=False)) == []
    assert before(config, a_store(tmp_path / "e", small, text, lowercase=True)) == []


def test_unknown_tokens_below_the_limit_are_no_news(tmp_path):
    rng = np.random.default_rng(0)
    for share, warns in ((0.01, False), (0.04, True)):
        documents = [
            [[1 if rng.random() < share else token for token in line] for line in document]
            for document in random_documents(60)
        ]
        lines = before(GOOD, make_store(tmp_path / f"s{share}", documents))
        assert bool(lines) == warns


def test_a_warm_up_that_outlasts_the_run(store):
    (line,) = before(changed(optimizer={"warmup_steps": 10_000}), store)
    assert "10,000 steps of warm-up are too long for 100 steps; set --warmup-steps to about 10" in line
    assert before(changed(optimizer={"warmup_steps": 40}), store) == []


def test_a_learning_rate_that_ends_long_before_the_run(store):
    (line,) = before(changed(optimizer={"decay_power": 4.0}), store)
    idle = sum((1 - step / 100) ** 4 < 0.01 for step in range(100))
    assert f"below 1% of its peak in about {idle} of the 100 steps to come" in line
    assert before(changed(optimizer={"decay_power": 4.0, "end_learning_rate": 1e-4}), store) == []
    (line,) = before(changed(optimizer={"decay_power": 4.0}), store, first_step=80)
    assert "about 20 of the 20 steps to come" in line


def test_a_second_phase_with_its_own_schedule_is_seen(store):
    phases = (PhaseConfig(steps=50), PhaseConfig(steps=50, learning_rate=1e-4))
    assert before(changed(phases=phases), store) == []


def test_evaluations_that_are_well_get_no_warning(store):
    assert Adviser(plan(GOOD)).after_evaluation(100, HEALTHY) == []
    assert Adviser(plan(GOOD)).after_evaluation(100, {"masked_lm_accuracy": 0.9}) == []


def test_a_generator_that_knows_all_is_named_once():
    adviser = Adviser(plan(GOOD))
    (line,) = adviser.after_evaluation(10, HEALTHY | {"generator_accuracy": 0.74})
    assert line.startswith("warning: the generator guesses 74% of the masked tokens") and "--mask-prob" in line
    assert adviser.after_evaluation(20, HEALTHY | {"generator_accuracy": 0.75}) == []
    assert Adviser(plan(GOOD)).after_evaluation(10, HEALTHY | {"generator_accuracy": 0.69}) == []


def test_a_discriminator_that_calls_all_original():
    long = Adviser(plan(changed(loop={"steps": 100_000}, optimizer={"warmup_steps": 5_000})))
    silent = HEALTHY | {"discriminator_recall": 0.0, "discriminator_auc": 0.51}
    assert long.after_evaluation(9_000, silent) == []
    assert long.after_evaluation(10_000, silent | {"discriminator_auc": 0.7}) == []  # it has begun to tell apart
    (line,) = long.after_evaluation(10_000, silent)
    assert "after 10,000 steps the discriminator still calls every token original (recall 0.000, AUC 0.510)" in line
    assert "--objective masked-lm, then --init" in line
    assert long.after_evaluation(11_000, silent) == []
    short = Adviser(plan(changed(loop={"steps": 1_000})))
    assert short.after_evaluation(499, silent) == [] and len(short.after_evaluation(500, silent)) == 1
    assert Adviser(plan(GOOD)).after_evaluation(100, silent) == []  # 100 steps teach nothing in any case


def test_a_run_prints_them(store, tmp_path, capsys):
    config = changed(
        data=(str(store.folder),), out=tmp_path / "run", optimizer={"warmup_steps": 10_000}, loop={"device": "cpu"}
    )
    pretrain(config, dry_run=True)
    assert "warning: the learning rate never exceeds" in capsys.readouterr().out
