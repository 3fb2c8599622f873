"""Hyper-parameters of google-research/electra -> our configurations.

    --hparams JSON of Google's -> read_hparams -> Hparams -> pretrain_config | finetune_config -> flags -> a run

Google's `--hparams` is a JSON file or a JSON text whose fields are laid over the defaults of its code; the same is
done here, so that a file means what it meant there, the known faults included: rows by the original builder's rule,
masks drawn with replacement, no bias correction, layer-wise decay one power too deep. google_fields.py says of each
field what becomes of it. Values that our data or model decide (vocabulary, casing, shape when fine-tuning) are checked
against it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from electra.config import FinetuneConfig, ModelConfig, PretrainConfig, QuestionConfig
from electra.files import read_json
from electra.interop.google import SIZES
from electra.interop.google_fields import FINETUNING, OVERRIDES, PRETRAINING, Field, Rule
from electra.interop.google_objectives import choose_objective
from electra.store import Store
from electra.tokenizer import Vocabulary
from electra.toml import from_dict

DEBUG = {"train_batch_size": 8, "num_train_steps": 20, "eval_batch_size": 4, "num_eval_steps": 2}
SAME_NAMES = "cola mrpc mnli qnli qqp rte chunk squad squadv1 newsqa naturalqs triviaqa searchqa"
TASKS = {"sst": "sst2", "sts": "stsb"} | {name: name for name in SAME_NAMES.split()}
# What the commented-out block of configure_pretraining.py sets for base and large.
PAPER = {
    "base": {"max_seq_length": 512, "learning_rate": 2e-4, "generator_hidden_size": 0.33333, "train_batch_size": 256},
    "large": {"max_seq_length": 512, "learning_rate": 2e-4, "mask_prob": 0.25, "train_batch_size": 2048},
}
DERIVED = {  # fields of ours whose values have a field of Google's behind them, for messages
    "model.embedding_size": "embedding_size",
    "loop.eval_rows": "num_eval_steps * eval_batch_size",
    "layer_decay": "layerwise_lr_decay",
}
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list of texts",
    dict: "a table of fields",
}


@dataclass(frozen=True)
class Hparams:
    """The fields that were given, known and of the right type."""

    source: str  # the file, or the flag
    fields: tuple[Field, ...]  # PRETRAINING or FINETUNING
    given: dict[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """All fields that have a value: given, of the debug mode, or Google's default."""
        defaults = {field.name: field.default for field in self.fields if not isinstance(field.default, Rule)}
        return defaults | (DEBUG if self.given.get("debug") else {}) | self.given

    @property
    def overrides(self) -> dict[str, Any]:
        """The fields of `model_hparam_overrides`."""
        return dict(self.values["model_hparam_overrides"])

    @property
    def vocab_size(self) -> int | None:
        """The size of the vocabulary, if it was given."""
        size = self.overrides.get("vocab_size", self.given.get("vocab_size"))
        return None if size is None else int(size)


def read_hparams(text: str, fields: tuple[Field, ...], flag: str = "--google-hparams") -> Hparams:
    """Hyper-parameters from a file, or from a text that begins with a brace; `fields` is PRETRAINING or FINETUNING.

    `flag` is where a text stood, for messages. ValueError names a field that is unknown, refused or of the wrong type.
    """
    if text.lstrip().startswith("{"):
        source = flag
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{source} is not valid JSON ({error}): give a file, or an object in quotes") from None
    else:
        source = text
        values = read_json(Path(text))
    if not isinstance(values, dict):
        raise ValueError(f'{source} must hold an object such as {{"model_size": "base"}}, not {values!r}')
    given = _checked(values, fields, source)
    if given.get("model_size", "small") not in SIZES:
        raise ValueError(f"{source}: model_size must be one of {', '.join(SIZES)}, not {given['model_size']!r}")
    if "model_hparam_overrides" in given:
        where = f"{source}: model_hparam_overrides"
        given["model_hparam_overrides"] = _checked(given["model_hparam_overrides"], OVERRIDES, where)
    return Hparams(source, fields, given)


