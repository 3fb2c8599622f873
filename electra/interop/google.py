"""Checkpoints of google-research/electra (TensorFlow 1) as networks under Hugging Face's names.

    electra/embeddings, electra/encoder/layer_N, electra/embeddings_project, discriminator_predictions -> discriminator
    (generator|electra)/embeddings, generator/encoder, ..., generator_predictions                      -> generator
    generator_ltr, generator_rtl, cloze_predictions: the two towers, for which transformers has no class -> left out
    task_specific/TASK                                                          -> heads of tasks (google_heads.py)
    VARIABLE/adam_m, VARIABLE/adam_v, global_step                               -> state of the optimizer

TensorFlow's kernels are (in, out) and torch's weights (out, in). Everything about the model follows from the shapes
except the number of attention heads, for which Google's rule stands in unless hparams say otherwise. The names are
those of model/modeling.py and run_pretraining.py; which of the two networks owns what depends on the options
`untied_generator` and `untied_generator_embeddings`, and is read off the names.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from electra.encoder import EncoderConfig
from electra.interop.bundle import Bundle
from electra.interop.google_heads import TaskHead, read_heads
from electra.interop.hf import hf_config
from electra.interop.network import Network, Tensors, infer_config

Slot = Literal["adam_m", "adam_v"]
NetworkName = Literal["discriminator", "generator"]
Ties = Literal["embeddings", "all", "none"]

SLOTS = ("/adam_m", "/adam_v")
NO_WEIGHTS = {"global_step", "temperature"}
"""`temperature` lies in some checkpoints of Google's; Hugging Face's converter skips it too."""
TOWERS = ("generator_ltr/", "generator_rtl/", "cloze_predictions/")
"""Scopes of a two-tower generator (run_pretraining.TwoTowerClozeTransformer)."""

COMPARED = (
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "embedding_size",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
)
"""The hparams that leave a trace in the shapes, as BertConfig and config.json call them."""

SIZES = {"small": (256, 12), "base": (768, 12), "large": (1024, 24)}
"""model_size -> hidden size, layers (util/training_utils.py)."""


class HFName(NamedTuple):
    """Where a variable of Google's goes."""

    network: NetworkName
    name: str
    transpose: bool


_DENSE = r"attention/self/(?:query|key|value)|attention/output/dense|intermediate/dense|output/dense"
_NORM = r"(?:attention/)?output/LayerNorm"
_VARIABLE = re.compile(
    rf"""
    (?:electra|generator)/(?:
        embeddings/(?:(?:word|position|token_type)_embeddings|LayerNorm/(?:gamma|beta))
        | embeddings_project/(?:kernel|bias)
        | encoder/layer_\d+/(?:(?:{_DENSE})/(?:kernel|bias)|(?:{_NORM})/(?:gamma|beta))
    )
    | discriminator_predictions/dense(?:_1)?/(?:kernel|bias)
    | generator_predictions/(?:dense/(?:kernel|bias)|LayerNorm/(?:gamma|beta)|output_bias)
    """,
    re.VERBOSE,
)
_KINDS = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}


def hf_name(variable: str) -> HFName:
    """Network and Hugging Face's name of a variable, and whether its two dimensions change places.

    Variables that both networks use go by the owner: `electra/embeddings/...` to the discriminator. A moment of Adam
    lies where its variable does. ValueError if Google's code has no such variable.
    """
    if not _VARIABLE.fullmatch(variable):
        raise ValueError(f"{variable} is no variable of Google's ELECTRA")
    scope, _, rest = variable.partition("/")
    network: NetworkName = "generator" if scope.startswith("generator") else "discriminator"
    if variable == "generator_predictions/output_bias":
        return HFName(network, "generator_lm_head.bias", False)
    path, _, kind = rest.rpartition("/")
    if kind.endswith("_embeddings"):
        path, kind = f"{path}/{kind}", "gamma"
    path = path.replace("/", ".").replace("layer_", "layer.").replace("dense_1", "dense_prediction")
    prefix = scope if scope.endswith("_predictions") else "electra"
    return HFName(network, f"{prefix}.{path}.{_KINDS[kind]}", kind == "kernel")


