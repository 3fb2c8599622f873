"""torch.compile of the step: one graph whatever the seeds and counts, the numbers of the step without it."""

import dataclasses
import shutil

import pytest
import torch
import torch.distributed as dist
from stores import make_store, random_documents
from test_pretrain import SHAPE, config_for
from test_rtd import random_batch
from test_varlen import NO_DROPOUT, PIECES, naive
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

from electra import compiled
from electra.compiled import choose_compile, compile_forward
from electra.config import LoopConfig, ModelConfig, ObjectiveConfig
from electra.log import read_metrics
from electra.objectives import PretrainingModel, make_model
from electra.pretrain import pretrain
from electra.rtd import RTDBatch
from electra.runtime import Runtime
from electra.train import Work, forward_backward

CPU = torch.device("cpu")
DROPOUT = dataclasses.replace(NO_DROPOUT, num_layers=1, dropout=0.1, attention_dropout=0.1)


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    counters.clear()


def micro_batch(seed: int, full: bool = False, varlen: bool = False) -> RTDBatch:
    """Another batch, seed and number of tokens each time."""
    batch = random_batch(100, seed=seed)
    pieces = torch.ones_like(PIECES) if full else PIECES.roll(seed, 0)
    return dataclasses.replace(batch, piece_ids=pieces, candidates=pieces > 0).part(slice(0, 3), seed, varlen)


def step(model: torch.nn.Module, batches: list[RTDBatch], precision: str = "fp32") -> dict[str, torch.Tensor]:
    totals = {
        "predictions": float(sum(batch.weights.sum() for batch in batches)),
        "tokens": float(sum((batch.piece_ids > 0).sum() + batch.seed for batch in batches)),
        "candidates": float(sum((batch.piece_ids > 0).sum() for batch in batches)),
    }
    runtime = Runtime(CPU, precision, "asked for")
    return forward_backward(model, Work(batches, totals, 72), totals, runtime)


def fresh(shape: ModelConfig = NO_DROPOUT, **objective) -> PretrainingModel:
    torch.manual_seed(0)
    return make_model(shape, ObjectiveConfig(**objective), 100).train()


@pytest.mark.parametrize(
    ("objective", "precision"),
    [
        ({}, "fp32"),
        ({"disallow_correct": True, "temperature": 2.0}, "bf16"),
        ({"generator": "uniform"}, "bf16"),
        ({"objective": "masked-lm"}, "bf16"),
        ({"generator": "two-tower"}, "fp32"),
        ({"objective": "electric", "generator": "two-tower"}, "bf16"),
    ],
    ids=["electra", "sampling", "uniform", "masked-lm", "two-tower", "electric"],
)
def test_one_graph_whatever_the_step(objective, precision):
    model = fresh(DROPOUT, **objective)
    counter = CompileCounterWithBackend("eager")
    compile_forward(model, CPU, backend=counter)
    for seed in range(0, 8, 2):
        step(model, [micro_batch(seed), micro_batch(seed + 1)], precision)
    assert counter.frame_count == 1 and counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert not counters["recompile_limit"]


def test_full_rows_are_a_graph_of_their_own_and_no_more():
    model = fresh(DROPOUT, generator="uniform")
    counter = CompileCounterWithBackend("eager")
    compile_forward(model, CPU, backend=counter)
    for seed in range(6):
        step(model, [micro_batch(seed, full=seed % 2 == 1)])
    assert counter.frame_count == 2


def test_layers_compiled_one_by_one_share_a_graph_per_shape():
    """As FSDP has it: two layers of the generator, two of the discriminator, two graphs."""
    model, plain = fresh(), fresh()
    counter = CompileCounterWithBackend("eager")
    compile_forward(model, CPU, per_layer=True, backend=counter)
    for seed in range(3):
        ours, theirs = step(model, [micro_batch(seed)]), step(plain, [micro_batch(seed)])
        torch.testing.assert_close(ours["loss"], theirs["loss"], rtol=1e-6, atol=1e-6)
    assert counter.frame_count == 2