def _checked(values: Mapping[str, Any], fields: tuple[Field, ...], source: str) -> dict[str, Any]:
    known = {field.name: field for field in fields}
    given = {}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{source}: {_unknown(name, fields)}")
        field = known[name]
        given[name] = _typed(value, field, source)
        if field.action == "refused" and given[name] != field.default:
            raise ValueError(f"{source}: {name} {json.dumps(value)} is refused, since {field.text}")
    return given


def _unknown(name: str, fields: tuple[Field, ...]) -> str:
    close = difflib.get_close_matches(name, [field.name for field in fields], n=1, cutoff=0.4)
    hint = f", the nearest is {close[0]!r}" if close else ""
    places = {"pre-training": PRETRAINING, "fine-tuning": FINETUNING, "model_hparam_overrides": OVERRIDES}
    for place, other in places.items():
        if any(field.name == name for field in other):
            hint = f": it is one of {place}"
    return f"Google's code has no field {name!r} here{hint}"


def _typed(value: Any, field: Field, source: str) -> Any:
    """The value as the field's type; whole numbers may be written 1e6."""
    if value is None and field.nullable:
        return None
    kind: Any = field.kind
    if isinstance(value, bool) is (kind is bool):
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if kind is float and isinstance(value, int):
            return float(value)
        if isinstance(value, kind) and (kind is not list or all(isinstance(item, str) for item in value)):
            return value
    raise ValueError(f"{source}: {field.name} must be {KINDS[kind]}, not {json.dumps(value)}")


# ---------------------------------------------------------------------------------------- pre-training


def pretrain_config(hparams: Hparams) -> PretrainConfig:
    """Google's defaults and the given fields as our configuration, without `data` and `out`.

    ValueError names the field whose value we cannot take.
    """
    values = hparams.values
    sections: dict[str, dict[str, Any]] = {
        "model": {},
        "objective": {"mask_with_replacement": True},
        "rows": {"packing": "google"},
        "optimizer": {"optimizer": "adamw", "bias_correction": False, "schedule": "product"},
        "loop": {"eval_rows": values["num_eval_steps"] * values["eval_batch_size"]},
    }
    for field in hparams.fields:
        if field.action == "mapped":
            section, name = field.text.split(".")
            sections[section][name] = values[field.name]
    sections["model"] |= _shape(hparams)
    choose_objective(values, sections, hparams.source)
    sections["loop"]["keep"] = values["keep_checkpoint_max"] or 0
    try:
        config = from_dict(PretrainConfig, sections)
    except ValueError as error:
        raise ValueError(f"{hparams.source}: {_in_googles_words(str(error), hparams)}") from None
    predictions = config.objective.max_predictions(config.rows.seq_len)
    if values.get("max_predictions_per_seq", predictions) != predictions:
        raise ValueError(
            f"{hparams.source}: max_predictions_per_seq {values['max_predictions_per_seq']} is refused, since it is "
            f"int(({config.objective.mask_prob} + .005) * {config.rows.seq_len}) = {predictions} in Google's code: "
            "leave it out"
        )
    if config.objective.objective != "masked-lm" and config.objective.generator not in ("same-network", "uniform"):
        _check_generator_heads(config.model, hparams)
    return config


def model_config(hparams: Hparams) -> ModelConfig:
    """The shape of the model alone; of fine-tuning fields without a generator."""
    if hparams.fields is PRETRAINING:
        return pretrain_config(hparams).model
    try:
        return from_dict(ModelConfig, _shape(hparams))
    except ValueError as error:
        raise ValueError(f"{hparams.source}: {_in_googles_words(str(error), hparams)}") from None


def _shape(hparams: Hparams) -> dict[str, Any]:
    """Fields of ModelConfig as training_utils.get_bert_config finds them, the generator's apart."""
    values, overrides = hparams.values, hparams.overrides
    hidden, layers = SIZES[values["model_size"]]
    hidden = overrides.get("hidden_size", hidden)
    bert = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": 4 * hidden,
    } | overrides
    if values["debug"]:  # run_pretraining.py line 43; it beats the overrides
        bert |= {"num_hidden_layers": 3, "hidden_size": 144, "intermediate_size": 576, "num_attention_heads": 4}
    mapped = [field for field in OVERRIDES if field.action == "mapped" and field.name in bert]
    shape = {field.text.removeprefix("model."): bert[field.name] for field in mapped}
    embedding = hparams.given.get("embedding_size", 128 if values["model_size"] == "small" else None)
    return shape | {"embedding_size": bert["hidden_size"] if embedding is None else embedding}


