"""Optimizers, schedules and parameter groups.

AdamW is written here because the original has no bias correction, which torch.optim.AdamW cannot do; Muon is
torch's own. Both keep their state from the first moment on, so that a checkpoint has one shape at any step.
A parameter group's `lr_scale` multiplies the scheduled rate (layer-wise decay).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from electra.config import OptimizerConfig

Groups = list[dict[str, Any]]


class AdamW(torch.optim.Optimizer):
    """AdamW with or without bias correction (Google's model/optimization.py: without).

        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
        p -= lr (m / (sqrt(v) + epsilon) + weight_decay p)

    With correction m and v are divided by (1 - beta^t) as in torch.optim.AdamW.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-6,
        bias_correction: bool = False,
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "lr_scale": 1.0})
        self.betas, self.epsilon, self.bias_correction = betas, epsilon, bias_correction
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                    "steps": torch.zeros((), dtype=torch.float32),
                }

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        beta1, beta2 = self.betas
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not params:
                continue
            grads = [parameter.grad for parameter in params]
            means = [self.state[parameter]["exp_avg"] for parameter in params]
            squares = [self.state[parameter]["exp_avg_sq"] for parameter in params]
            torch._foreach_add_([self.state[parameter]["steps"] for parameter in params], 1)
            torch._foreach_lerp_(means, grads, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
            lr = group["lr"]
            denominators = torch._foreach_sqrt(squares)
            step_size = lr
            if self.bias_correction:
                steps = float(self.state[params[0]]["steps"])
                torch._foreach_div_(denominators, (1 - beta2**steps) ** 0.5)
                step_size = lr / (1 - beta1**steps)
            torch._foreach_add_(denominators, self.epsilon)
            # Decay of the weights as they were before the step, as the original adds it to the update.
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
            torch._foreach_addcdiv_(params, means, denominators, -step_size)


def make_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """The optimizer of a pre-training run: [AdamW], or [Muon, AdamW] with Muon on the matrices of the layers."""
    muon: list[nn.Parameter] = []
    rest: list[tuple[str, nn.Parameter]] = []
    for name, parameter in model.named_parameters():
        if config.optimizer == "muon" and parameter.ndim == 2 and ".layers." in name:
            muon.append(parameter)
        else:
            rest.append((name, parameter))
    optimizers: list[torch.optim.Optimizer] = []
    if muon:
        # match_rms_adamw scales the orthogonal update to AdamW's usual size, so that one decay suits both
        # (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
        optimizer = torch.optim.Muon(
            muon, lr=config.muon_learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        for matrix in muon:
            optimizer.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        optimizer.param_groups[0]["lr_scale"] = config.muon_learning_rate / config.learning_rate
        optimizers.append(optimizer)
    optimizers.append(
        AdamW(
            decay_groups(rest, config.weight_decay),
            betas=(config.beta1, config.beta2),
            epsilon=config.epsilon,
            bias_correction=config.bias_correction,
        )
    )
    return optimizers


def decay_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float, lr_scale: float = 1.0) -> Groups:
    """Two groups: weights decay; biases and LayerNorms do not. Embeddings decay, as in the original."""
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in named:
        (exempt if name.endswith("bias") or "norm." in name else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "lr_scale": lr_scale},
        {"params": exempt, "weight_decay": 0.0, "lr_scale": lr_scale},
    ]
    return [group for group in groups if group["params"]]


def layer_multipliers(num_layers: int, decay: float, google: bool = False) -> dict[str, float]:
    """Learning-rate multipliers of fine-tuning: "embeddings", "layer_0" ... "head".

    The top layer has decay^1, each one below it a power more, embeddings decay^(layers + 1), heads 1. Google's code
    counts one power more for all but the heads (google-research/electra issue #51): `google` reproduces that.
    """
    extra = 1 if google else 0
    multipliers = {"embeddings": decay ** (num_layers + 1 + extra)}
    for layer in range(num_layers):
        multipliers[f"layer_{layer}"] = decay ** (num_layers - layer + extra)
    multipliers["head"] = 1.0
    return multipliers


def layer_decay_groups(
    encoder: nn.Module, head: nn.Module, *, decay: float, google: bool = False, weight_decay: float = 0.0
) -> Groups:
    """Parameter groups of an `Encoder` and a head with layer-wise decay of the learning rate.

    The projection between embeddings and layers goes with the embeddings, as in Google's code.
    """
    layers: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in encoder.named_parameters():
        parts = name.split(".")
        place = f"layer_{parts[parts.index('layers') + 1]}" if "layers" in parts else "embeddings"
        layers.setdefault(place, []).append((name, parameter))
    num_layers = sum(place.startswith("layer_") for place in layers)
    multipliers = layer_multipliers(num_layers, decay, google)
    groups = decay_groups(head.named_parameters(), weight_decay)
    for place, named in layers.items():
        groups += decay_groups(named, weight_decay, multipliers[place])
    return groups


def warmup_decay(step: int, *, peak: float, steps: int, warmup_steps: int, power: float = 1.0) -> float:
    """Google's schedule: polynomial decay to 0 times linear warm-up; step counts from 0, where the rate is 0."""
    decayed = peak * max(0.0, 1.0 - step / steps) ** power
    return decayed * min(1.0, step / warmup_steps) if warmup_steps else decayed


def set_learning_rate(optimizers: list[torch.optim.Optimizer], learning_rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]


def global_norm(model: nn.Module) -> Tensor:
    """The 2-norm of all gradients together, a 0-dim tensor."""
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))


def scale_gradients(model: nn.Module, factor: Tensor) -> None:
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    torch._foreach_mul_(grads, factor)


def named_state(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimizers' tensors by parameter name, e.g. 'body.layers.0.up.weight.exp_avg'; loading writes into them."""
    states: dict[str, Tensor] = {}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                states[f"{names[parameter]}.{key}"] = value
    return states
