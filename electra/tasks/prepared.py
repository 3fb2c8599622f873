"""What fine-tuning knows of a task: one interface, which each kind of task fills in.

    catalogue (a named task) + files -> sentences/ | tagging/ | questions/ prepared.py -> `Prepared` -> finetune.py

A *row* is what the model reads at once: an example of a sentence task, a window of a long sequence or passage. Rows of
training are chosen by number, outputs of the model are arrays over rows (so that those of several models can be
averaged), and only the task knows how they become metrics, answers and files. Letters: R rows, B rows of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from electra.encoder import EncoderConfig
from electra.interop.hf import Pretrained
from electra.runtime import Runtime

Outputs = dict[str, np.ndarray]
"""What a model gives for the rows of a split, by name; the first axis of each is the row, in the order of the split."""


class TaskModel(Protocol):
    """An `nn.Module` with an encoder and a head; called with (batch, totals) it gives the loss and metric sums."""

    encoder: nn.Module
    head: nn.Module


@dataclass(frozen=True)
class Export:
    """How a fine-tuned model is written as a model folder."""

    architecture: str
    """The class of transformers that loads it."""
    head: dict[str, Tensor]
    """The tensors beside the encoder's, under the names of that class."""
    config: dict[str, Any] = field(default_factory=dict)
    """Further entries of config.json: id2label, problem_type, what `electra predict` has to know."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that the class has no place for, for task_heads.safetensors."""


class NamedTask(Protocol):
    """What fine-tuning knows of a task without its data."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def epochs(self) -> float:
        """Passes over the training data in the paper's recipe (table 7)."""


class Prepared(Protocol):
    """A task with its files read and encoded for one model."""

    @property
    def task(self) -> NamedTask: ...

    @property
    def metric(self) -> str:
        """The metric on dev that names the best model; higher is better."""

    @property
    def notes(self) -> list[str]:
        """Sentences about what was decided while reading; they are printed and stand in the results."""

    @property
    def splits(self) -> tuple[str, ...]:
        """ "train", then those that can be scored ("dev", "test", ...) or only answered (no labels)."""

    @property
    def lengths(self) -> np.ndarray:
        """(R,) tokens of each training row."""

    def size(self, split: str) -> int:
        """Examples (not rows) in a split."""

    def is_labelled(self, split: str) -> bool:
        """Whether `score` has something to compare with."""

    def describe(self, split: str) -> str:
        """A line of the announcement: examples, labels, tokens, what was cut."""

    def facts(self) -> dict[str, Any]:
        """What results.json and the model card say of the task: {"labels", ..., "pipeline", "answers"}.

        "pipeline" names the pipeline of transformers that loads the model; empty: `electra predict` alone does.
        "answers" goes on after "It answers with ". Where there is no pipeline but a class of transformers, "auto_class"
        is its name and "tag" what Hugging Face calls the kind of task.
        """

    def make_model(self, encoder: EncoderConfig) -> nn.Module:
        """A `TaskModel` with fresh weights."""

    def load_head(self, model: nn.Module, pretrained: Pretrained) -> None:
        """Give `model` the head of a fine-tuned folder. ValueError if it has none of this kind, or of other labels."""

    def batch(self, rows: np.ndarray, seed: int) -> Any:
        """The training rows `rows` as a `train.MicroBatch` whose dropout follows from `seed`."""

    def totals(self, rows: np.ndarray) -> dict[str, float]:
        """The counts that normalise the loss of a step on these training rows."""

    def predict(self, model: nn.Module, split: str, runtime: Runtime) -> Outputs:
        """What the model, in evaluation mode, gives for a split."""

    def score(self, outputs: Outputs, split: str) -> dict[str, float]:
        """The metrics of a labelled split."""

    def can_average(self) -> bool:
        """Whether the mean of the outputs of several models is an output too."""

    def write_predictions(self, outputs: Outputs, split: str, folder: Path) -> None:
        """Write the answers of a split as files in `folder`, in the format that its evaluation takes."""

    def export(self, model: nn.Module) -> Export:
        """How `model` is written."""


def mean_outputs(outputs: list[Outputs]) -> Outputs:
    """The mean over several models of the same rows."""
    return {name: np.mean([each[name] for each in outputs], axis=0) for name in outputs[0]}
