"""`electra doctor`: what this machine is and what a run on it would get: versions, device, precisions, disk, speed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import torch

from electra import __version__
from electra.announcement import flops_per_token
from electra.config import PretrainConfig
from electra.devices import choose_device, choose_precision
from electra.presets import electra_small
from electra.rtd import ReplacedTokenDetection, RTDBatch
from electra.runtime import Runtime, matmul_flops

PACKAGES = ("torch", "tokenizers", "numpy", "safetensors", "transformers", "pyarrow", "zstandard")


def doctor(folder: Path) -> None:
    """Print the findings; takes about half a minute on a CPU."""
    print(f"electra       {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"packages      {', '.join(_version(name) for name in PACKAGES)}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(f"memory        {memory:.0f} GiB, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no CUDA device found"
    print(f"device        {device} ({name})")
    chosen, why = choose_precision("auto", device)
    for precision in ("fp32", "bf16"):
        speed = matmul_flops(device, precision, seconds=1.0)
        note = f"  <- --precision auto takes this: {why}" if precision == chosen else ""
        print(f"{precision:13} {speed / 1e9:,.0f} GFLOP/s in a matrix product{note}")
    free = shutil.disk_usage(folder).free / 2**30
    print(f"disk          {folder.resolve()}: {free:,.0f} GiB free, writes {_write_speed(folder):,.0f} MB/s")
    config = electra_small()
    for precision in ("fp32", "bf16"):
        tokens = _training_speed(config, Runtime(device, precision, ""))
        flops = flops_per_token(config, 30_522) * tokens
        print(
            f"electra-small {precision}: {tokens:,.0f} tokens/s at 16 x 128 = {flops / 1e9:,.0f} GFLOP/s; "
            f"1 M steps of the paper's 128 rows would take {1e6 * 128 * 128 / tokens / 86_400:,.1f} days"
        )


def _version(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name} not installed"


def _write_speed(folder: Path, megabytes: int = 64) -> float:
    block = os.urandom(2**20)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        begin = time.perf_counter()
        for _ in range(megabytes):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return megabytes / (time.perf_counter() - begin)


def _training_speed(config: PretrainConfig, runtime: Runtime, rows: int = 16, vocab_size: int = 30_522) -> float:
    """Tokens/s of forward and backward passes on random rows: the best of a few, the first left out."""
    seq_len, slots = config.rows.seq_len, config.objective.max_predictions(config.rows.seq_len)
    model = ReplacedTokenDetection(config.model, config.objective, vocab_size).to(runtime.device)
    ids = torch.randint(5, vocab_size, (rows, seq_len))
    positions = torch.rand(rows, seq_len).topk(slots).indices
    batch = RTDBatch(
        input_ids=ids,
        masked_input_ids=ids,
        segment_ids=torch.zeros_like(ids),
        position_ids=torch.arange(seq_len).expand(rows, seq_len),
        piece_ids=torch.ones_like(ids),
        positions=positions,
        weights=torch.ones(rows, slots),
        token_ids=ids.gather(1, positions),
        uniforms=torch.rand(rows, slots),
    ).to(runtime.device)
    seconds = []
    for _ in range(4):
        begin = time.perf_counter()
        with runtime.autocast():
            loss, _ = model(batch, {"predictions": rows * slots, "tokens": rows * seq_len})
        loss.backward()
        float(loss.detach())  # waits for the device
        seconds.append(time.perf_counter() - begin)
    return rows * seq_len / min(seconds[1:])
