"""The models of sentence tasks: encoder and one of Hugging Face's heads on the first token.

    (B, L) ids -> Encoder -> state of [CLS] (B, H) -> dropout, dense, GELU, dropout, out_proj -> (B, C) logits
                                                   -> dense, GELU, dropout, dense -> (B, 1), a row for each choice

The head is Hugging Face's, with a dense layer and a GELU that Google's fine-tuning head does not have
(google-research/electra finetune/classification/classification_tasks.py has one dense), because the result is to
load as ElectraForSequenceClassification. C classes have a cross-entropy, C labels that may come together a binary one
each; a regression is C = 1 with squared error on labels scaled to [0, 1], as in Google's code for STS-B, and is
exported on the labels' own scale (`head_tensors`). Multiple choice is a cross-entropy over the logits of the choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra.encoder import Encoder, EncoderConfig, initialize, key_mask
from electra.tasks.features import Features, SentenceBatch, collate, in_turn, length_batches


class ClassificationHead(nn.Module):
    """Hugging Face's ElectraClassificationHead: states of the first token (B, H) -> (B, C)."""

    def __init__(self, hidden_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, first: Tensor) -> Tensor:
        return self.out_proj(self.dropout(F.gelu(self.dense(self.dropout(first)))))


class MultipleChoiceHead(nn.Module):
    """States of the first token (..., H) of a question with one choice -> one logit: (..., 1).

    That of ElectraForMultipleChoice (`ElectraSequenceSummary` and a dense layer), its dropout after the GELU.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.summary = nn.Linear(hidden_size, hidden_size)
        self.classifier = nn.Linear(hidden_size, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, first: Tensor) -> Tensor:
        found: Tensor = self.classifier(self.dropout(F.gelu(self.summary(first))))
        return found


@dataclass(frozen=True)
class Scale:
    """The affine map between the labels of a regression and the [0, 1] of its training."""

    low: float = 0.0
    high: float = 1.0

    def to_unit(self, values: np.ndarray) -> np.ndarray:
        return ((values - self.low) / (self.high - self.low)).astype(np.float32)

    def to_labels(self, values: np.ndarray) -> np.ndarray:
        return values * (self.high - self.low) + self.low


class SequenceClassifier(nn.Module):
    """An encoder with a head for classes, several labels at once, or a value."""

    choices = 1
    """Rows of a batch that belong to one example."""

    def __init__(self, config: EncoderConfig, outputs: int) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.head = ClassificationHead(config.hidden_size, outputs, config.dropout)
        initialize(self)

    def logits(self, batch: SentenceBatch) -> Tensor:
        """(B, C)."""
        return _head_logits(self.encoder, self.head, batch)

    def forward(self, batch: SentenceBatch, totals: Mapping[str, Tensor | float]) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's part of the step's mean loss, and its sums; `totals["examples"]` is the global batch.

        Where examples have weights, that is the sum of their weights, as in torch's weighted cross-entropy.
        """
        return _loss(self.logits(batch), batch, totals)

    def head_tensors(self, scale: Scale | None = None) -> dict[str, Tensor]:
        """The head's tensors under Hugging Face's names.

        `scale` of a regression is folded into `out_proj`, so that the exported model answers on the labels' scale.
        """
        tensors = {f"classifier.{name}": tensor.detach().clone() for name, tensor in self.head.state_dict().items()}
        if scale is not None:
            tensors["classifier.out_proj.weight"] *= scale.high - scale.low
            tensors["classifier.out_proj.bias"] *= scale.high - scale.low
            tensors["classifier.out_proj.bias"] += scale.low
        return tensors


class ChoiceClassifier(nn.Module):
    """An encoder that gives each of an example's choices, with its question, one logit."""

    def __init__(self, config: EncoderConfig, choices: int) -> None:
        super().__init__()
        self.choices = choices
        self.encoder = Encoder(config)
        self.head = MultipleChoiceHead(config.hidden_size, config.dropout)
        initialize(self)

    def logits(self, batch: SentenceBatch) -> Tensor:
        """(B, C) of a batch of B * C rows, those of an example one after the other."""
        return _head_logits(self.encoder, self.head, batch).view(-1, self.choices)

    def forward(self, batch: SentenceBatch, totals: Mapping[str, Tensor | float]) -> tuple[Tensor, dict[str, Tensor]]:
        """As `SequenceClassifier.forward`."""
        return _loss(self.logits(batch), batch, totals)


def _head_logits(encoder: Encoder, head: nn.Module, batch: SentenceBatch) -> Tensor:
    """The head is fp32 under autocast too: in bf16 nearby predictions would tie, which ruins a ranking."""
    states = encoder(batch.input_ids, batch.segment_ids, attention_mask=key_mask(batch.valid), first_only=True)
    with torch.autocast(states.device.type, enabled=False):
        found: Tensor = head(states[:, 0].float())
    return found


def _loss(
    logits: Tensor, batch: SentenceBatch, totals: Mapping[str, Tensor | float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy, squared error, or the mean over labels of binary cross-entropies, as the labels' shape tells."""
    assert batch.labels is not None
    if batch.labels.dim() == 2:
        losses = F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none").mean(-1)
    elif batch.labels.is_floating_point():
        losses = F.mse_loss(logits[:, 0], batch.labels, reduction="none")
    else:
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
    if batch.weights is not None:
        losses = losses * batch.weights
    loss = losses.sum() / totals["examples"]
    return loss, {"loss": loss.detach()}


@torch.inference_mode()
def predict_logits(
    model: SequenceClassifier | ChoiceClassifier, features: Features, batch_tokens: int = 0
) -> np.ndarray:
    """Logits (N, C) of all examples in their own order; leaves the model in evaluation mode.

    `batch_tokens` as `length_batches` has it.
    """
    model.eval()
    device = next(model.parameters()).device
    lengths = features.lengths.reshape(-1, model.choices).max(axis=1)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    batches = length_batches(lengths * model.choices, device, batch_tokens)
    for rows in in_turn(batches, lengths):
        batch = collate(features, choice_rows(rows, model.choices)).to(device)
        found.append((rows, model.logits(batch).cpu().numpy()))
    out = np.empty((len(lengths), found[0][1].shape[1]), dtype=np.float32)
    for rows, logits in found:
        out[rows] = logits
    return out


def choice_rows(examples: np.ndarray, choices: int) -> np.ndarray:
    """The rows of examples that have `choices` each, one after the other."""
    return np.asarray((examples[:, None] * choices + np.arange(choices)).ravel())
