"""Replaced-token detection: generator + discriminator + joint loss (Clark et al. 2020, section 3).

    masked row -> generator -> tokens sampled at the K masked positions -> corrupted row -> discriminator
                     |                                                                          |
              masked-LM loss at K positions                          "was this token replaced?" at every token

The two networks share the embeddings (word, position, type and their LayerNorm) and nothing else; no gradient
flows through the sampling. `objective.generator` chooses another generator: one that shares nothing, the discriminator
itself with a masked-LM head, or none, whose tokens are drawn uniformly. Masked LM alone is in mlm.py, the two-tower
generator in electric.py.
Letters: B rows, L tokens, K predictions a row, E embedding size, V vocabulary.
Follows google-research/electra run_pretraining.py and pretrain/pretrain_helpers.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra.config import ModelConfig, ObjectiveConfig
from electra.devices import sum_dtype, to_device
from electra.encoder import Body, Embeddings, Encoder, EncoderConfig, LayerNorm, block_mask, initialize
from electra.metrics import histogram_auc
from electra.varlen import Pieces, piece_bounds


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
    candidates: Tensor | None = None  # (B, L) bool, tokens that may be masked; only the two-tower generator reads it
    full_rows: bool = False  # each row is one piece without padding: there is nothing to mask
    bounds: Tensor | None = None  # (N + 1,) see varlen.piece_bounds; given where attention goes by them

    def part(self, rows: slice, seed: int = 0, varlen: bool = False) -> RTDBatch:
        """Some of the rows of a batch that is still on the host; `varlen`: with bounds, for attention by them."""
        assert self.bounds is None, "bounds are those of whole micro-batches"
        tensors = {name: value[rows] for name, value in vars(self).items() if isinstance(value, Tensor)}
        pieces = tensors["piece_ids"]
        bounds = piece_bounds(pieces) if varlen else None
        return RTDBatch(**tensors, seed=seed, full_rows=bool((pieces == 1).all()), bounds=bounds)

    def to(self, device: torch.device) -> RTDBatch:
        return to_device(self, device)

    def attention_mask(self) -> Tensor | Pieces | None:
        """Each piece attends to itself alone, in the cheapest form in which `Encoder` takes that."""
        if self.bounds is not None:
            return Pieces(self.bounds, self.piece_ids.shape[1])
        return None if self.full_rows else block_mask(self.piece_ids)


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


def generator_config(model: ModelConfig, vocab_size: int, generator: str = "shared-embeddings") -> EncoderConfig:
    """The generator's shape: fractions of the discriminator's, heads of 64, embeddings as wide as the discriminator's.

    `generator` is `objective.generator`: embeddings of its own are as wide as its layers, and the same network has the
    same shape. Rounds as run_pretraining.get_generator_config does.
    """
    shape = discriminator_config(model, vocab_size)
    if generator == "same-network":
        return shape
    hidden = round(model.hidden_size * model.generator_width)
    heads = (
        max(1, hidden // 64)
        if model.hidden_size == 64 * model.num_heads
        else max(1, round(model.num_heads * model.generator_width))
    )
    return dataclasses.replace(
        shape,
        embedding_size=hidden if generator == "own-embeddings" else shape.embedding_size,
        hidden_size=hidden,
        num_layers=round(model.num_layers * model.generator_depth),
        num_heads=heads,
        intermediate_size=4 * hidden,
    )


class MaskedLMHead(nn.Module):
    """Hidden states -> logits over the vocabulary through the word table, with an own bias."""

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


def predict_slots(
    embeddings: Embeddings, body: Body, head: MaskedLMHead, batch: RTDBatch, attention_mask: Tensor | Pieces | None
) -> tuple[Tensor, Tensor]:
    """Masked LM: logits (B, K, V) at the slots of a micro-batch, and the cross entropy (B, K) of each, unweighted."""
    B, K = batch.positions.shape
    embedded = embeddings(batch.masked_input_ids, batch.segment_ids, batch.position_ids)
    hidden = body(embedded, attention_mask)
    slots = torch.arange(B, device=hidden.device)[:, None]
    logits = head(hidden[slots, batch.positions], embeddings.word.weight)
    losses = F.cross_entropy(logits.flatten(0, 1), batch.token_ids.flatten(), reduction="none")
    return logits, losses.view(B, K)


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
    logits = logits.float()
    if temperature != 1:
        logits = logits / temperature
    if forbidden is not None:
        logits = logits.scatter(-1, forbidden[..., None], float("-inf"))
    cumulative = torch.softmax(logits, -1).cumsum(-1)
    # Scaled by the sum, which rounding leaves beside 1; `right` skips tokens of probability zero.
    threshold = (uniforms * cumulative[..., -1])[..., None].contiguous()
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)


@torch.no_grad()
def uniform_tokens(uniforms: Tensor, vocab_size: int, forbidden: Tensor | None = None) -> Tensor:
    """Draw one token a slot with equal chances from 0 .. vocab_size - 1, special ones too: (B, K) -> (B, K).

    This is what the original samples from logits that are all zero (run_pretraining.py, `uniform_generator`).
    `forbidden` (B, K) takes these tokens out (disallow_correct).
    """
    choices = vocab_size - (forbidden is not None)
    # In fp32, all that some devices have, the product could round up to `choices`.
    tokens = (uniforms.to(sum_dtype(uniforms.device)) * choices).long().clamp(max=choices - 1)
    return tokens if forbidden is None else tokens + (tokens >= forbidden)


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
    """Everything the two networks said about a micro-batch; a uniform generator says nothing."""

    generator_logits: Tensor | None  # (B, K, V)
    token_losses: Tensor | None  # (B, K) cross entropy of each slot, unweighted
    sampled_ids: Tensor  # (B, K)
    corrupted_ids: Tensor  # (B, L)
    labels: Tensor  # (B, L) 1 where the token was replaced by another one
    logits: Tensor  # (B, L) the discriminator's
    row_token_losses: Tensor  # (B, L) binary cross entropy of each token, 0 at padding


class ReplacedTokenDetection(nn.Module):
    """Generator and discriminator. The generator has modules of its own as far as `objective.generator` says so."""

    def __init__(self, model: ModelConfig, objective: ObjectiveConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = discriminator_config(model, vocab_size)
        self.generator_config = generator_config(model, vocab_size, objective.generator)
        self.objective = objective
        kind, shape = objective.generator, self.generator_config
        self.embeddings = Embeddings(self.config)
        self.generator_embeddings = Embeddings(shape) if kind == "own-embeddings" else None
        self.generator = Body(shape) if kind in ("shared-embeddings", "own-embeddings") else None
        self.generator_head = MaskedLMHead(shape) if kind != "uniform" else None
        self.discriminator = Body(self.config)
        self.discriminator_head = ReplacedTokenHead(self.config)
        initialize(self, model.position_init)

    def run(
        self, batch: RTDBatch, attention_mask: Tensor | Pieces | None = None, sampled_ids: Tensor | None = None
    ) -> RTDOutput:
        """Both networks on a micro-batch. `sampled_ids` replaces the sampling, for comparisons with the original."""
        if attention_mask is None:
            attention_mask = batch.attention_mask()
        generator_logits, token_losses = None, None
        if self.generator_head is not None:
            embeddings, body = self.generator_modules()
            generator_logits, token_losses = predict_slots(embeddings, body, self.generator_head, batch, attention_mask)
        if sampled_ids is None:
            sampled_ids = self._sample(batch, generator_logits)
        corrupted_ids = scatter_tokens(batch.input_ids, sampled_ids, batch.positions)
        labels = (corrupted_ids != batch.input_ids).float()

        embedded = self.embeddings(corrupted_ids, batch.segment_ids, batch.position_ids)
        logits = self.discriminator_head(self.discriminator(embedded, attention_mask))
        valid = (batch.piece_ids > 0).float()
        row_token_losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * valid
        return RTDOutput(
            generator_logits=generator_logits,
            token_losses=token_losses,
            sampled_ids=sampled_ids,
            corrupted_ids=corrupted_ids,
            labels=labels,
            logits=logits,
            row_token_losses=row_token_losses,
        )

    def generator_modules(self) -> tuple[Embeddings, Body]:
        """Embeddings and body of the generator, where they are its own and where they are the discriminator's."""
        return self.generator_embeddings or self.embeddings, self.generator or self.discriminator

    def _sample(self, batch: RTDBatch, generator_logits: Tensor | None) -> Tensor:
        objective = self.objective
        forbidden = batch.token_ids if objective.disallow_correct else None
        if generator_logits is None:
            return uniform_tokens(batch.uniforms, self.config.vocab_size, forbidden)
        return sample_tokens(generator_logits.detach(), batch.uniforms, objective.temperature, forbidden)

    def forward(self, batch: RTDBatch, totals: Mapping[str, Tensor | float]) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's part of the step's loss, and sums for the log.

        `totals` are counts over the whole global batch: "predictions" (used slots) and "tokens" (not padding).
        The loss is generator_weight * slot losses / predictions + discriminator_weight * token losses / tokens. The
        loss of a uniform generator, log V whatever happens, is left out.
        """
        out, objective = self.run(batch), self.objective
        discriminator_loss = out.row_token_losses.sum() / totals["tokens"]
        sums: dict[str, Tensor] = {}
        if out.generator_logits is not None and out.token_losses is not None:
            generator_loss = (out.token_losses * batch.weights).sum() / totals["predictions"]
            loss = objective.generator_weight * generator_loss + objective.discriminator_weight * discriminator_loss
            sums["generator_loss"] = generator_loss.detach()
        else:
            loss = objective.discriminator_weight * discriminator_loss
        sums |= {"loss": loss.detach(), "discriminator_loss": discriminator_loss.detach()}
        return loss, sums | detection_sums(batch, out)

    def encoder(self) -> Encoder:
        """The discriminator as an `Encoder` that shares this model's parameters."""
        encoder = Encoder(self.config)
        encoder.embeddings, encoder.body = self.embeddings, self.discriminator
        return encoder


