"""What prediction knows of a fine-tuned model: one interface, which each kind of task fills in.

    `read` (inputs: options, file, standard input) -> chunks -> `encode` (token ids) -> `answer` (the models)
                                                                -> `Answer`s -> lines of TSV or JSON -> predict.py

`encode` needs the processor alone, so that predict.py calls it for the next chunk while the models answer this one.
Several models of one task answer together: their logits are averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from torch import nn

from electra.config import PredictConfig
from electra.interop.hf import Pretrained


class Answer(Protocol):
    """What is said about one input."""

    def tsv(self) -> str:
        """One line or several, each with the columns that `Predictor.header` names and a line end."""

    def row(self) -> dict[str, Any]:
        """The same and more, as a JSON object."""


class Predictor(Protocol):
    """Fine-tuned models that are ready to answer; a call with inputs gives their answers, in their order."""

    @property
    def models(self) -> Sequence[nn.Module]:
        """Those that answer."""

    @property
    def header(self) -> str:
        """The first line of TSV with its end, or nothing."""

    def read(self, config: PredictConfig) -> Iterable[Any]:
        """The inputs that the options name, one after the other; ValueError for what cannot be read."""

    def encode(self, inputs: Sequence[Any], /) -> Any:
        """Inputs as the models take them."""

    def answer(self, encoded: Any, /) -> Sequence[Answer]:
        """An answer for each of the inputs that were encoded."""

    def __call__(self, inputs: Sequence[Any], /) -> Sequence[Answer]:
        """`encode` and `answer`."""


def check_alike(models: Sequence[Pretrained], labels: Sequence[Sequence[str]]) -> None:
    """ValueError unless all models have the first one's vocabulary and labels, without which means mean nothing."""
    first = models[0]
    for other, names in zip(models[1:], labels[1:], strict=True):
        if other.vocabulary.sha256 != first.vocabulary.sha256:
            raise ValueError(f"{other.source} has another vocabulary than {first.source}: they cannot answer together")
        if tuple(names) != tuple(labels[0]):
            raise ValueError(f"{other.source} has other labels than {first.source}: they cannot answer together")
