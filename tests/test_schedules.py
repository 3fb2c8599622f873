"""Schedules against torch.optim.lr_scheduler, and closed forms at step 0, in and after the warm-up and at the end."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, PolynomialLR, SequentialLR

from electra.config import OptimizerConfig
from electra.schedules import (
    describe,
    make_schedule,
    warmup_cosine,
    warmup_decay,
    warmup_polynomial,
    warmup_stable_decay,
)

STEPS, WARMUP_STEPS, PEAK, END = 50, 10, 2e-3, 4e-4


def rates_of(*make: object, milestones: list[int]) -> list[float]:
    """The learning rates of torch's schedulers one after the other, for steps 0 ... STEPS."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedulers: list[LRScheduler] = [each(optimizer) for each in make]  # type: ignore[operator]
    scheduler = SequentialLR(optimizer, schedulers, milestones)
    found = []
    for _ in range(STEPS + 1):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def warmup(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: step / WARMUP_STEPS)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_polynomial_is_torchs_after_a_linear_warmup():
    theirs = rates_of(
        warmup, lambda each: PolynomialLR(each, STEPS - WARMUP_STEPS, power=0.5), milestones=[WARMUP_STEPS]
    )
    rate = make_schedule(
        OptimizerConfig(learning_rate=PEAK, schedule="polynomial", warmup_steps=WARMUP_STEPS, decay_power=0.5), STEPS
    )
    assert [rate(step) for step in range(STEPS + 1)] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_polynomial_with_an_end_is_torchs_linear():
    """SageMaker's: 2e-3 -> 4e-4 in a straight line."""
    left = STEPS - WARMUP_STEPS
    theirs = rates_of(warmup, lambda each: LinearLR(each, 1.0, END / PEAK, left), milestones=[WARMUP_STEPS])
    rate = make_schedule(
        OptimizerConfig(learning_rate=PEAK, schedule="polynomial", warmup_steps=WARMUP_STEPS, end_learning_rate=END),
        STEPS,
    )
    assert [rate(step) for step in range(STEPS + 1)] == pytest.approx(theirs)
    assert rate(STEPS) == pytest.approx(END)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_cosine_is_torchs_after_a_linear_warmup():
    left = STEPS - WARMUP_STEPS
    theirs = rates_of(warmup, lambda each: CosineAnnealingLR(each, left, END), milestones=[WARMUP_STEPS])
    rate = make_schedule(
        OptimizerConfig(learning_rate=PEAK, schedule="cosine", warmup_steps=WARMUP_STEPS, end_learning_rate=END), STEPS
    )
    assert [rate(step) for step in range(STEPS + 1)] == pytest.approx(theirs)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_warmup_stable_decay_is_torchs_three_in_a_row():
    theirs = rates_of(
        warmup,
        lambda each: LambdaLR(each, lambda step: 1.0),
        lambda each: LinearLR(each, 1.0, END / PEAK, 20),
        milestones=[WARMUP_STEPS, 30],
    )
    config = OptimizerConfig(
        learning_rate=PEAK,
        schedule="warmup-stable-decay",
        warmup_steps=WARMUP_STEPS,
        decay_share=0.4,
        end_learning_rate=END,
    )
    rate = make_schedule(config, STEPS)
    assert [rate(step) for step in range(STEPS + 1)] == pytest.approx(theirs)


def test_product_is_decay_times_warmup():
    rates = [warmup_decay(step, peak=1.0, steps=10, warmup_steps=4) for step in range(11)]
    assert rates[0] == 0 and rates[10] == 0
    assert rates[2] == pytest.approx(0.8 * 0.5) and rates[6] == pytest.approx(0.4)
    assert warmup_decay(5, peak=2.0, steps=10, warmup_steps=0, power=0.5) == pytest.approx(2 * 0.5**0.5)
    assert warmup_decay(5, peak=2.0, steps=10, warmup_steps=8, end=1.0) == pytest.approx(1.5 * 5 / 8)


