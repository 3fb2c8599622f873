"""Time and peak memory of `electra convert` and `electra export` between all formats, at a published model's shape.

    python benchmarks/convert.py [--size base] [--repeats 3] [--out benchmarks/results/convert.json]

The weights are random and made here, in every format that the project writes or whose fixtures its tests write: a
Google checkpoint (without Adam's moments, as the released ones, and with them, as from a training folder), Hugging Face
safetensors and pytorch_model.bin, tf_model.h5. Each conversion is a fresh process, imports included; its peak is the
resident memory that Linux reports at its end, of which `baseline_mb` are the imports alone. The
check that ends every conversion (load what was written, run a batch through both) is part of the time.
"""

from __future__ import annotations

import argparse
import json
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

from bundles import write_bundle  # tests/: the writer of TensorFlow checkpoints

from electra.interop.google import encoder_variables
from electra.interop.heads import head_to_hf
from electra.interop.hf import make_network, write_hf
from electra.interop.tf_h5 import write_h5_folder
from electra.presets import PRESETS
from electra.rtd import ReplacedTokenDetection


def make_sources(folder: Path, size: str) -> dict[str, tuple[Path, list[str]]]:
    """Name -> (what to convert, flags)."""
    preset = PRESETS[f"electra-{size}"]()
    torch.manual_seed(0)
    model = ReplacedTokenDetection(preset.model, preset.objective, 30522)
    encoder = {f"embeddings.{name}": value for name, value in model.embeddings.state_dict().items()}
    encoder |= {f"body.{name}": value for name, value in model.discriminator.state_dict().items()}
    head = head_to_hf(model.discriminator_head.state_dict(), "ElectraForPreTraining", model.config)
    network = make_network(model.config, encoder, head, "ElectraForPreTraining", "random")
    write_hf(folder / "safetensors", network, None, "")
    write_h5_folder(folder / "h5", network, None)
    (folder / "bin").mkdir()
    torch.save(dict(network.tensors), folder / "bin" / "pytorch_model.bin")
    (folder / "bin" / "config.json").write_bytes((folder / "safetensors" / "config.json").read_bytes())
    shapes = encoder_variables(model.config, "electra", "electra")
    shapes |= encoder_variables(model.generator_config, "generator", "electra")
    for scope, config in (("discriminator", model.config), ("generator", model.generator_config)):
        hidden, other = config.hidden_size, config.hidden_size if scope == "discriminator" else config.embedding_size
        shapes |= {f"{scope}_predictions/dense/kernel": (hidden, other), f"{scope}_predictions/dense/bias": (other,)}
    hidden, embedding = model.config.hidden_size, model.config.embedding_size
    shapes |= {"discriminator_predictions/dense_1/kernel": (hidden, 1), "discriminator_predictions/dense_1/bias": (1,)}
    shapes |= {f"generator_predictions/LayerNorm/{kind}": (embedding,) for kind in ("gamma", "beta")}
    shapes |= {"generator_predictions/output_bias": (30522,)}
    random = np.random.default_rng(0)
    arrays = {name: random.normal(0, 0.02, shape).astype("f4") for name, shape in shapes.items()}
    write_bundle(folder / "google" / "model.ckpt-10", arrays)
    for moment in ("adam_m", "adam_v"):
        arrays |= {f"{name}/{moment}": np.abs(arrays[name]) for name in shapes}
    write_bundle(folder / "google-adam" / "model.ckpt-10", arrays | {"global_step": np.int64(10)})
    return {
        "safetensors -> safetensors": (folder / "safetensors", []),
        "pytorch_model.bin -> safetensors": (folder / "bin", []),
        "tf_model.h5 -> safetensors": (folder / "h5", []),
        "safetensors -> tf_model.h5": (folder / "safetensors", ["--format", "tf-h5"]),
        "Google -> safetensors": (folder / "google" / "model.ckpt-10", []),
        "Google with moments -> safetensors": (folder / "google-adam" / "model.ckpt-10", []),
    }


RUN = """
import sys
from electra.cli import main

if sys.argv[1:] and main(sys.argv[1:]):
    sys.exit("failed")
import electra.convert
status = open("/proc/self/status").read()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def measure(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak resident megabytes of `electra` with these arguments, or of the mere imports without any.

    The peak is VmHWM, which begins anew with the program; the peak in wait4 would be that of this process, the parent.
    """
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - start, int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "base", "large"), default="base")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = make_sources(folder, options.size)
        baseline = measure([])[1]
        times: dict[str, list[float]] = {kind: [] for kind in sources}
        peaks: dict[str, list[float]] = {kind: [] for kind in sources}
        sizes = {}
        for _ in range(options.repeats):
            for kind, (source, flags) in sources.items():
                target = folder / "out"
                parent, stem = (source, "*") if source.is_dir() else (source.parent, f"{source.name}*")
                sizes[kind] = sum(file.stat().st_size for file in parent.glob(stem)) / 1e6
                seconds, peak = measure(["convert", str(source), "--out", str(target), "--overwrite", *flags])
                times[kind].append(seconds)
                peaks[kind].append(peak)
    results = {
        kind: {
            "file_mb": round(sizes[kind], 1),
            "seconds": [round(value, 2) for value in times[kind]],
            "mb_per_s": round(sizes[kind] / statistics.median(times[kind]), 1),
            "peak_mb": round(max(peaks[kind])),
            "peak_per_file": round(max(peaks[kind]) * 1.048576 / sizes[kind], 2),
        }
        for kind in sources
    }
    report = {"machine": describe(), "size": options.size, "baseline_mb": round(baseline), "results": results}
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
