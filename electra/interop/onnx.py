"""ONNX: a network as model.onnx with dynamic batch and length, checked with onnxruntime; int8 as a second file.

    Network -> `build_model` (torch) -> torch.onnx.export -> model.onnx -> onnxruntime, compared with torch
                                                               -> dynamic quantisation -> model.int8.onnx

Inputs and outputs have the names of Hugging Face and Optimum (input_ids, attention_mask, token_type_ids -> logits,
last_hidden_state, or start_logits and end_logits), and config.json and the tokenizer lie beside, so that
Optimum's ORTModelFor... classes load the folder. int8 is onnxruntime's dynamic quantisation: weights of matrix
products are stored in 8 bits with one scale a column and embedding tables with one scale a table (most of the bytes of
a small model), activations are rounded as they come; LayerNorm, GELU, softmax and sums stay fp32.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from electra.config import CardConfig
from electra.files import atomic_file, atomic_folder, refuse_existing, write_json
from electra.interop.heads import HEADS, HeadedEncoder
from electra.interop.hf import build_model, check_network, check_vocabulary, load_pretrained
from electra.interop.network import Network
from electra.tokenizer import Vocabulary

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MODEL, INT8 = "model.onnx", "model.int8.onnx"
OPSET = 20  # the first with GELU, and LayerNormalization before it; onnxruntime reads it since 1.17
TOLERANCE = 1e-4
"""Largest difference to torch that an export may have, in units of the largest result if that is above 1."""
PROTOBUF_LIMIT = 2**31


@dataclass(frozen=True)
class Difference:
    """How far onnxruntime's results are from torch's on the probe batches."""

    largest: float
    scale: float
    """The largest absolute value of torch's results."""


def export_onnx(
    path: Path, out: Path, int8: bool = False, overwrite: bool = False, card: CardConfig | None = None
) -> None:
    """Write a model, or both networks of a pre-training run's newest checkpoint, as ONNX folders and say how exact.

    A model (folder, hub id, or fine-tuning run) goes to `out`; a run's networks to `out`/discriminator and
    `out`/generator. The card of a model is kept, that of a run says what `card` adds. Raises ValueError if onnx
    is not installed, results differ from torch's, or `out` holds something.
    """
    require_onnx()
    refuse_existing(out, overwrite)
    if (path / "checkpoints").is_dir():
        from electra.export import read_run  # imports the whole of pre-training

        found = read_run(path, "onnx", card)
        with atomic_folder(out, overwrite) as folder:
            written = {
                name: write_onnx(folder / name, network, found.vocabulary, int8, card=found.cards[name])
                for name, network in found.networks.items()
            }
    else:
        pretrained = load_pretrained(str(path))
        kept = _card_of(Path(pretrained.source))
        written = {"": write_onnx(out, pretrained.network, pretrained.vocabulary, int8, overwrite, kept)}
    for name, differences in written.items():
        for file, difference in differences.items():
            target = out / name / file
            print(
                f"{target}: {target.stat().st_size / 1e6:.1f} MB, differs from torch by at most "
                f"{difference.largest:.2g} (results up to {difference.scale:.3g})"
            )


