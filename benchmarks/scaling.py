"""How a step's time grows with the number of devices: a model, its check on 1, 2 and 4 processes here, its predictions.

    python benchmarks/scaling.py measure [--out benchmarks/results/scaling-cpu.json]
    python benchmarks/scaling.py predict [--tflops 300 --node 8 --inside 450 --between 50 --overhead 5 --latency 20]

    step(N) = overhead + compute / N + max(0, all-reduce(N) - overlap x backward / N)
    all-reduce(N) = 2 (n - 1) / n x bytes / inside  +  2 (m - 1) / m x bytes / n / between  +  2 log2(N) x latency

n devices are in a node, m nodes take part. `overhead` is what does not shrink with the share of a device: launching
kernels, the optimizer, the sum of the counts. `bytes` are those of the gradients in fp32, `overlap` is the share of the
backward pass of the last micro-batch during which DistributedDataParallel can already send; backward is two thirds of
the compute. `measure` runs `electra pretrain` under torchrun with one thread a process and takes gloo's all-reduce of
as many bytes by itself; a machine with fewer cores than processes computes that much slower. `predict` prints, for each
preset, the time of a step, the hours of the whole plan, and the share of them that is compute.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import describe

from electra.announcement import flops_per_token
from electra.config import PretrainConfig
from electra.log import read_metrics
from electra.objectives import make_model
from electra.phases import plan
from electra.presets import PRESETS

VOCAB_SIZE = 30522
OVERLAP = 0.8  # of the last backward pass; the first buckets are ready after a fifth of it


@dataclass(frozen=True)
class Links:
    """Speeds in bytes a second and direction."""

    node: int  # devices that share the fast link
    inside: float
    between: float  # of one device to other nodes
    latency: float = 0.0  # seconds of a hop

    def all_reduce(self, size: float, devices: int) -> float:
        """Seconds of a ring all-reduce of `size` bytes: within the nodes, then between them on a share each."""
        inner = min(self.node, devices)
        outer = -(-devices // self.node)
        fast, slow = 2 * (inner - 1) / inner, 2 * (outer - 1) / outer
        hops = 2 * math.log2(devices)
        return fast * size / self.inside + slow * size / inner / self.between + hops * self.latency


def step_seconds(compute: float, communicate: float, micro_batches: int) -> float:
    """Seconds of a device's share, the backward pass of whose last micro-batch hides communication."""
    hidden = OVERLAP * 2 / 3 * compute / micro_batches
    return compute + max(0.0, communicate - hidden)


def parameter_bytes(config: PretrainConfig) -> float:
    """Bytes of all gradients in fp32."""
    with torch.device("meta"):
        model = make_model(config.model, config.objective, VOCAB_SIZE)
    return 4.0 * sum(parameter.numel() for parameter in model.parameters())


def predict(tflops: float, links: Links, overhead: float, rows_at_once: int) -> list[dict[str, object]]:
    """Every preset on 8 to 512 devices; more devices than rows in a batch are left out."""
    table: list[dict[str, object]] = []
    for name, preset in PRESETS.items():
        config = preset()
        size = parameter_bytes(config)
        for devices in (8, 16, 32, 64, 128, 256, 512):
            phases = plan(config)
            if min(phase.config.loop.batch_size for phase in phases) < devices:
                continue
            total, busy, seconds = 0.0, 0.0, []
            for phase in phases:
                rows, seq_len = phase.config.loop.batch_size / devices, phase.config.rows.seq_len
                compute = flops_per_token(phase.config, VOCAB_SIZE) * rows * seq_len / (tflops * 1e12)
                micro_batches = max(1, round(rows * seq_len / (rows_at_once * 128)))
                step = overhead + step_seconds(compute, links.all_reduce(size, devices), micro_batches)
                seconds.append(round(1000 * step, 1))
                total, busy = total + step * phase.steps, busy + compute * phase.steps
            row = {"preset": name, "devices": devices, "step_ms": seconds, "hours": round(total / 3600, 1)}
            table.append(row | {"computing": round(busy / total, 2)})
    return table


# ------------------------------------------------------------------------------------------------- measuring