def test_the_default_is_googles_to_the_bit():
    """The expression of google-research/electra; a schedule that grew an end value must not change a run."""
    rate = make_schedule(OptimizerConfig(), 1_000_000)
    for step in (0, 1, 9_999, 10_000, 123_457, 999_999, 1_000_000):
        assert rate(step) == 5e-4 * max(0.0, 1.0 - step / 1_000_000) ** 1.0 * min(1.0, step / 10_000)


def test_corners_in_closed_form():
    common = {"peak": 1.0, "steps": 100, "warmup_steps": 20}
    for step, polynomial, cosine, stable in (
        (0, 0, 0, 0),
        (19, 0.95, 0.95, 0.95),
        (20, 1, 1, 1),
        (60, 0.25, 0.5, 1),
        (99, (1 / 80) ** 2, 0.5 * (1 + math.cos(math.pi * 79 / 80)), (1 / 30) ** 2),
        (100, 0, 0, 0),
        (1000, 0, 0, 0),
    ):
        assert warmup_polynomial(step, **common, power=2.0) == pytest.approx(polynomial)
        assert warmup_cosine(step, **common) == pytest.approx(cosine)
        assert warmup_stable_decay(step, **common, decay_steps=30, power=2.0) == pytest.approx(stable)


@pytest.mark.parametrize("schedule", ["product", "polynomial", "cosine", "warmup-stable-decay"])
def test_no_warmup_begins_at_the_peak(schedule):
    config = OptimizerConfig(schedule=schedule, warmup_steps=0, end_learning_rate=1e-5)
    rate = make_schedule(config, 30)
    assert rate(0) == config.learning_rate and rate(30) == pytest.approx(1e-5)


def test_describe_says_where_the_rate_goes():
    config = OptimizerConfig(schedule="warmup-stable-decay", warmup_steps=10, decay_share=0.2, end_learning_rate=1e-4)
    assert describe(config, 100) == (
        "10 steps of warm-up, the peak, then polynomial decay (power 1) over the last 20; "
        "learning rate 0.0005 after the warm-up, 0.00012 at the end"
    )
    assert "the run ends within the warm-up, at " in describe(OptimizerConfig(), 100)


@pytest.mark.parametrize("schedule", ["polynomial", "cosine", "warmup-stable-decay"])
def test_a_warmup_without_a_rest_is_refused(schedule):
    with pytest.raises(ValueError, match=r"optimizer.warmup_steps 10,000 leaves nothing of the 100 steps"):
        make_schedule(OptimizerConfig(schedule=schedule), 100)


def test_a_decay_that_meets_the_warmup_is_refused():
    config = OptimizerConfig(schedule="warmup-stable-decay", warmup_steps=30, decay_share=0.8)
    with pytest.raises(ValueError, match=r"warmup_steps 30 and optimizer.decay_share 0.8, 80 steps, do not both fit"):
        make_schedule(config, 100)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"decay_share": 0.2}, "optimizer.decay_share has no meaning when optimizer.schedule is product"),
        ({"schedule": "cosine", "decay_share": 0.2}, "decay_share has no meaning when optimizer.schedule is cosine"),
        ({"schedule": "cosine", "decay_power": 0.5}, "optimizer.decay_power has no meaning .* set it to 1"),
        ({"schedule": "warmup-stable-decay", "decay_share": 0.0}, "decay_share must be above 0 and at most 1"),
        ({"schedule": "warmup-stable-decay", "decay_share": 1.5}, "decay_share must be above 0 and at most 1"),
        ({"end_learning_rate": 1e-3}, "end_learning_rate must be from 0 to optimizer.learning_rate 0.0005, not 0.001"),
        ({"end_learning_rate": -1e-3}, "optimizer.end_learning_rate must be from 0"),
    ],
)
def test_fields_that_make_no_sense_together(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        OptimizerConfig(**fields)