@torch.no_grad()
def detection_sums(batch: RTDBatch, out: RTDOutput) -> dict[str, Tensor]:
    """Counts over a micro-batch of which `step_metrics` makes the metrics of both networks."""
    sums: dict[str, Tensor] = {}
    if out.generator_logits is not None:
        correct = (out.generator_logits.argmax(-1) == batch.token_ids) * batch.weights
        sampled_correct = (out.sampled_ids == batch.token_ids) * batch.weights
        sums |= {"generator_correct": correct.sum(), "sampled_correct": sampled_correct.sum()}
    valid = batch.piece_ids > 0
    guessed = (out.logits > 0) & valid
    replaced = out.labels > 0
    return sums | {
        "predictions": batch.weights.sum(),
        "tokens": valid.sum(),
        "replaced": replaced.sum(),
        "guessed": guessed.sum(),
        "guessed_right": (guessed & replaced).sum(),
        "right": ((guessed == replaced) & valid).sum(),
        LOGITS: logit_histogram(out.logits, replaced, valid),
    }


LOSSES = ("loss", "generator_loss", "masked_lm_loss", "discriminator_loss")
LOGITS = "logit_histogram"
SHARES = {  # metric -> the sums of which it is the quotient
    "generator_accuracy": ("generator_correct", "predictions"),
    "generator_sampled_accuracy": ("sampled_correct", "predictions"),  # Google's sampled_masked_lm_accuracy
    "masked_lm_accuracy": ("masked_lm_correct", "predictions"),
    "discriminator_accuracy": ("right", "tokens"),
    "discriminator_precision": ("guessed_right", "guessed"),
    "discriminator_recall": ("guessed_right", "replaced"),
    "replaced_share": ("replaced", "tokens"),
}


