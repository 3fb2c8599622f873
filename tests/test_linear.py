"""The dense layer against torch's own: values, gradients, and where it must not take oneDNN's way."""

import pytest
import torch
from torch import nn

from electra import linear
from electra.linear import Linear, onednn_available


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40,), (3, 7, 40), (1, 1, 40)])
def test_equals_torch(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = Linear(40, 24, bias=bias), nn.Linear(40, 24, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(*shape)
    results = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        out.square().sum().backward()
        results.append([out, leaf.grad, *(parameter.grad for parameter in layer.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_transposed_input_and_frozen_weights() -> None:
    torch.manual_seed(0)
    layer = Linear(6, 4).requires_grad_(False)
    x = torch.randn(6, 5).t().requires_grad_()
    out = layer(x)
    out.sum().backward()
    torch.testing.assert_close(out, nn.functional.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(5, 6))
    assert layer.weight.grad is None


def test_it_can_be_traced() -> None:
    layer = Linear(6, 4)
    traced = torch.jit.trace(layer, torch.ones(2, 6))
    torch.testing.assert_close(traced(torch.ones(5, 6)), layer(torch.ones(5, 6)))


def test_other_types_go_torchs_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("oneDNN's product was called")

    onednn_available()  # asks the product itself, once
    monkeypatch.setattr(linear, "_product", refuse)
    layer = Linear(8, 8)
    assert layer.double()(torch.ones(2, 8, dtype=torch.float64)).dtype == torch.float64
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(2, 8)).dtype == torch.bfloat16
    assert layer.to("meta")(torch.ones(2, 8, device="meta")).shape == (2, 8)
    empty = Linear(8, 8)(torch.ones(0, 8))
    assert empty.shape == (0, 8)
    if onednn_available():
        with pytest.raises(AssertionError, match="was called"):
            Linear(8, 8)(torch.ones(2, 8))
