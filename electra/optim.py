"""Optimizers and parameter groups.

AdamW is written here because the original has no bias correction, which torch.optim.AdamW cannot do; LAMB (You et al.
2020, algorithm 2) because torch has none; Muon is torch's own. All keep their state from the first moment on, so that a
checkpoint has one shape at any step, and none of it depends on the number of processes. A parameter group's `lr_scale`
multiplies the scheduled rate (layer-wise decay); the schedules themselves stand in schedules.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from electra.config import OptimizerConfig

Groups = list[dict[str, Any]]

UNCORRECTED_STEP = 1e9
"""A step at which beta^t is 0 in double precision, for betas up to 0.999999."""


class AdamW(torch.optim.Optimizer):
    """AdamW with or without bias correction (Google's model/optimization.py: without).

        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
        p -= lr (m / (sqrt(v) + epsilon) + weight_decay p)

    With correction m and v are divided by (1 - beta^t) as in torch.optim.AdamW. On a CPU torch's fused kernel does it
    in one pass over memory.
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
        _begin_moments(self)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not params:
                continue
            if params[0].device.type == "cpu" and type(params[0].detach()) is Tensor:  # not a shard
                self._step_fused(params, group["lr"], group["weight_decay"])
                continue
            means, denominators, correction = _advance_moments(self, params)
            lr = group["lr"]
            # Decay of the weights as they were before the step, as the original adds it to the update.
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
            torch._foreach_addcdiv_(params, means, denominators, -lr / correction)

    def _step_fused(self, params: list[Tensor], lr: float, weight_decay: float) -> None:
        steps = [self.state[parameter]["steps"] for parameter in params]
        torch._foreach_add_(steps, 1)
        # At a late step nothing is left to correct.
        shown = steps if self.bias_correction else [torch.full((), UNCORRECTED_STEP)] * len(params)
        torch._fused_adamw_(
            params,
            [parameter.grad for parameter in params if parameter.grad is not None],  # all have one
            [self.state[parameter]["exp_avg"] for parameter in params],
            [self.state[parameter]["exp_avg_sq"] for parameter in params],
            [],
            shown,
            amsgrad=False,
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=weight_decay,
            eps=self.epsilon,
            maximize=False,
        )


class LAMB(torch.optim.Optimizer):
    """LAMB (You et al. 2020, algorithm 2) as tensorflow_addons has it and NVIDIA's TensorFlow 2 ELECTRA runs it.

        u = m / (sqrt(v) + epsilon) + weight_decay p        m, v as in AdamW
        p -= lr (|p| / |u|) u                               the ratio is 1 where one of the norms is 0

    A group with `adapt` False takes the ratio as 1. `pieces` says how many tensors of the original each parameter of a
    group holds, one after the other along its first dimension: each gets a ratio of its own. Of parameters sharded over
    processes each process sums the squares of what it has, wherever a shard ends.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-6,
        bias_correction: bool = True,
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "lr_scale": 1.0, "adapt": True, "pieces": 1})
        self.betas, self.epsilon, self.bias_correction = betas, epsilon, bias_correction
        _begin_moments(self)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not params:
                continue
            means, denominators, correction = _advance_moments(self, params)
            updates = torch._foreach_div(means, denominators)
            torch._foreach_div_(updates, correction)
            if group["weight_decay"]:
                torch._foreach_add_(updates, params, alpha=group["weight_decay"])
            if group["adapt"]:
                weights, pieces = _pieces(params, group["pieces"]), _pieces(updates, group["pieces"])
                above, below = _norms(weights + pieces, params[0]).chunk(2)
                ratios = torch.where((above > 0) & (below > 0), above / below, 1.0)
                torch._foreach_mul_(pieces, list(ratios.unbind()))
            torch._foreach_add_(params, updates, alpha=-group["lr"])


def _pieces(tensors: Sequence[Any], count: int) -> list[Tensor]:
    """Views of `count` equal parts of each tensor; of a sharded one, what this process has of them: maybe no row."""
    pieces: list[Tensor] = []
    for tensor in tensors:
        local, first, rows = tensor, 0, len(tensor) // count
        if _is_shard(tensor):  # of the first dimension, as torch.chunk cuts it
            mesh = tensor.device_mesh
            local, first = tensor.to_local(), mesh.get_local_rank() * -(-len(tensor) // mesh.size())
        bounds = [max(0, rows * piece - first) for piece in range(count + 1)]
        pieces += [local[begin:end] for begin, end in itertools.pairwise(bounds)]
    return pieces


def _norms(pieces: list[Tensor], like: Any) -> Tensor:
    """(number of pieces,) 2-norms of the pieces of parameters such as `like`, over all processes that share them."""
    norms = torch.stack(torch._foreach_norm(pieces))
    if not _is_shard(like):
        return norms
    squares = norms.square()
    dist.all_reduce(squares, group=like.device_mesh.get_group())
    return squares.sqrt()


def _is_shard(tensor: Any) -> bool:
    return hasattr(tensor, "to_local")  # of DTensor, which takes as long to import as the rest of this module


def _begin_moments(optimizer: AdamW | LAMB) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
                "steps": torch.zeros((), dtype=torch.float32),
            }


def _advance_moments(optimizer: AdamW | LAMB, params: list[Tensor]) -> tuple[list[Tensor], list[Tensor], float]:
    """Take the gradients into the moments: returns m, sqrt(v) + epsilon with v corrected, and what to divide m by."""
    beta1, beta2 = optimizer.betas
    grads = [parameter.grad for parameter in params if parameter.grad is not None]  # all have one
    means = [optimizer.state[parameter]["exp_avg"] for parameter in params]
    squares = [optimizer.state[parameter]["exp_avg_sq"] for parameter in params]
    torch._foreach_add_([optimizer.state[parameter]["steps"] for parameter in params], 1)
    torch._foreach_lerp_(means, grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
    denominators = list(torch._foreach_sqrt(squares))
    correction = 1.0
    if optimizer.bias_correction:
        steps = float(optimizer.state[params[0]]["steps"])  # on the CPU: no wait for the device
        torch._foreach_div_(denominators, (1 - beta2**steps) ** 0.5)
        correction = 1 - beta1**steps
    torch._foreach_add_(denominators, optimizer.epsilon)
    return means, denominators, correction


def make_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a pre-training run: [AdamW], [LAMB], or [Muon, AdamW] with Muon on the layers' matrices.

    With `generator_lr_scale` the generator's own parameters have groups of their own; at 0 they want no gradient.
    """
    optimizers = _make_optimizers(model, config)
    if config.generator_lr_scale != 1:
        _scale_generator(model, optimizers, config.generator_lr_scale)
    return optimizers


def _scale_generator(model: nn.Module, optimizers: list[torch.optim.Optimizer], scale: float) -> None:
    """Move what the generator does not share to groups with `scale` times the learning rate, or freeze it at 0."""
    own = {parameter for name, parameter in model.named_parameters() if name.startswith("generator")}
    for optimizer in optimizers:
        for group in list(optimizer.param_groups):
            scaled = [parameter for parameter in group["params"] if parameter in own]
            group["params"] = [parameter for parameter in group["params"] if parameter not in own]
            optimizer.param_groups.append({**group, "params": scaled, "lr_scale": group["lr_scale"] * scale})
    if scale == 0:
        for parameter in own:
            parameter.requires_grad_(False)


def _make_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    if config.optimizer == "lamb":
        groups = lamb_groups(model.named_parameters(), config.weight_decay, config.skip_adaptive)
        betas = (config.beta1, config.beta2)
        return [LAMB(groups, betas=betas, epsilon=config.epsilon, bias_correction=config.bias_correction)]
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
        (exempt if _is_bias_or_norm(name) else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "lr_scale": lr_scale},
        {"params": exempt, "weight_decay": 0.0, "lr_scale": lr_scale},
    ]
    return [group for group in groups if group["params"]]


