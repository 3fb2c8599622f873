"""What a run shows beside its numbers: samples, a profile, and what the loop's log lines hold."""

import dataclasses
import json
from pathlib import Path

import pytest
from stores import make_store, random_documents

from electra.config import LoopConfig, ModelConfig, ObjectiveConfig, OptimizerConfig, PretrainConfig, RowsConfig
from electra.log import read_metrics
from electra.pretrain import pretrain


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> PretrainConfig:
    folder = tmp_path_factory.mktemp("watching")
    return PretrainConfig(
        data=(str(make_store(folder / "store", random_documents(60), held_out=0.2).folder),),
        out=folder / "run",
        model=ModelConfig(32, 1, 2, 64, 16, generator_width=0.5, max_positions=64),
        rows=RowsConfig(seq_len=32),
        optimizer=OptimizerConfig(warmup_steps=2),
        loop=LoopConfig(
            steps=16, batch_size=4, log_every=8, eval_every=4, eval_rows=8, save_every=8, precision="fp32", device="cpu"
        ),
    )


def with_loop(config: PretrainConfig, out: Path, **loop) -> PretrainConfig:
    return dataclasses.replace(config, out=out, loop=dataclasses.replace(config.loop, **loop))


def test_samples_every_second_evaluation_and_in_the_same_run_with_or_without(config, tmp_path, capsys):
    pretrain(with_loop(config, tmp_path / "with", samples_every=2))
    shown = capsys.readouterr().out.splitlines()
    places = [number for number, line in enumerate(shown) if line.startswith("held-out row")]
    assert [shown[place] for place in places] == ["held-out row 2:", "held-out row 4:"]
    for place in places:
        assert [line.split()[0] for line in shown[place + 1 : place + 4]] == ["original", "corrupted", "discriminator"]
        assert shown[place + 4].startswith(("step 8 eval", "step 16 eval"))
    pretrain(with_loop(config, tmp_path / "without"))
    assert "held-out row" not in capsys.readouterr().out
    one, other = (read_metrics(tmp_path / name, "eval") for name in ("with", "without"))
    assert one == other


def test_samples_of_a_masked_lm_are_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r"loop\.samples_every has no meaning when objective\.objective is masked-lm"):
        dataclasses.replace(
            with_loop(config, tmp_path / "run", samples_every=2), objective=ObjectiveConfig(objective="masked-lm")
        )


def test_a_profile_holds_steps_10_to_15_by_the_number_of_the_run(config, tmp_path, capsys):
    run = with_loop(config, tmp_path / "run", eval_every=0)
    pretrain(run, profile=True)
    path = tmp_path / "run" / "profile" / "steps-10-to-15.json"
    assert f"profile of steps 10 to 15: {path}" in capsys.readouterr().out
    names = {event["name"] for event in json.loads(path.read_text())["traceEvents"]}
    assert {f"ProfilerStep#{step}" for step in range(9, 15)} <= names
    assert any(name.startswith("aten::") for name in names)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_run_too_short_for_a_profile_says_so(config, tmp_path, capsys):
    pretrain(with_loop(config, tmp_path / "short", steps=5, eval_every=0), profile=True)
    assert "no profile: it begins with the process's step 10, and there were 5" in capsys.readouterr().out
    assert not (tmp_path / "short" / "profile").exists()
    pretrain(with_loop(config, tmp_path / "half", steps=12, eval_every=0), profile=True)
    assert (tmp_path / "half" / "profile" / "steps-10-to-12.json").exists()


def test_log_lines_hold_memory_auc_and_sampled_accuracy(config, tmp_path, capsys):
    pretrain(with_loop(config, tmp_path / "run"))
    shown = capsys.readouterr().out
    row = read_metrics(tmp_path / "run", "train")[-1]
    assert 0.05 < row["peak_memory_gib"] < 64
    assert 0 <= row["discriminator_auc"] <= 1 and 0 <= row["generator_sampled_accuracy"] <= 1
    assert f"GiB {row['peak_memory_gib']:.1f}" in shown and "sampled" not in shown
    assert read_metrics(tmp_path / "run", "eval")[-1].keys() >= {"discriminator_auc", "generator_sampled_accuracy"}
