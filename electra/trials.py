"""One trial of a fine-tuning: a seed, and with --folds a part of the data, trained to a model and scored.

    Plan + Trial -> fresh head on the encoder -> `train` (evaluations, checkpoints) -> last or best model -> metrics

Its folder holds what an interrupted run goes on from: `checkpoints/`, the best model so far where one is to be chosen,
and at the end `result.json`, the outputs of each split and the predictions.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from electra.allocator import return_freed_memory
from electra.checkpoint import Checkpoints, TrainState
from electra.config import FinetuneConfig, LoopConfig
from electra.encoder import EncoderConfig
from electra.files import atomic_file, atomic_folder, write_json
from electra.interop.hf import Pretrained
from electra.interop.weights import write_weights
from electra.log import RunLog, read_metrics
from electra.optim import AdamW, layer_decay_groups
from electra.runtime import Runtime, derive_seed
from electra.schedules import warmup_decay
from electra.tasks.features import epoch_batches
from electra.tasks.prepared import Outputs, Prepared
from electra.tasks.recipes import Settings
from electra.train import Outcome, Work, train

CLIP_NORM = 1.0
BEST = "best.safetensors"
Result = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """A model to train."""

    seed: int
    fold: int | None = None

    @property
    def name(self) -> str:
        """Of its folder, and in what is printed."""
        return f"seed-{self.seed}" if self.fold is None else f"seed-{self.seed}-fold-{self.fold}"

    def facts(self) -> Result:
        return {"seed": self.seed} | ({} if self.fold is None else {"fold": self.fold})


@dataclass(frozen=True)
class Plan:
    """Everything about a run that does not depend on the trial."""

    config: FinetuneConfig
    settings: Settings
    pretrained: Pretrained
    prepare: Callable[[int | None], Prepared]
    """The task's data, of a fold; that of the first and the last one is kept."""
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Sentences about faults of the files' rows."""

    @property
    def prepared(self) -> Prepared:
        """The data of the first trial."""
        return self.prepare(self.trials[0].fold)

    @property
    def trials(self) -> list[Trial]:
        """Fold by fold, so that each part of the data is prepared once.

        By rising seed, so that of equal trials the best is the same whatever the order of --seeds, also of added ones.
        """
        folds = list(range(self.config.folds)) if self.config.folds else [None]
        return [Trial(seed, fold) for fold in folds for seed in sorted(self.config.seeds)]

    @property
    def encoder(self) -> EncoderConfig:
        """The shape of the model, with the dropout of the fine-tuning."""
        dropout = self.config.dropout
        return dataclasses.replace(self.pretrained.config, dropout=dropout, attention_dropout=dropout)

    def epoch_steps(self, prepared: Prepared) -> int:
        return -(-len(prepared.lengths) // self.settings.batch_size)

    def steps(self, prepared: Prepared) -> int:
        return max(1, round(self.settings.epochs * self.epoch_steps(prepared)))


def train_trial(plan: Plan, trial: Trial, runtime: Runtime) -> tuple[nn.Module, Result, dict[str, Outputs]] | int:
    """Train and score one trial: the model, its result, and its outputs for each split; or the signal that stopped it.

    A trial that was interrupted goes on from its last checkpoint.
    """
    prepared = plan.prepare(trial.fold)
    folder = plan.config.out / trial.name
    folder.mkdir(exist_ok=True)
    begin = time.monotonic()
    model = make_model(plan, prepared, trial.seed).to(runtime.device)
    watch = Watch(plan, prepared, model, folder, runtime)
    outcome = _train_model(plan, trial, prepared, model, watch, runtime, folder)
    if outcome.signal is not None:
        return outcome.signal
    step = watch.restore_best() or outcome.step
    result: Result = trial.facts() | {"steps": step}
    if step != outcome.step or outcome.step < plan.steps(prepared):
        result["trained_steps"] = outcome.step
    outputs: dict[str, Outputs] = {}
    for split in prepared.splits:
        if split == "train" or (split == "dev" and plan.config.mode == "train"):
            continue
        is_known = split == "dev" and watch.step == step
        outputs[split] = watch.outputs if is_known else prepared.predict(model, split, runtime)
        if prepared.is_labelled(split):
            result[split] = prepared.score(outputs[split], split)
    result["seconds"] = round(time.monotonic() - begin, 1)
    return model, result, outputs


def finish_trial(plan: Plan, trial: Trial, result: Result, outputs: dict[str, Outputs]) -> None:
    """Write what a finished trial leaves, result.json last, and remove what only an unfinished one needs."""
    prepared, folder = plan.prepare(trial.fold), plan.config.out / trial.name
    save_predictions(folder / "predictions", prepared, outputs)
    if prepared.can_average() and trial.fold is None:  # also of one seed: others may be added later
        for split, found in outputs.items():
            with atomic_file(folder / f"{split}.npz") as file:
                np.savez(file, **found)  # type: ignore[arg-type]
    write_json(folder / "result.json", result)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / BEST).unlink(missing_ok=True)