def _card_of(folder: Path) -> str:
    """The card of a model folder with a word on its ONNX file; empty if it has none."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8").rstrip()
    return (
        f"{text}\n\n## ONNX\n\nIn this folder the model is `{MODEL}`, for onnxruntime or Optimum's ORTModel classes.\n"
    )


def write_onnx(
    folder: Path,
    network: Network,
    vocabulary: Vocabulary | None,
    int8: bool = False,
    overwrite: bool = False,
    card: str = "",
) -> dict[str, Difference]:
    """Write model.onnx (and model.int8.onnx), config.json, tokenizer and card; returns the difference of each file.

    Raises ValueError, and leaves nothing behind, when model.onnx differs from torch by more than TOLERANCE on one of
    the probe batches. What int8 loses is returned, not judged: how much is too much depends on the task.
    """
    require_onnx()
    config = check_network(network)
    if vocabulary is not None:
        check_vocabulary(vocabulary, config, network.source)
    size = sum(4 * tensor.numel() for tensor in network.tensors.values())
    if size >= PROTOBUF_LIMIT:
        raise ValueError(f"{network.source} has {size / 1e9:.1f} GB of weights: an ONNX file holds less than 2.1 GB")
    model = build_model(network)
    with atomic_folder(folder, overwrite) as temporary, _quiet():
        _export(model, temporary / MODEL)
        differences = {MODEL: compare(model, temporary / MODEL)}
        difference = differences[MODEL]
        if not difference.largest <= TOLERANCE * max(1.0, difference.scale):  # NaN too
            raise ValueError(
                f"{network.source}: onnxruntime's results differ from torch's by {difference.largest:.2e} (allowed "
                f"{TOLERANCE:g} of {difference.scale:.3g}), so no ONNX file was written: please report it"
            )
        if int8:
            _quantize(temporary / MODEL, temporary / INT8)
            differences[INT8] = compare(model, temporary / INT8)
        write_json(temporary / "config.json", network.config)
        if vocabulary is not None:
            vocabulary.save(temporary)
        if card:
            with atomic_file(temporary / "README.md", "w") as file:
                file.write(card)
    return differences


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def compare(model: HeadedEncoder, path: Path) -> Difference:
    """Run the file with onnxruntime and the model with torch on the probe batches."""
    session = open_session(path)
    largest = scale = 0.0
    for batch in probe_batches(model):
        expected = model(*batch)
        found = session.run(None, {name: ids.numpy() for name, ids in zip(INPUTS, batch, strict=True)})
        for ours, theirs in zip(expected, found, strict=True):
            # np.maximum keeps a NaN, which max() would lose.
            largest = float(np.maximum(largest, np.abs(ours.numpy() - theirs).max()))
            scale = max(scale, float(ours.abs().max()))
    return Difference(largest, scale)


def probe_batches(model: HeadedEncoder) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Three batches of random ids of different shapes: one short row, rows of two segments with padding, long rows."""
    config = model.encoder.config
    random = torch.Generator().manual_seed(0)
    batches = []
    for rows, length in ((1, 7), (3, 24), (2, 128)):
        length = min(length, config.max_positions)
        lengths = torch.linspace(length, max(1, length // 3), rows).long()
        valid = torch.arange(length) < lengths[:, None]
        input_ids = torch.randint(0, config.vocab_size, (rows, length), generator=random)
        segments = (torch.arange(length) >= lengths[:, None] // 2) & valid & (config.type_vocab_size > 1)
        batch = [input_ids * valid, valid.long(), segments.long()]
        if model.architecture == "ElectraForMultipleChoice":
            batch = [torch.stack([ids, ids.roll(1, 0)], 1) for ids in batch]  # (B, 2 choices, L)
        batches.append((batch[0], batch[1], batch[2]))
    return batches


def require_onnx() -> None:
    """ValueError that names the extra if one of its packages is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"ONNX needs {error.name}, which is not installed: pip install electra-toolkit[onnx]"
        ) from None


def _export(model: HeadedEncoder, path: Path) -> None:
    axes = {0: "batch_size", 1: "sequence_length"}
    if model.architecture == "ElectraForMultipleChoice":
        axes = {0: "batch_size", 1: "num_choices", 2: "sequence_length"}
    program = torch.onnx.export(
        model,
        probe_batches(model)[1],
        dynamo=True,
        opset_version=OPSET,
        input_names=list(INPUTS),
        output_names=list(HEADS[model.architecture].outputs),
        dynamic_shapes=(axes, axes, axes),
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    # The exporter leaves the Python source lines of each node, with the paths of this machine, and shapes of weights
    # from before it transposed them, at which the quantiser stumbles; onnxruntime infers them anew.
    del proto.metadata_props[:], proto.graph.metadata_props[:], proto.graph.value_info[:]
    for part in (proto.graph.node, proto.graph.input, proto.graph.output, proto.graph.initializer):
        for item in part:
            del item.metadata_props[:]
            item.doc_string = ""
    path.write_bytes(proto.SerializeToString())


def _quantize(path: Path, out: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        path,
        out,
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        per_channel=True,
        # 7 bits: CPUs without VNNI add products of 8 bits in 16, which overflow (onnxruntime's documentation).
        reduce_range=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and the quantiser say about themselves."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
