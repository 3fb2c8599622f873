"""A held-out row as the two networks see it: the text, the corrupted text, and what the discriminator says of it.

    original       the chef  cooked  the  meal  at  noon
    corrupted      the chef  ate     the  meal  at  night
    discriminator            +93%         !61%      -12%

Each column is a token. + is a replaced token that the discriminator caught, - one that it missed, ! a false alarm,
with the probability that it gave; on a terminal these are green, yellow and red. Follows AWS's trainer, which prints
such texts in colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.cells import cell_len  # Korean and Chinese letters are two columns wide

from electra.evaluate import Evaluator
from electra.objectives import PretrainingModel
from electra.rtd import RTDBatch, RTDOutput
from electra.terminal import terminal
from electra.tokenizer import Vocabulary

HEADS = ("original", "corrupted", "discriminator")
COLOURS = {"+": "32", "-": "33", "!": "31"}
"""ANSI codes of caught, missed, false alarm."""


@dataclass(frozen=True)
class Sample:
    """A row of N tokens, padding left out."""

    original: list[str]
    corrupted: list[str]
    replaced: list[bool]  # also where Electric drew the true token again
    probability: list[float]  # that it was replaced, says the discriminator

    def marks(self) -> list[str]:
        """One of "+-! " a token, and "" where there is nothing to say."""
        calls = [(replaced, p > 0.5) for replaced, p in zip(self.replaced, self.probability, strict=True)]
        kinds = {(True, True): "+", (True, False): "-", (False, True): "!", (False, False): ""}
        return [kinds[call] for call in calls]


def make_sample(batch: RTDBatch, out: RTDOutput, vocabulary: Vocabulary) -> Sample:
    """The first row of a micro-batch."""
    valid = batch.piece_ids[0].cpu() > 0

    def text(ids: torch.Tensor) -> list[str]:
        return [vocabulary.token(token_id) for token_id in ids[0].cpu()[valid].tolist()]

    return Sample(
        text(batch.input_ids),
        text(out.corrupted_ids),
        (out.labels[0].cpu()[valid] > 0).tolist(),
        torch.sigmoid(out.logits[0].float()).cpu()[valid].tolist(),
    )


def sample_lines(sample: Sample, width: int, colour: bool) -> list[str]:
    """Three lines of at most `width` columns: the part of the row, at least a token, in which most is to be seen."""
    marks = sample.marks()
    notes = [f"{mark}{p:.0%}" if mark else "" for mark, p in zip(marks, sample.probability, strict=True)]
    columns = list(zip(sample.original, sample.corrupted, notes, strict=True))
    sizes = [max(map(cell_len, column)) + 1 for column in columns]
    head = max(map(len, HEADS)) + 2
    first, last = _busiest(sizes, [bool(mark) for mark in marks], width - head)
    lines = [name.ljust(head) for name in HEADS]
    for column, size, mark in zip(columns[first:last], sizes[first:last], marks[first:last], strict=True):
        for line, text in enumerate(column):
            padding = " " * (size - cell_len(text))
            if colour and mark and line > 0:
                text = f"\x1b[{COLOURS[mark]}m{text}\x1b[0m"
            lines[line] += text + padding
    return [line.rstrip() for line in lines]


def _busiest(sizes: Sequence[int], marked: Sequence[bool], room: int) -> tuple[int, int]:
    """The first of the spans of columns that fit into `room` and hold most marks; at least one column."""
    best, found = (0, 1), -1
    last = total = inside = 0
    for first in range(len(sizes)):
        while last < len(sizes) and (last <= first or total + sizes[last] <= room):
            total, inside = total + sizes[last], inside + marked[last]
            last += 1
        if inside > found:
            best, found = (first, last), inside
        total, inside = total - sizes[first], inside - marked[first]
    return best


def draw_sample(evaluator: Evaluator, model: PretrainingModel, number: int, vocabulary: Vocabulary) -> Sample:
    """Held-out row `number` (they are counted round and round)."""
    batch, out = evaluator.row(model, number)
    assert isinstance(out, RTDOutput), "a masked LM alone has no discriminator"
    return make_sample(batch, out, vocabulary)


def held_out_sample(evaluator: Evaluator, model: PretrainingModel, number: int, vocabulary: Vocabulary) -> list[str]:
    """What to print of a held-out row, for where standard output goes."""
    width, colour = terminal()
    lines = sample_lines(draw_sample(evaluator, model, number, vocabulary), width - 4, colour)
    return [f"held-out row {number % evaluator.num_rows + 1:,}:", *(f"    {line}" for line in lines)]
