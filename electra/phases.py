"""A pre-training plan as a list of phases, each an ordinary run's configuration and the steps in which it holds.

    PretrainConfig with [[phases]] -> plan -> Phase(begin, end, flat configuration, schedule), ...

A run without phases is one phase. Steps count from 0 over the whole run: they name checkpoints, seed the masks and
never go back. Within a phase rows are counted from its begin, in an order of its own. What a new phase starts anew is
`restart`: the two-phase plans of NVIDIA's code set step and iteration counts to zero and keep the moments (which with
Adam's bias correction divides warm moments as if they were fresh), Google's advice is one schedule over everything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from electra.config import PhaseConfig, PretrainConfig
from electra.runtime import derive_seed
from electra.schedules import describe as describe_schedule
from electra.schedules import make_schedule


@dataclass(frozen=True)
class Phase:
    """Steps begin .. end of a run."""

    index: int  # from 0
    begin: int
    end: int
    config: PretrainConfig  # without phases; loop.steps is the end
    restarts_count: bool  # Adam's count of steps begins anew
    restarts_moments: bool
    learning_rate: Callable[[int], float]  # of a step of the run
    schedule: str  # in words
    row_seed: int  # of the order of the rows

    @property
    def steps(self) -> int:
        return self.end - self.begin

    @property
    def tokens(self) -> int:
        return self.steps * self.config.loop.batch_size * self.config.rows.seq_len


def plan(config: PretrainConfig) -> list[Phase]:
    """The phases of a run in order. ValueError names a phase whose values do not fit together."""
    given = config.phases or (PhaseConfig(steps=config.loop.steps),)
    flat = [_flat(config, phase, index) for index, phase in enumerate(given)]
    steps = _steps(config, given, flat)
    ends = [sum(steps[: index + 1]) for index in range(len(steps))]
    phases: list[Phase] = []
    for index, phase in enumerate(given):
        fresh = index == 0 or phase.restart != "nothing"
        if fresh:
            first, span = ends[index] - steps[index], _span(given, steps, index)
            optimizer = flat[index].optimizer
            try:
                rate, words = make_schedule(optimizer, span), describe_schedule(optimizer, span)
            except ValueError as error:
                raise ValueError(_named(config, index, error)) from None
        phases.append(
            Phase(
                index=index,
                begin=ends[index] - steps[index],
                end=ends[index],
                config=dataclasses.replace(flat[index], loop=dataclasses.replace(flat[index].loop, steps=ends[index])),
                restarts_count=index > 0 and phase.restart != "nothing",
                restarts_moments=index > 0 and phase.restart == "all",
                learning_rate=_from(rate, first),
                schedule=words if fresh else "as in the phase before",
                row_seed=derive_seed("rows", config.loop.seed, index) if index else config.loop.seed,
            )
        )
    return phases


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase whose steps lead to the state after `step` steps: the first for 0, the last beyond the end."""
    return next((phase for phase in phases if step <= phase.end), phases[-1])


def _flat(config: PretrainConfig, phase: PhaseConfig, index: int) -> PretrainConfig:
    """The run's configuration with what the phase says in its place."""
    try:
        optimizer = config.optimizer
        if phase.learning_rate:
            ratio = phase.learning_rate / optimizer.learning_rate
            optimizer = dataclasses.replace(
                optimizer,
                learning_rate=phase.learning_rate,
                muon_learning_rate=optimizer.muon_learning_rate * ratio,
                end_learning_rate=min(optimizer.end_learning_rate, phase.learning_rate),
            )
        if phase.warmup_steps >= 0:
            optimizer = dataclasses.replace(optimizer, warmup_steps=phase.warmup_steps)
        return dataclasses.replace(
            config,
            rows=dataclasses.replace(config.rows, seq_len=phase.seq_len or config.rows.seq_len),
            loop=dataclasses.replace(
                config.loop,
                batch_size=phase.batch_size or config.loop.batch_size,
                micro_batch_size=phase.micro_batch_size or config.loop.micro_batch_size,
            ),
            optimizer=optimizer,
            phases=(),
        )
    except ValueError as error:
        raise ValueError(_named(config, index, error)) from None


def _steps(config: PretrainConfig, given: Sequence[PhaseConfig], flat: Sequence[PretrainConfig]) -> list[int]:
    """The steps of each phase; those of a share of the tokens are rounded, at least 1."""
    tokens = config.loop.steps * config.loop.batch_size * config.rows.seq_len
    return [
        phase.steps or max(1, round(phase.token_share * tokens / (alone.loop.batch_size * alone.rows.seq_len)))
        for phase, alone in zip(given, flat, strict=True)
    ]


def _span(given: Sequence[PhaseConfig], steps: Sequence[int], index: int) -> int:
    """The steps of a schedule that begins with phase `index`: up to the next phase that restarts it."""
    later = range(index + 1, len(given))
    stop = next((other for other in later if given[other].restart != "nothing"), len(given))
    return sum(steps[index:stop])


def _from(rate: Callable[[int], float], first: int) -> Callable[[int], float]:
    return lambda step: rate(step - first)


def _named(config: PretrainConfig, index: int, error: ValueError) -> str:
    return f"phase {index + 1}: {error}" if config.phases else str(error)
