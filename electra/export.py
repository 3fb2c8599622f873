"""Export of a pre-training run: discriminator and generator as Hugging Face model folders with model cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from electra import __version__
from electra.checkpoint import load_model
from electra.config import PretrainConfig
from electra.files import atomic_folder, read_json
from electra.interop.hf import Tensors, save_model_folder
from electra.log import read_metrics
from electra.rtd import ReplacedTokenDetection
from electra.store import Store
from electra.toml import read_toml


def export_run(run: Path, out: Path, overwrite: bool = False) -> int:
    """Write `out`/discriminator and `out`/generator from the newest checkpoint of `run`; returns its step.

    ElectraForPreTraining loads the first, ElectraForMaskedLM the second, AutoModel and AutoTokenizer both.
    """
    config = read_toml(PretrainConfig, run / "config.toml")
    vocabulary = Store.open(config.data, verify=False).vocabulary()
    receipt = read_json(run / "store.json")
    if vocabulary.sha256 != receipt["vocabulary"]["sha256"]:
        raise ValueError(f"{config.data} has another vocabulary than the one {run} was trained with")
    model = ReplacedTokenDetection(config.model, config.objective, vocabulary.size)
    step = load_model(run, model)
    with atomic_folder(out, overwrite) as folder:
        save_model_folder(
            folder / "discriminator",
            config=model.config,
            encoder=_encoder_state(model, "discriminator"),
            head=discriminator_head(model),
            architecture="ElectraForPreTraining",
            vocabulary=vocabulary,
            card=model_card(config, run, step, "discriminator", receipt),
        )
        save_model_folder(
            folder / "generator",
            config=model.generator_config,
            encoder=_encoder_state(model, "generator"),
            head=generator_head(model),
            architecture="ElectraForMaskedLM",
            vocabulary=vocabulary,
            card=model_card(config, run, step, "generator", receipt),
        )
    return step


def _encoder_state(model: ReplacedTokenDetection, body: str) -> Tensors:
    state = {f"embeddings.{name}": value for name, value in model.embeddings.state_dict().items()}
    return state | {f"body.{name}": value for name, value in getattr(model, body).state_dict().items()}


def discriminator_head(model: ReplacedTokenDetection) -> Tensors:
    head = model.discriminator_head.state_dict()
    return {
        f"discriminator_predictions.{theirs}.{kind}": head[f"{ours}.{kind}"]
        for ours, theirs in (("dense", "dense"), ("classifier", "dense_prediction"))
        for kind in ("weight", "bias")
    }


def generator_head(model: ReplacedTokenDetection) -> Tensors:
    """The MLM head; its output matrix is the word table, which transformers ties again when it loads."""
    head = model.generator_head.state_dict()
    return {
        "generator_predictions.dense.weight": head["dense.weight"],
        "generator_predictions.dense.bias": head["dense.bias"],
        "generator_predictions.LayerNorm.weight": head["norm.weight"],
        "generator_predictions.LayerNorm.bias": head["norm.bias"],
        "generator_lm_head.bias": head["bias"][: model.config.vocab_size],
    }


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
