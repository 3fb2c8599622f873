"""Task heads of Google's fine-tuned checkpoints: variables `task_specific/TASK/...` -> Hugging Face's classes.

Google's heads are smaller than Hugging Face's, or have no counterpart there (finetune/classification, tagging and qa):

    classification, regression   one dense on the state of [CLS]. ElectraForSequenceClassification has dense, GELU,
                                 out_proj; it holds the same function, because x = gelu(x) - gelu(-x): the rows of
                                 `dense` are W and -W, those of `out_proj` +1 and -1
    tagging                      one dense on each token: ElectraForTokenClassification
    questions, independent       two dense layers on each token: ElectraForQuestionAnswering
    questions, joint             the end is predicted from the start by a hidden layer: no class of Hugging Face's

What a class does not hold is kept in `extra`, weights as torch has them (out, in):

    start, end_hidden, end           the joint head: start (1, H); end_hidden (512, 2H) with GELU on the states of
                                     [start; this token]; end (1, 512)
    answerable_hidden, answerable    above 0 means *no* answer: answerable_hidden (512, 2H) with GELU, where there is
                                     one, on [state of CLS; states weighted by softmax(start)]; answerable (1, 512 or H)
    classifier                       a head with more than H/2 labels, which the identity above has no room for

Regressions answer on the [0, 1] scale of Google's training (STS-B: a fifth of the score).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from electra.encoder import EncoderConfig
from electra.interop.bundle import Bundle
from electra.interop.hf import hf_config
from electra.interop.network import Network, Tensors

TAGGING_TASKS = frozenset({"chunk", "ccg", "ner", "pos"})
"""A tagging head looks like a classification head: these names tell (task_builder.py has the first only)."""

BINARY = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
LABELS = {
    "cola": BINARY,
    "mrpc": BINARY,
    "qqp": BINARY,
    "sst": BINARY,
    "qnli": ENTAILMENT,
    "rte": ENTAILMENT,
    "mnli": ("contradiction", "entailment", "neutral"),
}
"""Labels in the order of classification_tasks.py; those of a tagging task are in a pickle outside the checkpoint."""


@dataclass(frozen=True)
class TaskHead:
    """One task of a fine-tuned checkpoint."""

    name: str
    kind: Literal["classification", "regression", "tagging", "question answering"]
    network: Network  # encoder and what Hugging Face's class holds of the head; ElectraModel if it holds nothing
    extra: Tensors  # the rest, for task_heads.safetensors


def read_heads(bundle: Bundle, variables: set[str], encoder: Network, config: EncoderConfig) -> dict[str, TaskHead]:
    """The heads behind `task_specific/` variables; their networks share the encoder's tensors.

    ValueError names the variables of a head that Google's code does not build.
    """
    layers: dict[str, dict[str, Tensors]] = {}
    for variable in sorted(variables):
        _, task, *path = variable.split("/")
        if len(path) != 2 or path[1] not in ("kernel", "bias"):
            raise ValueError(f"{bundle.prefix} has a task head that is unknown here: {variable}")
        array = bundle.read(variable).astype(np.float32, copy=False)
        kind, array = ("weight", np.ascontiguousarray(array.T)) if path[1] == "kernel" else ("bias", array)
        layers.setdefault(task, {}).setdefault(path[0], {})[kind] = torch.from_numpy(array)
    encoder_tensors = {name: value for name, value in encoder.tensors.items() if name.startswith("electra.")}
    return {task: _head(encoder.source, task, found, encoder_tensors, config) for task, found in layers.items()}


def _head(source: str, task: str, layers: dict[str, Tensors], encoder: Tensors, config: EncoderConfig) -> TaskHead:
    kind: Literal["classification", "regression", "tagging", "question answering"]
    extra_config: dict[str, Any] = {}
    head: Tensors = {}
    extra: Tensors = {}
    if set(layers) == {"dense"}:
        dense = layers["dense"]
        outputs = _outputs(source, task, "dense", dense, config.hidden_size)
        extra_config = _label_config(task, outputs)
        if task in TAGGING_TASKS:
            kind, architecture = "tagging", "ElectraForTokenClassification"
            head = _named("classifier", dense)
        else:
            kind, architecture = "classification" if outputs > 1 else "regression", "ElectraForSequenceClassification"
            problem = "regression" if outputs == 1 else "single_label_classification"
            extra_config["problem_type"] = problem
            if 2 * outputs <= config.hidden_size:
                head = classification_head(dense["weight"], dense["bias"])
            else:
                extra = _named("classifier", dense)
    else:
        kind, architecture = "question answering", "ElectraForQuestionAnswering"
        named = _question_layers(source, task, layers, config.hidden_size)
        if "end_hidden" not in named:
            pair = (named.pop("start"), named.pop("end"))
            head = {f"qa_outputs.{part}": torch.cat([layer[part] for layer in pair]) for part in ("weight", "bias")}
        for name, layer in named.items():
            extra |= _named(name, layer)
    if not head:
        architecture, extra_config = "ElectraModel", {}
    network = Network(source, architecture, hf_config(config, architecture, **extra_config), encoder | head)
    return TaskHead(task, kind, network, extra)


def classification_head(weight: Tensor, bias: Tensor) -> Tensors:
    """A single dense layer (C, H), (C,) as Hugging Face's ElectraClassificationHead, for 2 C <= H.

    Row j of `dense` and row C + j are W_j and -W_j, both through the GELU, and out_proj takes their difference, which
    is x_j exactly: gelu(x) - gelu(-x) = x (Phi(x) + Phi(-x)) = x. The other rows are zero.
    """
    outputs, hidden = weight.shape
    dense_weight, dense_bias = weight.new_zeros(hidden, hidden), bias.new_zeros(hidden)
    dense_weight[: 2 * outputs] = torch.cat([weight, -weight])
    dense_bias[: 2 * outputs] = torch.cat([bias, -bias])
    out = weight.new_zeros(outputs, hidden)
    out[:, : 2 * outputs] = torch.cat([torch.eye(outputs), -torch.eye(outputs)], dim=1)
    return {
        "classifier.dense.weight": dense_weight,
        "classifier.dense.bias": dense_bias,
        "classifier.out_proj.weight": out,
        "classifier.out_proj.bias": bias.new_zeros(outputs),
    }


def _question_layers(source: str, task: str, layers: dict[str, Tensors], hidden: int) -> dict[str, Tensors]:
    """The dense layers of qa_tasks.py, which TensorFlow numbers in the order they are made, under names that say."""
    names = {"dense": "start"}
    if "qa_hidden" in layers:
        names["qa_hidden"] = "end_hidden"
    names["dense_1"] = "end"
    last = ("answerable_hidden", "answerable") if "dense_3" in layers else ("answerable",)
    names |= {f"dense_{number}": name for number, name in enumerate(last, 2)}
    unknown = sorted(set(layers) - set(names))
    if unknown or not {"dense", "dense_1"} <= set(layers):
        found = ", ".join(f"task_specific/{task}/{name}" for name in unknown or sorted(layers))
        raise ValueError(f"{source} has a task head that is unknown here: {found}")
    named = {new: layers[old] for old, new in names.items() if old in layers}
    for name, layer in named.items():
        before = f"{name}_hidden"
        inputs = 2 * hidden if name.endswith("_hidden") else hidden
        if before in named:  # checked already: in `names` it stands earlier
            inputs = len(named[before]["bias"])
        outputs = _outputs(source, task, name, layer, inputs)
        if not name.endswith("_hidden") and outputs != 1:
            raise ValueError(f"{source}: the {name} layer of the task {task} has {outputs} outputs instead of one")
    return named


def _outputs(source: str, task: str, name: str, layer: Tensors, inputs: int) -> int:
    """The number of outputs of a dense layer; ValueError unless it is complete and takes `inputs`."""
    if set(layer) != {"weight", "bias"} or layer["weight"].shape != (len(layer["bias"]), inputs):
        shapes = ", ".join(f"{part} {tuple(tensor.shape)}" for part, tensor in layer.items())
        raise ValueError(f"{source}: the {name} layer of the task {task} is no dense layer on {inputs} units: {shapes}")
    return len(layer["bias"])


def _named(name: str, layer: Tensors) -> Tensors:
    return {f"{name}.{part}": tensor for part, tensor in layer.items()}


def _label_config(task: str, outputs: int) -> dict[str, Any]:
    labels = LABELS.get(task, ())
    if len(labels) != outputs:
        labels = tuple(f"LABEL_{index}" for index in range(outputs))
    return {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
