"""The two models of question answering: where in a window of a passage does the answer begin and end?

    simple   states (B, L, H) -> dense -> start and end logits (B, L), each by itself
    joint    states -> dense -> start logits -> log-probabilities over the candidates
             [state of the start; states] -> 512, GELU -> 1 -> end log-probabilities, given that start
             [state of CLS; mean state under the start's probabilities] -> 512, GELU -> 1 -> "has no answer"

The simple head is Hugging Face's ElectraForQuestionAnswering; a question without an answer has the span of [CLS],
(0, 0). The joint head is Google's (finetune/qa/qa_tasks.py): training reads the state of the true start, prediction
follows the best starts in a beam, and only the passage and [CLS] are candidates. Its layers have the names of
interop/google_heads.py, so that a converted checkpoint of Google loads. A window that misses the answer has the span
(0, 0) in both, yet counts as answerable when its question is. Neither head has dropout. Letters: B rows, L tokens, H
hidden size, K beam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra.devices import to_device
from electra.encoder import Encoder, EncoderConfig, initialize, key_mask

HIDDEN = 512
"""Units of the joint head's hidden layers, whatever the size of the encoder."""
MASKED = 1000.0
"""What a position that is no candidate loses of its logit."""


@dataclass(frozen=True)
class QuestionBatch:
    """Windows of passages, [CLS] question [SEP] passage [SEP]."""

    input_ids: Tensor  # (B, L)
    segment_ids: Tensor  # (B, L) 1 from the passage on, its [SEP] included
    valid: Tensor  # (B, L) bool, False at padding
    starts: Tensor | None = None  # (B,) int64 position of the answer's first token, 0 if it is not in the window
    ends: Tensor | None = None  # (B,) int64 of its last
    impossible: Tensor | None = None  # (B,) float32 1 where the question has no answer in the whole passage
    seed: int = 0  # for dropout

    def to(self, device: torch.device) -> QuestionBatch:
        return to_device(self, device)


@dataclass(frozen=True)
class Beam:
    """What the joint model finds in B windows: K starts, for each of them K ends, best first."""

    start_scores: Tensor  # (B, K) log-probabilities
    start_index: Tensor  # (B, K) positions
    end_scores: Tensor  # (B, K, K) log-probabilities given the start
    end_index: Tensor  # (B, K, K)
    unanswerable: Tensor  # (B,) logit that there is no answer


class SimpleQuestionModel(nn.Module):
    """An encoder with one dense layer for the logits of start and end."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.head = nn.Linear(config.hidden_size, 2)
        self.null_threshold = nn.Buffer(torch.zeros(()))  # above it, the odds of no answer mean that there is none
        initialize(self)

    def logits(self, batch: QuestionBatch) -> tuple[Tensor, Tensor]:
        """Start and end logits (B, L) of all positions; fp32 under autocast too, where nearby spans would tie."""
        states = encode(self.encoder, batch)
        with torch.autocast(states.device.type, enabled=False):
            start, end = self.head(states.float()).unbind(-1)
        return start, end

    def forward(self, batch: QuestionBatch, totals: Mapping[str, Tensor | float]) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's part of the step's mean loss, and its sums; `totals["windows"]` is the global batch."""
        assert batch.starts is not None and batch.ends is not None
        # Padding is no candidate: a row's loss must not depend on the rows beside it, nor on how a step is shared out.
        start, end = (masked(logits, batch.valid) for logits in self.logits(batch))
        losses = span_losses(start, batch.starts) + span_losses(end, batch.ends)
        loss = losses.sum() / 2 / totals["windows"]
        return loss, {"loss": loss.detach()}


