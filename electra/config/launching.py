"""Settings of `electra launch`: the cluster's side of a run. What the run itself is, its own verb's settings say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from electra.config.checks import require


@dataclass(frozen=True)
class SlurmConfig:
    """Submit a run to Slurm as a job that goes back into the queue, and on from there, when it is stopped."""

    partition: str = ""
    """Partition of the cluster; empty: its default."""
    nodes: int = 1
    """Machines."""
    gpus_per_node: int = 0
    """GPUs of each, with a process for each GPU; 0: none is asked for."""
    tasks_per_node: int = 0
    """Processes on each machine, where they are not one a GPU; 0: one a GPU, or one."""
    cpus_per_task: int = 0
    """Cores of each process; 0: the cluster's default, often 1. Eight keep a GPU in work."""
    time: str = ""
    """Time limit as Slurm writes it (90, 12:00:00, 2-00:00:00); a run that needs longer goes on in the next turn."""
    notice: int = 120
    """Seconds before the time limit at which the run is told to save and leave."""
    container: str = ""
    """Image for Pyxis and Enroot with electra in it (Dockerfile), as docker://REGISTRY#IMAGE or a .sqsh file."""
    mounts: tuple[str, ...] = ()
    """Folders that the container sees beside the working directory, the data and the run folder: PATH or PATH:THERE."""
    sbatch: tuple[str, ...] = ()
    """More options of sbatch without their dashes: account=nlp qos=long constraint=a100."""
    dry_run: bool = False
    """Print the script and submit nothing."""

    def __post_init__(self) -> None:
        require(self.nodes > 0, "--nodes must be positive")
        for name in ("gpus_per_node", "tasks_per_node", "cpus_per_task"):
            require(getattr(self, name) >= 0, f"--{name.replace('_', '-')} must not be negative")
        require(self.notice > 0, "--notice must be positive")
        require(
            not self.time or self.seconds is not None,
            f"--time {self.time} is no time of Slurm: write MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS:MINUTES",
        )
        require(
            self.seconds is None or self.seconds >= 2 * self.notice,
            f"--time {self.time} leaves no time to train before the notice {self.notice} seconds from its end: give "
            "more, or a smaller --notice",
        )
        require(not self.mounts or self.container != "", "--mounts has no meaning without --container")

    @property
    def tasks(self) -> int:
        """Processes on each machine."""
        return self.tasks_per_node or self.gpus_per_node or 1

    @property
    def seconds(self) -> int | None:
        """The time limit; None where there is none, or it cannot be read."""
        match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", self.time)
        if match is None:
            return None
        days, *parts = (int(part or 0) for part in match.groups())
        if match[1] is None and match[4] is None:  # minutes, or minutes:seconds
            return 60 * parts[0] + parts[1]
        return ((24 * days + parts[0]) * 60 + parts[1]) * 60 + parts[2]


@dataclass(frozen=True)
class SageMakerConfig:
    """Start a run as a training job of Amazon SageMaker. Places of its data are s3://BUCKET/PREFIX, or
    fsx://FILE-SYSTEM-ID/MOUNT/FOLDER on FSx for Lustre."""

    image: str
    """Container image with electra in it (Dockerfile), in Amazon's registry."""
    role: str
    """ARN of the role with whose rights the job runs."""
    instance_type: str = "ml.g5.xlarge"
    """Kind of machine."""
    instances: int = 1
    """Machines; each starts a process for each of its GPUs. Several need an --out that all see: fsx://."""
    s3_output: str = ""
    """Where the job's configuration and its model.tar.gz go: s3://BUCKET/PREFIX; empty: beside an --out on S3."""
    subnets: tuple[str, ...] = ()
    """Subnets of your network that the job joins; needed for FSx."""
    security_groups: tuple[str, ...] = ()
    """Their security groups, which must let the machines talk to each other and to the file system."""
    spot: bool = False
    """Spare capacity at a lower price: the job may be interrupted and goes on from its newest checkpoint."""
    max_hours: float = 24.0
    """Hours of training after which the job is stopped."""
    max_wait_hours: float = 0.0
    """With --spot: hours in which the job must be done, waiting included; 0: twice --max-hours."""
    volume_gb: int = 100
    """Disk of each machine, to which data from S3 is copied."""
    job_name: str = ""
    """Name of the job; empty: that of the run folder, with the time."""
    region: str = ""
    """Amazon's region; empty: that of your configuration."""
    tags: tuple[str, ...] = ()
    """NAME=VALUE for your bills."""
    wait: bool = False
    """Show the job's state and its last log lines until it ends."""
    dry_run: bool = False
    """Print the request and send nothing."""

    def __post_init__(self) -> None:
        require(self.instances > 0, "--instances must be positive")
        require(self.max_hours > 0, "--max-hours must be positive")
        require(self.max_wait_hours == 0 or self.spot, "--max-wait-hours has no meaning without --spot: leave it out")
        require(
            self.max_wait_hours == 0 or self.max_wait_hours >= self.max_hours,
            f"--max-wait-hours {self.max_wait_hours:g} is below --max-hours {self.max_hours:g}, which it includes",
        )
        require(self.volume_gb > 0, "--volume-gb must be positive")
        require(
            (len(self.subnets) > 0) == (len(self.security_groups) > 0),
            "--subnets and --security-groups belong together: give both",
        )
        for tag in self.tags:
            require("=" in tag, f"--tags {tag} is not NAME=VALUE")
        require(
            not self.s3_output or self.s3_output.startswith("s3://"),
            f"--s3-output {self.s3_output} is no place on S3: write s3://BUCKET/PREFIX",
        )


@dataclass(frozen=True)
class SageMakerEntryConfig:
    """What runs in the container of each machine of a SageMaker job; `electra launch sagemaker` asks for it."""

    verb: Positional[Literal["pretrain", "finetune"]]
    """What is run."""
    root: Path = Path("/opt/ml")
    """Folder in which SageMaker lays down what the job is."""
    processes: int = 0
    """Processes of this machine; 0: one for each GPU, or one."""

    def __post_init__(self) -> None:
        require(self.processes >= 0, "--processes must not be negative")