@dataclass(frozen=True)
class GoogleCheckpoint:
    """A checkpoint of google-research/electra in memory; the moments of Adam stay in the file until asked for."""

    bundle: Bundle
    discriminator: Network  # ElectraForPreTraining; ElectraModel where the checkpoint has no discriminator's head
    generator: Network | None  # ElectraForMaskedLM; shares tensors with the discriminator as `ties` says
    has_towers: bool  # the generator is one of two towers, and not read
    ties: Ties | None  # what both networks share; None without a generator
    tasks: dict[str, TaskHead]  # heads of a fine-tuned checkpoint, by task
    step: int | None
    has_moments: bool  # Adam's two moments are there for every variable of both networks
    variables: dict[NetworkName, dict[str, str]]  # Hugging Face's name -> Google's

    @property
    def missing(self) -> list[str]:
        """What a complete pre-training checkpoint has and this one has not, for the report."""
        generator = f"the generator{' (its two towers are no model of their own)' * self.has_towers}"
        found = {
            "the discriminator's head": self.discriminator.architecture == "ElectraForPreTraining",
            generator: self.generator is not None,
            "Adam's moments": self.has_moments,
            "the step": self.step is not None,
        }
        return [what for what, there in found.items() if not there]

    def moments(self, network: NetworkName, slot: Slot) -> Tensors:
        """One of Adam's moments for every tensor of a network, under the names and in the shapes of its weights.

        They go through `encoder_from_hf` like weights. ValueError names the first that the checkpoint lacks.
        """
        return {
            name: _read(self.bundle, f"{variable}/{slot}", transpose=hf_name(variable).transpose)
            for name, variable in self.variables[network].items()
        }


def read_google(prefix: Path, hparams: dict[str, Any] | None = None) -> GoogleCheckpoint:
    """Read a checkpoint: a prefix, one of its files, or a folder with the file `checkpoint`.

    `hparams` are fields of Google's PretrainingConfig or FinetuningConfig. Those that shape the model and are given
    are compared with the shapes; the number of heads and the dropout rates are taken from them. ValueError in a
    sentence for a damaged file, variables that are missing or unknown, and each hparam that disagrees.
    """
    bundle = Bundle.find(prefix)
    source, hparams = str(bundle.prefix), hparams or {}
    if bundle.object_graph() is not None:
        raise ValueError(f"{source} is a TensorFlow 2 object checkpoint, not one of google-research/electra")
    names = set(bundle.names())
    variables = {name for name in names if not name.endswith(SLOTS)} - NO_WEIGHTS
    task_variables = {name for name in variables if name.startswith("task_specific/")}
    variables -= task_variables
    towers = {name for name in variables if name.startswith(TOWERS)}
    variables -= towers
    ties = _ties(variables)

    stated = _stated_shape(hparams, source)
    num_heads = stated["num_attention_heads"][1] if "num_attention_heads" in stated else 0
    config = _with_dropout(_infer(bundle, variables, "electra", "electra", num_heads), hparams)
    _check_stated(stated, config, source)
    expected = encoder_variables(config, "electra", "electra")
    has_head = any(name.startswith("discriminator_predictions/") for name in variables)
    if has_head:
        expected |= _discriminator_head(config)
    mapping: dict[NetworkName, dict[str, str]] = {"discriminator": _by_hf_name(expected)}

    generator_config = None
    if ties is not None:
        if ties == "all":
            generator_config = config
            of_generator = encoder_variables(config, "electra", "electra")
        else:
            owner = "generator" if ties == "none" else "electra"
            generator_config = _with_dropout(_infer(bundle, variables, "generator", owner), hparams)
            of_generator = encoder_variables(generator_config, "generator", owner)
        of_generator |= _generator_head(generator_config)
        mapping["generator"] = _by_hf_name(of_generator)
        expected |= of_generator
    _check_generator(hparams, config, generator_config, ties, source)
    _check_variables(bundle, variables, expected)

    tensors = {name: _read(bundle, name, hf_name(name).transpose) for name in expected}
    discriminator = _network(
        source, "ElectraForPreTraining" if has_head else "ElectraModel", config, mapping["discriminator"], tensors
    )
    generator = None
    if generator_config is not None:
        generator = _network(source, "ElectraForMaskedLM", generator_config, mapping["generator"], tensors)
    return GoogleCheckpoint(
        bundle=bundle,
        discriminator=discriminator,
        generator=generator,
        has_towers=bool(towers),
        ties=ties,
        tasks=read_heads(bundle, task_variables, discriminator, config),
        step=int(bundle.read("global_step")) if "global_step" in names else None,
        has_moments=all(f"{name}{slot}" in names for name in expected for slot in SLOTS),
        variables=mapping,
    )


