"""Stands in for Intel's process group: gloo, called hccl."""

import torch.distributed as dist
from habana_frameworks.torch import say


def collectives(store, rank, size, timeout):
    say(f"hccl {rank} of {size}")
    return dist.ProcessGroupGloo(store, rank, size, timeout)


dist.Backend.register_backend("hccl", collectives, devices=["cpu", "hpu"])
