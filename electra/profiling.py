"""A profiler trace of a few training steps, as a file for a browser: `electra pretrain ... --profile`.

Steps 10 to 15 of the process are recorded, when caches are warm and compiling is over. Every rank writes a file.
Follows torch.profiler's schedule of wait, warm-up and active steps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

from electra.files import atomic_file
from electra.runtime import Runtime

FIRST, LAST = 10, 15
"""Steps of the process that are recorded, counted from 1."""


class StepProfiler:
    """A context around the loop, which calls `step` after each of its steps.

    The trace is RUN/profile/steps-A-to-B.json, by the steps of the run, with the rank in its name where there are more
    than one; `say` tells where. One of a run that ends before step 15 holds what there was.
    """

    def __init__(self, run: Path, runtime: Runtime, say: Callable[[str], None]) -> None:
        self.folder, self.runtime, self.say = run / "profile", runtime, say
        self.done = self.last = 0
        wanted = {ProfilerActivity.CPU, ProfilerActivity.CUDA, ProfilerActivity.XPU, ProfilerActivity.HPU}
        self._profile = profile(
            activities=wanted & supported_activities(),
            schedule=schedule(wait=FIRST - 2, warmup=1, active=LAST - FIRST + 1, repeat=1),
            on_trace_ready=self._write,
        )

    def __enter__(self) -> StepProfiler:
        self._profile.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._profile.stop()
        if self.done < FIRST:
            self.say(f"no profile: it begins with the process's step {FIRST}, and there were {self.done}")

    def step(self, step: int) -> None:
        """Say that step `step` of the run is done."""
        self.done, self.last = self.done + 1, step
        self._profile.step()

    def _write(self, recorded: profile) -> None:
        first = self.last - min(self.done, LAST) + FIRST
        rank = f"-rank-{self.runtime.rank}" if self.runtime.world_size > 1 else ""
        path = self.folder / f"steps-{first}-to-{self.last}{rank}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            recorded.export_chrome_trace(file.name)
        self.say(f"profile of steps {first} to {self.last}: {path}, to be opened in https://ui.perfetto.dev")
