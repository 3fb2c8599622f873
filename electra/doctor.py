"""`electra doctor`: what this machine is, what a run on it would get, and what to do about what is missing.

    checks, one after the other -> Finding(name, lines, facts, advice) -> the terminal, or one JSON object

A check measures or tries the thing itself: a matrix product, a compiled function, a process group of one, a written
file. What fails is a finding with its reason; only a folder or a store that the user named wrongly is an error.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from electra import __version__
from electra.announcement import flops_per_token
from electra.compiled import BACKENDS, choose_compile
from electra.config import PretrainConfig
from electra.devices import (
    DEVICES,
    choose_device,
    choose_precision,
    is_present,
    process_group_backend,
    set_matmul_precision,
)
from electra.machine import device_name
from electra.presets import electra_small
from electra.rtd import ReplacedTokenDetection, RTDBatch
from electra.runtime import Runtime, matmul_flops
from electra.store import Store
from electra.tokenizer import Vocabulary, load_tokenizer

PACKAGES = ("torch", "tokenizers", "numpy", "safetensors", "transformers", "pyarrow", "zstandard")
SHARED = Path("/dev/shm")
LITTLE_DISK = 10.0  # GiB; three checkpoints of electra-base (12 bytes a weight, both networks) take five
LITTLE_SHARED = 1.0  # GiB; containers often have 1/16
LONG = 30.0  # days


@dataclass(frozen=True)
class Finding:
    """What one check found: lines for people, facts for programs, and sentences about what to do."""

    name: str
    lines: list[str]
    facts: dict[str, Any]
    advice: list[str] = field(default_factory=list)


def doctor(folder: Path, store: str | None = None, as_json: bool = False) -> bool:
    """Print the findings; takes a minute or two on a CPU. False if `store` was given and is damaged.

    ValueError for a folder that is none.
    """
    if not folder.is_dir():
        raise ValueError(f"--folder {folder} is no folder: name one where runs are to be written")
    findings = []
    for finding in examine(folder, store):
        findings.append(finding)
        if not as_json:
            for number, line in enumerate(finding.lines):
                print(f"{'' if number else finding.name:13} {line}")
    advice = [sentence for finding in findings for sentence in finding.advice]
    if as_json:
        print(json.dumps({finding.name: finding.facts for finding in findings} | {"advice": advice}, indent=2))
    else:
        print("\n" + "\n".join(advice or ["Nothing stands in the way of a run."]))
    return all(finding.facts["intact"] for finding in findings if finding.name == "store")


def examine(folder: Path, store: str | None) -> Iterator[Finding]:
    """The checks in order, each yielded when it is done."""
    device = choose_device("auto")
    yield _versions()
    yield _host()
    yield _devices(device)
    precisions = _precisions(device)
    yield precisions
    yield _compile(device)
    yield _distributed(device)
    yield _disk(folder)
    yield _shared_memory()
    opened = None
    if store is not None:
        opened, finding = _store(store)
        yield finding
    yield _tokenizer(opened)
    yield _training(device, list(precisions.facts["gflops"]))


# ------------------------------------------------------------------------------------------------- the checks


def _versions() -> Finding:
    packages = {name: _version(name) for name in PACKAGES}
    facts = {
        "electra": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": packages,
    }
    shown = ", ".join(f"{name} {version or 'not installed'}" for name, version in packages.items())
    return Finding("versions", [f"electra {__version__}, Python {facts['python']}, {facts['system']}", shown], facts)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _host() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    facts: dict[str, Any] = {"processor": device_name(torch.device("cpu")), "cores": cores, "threads": threads}
    memory = ""
    if os.name == "posix":
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
        memory = f", {facts['memory_gib']:.0f} GiB"
    advice = []
    if "OMP_NUM_THREADS" in os.environ and threads < cores:
        advice.append(
            f"OMP_NUM_THREADS lets torch use {threads} of {cores} cores: unset it for a run on the CPU that has the "
            "machine to itself."
        )
    has, uses = (f"{count} {word}{'s' * (count > 1)}" for count, word in ((cores, "core"), (threads, "thread")))
    return Finding("host", [f"{facts['processor']}{memory}, {has}, torch uses {uses}"], facts, advice)


def _devices(chosen: torch.device) -> Finding:
    names = {}
    for kind in DEVICES:
        if is_present(kind):
            count = 1 if kind in ("cpu", "mps") else torch.get_device_module(kind).device_count()
            names[kind] = [
                device_name(torch.device(kind, index) if count > 1 else torch.device(kind)) for index in range(count)
            ]
    lines = [f"{kind}: {len(found)} x {found[0]}" for kind, found in names.items()]
    lines.append(f"--device auto takes {chosen}")
    advice = []
    if chosen.type == "cpu" and Path("/proc/driver/nvidia/version").exists():
        why = "is built without CUDA" if torch.version.cuda is None else "finds none that it can use"
        advice.append(
            f"There is an NVIDIA driver here but torch {torch.__version__} {why}: install the build of torch for the "
            "driver's version of CUDA (pytorch.org/get-started)."
        )
    return Finding("devices", lines, {"found": names, "chosen": str(chosen), "cuda": torch.version.cuda}, advice)


def _precisions(device: torch.device) -> Finding:
    chosen, why = choose_precision("auto", device)
    gflops, lines = {}, []
    for precision in DEVICES[device.type].precisions:
        try:
            choose_precision(precision, device)
        except ValueError:  # this device has not got it
            continue
        set_matmul_precision(precision, device)
        gflops[precision] = round(matmul_flops(device, precision, seconds=1.0) / 1e9, 1)
        note = f"  <- --precision auto takes this: {why}" if precision == chosen else ""
        lines.append(f"{precision}: {gflops[precision]:,.0f} GFLOP/s in a matrix product{note}")
    return Finding("precisions", lines, {"gflops": gflops, "chosen": chosen, "why": why})


def _compile(device: torch.device) -> Finding:
    """Whether a function with its gradient compiles and gives what it gives uncompiled."""
    facts: dict[str, Any] = {"works": False}
    try:
        choose_compile("on", False, device)
        begin = time.perf_counter()
        weights = torch.randn(64, 64, device=device, requires_grad=True)
        compiled = torch.compile(_layer, fullgraph=True, dynamic=False, backend=BACKENDS.get(device.type, "inductor"))
        (gradient,) = torch.autograd.grad(compiled(weights), weights)
        (expected,) = torch.autograd.grad(_layer(weights), weights)
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3)
        facts = {"works": True, "seconds": round(time.perf_counter() - begin, 1)}
    except Exception as error:  # of the compiler, its compiler, its drivers: the doctor goes on and says it
        facts["why"] = _first_line(error)
    default, why = choose_compile("auto", False, device)
    facts |= {"default": default, "default_why": why}
    auto = f"--compile auto {'compiles' if default else 'does not'}: {why}"
    if facts["works"]:
        return Finding("compile", [f"works, a small function in {facts['seconds']} s; {auto}"], facts)
    advice = [f"Without a working compiler runs are slower; mend it ({facts['why']}) or use --compile off."]
    return Finding("compile", [f"does not work: {facts['why']}; {auto}"], facts, advice if device.type != "cpu" else [])


def _layer(weights: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(weights @ weights).square().mean()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _distributed(device: torch.device) -> Finding:
    """A process group of one with the backend that a run would take, and a sum through it."""
    facts: dict[str, Any] = {"works": False}
    try:
        facts["backend"] = process_group_backend(device)
        dist.init_process_group(facts["backend"], store=dist.HashStore(), rank=0, world_size=1)
        try:
            for place in {torch.device("cpu"), device}:
                ones = torch.ones(2, device=place)
                dist.all_reduce(ones)
                assert ones.tolist() == [1.0, 1.0], "a sum over one process is what went in"
        finally:
            dist.destroy_process_group()
        facts["works"] = True
    except Exception as error:  # of torch, nccl or a vendor's package
        facts["why"] = _first_line(error)
    line = f"{facts.get('backend', 'no backend')}: " + (
        "works in one process" if facts["works"] else f"does not work: {facts['why']}"
    )
    advice = [] if facts["works"] else [f"Runs of several processes will fail here: {facts['why']}."]
    return Finding("distributed", [line], facts, advice)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    advice = []
    if free < LITTLE_DISK:
        advice.append(
            f"{folder.resolve()} has {free:.1f} GiB free: a run keeps three checkpoints of 12 bytes a weight."
        )
    try:
        speed = _write_speed(folder)
    except PermissionError:
        facts = {"folder": str(folder.resolve()), "free_gib": round(free, 1), "megabytes_per_second": None}
        advice.append(f"{folder.resolve()} cannot be written: name a folder for runs with --folder.")
        return Finding("disk", [f"{folder.resolve()}: {free:,.0f} GiB free, not to be written by you"], facts, advice)
    facts = {"folder": str(folder.resolve()), "free_gib": round(free, 1), "megabytes_per_second": round(speed)}
    return Finding("disk", [f"{folder.resolve()}: {free:,.0f} GiB free, writes {speed:,.0f} MB/s"], facts, advice)


def _write_speed(folder: Path, megabytes: int = 64) -> float:
    block = os.urandom(2**20)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        begin = time.perf_counter()
        for _ in range(megabytes):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return megabytes / (time.perf_counter() - begin)


def _shared_memory() -> Finding:
    """Through which NCCL's processes of one machine talk; Linux alone shows how much there is."""
    if not SHARED.is_dir():
        return Finding("shared memory", ["not shown by this system"], {"total_gib": None, "free_gib": None})
    usage = shutil.disk_usage(SHARED)
    total, free = usage.total / 2**30, usage.free / 2**30
    advice = []
    if free < LITTLE_SHARED:
        advice.append(
            f"{SHARED} has {free:.2f} GiB free, too little for several GPUs through NCCL: start a container with "
            "--shm-size=8g or --ipc=host."
        )
    facts = {"total_gib": round(total, 2), "free_gib": round(free, 2)}
    return Finding("shared memory", [f"{SHARED}: {free:,.1f} of {total:,.1f} GiB free"], facts, advice)


