"""One ELECTRA network in memory, under Hugging Face's names: what each reader returns and each writer takes.

    Google TF1, NVIDIA TF2, AWS, tf_model.h5, Hugging Face -> Network -> Hugging Face folder, tf_model.h5, ONNX, a run

Hugging Face's names are the common tongue because every format in use today converts to them; our own fused layout
exists only inside the program (`hf.py`). Shapes are those of torch: a dense weight is (out, in).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from electra.encoder import EncoderConfig

Tensors = dict[str, Tensor]

WORDS = "electra.embeddings.word_embeddings.weight"
OUTPUT = "generator_lm_head.weight"  # the matrix of a generator's logits, in a network only if it is not WORDS


@dataclass(frozen=True)
class Network:
    """Encoder and head of one network."""

    source: str  # where it was read, for messages
    architecture: str  # Hugging Face's class: ElectraForPreTraining, ElectraForMaskedLM, ...
    config: dict[str, Any]  # config.json
    tensors: Tensors  # Hugging Face's names: electra.embeddings..., and those of the head

    @property
    def own_output(self) -> bool:
        """A generator whose output matrix is not its word table: it has the tensor OUTPUT."""
        return self.architecture == "ElectraForMaskedLM" and self.config.get("tie_word_embeddings") is False


def infer_config(tensors: Tensors, source: str, num_heads: int = 0) -> EncoderConfig:
    """The shape of an encoder from its tensors alone.

    The number of heads leaves no trace in the weights: without `num_heads` it is one a 64 units of width, at least
    one, which is the rule of Google's code and of every published ELECTRA. ValueError names a tensor that is missing.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise ValueError(f"{source} lacks the tensor {name}: it is not a complete ELECTRA model")
        return tuple(tensors[name].shape)

    vocab_size, embedding_size = shape("electra.embeddings.word_embeddings.weight")
    layers = {int(match[1]) for name in tensors if (match := re.match(r"electra\.encoder\.layer\.(\d+)\.", name))}
    if layers != set(range(len(layers))) or not layers:
        raise ValueError(f"{source} has the layers {sorted(layers)}: some are missing, so it is not a complete model")
    intermediate_size, hidden_size = shape("electra.encoder.layer.0.intermediate.dense.weight")
    num_heads = num_heads or max(1, hidden_size // 64)
    if hidden_size % num_heads:
        raise ValueError(f"{source}: hidden size {hidden_size} is not a multiple of {num_heads} attention heads")
    return EncoderConfig(
        vocab_size=vocab_size,
        embedding_size=embedding_size,
        hidden_size=hidden_size,
        num_layers=len(layers),
        num_heads=num_heads,
        intermediate_size=intermediate_size,
        max_positions=shape("electra.embeddings.position_embeddings.weight")[0],
        type_vocab_size=shape("electra.embeddings.token_type_embeddings.weight")[0],
    )
