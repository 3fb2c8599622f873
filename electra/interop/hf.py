"""Hugging Face ELECTRA folders, both ways: `read_hf` -> `Network` -> `write_hf`, and our own layout.

    folder or hub id -> files (weights.py) -> names of today -> checked against config.json -> Network -> folder
                                                                                                  -> Encoder + head

Ours keeps query, key and value in one matrix; theirs has three. A word table that is padded inside our model is
cut to the true vocabulary in a file. Nothing here imports `transformers`; the tests compare with it.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from electra.encoder import LAYER_NORM_EPSILON, Encoder, EncoderConfig
from electra.files import atomic_file, atomic_folder, read_json, write_json
from electra.interop.heads import HEADS, HeadedEncoder, head_from_hf, head_to_hf
from electra.interop.hub import find_model_folder
from electra.interop.network import OUTPUT, WORDS, Network, Tensors
from electra.interop.weights import SAFETENSORS, TASK_HEADS, read_file, read_weights, write_weights
from electra.tokenizer import Vocabulary, load_tokenizer

# our name -> Hugging Face's, below "electra."
EMBEDDINGS = {
    "word.weight": "word_embeddings.weight",
    "position.weight": "position_embeddings.weight",
    "segment.weight": "token_type_embeddings.weight",
    "norm.weight": "LayerNorm.weight",
    "norm.bias": "LayerNorm.bias",
}
LAYER = {
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}
QKV = ("query", "key", "value")


def encoder_to_hf(state: Tensors, config: EncoderConfig) -> Tensors:
    """An `Encoder` state dict under Hugging Face's names ("electra. ..."), padding cut off; views, not copies."""
    out: Tensors = {}
    for ours, theirs in EMBEDDINGS.items():
        out[f"electra.embeddings.{theirs}"] = state[f"embeddings.{ours}"]
    out["electra.embeddings.word_embeddings.weight"] = state["embeddings.word.weight"][: config.vocab_size]
    for kind in ("weight", "bias"):
        if config.embedding_size != config.hidden_size:
            out[f"electra.embeddings_project.{kind}"] = state[f"body.project.{kind}"]
        for index in range(config.num_layers):
            theirs_prefix, ours_prefix = f"electra.encoder.layer.{index}", f"body.layers.{index}"
            for name, part in zip(QKV, state[f"{ours_prefix}.qkv.{kind}"].chunk(3), strict=True):
                out[f"{theirs_prefix}.attention.self.{name}.{kind}"] = part
            for ours, theirs in LAYER.items():
                out[f"{theirs_prefix}.{theirs}.{kind}"] = state[f"{ours_prefix}.{ours}.{kind}"]
    return out


def encoder_from_hf(tensors: Tensors, config: EncoderConfig, source: str) -> Tensors:
    """The `Encoder` state dict out of tensors under Hugging Face's names; ValueError names what is missing."""

    def take(name: str) -> Tensor:
        if name not in tensors:
            raise ValueError(f"{source} lacks the tensor {name}: it is not a complete ELECTRA model")
        return tensors[name].float()

    out: Tensors = {f"embeddings.{ours}": take(f"electra.embeddings.{theirs}") for ours, theirs in EMBEDDINGS.items()}
    out["embeddings.word.weight"] = pad_vocabulary(out["embeddings.word.weight"], config)
    for kind in ("weight", "bias"):
        if config.embedding_size != config.hidden_size:
            out[f"body.project.{kind}"] = take(f"electra.embeddings_project.{kind}")
        for index in range(config.num_layers):
            theirs_prefix, ours_prefix = f"electra.encoder.layer.{index}", f"body.layers.{index}"
            parts = [take(f"{theirs_prefix}.attention.self.{name}.{kind}") for name in QKV]
            out[f"{ours_prefix}.qkv.{kind}"] = torch.cat(parts)
            for ours, theirs in LAYER.items():
                out[f"{ours_prefix}.{ours}.{kind}"] = take(f"{theirs_prefix}.{theirs}.{kind}")
    return out


