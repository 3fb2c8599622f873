"""The model of a sentence task: encoder and Hugging Face's ElectraClassificationHead on the first token.

    (B, L) ids -> Encoder -> state of [CLS] (B, H) -> dropout, dense, GELU, dropout, out_proj -> (B, C) logits

The head is Hugging Face's, with a dense layer and a GELU that Google's fine-tuning head does not have
(google-research/electra finetune/classification/classification_tasks.py has one dense), because the result is to
load as ElectraForSequenceClassification. C classes have a cross-entropy; a regression is C = 1 with squared error on
labels scaled to [0, 1], as in Google's code for STS-B, and is exported on the labels' own scale (`head_tensors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra.encoder import Encoder, EncoderConfig, initialize, key_mask
from electra.tasks.features import Features, SentenceBatch, collate, sorted_batches

EVALUATION_ROWS = 64
"""Rows of an evaluation batch."""


class ClassificationHead(nn.Module):
    """Hugging Face's ElectraClassificationHead: states of the first token (B, H) -> (B, C)."""

    def __init__(self, hidden_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, first: Tensor) -> Tensor:
        return self.out_proj(self.dropout(F.gelu(self.dense(self.dropout(first)))))


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
    """An encoder with a classification or regression head."""

    def __init__(self, config: EncoderConfig, outputs: int) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.head = ClassificationHead(config.hidden_size, outputs, config.dropout)
        initialize(self)

    def logits(self, batch: SentenceBatch) -> Tensor:
        """(B, C). The head is fp32 under autocast too: in bf16 nearby predictions would tie, which ruins a ranking."""
        states = self.encoder(batch.input_ids, batch.segment_ids, attention_mask=key_mask(batch.valid))
        with torch.autocast(states.device.type, enabled=False):
            return self.head(states[:, 0].float())

    def forward(self, batch: SentenceBatch, totals: Mapping[str, Tensor | float]) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's part of the step's mean loss, and its sums; `totals["examples"]` is the global batch."""
        assert batch.labels is not None
        logits = self.logits(batch)
        if batch.labels.is_floating_point():
            losses = F.mse_loss(logits[:, 0], batch.labels, reduction="none")
        else:
            losses = F.cross_entropy(logits, batch.labels, reduction="none")
        loss = losses.sum() / totals["examples"]
        return loss, {"loss": loss.detach()}

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


@torch.inference_mode()
def predict_logits(model: SequenceClassifier, features: Features, batch_size: int = EVALUATION_ROWS) -> np.ndarray:
    """Logits (N, C) of all examples in their own order; leaves the model in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for rows in sorted_batches(features.lengths, batch_size):
        found.append((rows, model.logits(collate(features, rows).to(device)).cpu().numpy()))
    out = np.empty((len(features.lengths), found[0][1].shape[1]), dtype=np.float32)
    for rows, logits in found:
        out[rows] = logits
    return out
