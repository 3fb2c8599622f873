"""Replaced tokens in a text that someone types: the generator replaces some, the discriminator looks for them.

    text -> tokens -> `mask_rows` (share, seed) -> generator -> `sample_tokens` (temperature) -> discriminator
                                                                                                    -> `Replacement`
    another text, and the one it was before -----------------------------------> discriminator -> `Judgement`

Masks and sampling are those of pre-training (masking.py, rtd.py), on the networks of a model folder. A text is one row;
what does not fit into it is left out. Letters: L tokens, K replaced ones.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from electra.app.fields import check_known
from electra.interop.heads import HeadedEncoder
from electra.masking import global_rng, mask_rows
from electra.rtd import sample_tokens, scatter_tokens
from electra.samples import Sample
from electra.tokenizer import Vocabulary

TEXT_LABEL = "Text"


@dataclass(frozen=True)
class Replacement:
    """A text of which the generator replaced some tokens; [CLS] and [SEP] are left out."""

    sample: Sample
    text: str
    """The text with the replaced tokens in it, as near as words and spaces allow."""
    drawn: int
    """How many tokens were drawn; some may be the true ones again."""
    left_out: int
    """Tokens at the end for which the model has no room."""


@dataclass(frozen=True)
class Judgement:
    """What the discriminator says of a text as it stands."""

    tokens: list[str]
    probability: list[float]
    """That it was replaced, of each token."""
    before: list[float | None]
    """The same in the text before it was edited; None for a token that is new."""
    left_out: int


@dataclass(frozen=True)
class Detector:
    """The networks of a pre-training run; some runs have no generator that could replace anything."""

    vocabulary: Vocabulary
    discriminator: HeadedEncoder
    generator: HeadedEncoder | None
    device: torch.device

    def replace(self, text: str, share: float, temperature: float, seed: int) -> Replacement:
        """Replace round(share * (L + 2)) tokens, at least one, and judge them all; the same arguments give the same.

        ValueError for a text without a known token.
        """
        assert self.generator is not None, "there is nothing that replaces"
        ids, places, left_out = self._encode(text)
        row = ids.numpy()
        masks = mask_rows(
            row,
            np.ones_like(row, bool),
            special=self.vocabulary.special,
            mask_prob=share,
            max_predictions=row.shape[1],
            with_replacement=False,
            rng=global_rng(seed, 0, 0),
        )
        drawn = int(masks.weights.sum())
        positions = torch.from_numpy(masks.positions[:, :drawn])
        uniforms = torch.from_numpy(masks.uniforms[:, :drawn])
        logits = self._run(self.generator, torch.from_numpy(masks.masked_input_ids).long())
        sampled = sample_tokens(logits[:, positions[0]], uniforms, temperature)
        corrupted = scatter_tokens(ids, sampled, positions)
        logits = self._run(self.discriminator, corrupted)
        probability = torch.sigmoid(logits[0]).tolist()[1:-1]
        original, shown = ids[0].tolist()[1:-1], corrupted[0].tolist()[1:-1]
        sample = Sample(
            [self.vocabulary.token(token) for token in original],
            [self.vocabulary.token(token) for token in shown],
            [a != b for a, b in zip(original, shown, strict=True)],
            probability,
        )
        return Replacement(sample, self._edited(text, sample, places), drawn, left_out)

    def judge(self, text: str, before: str = "") -> Judgement:
        """Judge a text as it stands, beside what was said of the text `before`; ValueError as `replace`."""
        tokens, probability, left_out = self._judged(text)
        was: list[float | None] = [None] * len(tokens)
        if before.strip():
            old_tokens, old, _ = self._judged(before)
            for block in difflib.SequenceMatcher(None, old_tokens, tokens, autojunk=False).get_matching_blocks():
                was[block.b : block.b + block.size] = old[block.a : block.a + block.size]
        return Judgement(tokens, probability, was, left_out)

    def _judged(self, text: str) -> tuple[list[str], list[float], int]:
        ids, _, left_out = self._encode(text)
        logits = self._run(self.discriminator, ids)
        tokens = [self.vocabulary.token(token) for token in ids[0].tolist()[1:-1]]
        return tokens, torch.sigmoid(logits[0]).tolist()[1:-1], left_out

    def _encode(self, text: str) -> tuple[Tensor, list[tuple[int, int]], int]:
        """[CLS] text [SEP] as (1, L + 2), the characters of each of the L tokens, and how many did not fit."""
        found = self.vocabulary.tokenizer.encode(text, add_special_tokens=False)
        check_known(TEXT_LABEL, found.ids, self.vocabulary)
        room = self.discriminator.encoder.config.max_positions - 2
        special = self.vocabulary.special
        ids = torch.tensor([[special.cls, *found.ids[:room], special.sep]])
        return ids, found.offsets[:room], max(0, len(found.ids) - room)

    @torch.inference_mode()
    def _run(self, network: HeadedEncoder, ids: Tensor) -> Tensor:
        """Logits (1, L, ...) of one row, fp32 on the host."""
        ids = ids.to(self.device)
        (logits,) = network(ids, torch.ones_like(ids), torch.zeros_like(ids))
        return logits.float().cpu()

    def _edited(self, text: str, sample: Sample, places: list[tuple[int, int]]) -> str:
        """The text with its replaced tokens, everything else as it was typed; what did not fit is left out."""
        prefix = str(getattr(self.vocabulary.tokenizer.model, "continuing_subword_prefix", None) or "")
        out, at = "", 0
        for (begin, end), token, is_replaced in zip(places, sample.corrupted, sample.replaced, strict=True):
            out, at = out + text[at:begin], end
            if not is_replaced:
                out += text[begin:end]
            elif prefix and token.startswith(prefix):
                out = out.rstrip() + token.removeprefix(prefix)
            else:  # a word of its own, also in place of the end of one
                out += " " * (bool(out) and out[-1].isalnum() and token[0].isalnum()) + token
        return out
