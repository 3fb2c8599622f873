"""One model on several processes, each with its share of the rows: replicated (DDP) or sharded (FSDP2).

    ddp     every process has all weights, gradients and moments; gradients are averaged during the backward pass
    fsdp    every process has its part of them; the weights of a layer are gathered when it runs, forward and backward

Both average the gradients of a step once, while the backward pass of its last micro-batch still runs: the loss of the
loop is a share of the global batch's and is multiplied by the number of processes. Weights, gradients and their sums
are fp32 in both, so that both follow the curve of one process. What a layer is FSDP learns from the model: each member
of an nn.ModuleList is gathered alone, all else (embeddings, heads) with the root. Rajbhandari et al. 2020 (ZeRO, stage
3); torch.distributed.fsdp.fully_shard.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from electra.optim import global_norm
from electra.runtime import Runtime


def shard(model: nn.Module, runtime: Runtime, forward_methods: tuple[str, ...] = ()) -> None:
    """Shard the parameters of `model` over all processes, on the spot; one process keeps them whole.

    Before the optimizers are made, whose moments then are sharded alike. `forward_methods` are further methods that
    use the weights and are called from outside.
    """
    if runtime.world_size == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(runtime.device.type, (runtime.world_size,))
    for part in [part for part in model.modules() if isinstance(part, nn.ModuleList)]:
        for layer in part:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in forward_methods:
        register_fsdp_forward_method(model, name)


def replicate(model: nn.Module, runtime: Runtime) -> nn.Module:
    """What the loop calls: the model itself where it is alone or sharded, else wrapped for DDP."""
    if runtime.world_size == 1 or is_sharded(model):
        return model
    return DistributedDataParallel(model, device_ids=None if runtime.device.index is None else [runtime.device])


def is_sharded(model: nn.Module) -> bool:
    return hasattr(model, "set_requires_gradient_sync")  # of FSDPModule, whose import takes half a second


def accumulating(replica: Any, is_last: bool) -> contextlib.AbstractContextManager[object]:
    """For one micro-batch: gradients stay in this process unless it is the last of the step."""
    if is_sharded(replica):
        replica.set_requires_gradient_sync(is_last)
    elif isinstance(replica, DistributedDataParallel) and not is_last:
        return replica.no_sync()
    return contextlib.nullcontext()


def gradient_norm(model: nn.Module) -> Tensor:
    """The 2-norm of the whole gradient, on every process, wherever its parts are."""
    if not is_sharded(model):
        return global_norm(model)
    grads: list[Any] = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    parts = [gradient.to_local() for gradient in grads]
    square = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(parts))).square()
    dist.all_reduce(square)
    return square.sqrt()


def reshard(model: Any) -> None:
    """After a forward pass that no backward pass follows: let go of the weights that the root keeps for it."""
    if is_sharded(model):
        model.reshard()
