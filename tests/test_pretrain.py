"""Pre-training runs as a user has them: resumed, killed, split over processes, damaged, refused."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import make_store, random_documents

from electra.checkpoint import Checkpoints
from electra.config import LoopConfig, ModelConfig, ObjectiveConfig, OptimizerConfig, PretrainConfig, RowsConfig
from electra.interop.hf import load_pretrained
from electra.log import read_metrics
from electra.pretrain import pretrain
from electra.runtime import Runtime

SHAPE = ModelConfig(
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    intermediate_size=64,
    embedding_size=16,
    generator_width=0.5,
    max_positions=64,
)
CLOCK = ("tokens_per_second", "mfu", "peak_memory_gib")  # the only values of a log line that depend on the machine


def a_store(folder: Path, documents: int, held_out: float = 0.1) -> Path:
    return make_store(folder, random_documents(documents), held_out=held_out).folder


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return a_store(tmp_path_factory.mktemp("data") / "store", 60)


def config_for(store: Path, out: Path, steps: int = 12, **loop) -> PretrainConfig:
    settings = {
        "steps": steps, "batch_size": 8, "seed": 1, "precision": "fp32", "device": "cpu",
        "log_every": 2, "eval_every": 5, "eval_rows": 16, "save_every": 3, "keep": 0,
    }  # fmt: skip
    return PretrainConfig(
        data=(str(store),),
        out=out,
        model=SHAPE,
        rows=RowsConfig(seq_len=32),
        optimizer=OptimizerConfig(optimizer="muon", learning_rate=1e-3, warmup_steps=2),
        loop=LoopConfig(**(settings | loop)),
    )


def curve(run: Path) -> list[dict]:
    rows = read_metrics(run, "train") + read_metrics(run, "eval")
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_pretrained(str(run)).encoder_state


def assert_same_run(one: Path, other: Path) -> None:
    assert curve(one) == curve(other)
    before, after = weights(one), weights(other)
    assert all(torch.equal(before[name], after[name]) for name in before)


def command(config: PretrainConfig, *extra: str, processes: int = 1) -> list[str]:
    """The command line of a run, through a config file."""
    from electra.toml import write_toml

    path = config.out.with_suffix(".toml")
    write_toml(config, path)
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", f"--nproc-per-node={processes}", "--standalone", "-m"]
    return [*launcher, "electra", "pretrain", "--config", str(path), *extra]


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory) -> Path:
    """An uninterrupted run of 12 steps."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert pretrain(config_for(store, out)).step == 12
    return out


def test_a_run_leaves_what_the_design_says(whole):
    assert {path.name for path in whole.iterdir()} >= {
        "config.toml",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "export",
    }
    evaluation = read_metrics(whole, "eval")[-1]
    assert evaluation["step"] == 12
    for name in ("accuracy", "precision", "recall", "auc"):
        assert 0 <= evaluation[f"discriminator_{name}"] <= 1
    assert read_metrics(whole, "train")[0].keys() >= {
        "generator_loss",
        "discriminator_loss",
        "tokens_per_second",
        "mfu",
    }


def test_losses_fall(tmp_path):
    """On text of 20 different tokens out of 1,000 the generator soon beats the uniform guess it starts from."""
    store = make_store(tmp_path / "store", random_documents(60, vocab=25), held_out=0.1).folder
    pretrain(config_for(store, tmp_path / "run", steps=40, eval_every=0, save_every=100))
    rows = read_metrics(tmp_path / "run", "train")
    assert rows[-1]["generator_loss"] < rows[0]["generator_loss"] - 0.3


def test_kill_9_and_resume_gives_the_same_bits(store, whole, tmp_path):
    """SIGKILL at a moment nobody chose; the same command then ends with the curve and weights of the whole run."""
    out = tmp_path / "killed"
    arguments = command(config_for(store, out))
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(np.random.default_rng().uniform(0, 0.2))
    process.kill()
    process.wait()
    subprocess.run(arguments, check=True, capture_output=True)
    assert_same_run(whole, out)


def test_sigterm_saves_and_says_so(store, whole, tmp_path):
    out = tmp_path / "terminated"
    arguments = command(config_for(store, out, save_every=1000))
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if line.startswith("step 2/"):
            process.send_signal(signal.SIGTERM)
            break
    text = process.stdout.read()
    if process.wait() == 128 + signal.SIGTERM:  # else it was faster than the signal
        assert "is saved, the same command goes on from there" in text
        assert list(out.glob("checkpoints/step-*"))
    subprocess.run(command(config_for(store, out, save_every=1000)), check=True, capture_output=True)
    assert weights(out).keys() == weights(whole).keys()
    assert all(torch.equal(weights(out)[name], weights(whole)[name]) for name in weights(whole))


def test_interrupted_between_log_lines_the_line_is_whole(store, whole, tmp_path):
    """Checkpoints at odd steps, log lines at even ones: the sums since the last line survive in the checkpoint."""
    out = tmp_path / "stopped"
    pretrain(config_for(store, out))
    assert_same_run(whole, out)
    shutil.rmtree(out / "export")
    for step in (12, 9, 6):
        shutil.rmtree(out / "checkpoints" / f"step-{step}")
    assert pretrain(config_for(store, out)).step == 12  # from step 3
    assert_same_run(whole, out)


