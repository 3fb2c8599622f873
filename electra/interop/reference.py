"""ELECTRA's formulas once more, written plainly on Hugging Face's tensors in double precision: what a conversion is
checked against.

Nothing is fused, nothing is ours: one line a formula of transformers' models/electra/modeling_electra.py (Clark et al.
2020, section 3; Devlin et al. 2019). Tensors are widened one at a time, so that a large model costs no second copy.
Letters: B rows, L tokens, H hidden size, A attention heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from electra.interop.network import Network


@dataclass(frozen=True)
class Probe:
    """A batch to run through a source and through what it was converted to."""

    input_ids: Tensor  # (B, L)
    attention_mask: Tensor  # (B, L), 0 is padding
    token_type_ids: Tensor  # (B, L)

    @classmethod
    def of(cls, network: Network) -> Probe:
        """Two rows of random tokens, one of two segments and one that ends in padding; the same for every call."""
        length = min(32, network.config["max_position_embeddings"])
        random = torch.Generator().manual_seed(0)
        input_ids = torch.randint(network.config["vocab_size"], (2, length), generator=random)
        attention_mask = torch.ones_like(input_ids)
        attention_mask[1, length * 3 // 4 :] = 0
        token_type_ids = torch.zeros_like(input_ids)
        if network.config.get("type_vocab_size", 2) > 1:
            token_type_ids[0, length // 2 :] = 1
        return cls(input_ids, attention_mask, token_type_ids)


@torch.no_grad()
def reference_results(network: Network, probe: Probe) -> tuple[Tensor, ...]:
    """What transformers' class of this architecture returns for the probe, in double precision.

    Multiple choice takes the rows of the probe as the choices of one question. Shapes as in `HeadedEncoder`.
    """
    states = _encode(network, probe)
    if network.architecture == "ElectraModel":
        return (states,)
    if network.architecture == "ElectraForPreTraining":
        hidden = F.gelu(_dense(network, "discriminator_predictions.dense", states))
        return (_dense(network, "discriminator_predictions.dense_prediction", hidden).squeeze(-1),)
    if network.architecture == "ElectraForMaskedLM":
        hidden = F.gelu(_dense(network, "generator_predictions.dense", states))
        hidden = _norm(network, "generator_predictions.LayerNorm", hidden)
        words = "electra.embeddings.word_embeddings.weight"
        output = "generator_lm_head.weight" if "generator_lm_head.weight" in network.tensors else words
        return (hidden @ _get(network, output).T + _get(network, "generator_lm_head.bias"),)
    if network.architecture == "ElectraForSequenceClassification":
        hidden = F.gelu(_dense(network, "classifier.dense", states[:, 0]))
        return (_dense(network, "classifier.out_proj", hidden),)
    if network.architecture == "ElectraForTokenClassification":
        return (_dense(network, "classifier", states),)
    if network.architecture == "ElectraForQuestionAnswering":
        return _dense(network, "qa_outputs", states).unbind(-1)
    assert network.architecture == "ElectraForMultipleChoice"
    hidden = F.gelu(_dense(network, "sequence_summary.summary", states[:, 0]))
    return (_dense(network, "classifier", hidden).T,)


def _encode(network: Network, probe: Probe) -> Tensor:
    """The last hidden states (B, L, H)."""
    config = network.config
    batch, length = probe.input_ids.shape
    heads = config["num_attention_heads"]
    table = "electra.embeddings.{}_embeddings.weight"
    x = F.embedding(probe.input_ids, network.tensors[table.format("word")]).double()
    x = x + _get(network, table.format("position"))[:length]
    x = x + F.embedding(probe.token_type_ids, _get(network, table.format("token_type")))
    x = _norm(network, "electra.embeddings.LayerNorm", x)
    if config["embedding_size"] != config["hidden_size"]:
        x = _dense(network, "electra.embeddings_project", x)
    hidden_from = torch.where(probe.attention_mask.bool(), 0.0, float("-inf")).double()[:, None, None, :]
    for index in range(config["num_hidden_layers"]):
        layer = f"electra.encoder.layer.{index}"
        query, key, value = (
            _dense(network, f"{layer}.attention.self.{name}", x).view(batch, length, heads, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + hidden_from
        context = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, -1)
        attended = _dense(network, f"{layer}.attention.output.dense", context)
        x = _norm(network, f"{layer}.attention.output.LayerNorm", x + attended)
        inner = F.gelu(_dense(network, f"{layer}.intermediate.dense", x))
        x = _norm(network, f"{layer}.output.LayerNorm", x + _dense(network, f"{layer}.output.dense", inner))
    return x


def _get(network: Network, name: str) -> Tensor:
    return network.tensors[name].double()


def _dense(network: Network, name: str, x: Tensor) -> Tensor:
    return x @ _get(network, f"{name}.weight").T + _get(network, f"{name}.bias")


def _norm(network: Network, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    epsilon = network.config.get("layer_norm_eps", 1e-12)
    return centred / (variance + epsilon).sqrt() * _get(network, f"{name}.weight") + _get(network, f"{name}.bias")
