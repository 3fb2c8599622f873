"""Masked LM alone: one network fills the masked positions, as BERT does without next-sentence prediction.

    masked row -> embeddings -> body -> logits at the K masked positions -> cross entropy

This is the original's `electra_objective=false` (google-research/electra, run_pretraining.py): the network has the
size of the discriminator, the masks are those of ELECTRA, 85 % [MASK] and never a random token. It is what
replaced-token detection has to beat (Clark et al. 2020, section 3). Letters as in rtd.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from electra.config import ModelConfig, ObjectiveConfig
from electra.encoder import Body, Embeddings, Encoder, initialize
from electra.rtd import MaskedLMHead, RTDBatch, discriminator_config, predict_slots
from electra.varlen import Pieces


@dataclass(frozen=True)
class MaskedLMOutput:
    """What the network said about a micro-batch."""

    logits: Tensor  # (B, K, V)
    token_losses: Tensor  # (B, K) cross entropy of each slot, unweighted


class MaskedLM(nn.Module):
    """An encoder of the discriminator's shape with the head of a generator."""

    def __init__(self, model: ModelConfig, objective: ObjectiveConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = discriminator_config(model, vocab_size)
        self.objective = objective
        self.embeddings = Embeddings(self.config)
        self.body = Body(self.config)
        self.head = MaskedLMHead(self.config)
        initialize(self, model.position_init)

    def run(self, batch: RTDBatch, attention_mask: Tensor | Pieces | None = None) -> MaskedLMOutput:
        """The network on a micro-batch."""
        if attention_mask is None:
            attention_mask = batch.attention_mask()
        return MaskedLMOutput(*predict_slots(self.embeddings, self.body, self.head, batch, attention_mask))

    def forward(self, batch: RTDBatch, totals: Mapping[str, Tensor | float]) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's part of the step's loss, and sums for the log.

        `totals` are counts over the whole global batch; of them "predictions" (used slots) is read. The loss is
        generator_weight * slot losses / predictions.
        """
        out = self.run(batch)
        masked_lm_loss = (out.token_losses * batch.weights).sum() / totals["predictions"]
        loss = self.objective.generator_weight * masked_lm_loss
        with torch.no_grad():
            sums = {
                "loss": loss.detach(),
                "masked_lm_loss": masked_lm_loss.detach(),
                "predictions": batch.weights.sum(),
                "masked_lm_correct": ((out.logits.argmax(-1) == batch.token_ids) * batch.weights).sum(),
            }
        return loss, sums

    def encoder(self) -> Encoder:
        """The network without its head, as an `Encoder` that shares this model's parameters."""
        encoder = Encoder(self.config)
        encoder.embeddings, encoder.body = self.embeddings, self.body
        return encoder
