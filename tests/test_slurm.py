"""Slurm jobs: the script, and a real cluster of one node that the tests start, which preempts one of them.

The cluster needs Debian's slurm-wlm and munge and the rights of root; tests that need it are skipped without.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import make_store, random_documents
from test_pretrain import curve
from test_processes import tiny

import electra.pretrain
from electra.cli import main
from electra.config.launching import SlurmConfig
from electra.toml import write_toml

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 Gres=gpu:2
PartitionName=batch Nodes={host} Default=YES PriorityTier=1 GraceTime=90
PartitionName=urgent Nodes={host} PriorityTier=2 PreemptMode=OFF
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def slurm(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, slurm("squeue", "--long")
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Path]:
    """A controller, a node of 4 cores and 2 GPUs that are none, and two partitions, one of which preempts the other."""
    if os.name != "posix" or os.geteuid() != 0 or not all(map(shutil.which, ("munged", "slurmctld", "slurmd"))):
        pytest.skip("a Slurm cluster needs slurm-wlm, munge and the rights of root")
    folder, host = tmp_path_factory.mktemp("slurm"), socket.gethostname().partition(".")[0]
    for parent in (folder, *folder.parents):  # munge insists on a road that all can go
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    controller, daemon = free_ports(2)
    text = CONFIGURATION.format(folder=folder, host=host, controller=controller, daemon=daemon)
    (folder / "slurm.conf").write_text(text)
    for number in range(2):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munged = ["munged", "--force", *(f"--{name}={folder}/munge.{end}" for name, end in files.items())]
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    try:
        for command in (munged, ["slurmctld", "-c"], ["slurmd", "-N", host]):
            if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60).returncode:
                pytest.skip(f"{command[0]} does not start here")
        deadline = time.monotonic() + 30
        while "idle" not in subprocess.run(["sinfo", "-h"], capture_output=True, text=True).stdout:
            if time.monotonic() > deadline:
                pytest.skip("the node does not become ready here")
            time.sleep(0.2)
        yield folder
        subprocess.run(["scancel", "--user=root"], check=True)
        until(lambda: not slurm("squeue", "--noheader"))
    finally:
        for name in ("slurmd", "slurmctld", "munge"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((folder / f"{name}.pid").read_text()), 15)
        patch.undo()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store", random_documents(60), held_out=0.2).folder


def number_of(said: str) -> str:
    return said.split("submitted job ")[1].split(":")[0]


def state(job: str) -> str:
    return slurm("scontrol", "show", "job", job).split("JobState=")[1].split()[0]


def test_a_preempted_job_goes_back_into_the_queue_and_ends_with_the_same_curve(cluster, store, tmp_path, capsys):
    """Two processes under srun; the job of another partition takes their node while they train."""
    settings = {"steps": 60, "batch_size": 32, "eval_every": 20, "save_every": 5}  # a tenth of a second a step
    config = tiny(store, tmp_path / "run", **settings)
    electra.pretrain.pretrain(tiny(store, tmp_path / "alone", **settings), say=lambda text: None)
    write_toml(config, tmp_path / "run.toml")
    capsys.readouterr()
    command = ["--config", str(tmp_path / "run.toml"), "--tasks-per-node", "2", "--partition", "batch"]
    assert main(["launch", "slurm", *command]) == 0
    job = number_of(capsys.readouterr().out)
    until(lambda: list(config.out.glob("checkpoints/step-*")))
    slurm("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap", "true")
    until(lambda: state(job) == "PENDING")
    stopped_at = max(int(path.name[5:]) for path in config.out.glob("checkpoints/step-*"))
    assert 5 <= stopped_at < 60
    # Slurm would wait for two minutes, since word that the first start has ended would be taken for the second's.
    until(lambda: not list((cluster / "spool").glob(f"*_{job}.*")))  # sockets of those who look after its steps
    slurm("scontrol", "update", f"job={job}", "StartTime=now")
    until(lambda: state(job) not in ("PENDING", "RUNNING", "COMPLETING"))

    logs = tmp_path / "run.slurm"
    main_log = (logs / f"{job}-rank-0.log").read_text()
    assert state(job) == "COMPLETED", main_log + (logs / f"{job}.log").read_text()
    assert "stopped before its end: back into the queue" in (logs / f"{job}.log").read_text()
    assert main_log.count("cpu x 2 by ddp") == 2 and f"resuming from {config.out}/checkpoints/step-" in main_log
    assert (logs / f"{job}-rank-1.log").read_text() == ""
    for row, same in zip(curve(tmp_path / "alone"), curve(config.out), strict=True):
        for name in row.keys() - {"kind", "peak_memory_gib"}:
            assert same[name] == pytest.approx(row[name], rel=1e-4, abs=1e-4), name


def test_slurm_takes_the_script_and_refuses_a_wrong_one_in_a_sentence(cluster, store, tmp_path, capsys):
    asked = ["tiny", "--data", str(store), "--out", str(tmp_path / "run"), "--partition", "batch"]
    more = ["--gpus-per-node", "2", "--cpus-per-task", "2", "--time", "1-2:30", "--sbatch", "comment=two words"]
    assert main(["launch", "slurm", *asked, *more, "--dry-run"]) == 0
    script = tmp_path / "job.sh"
    script.write_text(capsys.readouterr().out)
    done = subprocess.run(["sbatch", "--test-only", str(script)], capture_output=True, text=True)
    assert done.returncode == 0 and "using 4 processors on nodes" in done.stderr, done.stderr
    assert not (tmp_path / "run.slurm").exists()

    assert main(["launch", "slurm", *asked, "--partition", "gpu"]) == 2
    error = capsys.readouterr().err
    assert f"electra: Slurm refused {tmp_path}/run.slurm/job.sh" in error and "nvalid partition" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("time", ["90", "90:30", "12:00:00", "2-0", "1-2:30", "1-02:30:59"])
def test_times_are_read_as_slurm_reads_them(cluster, time):
    job = slurm("sbatch", "--parsable", "--hold", f"--time={time}", "--wrap", "true").strip()
    limit = slurm("scontrol", "show", "job", job).split("TimeLimit=")[1].split()[0]
    slurm("scancel", job)
    days, _, clock = limit.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    theirs = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    assert theirs - 60 < (SlurmConfig(time=time).seconds or 0) <= theirs  # Slurm rounds up to minutes


def test_the_script_with_a_container(store, tmp_path, monkeypatch, capsys):
    """Pyxis is Slurm's only when installed: its options are looked at here, and bash reads the whole."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    asked = ["electra-base", "--data", str(store), "--out", "my run", "--nodes", "2", "--gpus-per-node", "8"]
    assert (
        main(["launch", "slurm", *asked, "--container", "docker://me#electra:1", "--mounts", "/scratch", "--dry-run"])
        == 0
    )
    script = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    step = script[script.index("srun ") : script.index(" &\n")]
    seen = step.split("--container-mounts=")[1].split()[0].split(",")
    assert sorted(seen) == sorted(f"{place}:{place}" for place in (store, tmp_path / "work", "/scratch"))
    assert f"--container-workdir={tmp_path}/work" in step
    assert step.endswith(f"electra pretrain electra-base --data {store} --out 'my run'")
    assert "'#SBATCH" not in script and "#SBATCH '--job-name=my run'" in script
    assert "#SBATCH --gpus-per-node=8" in script and "#SBATCH --ntasks-per-node=8" in script


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nodes", "3"], "--batch-size 32 does not divide by the 3 processes of the job"),
        ([], "sbatch cannot be found here: submit"),
        (["finetune", "model", "--overwrite"], "--overwrite would undo at each restart what the job has done"),
    ],
)
def test_mistakes_are_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    asked = arguments if "finetune" in arguments else ["tiny", *arguments]
    assert main(["launch", "slurm", *asked, "--data", "store", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_values_that_make_no_job():
    with pytest.raises(ValueError, match="--time tomorrow is no time of Slurm"):
        SlurmConfig(time="tomorrow")
    with pytest.raises(ValueError, match="--time 3 leaves no time to train before the notice 120 seconds from its end"):
        SlurmConfig(time="3")
    with pytest.raises(ValueError, match="--mounts has no meaning without --container"):
        SlurmConfig(mounts=("/scratch",))
    assert main(["launch", "moon"]) == 2 and main(["launch", "slurm", "tiny", "--data", "store"]) == 2
