"""`electra convert`: weights of other systems -> model folders of today, or a run folder that goes on training.

    find the format -> read (interop/) -> Networks -> write -> load what was written, compare with the source

Formats are told apart by what lies in the files, not by their names. Everything is written into a temporary folder,
which gets its name only when its tensors are those of the source and its results agree with the source's
(interop/compare.py). The memory of the network that was read is given back before the written one is loaded.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

from electra.allocator import return_freed_memory
from electra.config import ConvertConfig, PretrainConfig
from electra.export import read_run
from electra.files import atomic_folder, refuse_existing
from electra.front_matter import front_matter
from electra.interop.bundle import Bundle
from electra.interop.compare import Expected, compare
from electra.interop.google import read_google
from electra.interop.google_config import PRETRAINING, Hparams, pretrain_config, read_hparams, remarks
from electra.interop.hf import read_hf, write_hf
from electra.interop.hub import find_model_folder
from electra.interop.network import Network, Tensors
from electra.interop.nvidia import read_aws, read_nvidia
from electra.interop.run_folder import Moments, check_objective, infer_model, write_run
from electra.interop.tf_h5 import FILE_NAME, read_h5, write_h5_folder
from electra.interop.weights import TASK_HEADS, has_weights, write_weights
from electra.store import Store
from electra.tokenizer import Vocabulary, load_tokenizer

BUNDLE_FILE = re.compile(r".+\.(index|meta|data-\d{5}-of-\d{5})")
ROLES = {"ElectraForPreTraining": "discriminator", "ElectraForMaskedLM": "generator"}


@dataclass(frozen=True)
class Source:
    """What a checkpoint holds."""

    kind: str
    path: Path  # a folder, a file, or the prefix of a TensorFlow checkpoint
    networks: dict[str, Network]  # by folder: "discriminator", "generator", the name of a task; "" for an only one
    missing: list[str] = field(default_factory=list)
    step: int | None = None
    moments: Moments | None = None  # Adam's without correction, which our AdamW continues
    left_behind: str = ""  # what pre-training cannot go on with
    heads_known: bool = True  # the number of attention heads was said somewhere
    extras: dict[str, Tensors] = field(default_factory=dict)  # of a task's head, what no class of transformers holds


def convert(config: ConvertConfig) -> None:
    """Convert and say what was done, line by line.

    Raises ValueError when flags contradict each other, the checkpoint is of no known format, damaged or incomplete, it
    does not fit the vocabulary or the hparams, or what was written differs from it; nothing is left behind then.
    """
    if (config.format == "run") != (config.data is not None):
        raise ValueError("--format run and --data go together: a run goes on with the token store that --data names")
    if config.data is not None and config.vocab is not None:
        raise ValueError("--data brings the vocabulary of its store: leave out --vocab")
    refuse_existing(config.out, config.overwrite)
    hparams = None if config.hparams is None else read_hparams(config.hparams, PRETRAINING, "--hparams")
    store = None if config.data is None else Store.open(config.data)
    vocabulary = None if store is None else store.vocabulary()
    if config.vocab is not None:
        vocabulary = load_tokenizer(config.vocab)
    vocab_size = None if vocabulary is None else vocabulary.size
    source = read_source(config.checkpoint, hparams, vocab_size)
    if config.generator is not None:
        _add_generator(source, config.generator, vocab_size)
    print(f"source      {source.kind} {source.path}" + ("" if source.step is None else f", step {source.step:,}"))
    if source.missing:
        print(f"missing     {', '.join(source.missing)}")
    if not source.heads_known:
        print("heads       one for each 64 units, as in the published models, since nothing here says otherwise")
    if store is not None:
        _write_run(config, source, hparams, store)
    else:
        _write_folders(config, source, vocabulary or _vocabulary_beside(source.path))


# ------------------------------------------------------------------------------------------------- reading


def read_source(checkpoint: str, hparams: Hparams | None = None, vocab_size: int | None = None) -> Source:
    """Find out what `checkpoint` (a folder, a file, a prefix, a hub id) is, and read it.

    `vocab_size` tells where the padding of NVIDIA's vocabulary begins; hparams are for checkpoints of Google's.
    """
    path = Path(checkpoint)
    bundle = _find_bundle(path)
    if bundle is not None and bundle.object_graph() is None:
        return _read_google(bundle, hparams)
    if hparams is not None:
        raise ValueError(f"--hparams describes checkpoints of google-research/electra, and {checkpoint} is none")
    if bundle is not None:
        return _read_tf2(bundle, vocab_size)
    if path.suffix in (".h5", ".hdf5") or ((path / FILE_NAME).is_file() and not has_weights(path)):
        folder = path if path.is_dir() else path.parent
        return Source("tf_model.h5", path, {"": read_h5(path)}, heads_known=(folder / "config.json").is_file())
    if path.is_file():
        raise ValueError(
            f"{path} is no checkpoint: name a folder, the prefix of a TensorFlow checkpoint, a .h5 file or a hub id"
        )
    pair = {name: path / name for name in ROLES.values()}
    if all((folder / "config.json").is_file() for folder in pair.values()):
        return Source("Hugging Face folders", path, {name: _read_folder(folder) for name, folder in pair.items()})
    folder = find_model_folder(checkpoint)
    return Source("Hugging Face folder", folder, {"": _read_folder(folder)})


def _read_folder(folder: Path) -> Network:
    return read_hf(folder) if has_weights(folder) or not (folder / FILE_NAME).is_file() else read_h5(folder)


def _find_bundle(path: Path) -> Bundle | None:
    """A TensorFlow checkpoint: a prefix, one of its files, or a folder with the file `checkpoint` or an index."""
    if path.is_dir():
        found = (path / "checkpoint").is_file() or (not (path / "config.json").exists() and any(path.glob("*.index")))
    else:
        found = BUNDLE_FILE.fullmatch(path.name) is not None or Path(f"{path}.index").is_file()
    return Bundle.find(path) if found else None


def _read_google(bundle: Bundle, hparams: Hparams | None) -> Source:
    google = read_google(bundle.prefix, None if hparams is None else hparams.given)
    networks = {name: task.network for name, task in google.tasks.items()}
    if google.discriminator.architecture == "ElectraForPreTraining" or not networks:
        networks["discriminator"] = google.discriminator  # a fine-tuned one is in the folder of each task
    if google.generator is not None:
        networks["generator"] = google.generator
    return Source(
        "Google checkpoint",
        bundle.prefix,
        networks,
        google.missing,
        google.step,
        google.moments if google.has_moments else None,
        heads_known=hparams is not None,
        extras={name: task.extra for name, task in google.tasks.items() if task.extra},
    )


def _read_tf2(bundle: Bundle, vocab_size: int | None) -> Source:
    """NVIDIA's two networks of one checkpoint, or one of AWS's."""
    prefix = bundle.prefix
    if vocab_size is None and (vocabulary := _vocabulary_beside(prefix)):
        vocab_size = vocabulary.size
    if not any(re.match(r"model/(discriminator|generator)/", name) for name in bundle.names()):
        return Source("AWS checkpoint", prefix, {"": read_aws(prefix, vocab_size)}, heads_known=False)
    nvidia = read_nvidia(prefix, vocab_size)
    found = {"discriminator": nvidia.discriminator, "generator": nvidia.generator}
    kind = f"NVIDIA checkpoint{' of phase 2' if nvidia.phase2 else ''}"
    if nvidia.padding:
        kind += f", {nvidia.padding} rows of padding cut off,"
    return Source(
        kind,
        prefix,
        {name: network for name, network in found.items() if network is not None},
        nvidia.missing,
        nvidia.step,
        left_behind=f"the moments of {nvidia.optimizer}" if nvidia.optimizer else "",
        heads_known=False,
    )


def _add_generator(source: Source, name: str, vocab_size: int | None) -> None:
    """Read a generator that lies elsewhere, and call the two networks by their roles."""
    found = read_source(name, vocab_size=vocab_size).networks
    generator = found.get("generator") or found.get("")
    if generator is None or generator.architecture != "ElectraForMaskedLM":
        raise ValueError(f"--generator {name} holds no generator (ElectraForMaskedLM): name the folder of one")
    if "" in source.networks:
        source.networks["discriminator"] = source.networks.pop("")
    source.networks["generator"] = generator


def _vocabulary_beside(path: Path) -> Vocabulary | None:
    """The vocabulary in the folder of the source, if there is one."""
    folder = path if path.is_dir() else path.parent
    for place in (folder, folder / "discriminator"):
        if any((place / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
            return load_tokenizer(place)
    return None


# ------------------------------------------------------------------------------------------------- writing


def _write_folders(config: ConvertConfig, source: Source, vocabulary: Vocabulary | None) -> None:
    """A model folder for each network."""
    if vocabulary is None:
        print("vocabulary  none beside the weights, so no tokenizer files are written: name it with --vocab")
    names = list(source.networks)
    with atomic_folder(config.out, config.overwrite) as folder:
        for name in names:
            # Popped, so that its memory is free before the written network is loaded.
            expected = _write_network(folder / name, source.networks.pop(name), vocabulary, config.format)
            return_freed_memory()
            _load_and_check(folder / name, name, expected)
            if name in source.extras:
                write_weights(folder / name / TASK_HEADS, source.extras[name])
                layers = sorted({tensor.rpartition(".")[0] for tensor in source.extras[name]})
                print(f"head        {', '.join(layers)} in {TASK_HEADS}: no class of transformers has such layers")
    print(f"wrote       {', '.join(str(config.out / name) for name in names)}")


def _write_network(folder: Path, network: Network, vocabulary: Vocabulary | None, format: str) -> Expected:
    expected = Expected.of(network)
    if format == "tf-h5":
        write_h5_folder(folder, network, vocabulary, model_card(network, format))
    else:
        write_hf(folder, network, vocabulary, model_card(network))
    return expected


def _load_and_check(folder: Path, name: str, expected: Expected) -> None:
    written = read_h5(folder) if (folder / FILE_NAME).is_file() else read_hf(folder)
    return_freed_memory()
    print(f"{'network':12}{name + ': ' if name else ''}{_describe(written)}")
    print(f"checked     {compare(written, expected)}")


def _write_run(config: ConvertConfig, source: Source, hparams: Hparams | None, store: Store) -> None:
    """A run folder from both networks."""
    networks = {ROLES.get(net.architecture, name) if name == "" else name: net for name, net in source.networks.items()}
    if missing := [role for role in ROLES.values() if role not in networks]:
        raise ValueError(
            f"{source.path} has no {' and no '.join(missing)}, and a run goes on with both networks: "
            "name the discriminator as the checkpoint, and its generator with --generator"
        )
    discriminator, generator = networks["discriminator"], networks["generator"]
    recipe = PretrainConfig()
    if hparams is not None:
        recipe = pretrain_config(hparams)
        for line in remarks(hparams):
            print(line)
    if source.left_behind:
        print(f"left behind {source.left_behind}")
    check_objective(recipe.objective)
    shape = infer_model(discriminator, generator)
    rows = dataclasses.replace(recipe.rows, seq_len=min(recipe.rows.seq_len, shape.max_positions))
    recipe = dataclasses.replace(recipe, model=shape, rows=rows)
    step = (source.step or 0) if source.moments is not None else 0
    expected = {"discriminator": Expected.of(discriminator), "generator": Expected.of(generator)}

    def check(folder: Path) -> None:
        for name, network in read_run(folder).networks.items():
            print(f"{'network':12}{name}: {_describe(network)}")
            print(f"checked     {compare(network, expected[name])}")

    lines = write_run(
        config.out,
        recipe,
        discriminator,
        generator,
        store,
        step=step,
        moments=source.moments,
        overwrite=config.overwrite,
        check=check,
    )
    for line in lines:
        print(line)
    recipe_file = config.out / "config.toml"
    print(f"wrote       {config.out} at step {step:,}; its recipe, to be edited before the start, is in {recipe_file}")
    print(f"to go on    electra pretrain --config {recipe_file}")


def _describe(network: Network) -> str:
    values = network.config
    size = sum(tensor.numel() for tensor in network.tensors.values())
    layers, heads = values["num_hidden_layers"], values["num_attention_heads"]
    return (
        f"{network.architecture}, {layers} layer{'s' * (layers > 1)} of {values['hidden_size']} units, "
        f"{heads} attention head{'s' * (heads > 1)}, {size:,} parameters"
    )


def model_card(network: Network, format: str = "hf") -> str:
    """README.md of a converted model folder."""
    kind = f"TF{network.architecture}" if format == "tf-h5" else network.architecture
    return f"""{front_matter(tags=["electra"])}
# {network.architecture}

Converted by electra-toolkit from {Path(network.source).name}; every tensor has the values of the source. What it was
trained on, and how, the source says; nothing of that is known here.

```python
from transformers import {kind}{"  # transformers 4; 5 has no TensorFlow" * (format == "tf-h5")}

model = {kind}.from_pretrained(".")
```
"""
