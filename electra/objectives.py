"""What a run trains, by `objective.objective` and `objective.generator`: the model and the shapes of its networks.

All models take a micro-batch and the counts of the global batch and give a loss and sums for the log, so that the
training loop need not know which one it has. `rtd.step_metrics` turns the sums of any into metrics.
"""

from __future__ import annotations

from electra.config import ModelConfig, ObjectiveConfig
from electra.electric import TwoTowerDetection
from electra.encoder import EncoderConfig
from electra.mlm import MaskedLM
from electra.rtd import ReplacedTokenDetection, discriminator_config, generator_config

PretrainingModel = ReplacedTokenDetection | TwoTowerDetection | MaskedLM


def make_model(model: ModelConfig, objective: ObjectiveConfig, vocab_size: int) -> PretrainingModel:
    """The model of a run with fresh weights, drawn from torch's generator."""
    if objective.objective == "masked-lm":
        return MaskedLM(model, objective, vocab_size)
    kind = TwoTowerDetection if objective.generator == "two-tower" else ReplacedTokenDetection
    return kind(model, objective, vocab_size)


def network_shapes(model: ModelConfig, objective: ObjectiveConfig, vocab_size: int) -> dict[str, EncoderConfig]:
    """The networks through which each token goes, under the names of the folders to which they are exported.

    The two towers of a generator, which are not exported, are "left_to_right" and "right_to_left".
    """
    shape = discriminator_config(model, vocab_size)
    if objective.objective == "masked-lm":
        return {"masked_lm": shape}
    shapes = {"discriminator": shape}
    if objective.generator != "uniform":
        generator = generator_config(model, vocab_size, objective.generator)
        towers = ("left_to_right", "right_to_left") if objective.generator == "two-tower" else ("generator",)
        shapes |= dict.fromkeys(towers, generator)
    return shapes


def predicted_positions(objective: ObjectiveConfig, seq_len: int) -> int:
    """Positions of a row at which logits over the vocabulary are computed."""
    if objective.generator == "uniform":
        return 0
    return seq_len if objective.generator == "two-tower" else objective.max_predictions(seq_len)
