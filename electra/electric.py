"""Electric, and the two-tower generator (Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models").

    row -> left-to-right tower:  states after token 1, 2, ... L --. each token gets the state before it from the one
        -> right-to-left tower:  states after token L, ... 2, 1 --' and the state behind it from the other: q(token)
                                                                      |
    row, with tokens drawn from q at K positions -> discriminator -> one energy a token

The generator reads the true row, nothing is masked, and no tower sees the token that it predicts; so it learns from
every token and not from K of them. With `objective.generator = two-tower` it is ELECTRA's generator. With
`objective.objective = electric` the discriminator becomes a model of its own, exp(-energy) the unnormalised probability
of a token given all others, learnt by noise-contrastive estimation: a token was drawn from the noise q with the logit

    energy + log q(token) + log(mask_prob / (1 - mask_prob))

and the label says where a token was drawn, the true one drawn again as well. No gradient flows through q here.
Follows google-research/electra run_pretraining.py (TwoTowerClozeTransformer, _get_cloze_outputs,
_get_discriminator_output). Letters as in rtd.py.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra.config import ModelConfig, ObjectiveConfig
from electra.encoder import Body, Embeddings, Encoder, EncoderConfig, block_mask, initialize
from electra.rtd import (
    MaskedLMHead,
    ReplacedTokenHead,
    RTDBatch,
    RTDOutput,
    detection_sums,
    discriminator_config,
    generator_config,
    sample_tokens,
    scatter_tokens,
)


class TwoTowerGenerator(nn.Module):
    """A cloze model of two causal Transformers, one for each direction; `config` is the shape of one."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.left_to_right = Body(config)
        self.right_to_left = Body(config)
        self.head = MaskedLMHead(dataclasses.replace(config, hidden_size=2 * config.hidden_size))

    def forward(self, embedded: Tensor, piece_ids: Tensor, table: Tensor) -> Tensor:
        """Embedded rows (B, L, E), their pieces (B, L) and the word table -> logits (B, L, V).

        Those of a token follow from the other tokens of its piece and from nothing else.
        """
        order = torch.arange(piece_ids.shape[1], device=piece_ids.device)
        not_behind = order[:, None] >= order  # (L, L): query, key
        same_piece = block_mask(piece_ids)
        left = self.left_to_right(embedded, same_piece & not_behind)
        right = self.right_to_left(embedded, same_piece & not_behind.T)
        return self.head(states_around(left, right, piece_ids), table)


def states_around(left: Tensor, right: Tensor, piece_ids: Tensor) -> Tensor:
    """The left tower's state of the token before each and the right tower's of the token behind it: (B, L, 2 H).

    Zeros where that token is none of the piece's. (The original rolls around the ends of the row instead; there stand
    [CLS] and [SEP] or padding, which are not predicted.)
    """
    joined = (piece_ids[:, 1:] == piece_ids[:, :-1])[..., None]
    before = F.pad(left[:, :-1] * joined, (0, 0, 1, 0))
    behind = F.pad(right[:, 1:] * joined, (0, 0, 0, 1))
    return torch.cat([before, behind], -1)


@dataclass(frozen=True)
class Cloze:
    """A distribution over the vocabulary for every token of a row."""

    logits: Tensor  # (B, L, V)
    log_normalizer: Tensor  # (B, L) log of the sum of their exponentials

    @staticmethod
    def of(logits: Tensor) -> Cloze:
        return Cloze(logits, torch.logsumexp(logits, -1))

    def log_probabilities(self, token_ids: Tensor) -> Tensor:
        """Of one token at each place: (B, L) -> (B, L)."""
        return self.logits.gather(-1, token_ids[..., None]).squeeze(-1) - self.log_normalizer


