"""Random checkpoints of Google's kind, the networks on them computed naively, and by transformers."""

import math
from pathlib import Path

import numpy as np
import torch
import transformers

from electra.encoder import EncoderConfig
from electra.interop.google import encoder_variables
from electra.interop.hf import build_model
from electra.interop.network import Network

Arrays = dict[str, np.ndarray]

CONFIG = EncoderConfig(100, 12, 16, 2, 1, 24, max_positions=20)
GENERATOR = EncoderConfig(100, 12, 8, 1, 1, 32, max_positions=20)

IDS = np.random.default_rng(1).integers(5, 100, (2, 10))
SEGMENTS = np.tile(np.arange(10) > 6, (2, 1)).astype(int)
MASK = np.array([[1] * 10, [1] * 8 + [0] * 2])


def close(found: torch.Tensor | np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=tolerance, atol=tolerance)


def read_npz(path: Path, prefix: str = "") -> Arrays:
    """Arrays by Google's names."""
    with np.load(path) as file:
        return {name.removeprefix(prefix).replace("|", "/"): file[name] for name in file if name.startswith(prefix)}


@torch.no_grad()
def outputs(network: Network, ids: np.ndarray, segments: np.ndarray, mask: np.ndarray) -> list[torch.Tensor]:
    """What transformers computes, after our own module has given the same."""
    inputs = {
        name: torch.from_numpy(array).long()
        for name, array in (("input_ids", ids), ("attention_mask", mask), ("token_type_ids", segments))
    }
    ours = build_model(network)(**inputs)
    config = transformers.ElectraConfig(**network.config)
    model = getattr(transformers, network.architecture)(config)
    bare = network.architecture == "ElectraModel"
    state = {name.removeprefix("electra.") if bare else name: value for name, value in network.tensors.items()}
    report = model.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert set(report.missing_keys) <= {"generator_lm_head.weight"}  # tied to the word table
    theirs = list(model.eval()(**inputs, return_dict=False))
    for our, their in zip(ours, theirs, strict=False):
        close(our, their.numpy())
    return theirs


def dense(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def head_variables(network: str, config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    if network == "discriminator":
        hidden = config.hidden_size
        return dense("discriminator_predictions/dense", hidden, hidden) | dense(
            "discriminator_predictions/dense_1", hidden, 1
        )
    norm = {f"generator_predictions/LayerNorm/{kind}": (config.embedding_size,) for kind in ("gamma", "beta")}
    shapes = dense("generator_predictions/dense", config.hidden_size, config.embedding_size)
    return shapes | norm | {"generator_predictions/output_bias": (config.vocab_size,)}


def random_arrays(*shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    return {name: random.normal(0, 0.3, shape).astype("f4") for part in shapes for name, shape in part.items()}


def pretraining(ties: str = "embeddings") -> Arrays:
    """A checkpoint of pre-training without state of the optimizer."""
    parts = [encoder_variables(CONFIG, "electra", "electra"), head_variables("discriminator", CONFIG)]
    if ties == "all":
        parts.append(head_variables("generator", CONFIG))
    elif ties == "embeddings":
        parts += [encoder_variables(GENERATOR, "generator", "electra"), head_variables("generator", GENERATOR)]
    elif ties == "none":
        own = EncoderConfig(100, 8, 8, 1, 1, 32, max_positions=20)
        parts += [encoder_variables(own, "generator", "generator"), head_variables("generator", own)]
    return random_arrays(*parts)


def erf_gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def naive_norm(variables: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * variables[f"{name}/gamma"] + variables[f"{name}/beta"]


def naive_dense(variables: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    return x @ variables[f"{name}/kernel"] + variables[f"{name}/bias"]


def naive_encoder(variables: Arrays, scope: str, embeddings: str) -> np.ndarray:
    """The encoder as the paper has it, one head, straight on TensorFlow's variables in float64: (B, L, H)."""
    tables = {kind: variables[f"{embeddings}/embeddings/{kind}_embeddings"] for kind in ("word", "position")}
    types = variables[f"{embeddings}/embeddings/token_type_embeddings"]
    x = tables["word"][IDS].astype("f8") + tables["position"][: IDS.shape[1]] + types[SEGMENTS]
    x = naive_norm(variables, f"{embeddings}/embeddings/LayerNorm", x)
    if f"{scope}/embeddings_project/kernel" in variables:
        x = naive_dense(variables, f"{scope}/embeddings_project", x)
    layer = 0
    while f"{scope}/encoder/layer_{layer}/output/dense/kernel" in variables:
        prefix = f"{scope}/encoder/layer_{layer}"
        query, key, value = (
            naive_dense(variables, f"{prefix}/attention/self/{part}", x) for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1]) - 10000.0 * (1 - MASK[:, None, :])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = weights / weights.sum(-1, keepdims=True) @ value
        attended = naive_dense(variables, f"{prefix}/attention/output/dense", mixed)
        x = naive_norm(variables, f"{prefix}/attention/output/LayerNorm", x + attended)
        up = erf_gelu(naive_dense(variables, f"{prefix}/intermediate/dense", x))
        x = naive_norm(
            variables, f"{prefix}/output/LayerNorm", x + naive_dense(variables, f"{prefix}/output/dense", up)
        )
        layer += 1
    return x