def encoder_variables(config: EncoderConfig, scope: str, embeddings: str) -> dict[str, tuple[int, ...]]:
    """Names and TensorFlow's shapes of all variables of an encoder; `embeddings` is the scope of its embeddings."""
    hidden, width = config.hidden_size, config.embedding_size
    shapes: dict[str, tuple[int, ...]] = {
        f"{embeddings}/embeddings/word_embeddings": (config.vocab_size, width),
        f"{embeddings}/embeddings/position_embeddings": (config.max_positions, width),
        f"{embeddings}/embeddings/token_type_embeddings": (config.type_vocab_size, width),
    } | _norm(f"{embeddings}/embeddings/LayerNorm", width)
    if width != hidden:
        shapes |= _dense(f"{scope}/embeddings_project", width, hidden)
    for index in range(config.num_layers):
        layer = f"{scope}/encoder/layer_{index}"
        for part in ("query", "key", "value"):
            shapes |= _dense(f"{layer}/attention/self/{part}", hidden, hidden)
        shapes |= _dense(f"{layer}/attention/output/dense", hidden, hidden)
        shapes |= _norm(f"{layer}/attention/output/LayerNorm", hidden)
        shapes |= _dense(f"{layer}/intermediate/dense", hidden, config.intermediate_size)
        shapes |= _dense(f"{layer}/output/dense", config.intermediate_size, hidden)
        shapes |= _norm(f"{layer}/output/LayerNorm", hidden)
    return shapes