def _store(location: str) -> tuple[Store | None, Finding]:
    """The store with each file compared with its sha256."""
    begin = time.perf_counter()
    try:
        store = Store.open(location)
    except ValueError as error:
        facts = {"folder": location, "intact": False, "why": str(error)}
        return None, Finding("store", [f"{location}: not to be used"], facts, [f"The store: {error}."])
    facts = {
        "folder": location,
        "intact": True,
        "tokens": store.num_tokens,
        "documents": store.num_documents,
        "vocabulary": store.vocabulary().size,
        "seconds": round(time.perf_counter() - begin, 2),
    }
    line = f"{location}: every file has its checksum; {store.num_tokens:,} tokens in {store.num_documents:,} documents"
    return store, Finding("store", [line], facts)


def _tokenizer(store: Store | None) -> Finding:
    """Speed of one process on the topics of pydoc, English that every Python carries, met for the first time."""
    from pydoc_data.topics import topics

    texts = list(topics.values())
    whose = "the store's vocabulary"
    if store is not None:
        vocabulary = store.vocabulary()
    else:
        whose = "a vocabulary of its words"
        vocabulary = _vocabulary_of(texts)
    begin = time.perf_counter()
    ids, _ = vocabulary.encode_lines([line for text in texts for line in text.splitlines()])
    seconds = time.perf_counter() - begin
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    facts = {
        "megabytes_per_second": round(megabytes / seconds, 1),
        "tokens_per_second": round(len(ids) / seconds),
        "megabytes": round(megabytes, 2),
    }
    line = (
        f"{facts['megabytes_per_second']:,.1f} MB/s, {facts['tokens_per_second']:,} tokens/s in one process: "
        f"{megabytes:.1f} MB of English with {whose}"
    )
    return Finding("tokenizer", [line], facts)