def pad_vocabulary(table: Tensor, config: EncoderConfig) -> Tensor:
    """Append zero rows up to the padded vocabulary size."""
    missing = config.padded_vocab_size - table.shape[0]
    return torch.cat([table, table.new_zeros(missing, *table.shape[1:])]) if missing else table


def hf_config(config: EncoderConfig, architecture: str, **extra: Any) -> dict[str, Any]:
    """`config.json` of an ELECTRA model as transformers writes it."""
    return {
        "architectures": [architecture],
        "model_type": "electra",
        "vocab_size": config.vocab_size,
        "embedding_size": config.embedding_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.type_vocab_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
        "dtype": "float32",
    } | extra


# what transformers can do with an ELECTRA model and we cannot: key of config.json -> the values that are the same here
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute", None),
    "layer_norm_eps": (LAYER_NORM_EPSILON,),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
}
SUMMARY = {"summary_type": ("first",), "summary_use_proj": (True,), "summary_activation": ("gelu",)}


def config_from_hf(values: dict[str, Any], source: str) -> EncoderConfig:
    """An EncoderConfig from `config.json`; ValueError when it is another kind of model, or one that we do not run."""
    if not isinstance(values, dict):
        raise ValueError(f"{source} is no model's config, which is an object of keys and values")
    if values.get("model_type") != "electra":
        raise ValueError(f"{source} is a {values.get('model_type', 'nameless')!r} model: only ELECTRA models load here")
    summary = SUMMARY if "ElectraForMultipleChoice" in (values.get("architectures") or []) else {}
    for key, supported in (SUPPORTED | summary).items():
        if values.get(key, supported[0]) not in supported:
            raise ValueError(f"{source} has {key} {values[key]!r}: only {supported[0]!r} is supported")
    names = {
        "vocab_size": "vocab_size",
        "embedding_size": "embedding_size",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
    }
    for theirs in names.values():
        if theirs not in values:
            raise ValueError(f"{source} lacks the key {theirs!r}: it is not a complete ELECTRA config")
        least = 0 if theirs == "num_hidden_layers" else 1  # a small generator may have none
        if not isinstance(values[theirs], int) or values[theirs] < least:
            raise ValueError(f"{source} has {theirs} {values[theirs]!r}: it must be a whole number of at least {least}")
    if not isinstance(values.get("id2label") or {}, dict):
        raise ValueError(f'{source} has an id2label that maps nothing: it must be like {{"0": "no", "1": "yes"}}')
    config = EncoderConfig(
        **{ours: values[theirs] for ours, theirs in names.items()},
        max_positions=values.get("max_position_embeddings", 512),
        type_vocab_size=values.get("type_vocab_size", 2),
        dropout=values.get("hidden_dropout_prob", 0.1),
        attention_dropout=values.get("attention_probs_dropout_prob", 0.1),
    )
    if config.hidden_size % config.num_heads:
        raise ValueError(f"{source}: hidden_size {config.hidden_size} is no multiple of {config.num_heads} heads")
    return config


def count_labels(values: dict[str, Any]) -> int:
    """How many outputs the classification heads have, by transformers' rule."""
    return len(values["id2label"]) if values.get("id2label") else values.get("num_labels", 2)


# -------------------------------------------------------------------------------------------------- networks


def check_network(network: Network) -> EncoderConfig:
    """The shape of a network whose tensors are exactly those that its config and architecture ask for.

    ValueError names tensors that are missing, unexpected, or of another shape.
    """
    config = config_from_hf(network.config, network.source)
    if network.architecture not in HEADS:
        raise ValueError(f"{network.source} is a {network.architecture}: known are {', '.join(HEADS)}")
    model = _empty_model(network, config)
    expected = encoder_to_hf(model.encoder.state_dict(), config)
    expected |= head_to_hf(model.head.state_dict(), network.architecture, config)
    if model.output is not None:
        expected[OUTPUT] = model.output[: config.vocab_size]
    if missing := sorted(set(expected) - set(network.tensors)):
        hint = "it is not a complete ELECTRA model"
        if missing == [OUTPUT]:
            hint = "its config.json says tie_word_embeddings false; set it to true if the output is the word table"
        elif not any(name.startswith("electra.") for name in missing):
            hint = f"its config.json says {network.architecture}, and ElectraModel is the one without a head"
        raise ValueError(f"{network.source} lacks the tensor {_and_more(missing)}: {hint}")
    if unexpected := sorted(set(network.tensors) - set(expected)):
        raise ValueError(
            f"{network.source} has the tensor {_and_more(unexpected)}, which {network.architecture} with this "
            "config.json does not have: is this the right config.json?"
        )
    for name, tensor in expected.items():
        found = tuple(network.tensors[name].shape)
        if found != tensor.shape:
            raise ValueError(f"{network.source}: {name} is {found}, but by the config it is {tuple(tensor.shape)}")
    return config


