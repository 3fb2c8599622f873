"""Hugging Face ELECTRA folders, both ways: our parameter names <-> theirs, `config.json`, safetensors.

Ours keeps query, key and value in one matrix; theirs has three. A word table that is padded inside our model is
cut to the true vocabulary in a file. Nothing here imports `transformers`; the tests compare with it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from electra.encoder import LAYER_NORM_EPSILON, Encoder, EncoderConfig
from electra.files import atomic_file, atomic_folder, read_json, write_json
from electra.tokenizer import Vocabulary, load_tokenizer

Tensors = dict[str, Tensor]

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
    """An `Encoder` state dict under Hugging Face's names ("electra. ..."), vocabulary padding cut off."""
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
    return {name: value.detach().to("cpu", torch.float32).clone().contiguous() for name, value in out.items()}


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


def config_from_hf(values: dict[str, Any], source: str) -> EncoderConfig:
    """An EncoderConfig from `config.json`; ValueError when it is another kind of model."""
    if values.get("model_type") != "electra":
        raise ValueError(f"{source} is a {values.get('model_type', 'nameless')!r} model: only ELECTRA models load here")
    if values.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"{source} has hidden_act {values['hidden_act']!r}: only 'gelu' is supported")
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
    return EncoderConfig(
        **{ours: values[theirs] for ours, theirs in names.items()},
        max_positions=values.get("max_position_embeddings", 512),
        type_vocab_size=values.get("type_vocab_size", 2),
        dropout=values.get("hidden_dropout_prob", 0.1),
        attention_dropout=values.get("attention_probs_dropout_prob", 0.1),
    )


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
    **extra_config: Any,
) -> None:
    """Write a model folder that `transformers` loads: config.json, model.safetensors, tokenizer files, README.md.

    `encoder` is an `Encoder` state dict, `head` has Hugging Face's names ("discriminator_predictions.dense.weight").
    """
    tensors = encoder_to_hf(encoder, config) | {
        name: value.detach().to("cpu", torch.float32).clone().contiguous() for name, value in head.items()
    }
    extra_config = {"pad_token_id": vocabulary.special.pad} | extra_config
    with atomic_folder(folder, overwrite) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        write_json(temporary / "config.json", hf_config(config, architecture, **extra_config))
        vocabulary.save(temporary)
        with atomic_file(temporary / "README.md", "w") as file:
            file.write(card)


@dataclass(frozen=True)
class Pretrained:
    """A model folder in memory."""

    source: str
    config: EncoderConfig
    encoder_state: Tensors
    head_state: Tensors  # everything beside the encoder, under Hugging Face's names
    hf_config: dict[str, Any]
    vocabulary: Vocabulary

    def encoder(self, dropout: float | None = None) -> Encoder:
        """A fresh `Encoder` with these weights."""
        config = self.config
        if dropout is not None:
            config = dataclasses.replace(config, dropout=dropout, attention_dropout=dropout)
        encoder = Encoder(config)
        encoder.load_state_dict(self.encoder_state)
        return encoder


def load_pretrained(name: str) -> Pretrained:
    """Read a model folder, the export of a run folder, or a model of the Hugging Face hub.

    Raises ValueError in a sentence when nothing is there, it is no ELECTRA model, or a file is damaged.
    """
    folder = find_model_folder(name)
    values = read_json(folder / "config.json")
    config = config_from_hf(values, str(folder / "config.json"))
    tensors = {_modern_name(key): value for key, value in _read_tensors(folder).items()}
    source = str(folder)
    head = {key: value for key, value in tensors.items() if not key.startswith("electra.")}
    vocabulary = load_tokenizer(folder)
    if vocabulary.size > config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {vocabulary.size} entries but the model only {config.vocab_size}; "
            "they do not belong together"
        )
    return Pretrained(source, config, encoder_from_hf(tensors, config, source), head, values, vocabulary)


def find_model_folder(name: str) -> Path:
    """The folder of a model, of a run's exported discriminator, or the local copy of a hub model."""
    folder = Path(name)
    for candidate in (folder, folder / "discriminator", folder / "export" / "discriminator", folder / "model"):
        if (candidate / "config.json").is_file():
            return candidate
    if folder.exists():
        raise ValueError(f"{folder} is no model folder: it has no config.json (export the run first?)")
    if name.count("/") > 1 or name.startswith((".", "~", "/")):
        raise ValueError(f"{name} does not exist")
    from huggingface_hub import snapshot_download  # slow to import, and only for hub ids

    try:
        patterns = ["*.json", "*.safetensors", "pytorch_model.bin", "vocab.txt"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # network, authentication, unknown id: the hub has its own dozen types
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{name} is neither a folder here nor a model that the hub gives: {reason}") from None


def _read_tensors(folder: Path) -> Tensors:
    path = folder / "model.safetensors"
    try:
        if path.exists():
            return load_file(path)
        path = folder / "pytorch_model.bin"
        if path.exists():
            return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged and cannot be read ({str(error).splitlines()[0]}); copy it again"
        ) from None
    raise ValueError(f"{folder} has neither model.safetensors nor pytorch_model.bin")


def _modern_name(name: str) -> str:
    """Checkpoints from before 2020 call LayerNorm's weight and bias gamma and beta."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
