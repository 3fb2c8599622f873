"""Stands in for Intel's package: where it is asked for the device "hpu", it takes the CPU.

torch knows the name hpu itself, but a Python package cannot give that device memory, as it can with PrivateUse1.
"""

import os
import types

import torch
from torch.overrides import TorchFunctionMode

LARGE = 8192  # the matrices with which a run measures an accelerator, and which would keep a CPU busy for a minute
SAID = os.environ.get("FAKE_HPU_LOG", os.devnull)


def say(line: str) -> None:
    with open(SAID, "a") as file:
        file.write(line + "\n")


def on_cpu(x):
    if isinstance(x, torch.device) and x.type == "hpu":
        return torch.device("cpu")
    return x


class TakeCPU(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.randn and args[:1] == (LARGE,):
            args = (2, 2)
        return function(*map(on_cpu, args), **{name: on_cpu(x) for name, x in (kwargs or {}).items()})


say(f"lazy mode {os.environ.get('PT_HPU_LAZY_MODE')}, local rank {os.environ.get('LOCAL_RANK')}")
hpu = types.ModuleType("hpu")
hpu.is_available = lambda: True
hpu.device_count = lambda: 8
hpu.synchronize = lambda device=None: None
hpu.get_device_name = lambda device=None: "GAUDI9"
hpu.max_memory_allocated = lambda device=None: 7 << 30
torch._register_device_module("hpu", hpu)

TakeCPU().__enter__()
