"""What a run trains, by `objective.objective` and `objective.generator`: the model and the shapes of its networks.

Both models take a micro-batch and the counts of the global batch and give a loss and sums for the log, so that the
training loop need not know which one it has. `rtd.step_metrics` turns the sums of either into metrics.
"""

from __future__ import annotations

from electra.config import ModelConfig, ObjectiveConfig
from electra.encoder import EncoderConfig
from electra.mlm import MaskedLM
from electra.rtd import ReplacedTokenDetection, discriminator_config, generator_config

PretrainingModel = ReplacedTokenDetection | MaskedLM


def make_model(model: ModelConfig, objective: ObjectiveConfig, vocab_size: int) -> PretrainingModel:
    """The model of a run with fresh weights, drawn from torch's generator."""
    kind = MaskedLM if objective.objective == "masked-lm" else ReplacedTokenDetection
    return kind(model, objective, vocab_size)


def network_shapes(model: ModelConfig, objective: ObjectiveConfig, vocab_size: int) -> dict[str, EncoderConfig]:
    """The networks through which each token goes, under the names of the folders to which they are exported."""
    shape = discriminator_config(model, vocab_size)
    if objective.objective == "masked-lm":
        return {"masked_lm": shape}
    shapes = {"discriminator": shape}
    if objective.generator != "uniform":
        shapes["generator"] = generator_config(model, vocab_size, objective.generator)
    return shapes