class JointHead(nn.Module):
    """Google's layers: starts, ends given a start, and whether there is an answer."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.start = nn.Linear(hidden_size, 1)
        self.end_hidden = nn.Linear(2 * hidden_size, HIDDEN)
        self.end = nn.Linear(HIDDEN, 1)
        self.answerable_hidden = nn.Linear(2 * hidden_size, HIDDEN)
        self.answerable = nn.Linear(HIDDEN, 1)

    def start_logits(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(B, L) from states (B, L, H) and candidates (B, L) bool."""
        return masked(self.start(states)[..., 0], candidates)

    def end_logits(self, states: Tensor, starts: Tensor, candidates: Tensor) -> Tensor:
        """(B, N, L): the end given each of N starts (B, N).

        [start; token] W is start W1 + token W2, which needs the (B, L, 512) product once for all N. The starts follow
        one another, because (B, N, L, 512) of a beam of 20 and 32 windows of 384 tokens would be 500 MB.
        """
        of_start, of_token = self.end_hidden.weight.chunk(2, dim=1)
        index = starts[..., None].expand(-1, -1, states.shape[-1])
        chosen = F.linear(states.gather(1, index), of_start)  # (B, N, 512)
        tokens = F.linear(states, of_token, self.end_hidden.bias)  # (B, L, 512)
        found = [self.end(F.gelu(tokens + one[:, None]))[..., 0] for one in chosen.unbind(1)]
        return masked(torch.stack(found, 1), candidates[:, None])

    def unanswerable(self, states: Tensor, start_logits: Tensor) -> Tensor:
        """(B,): the logit that the question has no answer."""
        mixed = torch.einsum("bl,blh->bh", start_logits.softmax(-1), states)
        hidden = F.gelu(self.answerable_hidden(torch.cat([states[:, 0], mixed], -1)))
        return self.answerable(hidden)[:, 0]


class JointQuestionModel(nn.Module):
    """An encoder with Google's joint head; `answerable_weight` is that of its loss of "has no answer"."""

    def __init__(self, config: EncoderConfig, beam_size: int = 20, answerable_weight: float = 0.5) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.head = JointHead(config.hidden_size)
        self.beam_size, self.answerable_weight = beam_size, answerable_weight
        self.null_threshold = nn.Buffer(torch.zeros(()))  # above it, the odds of no answer mean that there is none
        initialize(self)
        for layer in self.head.children():  # Google's code names no initialiser here: TensorFlow's default
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, batch: QuestionBatch, totals: Mapping[str, Tensor | float]) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's part of the step's mean loss, and its sums; `totals["windows"]` is the global batch."""
        assert batch.starts is not None and batch.ends is not None and batch.impossible is not None
        states, candidates = encode(self.encoder, batch), candidate_mask(batch)
        with torch.autocast(states.device.type, enabled=False):
            states = states.float()
            start = self.head.start_logits(states, candidates)
            end = self.head.end_logits(states, batch.starts[:, None], candidates)[:, 0]
            unanswerable = self.head.unanswerable(states, start)
            spans = (span_losses(start, batch.starts) + span_losses(end, batch.ends)) / 2
            answerable = F.binary_cross_entropy_with_logits(unanswerable, batch.impossible, reduction="none")
        loss = (spans + self.answerable_weight * answerable).sum() / totals["windows"]
        return loss, {"loss": loss.detach()}

    def beam(self, batch: QuestionBatch) -> Beam:
        """The best starts and ends of each window; fewer than `beam_size` where a row has fewer tokens."""
        states, candidates = encode(self.encoder, batch), candidate_mask(batch)
        width = min(self.beam_size, states.shape[1])
        with torch.autocast(states.device.type, enabled=False):
            states = states.float()
            start = self.head.start_logits(states, candidates)
            start_scores, start_index = start.log_softmax(-1).topk(width)
            ends = self.head.end_logits(states, start_index, candidates).log_softmax(-1)
            end_scores, end_index = ends.topk(width)
            return Beam(start_scores, start_index, end_scores, end_index, self.head.unanswerable(states, start))


def encode(encoder: nn.Module, batch: QuestionBatch) -> Tensor:
    """States (B, L, H)."""
    return encoder(batch.input_ids, batch.segment_ids, attention_mask=key_mask(batch.valid))


def candidate_mask(batch: QuestionBatch) -> Tensor:
    """(B, L) bool: the passage with its [SEP], and [CLS]."""
    candidates = batch.valid & (batch.segment_ids == 1)
    candidates[:, 0] = True
    return candidates


def masked(logits: Tensor, candidates: Tensor) -> Tensor:
    return logits - MASKED * (~candidates).to(logits.dtype)


def span_losses(logits: Tensor, positions: Tensor) -> Tensor:
    """Cross-entropy (B,) of positions (B,) under logits (B, L); 0 for a position at or behind L.

    Negative positions count as 0, which is how transformers' ElectraForQuestionAnswering treats both.
    """
    length = logits.shape[1]
    return F.cross_entropy(logits, positions.clamp(0, length), ignore_index=length, reduction="none")