def _discriminator_head(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    hidden, head = config.hidden_size, "discriminator_predictions"
    return _dense(f"{head}/dense", hidden, hidden) | _dense(f"{head}/dense_1", hidden, 1)


def _generator_head(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    head = "generator_predictions"
    return (
        _dense(f"{head}/dense", config.hidden_size, config.embedding_size)
        | _norm(f"{head}/LayerNorm", config.embedding_size)
        | {f"{head}/output_bias": (config.vocab_size,)}
    )


def _dense(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/gamma": (size,), f"{name}/beta": (size,)}


def _ties(variables: set[str]) -> Ties | None:
    """What the networks share; a masked-LM head on the one encoder (untied_generator=False, BERT) is "all"."""
    if any(name.startswith("generator/embeddings/") for name in variables):
        return "none"
    if any(name.startswith("generator/") for name in variables):
        return "embeddings"
    return "all" if any(name.startswith("generator_predictions/") for name in variables) else None


def _by_hf_name(variables: Iterable[str]) -> dict[str, str]:
    return {hf_name(variable).name: variable for variable in variables}


def _infer(bundle: Bundle, variables: set[str], scope: str, embeddings: str, num_heads: int = 0) -> EncoderConfig:
    """The shape of an encoder from the index alone."""
    shapes: Tensors = {}
    for variable in variables:
        owner = embeddings if "/embeddings/" in variable else scope
        if variable.startswith(f"{owner}/") and _VARIABLE.fullmatch(variable):
            place, shape = hf_name(variable), bundle.shape(variable)
            shapes[place.name] = torch.empty(shape[::-1] if place.transpose else shape, device="meta")
    return infer_config(shapes, str(bundle.prefix), num_heads)


def _check_variables(bundle: Bundle, variables: set[str], expected: dict[str, tuple[int, ...]]) -> None:
    unknown = sorted(variables - set(expected))
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ValueError(
            f"{bundle.prefix} has variables that Google's ELECTRA of this shape has not: {', '.join(unknown[:3])}{more}"
        )
    for name, shape in expected.items():
        if name not in variables:
            raise ValueError(f"{bundle.prefix} lacks the variable {name}: it is not a complete ELECTRA model")
        if bundle.shape(name) != shape:
            raise ValueError(f"{bundle.prefix}: {name} has the shape {bundle.shape(name)} where {shape} is needed")


def _network(
    source: str, architecture: str, config: EncoderConfig, mapping: dict[str, str], tensors: dict[str, Tensor]
) -> Network:
    named = {name: tensors[variable] for name, variable in mapping.items()}
    return Network(source, architecture, hf_config(config, architecture), named)


def _read(bundle: Bundle, variable: str, transpose: bool) -> Tensor:
    array = bundle.read(variable).astype(np.float32, copy=False)
    return torch.from_numpy(np.ascontiguousarray(array.T) if transpose else array)


# ------------------------------------------------------------------------------------------------------ hparams


def _stated_shape(hparams: dict[str, Any], source: str) -> dict[str, tuple[str, int]]:
    """What hparams say of the discriminator's shape: BertConfig's field -> (hparam that says it, value)."""
    overrides = hparams.get("model_hparam_overrides") or {}
    size = hparams.get("model_size")
    if size is not None and size not in SIZES:
        raise ValueError(f"hparams for {source}: model_size is {size!r}, not small, base or large")
    if not isinstance(overrides, dict):
        raise ValueError(f"hparams for {source}: model_hparam_overrides is no JSON object: {overrides!r}")
    if overrides.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"hparams for {source}: hidden_act {overrides['hidden_act']!r} is not supported, only 'gelu'")
    stated: dict[str, tuple[str, int]] = {}
    if size is not None:
        stated |= dict(zip(("hidden_size", "num_hidden_layers"), (("model_size", n) for n in SIZES[size]), strict=True))
    if hparams.get("vocab_size") is not None:
        stated["vocab_size"] = ("vocab_size", hparams["vocab_size"])
    stated |= {name: (f"model_hparam_overrides.{name}", value) for name, value in overrides.items()}
    if hparams.get("debug"):
        debug = {"num_hidden_layers": 3, "hidden_size": 144, "intermediate_size": 576, "num_attention_heads": 4}
        stated |= {name: ("debug", value) for name, value in debug.items()}
    if "hidden_size" in stated:
        origin, hidden = stated["hidden_size"]
        stated.setdefault("intermediate_size", (origin, 4 * hidden))
        stated.setdefault("num_attention_heads", (origin, max(1, hidden // 64)))
    if hparams.get("embedding_size") is not None:
        stated["embedding_size"] = ("embedding_size", hparams["embedding_size"])
    elif size is not None:
        stated["embedding_size"] = ("model_size", 128) if size == "small" else stated["hidden_size"]
    if hparams.get("max_seq_length") is not None:
        stated["max_seq_length"] = ("max_seq_length", hparams["max_seq_length"])
    return stated


def _check_stated(stated: dict[str, tuple[str, int]], config: EncoderConfig, source: str) -> None:
    found = hf_config(config, "")
    for name in COMPARED:
        if name in stated and found[name] != stated[name][1]:
            origin, value = stated[name]
            said = f"{origin} {value}" if origin.endswith(name) else f"{origin} ({name} {value})"
            raise ValueError(f"the hparam {said} disagrees with {source}, whose {name} is {found[name]}")
    if "max_seq_length" in stated and stated["max_seq_length"][1] > config.max_positions:
        raise ValueError(
            f"the hparam max_seq_length {stated['max_seq_length'][1]} disagrees with {source}, which has "
            f"{config.max_positions} positions"
        )


def _check_generator(
    hparams: dict[str, Any], config: EncoderConfig, generator: EncoderConfig | None, ties: Ties | None, source: str
) -> None:
    """Compare the hparams of the generator, where given, with the checkpoint; without a generator all is well."""
    if generator is None:
        return
    facts: dict[str, tuple[bool, str]] = {}
    if ties != "all":
        hidden = round(config.hidden_size * hparams.get("generator_hidden_size", 0))
        layers = round(config.num_layers * hparams.get("generator_layers", 0))
        facts["generator_hidden_size"] = (hidden == generator.hidden_size, f"has {generator.hidden_size} units")
        facts["generator_layers"] = (layers == generator.num_layers, f"has {generator.num_layers} layers")
    untied = hparams.get("untied_generator", True) and hparams.get("electra_objective", True)
    body = "is the discriminator itself" if ties == "all" else "has layers of its own"
    facts["untied_generator"] = (bool(untied) == (ties != "all"), body)
    tables = "has embeddings of its own" if ties == "none" else "has no embeddings of its own"
    untied = hparams.get("untied_generator_embeddings", False)
    facts["untied_generator_embeddings"] = (bool(untied) == (ties == "none"), tables)
    for name, (agrees, fact) in facts.items():
        if name in hparams and not agrees:
            raise ValueError(f"the hparam {name} {hparams[name]} disagrees with {source}, whose generator {fact}")


def _with_dropout(config: EncoderConfig, hparams: dict[str, Any]) -> EncoderConfig:
    overrides = hparams.get("model_hparam_overrides") or {}
    return dataclasses.replace(
        config,
        dropout=overrides.get("hidden_dropout_prob", config.dropout),
        attention_dropout=overrides.get("attention_probs_dropout_prob", config.attention_dropout),
    )
