"""Samples: the marks, the part of the row that is shown, the width of wide letters, colour on terminals alone."""

import io
import os
import re
import shutil

import pytest
import torch
from rich.cells import cell_len
from stores import tiny_vocabulary

from electra.rtd import RTDBatch, RTDOutput
from electra.samples import Sample, make_sample, sample_lines
from electra.terminal import terminal

MEAL = Sample(
    original=["the", "chef", "cooked", "the", "meal", "at", "noon"],
    corrupted=["the", "chef", "ate", "the", "meal", "at", "night"],
    replaced=[False, False, True, False, False, False, True],
    probability=[0.1, 0.2, 0.93, 0.1, 0.61, 0.3, 0.12],
)


def test_caught_missed_and_false_alarms_stand_below_their_tokens():
    assert sample_lines(MEAL, 80, colour=False) == [
        "original       the chef cooked the meal at noon",
        "corrupted      the chef ate    the meal at night",
        "discriminator           +93%       !61%    -12%",
    ]


def test_colours_change_nothing_but_the_colour():
    plain, coloured = (sample_lines(MEAL, 80, colour) for colour in (False, True))
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in coloured] == plain
    assert "\x1b[32mate\x1b[0m" in coloured[1] and "\x1b[31m!61%\x1b[0m" in coloured[2]
    assert "\x1b[33mnight\x1b[0m" in coloured[1] and "\x1b" not in coloured[0]


def test_what_does_not_fit_is_cut_where_least_is_to_be_seen():
    row = ["filler"] * 50
    replaced = [place in (3, 30, 31, 33) for place in range(50)]
    corrupted = ["fake" if fake else "filler" for fake in replaced]
    lines = sample_lines(Sample(row, corrupted, replaced, [0.9] * 50), 80, colour=False)
    assert all(len(line) <= 80 for line in lines)
    lines = sample_lines(
        Sample(row, corrupted, replaced, [0.9 if fake else 0.1 for fake in replaced]), 80, colour=False
    )
    assert lines[1].count("fake") == lines[2].count("+90%") == 3
    assert len(lines[1].split()) == len(lines[0].split()) == 1 + 9


def test_a_token_wider_than_the_terminal_is_shown_alone():
    sample = Sample(["x" * 100, "y"], ["x" * 100, "z"], [False, True], [0.1, 0.9])
    assert "x" * 100 in sample_lines(sample, 40, colour=False)[0] or "y" in sample_lines(sample, 40, colour=False)[0]


def test_korean_letters_take_two_columns():
    sample = Sample(["나는", "밥을", "먹다"], ["나는", "go", "먹다"], [False, True, False], [0.1, 0.9, 0.1])
    first, second, third = sample_lines(sample, 80, colour=False)
    starts = [cell_len(line[: line.index(text)]) for line, text in ((first, "밥을"), (second, "go"), (third, "+90%"))]
    assert len(set(starts)) == 1
    assert cell_len(first) == cell_len(second)


def test_a_row_is_decoded_without_its_padding(tmp_path):
    vocabulary = tiny_vocabulary(tmp_path)
    ids = torch.tensor([[2, 5, 6, 7, 3, 0]])
    corrupted = torch.tensor([[2, 5, 9, 7, 3, 0]])
    zeros = torch.zeros_like(ids)
    batch = RTDBatch(
        input_ids=ids,
        masked_input_ids=ids,
        segment_ids=zeros,
        position_ids=zeros,
        piece_ids=(ids != 0).long(),
        positions=torch.tensor([[2]]),
        weights=torch.ones(1, 1),
        token_ids=torch.tensor([[6]]),
        uniforms=torch.zeros(1, 1),
    )
    logits = torch.tensor([[-3.0, -3.0, 2.0, -3.0, -3.0, 9.0]])
    out = RTDOutput(None, None, torch.tensor([[9]]), corrupted, (corrupted != ids).float(), logits, logits)
    sample = make_sample(batch, out, vocabulary)
    assert sample.original == ["[CLS]", "a", "b", "c", "[SEP]"]
    assert sample.corrupted == ["[CLS]", "a", "e", "c", "[SEP]"]
    assert sample.marks() == ["", "", "+", "", ""]
    assert sample.probability[2] == pytest.approx(1 / (1 + 2.718281828**-2), rel=1e-5)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_only_on_terminals_and_not_against_no_color(monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((77, 24)))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert terminal() == (120, False)
    monkeypatch.setattr("sys.stdout", Terminal())
    assert terminal() == (77, True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal() == (77, False)