def _vocabulary_of(texts: list[str]) -> Vocabulary:
    """Specials, single characters and the most frequent words."""
    words = Counter(word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower()))
    letters = sorted({letter for word in words for letter in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    pieces += [word for word, _ in words.most_common(5000) if len(word) > 1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
        return load_tokenizer(path, lowercase=True)


def _training(device: torch.device, precisions: Sequence[str]) -> Finding:
    """Speed of electra-small in fp32, in bf16 and in what --precision auto takes, uncompiled."""
    config = electra_small()
    chosen, _ = choose_precision("auto", device)
    speeds: dict[str, float] = {}
    days: dict[str, float] = {}
    lines = []
    for precision in precisions:
        if precision not in ("fp32", "bf16", chosen):
            continue
        set_matmul_precision(precision, device)
        tokens = _training_speed(config, Runtime(device, precision, ""))
        flops = flops_per_token(config, 30_522) * tokens
        speeds[precision], days[precision] = round(tokens), round(1e6 * 128 * 128 / tokens / 86_400, 1)
        lines.append(
            f"electra-small {precision}: {tokens:,.0f} tokens/s at 16 x 128 = {flops / 1e9:,.0f} GFLOP/s; "
            f"1 M steps of the paper's 128 rows would take {days[precision]:,.1f} days"
        )
    advice = []
    best = max(speeds, key=lambda name: speeds[name])
    if speeds[best] > 1.1 * speeds[chosen]:
        advice.append(f"--precision {best} trained {speeds[best] / speeds[chosen]:.1f} times as fast as {chosen} here.")
    if days[best] > LONG:
        advice.append(
            f"The paper's plan for electra-small would take {days[best]:,.0f} days here: use the preset tiny, or "
            "fewer steps (--steps)."
        )
    return Finding("training", lines, {"tokens_per_second": speeds, "days_of_the_paper": days}, advice)


def _training_speed(config: PretrainConfig, runtime: Runtime, rows: int = 16, vocab_size: int = 30_522) -> float:
    """Tokens/s of forward and backward passes on random rows: the best of a few, the first left out."""
    seq_len, slots = config.rows.seq_len, config.objective.max_predictions(config.rows.seq_len)
    model = ReplacedTokenDetection(config.model, config.objective, vocab_size).to(runtime.device)
    ids = torch.randint(5, vocab_size, (rows, seq_len))
    positions = torch.rand(rows, seq_len).topk(slots).indices
    batch = RTDBatch(
        input_ids=ids,
        masked_input_ids=ids,
        segment_ids=torch.zeros_like(ids),
        position_ids=torch.arange(seq_len).expand(rows, seq_len),
        piece_ids=torch.ones_like(ids),
        positions=positions,
        weights=torch.ones(rows, slots),
        token_ids=ids.gather(1, positions),
        uniforms=torch.rand(rows, slots),
    ).to(runtime.device)
    seconds = []
    for _ in range(4):
        begin = time.perf_counter()
        with runtime.autocast():
            loss, _ = model(batch, {"predictions": rows * slots, "tokens": rows * seq_len})
        loss.backward()
        float(loss.detach())  # waits for the device
        seconds.append(time.perf_counter() - begin)
    return rows * seq_len / min(seconds[1:])
