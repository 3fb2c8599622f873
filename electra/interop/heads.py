"""The heads that transformers knows for ELECTRA, as the modules that train here, and their names in a file.

    hidden states (B, L, H) of the `Encoder` -> head -> logits

The head modules are those of `rtd.py` and `tasks/sentences/classifier.py`, so that what is exported is the code that
was trained. A head is found by the class that `config.json` names under "architectures". Formulas follow transformers
models/electra/modeling_electra.py. Letters: B rows, L tokens, H hidden size, V vocabulary, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra.encoder import Encoder, EncoderConfig, key_mask
from electra.interop.network import Tensors
from electra.rtd import MaskedLMHead, ReplacedTokenHead
from electra.tasks.sentences.classifier import ClassificationHead, MultipleChoiceHead


@dataclass(frozen=True)
class Head:
    """A class of transformers: how its head is made, and its modules' names here -> in a file."""

    make: Callable[[EncoderConfig, int], nn.Module]
    """From the encoder's shape and the number of labels."""
    names: dict[str, str]
    outputs: tuple[str, ...] = ("logits",)
    """What transformers and Optimum call the results."""


HEADS: dict[str, Head] = {
    "ElectraModel": Head(lambda config, labels: nn.Identity(), {}, ("last_hidden_state",)),
    "ElectraForPreTraining": Head(
        lambda config, labels: ReplacedTokenHead(config),
        {"dense": "discriminator_predictions.dense", "classifier": "discriminator_predictions.dense_prediction"},
    ),
    "ElectraForMaskedLM": Head(
        lambda config, labels: MaskedLMHead(config),
        {
            "dense": "generator_predictions.dense",
            "norm": "generator_predictions.LayerNorm",
            "bias": "generator_lm_head.bias",
        },
    ),
    "ElectraForSequenceClassification": Head(
        lambda config, labels: ClassificationHead(config.hidden_size, labels, config.dropout),
        {"dense": "classifier.dense", "out_proj": "classifier.out_proj"},
    ),
    "ElectraForTokenClassification": Head(
        lambda config, labels: nn.Linear(config.hidden_size, labels),
        {"weight": "classifier.weight", "bias": "classifier.bias"},
    ),
    "ElectraForQuestionAnswering": Head(
        lambda config, labels: nn.Linear(config.hidden_size, labels),
        {"weight": "qa_outputs.weight", "bias": "qa_outputs.bias"},
        ("start_logits", "end_logits"),
    ),
    "ElectraForMultipleChoice": Head(
        lambda config, labels: MultipleChoiceHead(config.hidden_size, config.dropout),
        {"summary": "sequence_summary.summary", "classifier": "classifier"},
    ),
}


def head_to_hf(state: Tensors, architecture: str, config: EncoderConfig) -> Tensors:
    """The state dict of a head module under the names of a file, vocabulary padding cut off; views, not copies."""
    renamed = {_theirs(name, architecture): value for name, value in state.items()}
    if architecture == "ElectraForMaskedLM":
        renamed["generator_lm_head.bias"] = renamed["generator_lm_head.bias"][: config.vocab_size]
    return renamed


def head_from_hf(tensors: Tensors, architecture: str, config: EncoderConfig) -> Tensors:
    """The state dict of the head module of `architecture` out of the tensors of a checked network."""
    with torch.device("meta"):
        module = HEADS[architecture].make(config, 1)
    state = {name: tensors[_theirs(name, architecture)] for name in module.state_dict()}
    if architecture == "ElectraForMaskedLM":
        state["bias"] = F.pad(state["bias"], (0, config.padded_vocab_size - config.vocab_size))
    return state


def _theirs(name: str, architecture: str) -> str:
    names = HEADS[architecture].names
    if name in names:
        return names[name]
    module, _, kind = name.rpartition(".")
    return f"{names[module]}.{kind}"


class HeadedEncoder(nn.Module):
    """An encoder with the head of one of transformers' classes; inputs and results are theirs.

    `own_output` gives a generator an output matrix of its own, `output` (padded V, E), beside the word table.
    """

    def __init__(self, config: EncoderConfig, architecture: str, labels: int, own_output: bool = False) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = Encoder(config)
        self.head = HEADS[architecture].make(config, labels)
        self.output: nn.Parameter | None = None
        if own_output:
            self.output = nn.Parameter(torch.zeros(config.padded_vocab_size, config.embedding_size))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        """(B, L) each, (B, choices, L) for multiple choice -> the results that `Head.outputs` names.

        last_hidden_state (B, L, H); logits (B, L) of pre-training, (B, L, V) of masked LM, (B, C) of sequence and
        (B, L, C) of token classification, (B, choices); start_logits and end_logits (B, L).
        """
        choices = input_ids.shape[:-1]
        if self.architecture == "ElectraForMultipleChoice":
            input_ids, attention_mask, token_type_ids = (
                ids.flatten(0, 1) for ids in (input_ids, attention_mask, token_type_ids)
            )
        valid = attention_mask > 0
        # A row of padding alone, which servers add to fill a batch, attends to itself: its softmax must not be empty.
        valid = valid | ~valid.any(-1, keepdim=True)
        hidden = self.encoder(input_ids, token_type_ids, attention_mask=key_mask(valid))
        if self.architecture == "ElectraForMaskedLM":
            return (self.head(hidden, self.encoder.embeddings.word.weight if self.output is None else self.output),)
        if self.architecture == "ElectraForSequenceClassification":
            return (self.head(hidden[:, 0]),)
        if self.architecture == "ElectraForMultipleChoice":
            return (self.head(hidden[:, 0]).reshape(choices),)
        if self.architecture == "ElectraForQuestionAnswering":
            start, end = self.head(hidden).unbind(-1)
            return start, end
        return (self.head(hidden),)
