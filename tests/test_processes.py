"""Several processes as one run: torchrun, srun, two machines, DDP and FSDP, elastic resume, and one end for all.

The machine's processes talk over gloo. All runs are of one tiny model, compared with one process on the same rows.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from stores import make_store, random_documents
from test_pretrain import config_for, curve

import electra.pretrain
import electra.runtime
from electra import compiled
from electra.config import PretrainConfig
from electra.interop.hf import load_pretrained
from electra.processes import Lifeline, Place, find_place, first_host, meeting_point, together
from electra.toml import write_toml

STEPS = 8


def tiny(store: Path, out: Path, **loop) -> PretrainConfig:
    """AdamW, since Muon orthogonalises in bf16, which blows up differences of the last bit."""
    settings = {"steps": STEPS, "micro_batch_size": 1, "save_every": 2, "eval_every": 4, "eval_rows": 33}
    config = config_for(store, out, **settings)
    optimizer = dataclasses.replace(config.optimizer, optimizer="adamw")
    return dataclasses.replace(config, optimizer=optimizer, loop=dataclasses.replace(config.loop, **loop))


def fork(
    config: PretrainConfig, processes: int, rank: int = 0, step: int = STEPS, trouble: Callable[[], None] = int
) -> list[int]:
    """Start processes as srun does, by the variables it sets; returns their exit codes.

    Forked, they save the seconds of importing torch. Process `rank` gets into `trouble` when it prepares `step`.
    """
    import torch.distributed.checkpoint.staging
    import torch.distributed.fsdp
    import torch.utils.tensorboard  # noqa: F401

    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def child(me: int) -> None:
        slurm = {"STEP_ID": 0, "PROCID": me, "NTASKS": processes, "LOCALID": me, "JOB_NODELIST": "localhost"}
        os.environ.update({f"SLURM_{name}": str(value) for name, value in slurm.items()}, MASTER_PORT=str(port))
        load = electra.pretrain.load_work

        def load_in_trouble(*args, **kwargs):
            if (me, args[5]) == (rank, step):
                trouble()
            return load(*args, **kwargs)

        electra.pretrain.load_work = load_in_trouble
        electra.runtime.matmul_flops = lambda *args: 1e9  # half a second that no test needs
        electra.pretrain.pretrain(config, say=lambda text: None)

    children = [context.Process(target=child, args=(rank,)) for rank in range(processes)]
    for process in children:
        process.start()
    deadline = time.monotonic() + 60
    while any(process.is_alive() for process in children) and time.monotonic() < deadline:
        time.sleep(0.05)
        if children[rank - 1].exitcode not in (None, 0):
            children[rank].kill()  # where it only stopped
    return [process.exitcode for process in children]


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def broken() -> None:
    raise ValueError("the disk of the second process is broken")


def arguments(config: PretrainConfig) -> list[str]:
    path = config.out.with_suffix(".toml")
    write_toml(config, path)
    return ["-m", "electra", "pretrain", "--config", str(path)]


def torchrun(processes: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]


def run(command: list[str], **more) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store", random_documents(60), held_out=0.2).folder


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    electra.pretrain.pretrain(tiny(store, out), say=lambda text: None)
    return out


def assert_equal_to_1e5(one: Path, other: Path) -> None:
    """The curve and the exported weights of both networks."""
    for row, same in zip(curve(one), curve(other), strict=True):
        for name in row.keys() - {"kind", "peak_memory_gib"}:
            assert same[name] == pytest.approx(row[name], rel=1e-5, abs=1e-5), name
    for network in ("discriminator", "generator"):
        before, after = (load_pretrained(str(folder / "export" / network)).encoder_state for folder in (one, other))
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("processes", "parallel"), [(2, "ddp"), (2, "fsdp"), (4, "ddp"), (4, "fsdp")])
def test_several_processes_equal_one(store, alone, tmp_path, processes, parallel):
    """Dropout and evaluation on; accumulation over 4 or 2 micro-batches; the export reads a sharded checkpoint."""
    assert fork(tiny(store, tmp_path / "run", parallel=parallel), processes) == [0] * processes
    assert_equal_to_1e5(alone, tmp_path / "run")


def test_lamb_on_shards_equals_lamb_on_whole_parameters(store, tmp_path):
    """Query, key and value, 32 rows each in one matrix, lie in four shards of 24; of a single bias three are empty."""
    whole, sharded = tiny(store, tmp_path / "whole"), tiny(store, tmp_path / "sharded", parallel="fsdp")
    optimizer = dataclasses.replace(whole.optimizer, optimizer="lamb")
    assert fork(dataclasses.replace(whole, optimizer=optimizer), 1) == [0]
    assert fork(dataclasses.replace(sharded, optimizer=optimizer), 4) == [0] * 4
    assert_equal_to_1e5(whole.out, sharded.out)


def test_fsdp_with_compiled_layers_equals_one(store, tmp_path, monkeypatch):
    """FSDP gathers the weights between the graphs of the layers. No dropout: a graph draws in an order of its own."""
    monkeypatch.setitem(compiled.BACKENDS, "cpu", "aot_eager")
    plain, config = tiny(store, tmp_path / "plain"), tiny(store, tmp_path / "run", parallel="fsdp", compile="on")
    shape = dataclasses.replace(config.model, num_layers=1, generator_depth=1.0, dropout=0.0, attention_dropout=0.0)
    assert fork(dataclasses.replace(plain, model=shape), 1) == [0]
    assert fork(dataclasses.replace(config, model=shape), 2) == [0, 0]
    assert_equal_to_1e5(plain.out, config.out)


def test_each_run_goes_on_from_another_wrapping_and_number_of_processes(store, alone, tmp_path):
    out = tmp_path / "run"
    for stop_at, processes, parallel in ((3, 1, "ddp"), (5, 2, "ddp"), (7, 4, "fsdp"), (STEPS, 2, "fsdp")):
        assert fork(tiny(store, out, parallel=parallel), processes, 0, stop_at, terminated) == [0] * processes
        steps = sorted(int(path.name.removeprefix("step-")) for path in (out / "checkpoints").iterdir())
        assert stop_at - 3 <= steps[-1] <= stop_at
    assert_equal_to_1e5(alone, out)


@pytest.fixture
def two_machines() -> Iterator[list[tuple[list[str], str, str]]]:
    """Two network namespaces joined by a cable: for each how to run something in it, its address, its interface."""
    names = [f"el{side}{os.getpid()}" for side in "ab"]
    with contextlib.ExitStack() as stack:
        for name in names:
            try:
                subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("network namespaces need the command ip and the right to make them")
            stack.callback(subprocess.run, ["ip", "netns", "del", name])
        subprocess.run(["ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1]], check=True)
        machines = []
        for number, name in enumerate(names, 1):
            subprocess.run(["ip", "link", "set", name, "netns", name], check=True)
            for words in (f"addr add 10.77.0.{number}/24 dev {name}", f"link set {name} up", "link set lo up"):
                subprocess.run(["ip", "-n", name, *words.split()], check=True)
            machines.append((["ip", "netns", "exec", name], f"10.77.0.{number}", name))
        yield machines


def test_two_machines_equal_one(store, alone, tmp_path, two_machines):
    """torchrun's own rendezvous over a network that is not the loop-back."""
    command = arguments(tiny(store, tmp_path / "run"))
    machines = []
    for number, (prefix, address, interface) in enumerate(two_machines):
        where = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={two_machines[0][1]}:29471", "--rdzv-id=7"]
        where.append(f"--rdzv-conf=is_host={number == 0},timeout=40")  # both have the host name of this machine
        machines.append(
            subprocess.Popen(
                [*prefix, sys.executable, "-m", "torch.distributed.run", *where, f"--local-addr={address}", *command],
                env=os.environ | {"GLOO_SOCKET_IFNAME": interface},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [machine.communicate(timeout=120)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert_equal_to_1e5(alone, tmp_path / "run")


# ------------------------------------------------------------------------------------------- who is who


def test_torchrun_goes_before_srun_and_the_batch_script_is_alone():
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}
    assert find_place(slurm) == Place(3, 8, 1)
    assert find_place(slurm | {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == Place(1, 2, 1)
    assert find_place({name: value for name, value in slurm.items() if name != "SLURM_STEP_ID"}) == Place()
    with pytest.raises(ValueError, match="SLURM_PROCID 8 is not below SLURM_NTASKS 8"):
        find_place(slurm | {"SLURM_PROCID": "8"})
    with pytest.raises(ValueError, match="RANK, WORLD_SIZE, LOCAL_RANK must be numbers, not 'x', '2', '0'"):
        find_place({"RANK": "x", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu[07-09,12],login", "gpu07"),
        ("a,b", "a"),
        ("node-1", "node-1"),
        ("rack[1,3]n[5-6].site", "rack1n5.site"),
        ("n[3]", "n3"),
    ],
)
def test_the_first_host(nodes, host):
    """Lists as `scontrol show hostnames` expands them."""
    assert first_host(nodes) == host


def test_the_meeting_point():
    slurm = {"SLURM_JOB_NODELIST": "gpu[07-09]", "SLURM_JOB_ID": "20012"}
    assert meeting_point(slurm) == {"MASTER_ADDR": "gpu07", "MASTER_PORT": "15012"}
    assert meeting_point(slurm | {"MASTER_ADDR": "h", "MASTER_PORT": "1"}) == {"MASTER_ADDR": "h", "MASTER_PORT": "1"}
    with pytest.raises(ValueError, match="several processes need MASTER_ADDR"):
        meeting_point({})


# ------------------------------------------------------------------------------------------- failures


def test_one_process_killed_ends_all_with_one_message(store, alone, tmp_path):
    """torchrun as users have it; kill -9 at a moment nobody chose, then two processes fewer than before go on."""
    config = tiny(store, tmp_path / "run")
    launcher = subprocess.Popen(
        [*torchrun(2), *arguments(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while not list(config.out.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    victim = children_of(launcher.pid)[-1]
    begin = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    _, errors = launcher.communicate(timeout=60)
    if launcher.returncode:  # else it was faster
        assert errors.count("electra: ") == 1 and errors.count("another process of this run has ended") == 1, errors
        assert time.monotonic() - begin < 60
    assert fork(config, 1) == [0]
    assert_equal_to_1e5(alone, config.out)


def test_an_exception_in_one_process_ends_all_and_is_said_once(store, tmp_path, capfd):
    codes = fork(tiny(store, tmp_path / "run"), 2, 1, 4, broken)
    errors = capfd.readouterr().err
    assert codes == [2, 1]
    assert errors.count("Traceback") == 1 and errors.count("ValueError: the disk") == 1, errors


def test_a_process_that_hangs_ends_all(store, tmp_path, capfd, monkeypatch):
    """Stopped, it closes no connection: only that its count stands still tells the others. srun would wait for ever."""
    for name, seconds in {"beat": 0.1, "patience": 2.0, "grace": 0.5}.items():
        monkeypatch.setattr(Lifeline, name, seconds)
    begin = time.monotonic()
    assert fork(tiny(store, tmp_path / "run"), 2, 1, 4, stopped) == [2, -signal.SIGKILL]
    assert capfd.readouterr().err.count("another process of this run has ended") == 1
    assert time.monotonic() - begin < 30


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_port_that_is_taken(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name, value in {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": "0",
            "WORLD_SIZE": "2",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LOCAL_RANK", "0")
        with pytest.raises(ValueError, match=f"port {port} of this machine is taken"), together(Place(0, 2, 0)):
            pass
