"""Foreign weights -> a run folder from which `electra pretrain` goes on.

    two Networks, step, Adam's moments -> model and optimizer -> checkpoints/step-N, config.toml, store.json

The folder is what pretrain.py would have left at that step, so that nothing there knows where a run came from. The two
networks of such a run share their embeddings and nothing else: weights for which that does not hold, and the other
objectives, cannot go on. Moments travel in the
layout of the weights (query, key and value fused, the vocabulary padded) and are read one at a time.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from electra.checkpoint import Checkpoints, TrainState
from electra.config import ModelConfig, ObjectiveConfig, PretrainConfig
from electra.encoder import EncoderConfig
from electra.files import atomic_file, atomic_folder
from electra.interop.google import NetworkName, Slot
from electra.interop.heads import head_from_hf
from electra.interop.hf import check_network, encoder_from_hf
from electra.interop.network import Network, Tensors
from electra.optim import make_optimizers
from electra.rtd import ReplacedTokenDetection, discriminator_config, generator_config
from electra.runtime import Runtime
from electra.schedules import make_schedule
from electra.store import Store
from electra.toml import write_toml

Moments = Callable[[NetworkName, Slot], Tensors]
"""A network's name and a moment's -> that moment of each of its tensors, named and shaped like the weights. The method
`GoogleCheckpoint.moments` is one."""

SLOTS: dict[Slot, str] = {"adam_m": "exp_avg", "adam_v": "exp_avg_sq"}  # Google's name -> that of AdamW's state
ARCHITECTURES: dict[NetworkName, str] = {"discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}
SHAPE_FIELDS = ("hidden_size", "num_layers", "num_heads", "intermediate_size", "embedding_size", "max_positions")


def check_objective(objective: ObjectiveConfig) -> None:
    """ValueError unless a run of this objective trains a discriminator and a generator that share their embeddings."""
    for name, wanted in (("objective", "electra"), ("generator", "shared-embeddings")):
        if (found := getattr(objective, name)) != wanted:
            raise ValueError(
                f"objective.{name} is {found}, but only runs with {wanted} can go on from weights made elsewhere: set "
                "it back (in Google's hparams: the two objectives and the fields of the generator), or train from the "
                "beginning"
            )


def infer_model(discriminator: Network, generator: Network) -> ModelConfig:
    """The shape of both networks as a run's configuration has it.

    Raises ValueError if a network is not complete, or the generator is no scaled-down discriminator.
    """
    shape, smaller = check_network(discriminator), check_network(generator)
    model = ModelConfig(
        **{name: getattr(shape, name) for name in SHAPE_FIELDS},
        generator_width=min(1.0, smaller.hidden_size / shape.hidden_size),
        generator_depth=min(1.0, smaller.num_layers / shape.num_layers),
        dropout=shape.dropout,
        attention_dropout=shape.attention_dropout,
    )
    _check_shapes(model, shape.vocab_size, discriminator, generator)
    return model


def write_run(
    out: Path,
    config: PretrainConfig,
    discriminator: Network,
    generator: Network,
    store: Store,
    *,
    step: int = 0,
    moments: Moments | None = None,
    overwrite: bool = False,
    check: Callable[[Path], None] = lambda folder: None,
) -> list[str]:
    """Write the run folder `out`, whose one checkpoint is at `step`, and return what a user should know of it.

    `config` is that of the run to come (`data` and `out` are filled in); `electra pretrain --config OUT/config.toml`
    starts it. Without `moments` Adam begins from zero. `check` is called with the finished folder before it gets its
    name; if it raises, nothing is left behind.

    Raises ValueError when the networks are not complete or do not belong together, config or store do not fit them, the
    objective is another than replaced-token detection with shared embeddings,
    moments are given for another optimizer than AdamW, no step is left, or `out` exists and not `overwrite`.
    """
    config = dataclasses.replace(config, data=(str(store.folder.resolve()),), out=out)
    check_objective(config.objective)
    for given, wanted in zip((discriminator, generator), ARCHITECTURES.values(), strict=True):
        if given.architecture != wanted:
            raise ValueError(f"{given.source} is an {given.architecture}: pre-training goes on from an {wanted}")
    _check_shapes(config.model, store.vocab_size, discriminator, generator)
    _check_shared(discriminator, generator)
    if moments is not None and config.optimizer.optimizer != "adamw":
        raise ValueError(
            f"{discriminator.source} has the moments of Adam, but optimizer.optimizer is {config.optimizer.optimizer}: "
            "choose adamw, or leave the moments behind"
        )
    if step >= config.loop.steps:
        raise ValueError(
            f"{discriminator.source} is at step {step:,} and loop.steps is {config.loop.steps:,}: raise loop.steps "
            "(Google's num_train_steps) to the step at which the run is to end"
        )

    make_schedule(config.optimizer, config.loop.steps)  # refused now rather than when the run starts
    with torch.device("meta"):
        model = ReplacedTokenDetection(config.model, config.objective, store.vocab_size)
    weights = _our_state(model, "discriminator", discriminator.tensors)
    model.load_state_dict(weights | _our_state(model, "generator", generator.tensors), assign=True)
    optimizers = make_optimizers(model, config.optimizer)
    if moments is not None:
        state = {name: optimizers[0].state[parameter] for name, parameter in model.named_parameters()}
        for network in ARCHITECTURES:
            for slot, ours in SLOTS.items():
                for name, tensor in _our_state(model, network, moments(network, slot)).items():
                    state[name][ours].copy_(tensor)
        for values in state.values():
            values["steps"].fill_(step)

    with atomic_folder(out, overwrite) as folder:
        checkpoints = Checkpoints(folder / "checkpoints", Runtime(torch.device("cpu"), "fp32", ""), keep=0)
        checkpoints.save(TrainState(model, optimizers, step))
        write_toml(config, folder / "config.toml")
        shutil.copy(store.folder / "store.json", folder / "store.json")
        with atomic_file(folder / "metrics.jsonl"):
            pass  # nothing has been measured here yet
        check(folder)
    return _remarks(config, step, moments is not None)


def _our_state(model: ReplacedTokenDetection, network: NetworkName, tensors: Tensors) -> Tensors:
    """Tensors under Hugging Face's names -> the part of the model's state dict that the network holds.

    The shared embeddings come from the discriminator.
    """
    shape = model.config if network == "discriminator" else model.generator_config
    state = {}
    for name, tensor in encoder_from_hf(tensors, shape, network).items():
        if name.startswith("body."):
            state[f"{network}.{name.removeprefix('body.')}"] = tensor
        elif network == "discriminator":
            state[name] = tensor
    head = head_from_hf(tensors, ARCHITECTURES[network], shape)
    return state | {f"{network}_head.{name}": tensor for name, tensor in head.items()}


def _check_shapes(model: ModelConfig, vocab_size: int, discriminator: Network, generator: Network) -> None:
    """ValueError if one of the networks has another shape than a run of this configuration."""
    for network, said in (
        (discriminator, discriminator_config(model, vocab_size)),
        (generator, generator_config(model, vocab_size)),
    ):
        found = check_network(network)
        if found.vocab_size != vocab_size:
            raise ValueError(
                f"{network.source} has a vocabulary of {found.vocab_size} entries and the store one of {vocab_size}: "
                "build the store with the vocabulary that the model was trained with"
            )
        for field in dataclasses.fields(EncoderConfig):
            there, here = getattr(found, field.name), getattr(said, field.name)
            if there != here and "dropout" not in field.name:  # no weight depends on the dropout
                raise ValueError(
                    f"the {_role(network)} of {network.source} has {field.name} {there}, but in a run of this "
                    f"configuration it would have {here}: choose the model.* settings that fit it"
                )


def _check_shared(discriminator: Network, generator: Network) -> None:
    if generator.own_output:
        raise ValueError(
            f"the generator {generator.source} has an output matrix of its own, but in a run it is the word table: "
            "such a generator cannot go on training here"
        )
    for name, tensor in discriminator.tensors.items():
        if name.startswith("electra.embeddings.") and not torch.equal(tensor, generator.tensors[name]):
            raise ValueError(
                f"{generator.source} has another {name} than the discriminator {discriminator.source}, and both share "
                "their embeddings here: give the two networks of one run that shared them"
            )


def _role(network: Network) -> str:
    return "generator" if network.architecture == ARCHITECTURES["generator"] else "discriminator"


def _remarks(config: PretrainConfig, step: int, has_moments: bool) -> list[str]:
    """What the run begins with and what that means, one line each."""
    optimizer, steps = config.optimizer, config.loop.steps
    lines = []
    nothing = "optimizer   no moments of Adam to go on with (released models have none): they begin at zero"
    if has_moments:
        lines.append(f"optimizer   the moments of Adam as they were at step {step:,}")
    elif optimizer.optimizer != "adamw" or optimizer.bias_correction:
        lines.append(nothing)
    else:
        excess = max((1 - optimizer.beta1**t) / (1 - optimizer.beta2**t) ** 0.5 for t in range(1, 1000))
        cure = (
            f"the {optimizer.warmup_steps:,} steps of warm-up cover that"
            if step == 0 and optimizer.warmup_steps >= 1000
            else "begin at step 0 with a warm-up of some thousand steps, or turn on optimizer.bias_correction"
        )
        lines.append(
            f"{nothing}, so that the first thousand steps, whose bias nothing corrects, are up to {excess:.1f} times "
            f"as long as the learning rate says; {cure}"
        )
    peak = optimizer.learning_rate
    schedule = f"schedule    step {step:,} of {steps:,}"
    if step < optimizer.warmup_steps:
        return [*lines, f"{schedule}: warm-up to the learning rate {peak:g} until step {optimizer.warmup_steps:,}"]
    rate, end = make_schedule(optimizer, steps)(step), optimizer.end_learning_rate
    if rate == peak:
        return [*lines, f"{schedule}: the learning rate is at its peak, {peak:g}"]
    # All schedules that end at zero are in proportion to their peak.
    again = f"to go on at {peak:g}, set optimizer.learning_rate to {peak * peak / rate:.3g}; " if not end else ""
    lines.append(
        f"{schedule}: the learning rate is at {rate:.3g} (peak {peak:g}) on its way down to "
        f"{f'{end:g}' if end else 'zero'}; {again}to go on for longer, raise loop.steps"
    )
    return lines
