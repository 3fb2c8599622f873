"""What a launcher starts elsewhere: a verb of the command line with the configuration that its arguments make.

The arguments are parsed here and now, so that a mistake in them ends in a sentence before a job waits in a queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from electra.config import FinetuneConfig, PretrainConfig

Verb = Literal["pretrain", "finetune"]


@dataclass(frozen=True)
class Job:
    """`electra VERB ARGUMENTS...`"""

    verb: Verb
    arguments: tuple[str, ...]
    config: PretrainConfig | FinetuneConfig

    def __post_init__(self) -> None:
        if self.config.out == Path():
            raise ValueError(f"launch needs --out, the folder that {self.verb} writes")
        if isinstance(self.config, FinetuneConfig) and self.config.overwrite:
            raise ValueError("--overwrite would undo at each restart what the job has done: remove --out yourself")

    @property
    def data(self) -> tuple[str, ...]:
        """Folders or URLs of the text, or of the task."""
        given = self.config.data
        return given if isinstance(given, tuple) else (str(given),)

    @property
    def begin(self) -> str:
        """The model whose weights it begins with; empty if there is none."""
        return self.config.init if isinstance(self.config, PretrainConfig) else self.config.model

    def require_divisible(self, processes: int) -> None:
        """ValueError for a batch of a pre-training that does not divide, as the run itself would say hours later."""
        if isinstance(self.config, FinetuneConfig):
            return
        loop = self.config.loop
        for batch in [phase.batch_size or loop.batch_size for phase in self.config.phases] or [loop.batch_size]:
            if batch % processes:
                raise ValueError(f"--batch-size {batch} does not divide by the {processes} processes of the job")