def save_predictions(folder: Path, prepared: Prepared, outputs: dict[str, Outputs]) -> None:
    """The answers for each split, in the formats of the task."""
    with atomic_folder(folder, overwrite=True) as temporary:
        for split, found in outputs.items():
            prepared.write_predictions(found, split, temporary)


def make_model(plan: Plan, prepared: Prepared, seed: int) -> nn.Module:
    """The model of a seed: a fresh head on the given encoder, or on a fresh one of the same shape."""
    torch.manual_seed(derive_seed(seed, "initialize"))
    model = prepared.make_model(plan.encoder)
    if not plan.config.from_scratch:
        model.get_submodule("encoder").load_state_dict(plan.pretrained.encoder_state)
    return model


class Watch:
    """Evaluates on dev, keeps the best model where one is to be chosen, and says when patience is at its end."""

    def __init__(self, plan: Plan, prepared: Prepared, model: nn.Module, folder: Path, runtime: Runtime) -> None:
        self.prepared, self.model, self.folder, self.runtime = prepared, model, folder, runtime
        self.state: TrainState | None = None
        self.keeps_best = plan.config.select == "best"
        self.patience = plan.config.patience
        self.step = -1  # of the last evaluation, and what the model gave then
        self.outputs: Outputs = {}
        self.history: list[tuple[int, float]] = []
        """(step, main metric) of each evaluation."""

    def resume(self, state: TrainState) -> None:
        """Go on after the evaluations up to `state.step`, which the folder's metrics tell."""
        self.state = state
        metrics = self.folder / "metrics.jsonl"
        rows = read_metrics(self.folder, "eval") if metrics.exists() else []
        self.history = [(row["step"], row[self.prepared.metric]) for row in rows if row["step"] <= state.step]

    def evaluate(self) -> dict[str, float]:
        assert self.state is not None
        self.step, self.outputs = self.state.step, self.prepared.predict(self.model, "dev", self.runtime)
        found = self.prepared.score(self.outputs, "dev")
        self.history.append((self.step, found[self.prepared.metric]))
        if self.keeps_best and self._best_step == self.step and self.runtime.is_main:
            temporary = self.folder / f".{BEST}.tmp"  # a run killed now keeps the best one so far
            write_weights(temporary, dict(self.model.state_dict()))
            temporary.rename(self.folder / BEST)
        return found

    def is_enough(self) -> bool:
        """Whether the metric has not become better for `patience` evaluations."""
        since = sum(step > self._best_step for step, _ in self.history)
        return 0 < self.patience <= since

    def restore_best(self) -> int | None:
        """Load the best model where it is to be chosen; returns the step it is from."""
        if not self.keeps_best or not self.history:
            return None
        self.runtime.barrier()
        if self._best_step != self.step:
            self.model.load_state_dict(load_file(self.folder / BEST, device=str(self.runtime.device)))
        return self._best_step

    @property
    def _best_step(self) -> int:
        """The first of the evaluations with the best metric."""
        return max(self.history, key=lambda found: found[1])[0]


