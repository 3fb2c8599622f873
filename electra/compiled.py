"""torch.compile of the training step: when, and around what.

The graph of a step is a micro-batch's: its loss, sums and gradient; the optimizers stay outside, where they work on
lists of tensors already. `compile_forward` replaces the `forward` of a model, or of each of its layers, so that

* hooks stay outside of the graph and names of parameters stay as they are;
* DistributedDataParallel, wrapped around the model afterwards, still splits the backward pass by its buckets and so
  overlaps their all-reduce (torch's DDPOptimizer);
* FSDP, whose hooks gather the weights of one layer at a time, finds them between the layers: there `per_layer`.

Evaluation calls `run`, not `forward`, and is not compiled. A graph is compiled once for each shape of micro-batch, and
once more when rows that are all one full piece come and go; seeds, steps and counts are no part of it.
"""

from __future__ import annotations

import shutil
from typing import Literal

import torch
from torch import nn

from electra.encoder import Layer

BACKENDS = {"hpu": "hpu_backend", "tpu": "tpu"}  # of torch.compile, where it is not inductor: the makers' own


def choose_compile(
    choice: Literal["auto", "on", "off"], cuda_graphs: bool, device: torch.device, per_layer: bool = False
) -> tuple[bool, str]:
    """Whether the step is compiled, by `loop.compile`, and the reason.

    Raises ValueError when asked for what this machine cannot do.
    """
    if cuda_graphs and device.type != "cuda":
        raise ValueError(f"loop.cuda_graphs needs an NVIDIA GPU and the device is {device.type}: leave it out")
    if cuda_graphs and per_layer:
        raise ValueError(
            "loop.cuda_graphs records whole steps, and FSDP works between the layers: leave one of them out"
        )
    if choice == "off":
        return False, "asked for"
    if choice == "auto" and device.type not in ("cuda", "hpu", "tpu"):
        return False, f"not by default on {device.type}"
    missing = _missing(device)
    if missing is None:
        return True, "asked for" if choice == "on" else f"the default on {device.type}"
    if choice == "on" or cuda_graphs:
        raise ValueError(f"loop.compile needs {missing}: install it, or set loop.compile to off")
    return False, f"compiling needs {missing}"


def _missing(device: torch.device) -> str | None:
    """What torch.compile needs for this device and does not find."""
    if device.type not in ("cuda", "cpu"):
        return None  # their compilers come with torch's plug-in
    if device.type == "cuda":
        from torch.utils._triton import has_triton  # False, too, where the GPU is older than Triton supports

        if not has_triton():
            return "Triton and a GPU of compute capability 7.0 or newer"
        if not any(map(shutil.which, ("cc", "gcc", "clang"))):
            return "a C compiler, which Triton calls"
        return None
    from torch._inductor.cpp_builder import get_cpp_compiler  # knows the variable CXX as well

    try:
        get_cpp_compiler()
    except Exception:  # it has a class of its own for this, at no public place
        return "a C++ compiler"
    return None


def compile_forward(
    model: nn.Module, device: torch.device, *, per_layer: bool = False, cuda_graphs: bool = False, backend: str = ""
) -> None:
    """Let `model(micro_batch, totals)` run as one compiled graph, or each of its layers with `per_layer`.

    Before DDP or FSDP is wrapped around it. With `cuda_graphs` the graph is recorded once and replayed, which saves the
    launches of its kernels, and each parameter gets a gradient of zeros to add to, which has to stay: a graph writes
    to the same memory at each replay, and a parameter without a gradient of its own would take the graph's. `backend`
    is torch.compile's; empty means the device's.
    """
    options = {
        "fullgraph": True,  # a graph break would be a fault of ours: raise
        "dynamic": False,  # shapes are fixed, and a second one is another network, not a variable
        "backend": backend or BACKENDS.get(device.type, "inductor"),
    }
    if cuda_graphs:
        options["mode"] = "reduce-overhead"
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    for module in [part for part in model.modules() if isinstance(part, Layer)] if per_layer else [model]:
        module.forward = torch.compile(module.forward, **options)  # type: ignore[call-overload]
