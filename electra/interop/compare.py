"""Did a network survive a conversion? Its tensors by checksum, its results on one batch by value.

    Network that was read -> Expected (checksums, results) -> its memory may go -> network that was written -> compare

The results expected are those of the plain formulas of reference.py or, for a Hugging Face folder where transformers
is installed, of transformers itself; the results found are those of the module that trains here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from electra.interop.heads import HEADS
from electra.interop.hf import build_model
from electra.interop.network import Network
from electra.interop.reference import Probe, reference_results
from electra.interop.weights import has_weights

TOLERANCE = 1e-4
"""Largest difference of a result, in units of the largest result where that is above 1."""


@dataclass(frozen=True)
class Expected:
    """What has to come out of a written network."""

    source: str
    digests: dict[str, bytes]  # SHA-256 of each tensor
    probe: Probe
    results: tuple[Tensor, ...]
    by: str  # who computed them

    @classmethod
    def of(cls, network: Network) -> Expected:
        probe = Probe.of(network)
        results, by = _transformers_results(network, probe), "transformers on the source"
        if results is None:
            results, by = reference_results(network, probe), "the plain formulas in double precision"
        return cls(network.source, _digests(network), probe, results, by)


@torch.no_grad()
def compare(written: Network, expected: Expected) -> str:
    """What was found, in a line; ValueError for a changed tensor and a result that is off by more than TOLERANCE."""
    digests = _digests(written)
    if changed := [name for name, digest in expected.digests.items() if digests.get(name) != digest]:
        raise ValueError(
            f"{expected.source}: {changed[0]} came back from the disk with other values, so nothing was kept: try again"
        )
    found = build_model(written)(*_inputs(written, expected.probe))
    pairs = list(zip(expected.results, found, strict=True))
    largest = max(float((theirs - ours.reshape(theirs.shape)).abs().max()) for theirs, ours in pairs)
    scale = max(float(theirs.abs().max()) for theirs, _ in pairs)
    if not largest <= TOLERANCE * max(1.0, scale):  # NaN too
        raise ValueError(
            f"{expected.source}: what was written answers differently from {expected.by}, by {largest:.2g} where "
            f"results go up to {scale:.3g}, so nothing was kept: please report it"
        )
    return (
        f"every tensor bit-equal; results up to {scale:.3g} differ from those of {expected.by} by at most {largest:.1e}"
    )


def _digests(network: Network) -> dict[str, bytes]:
    return {
        name: hashlib.sha256(tensor.detach().contiguous().numpy().data).digest()
        for name, tensor in network.tensors.items()
    }


@torch.no_grad()
def _transformers_results(network: Network, probe: Probe) -> tuple[Tensor, ...] | None:
    """The results of transformers on the source; None where it is not installed, or the source none of its folders."""
    folder = Path(network.source)
    if not (folder / "config.json").is_file() or not has_weights(folder):
        return None
    try:
        import transformers
    except ImportError:
        return None
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    kind: Any = getattr(transformers, network.architecture)
    model, report = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if report["missing_keys"]:  # names so old that it would begin these tensors anew
        return None
    ids, mask, types = _inputs(network, probe)
    results = model.eval()(input_ids=ids, attention_mask=mask, token_type_ids=types)
    return tuple(results[name] for name in HEADS[network.architecture].outputs)


def _inputs(network: Network, probe: Probe) -> tuple[Tensor, Tensor, Tensor]:
    """The probe as the class takes it: multiple choice wants (questions, choices, tokens)."""
    ids, mask, types = probe.input_ids, probe.attention_mask, probe.token_type_ids
    if network.architecture == "ElectraForMultipleChoice":
        return ids[None], mask[None], types[None]
    return ids, mask, types