def lamb_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float, skip_adaptive: bool = False) -> Groups:
    """Groups for LAMB: as `decay_groups`, with the layers' fused query, key and value apart.

    They are three tensors in the original, and the trust ratio is one a tensor. With `skip_adaptive` biases and
    LayerNorms have none.
    """
    groups: dict[tuple[bool, int], dict[str, Any]] = {}
    for name, parameter in named:
        exempt, pieces = _is_bias_or_norm(name), 3 if ".qkv." in name else 1
        settings = {
            "params": [],
            "weight_decay": 0.0 if exempt else weight_decay,
            "adapt": not (exempt and skip_adaptive),
            "pieces": pieces,
        }
        groups.setdefault((exempt, pieces), settings)["params"].append(parameter)
    return list(groups.values())


def _is_bias_or_norm(name: str) -> bool:
    return name.endswith("bias") or "norm." in name


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


def set_learning_rate(optimizers: list[torch.optim.Optimizer], learning_rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]


def restart(optimizers: list[torch.optim.Optimizer], *, moments: bool) -> None:
    """Set the count of steps of Adam's bias correction to zero, and with `moments` the moments and momenta too."""
    for optimizer in optimizers:
        for values in optimizer.state.values():
            for name, value in values.items():
                if moments or name == "steps":
                    value.zero_()


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