def test_bounds_are_part_of_the_graph():
    """The custom operator of varlen_attn and its backward, with loops registered as its kernels for a CPU."""
    from torch.nn.attention import varlen

    def pieces_of(bounds: torch.Tensor, *tensors: torch.Tensor):
        for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            yield slice(begin, end), [x[begin:end].transpose(0, 1) for x in tensors]

    def forward(query, key, value, bounds, *rest):
        out = torch.empty(query.shape)
        for where, piece in pieces_of(bounds, query, key, value):
            out[where] = naive(*piece).transpose(0, 1)
        return out, torch.zeros(query.shape[1], len(query)), torch.zeros(2, dtype=torch.uint64)

    def backward(upstream, query, key, value, out, lse, bounds, *rest):
        gradients = [torch.empty(x.shape) for x in (query, key, value)]
        scale = query.shape[-1] ** -0.5
        for where, (above, q, k, v) in pieces_of(bounds, upstream, query, key, value):
            weights = torch.softmax(scale * q @ k.transpose(1, 2), -1)
            below = above @ v.transpose(1, 2)  # at the weights, and then at the scores
            below = weights * (below - (below * weights).sum(-1, keepdim=True)) * scale
            found = (below @ k, below.transpose(1, 2) @ q, weights.transpose(1, 2) @ above)
            for gradient, part in zip(gradients, found, strict=True):
                gradient[where] = part.transpose(0, 1)
        return tuple(gradients)

    varlen._varlen_attn.register_kernel("cpu")(forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(backward)
    shape = dataclasses.replace(NO_DROPOUT, num_layers=1)
    model, plain = fresh(shape, objective="masked-lm"), fresh(shape, objective="masked-lm")
    counter = CompileCounterWithBackend("aot_eager")
    compile_forward(model, CPU, backend=counter)
    for seed in range(3):
        step(model, [micro_batch(seed, varlen=True)])
        step(plain, [micro_batch(seed)])
    assert counter.frame_count == 1
    assert_same_gradients(model, plain)


def assert_same_gradients(model: torch.nn.Module, plain: torch.nn.Module) -> None:
    expected = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")
def test_inductor_computes_the_same():
    """torch's own compiler on a layer, forward and backward: loss, sums and gradients to 1e-5."""
    shape = dataclasses.replace(NO_DROPOUT, num_layers=1)
    model, plain = fresh(shape, objective="masked-lm"), fresh(shape, objective="masked-lm")
    compile_forward(model, CPU, per_layer=True)
    for seed in range(2):
        ours, theirs = step(model, [micro_batch(seed)]), step(plain, [micro_batch(seed)])
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-5, msg=name)
    assert_same_gradients(model, plain)


def test_ddp_around_the_compiled_model(tmp_path, monkeypatch):
    """Compile, then wrap: gradients are those of the plain model, also accumulated without a sum in between."""
    monkeypatch.setattr(dist, "_DEFAULT_FIRST_BUCKET_BYTES", 4096)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        model, plain = fresh(), fresh()
        names = list(model.state_dict())
        compile_forward(model, CPU, backend="aot_eager")
        replica = DistributedDataParallel(model, bucket_cap_mb=0.01)  # several buckets: torch splits the graph by them
        for seed in (0, 2):
            step(replica, [micro_batch(seed), micro_batch(seed + 1)])
            step(plain, [micro_batch(seed), micro_batch(seed + 1)])
    finally:
        dist.destroy_process_group()
    assert_same_gradients(model, plain)
    assert list(model.state_dict()) == names


def test_a_compiled_run_has_the_curve_of_a_plain_one(tmp_path, monkeypatch):
    monkeypatch.setitem(compiled.BACKENDS, "cpu", "aot_eager")
    store = make_store(tmp_path / "store", random_documents(40)).folder
    shape = dataclasses.replace(SHAPE, num_layers=1, dropout=0.0, attention_dropout=0.0)
    curves, said = [], []
    for choice in ("off", "on"):
        config = config_for(store, tmp_path / choice, steps=3, log_every=1, compile=choice)
        pretrain(dataclasses.replace(config, model=shape), say=said.append)
        curves.append([row["loss"] for row in read_metrics(config.out, "train")])
    assert curves[0] == pytest.approx(curves[1], abs=1e-5) and len(curves[0]) == 3
    assert any("not compiled (asked for)" in line for line in said)
    assert any("; compiled (asked for)" in line for line in said)


def test_when_the_step_is_compiled(monkeypatch):
    monkeypatch.setattr(compiled, "_missing", lambda device: None)
    assert choose_compile("auto", False, CPU) == (False, "not by default on cpu")
    assert choose_compile("on", False, CPU) == (True, "asked for")
    for device in ("cuda", "hpu"):
        assert choose_compile("auto", False, torch.device(device)) == (True, f"the default on {device}")
        assert not choose_compile("off", False, torch.device(device))[0]
    monkeypatch.setattr(compiled, "_missing", lambda device: "a C compiler")
    assert choose_compile("auto", False, torch.device("cuda")) == (False, "compiling needs a C compiler")
    with pytest.raises(ValueError, match=r"loop\.compile needs a C compiler: install it, or set loop.compile to off"):
        choose_compile("on", False, CPU)


def test_cuda_graphs_that_cannot_be():
    with pytest.raises(ValueError, match=r"loop\.cuda_graphs needs an NVIDIA GPU and the device is cpu"):
        choose_compile("auto", True, CPU)
    with pytest.raises(ValueError, match="FSDP works between the layers"):
        choose_compile("auto", True, torch.device("cuda"), per_layer=True)
    with pytest.raises(ValueError, match=r"no meaning when loop\.compile is off"):
        LoopConfig(compile="off", cuda_graphs=True)


def test_no_compiler_is_said_in_a_sentence(monkeypatch, tmp_path):
    from torch._inductor import config, cpp_builder  # before CXX is changed, which it takes for good

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    cpp_builder.cpp_compiler_search.cache_clear()
    # Not by monkeypatch, which cannot put back what stands behind this proxy.
    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(ValueError, match=r"needs a C\+\+ compiler"):
        choose_compile("on", False, CPU)
