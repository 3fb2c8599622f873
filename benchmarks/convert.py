"""Time and peak memory of `electra convert` and `electra export` between all formats, at a published model's shape.

    python benchmarks/convert.py [--size base] [--repeats 3] [--out benchmarks/results/convert.json]

The weights are random and made here, in every format that the project writes or whose fixtures its tests write: a
Google checkpoint (without Adam's moments, as the released ones, and with them, as from a training folder), NVIDIA's and
AWS's, Hugging Face safetensors and pytorch_model.bin, tf_model.h5. Each conversion is a fresh process, imports
included; its peak is the resident memory that Linux reports at its end, of which `baseline_mb` are the imports alone.
`peak_per_file` is that peak in sizes of the larger of what is read and what is written. The check that ends every
conversion (load what was written, run a batch through both) is part of the time; `largest_difference` is what it found.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from bundles import write_bundle, write_objects  # tests/: the writers of TensorFlow checkpoints

from electra.interop.google import encoder_variables
from electra.interop.heads import head_to_hf
from electra.interop.hf import make_network, write_hf
from electra.interop.network import WORDS, Network
from electra.interop.nvidia import VOCABULARY_ROWS, attribute_paths
from electra.interop.tf_h5 import tf_name, write_h5_folder
from electra.presets import PRESETS
from electra.rtd import ReplacedTokenDetection

VOCAB_SIZE = 30522


def make_sources(folder: Path, size: str) -> dict[str, tuple[Path, list[str]]]:
    """Name -> (what to convert, flags)."""
    preset = PRESETS[f"electra-{size}"]()
    torch.manual_seed(0)
    model = ReplacedTokenDetection(preset.model, preset.objective, VOCAB_SIZE)
    networks = {role: make_role(model, role) for role in ("discriminator", "generator")}
    network = networks["discriminator"]
    write_hf(folder / "safetensors", network, None, "")
    write_h5_folder(folder / "h5", network, None)
    (folder / "bin").mkdir()
    torch.save(dict(network.tensors), folder / "bin" / "pytorch_model.bin")
    (folder / "bin" / "config.json").write_bytes((folder / "safetensors" / "config.json").read_bytes())
    write_google(folder, model)
    write_nvidia(folder, networks)
    make_store(folder)
    run = ["--format", "run", "--data", str(folder / "store")]
    google, moments = folder / "google" / "model.ckpt-10", folder / "google-adam" / "model.ckpt-10"
    return {
        "safetensors -> safetensors": (folder / "safetensors", []),
        "pytorch_model.bin -> safetensors": (folder / "bin", []),
        "tf_model.h5 -> safetensors": (folder / "h5", []),
        "safetensors -> tf_model.h5": (folder / "safetensors", ["--format", "tf-h5"]),
        "Google -> safetensors": (google, []),
        "Google with moments -> safetensors": (moments, []),
        "NVIDIA -> safetensors": (folder / "nvidia" / "ckpt-10", []),
        "AWS -> safetensors": (folder / "aws" / "weights-discriminator", []),
        "Google -> run": (google, run),
        "Google with moments -> run": (moments, run),
    }


def make_role(model: ReplacedTokenDetection, role: str) -> Network:
    """The discriminator or the generator of a run."""
    config = model.config if role == "discriminator" else model.generator_config
    architecture = "ElectraForPreTraining" if role == "discriminator" else "ElectraForMaskedLM"
    encoder = {f"embeddings.{name}": value for name, value in model.embeddings.state_dict().items()}
    encoder |= {f"body.{name}": value for name, value in getattr(model, role).state_dict().items()}
    head = head_to_hf(getattr(model, f"{role}_head").state_dict(), architecture, config)
    return make_network(config, encoder, head, architecture, "random")


def write_google(folder: Path, model: ReplacedTokenDetection) -> None:
    """google/ without Adam's moments, google-adam/ with them."""
    shapes = encoder_variables(model.config, "electra", "electra")
    shapes |= encoder_variables(model.generator_config, "generator", "electra")
    for scope, config in (("discriminator", model.config), ("generator", model.generator_config)):
        hidden, other = config.hidden_size, config.hidden_size if scope == "discriminator" else config.embedding_size
        shapes |= {f"{scope}_predictions/dense/kernel": (hidden, other), f"{scope}_predictions/dense/bias": (other,)}
    hidden, embedding = model.config.hidden_size, model.config.embedding_size
    shapes |= {"discriminator_predictions/dense_1/kernel": (hidden, 1), "discriminator_predictions/dense_1/bias": (1,)}
    shapes |= {f"generator_predictions/LayerNorm/{kind}": (embedding,) for kind in ("gamma", "beta")}
    shapes |= {"generator_predictions/output_bias": (VOCAB_SIZE,)}
    random = np.random.default_rng(0)
    arrays = {name: random.normal(0, 0.02, shape).astype("f4") for name, shape in shapes.items()}
    write_bundle(folder / "google" / "model.ckpt-10", arrays)
    for moment in ("adam_m", "adam_v"):
        arrays |= {f"{name}/{moment}": np.abs(arrays[name]) for name in shapes}
    write_bundle(folder / "google-adam" / "model.ckpt-10", arrays | {"global_step": np.int64(10)})


