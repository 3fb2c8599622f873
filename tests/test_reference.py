"""The plain formulas that conversions are checked against, themselves checked against transformers."""

from pathlib import Path

import pytest
import torch
from test_hf import make_theirs

from electra.interop.heads import HEADS
from electra.interop.hf import build_model, read_hf
from electra.interop.reference import Probe, reference_results


@pytest.mark.parametrize("same_width", [False, True], ids=["projected", "no projection"])
@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_reference_gives_the_results_of_transformers(tmp_path: Path, name: str, same_width: bool) -> None:
    theirs = make_theirs(name, embedding_size=16 if same_width else 8)
    theirs.save_pretrained(tmp_path)
    network = read_hf(tmp_path)
    probe = Probe.of(network)
    batch = vars(probe)
    if name == "ElectraForMultipleChoice":
        batch = {key: ids[None] for key, ids in batch.items()}
    expected = theirs.double()(**batch)
    found = reference_results(network, probe)
    assert len(found) == len(HEADS[name].outputs)
    for key, ours in zip(HEADS[name].outputs, found, strict=True):
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, expected[key].double(), rtol=1e-5, atol=1e-5)
    for ours, plain in zip(build_model(network)(**batch), found, strict=True):
        torch.testing.assert_close(ours.double(), plain, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_output_of_its_own(tmp_path: Path) -> None:
    theirs = make_theirs("ElectraForMaskedLM", tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path)
    network = read_hf(tmp_path)
    probe = Probe.of(network)
    (found,) = reference_results(network, probe)
    torch.testing.assert_close(found, theirs.double()(**vars(probe)).logits.double(), rtol=1e-5, atol=1e-5)


def test_the_probe_has_padding_and_two_segments_and_is_always_the_same(tmp_path: Path) -> None:
    make_theirs("ElectraModel", max_position_embeddings=20).save_pretrained(tmp_path)
    network = read_hf(tmp_path)
    probe, again = Probe.of(network), Probe.of(network)
    assert probe.input_ids.shape == (2, 20) and probe.input_ids.max() < 53
    assert probe.attention_mask.sum(1).tolist() == [20, 15] and probe.token_type_ids.sum(1).tolist() == [10, 0]
    assert torch.equal(probe.input_ids, again.input_ids)
