"""A dense layer that in fp32 on a CPU multiplies through oneDNN.

    x (..., I) -> x weight^T + bias (..., O); forward, and both products of the backward pass

torch sends fp32 products on x86 to MKL, which holds back on CPUs that are not Intel's: on two cores of an AMD EPYC
about 155 GFLOP/s where oneDNN, which torch carries too and uses for bf16, reaches 180 to 330 with the same arithmetic
(benchmarks/linear.py). Everywhere else, and in bf16, this is `nn.Linear`. The operator is the one that torch.compile
emits for CPUs; where a build of torch has none (Apple, ARM) nothing changes.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Linear(nn.Linear):
    """`nn.Linear`, the same parameters and the same results; through oneDNN it can be differentiated once."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `torch.nn.functional.linear`."""
    return _Product.apply(x, weight, bias) if _uses_onednn(x, weight) else F.linear(x, weight, bias)


def _uses_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.jit.is_tracing()  # which does not know the operator
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # a compiled graph is torch.compile's to arrange
        and onednn_available()
    )


@functools.cache
def onednn_available() -> bool:
    """Whether this build of torch has oneDNN's fp32 product for this CPU."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    try:
        _product(torch.ones(2, 2), torch.ones(2, 2))
    except (AttributeError, RuntimeError):
        return False
    return True


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N, I), weight (O, I) -> (N, O); transposed views are as good as whole tensors."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _rows(x: Tensor) -> Tensor:
    """(..., I) -> (N, I), one row right after the other: oneDNN has only a slow way for rows that lie apart."""
    return x.reshape(-1, x.shape[-1]).contiguous()


class _Product(torch.autograd.Function):
    """x weight^T + bias and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(_rows(x), weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        flat = _rows(gradient)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(flat, weight.t()).view(x.shape) if needs_x else None,
            _product(flat.t(), _rows(x).t()) if needs_weight else None,
            flat.sum(0) if needs_bias and ctx.has_bias else None,
        )
