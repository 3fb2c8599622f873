"""The table of devices: CPU as it is, CUDA as torch describes it, the others by stand-ins for their packages."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from electra.config import LoopConfig, OptimizerConfig, PretrainConfig
from electra.devices import (
    DEVICES,
    choose_device,
    choose_precision,
    cpu_has_bf16,
    device_of_process,
    process_group_backend,
    set_matmul_precision,
    sum_dtype,
)

CUDA = torch.device("cuda")

STAND_IN = """
import torch, types
torch.utils.rename_privateuse1_backend("tpu")
torch._register_device_module("tpu", types.SimpleNamespace(is_available=lambda: {present}, device_count=lambda: 4))
"""
GAUDI = """
import torch, types
module = types.ModuleType("hpu")
module.is_available = lambda: {present}
module.device_count, module.chosen = lambda: 8, []
module.set_device = module.chosen.append
torch._register_device_module("hpu", module)
"""


def test_unknown_devices_are_refused():
    for name in ("abacus", "meta", "cpu:x"):
        with pytest.raises(ValueError, match=f"device '{name}' is unknown: use"):
            choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there():
    with pytest.raises(ValueError, match="finds no CUDA device here: use --device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(("name", "package"), [("hpu", "habana_frameworks.torch"), ("tpu", "torch_tpu")])
def test_packages_that_are_not_there(name, package):
    with pytest.raises(ValueError, match=f"'{name}' needs the Python package {package}, which cannot"):
        choose_device(name)


def with_stand_ins(folder, code: str, tpu: bool, hpu: bool) -> str:
    """What a process prints that finds the two packages; torch learns a device once and for all, hence a process."""
    (folder / "torch_tpu.py").write_text(STAND_IN.format(present=tpu))
    gaudi = folder / "habana_frameworks" / "torch" / "distributed"
    gaudi.mkdir(parents=True)
    (gaudi.parent / "__init__.py").write_text(GAUDI.format(present=hpu))
    (gaudi / "hccl.py").write_text("print('hccl')")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{os.getcwd()}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_gaudi_and_tpu(tmp_path):
    said = with_stand_ins(
        tmp_path,
        """
import os, torch
from electra.devices import choose_device, choose_precision, process_group_backend, sum_dtype
from electra.runtime import start
for name in ("hpu", "tpu"):
    device = choose_device(name)
    print(device, process_group_backend(device), sum_dtype(device), *choose_precision("auto", device))
    try:
        choose_precision("fp16", device)
    except ValueError as error:
        print(error)
os.environ |= {"RANK": "3", "WORLD_SIZE": "16", "LOCAL_RANK": "3"}
print(start("auto", "auto").device, torch.hpu.chosen)
os.environ["LOCAL_RANK"] = "8"
try:
    start("hpu", "fp32")
except ValueError as error:
    print(error)
""",
        tpu=True,
        hpu=True,
    )
    refusal = "precision 'fp16' has no meaning on {}, which computes in fp32, bf16: choose one of these, or auto"
    assert said.splitlines() == [
        "hccl",
        "hpu cpu:gloo,hpu:hccl torch.float32 bf16 Gaudi's matrix engine is made for bf16",
        refusal.format("hpu"),
        "tpu cpu:gloo,tpu:tpu_dist torch.float32 bf16 a TPU's matrix units multiply bf16",
        refusal.format("tpu"),
        "hpu []",
        "more processes were started on this machine than its 8 devices: start 8",
    ]


def test_auto_passes_over_what_is_installed_but_not_there(tmp_path):
    code = """
from electra.devices import choose_device
print(choose_device("auto"))
try:
    choose_device("hpu")
except ValueError as error:
    print(error)
"""
    said = with_stand_ins(tmp_path, code, tpu=True, hpu=False)
    assert said.splitlines() == [
        "tpu",
        "device 'hpu' was asked for but torch finds no Gaudi device here: use --device cpu",
    ]


def test_each_process_takes_the_gpu_of_its_number(monkeypatch):
    """All are 0 where srun shows each process one of its own."""
    chosen = []
    for count, rank, expected in ((8, 3, "cuda:3"), (1, 3, "cuda:0")):
        module = SimpleNamespace(device_count=lambda count=count: count, set_device=chosen.append)
        monkeypatch.setattr(torch, "get_device_module", lambda kind, module=module: module)
        assert str(device_of_process(CUDA, rank)) == expected == str(chosen[-1])


def test_mps(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = choose_device("mps")
    assert (sum_dtype(device), process_group_backend(device)) == (torch.float32, "gloo")
    assert choose_precision("auto", device)[0] == "fp32"


def test_precision_has_a_reason():
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) == ("fp32", "asked for")
    chosen, why = choose_precision("auto", cpu)
    assert chosen == ("bf16" if cpu_has_bf16() else "fp32") and "this CPU has" in why
    with pytest.raises(ValueError, match="precision 'tf32' has no meaning on cpu, which computes in fp32, bf16, fp16"):
        choose_precision("tf32", cpu)


@pytest.mark.parametrize(
    ("capability", "has_bf16", "chosen"), [((6, 1), False, "fp32"), ((7, 0), False, "fp16"), ((9, 0), True, "bf16")]
)
def test_what_a_gpu_takes(monkeypatch, capability, has_bf16, chosen):
    """Pascal, V100, H200."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", CUDA)[0] == chosen
    if capability < (8, 0):
        with pytest.raises(ValueError, match="precision 'tf32' needs a GPU of compute"):
            choose_precision("tf32", CUDA)
    else:
        assert choose_precision("tf32", CUDA) == ("tf32", "asked for")


def test_tf32_is_set_and_unset():
    before = torch.get_float32_matmul_precision()
    try:
        for precision, setting in (("tf32", "high"), ("fp32", "highest")):
            set_matmul_precision(precision, CUDA)
            assert torch.get_float32_matmul_precision() == setting
        set_matmul_precision("tf32", torch.device("cpu"))
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


def test_every_precision_of_the_table_can_be_asked_for():
    known = {precision for kind in DEVICES.values() for precision in kind.precisions}
    for precision in known:
        LoopConfig(precision=precision)
    assert known == {"fp32", "tf32", "bf16", "fp16"}


def test_muon_is_refused_under_fsdp():
    with pytest.raises(ValueError, match=r"optimizer.optimizer muon needs whole matrices, and loop.parallel fsdp"):
        PretrainConfig(loop=LoopConfig(parallel="fsdp"), optimizer=OptimizerConfig(optimizer="muon"))
