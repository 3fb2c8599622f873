"""Whole runs on Gaudi and TPU, whose packages are stand-ins (accelerators/): the lines of ours that only they reach."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_pretrain import a_store, command, config_for, curve
from test_rtd import random_batch
from test_varlen import NO_DROPOUT

from electra.compiled import choose_compile, compile_forward
from electra.config import ObjectiveConfig, PretrainConfig
from electra.machine import read_starts
from electra.objectives import make_model
from electra.pretrain import pretrain

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "tpu-pod.sh"
TPU_VARIABLES = {"TORCH_TPU_TOPOLOGY": "2,1,1", "TORCH_TPU_SLICEBUILDER_ADDRESSES": "localhost:8471,localhost:8472"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_store(tmp_path_factory.mktemp("data") / "store", 30)


def config(store: Path, out: Path, device: str) -> PretrainConfig:
    """Without dropout: what torch draws on a device is not what our CPU kernel draws."""
    made = config_for(store, out, steps=4, device=device, compile="off", eval_every=4)
    return dataclasses.replace(made, model=dataclasses.replace(made.model, dropout=0.0, attention_dropout=0.0))


@pytest.fixture(scope="module")
def on_cpu(store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    out = tmp_path_factory.mktemp("runs") / "cpu"
    pretrain(config(store, out, "cpu"))
    return curve(out)


def run(arguments: list[str], **variables: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(HERE / "accelerators"), os.getcwd()])
    environment = os.environ | {"PYTHONPATH": path} | variables
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=environment)


def assert_same(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected) > 2
    for row, other in zip(found, expected, strict=True):
        assert row.pop("kind") == other["kind"]
        assert row == pytest.approx({name: value for name, value in other.items() if name != "kind"}, rel=1e-4)


def test_a_run_on_a_tpu(store, on_cpu, tmp_path):
    """No tensor of the host meets one of the device, none is fp64, fp32 is what it says, and the curve is the CPU's."""
    log = tmp_path / "log"
    done = run(command(config(store, tmp_path / "run", "tpu")), FAKE_TPU_LOG=str(log))
    assert done.returncode == 0, done.stderr
    assert "device      tpu x 1, fp32 (asked for)" in done.stdout
    assert_same(curve(tmp_path / "run"), on_cpu)
    assert log.read_text() == "precision HIGHEST\n"
    assert read_starts(tmp_path / "run")[0]["device"] == "TPU v9"


def test_a_run_on_two_gaudis(store, on_cpu, tmp_path):
    log = tmp_path / "log"
    done = run(command(config(store, tmp_path / "run", "hpu"), processes=2), FAKE_HPU_LOG=str(log))
    assert done.returncode == 0, done.stderr
    assert "device      hpu x 2" in done.stdout, done.stdout
    assert_same(curve(tmp_path / "run"), on_cpu)
    said = log.read_text().splitlines()
    assert sorted(said) == ["hccl 0 of 2", "hccl 1 of 2", "lazy mode 0, local rank 0", "lazy mode 0, local rank 1"]
    start = read_starts(tmp_path / "run")[0]
    assert (start["device"], start["processes"]) == ("GAUDI9", 2)


def test_what_a_user_set_for_gaudi_stays(tmp_path):
    code = "from electra.devices import choose_device; print(choose_device('hpu'))"
    done = run([sys.executable, "-c", code], FAKE_HPU_LOG=str(tmp_path / "log"), PT_HPU_LAZY_MODE="1")
    assert done.stdout == "hpu\n" and (tmp_path / "log").read_text() == "lazy mode 1, local rank None\n"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (TPU_VARIABLES, "tpu tpu_dist"),
        (
            {},
            "several processes on tpu need TORCH_TPU_TOPOLOGY and TORCH_TPU_SLICEBUILDER_ADDRESSES, set before",
        ),
        (
            TPU_VARIABLES | {"LOCAL_RANK": "4"},
            "more processes were started on this machine than its 4 devices",
        ),
    ],
)
def test_several_processes_on_tpus(variables, said):
    """Each has its chip, by no number, and cannot choose another."""
    code = """
from electra.devices import process_group_backend
from electra.runtime import start
try:
    runtime = start("tpu", "bf16")
    print(runtime.device, process_group_backend(runtime.device).rpartition(":")[2])
except ValueError as error:
    print(error)
"""
    done = run([sys.executable, "-c", code], **{"RANK": "1", "WORLD_SIZE": "8", "LOCAL_RANK": "1"} | variables)
    assert done.stdout.startswith(said), done.stderr


@pytest.mark.parametrize(("device", "backend"), [("tpu", "tpu"), ("hpu", "hpu_backend")])
def test_their_own_compilers_are_asked(device, backend):
    """By the names that they register; the step is one graph, and there is no inductor in it."""
    graphs = []

    def compiler(graph, inputs):
        graphs.append(len(inputs))
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.register_backend(compiler, backend)
    given: Any = SimpleNamespace(type=device)  # torch knows the name tpu only from the package
    assert choose_compile("auto", False, given) == (True, f"the default on {device}")
    torch.manual_seed(0)
    model = make_model(NO_DROPOUT, ObjectiveConfig(), 100).train()
    batch, totals = random_batch(100, seed=1), {"predictions": torch.ones(()), "tokens": torch.ones(())}
    expected = model(batch, totals)[0]
    compile_forward(model, given)
    torch.testing.assert_close(model(batch, totals)[0], expected)
    assert len(graphs) == 1


def test_the_recipe_for_a_pod(tmp_path):
    """What it starts on the second of two VMs, and with what in its environment."""
    torchrun = tmp_path / "torchrun"
    torchrun.write_text('#!/bin/sh\nenv | grep ^TORCH_TPU | sort\necho "$@"\n')
    torchrun.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STORE": "gs://bucket/store", "RUN": "/shared/run"}
    pod = {"TOPOLOGY": "2,4,1", "TPU_WORKER_HOSTNAMES": "vm-a,vm-b", "TPU_WORKER_ID": "1"}
    done = run(["bash", str(RECIPE), "electra-base", "--steps", "100"], **variables, **pod)
    chips = ",".join(f"{host}:{port}" for host in ("vm-a", "vm-b") for port in range(8471, 8475))
    assert done.stdout.splitlines() == [
        f"TORCH_TPU_SLICEBUILDER_ADDRESSES={chips}",
        "TORCH_TPU_TOPOLOGY=2,4,1",
        "--nnodes 2 --node-rank 1 --nproc-per-node 4 --master-addr vm-a --master-port 29500 "
        "-m electra pretrain electra-base --steps 100 --data gs://bucket/store --out /shared/run --device tpu",
    ]
    one = run(["bash", str(RECIPE), "tiny"], **variables, TOPOLOGY="2,2,1")
    assert "--nnodes 1 --node-rank 0" in one.stdout and "ADDRESSES=localhost:8471," in one.stdout
    assert "TOPOLOGY" in run(["bash", str(RECIPE)], **variables).stderr


def test_lengths_are_few_where_each_is_compiled(tmp_path):
    code = """
from electra.devices import choose_device
from electra.tasks.features import padded_length
choose_device("tpu")
print(*(padded_length(longest, 384) for longest in (3, 64, 65, 350, 384)), padded_length(100, 120))
"""
    done = run([sys.executable, "-c", code])
    assert done.stdout.split() == ["64", "64", "128", "384", "384", "120"], done.stderr
