"""Beginning a run with the weights of a model that exists: continued pre-training, on new text or a new vocabulary.

    model folder -> Pretrained -> vectors matched by token -> the run's model

A discriminator alone will do: its generator then begins at random on its embeddings. So will a masked language model:
a discriminator may begin with its layers, as in the two-stage training of Clark et al. 2020, section 3.3. Vectors go
by the text of their token, so that the store may have another vocabulary: a token that the model does not know begins
as the mean of the pieces into which the model's own tokenizer cuts it (as Gee et al. 2022, "Fast vocabulary transfer",
section 3). A model folder holds no moments of an optimizer; `electra convert --format run` keeps those of Google's
checkpoints.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from electra.config import PretrainConfig
from electra.encoder import EncoderConfig
from electra.interop.heads import head_from_hf
from electra.interop.hf import Pretrained, encoder_from_hf, load_pretrained
from electra.interop.network import WORDS, Tensors
from electra.tokenizer import Vocabulary

BIAS = "generator_lm_head.bias"
BEGINNINGS = ("ElectraForPreTraining", "ElectraForMaskedLM", "ElectraModel")
SHAPE = ("hidden_size", "num_layers", "num_heads", "intermediate_size", "embedding_size", "max_positions")


def warm_start(model: nn.Module, config: PretrainConfig, vocabulary: Vocabulary) -> list[str]:
    """Fill a run's model from `config.init` (and `config.init_generator`); returns what was done, in lines.

    Raises ValueError in a sentence for a model that is none, has another shape than the run's, or a generator that does
    not share the discriminator's embeddings as that of the run does.
    """
    wanted = "ElectraForMaskedLM" if config.objective.objective == "masked-lm" else "ElectraForPreTraining"
    first = load_pretrained(config.init)
    found = first.network.architecture
    if found not in BEGINNINGS:
        raise ValueError(f"{first.source} is an {found}: a run begins from an {', '.join(BEGINNINGS)}")
    source = _match(first, vocabulary)
    state = model.state_dict()
    shape: EncoderConfig = model.config  # type: ignore[assignment]
    _check_shape(source, first.config, shape, "model")
    body, head = ("body", "head") if wanted == "ElectraForMaskedLM" else ("discriminator", "discriminator_head")
    state |= _embeddings(source, shape) | _layers(source, shape, body)
    if found == wanted:
        state |= _head(source, shape, wanted, head)
    lines = [f"begin       {found} of {first.source}{'' if found == wanted else ', its head at random'}"]

    generator = config.init_generator or _beside(first)
    if generator and config.objective.objective == "electra" and config.objective.generator == "shared-embeddings":
        second = load_pretrained(generator)
        if second.network.architecture != "ElectraForMaskedLM":
            raise ValueError(f"{second.source} is an {second.network.architecture}: a generator is ElectraForMaskedLM")
        own = _match(second, vocabulary)
        smaller: EncoderConfig = model.generator_config  # type: ignore[assignment]
        _check_shape(own, second.config, smaller, "the generator")
        for name, tensor in source.tensors.items():
            if name.startswith("electra.embeddings.") and not torch.equal(tensor, own.tensors[name]):
                raise ValueError(
                    f"{second.source} has another {name} than {first.source}, and both share their embeddings here: "
                    "leave out --init-generator, and the generator begins at random on those of the discriminator"
                )
        state |= _layers(own, smaller, "generator") | _head(own, smaller, "ElectraForMaskedLM", "generator_head")
        lines.append(f"begin       generator of {second.source}")
    elif config.init_generator:
        raise ValueError(
            "--init-generator is for runs whose generator has layers of its own on the discriminator's embeddings: "
            "leave it out"
        )
    elif wanted == "ElectraForPreTraining":
        lines.append("begin       the generator at random")
    model.load_state_dict(state)
    if first.vocabulary.tokens != vocabulary.tokens:
        known = len(set(first.vocabulary.tokens) & set(vocabulary.tokens))
        lines.append(
            f"vocabulary  {known:,} of {vocabulary.size:,} vectors taken as they are, "
            f"{vocabulary.size - known:,} made as means of pieces"
        )
    return lines


@dataclasses.dataclass(frozen=True)
class _Source:
    """A network whose vocabulary is that of the store."""

    name: str
    tensors: Tensors


def _match(pretrained: Pretrained, vocabulary: Vocabulary) -> _Source:
    """The tensors of a model with the rows of its vocabulary in the order of the store's."""
    tensors = dict(pretrained.network.tensors)
    if pretrained.network.own_output:
        raise ValueError(f"{pretrained.source} has an output matrix of its own: a run's generator has its word table")
    if pretrained.vocabulary.tokens != vocabulary.tokens:
        ids, weights = match_tokens(pretrained.vocabulary, vocabulary)
        for name in (WORDS, BIAS):
            if name in tensors:
                rows = tensors[name][ids.flatten()].view(*ids.shape, *tensors[name].shape[1:])
                shaped = weights.view(*weights.shape, *[1] * (rows.ndim - 2))
                tensors[name] = (rows * shaped).sum(1)
    elif pretrained.config.vocab_size != vocabulary.size:
        for name in (WORDS, BIAS):
            if name in tensors:
                tensors[name] = tensors[name][: vocabulary.size]  # rows beyond the tokenizer, made for tensor cores
    return _Source(pretrained.source, tensors)


