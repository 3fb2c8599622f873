"""Replaced-token detection: generator + discriminator + joint loss (Clark et al. 2020, section 3).

    masked row -> generator -> tokens sampled at the K masked positions -> corrupted row -> discriminator
                     |                                                                          |
              masked-LM loss at K positions                          "was this token replaced?" at every token

The two networks share the embeddings (word, position, type and their LayerNorm) and nothing else; no gradient
flows through the sampling. Letters: B rows, L tokens, K predictions a row, E embedding size, V vocabulary.
Follows google-research/electra run_pretraining.py and pretrain/pretrain_helpers.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra.config import ModelConfig, ObjectiveConfig
from electra.encoder import Body, Embeddings, Encoder, EncoderConfig, LayerNorm, block_mask, initialize


@dataclass(frozen=True)
class RTDBatch:
    """A micro-batch of rows with their masks, as tensors."""

    input_ids: Tensor  # (B, L) the true tokens
    masked_input_ids: Tensor  # (B, L) with [MASK] where the generator has to guess
    segment_ids: Tensor  # (B, L) 0 or 1
    position_ids: Tensor  # (B, L) count from 0 in each piece
    piece_ids: Tensor  # (B, L) 1, 2, ... by piece; 0 is padding
    positions: Tensor  # (B, K) masked positions; 0 in unused slots
    weights: Tensor  # (B, K) 1 in used slots
    token_ids: Tensor  # (B, K) the true tokens there
    uniforms: Tensor  # (B, K) one random number a slot, in [0, 1)
    seed: int = 0  # for dropout: follows from (seed, step, first row), not from the device

    def part(self, rows: slice, seed: int = 0) -> RTDBatch:
        """Some of the rows."""
        tensors = {name: value[rows] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return RTDBatch(**tensors, seed=seed)

    def to(self, device: torch.device) -> RTDBatch:
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        return RTDBatch(**moved, seed=self.seed)


def discriminator_config(model: ModelConfig, vocab_size: int) -> EncoderConfig:
    """The discriminator's shape; the vocabulary comes from the store."""
    return EncoderConfig(
        vocab_size=vocab_size,
        embedding_size=model.embedding_size,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        intermediate_size=model.intermediate_size,
        max_positions=model.max_positions,
        dropout=model.dropout,
        attention_dropout=model.attention_dropout,
    )


def generator_config(model: ModelConfig, vocab_size: int) -> EncoderConfig:
    """The generator's shape: fractions of the discriminator's, heads of 64, embeddings as wide as the discriminator's.

    Rounds as run_pretraining.get_generator_config does.
    """
    hidden = round(model.hidden_size * model.generator_width)
    heads = (
        max(1, hidden // 64)
        if model.hidden_size == 64 * model.num_heads
        else max(1, round(model.num_heads * model.generator_width))
    )
    return dataclasses.replace(
        discriminator_config(model, vocab_size),
        hidden_size=hidden,
        num_layers=round(model.num_layers * model.generator_depth),
        num_heads=heads,
        intermediate_size=4 * hidden,
    )


class MaskedLMHead(nn.Module):
    """Hidden states -> logits over the vocabulary through the shared word table, with an own bias."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.vocab_size = config.vocab_size
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.norm = LayerNorm(config.embedding_size)
        self.bias = nn.Parameter(torch.zeros(config.padded_vocab_size))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """(..., H) and the table (padded V, E) -> fp32 logits (..., V), the padding cut off."""
        features = self.norm(F.gelu(self.dense(hidden)))
        return F.linear(features, table, self.bias)[..., : self.vocab_size].float()


class ReplacedTokenHead(nn.Module):
    """Hidden states -> one logit a token: above 0 means replaced."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        features = F.gelu(self.dense(hidden)).float()
        # In bf16 a logit near -2, where all begin, moves in steps of 1/64, and the first signal is smaller than that.
        with torch.autocast(hidden.device.type, enabled=False):
            return self.classifier(features).squeeze(-1)


@torch.no_grad()
def sample_tokens(
    logits: Tensor, uniforms: Tensor, temperature: float = 1.0, forbidden: Tensor | None = None
) -> Tensor:
    """Draw one token a slot from softmax(logits / temperature): (B, K, V), (B, K) -> (B, K).

    Inverts the cumulative distribution at one uniform number a slot. This is the distribution that the original
    draws by Gumbel-max, for which it makes V random numbers a slot; one number that the host drew from
    (seed, step) gives the same sample on every device and split, and is measured 3x cheaper.
    `forbidden` (B, K) takes these tokens out (disallow_correct). fp32 throughout.
    """
    logits = logits.float() / temperature
    if forbidden is not None:
        logits = logits.scatter(-1, forbidden[..., None], float("-inf"))
    cumulative = torch.softmax(logits, -1).cumsum(-1)
    # Scaled by the sum, which rounding leaves beside 1; `right` skips tokens of probability zero.
    threshold = (uniforms * cumulative[..., -1])[..., None].contiguous()
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)


