"""TensorFlow 2 object checkpoints: NVIDIA's, Habana's and ifuseok's pre-training, and AWS's models.

    index + data files -> Bundle -> ObjectGraph: objects, their attributes, the variables at the ends
        root -> model -> discriminator, generator; optimizer, step, phase2       NVIDIA and its two descendants
        root -> electra, discriminator_predictions | generator_predictions, ...  AWS: one file a network

The object graph is what Keras saw: attributes of Python objects, not names of variables. All four systems train the
TensorFlow classes of transformers 2 and 3 (NVIDIA a copy of them), so that the attributes are the same; what a
variable is called in the file depends on the order in which its aliases were set, hence the graph is followed and
never the name. A variable that two networks share is one node.

NVIDIA's run_pretraining.py pads the vocabulary to a multiple of 8 (BERT's 30,522 to 30,528) and rounds the hidden size
of the generator up to a multiple of 64; prefixes are ckpt-N, and ckpt-p2-N for the second phase, whose steps begin at
0 again. AWS's run_pretraining.py calls `save_weights`. Its `electra_tie_weights`, the default, ties the embeddings of
both networks and leaves the head of the generator with the table it was made with, so that such a generator has an
output matrix of its own ("generator_lm_head.weight"). Its optimizer.npy is a pickle and is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from electra.interop.bundle import Bundle, wire_fields
from electra.interop.network import OUTPUT, WORDS, Network, Tensors
from electra.interop.tf_h5 import EMBEDDINGS, MODULES, from_tf, network_of, tensor_names

PADDED_BERT, BERT = 30_528, 30_522  # the one padding that can be told without the vocabulary
VOCABULARY_ROWS = (WORDS, OUTPUT, "generator_lm_head.bias")  # tensors with a row for each token
SLOTS = {"adam_m": "m", "adam_v": "v"}  # the names of google.py -> Keras's


@dataclass(frozen=True)
class _Node:
    """TrackableObject (trackable_object_graph.proto): one Python object."""

    children: dict[str, int] = field(default_factory=dict)  # attribute -> node
    key: str | None = None  # its value in the bundle, if it is a variable
    slots: list[tuple[int, str, int]] = field(default_factory=list)  # an optimizer's: variable, "m" | "v", slot


class ObjectGraph:
    """The objects of a checkpoint; node 0 is the one that was saved."""

    def __init__(self, bundle: Bundle) -> None:
        """ValueError for a checkpoint of TensorFlow 1, which has names only, and for a graph that does not parse."""
        serialized = bundle.object_graph()
        if serialized is None:
            raise ValueError(f"{bundle.prefix} has no object graph: it is no TensorFlow 2 object checkpoint")
        try:
            self.nodes = [_parse_node(message) for number, message in wire_fields(serialized) if number == 1]
            self.slots = {(variable, name): slot for node in self.nodes for variable, name, slot in node.slots}
            references = [child for node in self.nodes for child in node.children.values()]
            if max([0, *references, *self.slots.values()]) >= len(self.nodes):
                raise ValueError("a reference to an object that is not there")
        except (KeyError, TypeError, UnicodeDecodeError, ValueError):
            raise ValueError(f"{bundle.prefix} is damaged: its object graph does not parse; copy it again") from None

    def find(self, start: int, path: str) -> int | None:
        """The node that the attributes of `path` ("electra/embeddings") lead to from node `start`."""
        node: int | None = start
        for attribute in path.split("/"):
            if node is None:
                return None
            node = self.nodes[node].children.get(attribute)
        return node

    def key(self, node: int | None) -> str | None:
        """Where the bundle has the value of a node; None for what is no variable."""
        return None if node is None else self.nodes[node].key

    def attributes(self) -> str:
        """What the saved object has, for messages."""
        return ", ".join(sorted(self.nodes[0].children)[:6]) or "nothing"

    def variables(self, start: int) -> dict[int, str]:
        """All variables below a node, with their keys."""
        seen, waiting = {start}, [start]
        while waiting:
            fresh = set(self.nodes[waiting.pop()].children.values()) - seen
            seen |= fresh
            waiting += fresh
        return {node: key for node in seen if (key := self.key(node)) is not None}


@dataclass(frozen=True)
class NvidiaCheckpoint:
    """A pre-training checkpoint in memory; the moments of the optimizer stay in the file until asked for."""

    bundle: Bundle
    discriminator: Network | None  # ElectraForPreTraining
    generator: Network | None  # ElectraForMaskedLM; shares the tensors of its embeddings with the discriminator
    step: int | None  # of the phase, see `phase2`
    phase2: bool
    padding: int  # rows of the vocabulary that were cut off
    optimizer: Literal["adam", "lamb"] | None  # whose moments these are
    graph: ObjectGraph
    nodes: dict[str, dict[str, int]]  # network -> Hugging Face's name -> node

    @property
    def has_moments(self) -> bool:
        """Both moments are there for every variable."""
        slots = self.graph.slots
        return all((node, slot) in slots for part in self.nodes.values() for node in part.values() for slot in "mv")

    @property
    def missing(self) -> list[str]:
        """What a complete pre-training checkpoint has and this one has not, for the report."""
        found = {
            "the discriminator": self.discriminator is not None,
            "the generator": self.generator is not None,
            "the optimizer's moments": self.has_moments,
            "the step": self.step is not None,
        }
        return [what for what, there in found.items() if not there]

    def moments(self, network: str, slot: str) -> Tensors:
        """The moment "adam_m" or "adam_v" of every tensor of the "discriminator" or "generator", shaped like these.

        ValueError names the first that the checkpoint lacks.
        """
        weights = self.discriminator if network == "discriminator" else self.generator
        tensors: Tensors = {}
        for name, node in self.nodes[network].items():
            key = self.graph.key(self.graph.slots.get((node, SLOTS[slot])))
            if key is None:
                raise ValueError(f"{self.bundle.prefix} lacks the moment {slot} of {name} of the {network}")
            assert weights is not None
            rows = weights.tensors[name].shape[0] if name in VOCABULARY_ROWS else None
            tensors[name] = from_tf(name, self.bundle.read(key)[:rows])
        return tensors


def read_nvidia(path: Path, vocab_size: int | None = None) -> NvidiaCheckpoint:
    """Read a pre-training checkpoint of NVIDIA, Habana or ifuseok: a prefix, one of its files, or its folder.

    `vocab_size` is that of the vocabulary; rows beyond it are padding and are cut off. Without it 30,528 rows are taken
    for BERT's 30,522 and any other number stays as it is, for nothing in the file tells padding from tokens. A network
    that the checkpoint has no variables of is None. ValueError in a sentence for another kind of checkpoint, for
    variables that are missing or unknown, and for a vocabulary larger than the table.
    """
    bundle = Bundle.find(path)
    graph, prefix = ObjectGraph(bundle), str(bundle.prefix)
    roots = {part: graph.find(0, f"model/{part}") for part in ("discriminator", "generator")}
    present = {part: root for part, root in roots.items() if root is not None and graph.variables(root)}
    if not present:
        raise ValueError(
            f"{prefix} is no pre-training checkpoint: it has no variables in model/discriminator or model/generator, "
            f"only {graph.attributes()} (iter_ckpt... hold the position in the data, ckpt-N the model)"
        )
    cache: Tensors = {}
    nodes = {part: _find_variables(graph, root, f"{prefix} ({part})") for part, root in present.items()}
    networks, padding = {}, 0
    for part in present:
        networks[part], padding = _read(bundle, graph, nodes[part], f"{prefix} ({part})", vocab_size, cache)
    step = graph.key(graph.find(0, "step"))
    phase2 = graph.key(graph.find(0, "phase2"))
    optimizer: Literal["adam", "lamb"] | None = None
    if graph.slots:  # tensorflow_addons keeps LAMB's weight decay as a variable, NVIDIA's Adam as a number
        optimizer = "lamb" if graph.find(0, "optimizer/weight_decay_rate") is not None else "adam"
    return NvidiaCheckpoint(
        bundle=bundle,
        discriminator=networks.get("discriminator"),
        generator=networks.get("generator"),
        step=int(bundle.read(step)) if step else None,
        phase2=bool(bundle.read(phase2)) if phase2 else False,
        padding=padding,
        optimizer=optimizer,
        graph=graph,
        nodes=nodes,
    )


def read_aws(path: Path, vocab_size: int | None = None) -> Network:
    """Read one model that Keras's `save_weights` wrote: AWS's *-discriminator.ckpt or *-generator.ckpt.

    `path` is the prefix or one of its files; a checkpoint of one `model`, as fine-tuning scripts save it, is read too.
    ValueError and `vocab_size` as in `read_nvidia`. A generator with an output matrix of its own (see above) has the
    tensor "generator_lm_head.weight" and says "tie_word_embeddings": false in its config.
    """
    bundle = Bundle.find(path)
    graph, source = ObjectGraph(bundle), str(bundle.prefix)
    for root in (0, graph.find(0, "model")):
        if root is not None and graph.find(root, "electra") is not None:
            return _read(bundle, graph, _find_variables(graph, root, source), source, vocab_size, {})[0]
    raise ValueError(f"{source} holds no ELECTRA model: its object has no `electra`, only {graph.attributes()}")


def _find_variables(graph: ObjectGraph, root: int, source: str) -> dict[str, int]:
    """Hugging Face's name -> node, for every variable of the model at `root`; ValueError for any that has no name."""

    def find(name: str) -> int | None:
        nodes = (graph.find(root, path) for path in attribute_paths(name))
        return next((node for node in nodes if graph.key(node) is not None), None)

    heads = {architecture: [f"{module}.bias" for module in modules] for architecture, modules in MODULES.items()}
    found = [architecture for architecture, names in heads.items() if all(find(name) is not None for name in names)]
    architecture = max(found, key=lambda architecture: len(heads[architecture]))
    layers = graph.find(root, "electra/encoder/layer")
    num_layers = len([name for name in graph.nodes[layers].children if name.isdecimal()]) if layers is not None else 0
    project = find("electra.embeddings_project.bias") is not None
    nodes: dict[str, int] = {}
    for name in tensor_names(architecture, num_layers, project):
        node = find(name)
        if node is None:
            raise ValueError(f"{source} lacks the tensor {name}: it is not a complete {architecture}")
        nodes[name] = node
    output = find(OUTPUT)
    if output is not None and output != nodes[WORDS]:
        nodes[OUTPUT] = output
    if unknown := sorted(key for node, key in graph.variables(root).items() if node not in nodes.values()):
        names = ", ".join(key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for key in unknown[:3])
        raise ValueError(f"{source} has variables that no {architecture} has: {names}")
    return nodes


