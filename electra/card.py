"""The model card (README.md) of a network of a pre-training run: what someone who meets it elsewhere needs to know.

    run folder -> pages/runs.py -> data, plan, steps, machine, held-out metrics -> `model_card` -> README.md

Everything comes from the files of the run; what these cannot know (licence, languages, what carbon a kWh costs) comes
from the user by `CardConfig`, and is left out or said to be unknown where nobody told.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from electra import __version__
from electra.config import CardConfig, PretrainConfig
from electra.front_matter import front_matter
from electra.machine import hardware
from electra.mixture import shares_of, training_tokens
from electra.pages.runs import PretrainingRun
from electra.progress import duration
from electra.tokenizer import Vocabulary
from electra.toml import to_dict

OBJECTIVES = {
    "electra": "replaced-token detection",
    "electric": "energy-based cloze modelling",
    "masked-lm": "masked language modelling",
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


def model_card(
    run: PretrainingRun,
    step: int,
    network: str,
    architecture: str,
    vocabulary: Vocabulary,
    card: CardConfig,
    format: str = "hf",
) -> str:
    """README.md of the folder of `network` ("discriminator", ...), whose class in transformers is `architecture`.

    ValueError if carbon is asked for and the run has logged no speed, from which its hours are known.
    """
    config = run.config
    objective = OBJECTIVES[config.objective.objective]
    languages = card.language or known_languages(run.receipts)
    emissions = _emissions(run, step, card) if card.carbon else {}
    head = front_matter(
        languages=languages,
        license=card.license,
        pipeline_tag="feature-extraction" if network == "discriminator" else "fill-mask",
        tags=["electra", objective.replace(" ", "-"), *([format] if format == "onnx" else [])],
        **({"co2_eq_emissions": emissions} if emissions else {}),
    )
    where = hardware(run.starts) or "unknown"
    hours = _hours(run, step)
    took = f", {duration(3600 * hours)} of training (evaluations and saving not counted)" if hours else ""
    carbon = ""
    if emissions:
        carbon = f"* Carbon (estimate): {emissions['emissions']:,.4g} g of CO2 equivalent = {emissions['source']}.\n"
    scores = ENERGIES if config.objective.objective == "electric" and format == "hf" else ""
    return f"""{head}
# ELECTRA {network.replace("masked_lm", "masked LM")}

Pre-trained by {objective} (Clark et al. 2020) for {_steps_in_words(run, step)},
with electra-toolkit {__version__}.

## How to load

{_loading(network, architecture, format)}
{scores}
## Data

{_data_in_words(config, run.receipts)}.

* Languages: {", ".join(languages) if languages else "not recorded"}.
* Vocabulary: {_vocabulary_in_words(vocabulary)}.
* Read: {_reading_in_words(run, step)}.

## Training

* Plan: {_plan_in_words(run)}; these are the weights after step {step:,}.
* Hardware: {where}{took}.
{carbon}{_metrics(run, step)}
## Limits

{_limits(run, network, step)}

## Recipe

`electra pretrain --config config.toml` with

```toml
{_recipe(config)}```
"""


def _recipe(config: PretrainConfig) -> str:
    """config.toml without the folders of the machine: a card is read elsewhere, and they name users."""
    values = to_dict(config)
    values["data"] = [_last_part(place) for place in values["data"]]
    values |= {name: _last_part(values[name]) for name in ("out", "init", "init_generator")}
    return tomli_w.dumps(values)


def _last_part(place: str) -> str:
    return place.rstrip("/").rpartition("/")[2]


def known_languages(receipts: Sequence[dict[str, Any]]) -> list[str]:
    """What the stores of a run were told when they were built, by --languages or --sentences."""
    found: dict[str, None] = {}
    for receipt in receipts:
        options = receipt.get("options", {})
        named = options.get("cleaning", {}).get("languages", ()) or [options.get("sentences", "")]
        found |= dict.fromkeys(language for language in named if language)
    return list(found)


def _loading(network: str, architecture: str, format: str) -> str:
    path = f'"{network}"'
    if format == "onnx":
        code = f"""import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({path})
session = onnxruntime.InferenceSession("{network}/model.onnx")
(logits,) = session.run(["logits"], dict(tokenizer("a text", return_tensors="np")))"""
    elif format == "tf-h5":
        code = f"""from transformers import AutoTokenizer, TF{architecture}  # transformers 4; 5 has no TensorFlow

tokenizer = AutoTokenizer.from_pretrained({path})
model = TF{architecture}.from_pretrained({path})"""
    else:
        loader = "AutoModel" if network == "discriminator" else architecture
        code = f"""from transformers import AutoModel, AutoTokenizer, {architecture}

