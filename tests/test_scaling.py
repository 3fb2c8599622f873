"""fp16: the rule of the loss scale against torch's own, steps that are skipped, and runs that are resumed."""

import dataclasses
import json
import shutil

import pytest
import torch
from stores import make_store, random_documents
from test_pretrain import assert_same_run, config_for

import electra.runtime
import electra.train
from electra.config import LoopConfig
from electra.log import RunLog, read_metrics
from electra.optim import AdamW
from electra.pretrain import pretrain
from electra.runtime import Runtime
from electra.scaling import LossScaler
from electra.train import TrainState, Work, train

CPU = Runtime(torch.device("cpu"), "fp16", "")


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A micro-batch of one number, the derivative of the loss by the weight."""

    slope: float
    seed: int = 0

    def to(self, device: torch.device) -> float:
        return self.slope


class Line(torch.nn.Module):
    """weight * slope through an fp16 tensor, so that the scaled gradient overflows as on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, slope: float, totals: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = (self.weight.half() * slope).sum()
        return loss.float(), {"loss": loss.detach().float()}


def run(slopes: list[float], folder, scaler: LossScaler, learning_rate=lambda step: 0.1) -> TrainState:
    model = Line()
    state = TrainState(model, [AdamW([{"params": [model.weight]}], bias_correction=True)], scaler=scaler)
    train(
        state,
        loop=LoopConfig(steps=len(slopes), log_every=1),
        clip_norm=0.0,
        runtime=CPU,
        learning_rate=learning_rate,
        load=lambda step: Work([Numbers(slopes[step])], {}, 1),
        summarise=lambda sums, steps: {"loss": sums["loss"]},
        log=RunLog(folder, phases=[(len(slopes), 1.0)], quiet=True),
    )
    return state


def test_the_rule_is_that_of_gradscaler(tmp_path, monkeypatch):
    """The same scales, the same skipped steps and the same weights as torch.amp.GradScaler with torch.optim.AdamW."""
    monkeypatch.setattr(LossScaler, "GROWTH_INTERVAL", 3)
    slopes = [0.5, 3.0, 0.25, 0.25, 0.25, 0.25, 2.0, 0.125, 0.125, 0.125, 0.125, 1.0, 0.5]
    state = run(slopes, tmp_path, LossScaler(2.0**15))

    model = Line()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, eps=1e-6, weight_decay=0.0)
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**15, growth_interval=3)
    scales = []
    for slope in slopes:
        loss, _ = model(slope, {})
        theirs.scale(loss).backward()
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        scales.append(theirs.get_scale())
    logged = read_metrics(tmp_path, "train")
    assert [row["loss_scale"] for row in logged] == scales and len(set(scales)) == 3
    assert state.scaler is not None and state.scaler.skipped == logged[-1]["skipped_steps"] == 2
    torch.testing.assert_close(state.model.weight, model.weight)


def test_a_skipped_step_leaves_everything_and_the_schedule_goes_on(tmp_path):
    rates = []
    state = run([1.0, 1.0], tmp_path, LossScaler(2.0**16), lambda step: rates.append(step) or 0.1)
    assert rates == [0, 1] and state.step == 2 and state.scaler == LossScaler(2.0**15, 1, 1)
    (values,) = state.optimizers[0].state.values()
    assert values["steps"] == 1  # of two: Adam's correction counts the steps that it took


def test_a_gradient_that_is_itself_infinite_ends_the_run(tmp_path):
    """No scale helps: at the smallest one the run says so instead of going on without learning."""
    scaler = LossScaler(LossScaler.SMALLEST)

    class Steep(Line):
        def forward(self, slope, totals):
            loss = (self.weight * 0).clamp(min=0).sqrt().sum()
            return loss, {"loss": loss.detach()}

    state = TrainState(model := Steep(), [AdamW([{"params": [model.weight]}])], scaler=scaler)
    with pytest.raises(ValueError, match="the gradient norm became nan in step 1: lower the learning rate"):
        train(
            state,
            loop=LoopConfig(steps=1),
            clip_norm=0.0,
            runtime=CPU,
            learning_rate=lambda step: 0.1,
            load=lambda step: Work([Numbers(1.0)], {}, 1),
            summarise=lambda sums, steps: {},
            log=RunLog(None, phases=[(1, 1.0)], quiet=True),
        )


def test_a_run_in_fp16_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """Growth every 2 steps from 2^24, so that steps are skipped and the scale moves on both sides of the gap."""
    monkeypatch.setattr(LossScaler, "GROWTH_INTERVAL", 2)
    monkeypatch.setattr(electra.train, "LossScaler", lambda: LossScaler(2.0**24))
    monkeypatch.setattr(electra.runtime, "matmul_flops", lambda *args: 1e9)
    store = make_store(tmp_path / "store", random_documents(60), held_out=0.1).folder

    def config(out):
        made = config_for(store, tmp_path / out, steps=8, precision="fp16", save_every=2, log_every=1, eval_every=0)
        return dataclasses.replace(made, optimizer=dataclasses.replace(made.optimizer, optimizer="adamw"))

    pretrain(config("whole"), say=lambda text: None)
    pretrain(config("cut"), say=lambda text: None)
    shutil.rmtree(tmp_path / "cut" / "export")
    for step in (8, 6):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"step-{step}")
    pretrain(config("cut"), say=lambda text: None)
    rows = read_metrics(tmp_path / "cut", "train")
    assert 0 < rows[3]["skipped_steps"] < rows[-1]["skipped_steps"]
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    receipt = json.loads((tmp_path / "cut" / "checkpoints" / "step-8" / "checkpoint.json").read_text())
    assert receipt["loss_scale"]["skipped"] == rows[-1]["skipped_steps"]