def scatter_tokens(input_ids: Tensor, token_ids: Tensor, positions: Tensor) -> Tensor:
    """Write tokens (B, K) at positions (B, K) of rows (B, L); position 0, the unused slots, is never written.

    Where a position repeats (masking with replacement) the result is the floor of the mean of the ids, which is
    what pretrain_helpers.scatter_update of the original does. Without repeats this is a plain scatter.
    """
    sums = torch.zeros_like(input_ids).scatter_add(1, positions, token_ids)
    counts = torch.zeros_like(input_ids).scatter_add(1, positions, torch.ones_like(token_ids))
    written = counts > 0
    written[:, 0] = False
    return torch.where(written, sums // counts.clamp(min=1), input_ids)


@dataclass(frozen=True)
class RTDOutput:
    """Everything the two networks said about a micro-batch."""

    generator_logits: Tensor  # (B, K, V)
    token_losses: Tensor  # (B, K) cross entropy of each slot, unweighted
    sampled_ids: Tensor  # (B, K)
    corrupted_ids: Tensor  # (B, L)
    labels: Tensor  # (B, L) 1 where the token was replaced by another one
    logits: Tensor  # (B, L) the discriminator's
    row_token_losses: Tensor  # (B, L) binary cross entropy of each token, 0 at padding


class ReplacedTokenDetection(nn.Module):
    """Generator and discriminator with shared embeddings."""

    def __init__(self, model: ModelConfig, objective: ObjectiveConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = discriminator_config(model, vocab_size)
        self.generator_config = generator_config(model, vocab_size)
        self.objective = objective
        self.embeddings = Embeddings(self.config)
        self.generator = Body(self.generator_config)
        self.generator_head = MaskedLMHead(self.generator_config)
        self.discriminator = Body(self.config)
        self.discriminator_head = ReplacedTokenHead(self.config)
        initialize(self)

    def run(
        self, batch: RTDBatch, attention_mask: Tensor | None = None, sampled_ids: Tensor | None = None
    ) -> RTDOutput:
        """Both networks on a micro-batch. `sampled_ids` replaces the sampling, for comparisons with the original."""
        if attention_mask is None:
            attention_mask = block_mask(batch.piece_ids)
        B, K = batch.positions.shape

        embedded = self.embeddings(batch.masked_input_ids, batch.segment_ids, batch.position_ids)
        hidden = self.generator(embedded, attention_mask)
        slots = torch.arange(B, device=hidden.device)[:, None]
        generator_logits = self.generator_head(hidden[slots, batch.positions], self.embeddings.word.weight)
        token_losses = F.cross_entropy(generator_logits.flatten(0, 1), batch.token_ids.flatten(), reduction="none")

        if sampled_ids is None:
            forbidden = batch.token_ids if self.objective.disallow_correct else None
            sampled_ids = sample_tokens(
                generator_logits.detach(), batch.uniforms, self.objective.temperature, forbidden
            )
        corrupted_ids = scatter_tokens(batch.input_ids, sampled_ids, batch.positions)
        labels = (corrupted_ids != batch.input_ids).float()

        embedded = self.embeddings(corrupted_ids, batch.segment_ids, batch.position_ids)
        logits = self.discriminator_head(self.discriminator(embedded, attention_mask))
        valid = (batch.piece_ids > 0).float()
        row_token_losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * valid
        return RTDOutput(
            generator_logits=generator_logits,
            token_losses=token_losses.view(B, K),
            sampled_ids=sampled_ids,
            corrupted_ids=corrupted_ids,
            labels=labels,
            logits=logits,
            row_token_losses=row_token_losses,
        )

    def forward(self, batch: RTDBatch, totals: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's part of the step's loss, and sums for the log.

        `totals` are counts over the whole global batch: "predictions" (used slots) and "tokens" (not padding).
        The loss is generator_weight * slot losses / predictions + discriminator_weight * token losses / tokens.
        """
        out = self.run(batch)
        generator_loss = (out.token_losses * batch.weights).sum() / totals["predictions"]
        discriminator_loss = out.row_token_losses.sum() / totals["tokens"]
        objective = self.objective
        loss = objective.generator_weight * generator_loss + objective.discriminator_weight * discriminator_loss
        with torch.no_grad():
            valid = batch.piece_ids > 0
            guessed = (out.logits > 0) & valid
            replaced = out.labels > 0
            sums = {
                "loss": loss.detach(),
                "generator_loss": generator_loss.detach(),
                "discriminator_loss": discriminator_loss.detach(),
                "predictions": batch.weights.sum(),
                "generator_correct": ((out.generator_logits.argmax(-1) == batch.token_ids) * batch.weights).sum(),
                "tokens": valid.sum(),
                "replaced": replaced.sum(),
                "guessed": guessed.sum(),
                "guessed_right": (guessed & replaced).sum(),
                "right": ((guessed == replaced) & valid).sum(),
            }
        return loss, sums

    def encoder(self) -> Encoder:
        """The discriminator as an `Encoder` that shares this model's parameters."""
        encoder = Encoder(self.config)
        encoder.embeddings, encoder.body = self.embeddings, self.discriminator
        return encoder


def step_metrics(sums: dict[str, float], steps: int) -> dict[str, float]:
    """What `forward` summed over `steps` steps, as the metrics of a log line."""

    def share(part: str, whole: str) -> float:
        return sums[part] / sums[whole] if sums[whole] else 0.0

    return {
        "loss": sums["loss"] / steps,
        "generator_loss": sums["generator_loss"] / steps,
        "discriminator_loss": sums["discriminator_loss"] / steps,
        "generator_accuracy": share("generator_correct", "predictions"),
        "discriminator_accuracy": share("right", "tokens"),
        "discriminator_precision": share("guessed_right", "guessed"),
        "discriminator_recall": share("guessed_right", "replaced"),
        "replaced_share": share("replaced", "tokens"),
    }
