"""Do 200 steps of the paper-exact small preset follow Google's rules? Loss curves on the same batches, three times.

    ELECTRA_DATA=data python benchmarks/golden_curve.py --store store [--steps 200 --batch 16 --warmup-steps 100]

reference   transformers' ElectraForMaskedLM and ElectraForPreTraining in fp32 with tied embeddings; slots, duplicate
            positions, losses, clipping and AdamW without correction written out plainly, as google-research/electra
            has them (pretrain_helpers.py, run_pretraining.py, optimization.py)
ours fp32   electra-small-google through the training engine
ours bf16   the same, as it runs by default where bf16 is fast

All begin with the same weights and see the same rows, masks and random numbers of sampling. Dropout is off, because two
programs cannot draw the same; batch and warm-up are cut down so that 200 steps move the weights within minutes on a
CPU. The difference between ours in bf16 and in fp32 is the noise of bf16; the difference from the reference has to be
of that size, and in fp32 far below it until the trajectories part (sampling makes small differences into other tokens).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from machine import describe

from electra.batches import Rows
from electra.export import networks_of
from electra.objectives import make_model
from electra.optim import global_norm, make_optimizers, scale_gradients, set_learning_rate
from electra.phases import Phase, plan
from electra.presets import PRESETS
from electra.pretrain import load_work
from electra.runtime import Runtime
from electra.store import Store
from electra.train import forward_backward

Curve = list[tuple[float, float]]  # generator's loss, discriminator's


def phase_of(store: Store, steps: int, batch: int, warmup_steps: int) -> Phase:
    config = PRESETS["electra-small-google"]()
    return plan(
        dataclasses.replace(
            config,
            data=(str(store.folder),),
            model=dataclasses.replace(config.model, dropout=0.0, attention_dropout=0.0),
            optimizer=dataclasses.replace(config.optimizer, warmup_steps=warmup_steps),
            loop=dataclasses.replace(config.loop, steps=steps, batch_size=batch),
        )
    )[0]


def fresh_model(phase: Phase, store: Store) -> Any:
    torch.manual_seed(0)
    return make_model(phase.config.model, phase.config.objective, store.vocab_size)


def ours(phase: Phase, store: Store, rows: Rows, precision: str) -> Curve:
    """The engine's step, as train.py does it."""
    runtime = Runtime(torch.device("cpu"), precision, "")
    model = fresh_model(phase, store)
    optimizers = make_optimizers(model, phase.config.optimizer)
    curve = []
    for step in range(phase.steps):
        work = load_work(phase, rows, store, runtime, phase.config.loop.batch_size, step)
        sums = forward_backward(model, work, work.totals, runtime)
        scale_gradients(model, (1.0 / global_norm(model)).clamp(max=1.0))
        set_learning_rate(optimizers, phase.learning_rate(step))
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        curve.append((float(sums["generator_loss"]), float(sums["discriminator_loss"])))
    return curve


def reference(phase: Phase, store: Store, rows: Rows) -> Curve:
    """The same by the plain formulas."""
    runtime = Runtime(torch.device("cpu"), "fp32", "")
    networks = networks_of(fresh_model(phase, store), "reference")
    generator, discriminator = (
        getattr(transformers, network.architecture)(transformers.ElectraConfig(**network.config))
        for network in (networks["generator"], networks["discriminator"])
    )
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm"):
        setattr(generator.electra.embeddings, name, getattr(discriminator.electra.embeddings, name))
    generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight
    generator.load_state_dict(dict(networks["generator"].tensors), strict=False)
    discriminator.load_state_dict(dict(networks["discriminator"].tensors))
    named = dict(torch.nn.ModuleDict({"g": generator, "d": discriminator}).named_parameters())
    first = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    second = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    curve = []
    for step in range(phase.steps):
        (batch,) = load_work(phase, rows, store, runtime, phase.config.loop.batch_size, step).micro_batches
        mask = (batch.piece_ids > 0).long()
        logits = generator(batch.masked_input_ids, mask, batch.segment_ids).logits
        slots = logits.gather(1, batch.positions[..., None].expand(-1, -1, logits.shape[-1]))
        losses = -F.log_softmax(slots, -1).gather(-1, batch.token_ids[..., None]).squeeze(-1)
        generator_loss = (losses * batch.weights).sum() / batch.weights.sum()
        corrupted = corrupt(batch, slots.detach())
        answers = discriminator(corrupted, mask, batch.segment_ids).logits
        labels = (corrupted != batch.input_ids).float()
        token_losses = F.binary_cross_entropy_with_logits(answers, labels, reduction="none") * mask
        discriminator_loss = token_losses.sum() / mask.sum()
        (generator_loss + 50.0 * discriminator_loss).backward()
        adam(named, first, second, phase.learning_rate(step))
        curve.append((float(generator_loss), float(discriminator_loss)))
    return curve


