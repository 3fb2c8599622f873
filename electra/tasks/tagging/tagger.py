"""The model of a tagging task: encoder, dropout, one dense layer on every token.

    (B, L) ids -> Encoder -> states (B, L, H) -> dropout, dense -> (B, L, C) logits

That is Hugging Face's ElectraForTokenClassification, which loads the result, and Google's tagging head with dropout
(google-research/electra finetune/tagging/tagging_tasks.py has none, and gives all tokens segment 1, where
Hugging Face's pipeline and we give 0). The loss is a cross-entropy over the deciding pieces, which may be
weighted by class. Letters: B rows, L tokens, H hidden size, C classes, P deciding pieces.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra.encoder import Encoder, EncoderConfig, initialize, key_mask
from electra.tasks.features import SentenceBatch, in_turn, length_batches
from electra.tasks.tagging.features import IGNORED, TagFeatures, tag_batch


class TaggingHead(nn.Module):
    """Hugging Face's head of ElectraForTokenClassification: states (..., H) -> (..., C)."""

    def __init__(self, hidden_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, outputs)

    def forward(self, states: Tensor) -> Tensor:
        return self.classifier(self.dropout(states))


class TokenTagger(nn.Module):
    """An encoder that gives each token one of C classes; `weights` (C,) are those of the classes in the loss."""

    def __init__(self, config: EncoderConfig, outputs: int, weights: np.ndarray | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.head = TaggingHead(config.hidden_size, outputs, config.dropout)
        initialize(self)
        values = None if weights is None else torch.from_numpy(weights.astype(np.float32))
        self.register_buffer("weights", values, persistent=False)
        self.weights: Tensor | None

    def states(self, batch: SentenceBatch) -> Tensor:
        """(B, L, H) in fp32, as the head wants them under autocast too."""
        return self.encoder(batch.input_ids, batch.segment_ids, attention_mask=key_mask(batch.valid)).float()

    def logits(self, batch: SentenceBatch) -> Tensor:
        """(B, L, C)"""
        states = self.states(batch)
        with torch.autocast(states.device.type, enabled=False):
            return self.head(states)

    def forward(self, batch: SentenceBatch, totals: Mapping[str, Tensor | float]) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's part of the step's mean loss, and its sums.

        `batch.labels` (B, L) are classes, IGNORED where none is decided; `totals["weight"]` is the global batch's sum
        of the weights of its labels, their number where classes have none.
        """
        assert batch.labels is not None
        logits = self.logits(batch)
        losses = F.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), self.weights, ignore_index=IGNORED, reduction="sum"
        )
        loss = losses / totals["weight"]
        return loss, {"loss": loss.detach()}

    def head_tensors(self) -> dict[str, Tensor]:
        """The head's tensors under Hugging Face's names."""
        return {name: tensor.detach().clone() for name, tensor in self.head.state_dict().items()}


@torch.inference_mode()
def tag_logits(model: TokenTagger, features: TagFeatures, batch_tokens: int = 0) -> np.ndarray:
    """Logits (P, C) of the deciding pieces in their order; leaves the model in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    out = np.empty((len(features.positions), model.head.classifier.out_features), dtype=np.float32)
    lengths = features.rows.lengths
    for rows in in_turn(length_batches(lengths, device, batch_tokens), lengths):
        logits = model.logits(tag_batch(features, rows).to(device)).cpu().numpy()
        for place, row in enumerate(rows):
            pieces = slice(features.first_piece[row], features.first_piece[row + 1])
            out[pieces] = logits[place, features.positions[pieces]]
    return out
