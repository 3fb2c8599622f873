"""Learning-rate schedules: pure functions of the step, which counts from 0, so that a resumed run needs no state.

    product               polynomial decay over all steps, times the warm-up (Google, model/optimization.py)
    polynomial            warm-up, then polynomial decay over the rest (NVIDIA, optimization.py; AWS)
    cosine                warm-up, then half a cosine over the rest (Loshchilov & Hutter 2017, without restarts)
    warmup-stable-decay   warm-up, the peak, polynomial decay over the last steps (Hu et al. 2024, MiniCPM, section 4)

All warm up linearly from 0 at step 0 and reach `end` at step `steps`, one past the last step that a run does. `product`
alone decays while it warms up, so that it stays below the peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from electra.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, steps: int) -> Callable[[int], float]:
    """The learning rate of AdamW or LAMB as a function of the step, for a run of `steps` steps.

    Raises ValueError when warm-up and decay do not fit into the steps.
    """
    peak, end, power = config.learning_rate, config.end_learning_rate, config.decay_power
    warmup_steps, decay_steps = config.warmup_steps, decaying_steps(config, steps)
    if config.schedule == "product":
        return partial(warmup_decay, peak=peak, steps=steps, warmup_steps=warmup_steps, power=power, end=end)
    if warmup_steps >= steps:
        raise ValueError(
            f"optimizer.warmup_steps {warmup_steps:,} leaves nothing of the {steps:,} steps to decay, as "
            f"optimizer.schedule {config.schedule} does after the warm-up: lower it"
        )
    if config.schedule == "polynomial":
        return partial(warmup_polynomial, peak=peak, steps=steps, warmup_steps=warmup_steps, power=power, end=end)
    if config.schedule == "cosine":
        return partial(warmup_cosine, peak=peak, steps=steps, warmup_steps=warmup_steps, end=end)
    if warmup_steps + decay_steps > steps:
        raise ValueError(
            f"optimizer.warmup_steps {warmup_steps:,} and optimizer.decay_share {config.decay_share:g}, "
            f"{decay_steps:,} steps, do not both fit into {steps:,} steps: lower one of them"
        )
    return partial(
        warmup_stable_decay,
        peak=peak,
        steps=steps,
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
        power=power,
        end=end,
    )


def warmup_decay(
    step: int, *, peak: float, steps: int, warmup_steps: int, power: float = 1.0, end: float = 0.0
) -> float:
    """Google's `product`: (end + (peak - end) (1 - step / steps)^power) min(1, step / warmup_steps)."""
    decayed = end + (peak - end) * max(0.0, 1.0 - step / steps) ** power
    return decayed * min(1.0, step / warmup_steps) if warmup_steps else decayed


def warmup_polynomial(
    step: int, *, peak: float, steps: int, warmup_steps: int, power: float = 1.0, end: float = 0.0
) -> float:
    """Linear warm-up, then end + (peak - end) (1 - t)^power, where t goes from 0 to 1 over the rest of the steps."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return end + (peak - end) * (1.0 - _share(step - warmup_steps, steps - warmup_steps)) ** power


def warmup_cosine(step: int, *, peak: float, steps: int, warmup_steps: int, end: float = 0.0) -> float:
    """Linear warm-up, then end + (peak - end) (1 + cos(pi t)) / 2, where t goes from 0 to 1 over the rest."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return end + (peak - end) * 0.5 * (1.0 + math.cos(math.pi * _share(step - warmup_steps, steps - warmup_steps)))


def warmup_stable_decay(
    step: int, *, peak: float, steps: int, warmup_steps: int, decay_steps: int, power: float = 1.0, end: float = 0.0
) -> float:
    """Linear warm-up, the peak, then end + (peak - end) (1 - t)^power over the last `decay_steps`."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return end + (peak - end) * (1.0 - _share(max(0, step - (steps - decay_steps)), decay_steps)) ** power


def _share(done: int, all_steps: int) -> float:
    """How far a decay has come, 0 to 1; a step beyond the last one stays at the end value."""
    return min(1.0, done / all_steps)


def decaying_steps(config: OptimizerConfig, steps: int) -> int:
    """The last steps of warmup-stable-decay, in which the learning rate falls."""
    return max(1, round(config.decay_share * steps))


def describe(config: OptimizerConfig, steps: int) -> str:
    """The schedule in a line, with the learning rate after the warm-up and in the last step. ValueError as above."""
    rate = make_schedule(config, steps)
    power = f"polynomial decay (power {config.decay_power:g})"
    warmup = f"{config.warmup_steps:,} steps of warm-up"
    kind = {
        "product": f"{warmup} times {power} over all {steps:,}",
        "polynomial": f"{warmup}, then {power} over the rest",
        "cosine": f"{warmup}, then half a cosine over the rest",
        "warmup-stable-decay": f"{warmup}, the peak, then {power} over the last {decaying_steps(config, steps):,}",
    }[config.schedule]
    if config.warmup_steps >= steps:
        return f"{kind}; the run ends within the warm-up, at {rate(steps - 1):.3g} instead of {config.learning_rate:g}"
    return f"{kind}; learning rate {rate(config.warmup_steps):.3g} after the warm-up, {rate(steps - 1):.3g} at the end"
