"""The paths of attention against the naive formula: masks, full rows, and the bounds of the variable-length kernel.

The kernel itself runs on a GPU alone (benchmarks/gpu.py, part parity); here a loop with its signature stands in for it.
"""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from stores import make_store, random_documents
from test_pretrain import SHAPE, config_for
from test_rtd import random_batch

import electra.pretrain
from electra.config import ModelConfig, ObjectiveConfig
from electra.encoder import additive, attention, block_mask
from electra.log import read_metrics
from electra.objectives import make_model
from electra.pretrain import pretrain
from electra.rtd import RTDBatch
from electra.varlen import Pieces, piece_bounds, varlen_attention, varlen_available

NO_DROPOUT = ModelConfig(
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=64,
    embedding_size=16,
    generator_width=0.5,
    max_positions=64,
    dropout=0.0,
    attention_dropout=0.0,
)
PIECES = torch.tensor(
    [
        [1] * 24,
        [1] * 9 + [2] * 3 + [3] * 12,
        [1] * 20 + [0] * 4,
    ]
)


def naive(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The paper's formula for one piece: (heads, L, D) -> (heads, L, D)."""
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    return torch.softmax(scores, -1) @ value


def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k):
    """torch.nn.attention.varlen.varlen_attn as a loop, as strict as the kernel about what comes in."""
    assert query.shape == key.shape == value.shape and query.dim() == 3 and query.stride(-1) == 1
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and cu_seq_q.tolist() == cu_seq_k.tolist()
    bounds = cu_seq_q.tolist()
    assert bounds[0] == 0 and bounds[-1] == len(query)
    parts = []
    for begin, end in itertools.pairwise(bounds):
        assert 0 <= end - begin <= max_q == max_k
        parts.append(naive(*(x[begin:end].transpose(0, 1) for x in (query, key, value))).transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def kernel(monkeypatch):
    import torch.nn.attention.varlen

    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", varlen_attn)


def with_pieces(pieces: torch.Tensor) -> RTDBatch:
    return dataclasses.replace(random_batch(100, B=len(pieces)), piece_ids=pieces)


def test_every_path_is_the_naive_formula(kernel):
    """Values and gradients, fp32; rows of one full piece, of three pieces, of one piece and padding."""
    qkv = torch.randn(3, 24, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(3, 24, 4, 8)
    for row, piece in itertools.product(range(3), range(4)):
        if (where := PIECES[row] == piece).any():
            expected[row, where] = naive(*qkv[row, where].permute(1, 2, 0, 3)).transpose(0, 1)

    upstream = torch.randn_like(expected)
    bias = additive(block_mask(PIECES), qkv)

    def by_bias(x, function):
        return function(*x.permute(2, 0, 3, 1, 4).unbind(0), bias).transpose(1, 2)

    paths = {
        "written out": lambda x: by_bias(x, lambda q, k, v, bias: attention(q, k, v, bias, 0.0)),
        "fused, with a bias": lambda x: by_bias(x, F.scaled_dot_product_attention),
        "bounds": lambda x: varlen_attention(*x.flatten(0, 1).unbind(1), Pieces(piece_bounds(PIECES), 24)).unflatten(
            0, (3, 24)
        ),
    }
    gradients = {}
    for name, path in paths.items():
        given = qkv.clone().requires_grad_()
        out = path(given)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5, msg=name)
        (gradients[name],) = torch.autograd.grad(out, given, upstream)
        torch.testing.assert_close(gradients[name], gradients["written out"], rtol=1e-5, atol=1e-5, msg=name)

    full = qkv[:1].permute(2, 0, 3, 1, 4).unbind(0)  # the first row needs no mask
    for function in (lambda *x: attention(*x, None, 0.0), F.scaled_dot_product_attention):
        torch.testing.assert_close(function(*full).transpose(1, 2), expected[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("objective", ["electra", "masked-lm"])
def test_bounds_train_like_the_mask(kernel, objective):
    """Loss and gradients of both networks on packed and padded rows."""
    torch.manual_seed(0)
    model = make_model(NO_DROPOUT, ObjectiveConfig(objective=objective), 100)
    batch = with_pieces(PIECES)
    totals = {"predictions": 12.0, "tokens": 68.0}
    results = []
    for varlen in (False, True):
        micro_batch = batch.part(slice(0, 3), varlen=varlen)
        assert (micro_batch.bounds is not None) == varlen
        model.zero_grad()
        loss = model(micro_batch, totals)[0]
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for masked, bounded in zip(*results, strict=True):
        torch.testing.assert_close(bounded, masked, rtol=1e-5, atol=1e-5)


def test_full_rows_need_no_mask_and_change_no_bit():
    batch = with_pieces(PIECES)
    assert batch.part(slice(0, 1)).full_rows
    assert not batch.part(slice(0, 2)).full_rows and not batch.part(slice(2, 3)).full_rows
    model = make_model(NO_DROPOUT, ObjectiveConfig(), 100)
    bits = []
    for full in (True, False):
        part = dataclasses.replace(batch.part(slice(0, 1)), full_rows=full)
        assert (part.attention_mask() is None) == full
        loss = model(part, {"predictions": 4.0, "tokens": 24.0})[0]
        bits.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    assert all(torch.equal(one, other) for one, other in zip(*bits, strict=True))


def test_bounds_have_one_length_and_begin_where_a_piece_does():
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        cuts = torch.rand(16, 128, generator=draw) < 0.02
        pieces = cuts.cumsum(1) + 1
        bounds = piece_bounds(pieces)
        assert bounds.shape == (16 * 5 + 1,) and bounds.dtype == torch.int32
        expected = [r * 128 + c for r in range(16) for c in range(128) if c == 0 or pieces[r, c] != pieces[r, c - 1]]
        assert bounds.tolist() == expected + [16 * 128] * (81 - len(expected))
    every_token = torch.arange(64).expand(2, 64)  # no row has more pieces: the length doubles until they fit
    assert piece_bounds(every_token).tolist() == [*range(128), *[128] * (192 - 128 + 1)]


def test_a_run_by_bounds_has_the_curve_of_a_run_by_masks(kernel, tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", random_documents(40)).folder
    shape = dataclasses.replace(SHAPE, dropout=0.0, attention_dropout=0.0)

    def losses(out: Path) -> list[float]:
        pretrain(dataclasses.replace(config_for(store, out, steps=4, log_every=1), model=shape), say=lambda _: None)
        return [row["loss"] for row in read_metrics(out, "train")]

    masked = losses(tmp_path / "masked")
    monkeypatch.setattr(electra.pretrain, "varlen_available", lambda *_: True)
    assert losses(tmp_path / "bounded") == pytest.approx(masked, abs=1e-4) and len(masked) == 4


@pytest.mark.parametrize(
    ("changed", "available"),
    [
        ({}, True),
        ({"precision": "fp16"}, True),
        ({"precision": "fp32"}, False),
        ({"capability": (7, 5)}, False),
        ({"attention_dropout": 0.1}, False),
        ({"head_sizes": [64, 20]}, False),
        ({"head_sizes": [512]}, False),
        ({"device": "cpu"}, False),
    ],
)
def test_where_the_kernel_is_taken(monkeypatch, changed, available):
    case = {
        "device": "cuda", "precision": "bf16", "head_sizes": [64, 64], "attention_dropout": 0.0, "capability": (9, 0)
    } | changed  # fmt: skip
    capability = case.pop("capability")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert varlen_available(torch.device(case.pop("device")), **case) is available
