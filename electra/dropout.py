"""Dropout. On a CPU it draws 16 random bits a value, four values from each number of torch's generator.

torch's own kernel there draws a number for each value, one after the other on one core however many there are, which
takes three times as long (benchmarks/dropout.py). Everywhere else torch's kernel runs. The share dropped is `p` rounded
to 1/65,536, and what is kept is scaled by the share kept exactly, so that the expectation is that of the input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16


class Dropout(nn.Module):
    """Zero each value with probability `p` in training and scale the others by 1 / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x

    def extra_repr(self) -> str:
        return f"p={self.p}"


def dropout(x: Tensor, p: float) -> Tensor:
    """As `torch.nn.functional.dropout`, from the state of torch's generator; 0 <= p < 1."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():  # compiled kernels draw for themselves
        return F.dropout(x, p)
    dropped = round(p * LEVELS)
    if not dropped:
        return x
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - LEVELS // 2
    return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