def torchrun(processes: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *arguments]


def worker(size: int, repeats: int) -> None:
    """Time gloo's all-reduce of `size` bytes; the first process prints the median."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    tensor = torch.zeros(size // 4)
    times = []
    for _ in range(repeats):
        dist.barrier()
        begin = time.perf_counter()
        dist.all_reduce(tensor)
        times.append(time.perf_counter() - begin)
    if dist.get_rank() == 0:
        print(statistics.median(times))
    dist.destroy_process_group()


def measure(steps: int, repeats: int) -> dict[str, object]:
    """Seconds a step with 1, 2 and 4 processes of one thread, weak scaling: 16 rows of 128 tokens a process."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from stores import make_store, random_documents  # tests/: stores of random tokens

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make_store(folder / "store", random_documents(3000)).folder
        shape = "--hidden-size 256 --num-layers 4 --num-heads 4 --intermediate-size 1024 --embedding-size 256"
        config = PRESETS["electra-small"]()
        found: dict[int, list[float]] = {1: [], 2: [], 4: []}
        reduce: dict[int, list[float]] = {2: [], 4: []}
        size = 0
        for turn in range(repeats):
            for processes in found:
                out = folder / f"run-{processes}-{turn}"
                flags = f"{shape} --batch-size {16 * processes} --steps {steps} --log-every 5 --save-every {steps}"
                command = ["-m", "electra", "pretrain", "electra-small", "--data", str(store), "--out", str(out)]
                subprocess.run(
                    torchrun(processes, *command, *flags.split(), "--warmup-steps", "5", "--precision", "fp32"),
                    check=True, env=environment, stdout=subprocess.DEVNULL,
                )  # fmt: skip
                speeds = [row["tokens_per_second"] for row in read_metrics(out, "train")][1:]
                found[processes].append(16 * processes * 128 / statistics.median(speeds))
                if not size:
                    from electra.toml import read_toml

                    config = read_toml(PretrainConfig, out / "config.toml")
                    with torch.device("meta"):
                        model = make_model(config.model, config.objective, 1000)
                    size = 4 * sum(parameter.numel() for parameter in model.parameters())
                if processes > 1:
                    command = torchrun(processes, __file__, "worker", "--bytes", str(size))
                    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
                    reduce[processes].append(float(done.stdout.split()[-1]))
    one = statistics.median(found[1])
    rows = {}
    for processes, times in found.items():
        compute = one * max(1.0, processes / cores)
        communicate = statistics.median(reduce[processes]) if processes > 1 else 0.0
        # gloo sends with the cores that compute, so that nothing is hidden where every core has a process.
        predicted = compute + communicate if processes >= cores else step_seconds(compute, communicate, 1)
        measured = statistics.median(times)
        rows[processes] = {
            "seconds": [round(value, 4) for value in times],
            "all_reduce_seconds": round(communicate, 4),
            "predicted_seconds": round(predicted, 4),
            "measured_over_predicted": round(measured / predicted, 3),
        }
    return {"machine": describe(), "gradient_mb": round(size / 1e6, 1), "processes": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "predict", "worker"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--tflops", type=float, default=300.0, help="what a device reaches in training")
    parser.add_argument("--node", type=int, default=8)
    parser.add_argument("--inside", type=float, default=450.0, help="GB/s")
    parser.add_argument("--between", type=float, default=50.0, help="GB/s a device")
    parser.add_argument("--overhead", type=float, default=5.0, help="ms of a step that do not shrink")
    parser.add_argument("--latency", type=float, default=20.0, help="microseconds of a hop")
    parser.add_argument("--rows-at-once", type=int, default=256, help="rows of 128 tokens that fit into a device")
    options = parser.parse_args()
    if options.what == "worker":
        worker(options.bytes, 10)
        return
    if options.what == "predict":
        links = Links(options.node, options.inside * 1e9, options.between * 1e9, options.latency * 1e-6)
        report: object = predict(options.tflops, links, options.overhead * 1e-3, options.rows_at_once)
        for row in report:  # type: ignore[attr-defined]
            print(json.dumps(row))
    else:
        report = measure(options.steps, options.repeats)
        print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