tokenizer = AutoTokenizer.from_pretrained({path})
model = {loader}.from_pretrained({path})"""
    hint = ""
    if network == "discriminator" and format == "hf":
        hint = (
            f"\n\n`{architecture}` has the head that finds replaced tokens; `electra finetune` and the other classes "
        )
        hint += "of transformers start from the encoder."
    return f"```python\n{code}\n```{hint}"


def _steps_in_words(run: PretrainingRun, step: int) -> str:
    """'1,000 steps of 128 rows of 128 tokens', one for each phase that was begun."""
    parts = [
        f"{min(step, phase.end) - phase.begin:,} steps of {phase.config.loop.batch_size:,} rows of "
        f"{phase.config.rows.seq_len} tokens"
        for phase in run.phases
        if phase.begin < step or phase.index == 0
    ]
    return " and ".join(parts)


def _plan_in_words(run: PretrainingRun) -> str:
    return "; then ".join(
        f"{phase.steps:,} steps of {phase.config.loop.batch_size:,} x {phase.config.rows.seq_len} tokens, "
        f"{phase.config.optimizer.optimizer}, {phase.schedule}"
        for phase in run.phases
    )


def _data_in_words(config: PretrainConfig, receipts: Sequence[dict[str, Any]]) -> str:
    """Tokens, documents and files of each store of a run, with its share of the rows where there are several."""
    parts = []
    for receipt, share in zip(receipts, shares_of(config.weights, receipts), strict=True):
        sources = ", ".join(Path(source["path"]).name for source in receipt["sources"][:5])
        if len(receipt["sources"]) > 5:
            sources += f" and {len(receipt['sources']) - 5} more files"
        portion = f"{share:.1%} of the rows from " if len(receipts) > 1 else ""
        origin = f" from {sources}" if sources else ""
        parts.append(f"{portion}{receipt['tokens']:,} tokens in {receipt['documents']:,} documents{origin}")
    return "; ".join(parts)


def _reading_in_words(run: PretrainingRun, step: int) -> str:
    """Tokens of the rows read, and how often each training token was read on the mean."""
    read = int(run.tokens(np.array([step]))[0])
    parts = [
        f"{read * share / training_tokens(receipt):.2g}"
        for receipt, share in zip(run.receipts, shares_of(run.config.weights, run.receipts), strict=True)
    ]
    several = " of each store in turn" if len(parts) > 1 else ""
    return f"{read:,} tokens, about {', '.join(parts)} times the training tokens{several}"


def _vocabulary_in_words(vocabulary: Vocabulary) -> str:
    case = {"True": ", lower-cased", "False": ", cased"}.get(str(vocabulary.options.get("lowercase")), "")
    return f"{vocabulary.size:,} entries{case}"


def _hours(run: PretrainingRun, step: int) -> float:
    """Hours of training up to `step`, by the speeds logged; 0 where none are.

    A run that goes on with weights of another system begins at their step: what came before was not done here.
    """
    steps, hours = run.hours
    if not len(steps):
        return 0.0
    first = min((row["step"] for row in run.starts), default=0)
    begin, end = np.interp([first, step], [0.0, *steps], [0.0, *hours])
    return float(end - begin)


def _emissions(run: PretrainingRun, step: int, card: CardConfig) -> dict[str, Any]:
    """What the Hub calls co2_eq_emissions: grams, how they were found, and on what."""
    hours = _hours(run, step)
    if not hours:
        raise ValueError(
            f"{run.folder / 'metrics.jsonl'} has no speed of training, from which hours follow: leave out --carbon"
        )
    energy = hours * card.watts / 1000
    source = (
        f"{hours:,.4g} h of training, from the tokens and speeds logged, evaluations and saving not counted, x "
        f"{card.watts:g} W as stated = {energy:,.4g} kWh, x {card.carbon:g} g per kWh as stated"
    )
    found = {"emissions": float(f"{energy * card.carbon:.4g}"), "source": source, "training_type": "pre-training"}
    return found | ({"hardware_used": where} if (where := hardware(run.starts)) else {})


def _metrics(run: PretrainingRun, step: int) -> str:
    evaluations = [row for row in run.history.evaluations if row["step"] <= step]
    if not evaluations:
        return ""
    last = evaluations[-1]
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {value:.4f} |"
        for name, value in last.items()
        if name not in ("step", "kind") and value is not None
    )
    return f"\n## Held-out metrics at step {last['step']:,}\n\n| metric | value |\n|---|---|\n{rows}\n"


def _limits(run: PretrainingRun, network: str, step: int) -> str:
    """What follows from the data, the lengths and the steps; one line each."""
    longest = max(phase.config.rows.seq_len for phase in run.phases if phase.begin < step or phase.index == 0)
    positions = run.config.model.max_positions
    use = {
        "discriminator": "An encoder to be fine-tuned: it neither writes text nor, as it is, answers questions.",
        "generator": "Made to corrupt text for the discriminator, and smaller: for most tasks fine-tune the other.",
        "masked_lm": "An encoder that fills single gaps: it does not write text.",
    }[network]
    lines = [use]
    if longest < positions:
        lines.append(
            f"It was trained on rows of at most {longest} tokens: it takes {positions}, but the positions beyond "
            f"{longest} have learned nothing."
        )
    else:
        lines.append(f"It takes at most {positions} tokens.")
    if step < run.steps:
        lines.append(f"Its training was not finished: step {step:,} of {run.steps:,}.")
    lines.append(
        "It knows what its data says, with its errors and prejudices; nothing but the held-out metrics of this card "
        "was measured, and those on the same sources."
    )
    return "\n".join(f"* {line}" for line in lines)