def step_metrics(sums: dict[str, float], steps: int) -> dict[str, float]:
    """What `forward` of an objective summed over `steps` steps, as the metrics of a log line."""
    losses = {name: sums[name] / steps for name in LOSSES if name in sums}
    shares = {
        name: sums[part] / sums[whole] if sums[whole] else 0.0 for name, (part, whole) in SHARES.items() if part in sums
    }
    histogram = np.array([value for name, value in sums.items() if name.startswith(f"{LOGITS}.")])
    ranking = {"discriminator_auc": histogram_auc(*np.split(histogram, 2))} if len(histogram) else {}
    return losses | shares | ranking


# What the discriminator said over many steps, without keeping its logits: they are counted on the device in bins of
# 1/32, within which order is lost. On 100,000 normal logits that spread by 0.2, an AUC of 0.56, that is 0.0003 off at
# most, where they spread by 1 a tenth of it.
HISTOGRAM_BINS, HISTOGRAM_END = 1024, 16.0


@torch.no_grad()
def logit_histogram(logits: Tensor, replaced: Tensor, valid: Tensor) -> Tensor:
    """Counts (2 x bins,) fp32 of logits, of original tokens and then of replaced ones, from three (B, L).

    Logits beyond +-16 go to the outermost bins. A logit that is not a number is counted as 0: the loss says so first.
    """
    per_unit = HISTOGRAM_BINS / (2 * HISTOGRAM_END)
    bins = ((logits.float().nan_to_num() + HISTOGRAM_END) * per_unit).clamp(0, HISTOGRAM_BINS - 1).long()
    counts = torch.zeros(2 * HISTOGRAM_BINS, device=logits.device)
    return counts.scatter_add_(0, (bins + HISTOGRAM_BINS * replaced).flatten(), valid.float().flatten())
