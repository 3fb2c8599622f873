"""Dynamic loss scaling for fp16 (Micikevicius et al. 2018, section 3.2), by the rule of torch.amp.GradScaler.

    (loss * scale).backward()  ->  gradients / scale  ->  finite? the optimizer steps : the step is skipped

fp16 loses what is below 6e-8, where many gradients of a deep network are. The scale lifts them; it grows until they
overflow above 65,504 and falls back. bf16 has the range of fp32 and needs none of this.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LossScaler:
    """The scale and how it came about: all of it is in a checkpoint, so that a resumed run takes the same steps.

    It starts at 2^16, doubles after 2,000 steps in a row without overflow, and halves at an overflow, whose step is
    skipped: weights, moments and the count of Adam's bias correction stay. The run goes on to the next rows and the
    next learning rate all the same, since both follow from the step's number; the original's fp16 code holds back the
    learning rate, which would shift the whole schedule by the skipped steps (about one in 2,000).
    """

    scale: float = 2.0**16
    good_steps: int = 0  # since the last change of the scale
    skipped: int = 0  # steps of the run whose gradient overflowed

    GROWTH_INTERVAL = 2000
    SMALLEST, LARGEST = 2.0**-14, 2.0**126

    @property
    def is_smallest(self) -> bool:
        """What overflows at this scale overflows without any: it is the gradient that is infinite."""
        return self.scale <= self.SMALLEST

    def update(self, overflows: bool) -> None:
        """Learn how a step went, the same on all ranks because the norm of the whole gradient is."""
        if overflows:
            self.scale, self.good_steps, self.skipped = self.scale / 2, 0, self.skipped + 1
            return
        self.good_steps += 1
        if self.good_steps == self.GROWTH_INTERVAL:
            self.scale, self.good_steps = min(2 * self.scale, self.LARGEST), 0
