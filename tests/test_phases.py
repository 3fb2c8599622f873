"""Plans of several phases: what each phase is, and runs that are killed and resumed inside and between them."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from stores import make_store, random_documents
from test_pretrain import SHAPE, assert_same_run, curve, weights

from electra.cli import main
from electra.config import LoopConfig, OptimizerConfig, PhaseConfig, PretrainConfig, RowsConfig
from electra.log import RunLog
from electra.objectives import make_model
from electra.optim import AdamW, make_optimizers, named_state, restart
from electra.phases import phase_at, plan
from electra.pretrain import pretrain
from electra.schedules import warmup_polynomial
from electra.store import Store
from electra.toml import read_toml, write_toml

LOOP = {
    "steps": 10, "batch_size": 8, "seed": 1, "precision": "fp32", "device": "cpu",
    "log_every": 1, "eval_every": 5, "eval_rows": 16, "save_every": 1, "keep": 0,
}  # fmt: skip
TWO = (
    PhaseConfig(steps=6, seq_len=16),
    PhaseConfig(steps=4, seq_len=32, batch_size=4, learning_rate=5e-4, warmup_steps=1),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store", random_documents(60), held_out=0.1).folder


def config_for(store: Path, out: Path, phases: tuple[PhaseConfig, ...] = TWO, **optimizer) -> PretrainConfig:
    settings = {"optimizer": "adamw", "learning_rate": 1e-3, "warmup_steps": 2, "schedule": "polynomial"} | optimizer
    return PretrainConfig(
        data=(str(store),),
        out=out,
        model=SHAPE,
        rows=RowsConfig(seq_len=32),
        optimizer=OptimizerConfig(**settings),
        loop=LoopConfig(
            steps=10,
            batch_size=8,
            seed=1,
            precision="fp32",
            device="cpu",
            log_every=1,
            eval_every=5,
            eval_rows=16,
            save_every=1,
            keep=0,
        ),
        phases=phases,
    )


def test_a_plan_is_its_phases():
    first, second = plan(config_for(Path("s"), Path("r")))
    assert (first.begin, first.end, second.begin, second.end) == (0, 6, 6, 10)
    assert (first.tokens, second.tokens) == (6 * 8 * 16, 4 * 4 * 32)
    assert second.config.rows.seq_len == 32 and second.config.loop.batch_size == 4
    assert first.row_seed == 1 != second.row_seed
    # Each phase warms up and decays over its own steps.
    for step in range(6):
        assert first.learning_rate(step) == warmup_polynomial(step, peak=1e-3, steps=6, warmup_steps=2)
    for step in range(6, 10):
        assert second.learning_rate(step) == warmup_polynomial(step - 6, peak=5e-4, steps=4, warmup_steps=1)
    assert [phase_at([first, second], step).index for step in (0, 6, 7, 10, 11)] == [0, 0, 1, 1, 1]


def test_a_run_without_phases_is_one():
    (only,) = plan(config_for(Path("s"), Path("r"), ()))
    assert (only.begin, only.end, only.row_seed, only.restarts_count) == (0, 10, 1, False)
    assert only.config.loop == config_for(Path("s"), Path("r")).loop


def test_a_phase_that_restarts_nothing_goes_on_with_the_schedule():
    phases = (PhaseConfig(steps=5, seq_len=16), PhaseConfig(steps=3, restart="nothing"), PhaseConfig(steps=2))
    first, second, third = plan(config_for(Path("s"), Path("r"), phases, warmup_steps=1))
    assert not second.restarts_count and third.restarts_count
    for step in range(8):
        wanted = warmup_polynomial(step, peak=1e-3, steps=8, warmup_steps=1)
        assert (first if step < 5 else second).learning_rate(step) == wanted
    assert third.learning_rate(9) == 1e-3


def test_shares_are_of_the_tokens():
    """Google's BERT: nine tenths of the steps at 128; NVIDIA: 96 % of the tokens."""
    phases = (PhaseConfig(token_share=0.9, seq_len=128), PhaseConfig(token_share=0.1, seq_len=512, batch_size=32))
    config = config_for(Path("s"), Path("r"), phases)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(SHAPE, max_positions=512),
        rows=RowsConfig(seq_len=128),
        loop=dataclasses.replace(config.loop, steps=1000, batch_size=128),
    )
    first, second = plan(config)
    assert (first.steps, second.steps) == (900, 100)
    assert first.tokens == 9 * second.tokens


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ((PhaseConfig(steps=5), PhaseConfig(steps=4)), "loop.steps 10 is not the sum of the steps of the phases, 9"),
        ((PhaseConfig(token_share=0.5), PhaseConfig(token_share=0.4)), "add up to 1, not 0.9"),
        ((PhaseConfig(token_share=1.0), PhaseConfig(steps=10)), "must be given for all phases"),
        ((PhaseConfig(steps=8), PhaseConfig(steps=2, seq_len=65)), "phase 2: rows.seq_len 65 is longer than"),
        ((PhaseConfig(steps=8), PhaseConfig(steps=2)), "phase 2: optimizer.warmup_steps 2 leaves nothing"),
    ],
)
def test_plans_that_do_not_fit_are_refused(phases, message):
    with pytest.raises(ValueError, match=message):
        plan(config_for(Path("s"), Path("r"), phases))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "either steps or token_share"),
        ({"steps": 3, "token_share": 0.5}, "either steps or token_share"),
        ({"steps": -1}, "steps must not be negative"),
        ({"steps": 3, "restart": "nothing", "learning_rate": 1.0}, "have no meaning in a phase that restarts nothing"),
    ],
)
def test_phases_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PhaseConfig(**values)


