"""Several processes as one run: who this one is, where the others are, and the end of all when one of them ends.

`torchrun` says both in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. `srun` says who in SLURM_PROCID,
SLURM_NTASKS and SLURM_LOCALID; the meeting point is then the first host of the job and a port made from the job's id.

When a process fails the others may wait for it in a collective: gloo notices a closed connection, nccl and hccl do
not. So each process has a `Lifeline`, a thread that counts up a key of the common store, watches that of the next
process in a ring, and ends its own process within a minute when a failure is known. The first to report prints; the
others end silently.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch.distributed as dist

TIMEOUT = datetime.timedelta(minutes=30)  # of a collective, in which the others may wait while one reads a large store
FAILED = "electra/failed"
LOST = (
    "another process of this run has ended (killed, out of memory, or its machine is gone): run the same command "
    "again, which goes on from the newest checkpoint"
)


@dataclass(frozen=True)
class Place:
    """Which of the processes this is."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # among those of this machine


def find_place(environment: Mapping[str, str]) -> Place:
    """The place that torchrun or srun gave this process; alone otherwise.

    SLURM sets its variables in the batch script too, where nothing else runs: only SLURM_STEP_ID tells srun.
    """
    if "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    else:
        return Place()
    rank, world_size, local_rank = (environment.get(name, "1" if "SIZE" in name else "0") for name in names)
    try:
        place = Place(int(rank), int(world_size), int(local_rank))
    except ValueError:
        raise ValueError(f"{', '.join(names)} must be numbers, not {rank!r}, {world_size!r}, {local_rank!r}") from None
    if not 0 <= place.rank < place.world_size:
        raise ValueError(f"{names[0]} {rank} is not below {names[1]} {world_size}: start with torchrun or srun")
    return place


def meeting_point(environment: Mapping[str, str]) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT as they are, or from SLURM's variables: first host, port 15000 + job id mod 20000."""
    nodes = next((environment[name] for name in ("SLURM_JOB_NODELIST", "SLURM_NODELIST") if name in environment), "")
    host = environment.get("MASTER_ADDR") or first_host(nodes)
    if not host:
        raise ValueError("several processes need MASTER_ADDR, the host of the first: start them with torchrun or srun")
    port = environment.get("MASTER_PORT") or str(15_000 + int(environment.get("SLURM_JOB_ID", "0")) % 20_000)
    return {"MASTER_ADDR": host, "MASTER_PORT": port}


def first_host(nodes: str) -> str:
    """The first host of a list as SLURM writes it: 'gpu[07-09,12],login' -> 'gpu07'."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0] if first else "")


@contextlib.contextmanager
def together(place: Place) -> Iterator[dist.Store]:
    """Meet the other processes: the store common to all, with a lifeline while the block runs.

    An exception that leaves the block goes on in the first process to report one; in the others it becomes a silent
    SystemExit(2). The loss of another process is a ValueError in a sentence, as is a port that is taken.
    """
    # As torchrun does, also where srun started us: libraries of devices read these, too.
    numbers = {"RANK": place.rank, "WORLD_SIZE": place.world_size, "LOCAL_RANK": place.local_rank}
    os.environ.update(meeting_point(os.environ) | {name: str(number) for name, number in numbers.items()})
    try:
        store, _, _ = next(iter(dist.rendezvous("env://", place.rank, place.world_size, timeout=TIMEOUT)))
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise ValueError(
            f"port {os.environ['MASTER_PORT']} of this machine is taken, perhaps by another run: name a free one in "
            "MASTER_PORT, or with torchrun's --master-port"
        ) from None
    lifeline = Lifeline(store.clone(), place)
    lifeline.start()
    try:
        yield store
    except SystemExit:
        raise
    except BaseException as error:
        if not lifeline.reports_first():
            raise SystemExit(2) from None
        if is_loss_of_peer(error):
            raise ValueError(LOST) from error
        raise
    lifeline.stop()


def is_loss_of_peer(error: BaseException) -> bool:
    """Whether a collective failed because another process went away."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


class Lifeline(threading.Thread):
    """Counts up a key of the store every `beat` seconds and watches that of the next process.

    A count that stands still for `patience` seconds, or a store that cannot be reached for so long, is a failure, as is
    one that a process has reported. The process then has `grace` seconds to end by itself.
    """

    beat, patience, grace = 2.0, 30.0, 10.0

    def __init__(self, store: dist.Store, place: Place) -> None:
        super().__init__(name="lifeline", daemon=True)
        self.store, self.place = store, place
        self._over = threading.Event()
        self._reports = threading.Lock()

    def run(self) -> None:
        mine, others = (f"electra/beat/{(self.place.rank + i) % self.place.world_size}" for i in (0, 1))
        last, seen = b"", time.monotonic()
        while not self._over.wait(self.beat):
            try:
                self.store.add(mine, 1)
                if self.store.add(FAILED, 0):
                    self._end()
                count = self.store.get(others) if self.store.check([others]) else b""
            except (RuntimeError, dist.DistError):  # the process that keeps the store may be gone
                count = last
            if count != last or count == b"done":
                last, seen = count, time.monotonic()
            elif time.monotonic() - seen > self.patience:
                if self.reports_first():
                    print(f"electra: {LOST}", file=sys.stderr, flush=True)
                self._end()

    def stop(self) -> None:
        """The run is over for this process: nobody is to miss it."""
        self._over.set()
        self.join()
        with contextlib.suppress(RuntimeError):
            self.store.set(f"electra/beat/{self.place.rank}", "done")

    def reports_first(self) -> bool:
        """Tell all processes of a failure; whether this one is the first to do so, and is to say what it was.

        Where the store is gone with the process that kept it, the first, the second one is.
        """
        with self._reports:
            try:
                return self.store.add(FAILED, 1) == 1
            except RuntimeError:
                return self.place.rank == 1

    def _end(self) -> None:
        if not self._over.wait(self.grace):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(2)
