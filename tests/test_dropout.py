"""Dropout on a CPU against torch's: what it drops, what it keeps, its gradient, its randomness."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from electra.dropout import LEVELS, Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.013])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_share_scale_and_gradient(p, dtype):
    torch.manual_seed(0)
    x = torch.full((300, 1001), 2.0, dtype=dtype, requires_grad=True)  # no multiple of four values
    y = dropout(x, p)
    dropped = int((y == 0).sum())
    assert stats.binomtest(dropped, x.numel(), round(p * LEVELS) / LEVELS).pvalue > 1e-3
    kept = y[y != 0]
    torch.testing.assert_close(kept.float().mean(), torch.tensor(2 / (1 - p)), rtol=1e-2, atol=0)
    assert y.dtype == dtype and kept.unique().numel() == 1
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient * 2, y)  # 2 is a power of two: exact in bf16 too


def test_values_are_dropped_independently():
    """Neighbours, which share a random number, are dropped as if each had its own: patterns of four."""
    torch.manual_seed(1)
    zeros = (dropout(torch.ones(400_000), 0.25) == 0).view(-1, 4)
    counts = torch.bincount(zeros.long() @ torch.tensor([1, 2, 4, 8]), minlength=16).double()
    dropped = torch.tensor([bin(i).count("1") for i in range(16)])
    expected = 100_000 * 0.25**dropped * 0.75 ** (4 - dropped)
    assert stats.chisquare(counts, expected.double()).pvalue > 1e-3


def test_seed_decides():
    x = torch.randn(33, 7)
    torch.manual_seed(3)
    first = dropout(x, 0.3)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.3))
    assert not torch.equal(first, dropout(x, 0.3))


def test_off_in_evaluation_and_without_a_share():
    x = torch.randn(5)
    module = Dropout(0.5)
    assert module.eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert dropout(x, 1e-6) is x  # less than a level


def test_compiled_dropout_is_torchs():
    x = torch.randn(64)
    compiled = torch.compile(lambda x: dropout(x, 0.5), backend="eager", fullgraph=True)
    torch.manual_seed(0)
    found = compiled(x)
    torch.manual_seed(0)
    assert torch.equal(found, F.dropout(x, 0.5))