def _train_model(
    plan: Plan, trial: Trial, prepared: Prepared, model: nn.Module, watch: Watch, runtime: Runtime, folder: Path
) -> Outcome:
    """The loop's settings for one trial."""
    config, settings = plan.config, plan.settings
    steps, epoch_steps = plan.steps(prepared), plan.epoch_steps(prepared)
    groups = layer_decay_groups(
        model.get_submodule("encoder"),
        model.get_submodule("head"),
        decay=settings.layer_decay,
        google=settings.layer_decay_google,
        weight_decay=settings.weight_decay,
    )
    optimizer = AdamW(groups, epsilon=settings.epsilon, bias_correction=settings.bias_correction)
    state = TrainState(model, [optimizer])
    checkpoints = Checkpoints(folder / "checkpoints", runtime, keep=1)
    resumed = checkpoints.load_latest(state)
    loop = LoopConfig(
        steps=steps,
        batch_size=settings.batch_size,
        seed=trial.seed,
        log_every=min(50, epoch_steps),
        eval_every=config.eval_every or epoch_steps,
        save_every=config.save_every,
    )
    print(f"\n{trial.name}{f': goes on after step {state.step:,}' if resumed else ''}", flush=True)
    watch.resume(state)
    if watch.is_enough():  # it was interrupted after its last evaluation
        return Outcome(state.step)
    runtime.barrier()  # all have read the metrics that are cut now
    log = RunLog(folder if runtime.is_main else None, start_step=state.step, phases=[(steps, 1.0)])
    scale = settings.batch_size if settings.sum_loss else 1
    try:
        return train(
            state,
            loop=loop,
            clip_norm=CLIP_NORM,
            runtime=runtime,
            learning_rate=functools.partial(
                warmup_decay, peak=settings.learning_rate, steps=steps, warmup_steps=int(settings.warmup * steps)
            ),
            load=Loader(plan, prepared, trial.seed, runtime),
            summarise=lambda sums, steps: {"loss": sums["loss"] / steps / scale},
            log=log,
            checkpoints=checkpoints,
            evaluate=watch.evaluate if config.mode == "train_eval" else None,
            is_enough=watch.is_enough,
            save_last=False,
        )
    finally:
        log.close()


_KEEP_STEPS = 50  # between two returns of freed memory; what is then allocated anew takes well under a step


class Loader:
    """Makes this process's share of a step; which rows it holds follows from (seed, step)."""

    def __init__(self, plan: Plan, prepared: Prepared, seed: int, runtime: Runtime) -> None:
        self.prepared, self.seed, self.settings, self.runtime = prepared, seed, plan.settings, runtime
        self.epoch_steps, self.micro_batch_size = plan.epoch_steps(prepared), plan.config.micro_batch_size
        self._batches = functools.lru_cache(maxsize=1)(
            lambda epoch: epoch_batches(prepared.lengths, plan.settings.batch_size, seed, epoch)
        )

    def __call__(self, step: int) -> Work:
        if self.runtime.device.type == "cpu" and step % _KEEP_STEPS == 0:
            return_freed_memory()
        epoch, number = divmod(step, self.epoch_steps)
        rows = self._batches(epoch)[number]
        copies = max(1.0, self.runtime.world_size / len(rows))
        if copies > 1:  # of a last batch: no process may be without work
            rows = np.resize(rows, self.runtime.world_size)
        rows = rows[self.runtime.rank :: self.runtime.world_size]
        size = self.micro_batch_size or len(rows)
        micro_batches = [
            self.prepared.batch(rows[i : i + size], derive_seed(self.seed, step, i)) for i in range(0, len(rows), size)
        ]
        totals = self.prepared.totals(rows)
        if self.settings.sum_loss:
            totals = dict.fromkeys(totals, copies / self.runtime.world_size)
        tokens = sum(batch.input_ids.numel() for batch in micro_batches)
        return Work(micro_batches, totals, tokens)