class TwoTowerDetection(nn.Module):
    """Electric, or ELECTRA with a two-tower generator, as `objective.objective` says.

    Both networks share the embeddings, as in `ReplacedTokenDetection`.
    """

    def __init__(self, model: ModelConfig, objective: ObjectiveConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = discriminator_config(model, vocab_size)
        self.generator_config = generator_config(model, vocab_size, objective.generator)
        self.objective = objective
        self.embeddings = Embeddings(self.config)
        self.generator = TwoTowerGenerator(self.generator_config)
        self.discriminator = Body(self.config)
        self.discriminator_head = ReplacedTokenHead(self.config)
        initialize(self, model.position_init)

    def run(self, batch: RTDBatch, sampled_ids: Tensor | None = None) -> RTDOutput:
        """Both networks on a micro-batch. `sampled_ids` (B, K) replaces the sampling, for comparisons.

        `logits` of the output decide whether a token was drawn: Electric's are energies with the noise added.
        """
        return self._detect(batch, self._cloze(batch), sampled_ids)

    def _cloze(self, batch: RTDBatch) -> Cloze:
        embedded = self.embeddings(batch.input_ids, batch.segment_ids, batch.position_ids)
        return Cloze.of(self.generator(embedded, batch.piece_ids, self.embeddings.word.weight))

    def _detect(self, batch: RTDBatch, cloze: Cloze, sampled_ids: Tensor | None = None) -> RTDOutput:
        rows = torch.arange(len(batch.positions), device=batch.positions.device)[:, None]
        slot_logits = cloze.logits[rows, batch.positions]
        if sampled_ids is None:
            forbidden = batch.token_ids if self.objective.disallow_correct else None
            sampled_ids = sample_tokens(slot_logits.detach(), batch.uniforms, self.objective.temperature, forbidden)
        corrupted_ids = scatter_tokens(batch.input_ids, sampled_ids, batch.positions)
        logits = self.energies(corrupted_ids, batch)
        if self.objective.objective == "electric":
            labels = _drawn(batch)
            logits = logits + self._log_odds(cloze, corrupted_ids)
        else:
            labels = (corrupted_ids != batch.input_ids).float()
        valid = (batch.piece_ids > 0).float()
        return RTDOutput(
            generator_logits=slot_logits,
            token_losses=-cloze.log_probabilities(batch.input_ids).gather(1, batch.positions),
            sampled_ids=sampled_ids,
            corrupted_ids=corrupted_ids,
            labels=labels,
            logits=logits,
            row_token_losses=F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * valid,
        )

    def energies(self, input_ids: Tensor, batch: RTDBatch) -> Tensor:
        """What the discriminator says of tokens (B, L) in the pieces of a micro-batch: (B, L).

        Of Electric, -energy is the log of the unnormalised probability of a token given the others.
        """
        embedded = self.embeddings(input_ids, batch.segment_ids, batch.position_ids)
        return self.discriminator_head(self.discriminator(embedded, batch.attention_mask()))

    @torch.no_grad()
    def _log_odds(self, cloze: Cloze, token_ids: Tensor) -> Tensor:
        """What the noise adds to the energies of tokens (B, L): log q, and how many are drawn for one that is not.

        q is the distribution that is drawn from, so it has the temperature.
        """
        temperature, share = self.objective.temperature, self.objective.mask_prob
        noise = cloze if temperature == 1 else Cloze.of(cloze.logits / temperature)
        return noise.log_probabilities(token_ids) + math.log(share / (1 - share))

    def forward(self, batch: RTDBatch, totals: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's part of the step's loss, and sums for the log.

        `totals` are counts over the whole global batch: "candidates" (tokens that the generator learns from), "tokens"
        (not padding). The loss is generator_weight * candidates' losses / candidates + discriminator_weight * token
        losses / tokens.
        """
        assert batch.candidates is not None, "the two-tower generator learns from every candidate"
        objective, cloze = self.objective, self._cloze(batch)
        losses = -cloze.log_probabilities(batch.input_ids)
        generator_loss = (losses * batch.candidates).sum() / totals["candidates"]
        out = self._detect(batch, cloze)
        discriminator_loss = out.row_token_losses.sum() / totals["tokens"]
        loss = objective.generator_weight * generator_loss + objective.discriminator_weight * discriminator_loss
        return loss, {
            "loss": loss.detach(),
            "generator_loss": generator_loss.detach(),
            "discriminator_loss": discriminator_loss.detach(),
        } | detection_sums(batch, out)

    def encoder(self) -> Encoder:
        """The discriminator as an `Encoder` that shares this model's parameters."""
        encoder = Encoder(self.config)
        encoder.embeddings, encoder.body = self.embeddings, self.discriminator
        return encoder


def _drawn(batch: RTDBatch) -> Tensor:
    """(B, L) 1 where a token is drawn from the generator. Unused slots are at position 0, which never is one."""
    drawn = torch.zeros_like(batch.input_ids, dtype=torch.float32).scatter(1, batch.positions, 1.0)
    drawn[:, 0] = 0.0
    return drawn
