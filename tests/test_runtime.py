"""Autocast, seeds, signals, and what the log prints."""

import os
import signal

import pytest
import torch

from electra.log import RunLog, format_metrics, read_metrics
from electra.progress import duration
from electra.runtime import (
    Runtime,
    StopSignal,
    derive_seed,
    matmul_flops,
)


def test_autocast_follows_the_precision():
    x = torch.randn(4, 4)
    with Runtime(torch.device("cpu"), "bf16", "").autocast():
        assert (x @ x).dtype == torch.bfloat16
    with Runtime(torch.device("cpu"), "fp16", "").autocast():
        assert (x @ x).dtype == torch.float16
    with Runtime(torch.device("cpu"), "fp32", "").autocast():
        assert (x @ x).dtype == torch.float32


def test_seeds_are_stable_and_differ():
    assert derive_seed(1, 2) == derive_seed(1, 2) == 5142973159532490859
    assert len({derive_seed(a, b) for a in range(20) for b in range(20)}) == 400
    assert 0 <= derive_seed("weights", 3) < 2**63


def test_a_signal_sets_a_flag_and_a_second_one_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_matmul_speed_is_positive():
    assert matmul_flops(torch.device("cpu"), "fp32", size=128, seconds=0.01) > 1e6


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65, "1:05"), (3661, "1:01:01"), (90_061, "1d 1:01:01")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_lines_beyond_the_checkpoint_are_dropped(tmp_path):
    log = RunLog(tmp_path, quiet=True)
    for step in range(1, 6):
        log.metrics(step, {"loss": float(step)})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "ki')  # a kill in the middle of a line
    assert len(read_metrics(tmp_path, "train")) == 5
    log = RunLog(tmp_path, start_step=3, quiet=True)
    log.metrics(4, {"loss": float("nan")})
    log.close()
    rows = read_metrics(tmp_path, "train")
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and rows[-1]["loss"] is None


def test_metrics_are_short():
    parts = format_metrics(
        {"generator_loss": 8.12345, "tokens_per_second": 12345.6, "mfu": 0.345, "replaced_share": 0.1}
    )
    assert parts == ["12,346 tok/s", "gen 8.123", "mfu 34%"]
