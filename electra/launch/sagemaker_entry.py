"""`electra launch sagemaker-entry VERB`: what each machine of a SageMaker job runs in its container.

    resourceconfig.json -> who and where the machines are -> torchrun -> electra VERB --config config.toml

Folders are those of SageMaker's contract: /opt/ml/input/config says what the job is, /opt/ml/input/data/NAME holds a
channel, /opt/ml/checkpoints is kept in step with S3, what lies in /opt/ml/model at the end becomes model.tar.gz, and
/opt/ml/output/failure is the reason that the service shows. Before a machine is taken away (spot) or the job is
stopped, the container gets SIGTERM and two minutes; the run then saves a checkpoint, from which the next start goes on.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from electra.files import read_json
from electra.launch.job import Verb

CHANNELS = "/opt/ml/input/data"
CONFIG_CHANNEL, CONFIG_FILE = "electra-config", "config.toml"
PORT = 29_400
SECONDS_TO_SAVE = 110  # of the 120 between SIGTERM and SIGKILL; torchrun would give 30
EXPORTS = {"pretrain": "export", "finetune": "model"}  # what the verb leaves in its folder for others to load


def enter(verb: Verb, root: Path, processes: int = 0) -> int:
    """Run this machine's part of the job; returns the exit code.

    `root` stands for /opt/ml; `processes` is the number on this machine, 0 for one a GPU. ValueError for a
    resourceconfig.json that does not say who this machine is.
    """
    config = root / "input" / "data" / CONFIG_CHANNEL / CONFIG_FILE
    resources = read_json(root / "input" / "config" / "resourceconfig.json")
    hosts, me = sorted(resources.get("hosts", [])), resources.get("current_host")
    if me not in hosts:
        raise ValueError(f"{root / 'input/config/resourceconfig.json'} names the machine {me!r}, which is not in hosts")
    try:
        out = Path(tomllib.loads(config.read_text(encoding="utf-8"))["out"])
    except FileNotFoundError:
        raise ValueError(f"{config} does not exist: start the job with electra launch sagemaker") from None
    if out == root / "checkpoints":
        drop_partial_checkpoints(out)
    arguments = torchrun(hosts, me, processes or devices())
    environment = dict(os.environ)
    if interface := resources.get("network_interface_name"):
        environment |= {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}
    code, failure = run(
        [sys.executable, "-m", "torch.distributed.run", *arguments, "-m", "electra", verb, "--config", str(config)],
        environment | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SECONDS_TO_SAVE)},
    )
    if code not in (0, 128 + signal.SIGTERM):
        path = root / "output" / "failure"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(failure or f"electra {verb} ended with code {code}: see the log", encoding="utf-8")
    elif code == 0 and me == hosts[0] and (out / EXPORTS[verb]).is_dir():
        shutil.copytree(out / EXPORTS[verb], root / "model", dirs_exist_ok=True)
    return code


def torchrun(hosts: list[str], me: str, processes: int) -> list[str]:
    """How torchrun on each machine finds the others: at the first host, each with its number."""
    options: dict[str, Any] = {"nnodes": len(hosts), "node-rank": hosts.index(me), "nproc-per-node": processes}
    options |= {"master-addr": hosts[0], "master-port": os.environ.get("MASTER_PORT", PORT)}
    return [f"--{name}={value}" for name, value in options.items()]


def devices() -> int:
    """A process for each GPU, or one."""
    import torch

    return max(1, torch.cuda.device_count())


def run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command, passing SIGTERM on to it; returns its code, or 143 when it was told to end, and its last sentence.

    Sentences are the lines of standard error that begin with "electra: ".
    """
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        child.terminate()

    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
    before = signal.signal(signal.SIGTERM, stop)
    try:
        assert child.stderr is not None
        sentence = _pass_on(child.stderr)
        code = child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    return (128 + signal.SIGTERM if stopped and code else code), sentence


def _pass_on(lines: Iterable[str]) -> str:
    """Show the lines; returns the first sentence about a failure."""
    sentence = ""
    for line in lines:
        print(line, end="", file=sys.stderr, flush=True)
        if line.startswith("electra: ") and not line.startswith("electra: warning"):
            sentence = sentence or line.removeprefix("electra: ").strip()
    return sentence


def drop_partial_checkpoints(out: Path) -> None:
    """Remove the newest checkpoints below `out` that are not whole: S3 may have got only some of their files.

    They are this machine's copies; S3 keeps what it has.
    """
    from electra.checkpoint import verify

    for folder in out.rglob("checkpoints"):
        found = (re.fullmatch(r"step-(\d+)", path.name) for path in folder.iterdir())
        for step in sorted((int(match[1]) for match in found if match), reverse=True):
            path = folder / f"step-{step}"
            try:
                verify(path, "")
                break
            except ValueError:
                print(f"{path.relative_to(out)} came back from S3 in part: left out", flush=True)
                shutil.rmtree(path)
