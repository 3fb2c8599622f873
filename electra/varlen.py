"""Attention over packed rows without a mask: torch's variable-length kernel (FlashAttention) on NVIDIA GPUs.

The pieces of a micro-batch lie one after the other in its B x L tokens, so all that the kernel has to know is where
each begins (`piece_bounds`, made on the host). It computes only the blocks within pieces, where a mask of (B, 1, L, L)
makes the other kernels compute whole rows. It knows neither fp32 nor dropout of attention weights: `varlen_available`
says where it can stand in for `encoder.attention`. Letters: B rows, L tokens, N pieces, D size of a head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pieces:
    """Who attends to whom in packed rows: each piece to itself. `bounds` as `piece_bounds` makes them."""

    bounds: Tensor  # (N + 1,) int32
    longest: int  # no piece has more tokens


def piece_bounds(piece_ids: Tensor) -> Tensor:
    """Where the pieces of packed rows begin: piece ids (B, L), on the host -> (N + 1,) int32 offsets into B * L tokens.

    Padding (piece 0) counts as a piece of its own. N is a fixed number for a shape, so that the step keeps one graph:
    a piece per 32 tokens and one a row, doubled until all pieces have room, which only rows of very short documents
    need. The pieces left over are empty ones at the end.
    """
    assert piece_ids.device.type == "cpu", "the bounds are made before the rows go to the device"
    rows, length = piece_ids.shape
    begins = torch.ones_like(piece_ids, dtype=torch.bool)
    begins[:, 1:] = piece_ids[:, 1:] != piece_ids[:, :-1]
    offsets = begins.flatten().nonzero().squeeze(1)
    room = rows * (1 + length // 32)
    while room < len(offsets):
        room *= 2
    bounds = torch.full((room + 1,), rows * length, dtype=torch.int32)
    bounds[: len(offsets)] = offsets
    return bounds


def varlen_attention(query: Tensor, key: Tensor, value: Tensor, pieces: Pieces) -> Tensor:
    """softmax(query key^T / sqrt(D)) value within each piece: three times (B * L, heads, D) -> (B * L, heads, D)."""
    from torch.nn.attention.varlen import varlen_attn  # here: its import takes 2 s, and on a CPU nobody calls it

    attended = varlen_attn(query, key, value, pieces.bounds, pieces.bounds, pieces.longest, pieces.longest)
    assert isinstance(attended, Tensor)  # it returns more only when asked
    return attended


def varlen_available(device: torch.device, precision: str, head_sizes: Iterable[int], attention_dropout: float) -> bool:
    """Whether `varlen_attention` can do the attention of these networks in training.

    The kernel is FlashAttention 2: NVIDIA's Ampere or newer, bf16 or fp16, heads of up to 256 in multiples of 8, no
    dropout of attention weights (torch.nn.attention.varlen hands it a constant 0).
    """
    return (
        device.type == "cuda"
        and torch.version.cuda is not None  # AMD's devices are called cuda too
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and precision in ("bf16", "fp16")
        and attention_dropout == 0
        and all(size % 8 == 0 and size <= 256 for size in head_sizes)
    )
