"""`tf_model.h5`, both ways: the HDF5 file of weights that the TensorFlow classes of transformers 2 to 4 write and load.

    attributes layer_names, backend, keras_version
    group electra, discriminator_predictions, ...     one a layer of the model, with the attribute weight_names
      dataset tf_electra_for_pre_training/electra/encoder/layer_._0/attention/self/query/kernel:0

A name repeats the model's name, which loaders skip, and the layer's. Dense kernels are (in, out), the transpose of
torch. The generator's head repeats the embeddings, with which it shares the output matrix. transformers 4 finds the
weights by name, versions 2 and 3 (and with them NVIDIA's and ifuseok's scripts) by their order; we write the
order of the latter, so that all of them load it. Needs h5py (`pip install electra-toolkit[h5]`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from electra.files import atomic_file, atomic_folder, read_json, refuse_existing, write_json
from electra.interop.hf import check_network, check_vocabulary, config_from_hf, hf_config
from electra.interop.network import OUTPUT, WORDS, Network, Tensors, infer_config
from electra.tokenizer import Vocabulary

if TYPE_CHECKING:
    import h5py

FILE_NAME = "tf_model.h5"
KERAS_VERSION = "2.15.0"
ATTRIBUTE_LIMIT = 64512  # bytes that HDF5 keeps in one attribute; Keras splits longer lists into name0, name1, ...

# Hugging Face's class -> the modules of its head in the order of Keras
MODULES: dict[str, tuple[str, ...]] = {
    "ElectraModel": (),
    "ElectraForPreTraining": ("discriminator_predictions.dense", "discriminator_predictions.dense_prediction"),
    "ElectraForMaskedLM": ("generator_predictions.LayerNorm", "generator_predictions.dense", "generator_lm_head"),
    "ElectraForSequenceClassification": ("classifier.dense", "classifier.out_proj"),
    "ElectraForTokenClassification": ("classifier",),
    "ElectraForQuestionAnswering": ("qa_outputs",),
    "ElectraForMultipleChoice": ("sequence_summary.summary", "classifier"),
}
ROOTS = {"electra"} | {module.partition(".")[0] for modules in MODULES.values() for module in modules}
EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
LAYER = (
    *(f"attention.self.{name}" for name in ("query", "key", "value")),
    *("attention.output.dense", "attention.output.LayerNorm"),
    *("intermediate.dense", "output.dense", "output.LayerNorm"),
)


def read_h5(path: Path, config: dict[str, Any] | None = None) -> Network:
    """Read a `tf_model.h5`, or the one in a folder.

    `config` is its config.json; without it the one beside the file counts, and without that the shape is inferred
    from the weights (see `infer_config`). ValueError in a sentence when the file is damaged or no HDF5 file, when a
    weight is missing or unknown (named), or when the config does not fit.
    """
    path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    h5py = _h5py()
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is no HDF5 file; copy it again (through git, a hub's file may be a mere pointer)")
    try:
        with h5py.File(path, "r") as file:
            tensors = _read_tensors(file, path)
    except (OSError, RuntimeError, KeyError) as error:  # h5py's ways to say that a file is cut off or garbled
        raise ValueError(
            f"{path} is damaged and cannot be read ({str(error).splitlines()[0]}); copy it again"
        ) from None
    if config is None and (path.parent / "config.json").is_file():
        config = read_json(path.parent / "config.json")
    return network_of(tensors, str(path), config)


def network_of(tensors: Tensors, source: str, config: dict[str, Any] | None) -> Network:
    """Tensors under Hugging Face's names as a complete network; the architecture follows from the head.

    ValueError names what is missing, unknown, or of another shape than `config` says.
    """
    architecture = _architecture(tensors)
    if config is None:
        config = hf_config(infer_config(tensors, source), architecture, **_labels(tensors, architecture))
    config = config | {"architectures": [architecture], "tie_word_embeddings": OUTPUT not in tensors}
    network = Network(source, architecture, config, tensors)
    check_network(network)
    return network


def write_h5(path: Path, network: Network, overwrite: bool = False) -> None:
    """Write the weights as `path`, or as `tf_model.h5` in the folder `path`; config.json is the caller's.

    Raises ValueError for weights that the TensorFlow classes have no place for, and where a file exists already.
    """
    path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    refuse_existing(path, overwrite)
    h5py = _h5py()
    architecture, tensors = network.architecture, network.tensors
    config = check_network(network)
    if network.own_output:
        raise ValueError(
            f"{network.source} has an output matrix of its own, which the TensorFlow classes have no place for"
        )
    names = tensor_names(architecture, config.num_layers, config.embedding_size != config.hidden_size)
    layers = list(dict.fromkeys(name.partition(".")[0] for name in names))
    model = "tf_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", architecture).lower()
    with atomic_file(path, "w+b") as stream, h5py.File(stream, "w") as file:
        _write_names(file, "layer_names", layers)
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = KERAS_VERSION.encode()
        for layer in layers:
            members = [name for name in names if name.partition(".")[0] == layer]
            if layer == "generator_lm_head":
                members += [name for name in names if name.startswith("electra.embeddings.")]
            group = file.create_group(layer)
            _write_names(group, "weight_names", [f"{model}/{tf_name(name)}" for name in members])
            for name in members:
                value = tensors[name].detach().to("cpu", torch.float32).numpy()
                value = value.T if tf_name(name).endswith("kernel:0") else value
                group.create_dataset(f"{model}/{tf_name(name)}", data=value)
        _write_names(file.create_group("top_level_model_weights"), "weight_names", [])


def write_h5_folder(
    folder: Path, network: Network, vocabulary: Vocabulary | None, card: str = "", overwrite: bool = False
) -> None:
    """A model folder of the TensorFlow classes: tf_model.h5, config.json, tokenizer and card where there are any."""
    with atomic_folder(folder, overwrite) as temporary:
        write_h5(temporary, network)
        write_json(temporary / "config.json", network.config)
        if vocabulary is not None:
            check_vocabulary(vocabulary, config_from_hf(network.config, network.source), network.source)
            vocabulary.save(temporary)
        if card:
            with atomic_file(temporary / "README.md", "w") as file:
                file.write(card)


def tensor_names(architecture: str, num_layers: int, project: bool) -> list[str]:
    """Hugging Face's names of all tensors of a model with a tied output, in the order of Keras.

    `project` says that there is an embeddings_project, which is where embedding and hidden size differ.
    """
    names = [f"electra.embeddings.{table}.weight" for table in EMBEDDINGS]
    modules = ["electra.embeddings.LayerNorm", *(["electra.embeddings_project"] if project else [])]
    modules += [f"electra.encoder.layer.{index}.{module}" for index in range(num_layers) for module in LAYER]
    modules += MODULES[architecture]
    names += [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    return [name for name in names if name != OUTPUT]


def tf_name(name: str) -> str:
    """The variable of Keras for a tensor of Hugging Face: generator_lm_head.bias -> generator_lm_head/bias:0."""
    module, _, kind = name.rpartition(".")
    leaf = module.rpartition(".")[2]
    if leaf == "LayerNorm":
        kind = {"weight": "gamma", "bias": "beta"}[kind]
    elif leaf in ("position_embeddings", "token_type_embeddings"):
        kind = "embeddings"
    elif kind == "weight" and leaf != "word_embeddings":
        kind = "kernel"
    return re.sub(r"/layer/(\d+)/", r"/layer_._\1/", module.replace(".", "/") + "/") + kind + ":0"


def hf_name(variable: str) -> str:
    """The inverse of `tf_name`, for a variable under any model's name; ValueError where it has no counterpart."""
    parts = variable.removesuffix(":0").split("/")
    roots = [position for position, part in enumerate(parts) if part in ROOTS]
    if not roots or len(parts) < roots[-1] + 2:
        raise ValueError(f"the variable {variable} belongs to no ELECTRA model")
    *module, kind = parts[roots[-1] :]
    kind = {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias"}.get(kind, kind)
    return ".".join(re.sub(r"^layer_\._(\d+)$", r"layer.\1", part) for part in [*module, kind])


def from_tf(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """A variable as the tensor `name` of torch, in memory of its own: dense kernels are transposed.

    transformers 4.2 and 4.3 kept attention kernels apart by head (in, heads, out / heads); these are merged.
    """
    leaf = name.rpartition(".")[0].rpartition(".")[2]
    if name.endswith(".bias"):
        array = array.reshape(-1)
    elif leaf in ("query", "key", "value"):
        array = array.reshape(array.shape[0], -1)
    elif array.ndim == 3:
        array = array.reshape(-1, array.shape[-1])
    if name.endswith(".weight") and leaf != "LayerNorm" and leaf not in (*EMBEDDINGS, "generator_lm_head"):
        array = array.T
    # numpy's copy, as torch's leaves the heap in pieces: 200 MB of an ELECTRA-base
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _read_tensors(file: h5py.File, path: Path) -> Tensors:
    tensors: Tensors = {}
    for layer in file:
        for variable, dataset in _datasets(file[layer]):
            try:
                name = hf_name(variable)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            value = from_tf(name, dataset[...])
            if name in tensors and not torch.equal(tensors[name], value):
                if layer == "generator_lm_head" and name == WORDS:
                    name = OUTPUT  # a head that was not tied
                else:
                    raise ValueError(f"{path} holds two different values of {name}: it is damaged; write it again")
            tensors[name] = value
    return tensors


def _datasets(group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets below a group with their names; the order of `weight_names` does not matter here."""
    for key, child in group.items():
        if hasattr(child, "keys"):
            yield from _datasets(child, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", child


def _write_names(group: h5py.Group, attribute: str, names: list[str]) -> None:
    """A list of names as Keras stores it, split where one attribute would be too long."""
    array = np.array([name.encode() for name in names]) if names else np.zeros(0, "S1")
    if array.nbytes <= ATTRIBUTE_LIMIT:
        group.attrs[attribute] = array
        return
    for index, part in enumerate(np.array_split(array, -(-array.nbytes // ATTRIBUTE_LIMIT) + 1)):
        group.attrs[f"{attribute}{index}"] = part


def _architecture(tensors: Tensors) -> str:
    roots = {name.partition(".")[0] for name in tensors}
    if "generator_predictions" in roots or "generator_lm_head" in roots:
        return "ElectraForMaskedLM"
    if "discriminator_predictions" in roots:
        return "ElectraForPreTraining"
    if "sequence_summary" in roots:
        return "ElectraForMultipleChoice"
    if "qa_outputs" in roots:
        return "ElectraForQuestionAnswering"
    if "classifier" in roots:
        tokens = "classifier.weight" in tensors
        return "ElectraForTokenClassification" if tokens else "ElectraForSequenceClassification"
    return "ElectraModel"


def _labels(tensors: Tensors, architecture: str) -> dict[str, Any]:
    """Numbered labels for a classifier that comes without a config."""
    weight = {
        "ElectraForSequenceClassification": "classifier.out_proj.weight",
        "ElectraForTokenClassification": "classifier.weight",
    }.get(architecture)
    if weight is None:
        return {}
    labels = [f"LABEL_{index}" for index in range(tensors[weight].shape[0])]
    return {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _h5py() -> Any:
    try:
        import h5py  # an optional library, slow to import
    except ImportError:
        raise ValueError("tf_model.h5 needs h5py: pip install electra-toolkit[h5]") from None
    return h5py
