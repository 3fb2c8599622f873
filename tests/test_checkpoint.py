"""Checkpoints that are written while training goes on: what they hold, who waits, what fails where."""

import threading

import pytest
import torch
import torch.distributed.checkpoint as dcp

from electra.checkpoint import Checkpoints, TrainState
from electra.optim import AdamW
from electra.runtime import Runtime


def a_state(value: float, step: int) -> TrainState:
    model = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(model.weight, value)
    return TrainState(model, [AdamW([{"params": list(model.parameters())}])], step=step)


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", Runtime(torch.device("cpu"), "fp32", ""), keep=2)


def test_what_is_saved_is_the_state_of_that_moment(checkpoints, monkeypatch):
    """The write is held until the weights and moments have moved on; the checkpoint has them as they were."""
    go, save = threading.Event(), dcp.save
    monkeypatch.setattr(dcp, "save", lambda *args, **kwargs: go.wait(30) and save(*args, **kwargs))
    state = a_state(1.0, 5)
    checkpoints.save(state, wait=False)
    with torch.no_grad():
        state.model.weight.fill_(7.0)
        state.optimizers[0].state[state.model.weight]["exp_avg"].fill_(7.0)
    assert checkpoints.steps() == [] and not checkpoints.failed
    go.set()
    checkpoints.wait()
    assert checkpoints.steps() == [5]
    loaded = a_state(0.0, 0)
    assert checkpoints.load_latest(loaded) and loaded.step == 5
    assert torch.equal(loaded.model.weight, torch.ones(2, 3))
    assert not loaded.optimizers[0].state[loaded.model.weight]["exp_avg"].any()


def test_one_checkpoint_is_written_at_a_time_and_old_ones_go(checkpoints):
    for step in (1, 2, 3, 4):
        checkpoints.save(a_state(1.0, step), wait=False)
    checkpoints.wait()
    assert checkpoints.steps() == [3, 4] and not list(checkpoints.folder.glob(".*"))


def test_a_failure_is_known_at_once_and_raised_by_whoever_waits(checkpoints, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    checkpoints.save(a_state(1.0, 1))
    with monkeypatch.context() as patch:
        patch.setattr(dcp, "save", full)
        checkpoints.save(a_state(1.0, 2), wait=False)
        checkpoints._thread.join()
    assert checkpoints.failed
    with pytest.raises(ValueError, match="the disk is full: the checkpoint of step 2 could not be saved"):
        checkpoints.save(a_state(1.0, 3))
    assert not checkpoints.failed and checkpoints.steps() == [1] and not list(checkpoints.folder.glob(".*"))
    checkpoints.save(a_state(1.0, 3))
    assert checkpoints.steps() == [1, 3]


def test_a_failure_that_is_not_the_disk_stays_what_it_was(checkpoints, monkeypatch):
    monkeypatch.setattr(dcp, "save", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpoints.save(a_state(1.0, 2))