def test_phases_go_through_a_file(tmp_path):
    config = config_for(Path("s"), Path("r"))
    write_toml(config, tmp_path / "config.toml")
    assert read_toml(PretrainConfig, tmp_path / "config.toml") == config
    text = (tmp_path / "config.toml").read_text().replace("seq_len = 16", 'seq_len = "x"')
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(ValueError, match=r"wrong.toml: phases\[0\].seq_len must be of type int"):
        read_toml(PretrainConfig, tmp_path / "wrong.toml")


def test_two_phases_run_resume_and_export(store, tmp_path, capsys):
    """One command, one store; stopped inside either phase and between them the run is the same, bit for bit."""
    whole = config_for(store, tmp_path / "whole")
    pretrain(whole)
    said = capsys.readouterr().out
    assert "phase 2     steps 7 to 10" in said and "phase 1 of 2 is done at step 6" in said
    assert "phase 2/2: " in said
    assert [row["step"] for row in curve(whole.out) if "learning_rate" in row] == list(range(1, 11))
    for steps in (3, 6, 8):
        killed = dataclasses.replace(whole, out=tmp_path / f"killed-{steps}")
        shutil.copytree(whole.out, killed.out)  # a run killed after step `steps` leaves the checkpoints up to there
        shutil.rmtree(killed.out / "export")
        for step in range(steps + 1, 11):
            shutil.rmtree(killed.out / "checkpoints" / f"step-{step}")
        pretrain(killed)
        assert_same_run(whole.out, killed.out)
    card = (whole.out / "export" / "discriminator" / "README.md").read_text()
    assert "6 steps of 8 rows of 16 tokens and 4 steps of 4 rows of 32 tokens" in card


def test_a_preset_of_phases_from_the_command_line(store, tmp_path, capsys):
    shape = "--hidden-size 32 --num-layers 1 --num-heads 2 --intermediate-size 64 --embedding-size 16 --device cpu"
    command = ["pretrain", "gaudi-base", "--data", str(store), "--out", str(tmp_path / "run"), *shape.split()]
    assert main([*command, "--dry-run"]) == 0
    assert "phase 2     steps 21 to 40" in capsys.readouterr().out
    assert main([*command, "--steps", "5"]) == 2
    assert "loop.steps 5 is not the sum of the steps of the phases, 40" in capsys.readouterr().err


def test_what_a_phase_restarts():
    parameter = torch.nn.Parameter(torch.ones(3))
    for moments in (False, True):
        optimizer = AdamW([{"params": [parameter]}], bias_correction=True)
        parameter.grad = torch.ones(3)
        optimizer.step()
        restart([optimizer], moments=moments)
        state = optimizer.state[parameter]
        assert float(state["steps"]) == 0
        assert bool(state["exp_avg"].any()) is bool(state["exp_avg_sq"].any()) is (not moments)


@pytest.mark.parametrize(("kind", "count", "moved"), [("nothing", 10, True), ("steps", 4, True), ("all", 4, False)])
def test_counts_and_moments_of_a_run(store, tmp_path, kind, count, moved):
    """The moments after the phase's first step tell whether those before it were kept."""
    second = PhaseConfig(steps=4, restart=kind, warmup_steps=1 if kind != "nothing" else -1)
    config = config_for(store, tmp_path / "run", (PhaseConfig(steps=6), second))
    pretrain(config)
    state = checkpoint_state(config, 10)
    assert all(float(value) == count for name, value in state.items() if name.endswith(".steps"))
    before, after = checkpoint_state(config, 6), checkpoint_state(config, 7)
    name = "discriminator_head.classifier.bias.exp_avg_sq"  # v: 0.999 of the one before remains
    assert bool(after[name] >= 0.99 * before[name]) is moved


def checkpoint_state(config: PretrainConfig, step: int) -> dict[str, torch.Tensor]:
    """The optimizer's tensors in a checkpoint, by name."""
    model = make_model(config.model, config.objective, Store.open(config.data[0]).vocab_size)
    tensors = {"optimizer": named_state(model, make_optimizers(model, config.optimizer))}
    dcp.load(tensors, checkpoint_id=config.out / "checkpoints" / f"step-{step}", no_dist=True)
    return tensors["optimizer"]


def test_rows_of_a_phase_are_its_own(store, tmp_path):
    """Phase 2 reads its own rows from the first on, at its length and batch."""
    from electra.batches import Rows
    from electra.pretrain import load_work
    from electra.runtime import Runtime

    opened = Store.open(store)
    _, second = plan(config_for(store, tmp_path))
    rows = Rows(opened, second.config.rows, seed=second.row_seed)
    work = load_work(second, rows, opened, Runtime(torch.device("cpu"), "fp32", ""), 4, second.begin)
    np.testing.assert_array_equal(work.micro_batches[0].input_ids.numpy(), rows.rows(0, 4).input_ids)


def test_time_left_counts_what_steps_cost(monkeypatch):
    clock = iter([0.0, 10.0, 10.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    log = RunLog(None, phases=[(10, 1.0), (20, 4.0)])
    assert log._time_left(5, 10) == "0:10"  # 5 steps took 10 s
    assert log._time_left(5, 20) == "1:30"  # 5 more of them, 10 that take four times as long


def test_weights_are_finite(store, tmp_path):
    config = config_for(store, tmp_path / "run", optimizer="lamb", bias_correction=True)
    pretrain(config)
    assert all(bool(value.isfinite().all()) for value in weights(config.out).values())