@pytest.mark.parametrize("micro_batch_size", [4, 2])
def test_two_processes_equal_one(store, tmp_path, micro_batch_size):
    """Same global batch and micro-batch, dropout on: losses to 1e-5, whoever computes them."""
    runs = {}
    for processes in (1, 2):
        out = tmp_path / f"p{processes}"
        config = config_for(store, out, steps=6, micro_batch_size=micro_batch_size, eval_every=3)
        # AdamW: Muon orthogonalises in bf16, which blows up differences of the last bit
        config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, optimizer="adamw"))
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command(config, processes=processes), capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        runs[processes] = out
    for one, two in zip(curve(runs[1]), curve(runs[2]), strict=True):
        for name, value in one.items():
            if name == "kind":
                continue
            assert two[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    one, two = weights(runs[1]), weights(runs[2])
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-5)


def test_micro_batches_do_not_change_the_result(store, tmp_path):
    """Without dropout, accumulation over 4 forward passes equals one pass."""
    shape = dataclasses.replace(SHAPE, dropout=0.0, attention_dropout=0.0)
    results = []
    for size in (8, 2):
        out = tmp_path / f"m{size}"
        config = config_for(store, out, steps=4, micro_batch_size=size)
        config = dataclasses.replace(
            config, model=shape, optimizer=dataclasses.replace(config.optimizer, optimizer="adamw")
        )
        pretrain(config)
        results.append(weights(out))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-5, atol=1e-5)


def test_other_configuration_is_refused_and_named(store, whole):
    changed = config_for(store, whole)
    changed = dataclasses.replace(changed, objective=ObjectiveConfig(mask_prob=0.2))
    with pytest.raises(ValueError, match=r"objective.mask_prob is 0.15 there, 0.2 now"):
        pretrain(changed)


def test_other_text_or_vocabulary_is_refused(whole, tmp_path):
    other = a_store(tmp_path / "other", 30)
    with pytest.raises(ValueError, match="holds other text than the store"):
        pretrain(config_for(other, whole))


def test_a_folder_of_something_else_is_refused(store, tmp_path):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is no run folder \(no config.toml\)"):
        pretrain(config_for(store, tmp_path))
    assert (tmp_path / "letters.txt").read_text() == "mine"


def test_store_too_small_for_a_batch(tmp_path):
    small = a_store(tmp_path / "small", 2, held_out=0.0)
    with pytest.raises(ValueError, match=r"lower loop.batch_size or add text"):
        pretrain(config_for(small, tmp_path / "run", batch_size=4096))
    assert not (tmp_path / "run").exists()


def test_no_held_out_documents_means_no_evaluation(tmp_path):
    store = a_store(tmp_path / "store", 20, held_out=0.0)
    said: list[str] = []
    pretrain(config_for(store, tmp_path / "run", steps=2), say=said.append)
    assert any("no held-out documents" in line for line in said)
    assert read_metrics(tmp_path / "run", "eval") == []


def test_dry_run_writes_nothing(store, tmp_path):
    said: list[str] = []
    pretrain(config_for(store, tmp_path / "run"), dry_run=True, say=said.append)
    text = "\n".join(said)
    for word in ("parameters", "MFLOPs a token", "epochs", "GiB", "micro-batches"):
        assert word in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing"])
def test_damaged_checkpoint_is_named(store, tmp_path, damage):
    out = tmp_path / "run"
    pretrain(config_for(store, out, steps=6))
    (file,) = (out / "checkpoints" / "step-6").glob("*.distcp")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-100])
    else:
        file.unlink()
    with pytest.raises(
        ValueError, match=rf"{file.name} is (damaged|missing).*delete the folder .*step-6 to resume from step 3"
    ):
        pretrain(config_for(store, out, steps=6))


def test_full_disk_keeps_the_checkpoint_before(store, tmp_path, monkeypatch):
    """A write that fails with 'no space left' ends the run in one sentence; step 3 stays readable."""
    import torch.distributed.checkpoint as dcp

    out, original, calls = tmp_path / "run", dcp.save, []

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return original(*args, **kwargs)

    monkeypatch.setattr(dcp, "save", full)
    with pytest.raises(ValueError, match="the disk is full: the checkpoint of step 6 could not be saved"):
        pretrain(config_for(store, out))
    monkeypatch.undo()
    assert Checkpoints(out / "checkpoints", Runtime(torch.device("cpu"), "fp32", "")).steps() == [3]
    assert not list((out / "checkpoints").glob(".*"))
    assert pretrain(config_for(store, out)).step == 12


def test_really_full_disk(store, tmp_path):
    """The same on a file system of 1 MB, where the machine allows one to be mounted."""
    mount = tmp_path / "small"
    mount.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(mount)], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a file system is not allowed here")
    try:
        done = subprocess.run(
            command(config_for(store, tmp_path / "run"), "--out", str(mount / "run")), capture_output=True, text=True
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and "the disk is full" in done.stderr, done.stderr
        assert not list(mount.glob("run/checkpoints/*"))
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_not_finite_loss_stops_with_a_checkpoint_from_before(store, tmp_path):
    config = config_for(store, tmp_path / "run", save_every=1000)
    config = dataclasses.replace(
        config, optimizer=OptimizerConfig(learning_rate=1e30, warmup_steps=0, clip_norm=0.0, weight_decay=0.0)
    )
    with pytest.raises(ValueError, match=r"became (nan|inf) in step \d+; .*step-\d+ holds the state before it"):
        pretrain(config)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert json.loads((checkpoint / "checkpoint.json").read_text())["step"] == int(
        checkpoint.name.removeprefix("step-")
    )


def test_batch_that_does_not_divide_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match=r"loop.micro_batch_size 3 does not divide the 8 rows"):
        pretrain(config_for(store, tmp_path / "run", micro_batch_size=3))


def test_only_the_newest_checkpoints_are_kept(store, tmp_path):
    pretrain(config_for(store, tmp_path / "run", keep=2))
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-12", "step-9"]