def corrupt(batch: Any, logits: torch.Tensor) -> torch.Tensor:
    """The row that the discriminator reads; positions drawn twice get the floor of the mean of the two ids."""
    corrupted = batch.input_ids.clone()
    for row in range(len(corrupted)):
        drawn: dict[int, list[int]] = {}
        for slot in range(batch.positions.shape[1]):
            if batch.weights[row, slot]:
                cumulative = torch.softmax(logits[row, slot], -1).cumsum(-1)
                wanted = float(batch.uniforms[row, slot] * cumulative[-1])
                drawn.setdefault(int(batch.positions[row, slot]), []).append(int((cumulative <= wanted).sum()))
        for position, tokens in drawn.items():
            corrupted[row, position] = sum(tokens) // len(tokens)
    return corrupted


@torch.no_grad()
def adam(
    named: dict[str, torch.nn.Parameter],
    first: dict[str, torch.Tensor],
    second: dict[str, torch.Tensor],
    rate: float,
) -> None:
    """Google's AdamWeightDecayOptimizer after clipping to a global norm of 1."""
    norm = torch.stack([parameter.grad.norm() for parameter in named.values() if parameter.grad is not None]).norm()
    for name, parameter in named.items():
        assert parameter.grad is not None, name
        gradient = parameter.grad * min(1.0, 1.0 / float(norm))
        first[name].mul_(0.9).add_(gradient, alpha=0.1)
        second[name].mul_(0.999).add_(gradient**2, alpha=0.001)
        update = first[name] / (second[name].sqrt() + 1e-6)
        if "LayerNorm" not in name and not name.endswith("bias"):
            update += 0.01 * parameter
        parameter -= rate * update
        parameter.grad = None


def differences(one: Curve, other: Curve) -> dict[str, float]:
    """Absolute differences of the two losses, step by step."""
    out = {}
    for index, name in enumerate(("generator_loss", "discriminator_loss")):
        gaps = [abs(a[index] - b[index]) for a, b in zip(one, other, strict=True)]
        out |= {f"{name}_median": statistics.median(gaps), f"{name}_largest": max(gaps)}
        out[f"{name}_last_50_mean"] = abs(
            statistics.mean(a[index] for a in one[-50:]) - statistics.mean(b[index] for b in other[-50:])
        )
    return {name: float(f"{value:.3g}") for name, value in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--warmup-steps", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    store = Store.open(options.store)
    phase = phase_of(store, options.steps, options.batch, options.warmup_steps)
    rows = Rows(store, phase.config.rows, seed=phase.row_seed)
    curves = {
        "reference": reference(phase, store, rows),
        "ours_fp32": ours(phase, store, rows, "fp32"),
        "ours_bf16": ours(phase, store, rows, "bf16"),
    }
    report = {
        "machine": describe(),
        "steps": options.steps,
        "batch": options.batch,
        "warmup_steps": options.warmup_steps,
        "fp32_against_reference": differences(curves["ours_fp32"], curves["reference"]),
        "bf16_against_reference": differences(curves["ours_bf16"], curves["reference"]),
        "bf16_against_fp32": differences(curves["ours_bf16"], curves["ours_fp32"]),
        "every_20th": {
            name: [[round(value, 5) for value in pair] for pair in curve[::20] + curve[-1:]]
            for name, curve in curves.items()
        },
    }
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
