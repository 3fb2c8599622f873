"""Export of a pre-training run: its networks as Hugging Face model folders with model cards.

    electra                     discriminator (ElectraForPreTraining) and generator (ElectraForMaskedLM)
    with a uniform generator    discriminator alone
    with a two-tower generator  discriminator alone: transformers has no class for the towers
    Electric                    discriminator alone; its logits are energies
    masked LM alone             masked_lm (ElectraForMaskedLM)

What the networks share is written in each folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from electra import __version__
from electra.checkpoint import load_model
from electra.config import PretrainConfig
from electra.electric import TwoTowerDetection
from electra.encoder import EncoderConfig
from electra.files import atomic_folder
from electra.interop.heads import head_to_hf
from electra.interop.hf import make_network, write_hf
from electra.interop.network import Network, Tensors
from electra.interop.tf_h5 import write_h5_folder
from electra.log import read_metrics
from electra.mixture import read_receipts, shares_of
from electra.mlm import MaskedLM
from electra.objectives import PretrainingModel, make_model
from electra.phases import plan
from electra.rtd import MaskedLMHead, ReplacedTokenDetection
from electra.store import Store
from electra.tokenizer import Vocabulary
from electra.toml import read_toml

ARCHITECTURES = {
    "discriminator": "ElectraForPreTraining",
    "generator": "ElectraForMaskedLM",
    "masked_lm": "ElectraForMaskedLM",
}


ENERGIES = """
## Scores

This is Electric (Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models"). The logits are energies:
minus an energy is the log of the unnormalised probability of a token given all others. Summed over a text this is its
pseudo-log-likelihood, which ranks texts of about the same length in one pass:

```python
import torch

model = ElectraForPreTraining.from_pretrained("discriminator").eval()
inputs = tokenizer("a text", return_tensors="pt", return_special_tokens_mask=True)
is_text = inputs.pop("special_tokens_mask") == 0
with torch.no_grad():
    score = -model(**inputs).logits[is_text].sum()
```
"""


@dataclass(frozen=True)
class RunModels:
    """The networks of a run's newest checkpoint, by name: "discriminator" and "generator", or "masked_lm"."""

    step: int
    vocabulary: Vocabulary
    networks: dict[str, Network]
    cards: dict[str, str]


def read_run(run: Path) -> RunModels:
    """Load the newest checkpoint of a pre-training run as networks under Hugging Face's names."""
    config = read_toml(PretrainConfig, run / "config.toml")
    vocabulary = Store.open(config.data[0], verify=False).vocabulary()
    receipts = read_receipts(run)
    if vocabulary.sha256 != receipts[0]["vocabulary"]["sha256"]:
        raise ValueError(f"{config.data[0]} has another vocabulary than the one {run} was trained with")
    model = make_model(config.model, config.objective, vocabulary.size)
    step = load_model(run, model)
    networks = networks_of(model, f"{run} step {step}", pad_token_id=vocabulary.special.pad)
    cards = {name: model_card(config, run, step, name, receipts) for name in networks}
    return RunModels(step, vocabulary, networks, cards)


def export_run(run: Path, out: Path, format: Literal["hf", "tf-h5"] = "hf", overwrite: bool = False) -> RunModels:
    """Write `out`/discriminator and `out`/generator, or what else the run has, from the newest checkpoint of `run`.

    ElectraForPreTraining loads the first, ElectraForMaskedLM the second, AutoModel and AutoTokenizer both; with
    "tf-h5" the TensorFlow classes of transformers 4. Returns what was written.
    """
    found = read_run(run)
    with atomic_folder(out, overwrite) as folder:
        for name, network in found.networks.items():
            if format == "tf-h5":
                write_h5_folder(folder / name, network, found.vocabulary)
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


def _steps_in_words(config: PretrainConfig, step: int) -> str:
    """'1,000 steps of 128 rows of 128 tokens', one for each phase that was begun."""
    parts = [
        f"{min(step, phase.end) - phase.begin:,} steps of {phase.config.loop.batch_size:,} rows of "
        f"{phase.config.rows.seq_len} tokens"
        for phase in plan(config)
        if phase.begin < step or phase.index == 0
    ]
    return " and ".join(parts)


def _data_in_words(config: PretrainConfig, receipts: Sequence[dict[str, Any]]) -> str:
    """Tokens, documents and files of each store of a run, with its share of the rows where there are several."""
    parts = []
    for receipt, share in zip(receipts, shares_of(config.weights, receipts), strict=True):
        sources = ", ".join(Path(source["path"]).name for source in receipt["sources"][:5])
        if len(receipt["sources"]) > 5:
            sources += f" and {len(receipt['sources']) - 5} more files"
        portion = f"{share:.1%} of the rows from " if len(receipts) > 1 else ""
        parts.append(f"{portion}{receipt['tokens']:,} tokens in {receipt['documents']:,} documents from {sources}")
    return "; ".join(parts)


def model_card(config: PretrainConfig, run: Path, step: int, network: str, receipts: Sequence[dict[str, Any]]) -> str:
    """README.md of a model folder: the data, the steps, the held-out metrics, the recipe, how to load it."""
    head = ARCHITECTURES[network]
    task = "feature-extraction" if network == "discriminator" else "fill-mask"
    objective = {
        "electra": "replaced-token detection",
        "electric": "energy-based cloze modelling",
        "masked-lm": "masked language modelling",
    }[config.objective.objective]
    evaluations = [row for row in read_metrics(run, "eval") if row["step"] <= step]
    metrics = ""
    if evaluations:
        last = evaluations[-1]
        lines = [
            f"| {name.replace('_', ' ')} | {value:.4f} |"
            for name, value in last.items()
            if name not in ("step", "kind") and value is not None
        ]
        rows = "\n".join(lines)
        metrics = f"\n## Held-out metrics at step {last['step']:,}\n\n| metric | value |\n|---|---|\n{rows}\n"
    recipe = (run / "config.toml").read_text(encoding="utf-8")
    loader = "AutoModel" if network == "discriminator" else head
    return f"""---
library_name: transformers
pipeline_tag: {task}
tags: [electra, {objective.replace(" ", "-")}]
---

# ELECTRA {network.replace("masked_lm", "masked LM")}

Pre-trained by {objective} (Clark et al. 2020) for {_steps_in_words(config, step)},
with electra-toolkit {__version__}.

Data: {_data_in_words(config, receipts)}.

```python
from transformers import AutoModel, AutoTokenizer, {head}

tokenizer = AutoTokenizer.from_pretrained("{network}")
model = {loader}.from_pretrained("{network}")
```
{ENERGIES if config.objective.objective == "electric" else ""}{metrics}
## Recipe

`electra pretrain --config config.toml` with

```toml
{recipe}```
"""
