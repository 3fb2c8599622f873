"""Optimizers and schedules against torch.optim, Google's values and formulas written out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from electra.config import OptimizerConfig
from electra.encoder import Encoder, EncoderConfig
from electra.optim import (
    LAMB,
    AdamW,
    decay_groups,
    global_norm,
    lamb_groups,
    layer_decay_groups,
    layer_multipliers,
    make_optimizers,
    named_state,
    scale_gradients,
    set_learning_rate,
)
from electra.schedules import make_schedule

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


def naive_lamb(
    weights: dict[str, np.ndarray], grads: list[dict[str, np.ndarray]], rate: float, config: OptimizerConfig
) -> dict[str, np.ndarray]:
    """You et al. 2020, algorithm 2, with phi(x) = x, tensor by tensor in float64; biases and norms do not decay."""
    values = {}
    for name, start in weights.items():
        x, m, v = start.astype("float64"), np.zeros(start.shape), np.zeros(start.shape)
        exempt = name.endswith("bias") or "norm" in name
        for t, grad in enumerate(grads, start=1):
            g = grad[name].astype("float64")
            m = config.beta1 * m + (1 - config.beta1) * g
            v = config.beta2 * v + (1 - config.beta2) * g * g
            mean, square = (m / (1 - config.beta1**t), v / (1 - config.beta2**t)) if config.bias_correction else (m, v)
            update = mean / (np.sqrt(square) + config.epsilon) + (0 if exempt else config.weight_decay) * x
            norms = np.linalg.norm(x), np.linalg.norm(update)
            ratio = norms[0] / norms[1] if all(norms) and not (exempt and config.skip_adaptive) else 1.0
            x = x - rate * ratio * update
        values[name] = x
    return values


@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("skip_adaptive", [True, False])
def test_lamb_is_the_papers_algorithm(bias_correction: bool, skip_adaptive: bool):
    """On an encoder, where query, key and value are one matrix here and three tensors in the formula."""
    torch.manual_seed(0)
    encoder = Encoder(CONFIG)
    config = OptimizerConfig(
        optimizer="lamb", beta1=0.878, beta2=0.974, bias_correction=bias_correction, skip_adaptive=skip_adaptive
    )
    (optimizer,) = make_optimizers(encoder, config)
    set_learning_rate([optimizer], 0.02)

    def pieces(named: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        split = {}
        for name, tensor in named.items():
            for i, piece in enumerate(tensor.detach().numpy().copy().reshape(3 if ".qkv." in name else 1, -1)):
                split[f"{i}.{name}"] = piece
        return split

    start, grads = pieces(dict(encoder.named_parameters())), []
    for _ in range(5):
        for parameter in encoder.parameters():
            parameter.grad = torch.randn_like(parameter)
        grads.append(pieces({name: parameter.grad for name, parameter in encoder.named_parameters()}))
        optimizer.step()
    expected = naive_lamb(start, grads, 0.02, config)
    for name, value in pieces(dict(encoder.named_parameters())).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", ["skip", "all"])
def test_lamb_and_its_schedule_are_those_of_nvidia(case: str):
    """Six steps of tensorflow_addons' LAMB as NVIDIA calls it (fixtures/make_lamb.py), query, key and value fused."""
    with np.load(Path(__file__).parent / "fixtures" / "lamb.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    theirs = {
        "layer.qkv.weight": ("query/kernel", "key/kernel", "value/kernel"),
        "layer.qkv.bias": ("query/bias", "key/bias", "value/bias"),
        "layer.out.weight": ("dense/kernel",),
        "layer.out.bias": ("dense/bias",),
        "layer.norm.weight": ("LayerNorm/gamma",),
        "layer.norm.bias": ("LayerNorm/beta",),
    }

    def fused(kind: str, name: str) -> torch.Tensor:
        return torch.cat([arrays[f"{kind}|{part}"] for part in theirs[name]], -1)

    def turned(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.mT.contiguous() if tensor.ndim == 2 else tensor  # TensorFlow's kernels are (in, out)

    config = OptimizerConfig(
        optimizer="lamb",
        learning_rate=0.05,
        schedule="polynomial",
        warmup_steps=2,
        decay_power=0.5,
        end_learning_rate=0.01,
        beta1=0.878,
        beta2=0.974,
        bias_correction=True,
        skip_adaptive=case == "skip",
    )
    named = {name: nn.Parameter(turned(fused("start", name))) for name in theirs}
    optimizer = LAMB(lamb_groups(named.items(), 0.01, config.skip_adaptive), betas=(0.878, 0.974))
    rate = make_schedule(config, 6)
    for step in range(6):
        assert rate(step) == pytest.approx(float(arrays["rate"][step]), rel=1e-6)
        set_learning_rate([optimizer], rate(step))
        for name, parameter in named.items():
            parameter.grad = turned(fused("grad", name)[step])
        optimizer.step()
        for name, parameter in named.items():
            expected = turned(fused(case, name)[step])
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-6)


