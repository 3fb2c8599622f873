"""Optimizers and schedules against torch.optim, Google's values and formulas written out."""

import json

import pytest
import torch
from torch import nn

from electra.config import OptimizerConfig
from electra.encoder import Encoder, EncoderConfig
from electra.optim import (
    AdamW,
    decay_groups,
    global_norm,
    layer_decay_groups,
    layer_multipliers,
    make_optimizers,
    named_state,
    scale_gradients,
    set_learning_rate,
    warmup_decay,
)

CONFIG = EncoderConfig(50, 8, 16, 2, 2, 32)


def model_pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    other = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    other.load_state_dict(one.state_dict())
    return one, other


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 8) -> None:
    draw = torch.Generator().manual_seed(1)
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(4, 5, generator=draw)).square().sum().backward()
        optimizer.step()


def test_with_bias_correction_it_is_torchs_adamw():
    ours, theirs = model_pair()
    optimizer = AdamW([{"params": list(ours.parameters()), "weight_decay": 0.05, "lr": 1e-2}], bias_correction=True)
    steps(ours, optimizer)
    steps(theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, eps=1e-6, weight_decay=0.05))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_without_bias_correction_it_is_the_formula():
    (weight,) = [nn.Parameter(torch.tensor([1.0, -2.0]))]
    optimizer = AdamW([{"params": [weight], "weight_decay": 0.1, "lr": 0.01}])
    value, m, v = weight.detach().clone().double(), torch.zeros(2).double(), torch.zeros(2).double()
    for gradient in ([0.5, -1.0], [0.1, 3.0], [-2.0, 0.0]):
        weight.grad = torch.tensor(gradient)
        g = torch.tensor(gradient).double()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        value = value - 0.01 * (m / (v.sqrt() + 1e-6) + 0.1 * value)
        optimizer.step()
        torch.testing.assert_close(weight.detach().double(), value, rtol=1e-6, atol=1e-7)


def test_muon_takes_the_matrices_of_the_layers_and_nothing_else():
    encoder = Encoder(CONFIG)
    muon, adamw = make_optimizers(encoder, OptimizerConfig(optimizer="muon"))
    assert isinstance(muon, torch.optim.Muon)
    names = {parameter: name for name, parameter in encoder.named_parameters()}
    taken = {names[p] for group in muon.param_groups for p in group["params"]}
    left = {names[p] for group in adamw.param_groups for p in group["params"]}
    assert taken == {f"body.layers.{i}.{matrix}.weight" for i in range(2) for matrix in ("qkv", "out", "up", "down")}
    assert taken | left == set(names.values()) and not taken & left


def test_muon_has_its_own_learning_rate_under_one_schedule():
    optimizers = make_optimizers(Encoder(CONFIG), OptimizerConfig(optimizer="muon", muon_learning_rate=0.02))
    set_learning_rate(optimizers, 5e-4 / 2)  # half of AdamW's peak
    assert optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)
    assert optimizers[1].param_groups[0]["lr"] == pytest.approx(2.5e-4)


def test_state_has_its_shape_before_the_first_step():
    """A checkpoint of step 0 and one of step 9 have the same names, so either loads into a fresh run."""
    for optimizer in ("adamw", "muon"):
        encoder = Encoder(CONFIG)
        optimizers = make_optimizers(encoder, OptimizerConfig(optimizer=optimizer))
        before = set(named_state(encoder, optimizers))
        for parameter in encoder.parameters():
            parameter.grad = torch.ones_like(parameter)
        for each in optimizers:
            each.step()
        assert set(named_state(encoder, optimizers)) == before


def test_biases_and_norms_do_not_decay():
    encoder = Encoder(CONFIG)
    decayed, exempt = decay_groups(encoder.named_parameters(), 0.01)
    names = {parameter: name for name, parameter in encoder.named_parameters()}
    assert all(names[p].endswith("bias") or "norm" in names[p] for p in exempt["params"])
    assert not any(names[p].endswith("bias") or "norm" in names[p] for p in decayed["params"])
    assert any("embeddings.word" in names[p] for p in decayed["params"])


def test_layer_multipliers_equal_google(golden):
    for key, expected in json.loads((golden / "ft_layer_lr_multipliers.json").read_text()).items():
        layers, decay = (part.split("=")[1] for part in key.split(","))
        ours = layer_multipliers(int(layers), float(decay), google=True)
        assert ours["embeddings"] == pytest.approx(expected["/embeddings/"])
        assert ours["head"] == expected["task_specific/"]
        for layer in range(int(layers)):
            assert ours[f"layer_{layer}"] == pytest.approx(expected[f"encoder/layer_{layer}/"])


def test_corrected_multipliers_start_at_the_top():
    ours = layer_multipliers(3, 0.5)
    assert ours == {"head": 1.0, "layer_2": 0.5, "layer_1": 0.25, "layer_0": 0.125, "embeddings": 0.0625}


def test_each_parameter_is_in_one_layer_group():
    encoder, head = Encoder(CONFIG), nn.Linear(16, 2)
    groups = layer_decay_groups(encoder, head, decay=0.5)
    scales = {p: group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scales) == len([*encoder.parameters(), *head.parameters()])
    assert scales[head.weight] == 1.0
    assert scales[encoder.body.layers[1].up.weight] == 0.5
    assert scales[encoder.body.layers[0].up.weight] == 0.25
    assert scales[encoder.embeddings.word.weight] == scales[encoder.body.project.weight] == 0.125


def test_schedule_is_decay_times_warmup():
    rates = [warmup_decay(step, peak=1.0, steps=10, warmup_steps=4) for step in range(11)]
    assert rates[0] == 0 and rates[10] == 0
    assert rates[2] == pytest.approx(0.8 * 0.5) and rates[6] == pytest.approx(0.4)
    assert warmup_decay(5, peak=2.0, steps=10, warmup_steps=0, power=0.5) == pytest.approx(2 * 0.5**0.5)


def test_clipping_equals_torch():
    ours, theirs = model_pair()
    for model in (ours, theirs):
        model(torch.ones(4, 5)).square().sum().mul(100).backward()
    norm = global_norm(ours)
    scale_gradients(ours, (1.0 / norm).clamp(max=1.0))
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    torch.testing.assert_close(norm, expected)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)