def match_tokens(old: Vocabulary, new: Vocabulary) -> tuple[Tensor, Tensor]:
    """For each token of `new` the ids in `old` that it is made of, and their weights: (V, P) int64 and float32.

    A token that `old` has is itself; special tokens go by their role; any other is the mean of its pieces.
    """
    known = {token: index for index, token in enumerate(old.tokens)}
    known |= {
        new.tokens[there]: here
        for there, here in zip(*map(dataclasses.astuple, (new.special, old.special)), strict=True)
    }
    missing = [token for token in new.tokens if token not in known]
    ids, counts = old.encode_lines([token.removeprefix("##") for token in missing])
    ends = np.cumsum(counts)
    pieces = {
        token: ids[end - count : end] if count else np.array([old.special.unk])
        for token, end, count in zip(missing, ends, counts, strict=True)
    }
    lists = [pieces[token] if token in pieces else np.array([known[token]]) for token in new.tokens]
    widest = max(len(row) for row in lists)
    matched, weights = np.zeros((new.size, widest), np.int64), np.zeros((new.size, widest), np.float32)
    for row, found in enumerate(lists):
        matched[row, : len(found)] = found
        weights[row, : len(found)] = 1 / len(found)
    return torch.from_numpy(matched), torch.from_numpy(weights)


def _check_shape(source: _Source, found: EncoderConfig, wanted: EncoderConfig, what: str) -> None:
    for name in SHAPE:
        there, here = getattr(found, name), getattr(wanted, name)
        if there != here:
            raise ValueError(
                f"{source.name} has {name} {there}, but {what} of this run has {here}: choose the preset or the "
                "model.* settings that fit it"
            )


def _embeddings(source: _Source, shape: EncoderConfig) -> Tensors:
    state = encoder_from_hf(source.tensors, shape, source.name)
    return {name: value for name, value in state.items() if name.startswith("embeddings.")}


def _layers(source: _Source, shape: EncoderConfig, name: str) -> Tensors:
    state = encoder_from_hf(source.tensors, shape, source.name)
    return {f"{name}.{key.removeprefix('body.')}": value for key, value in state.items() if key.startswith("body.")}


def _head(source: _Source, shape: EncoderConfig, architecture: str, name: str) -> Tensors:
    state = head_from_hf(source.tensors, architecture, shape)
    return {f"{name}.{key}": value for key, value in state.items()}


def _beside(pretrained: Pretrained) -> str:
    """The generator that was exported beside a discriminator, or ""."""
    folder = Path(pretrained.source)
    beside = folder.parent / "generator"
    return str(beside) if folder.name == "discriminator" and (beside / "config.json").is_file() else ""
