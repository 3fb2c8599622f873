"""Export of a pre-training run: its networks as Hugging Face model folders with model cards.

    electra                     discriminator (ElectraForPreTraining) and generator (ElectraForMaskedLM)
    with a uniform generator    discriminator alone
    with a two-tower generator  discriminator alone: transformers has no class for the towers
    Electric                    discriminator alone; its logits are energies
    masked LM alone             masked_lm (ElectraForMaskedLM)

What the networks share is written in each folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from electra.card import model_card
from electra.checkpoint import load_model
from electra.config import CardConfig, PretrainConfig
from electra.electric import TwoTowerDetection
from electra.encoder import EncoderConfig
from electra.files import atomic_folder
from electra.interop.heads import head_to_hf
from electra.interop.hf import make_network, write_hf
from electra.interop.network import Network, Tensors
from electra.interop.tf_h5 import write_h5_folder
from electra.mixture import read_receipts
from electra.mlm import MaskedLM
from electra.objectives import PretrainingModel, make_model
from electra.pages.runs import PretrainingRun, read_runs
from electra.rtd import MaskedLMHead, ReplacedTokenDetection
from electra.store import Store
from electra.tokenizer import Vocabulary
from electra.toml import read_toml

ARCHITECTURES = {
    "discriminator": "ElectraForPreTraining",
    "generator": "ElectraForMaskedLM",
    "masked_lm": "ElectraForMaskedLM",
}


@dataclass(frozen=True)
class RunModels:
    """The networks of a run's newest checkpoint, by name: "discriminator" and "generator", or "masked_lm"."""

    step: int
    vocabulary: Vocabulary
    networks: dict[str, Network]
    cards: dict[str, str]


def read_run(run: Path, format: Literal["hf", "tf-h5", "onnx"] = "hf", card: CardConfig | None = None) -> RunModels:
    """Load the newest checkpoint of a pre-training run as networks under Hugging Face's names.

    The cards say how to load `format`, and what `card` adds.
    """
    config = read_toml(PretrainConfig, run / "config.toml")
    vocabulary = Store.open(config.data[0], verify=False).vocabulary()
    receipts = read_receipts(run)
    if vocabulary.sha256 != receipts[0]["vocabulary"]["sha256"]:
        raise ValueError(f"{config.data[0]} has another vocabulary than the one {run} was trained with")
    model = make_model(config.model, config.objective, vocabulary.size)
    step = load_model(run, model)
    networks = networks_of(model, f"{run} step {step}", pad_token_id=vocabulary.special.pad)
    (told,) = read_runs([run])
    assert isinstance(told, PretrainingRun)
    cards = {
        name: model_card(told, step, name, ARCHITECTURES[name], vocabulary, card or CardConfig(), format)
        for name in networks
    }
    return RunModels(step, vocabulary, networks, cards)


def export_run(
    run: Path,
    out: Path,
    format: Literal["hf", "tf-h5"] = "hf",
    overwrite: bool = False,
    card: CardConfig | None = None,
) -> RunModels:
    """Write `out`/discriminator and `out`/generator, or what else the run has, from the newest checkpoint of `run`.

    ElectraForPreTraining loads the first, ElectraForMaskedLM the second, AutoModel and AutoTokenizer both; with
    "tf-h5" the TensorFlow classes of transformers 4. Returns what was written.
    """
    found = read_run(run, format, card)
    with atomic_folder(out, overwrite) as folder:
        for name, network in found.networks.items():
            if format == "tf-h5":
                write_h5_folder(folder / name, network, found.vocabulary, found.cards[name])
            else:
                write_hf(folder / name, network, found.vocabulary, found.cards[name])
    return found


def networks_of(model: PretrainingModel, source: str, **extra_config: Any) -> dict[str, Network]:
    """The networks of a model, by name; they share its memory. `extra_config` are further keys of config.json."""
    parts: dict[str, tuple[EncoderConfig, Tensors, Tensors]] = {}
    if isinstance(model, MaskedLM):
        parts["masked_lm"] = (model.config, model.encoder().state_dict(), _head(model.head, model.config))
    else:
        parts["discriminator"] = (model.config, model.encoder().state_dict(), discriminator_head(model))
        if isinstance(model, ReplacedTokenDetection) and model.generator_head is not None:
            shape = model.generator_config
            parts["generator"] = (shape, _generator_encoder(model), generator_head(model))
    return {
        name: make_network(shape, encoder, head, ARCHITECTURES[name], source, **extra_config)
        for name, (shape, encoder, head) in parts.items()
    }


def _generator_encoder(model: ReplacedTokenDetection) -> Tensors:
    return {
        f"{part}.{name}": value
        for part, module in zip(("embeddings", "body"), model.generator_modules(), strict=True)
        for name, value in module.state_dict().items()
    }


def discriminator_head(model: ReplacedTokenDetection | TwoTowerDetection) -> Tensors:
    return head_to_hf(model.discriminator_head.state_dict(), "ElectraForPreTraining", model.config)


def generator_head(model: ReplacedTokenDetection) -> Tensors:
    assert model.generator_head is not None, "a uniform generator has no head"
    return _head(model.generator_head, model.generator_config)


def _head(head: MaskedLMHead, config: EncoderConfig) -> Tensors:
    """The MLM head; its output matrix is the word table, which transformers ties again when it loads."""
    return head_to_hf(head.state_dict(), "ElectraForMaskedLM", config)
