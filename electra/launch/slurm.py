"""`electra launch slurm`: a run as a job of Slurm.

    Job, SlurmConfig -> batch_script -> OUT.slurm/job.sh -> sbatch

The script is meant to be read, changed and submitted again by hand. It starts a process a GPU with srun; they find
each other by Slurm's variables (processes.py), in a container too, where Pyxis is there. A run that gets SIGTERM saves
a checkpoint and ends with 143, and the same command goes on from there (train.py): all that the script adds is to pass
on the signal before the time limit, and to put the job back into the queue when it sees a 143.

Who stops the job, and what happens then (tried on Slurm 22.05):

    time limit          USR1 to the script, SIGTERM from it to the run; 143, requeued by the script
    preemption          SIGTERM to the run; 143, requeued by the script or, without a grace time, by Slurm
    scontrol requeue    SIGTERM to all; requeued by Slurm
    scancel             SIGTERM to all; not requeued, since the job no longer counts as running
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from electra.config.launching import SlurmConfig
from electra.files import atomic_file
from electra.launch.job import Job


def launch(config: SlurmConfig, job: Job, say: Callable[[str], None] = print) -> None:
    """Write the script into OUT.slurm and submit it, or with `dry_run` only show it.

    ValueError when the batch does not divide, Slurm is not here, or it refuses the job.
    """
    job.require_divisible(config.nodes * config.tasks)
    folder = log_folder(job)
    text = batch_script(config, job, Path.cwd())
    if config.dry_run:
        say(text.rstrip("\n"))
        return
    script = folder / "job.sh"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(script, "w") as file:
        file.write(text)
    number = submit(script)
    say(f"submitted job {number}: {script}")
    say(f"follow it with  tail -F {shlex.quote(str(folder / f'{number}-rank-0.log'))}")
    say(f"stop it with    scancel {number}")


def submit(script: Path) -> str:
    """The number of the job. ValueError with what sbatch said against it."""
    try:
        done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(
            f"sbatch cannot be found here: submit {script} on a machine of the cluster, or take --dry-run to see it"
        ) from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise ValueError(f"Slurm refused {script}: {reason[0].removeprefix('sbatch: ').removeprefix('error: ')}")
    return done.stdout.strip().partition(";")[0]  # the name of the cluster may follow


def log_folder(job: Job) -> Path:
    """Beside the run folder: in it there is nothing before the run begins."""
    out = Path(job.config.out).resolve()
    return out.with_name(f"{out.name}.slurm")


def batch_script(config: SlurmConfig, job: Job, cwd: Path) -> str:
    """The text of the script that runs `job` from the working directory `cwd`."""
    folder = log_folder(job)
    options = [
        f"job-name={Path(job.config.out).resolve().name}",
        *([f"partition={config.partition}"] if config.partition else []),
        f"nodes={config.nodes}",
        f"ntasks-per-node={config.tasks}",
        *([f"gpus-per-node={config.gpus_per_node}"] if config.gpus_per_node else []),
        *([f"cpus-per-task={config.cpus_per_task}"] if config.cpus_per_task else []),
        *([f"time={config.time}"] if config.time else []),
        f"signal=B:USR1@{config.notice}",
        "requeue",
        "open-mode=append",
        f"chdir={cwd}",
        f"output={folder}/%j.log",
        *config.sbatch,
    ]
    step = [
        "srun --kill-on-bad-exit=1 --open-mode=append",
        shlex.quote(f"--output={folder}/%j-rank-%t.log"),
        *([f"--cpus-per-task={config.cpus_per_task}"] if config.cpus_per_task else []),  # sbatch's is not inherited
        *(container_options(config, job, cwd) if config.container else []),
        "electra" if config.container else f"{shlex.quote(sys.executable)} -m electra",
    ]
    step[-1] = f"{step[-1]} {job.verb} {shlex.join(job.arguments)}"
    return TEMPLATE.format(
        what=" ".join(shlex.join(["electra", job.verb, *job.arguments]).split()),
        processes=f"{config.nodes} x {config.tasks}",
        folder=shlex.quote(str(folder)),
        options="\n".join(f"#SBATCH {shlex.quote(f'--{option}')}" for option in options),
        notice=config.notice,
        command=" \\\n    ".join(step),
    )


def container_options(config: SlurmConfig, job: Job, cwd: Path) -> list[str]:
    """Pyxis's part of srun: the image, and what it sees of the cluster's files under the same names."""
    read = [Path(place).resolve() for place in (*job.data, job.begin) if place and Path(place).exists()]
    mounts = [*_outermost([cwd, Path(job.config.out).resolve().parent, *read]), *config.mounts]
    pairs = ",".join(mount if ":" in mount else f"{mount}:{mount}" for mount in mounts)
    options = {"image": config.container, "mounts": pairs, "workdir": str(cwd)}
    return [shlex.quote(f"--container-{name}={value}") for name, value in options.items()]


def _outermost(folders: Iterable[Path]) -> list[str]:
    """Folders that are in none of the others, each once."""
    distinct = sorted(set(folders))
    return [str(one) for one in distinct if not any(other in one.parents for other in distinct)]


TEMPLATE = """\
#!/usr/bin/env bash
# {what}
# {processes} processes, written by `electra launch slurm`. Log files are in the folder
#   {folder}
# which must be there:  mkdir -p FOLDER && sbatch job.sh  starts the job, after a failure too: the run goes on from its
# newest checkpoint.  scancel JOB  stops it for good.
{options}

# On several machines processes meet at the first one, at a port made from the job's number.
{command} &
step=$!

# USR1 comes {notice} seconds before the time limit, to this script alone: SIGTERM makes the run save and leave. Not by
# way of srun, which would kill it after half a minute. When Slurm itself sends SIGTERM, the run has it already.
trap 'echo "$(date "+%F %T") the time is almost over"; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
trap 'echo "$(date "+%F %T") told to leave"' TERM

# `wait` also returns when a signal has come: wait again as long as srun is there, then take the code it left.
while wait "$step"; kill -0 "$step" 2>/dev/null; do :; done
wait "$step"
code=$?

# 143: the run was stopped by SIGTERM. Of a job that somebody cancelled, or that Slurm itself puts back, the state is
# no longer RUNNING.
if [ "$code" -eq 143 ] && [ "$(squeue --noheader --format %T --jobs "$SLURM_JOB_ID")" = RUNNING ]; then
    echo "$(date "+%F %T") stopped before its end: back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