def test_lamb_without_weights_or_gradient_takes_the_ratio_as_one():
    zero, still = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = LAMB([{"params": [zero, still], "lr": 0.1}], epsilon=1e-6)
    zero.grad, still.grad = torch.tensor([1.0, -2.0, 4.0]), torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(zero.detach(), torch.tensor([-0.1, 0.1, -0.1]))
    assert still.tolist() == [1.0, 2.0]


def test_lamb_has_one_optimizer_with_each_parameter_once():
    encoder = Encoder(CONFIG)
    (optimizer,) = make_optimizers(encoder, OptimizerConfig(optimizer="lamb", skip_adaptive=True))
    names = {parameter: name for name, parameter in encoder.named_parameters()}
    taken = [names[p] for group in optimizer.param_groups for p in group["params"]]
    assert sorted(taken) == sorted(names.values())
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[parameter]
            exempt = name.endswith("bias") or "norm" in name
            assert group["weight_decay"] == (0 if exempt else 0.01) and group["adapt"] is not exempt
            assert group["pieces"] == (3 if ".qkv." in name else 1)


def test_a_trust_ratio_without_lamb_is_refused():
    with pytest.raises(ValueError, match=r"optimizer.skip_adaptive has no meaning when optimizer.optimizer is adamw"):
        OptimizerConfig(skip_adaptive=True)


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
    for optimizer in ("adamw", "lamb", "muon"):
        encoder = Encoder(CONFIG)
        optimizers = make_optimizers(encoder, OptimizerConfig(optimizer=optimizer))
        before = set(named_state(encoder, optimizers))
        for parameter in encoder.parameters():
            parameter.grad = torch.ones_like(parameter)
        for each in optimizers:
            each.step()
        assert set(named_state(encoder, optimizers)) == before


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "muon"])
def test_a_run_goes_on_from_its_state_to_the_same_bits(optimizer: str):
    config = OptimizerConfig(optimizer=optimizer, bias_correction=True)

    def advance(encoder: Encoder, optimizers: list[torch.optim.Optimizer], first: int, last: int) -> None:
        set_learning_rate(optimizers, 1e-2)
        for step in range(first, last):
            draw = torch.Generator().manual_seed(step)
            for parameter in encoder.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=draw)
            for each in optimizers:
                each.step()

    whole, stopped, resumed = Encoder(CONFIG), Encoder(CONFIG), Encoder(CONFIG)
    stopped.load_state_dict(whole.state_dict())
    advance(whole, make_optimizers(whole, config), 0, 6)
    before = make_optimizers(stopped, config)
    advance(stopped, before, 0, 3)
    resumed.load_state_dict(stopped.state_dict())
    after = make_optimizers(resumed, config)
    saved = named_state(stopped, before)
    for name, tensor in named_state(resumed, after).items():
        tensor.copy_(saved[name])
    advance(resumed, after, 3, 6)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


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
