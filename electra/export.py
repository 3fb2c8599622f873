"""Export of a pre-training run: discriminator and generator as Hugging Face model folders with model cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from electra import __version__
from electra.checkpoint import load_model
from electra.config import PretrainConfig
from electra.files import atomic_folder, read_json
from electra.interop.heads import head_to_hf
from electra.interop.hf import make_network, write_hf
from electra.interop.network import Network, Tensors
from electra.interop.tf_h5 import write_h5_folder
from electra.log import read_metrics
from electra.rtd import ReplacedTokenDetection
from electra.store import Store
from electra.tokenizer import Vocabulary
from electra.toml import read_toml


@dataclass(frozen=True)
class RunModels:
    """The two networks of a run's newest checkpoint, by name: "discriminator" and "generator"."""

    step: int
    vocabulary: Vocabulary
    networks: dict[str, Network]
    cards: dict[str, str]


def read_run(run: Path) -> RunModels:
    """Load the newest checkpoint of a pre-training run as networks under Hugging Face's names."""
    config = read_toml(PretrainConfig, run / "config.toml")
    vocabulary = Store.open(config.data, verify=False).vocabulary()
    receipt = read_json(run / "store.json")
    if vocabulary.sha256 != receipt["vocabulary"]["sha256"]:
        raise ValueError(f"{config.data} has another vocabulary than the one {run} was trained with")
    model = ReplacedTokenDetection(config.model, config.objective, vocabulary.size)
    step = load_model(run, model)
    source = f"{run} step {step}"
    pad = {"pad_token_id": vocabulary.special.pad}
    networks = {
        "discriminator": make_network(
            model.config,
            _encoder_state(model, "discriminator"),
            discriminator_head(model),
            "ElectraForPreTraining",
            source,
            **pad,
        ),
        "generator": make_network(
            model.generator_config,
            _encoder_state(model, "generator"),
            generator_head(model),
            "ElectraForMaskedLM",
            source,
            **pad,
        ),
    }
    cards = {name: model_card(config, run, step, name, receipt) for name in networks}
    return RunModels(step, vocabulary, networks, cards)


def export_run(run: Path, out: Path, format: Literal["hf", "tf-h5"] = "hf", overwrite: bool = False) -> int:
    """Write `out`/discriminator and `out`/generator from the newest checkpoint of `run`; returns its step.

    ElectraForPreTraining loads the first, ElectraForMaskedLM the second, AutoModel and AutoTokenizer both; with
    "tf-h5" the TensorFlow classes of transformers 4.
    """
    found = read_run(run)
    with atomic_folder(out, overwrite) as folder:
        for name, network in found.networks.items():
            if format == "tf-h5":
                write_h5_folder(folder / name, network, found.vocabulary)
            else:
                write_hf(folder / name, network, found.vocabulary, found.cards[name])
    return found.step


def _encoder_state(model: ReplacedTokenDetection, body: str) -> Tensors:
    state = {f"embeddings.{name}": value for name, value in model.embeddings.state_dict().items()}
    return state | {f"body.{name}": value for name, value in getattr(model, body).state_dict().items()}


def discriminator_head(model: ReplacedTokenDetection) -> Tensors:
    return head_to_hf(model.discriminator_head.state_dict(), "ElectraForPreTraining", model.config)


def generator_head(model: ReplacedTokenDetection) -> Tensors:
    """The MLM head; its output matrix is the word table, which transformers ties again when it loads."""
    return head_to_hf(model.generator_head.state_dict(), "ElectraForMaskedLM", model.generator_config)


def model_card(config: PretrainConfig, run: Path, step: int, network: str, receipt: dict[str, Any]) -> str:
    """README.md of a model folder: the data, the steps, the held-out metrics, the recipe, how to load it."""
    heads = {"discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}
    task = {"discriminator": "feature-extraction", "generator": "fill-mask"}[network]
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
    sources = ", ".join(Path(source["path"]).name for source in receipt["sources"][:5])
    if len(receipt["sources"]) > 5:
        sources += f" and {len(receipt['sources']) - 5} more files"
    recipe = (run / "config.toml").read_text(encoding="utf-8")
    use = {
        "discriminator": f'model = AutoModel.from_pretrained("{network}")',
        "generator": f'model = {heads[network]}.from_pretrained("{network}")',
    }[network]
    return f"""---
library_name: transformers
pipeline_tag: {task}
tags: [electra, replaced-token-detection]
---

# ELECTRA {network}

Pre-trained by replaced-token detection (Clark et al. 2020) for {step:,} steps of {config.loop.batch_size} rows of
{config.rows.seq_len} tokens with electra-toolkit {__version__}.

Data: {receipt["tokens"]:,} tokens in {receipt["documents"]:,} documents from {sources}.

```python
from transformers import AutoModel, AutoTokenizer, {heads[network]}

tokenizer = AutoTokenizer.from_pretrained("{network}")
{use}
```
{metrics}
## Recipe

`electra pretrain --config config.toml` with

```toml
{recipe}```
"""