def write_nvidia(folder: Path, networks: dict[str, Network]) -> None:
    """nvidia/ with both networks and a padded vocabulary, aws/ with the discriminator."""
    variables: dict[str, np.ndarray] = {}
    shared: dict[str, str] = {}
    for role, network in networks.items():
        for name, tensor in network.tensors.items():
            value = tensor.numpy()
            if name in VOCABULARY_ROWS:
                value = np.pad(value, [(0, 6), *[(0, 0)] * (value.ndim - 1)])
            path = f"model/{role}/{next(attribute_paths(name))}"
            if role == "generator" and name.startswith("electra.embeddings."):
                shared[path] = path.replace("model/generator", "model/discriminator")
            else:
                variables[path] = value.T if tf_name(name).endswith("kernel:0") else value
    write_objects(folder / "nvidia" / "ckpt-10", variables | {"step": np.int64(10)}, shared)
    prefix = "model/discriminator/"
    alone = {path.removeprefix(prefix): value for path, value in variables.items() if path.startswith(prefix)}
    words = next(attribute_paths(WORDS))
    write_objects(folder / "aws" / "weights-discriminator", alone | {words: alone[words][:VOCAB_SIZE]})


def make_store(folder: Path) -> None:
    """A store of a few words whose vocabulary is as large as the models'."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(VOCAB_SIZE - 5))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "text.txt").write_text("\n\n".join(" ".join(words[5 + i :][:200]) for i in range(20)) + "\n")
    vocab, text, store = (str(folder / name) for name in ("vocab.txt", "text.txt", "store"))
    subprocess.run([sys.executable, "-m", "electra", "build", text, "--vocab", vocab, "--out", store], check=True)


RUN = """
import sys
from electra.cli import main

if sys.argv[1:] and main(sys.argv[1:]):
    sys.exit("failed")
import electra.convert
status = open("/proc/self/status").read()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def measure(arguments: list[str]) -> tuple[float, float, float]:
    """Seconds, peak resident megabytes and largest difference printed, of `electra` with these arguments; without any,
    of the mere imports.

    The peak is VmHWM, which begins anew with the program; the peak in wait4 would be that of this process, the parent.
    """
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    differences = re.findall(r"differ from .* by at most (\S+)", done.stdout)
    return seconds, int(done.stdout.split()[-1]) / 1024, max(map(float, differences), default=0.0)


def megabytes(path: Path) -> float:
    """The size of a folder, or of all files of a checkpoint's prefix."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "base", "large"), default="base")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="conversions with this in their name; the others stay in --out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {k: v for k, v in make_sources(folder, options.size).items() if options.only in k}
        baseline = measure([])[1]
        found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in sources}
        sizes = {}
        for _ in range(options.repeats):
            for kind, (source, flags) in sources.items():
                target = folder / "out"
                found[kind].append(measure(["convert", str(source), "--out", str(target), "--overwrite", *flags]))
                sizes[kind] = megabytes(source), megabytes(target)
    results: dict[str, dict[str, object]] = {}
    if options.only and options.out and options.out.exists():
        results = json.loads(options.out.read_text())["results"]
    for kind, (read, written) in sizes.items():
        seconds, peaks, differences = zip(*found[kind], strict=True)
        results[kind] = {
            "read_mb": round(read, 1),
            "written_mb": round(written, 1),
            "seconds": [round(value, 2) for value in seconds],
            "mb_per_s": round(read / statistics.median(seconds), 1),
            "peak_mb": round(max(peaks) * 1.048576),
            "peak_per_file": round(max(peaks) * 1.048576 / max(read, written), 2),
            "largest_difference": max(differences),
        }
    report = {
        "machine": describe(),
        "size": options.size,
        "baseline_mb": round(baseline * 1.048576),
        "results": results,
    }
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