def _check_generator_heads(model: ModelConfig, hparams: Hparams) -> None:
    """Google's generator has heads of 64 whatever the discriminator has; ours follows the discriminator's number."""
    from electra.rtd import generator_config  # brings in torch

    generator = generator_config(model, vocab_size=64)
    theirs = max(1, generator.hidden_size // 64)
    if generator.num_heads != theirs:
        raise ValueError(
            f"{hparams.source}: num_attention_heads {model.num_heads} is refused, since the generator (width "
            f"{generator.hidden_size}) would have {generator.num_heads} heads here and has {theirs} in Google's code"
        )


def _in_googles_words(sentence: str, hparams: Hparams) -> str:
    """A sentence about fields of ours with Google's names before them."""
    fields = (*hparams.fields, *OVERRIDES)
    names = DERIVED | {
        field.text.removeprefix("questions."): field.name for field in fields if field.action == "mapped"
    }
    for ours, theirs in names.items():
        for written in (ours, f"--{ours.replace('_', '-')}"):
            sentence = re.sub(rf"(?<![-.\w]){re.escape(written)}(?![-\w])", f"{theirs} ({written})", sentence)
    return sentence


# ----------------------------------------------------------------------------------------- fine-tuning


def finetune_config(hparams: Hparams) -> FinetuneConfig:
    """Google's defaults and the given fields as our configuration.

    What the file does not say (model, data, out; the task, where it is not given) is left for flags as tyro.MISSING.
    ValueError names the field whose value we cannot take.
    """
    values = hparams.values
    large = values["model_size"] == "large"
    learning_rate = values.get("learning_rate", 5e-5 if large else 1e-4)
    decay = values.get("layerwise_lr_decay", 0.9 if large else 0.8)
    if learning_rate <= 0 or values.get("num_train_epochs", 1) <= 0 or values["num_trials"] <= 0:
        raise ValueError(f"{hparams.source}: learning_rate, num_train_epochs and num_trials must be above 0")
    chosen: dict[str, Any] = {
        "task": _task(hparams),
        "recipe": "google",
        "mode": _mode(values["do_train"], values["do_eval"]),
        "max_length": values.get("max_seq_length", 0),  # 0 is the task's own, the same as Google's
        "learning_rate": learning_rate,
        "epochs": values.get("num_train_epochs", 0.0),  # 0 is the task's own, the same as Google's
        "layer_decay": decay if decay > 0 else 1.0,
        "layer_decay_google": True,
        "bias_correction": False,
        "seeds": tuple(range(values["num_trials"])),
    }
    if values["joint_prediction"] != values["answerable_classifier"]:
        raise ValueError(
            f"{hparams.source}: joint_prediction {json.dumps(values['joint_prediction'])} is refused without "
            "answerable_classifier the same, since the joint head here has the classifier and the simple one has none"
        )
    mapped = {field.text: values[field.name] for field in hparams.fields if field.action == "mapped"}
    questions = {name.partition(".")[2]: value for name, value in mapped.items() if name.startswith("questions.")}
    questions["head"] = "joint" if values["joint_prediction"] else "simple"
    chosen |= {name: value for name, value in mapped.items() if not name.startswith("questions.")}
    missing: Any = tyro.MISSING
    try:
        chosen["questions"] = QuestionConfig(**questions)
        return FinetuneConfig(model=missing, data=missing, out=missing, **chosen)
    except ValueError as error:
        raise ValueError(f"{hparams.source}: {_in_googles_words(str(error), hparams)}") from None


def _mode(train: bool, evaluate: bool) -> str:
    if train:
        return "train_eval" if evaluate else "train"
    return "eval" if evaluate else "predict"


def _task(hparams: Hparams) -> str:
    names = hparams.values["task_names"]
    if len(names) != 1:
        raise ValueError(
            f"{hparams.source}: task_names {names} is refused, since a run has one task: start one for each"
        )
    if names[0] not in TASKS:
        raise ValueError(f"{hparams.source}: task_names {names[0]!r} is not among the tasks here: {', '.join(TASKS)}")
    return TASKS[names[0]]


# ---------------------------------------------------------------------------------- checks and sentences


def check_store(hparams: Hparams, folder: Path | str) -> None:
    """ValueError if the vocabulary's size or casing is given and the store has another."""
    _check_vocabulary(hparams, Store.open(folder, verify=False).vocabulary(), str(folder))


def check_model(hparams: Hparams, name: str) -> None:
    """ValueError if the model folder or hub id has another shape or vocabulary than the fields say.

    The size is `small` where it is not given, as in Google's code, which would refuse the weights of another one.
    """
    from electra.interop.hf import config_from_hf  # brings in torch
    from electra.interop.hub import find_model_folder
    from electra.tokenizer import load_tokenizer

    folder = find_model_folder(name)
    found = config_from_hf(read_json(folder / "config.json"), str(folder / "config.json"))
    said = model_config(hparams)
    for ours, theirs in (
        ("hidden_size", "hidden size"),
        ("num_layers", "layers"),
        ("num_heads", "attention heads"),
        ("intermediate_size", "intermediate size"),
        ("embedding_size", "embedding size"),
    ):
        if getattr(said, ours) != getattr(found, ours):
            default = "" if "model_size" in hparams.given else ", Google's default"
            raise ValueError(
                f"{hparams.source}: with model_size {hparams.values['model_size']!r}{default}, the {theirs} is "
                f"{getattr(said, ours)}, but {name} has {getattr(found, ours)}: give the model_size of the model"
            )
    for theirs, ours in (
        ("hidden_dropout_prob", "dropout"),
        ("attention_probs_dropout_prob", "attention_dropout"),
        ("max_position_embeddings", "max_positions"),
    ):
        if theirs in hparams.overrides and hparams.overrides[theirs] != getattr(found, ours):
            raise ValueError(
                f"{hparams.source}: {theirs} is {hparams.overrides[theirs]}, but {name} has {getattr(found, ours)} in "
                "its config.json: make the two agree"
            )
    _check_vocabulary(hparams, load_tokenizer(folder), name)


def _check_vocabulary(hparams: Hparams, vocabulary: Vocabulary, what: str) -> None:
    if hparams.vocab_size not in (None, vocabulary.size):
        raise ValueError(
            f"{hparams.source}: vocab_size is {hparams.vocab_size}, but the vocabulary of {what} has {vocabulary.size} "
            "entries: leave the field out, or take the right vocabulary"
        )
    lower, found = hparams.given.get("do_lower_case"), vocabulary.options.get("lowercase")
    if lower is not None and found is not None and lower != found:
        raise ValueError(
            f"{hparams.source}: do_lower_case is {json.dumps(lower)}, but the vocabulary of {what} is "
            f"{'uncased' if found else 'cased'}: leave the field out, or take the right vocabulary"
        )


def remarks(hparams: Hparams) -> list[str]:
    """What a user should know before the run: fields without effect, and where Google's base and large surprise."""
    lines = []
    reasons: dict[str, list[str]] = {}
    for field in hparams.fields:
        if field.action == "ignored" and field.name in hparams.given:
            reasons.setdefault(field.text, []).append(field.name)
    if reasons:
        parts = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
        lines.append(f"no meaning here: {parts}")
    size = hparams.values["model_size"]
    if hparams.fields is PRETRAINING and size in PAPER:
        left = {name: value for name, value in PAPER[size].items() if name not in hparams.given}
        if left:
            now = ", ".join(f"{name} {hparams.values[name]:g}" for name in left)
            lines.append(
                f"model_size {size} changes the shape alone, as in Google's code, where the paper's other values are "
                f"commented out: {now} stay; the paper's are {json.dumps(left)}"
            )
    return [f"google      {line}" for line in lines]