def attribute_paths(name: str) -> Iterator[str]:
    """The paths of attributes that may lead to the variable of a tensor, the usual one first."""
    module, _, kind = name.rpartition(".")
    leaf = module.rpartition(".")[2]
    path = module.replace(".", "/")
    path = path.replace("/attention/self/", "/attention/self_attention/")
    path = path.replace("/attention/output/", "/attention/dense_output/")
    path = re.sub(r"(/layer/\d+)/output/", r"\1/bert_output/", path)
    if leaf == "word_embeddings" or name == OUTPUT:
        path = path.removesuffix("/word_embeddings") + ("/input_embeddings" if name == OUTPUT else "")
        yield f"{path}/word_embeddings"
        yield f"{path}/weight"
        yield f"{path}/word_embeddings/weight"  # transformers 4.0 to 4.2
    elif leaf in EMBEDDINGS:
        yield f"{path}/embeddings"
        yield path  # transformers 4.3 and later have a variable in place of the layer
    else:
        kinds = {"weight": "gamma", "bias": "beta"} if leaf == "LayerNorm" else {"weight": "kernel", "bias": "bias"}
        yield f"{path}/{kinds[kind]}"


def _read(
    bundle: Bundle, graph: ObjectGraph, nodes: dict[str, int], source: str, vocab_size: int | None, cache: Tensors
) -> tuple[Network, int]:
    """The network of these variables, and how many rows of its vocabulary were padding.

    `cache` keeps tensors by key: what two networks share is read once.
    """
    (rows, _) = bundle.shape(graph.nodes[nodes[WORDS]].key or "")
    kept = vocab_size or (BERT if rows == PADDED_BERT else rows)
    if kept > rows:
        raise ValueError(
            f"{source} has vectors for {rows:,} tokens but the vocabulary {kept:,} entries: they do not belong together"
        )
    tensors: Tensors = {}
    for name, node in nodes.items():
        key = graph.nodes[node].key
        assert key is not None
        if key not in cache:
            array = bundle.read(key)
            cache[key] = from_tf(name, array[:kept] if name in VOCABULARY_ROWS else array)
        tensors[name] = cache[key]
    return network_of(tensors, source, None), rows - kept


def _parse_node(message: bytes) -> _Node:
    node_key, children, slots = None, {}, []
    for number, value in wire_fields(message):
        fields = dict(wire_fields(value)) if isinstance(value, bytes) else {}
        if number == 1:  # ObjectReference: node (1), attribute (2)
            children[fields[2].decode()] = fields.get(1, 0)
        elif number == 2 and fields.get(1) == b"VARIABLE_VALUE":  # SerializedTensor: name (1), key (3)
            node_key = fields[3].decode()
        elif number == 3:  # SlotVariableReference: variable (1), name (2), slot (3)
            slots.append((fields.get(1, 0), fields[2].decode(), fields.get(3, 0)))
    return _Node(children, node_key, slots)
