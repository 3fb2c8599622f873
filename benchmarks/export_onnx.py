"""A fine-tuned classifier in torch and as ONNX, fp32 and int8: dev metrics, largest difference, rows a second.

    python benchmarks/export_onnx.py sst2/model --task sst2 --data glue/SST-2 --out benchmarks/results/onnx.json

The model is exported to a temporary folder, all dev examples go through each side (what int8 loses is the difference
of the metrics), then batches of one and of 32 rows run through all sides in turn. One more side is torch in
bf16, where the CPU has it, which is what `electra predict` takes. (Not named onnx.py: scripts here see one another.)
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from machine import describe

from electra.config import TaskConfig
from electra.devices import cpu_has_bf16
from electra.files import write_json
from electra.interop.hf import build_model, load_pretrained
from electra.interop.onnx import INPUTS, INT8, MODEL, open_session, write_onnx
from electra.metrics import classification_metrics, regression_metrics
from electra.tasks.catalogue import find_task
from electra.tasks.features import Features, SentenceBatch, collate, encode_texts, length_batches
from electra.tasks.problems import Problems
from electra.tasks.sentences.examples import load_task_data
from electra.tasks.sentences.task import SentenceTask

Side = Callable[[SentenceBatch], np.ndarray]
SHAPES = ((1, 32), (1, 128), (32, 128))


def make_sides(model: torch.nn.Module, folder: Path) -> dict[str, Side]:
    """Each way to run the model: a batch -> logits (B, C)."""

    def in_torch(bf16: bool) -> Side:
        @torch.inference_mode()
        def run(batch: SentenceBatch) -> np.ndarray:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                (logits,) = model(batch.input_ids, batch.valid.long(), batch.segment_ids)
            return logits.float().numpy()

        return run

    def in_onnxruntime(path: Path) -> Side:
        session = open_session(path)

        def run(batch: SentenceBatch) -> np.ndarray:
            values = (batch.input_ids, batch.valid.long(), batch.segment_ids)
            return session.run(None, {name: ids.numpy() for name, ids in zip(INPUTS, values, strict=True)})[0]

        return run

    sides = {"torch_fp32": in_torch(False)}
    if cpu_has_bf16():
        sides["torch_bf16"] = in_torch(True)
    return sides | {"onnx_fp32": in_onnxruntime(folder / MODEL), "onnx_int8": in_onnxruntime(folder / INT8)}


def predict(run: Side, features: Features) -> np.ndarray:
    found = [(rows, run(collate(features, rows))) for rows in length_batches(features.lengths, torch.device("cpu"))]
    logits = np.empty((len(features.lengths), found[0][1].shape[1]), np.float32)
    for rows, values in found:
        logits[rows] = values
    return logits


def measure_quality(sides: dict[str, Side], features: Features, labels: np.ndarray, regression: bool) -> dict[str, Any]:
    found = {}
    reference = predict(sides["torch_fp32"], features)
    for name, run in sides.items():
        logits = predict(run, features)
        if regression:
            metrics = regression_metrics(logits[:, 0], labels)
        else:
            metrics = classification_metrics(logits.argmax(-1), labels, logits.shape[1])
        found[name] = {
            "dev": metrics,
            "largest_difference": float(np.abs(logits - reference).max()),
            "same_answers": float((logits.argmax(-1) == reference.argmax(-1)).mean()),
        }
    return found


def measure_speed(sides: dict[str, Side], vocab_size: int, seconds: float) -> list[dict[str, Any]]:
    """Rows a second of full rows, all sides in turn until each shape has had its time."""
    results = []
    for rows, length in SHAPES:
        ids = torch.randint(0, vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
        batch = SentenceBatch(ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))
        times: dict[str, list[float]] = {name: [] for name in sides}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times["torch_fp32"]) < 8:
            for name, run in sides.items():
                begin = time.perf_counter()
                run(batch)
                times[name].append(time.perf_counter() - begin)
        medians = {name: statistics.median(values[3:]) for name, values in times.items()}
        results.append(
            {
                "rows": rows,
                "length": length,
                "repeats": len(times["torch_fp32"]) - 3,
                "rows_per_second": {name: round(rows / value, 1) for name, value in medians.items()},
                "times_as_fast_as_torch_fp32": {
                    name: round(medians["torch_fp32"] / value, 2) for name, value in medians.items()
                },
            }
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a fine-tuned model folder")
    parser.add_argument("--task", required=True, help="the task that it was fine-tuned on")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the task's files")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=20, help="of each shape")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    pretrained = load_pretrained(options.model)
    model = build_model(pretrained.network)
    task = find_task(options.task, TaskConfig())
    assert isinstance(task, SentenceTask), f"{task.name} is not a sentence task"
    data = load_task_data(task, options.data, Problems())
    examples, labels = data.splits["dev"].examples, data.splits["dev"].labels
    assert labels is not None
    features = encode_texts(
        pretrained.vocabulary, [row.text for row in examples], [row.pair for row in examples], options.max_length
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "onnx"
        write_onnx(folder, pretrained.network, pretrained.vocabulary, int8=True)
        sides = make_sides(model, folder)
        report = {
            "machine": describe() | {"threads": torch.get_num_threads()},
            "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
            "task": options.task,
            "parameters": sum(tensor.numel() for tensor in pretrained.network.tensors.values()),
            "dev_examples": len(examples),
            "megabytes": {name: round((folder / name).stat().st_size / 1e6, 1) for name in (MODEL, INT8)},
            "quality": measure_quality(sides, features, labels, data.task.kind == "regression"),
            "speed": measure_speed(sides, pretrained.config.vocab_size, options.seconds),
        }
    for name, row in report["quality"].items():
        print(f"{name:11} {row['dev']} largest difference {row['largest_difference']:.2g}")
    for row in report["speed"]:
        print(f"{row['rows']} x {row['length']}: rows a second {row['rows_per_second']}")
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()