def _and_more(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def make_network(
    config: EncoderConfig, encoder: Tensors, head: Tensors, architecture: str, source: str, **extra_config: Any
) -> Network:
    """A `Network` from an `Encoder` state dict and a head under Hugging Face's names; it shares their memory.

    `extra_config` are further keys of config.json: id2label, problem_type, ...
    """
    return Network(
        source=source,
        architecture=architecture,
        config=hf_config(config, architecture, **extra_config),
        tensors=encoder_to_hf(encoder, config) | head,
    )


def build_model(network: Network) -> HeadedEncoder:
    """The network as a module that runs, in evaluation mode. ValueError if its tensors are not complete.

    It shares their memory, except for query, key and value, which are fused: the table is not padded.
    """
    config = dataclasses.replace(check_network(network), vocab_multiple=1)
    model = _empty_model(network, config)
    model.encoder.load_state_dict(encoder_from_hf(network.tensors, config, network.source), assign=True)
    model.head.load_state_dict(head_from_hf(network.tensors, network.architecture, config), assign=True)
    if model.output is not None:
        model.output = nn.Parameter(network.tensors[OUTPUT])
    return model.eval()


def _empty_model(network: Network, config: EncoderConfig) -> HeadedEncoder:
    """The module of a network, without memory for its parameters."""
    with torch.device("meta"):
        return HeadedEncoder(config, network.architecture, count_labels(network.config), network.own_output)


# --------------------------------------------------------------------------------------------------- folders


def read_hf(name: str | Path) -> Network:
    """Read a model folder, the export of a run folder, or a model of the Hugging Face hub, with any head.

    Tensors are fp32 and, where the file is, views of it: they cost memory when they are used. Files of old versions
    (gamma and beta, no "electra." prefix, position_ids among the weights) come out under today's names.
    Raises ValueError in a sentence when nothing is there, it is no ELECTRA model that runs here, a file is damaged,
    or tensors are missing, unknown or of another shape.
    """
    folder = find_model_folder(str(name))
    values = read_json(folder / "config.json")
    config_from_hf(values, str(folder / "config.json"))
    tensors = {_modern_name(key): value for key, value in read_weights(folder).items()}
    if OUTPUT in tensors and values.get("tie_word_embeddings") is not False:  # transformers, too, goes by the values
        if WORDS in tensors and torch.equal(tensors[OUTPUT], tensors[WORDS]):
            del tensors[OUTPUT]
        else:
            values["tie_word_embeddings"] = False
    architecture = (values.get("architectures") or [_guess_architecture(tensors)])[0]
    network = Network(str(folder), architecture, values, tensors)
    check_network(network)
    return network


def write_hf(
    folder: Path,
    network: Network,
    vocabulary: Vocabulary | None,
    card: str,
    overwrite: bool = False,
    extra: Tensors | None = None,
) -> None:
    """Write a model folder that `transformers` loads: config.json, model.safetensors, tokenizer files, README.md.

    Without a vocabulary there are no tokenizer files, without a card no README.md. `extra` are tensors of a head that
    no class of transformers holds, for task_heads.safetensors. Raises ValueError if `folder` holds
    something (unless `overwrite`), the network is not complete, or the vocabulary is larger than its word table.
    """
    config = check_network(network)
    values = {key: value for key, value in network.config.items() if key not in ("torch_dtype", "quantization_config")}
    values |= {"architectures": [network.architecture], "dtype": "float32"}
    if vocabulary is not None:
        check_vocabulary(vocabulary, config, network.source)
        values["pad_token_id"] = vocabulary.special.pad
    tensors = network.tensors
    if network.architecture == "ElectraModel":  # the one class that is itself what the others call electra
        tensors = {name.removeprefix("electra."): value for name, value in tensors.items()}
    with atomic_folder(folder, overwrite) as temporary:
        write_weights(temporary / SAFETENSORS, tensors)
        if extra:
            write_weights(temporary / TASK_HEADS, extra)
        write_json(temporary / "config.json", values)
        if vocabulary is not None:
            vocabulary.save(temporary)
        if card:
            with atomic_file(temporary / "README.md", "w") as file:
                file.write(card)


def save_model_folder(
    folder: Path,
    *,
    config: EncoderConfig,
    encoder: Tensors,
    head: Tensors,
    architecture: str,
    vocabulary: Vocabulary,
    card: str,
    overwrite: bool = False,
    extra: Tensors | None = None,
    **extra_config: Any,
) -> None:
    """`make_network` and `write_hf` in one."""
    network = make_network(config, encoder, head, architecture, str(folder), **extra_config)
    write_hf(folder, network, vocabulary, card, overwrite, extra)


def check_vocabulary(vocabulary: Vocabulary, config: EncoderConfig, source: str) -> None:
    """ValueError if the model has fewer word vectors than the tokenizer has entries."""
    if vocabulary.size > config.vocab_size:
        raise ValueError(
            f"{source}: the tokenizer has {vocabulary.size} entries but the model only {config.vocab_size}; "
            "they do not belong together"
        )


@dataclass(frozen=True)
class Pretrained:
    """A network with its vocabulary, as fine-tuning and prediction start from it."""

    network: Network
    config: EncoderConfig
    vocabulary: Vocabulary
    extra: Tensors = dataclasses.field(default_factory=dict)
    """Tensors of a head that no class of transformers holds."""

    @property
    def source(self) -> str:
        return self.network.source

    @property
    def hf_config(self) -> dict[str, Any]:
        return self.network.config

    @property
    def head_state(self) -> Tensors:
        """Everything beside the encoder, under Hugging Face's names."""
        return {name: value for name, value in self.network.tensors.items() if not name.startswith("electra.")}

    @functools.cached_property
    def encoder_state(self) -> Tensors:
        """The `Encoder` state dict."""
        return encoder_from_hf(self.network.tensors, self.config, self.source)

    def encoder(self, dropout: float | None = None) -> Encoder:
        """A fresh `Encoder` with these weights."""
        config = self.config
        if dropout is not None:
            config = dataclasses.replace(config, dropout=dropout, attention_dropout=dropout)
        encoder = Encoder(config)
        encoder.load_state_dict(self.encoder_state)
        return encoder


def load_pretrained(name: str) -> Pretrained:
    """`read_hf` with the vocabulary of the folder; ValueError too when the two do not belong together."""
    folder = find_model_folder(name)
    config = config_from_hf(read_json(folder / "config.json"), str(folder / "config.json"))
    vocabulary = load_tokenizer(folder)
    check_vocabulary(vocabulary, config, str(folder))
    extra = read_file(folder / TASK_HEADS) if (folder / TASK_HEADS).is_file() else {}
    return Pretrained(read_hf(folder), config, vocabulary, extra)


def _guess_architecture(tensors: Tensors) -> str:
    """For a config.json without "architectures": the class whose head is in the file."""
    heads = {name for name in tensors if not name.startswith("electra.")} - {OUTPUT}
    for architecture, head in HEADS.items():
        found = {name for name in heads if name.startswith(tuple(head.names.values()))}
        if found == heads and all(any(name.startswith(theirs) for name in heads) for theirs in head.names.values()):
            return architecture
    return "ElectraModel"


def _modern_name(name: str) -> str:
    """Old TensorFlow-born files call LayerNorm's parameters gamma and beta; an ElectraModel saves without prefix."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return f"electra.{name}" if name.startswith(("embeddings.", "embeddings_project.", "encoder.")) else name
