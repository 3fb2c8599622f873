"""Fine-tuning: a model folder and a task's files -> one model a seed, their metrics, and the best as a model folder.

    load task, encode texts (once) -> for each seed: fresh head, `train`, dev (and test) metrics -> out/seed-N
                                   -> after each seed: results.json, results.md, metrics.jsonl, model/ (best so far)

The recipe is the paper's (Clark et al. 2020, appendix B; google-research/electra configure_finetuning.py): AdamW with
layer-wise decay of the learning rate, a tenth of the steps warm-up, linear decay, clip at 1. What differs from Google's
code on purpose: the loss is a mean over the batch, not a sum (which makes the clip bind at nearly every step); the
decay counts depths correctly and Adam corrects its bias (`layer_decay_google`, `bias_correction` give theirs back); the
last, smaller batch of an epoch is used. The model that counts is that of the last step: no checkpoint is picked by
its dev metric, only the seed that becomes `model/` is.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from electra.checkpoint import TrainState
from electra.config import FinetuneConfig, LoopConfig
from electra.encoder import EncoderConfig
from electra.files import atomic_file, read_json, refuse_existing, write_json
from electra.interop.hf import Pretrained, load_pretrained, save_model_folder
from electra.log import RunLog
from electra.metrics import classification_metrics, regression_metrics
from electra.optim import AdamW, layer_decay_groups
from electra.results import model_card, results_table, summarise_seeds
from electra.runtime import Runtime, derive_seed, start
from electra.schedules import warmup_decay
from electra.tasks.catalogue import Task, find_task
from electra.tasks.classifier import Scale, SequenceClassifier, predict_logits
from electra.tasks.examples import Split, load_task_data
from electra.tasks.features import Features, collate, encode_texts, epoch_batches
from electra.toml import differences, read_toml, write_toml
from electra.train import Outcome, Work, train

CLIP_NORM = 1.0


@dataclass(frozen=True)
class EncodedSplit:
    """A split as token ids, with its labels as the files have them (a regression's on their own scale)."""

    features: Features
    labels: np.ndarray


@dataclass(frozen=True)
class Plan:
    """Everything about a run that does not depend on the seed."""

    config: FinetuneConfig
    task: Task
    pretrained: Pretrained
    train: EncodedSplit
    dev: EncodedSplit
    test: EncodedSplit | None
    scale: Scale | None
    """Of a regression."""
    epoch_steps: int
    steps: int
    learning_rate: float
    layer_decay: float
    notes: list[str]

    @property
    def outputs(self) -> int:
        return len(self.task.labels) or 1


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Fine-tune once for each seed, print a table and return what results.json holds.

    A run that was interrupted is continued: seeds whose result is there are not trained again. After SIGTERM or
    SIGINT the seed in training is given up and `signal` in the result is the signal's number.
    Raises ValueError in a sentence for every mistake in files, labels, options or `--out`.
    """
    runtime = start(config.device, config.precision)
    if runtime.world_size > 1:
        raise ValueError("fine-tuning runs in one process: start `electra finetune` without torchrun")
    plan = make_plan(config)
    open_run(config)
    announce(plan, runtime)
    results = finished_seeds(config)
    for seed in config.seeds:
        if seed in results:
            print(f"seed {seed}: finished before, its result is kept", flush=True)
            continue
        signal = train_seed(plan, seed, runtime, results)
        if signal is not None:
            print(f"stopped by signal {signal}: run the same command again to continue with seed {seed}", flush=True)
            return collect(plan, results) | {"signal": signal}
    found = write_results(plan, results)
    print(
        f"\n{results_table(found)}\n\nThe model of seed {found['best_seed']} is in {config.out / 'model'}", flush=True
    )
    return found | {"signal": None}


def finished_seeds(config: FinetuneConfig) -> dict[int, dict[str, Any]]:
    """The results that an earlier call has left in --out, by seed."""
    paths = {seed: config.out / f"seed-{seed}" / "result.json" for seed in config.seeds}
    return {seed: read_json(path) for seed, path in paths.items() if path.exists()}


# ------------------------------------------------------------------------------------------------ preparing


def make_plan(config: FinetuneConfig) -> Plan:
    """Read model and data, encode the texts, and work out every number that the run needs."""
    task = find_task(config.task, config.custom)
    pretrained = load_pretrained(config.model)
    encoder = pretrained.config
    if config.max_length > encoder.max_positions:
        raise ValueError(
            f"--max-length {config.max_length} is longer than the model can read ({encoder.max_positions})"
        )
    data = load_task_data(task, config.data, config.max_train)
    task = data.task
    if task.metric == "f1" and len(task.labels) != 2:
        raise ValueError(f"custom.metric f1 is for two labels, {data.train.path} has {len(task.labels)}: use macro_f1")

    def encode(split: Split) -> EncodedSplit:
        texts, pairs = [row.text for row in split.examples], [row.pair for row in split.examples]
        return EncodedSplit(encode_texts(pretrained.vocabulary, texts, pairs, config.max_length), split.labels)

    notes = list(data.notes)
    if "ElectraForMaskedLM" in pretrained.hf_config.get("architectures", []):
        notes.append(f"{config.model} is a generator; the discriminator is what fine-tunes well")
    train_split = encode(data.train)
    epoch_steps = -(-len(train_split.labels) // config.batch_size)
    epochs = config.epochs or task.epochs
    return Plan(
        config=config,
        task=task,
        pretrained=pretrained,
        train=train_split,
        dev=encode(data.dev),
        test=encode(data.test) if data.test is not None else None,
        scale=Scale(*task.value_range) if task.value_range is not None else None,
        epoch_steps=epoch_steps,
        steps=max(1, round(epochs * epoch_steps)),
        learning_rate=config.learning_rate or default_learning_rate(encoder),
        layer_decay=config.layer_decay or default_layer_decay(encoder),
        notes=notes,
    )


def default_learning_rate(encoder: EncoderConfig) -> float:
    """The paper's by width: 3e-4 small (256), 1e-4 base (768), 5e-5 large (1024)."""
    if encoder.hidden_size < 512:
        return 3e-4
    return 1e-4 if encoder.hidden_size < 1024 else 5e-5


def default_layer_decay(encoder: EncoderConfig) -> float:
    """The paper's: 0.8, and 0.9 for the 24 layers of large."""
    return 0.9 if encoder.num_layers >= 24 else 0.8


def open_run(config: FinetuneConfig) -> None:
    """Create --out, or accept an unfinished run of the same configuration there; more seeds may be asked for."""
    path = config.out / "config.toml"
    if config.overwrite and config.out.exists():
        shutil.rmtree(config.out)
    if path.exists():
        old = read_toml(FinetuneConfig, path)
        seeds = config.seeds if set(old.seeds) <= set(config.seeds) else old.seeds
        found = differences(dataclasses.replace(old, seeds=seeds, out=config.out, overwrite=config.overwrite), config)
        if found:
            raise ValueError(
                f"{config.out} holds a run of another configuration ({'; '.join(found)}): "
                "choose another --out, or pass --overwrite to replace it"
            )
    else:
        refuse_existing(config.out, overwrite=False)
    config.out.mkdir(parents=True, exist_ok=True)
    write_toml(dataclasses.replace(config, overwrite=False), path)


def announce(plan: Plan, runtime: Runtime) -> None:
    """Say what is about to happen, each derived number with its reason."""
    config, encoder = plan.config, plan.pretrained.config
    weights = "random weights (a baseline)" if config.from_scratch else "its weights"
    size = sum(tensor.numel() for tensor in plan.pretrained.encoder_state.values())
    print(f"model     {config.model}: {size:,} parameters, {weights}")
    print(f"task      {plan.task.name}: {plan.task.kind}, best seed by {plan.task.metric} on dev")
    unknown = plan.pretrained.vocabulary.special.unk
    splits = {"train": plan.train, "dev": plan.dev} | ({"test": plan.test} if plan.test is not None else {})
    for name, split in splits.items():
        features = split.features
        print(
            f"{name:9} {len(split.labels):,} examples ({describe_labels(plan.task, split.labels)}), "
            f"{features.lengths.mean():.1f} tokens on average, {np.mean(features.ids == unknown):.2%} unknown, "
            f"{features.truncated:,} cut at {config.max_length} tokens"
        )
    for note in plan.notes:
        print(f"note      {note}")
    rate = "asked for" if config.learning_rate else f"for width {encoder.hidden_size}"
    decay = "asked for" if config.layer_decay else f"for {encoder.num_layers} layers"
    print(
        f"training  {plan.steps:,} steps of {config.batch_size} examples ({plan.steps / plan.epoch_steps:g} epochs), "
        f"learning rate {plan.learning_rate:g} ({rate}), layer decay {plan.layer_decay:g} ({decay}), "
        f"seeds {', '.join(map(str, config.seeds))}"
    )
    print(f"machine   {runtime.device}, {runtime.precision} ({runtime.why})", flush=True)


def describe_labels(task: Task, labels: np.ndarray) -> str:
    """How often each label occurs, or the span and mean of the values."""
    if task.kind == "regression":
        return f"values {labels.min():g} to {labels.max():g}, mean {labels.mean():.3g}"
    counts = Counter(labels.tolist())
    return ", ".join(f"{name} {counts[number]:,}" for number, name in enumerate(task.output_names))


# ------------------------------------------------------------------------------------------------- training


def train_seed(plan: Plan, seed: int, runtime: Runtime, results: dict[int, dict[str, Any]]) -> int | None:
    """Train and score one seed, add it to `results` and write them; returns the signal if one stopped it."""
    folder = plan.config.out / f"seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted attempt left
    folder.mkdir()
    begin = time.monotonic()
    model = make_model(plan, seed).to(runtime.device)
    dev: dict[str, float] = {}
    outcome = _train_model(plan, seed, model, runtime, folder, dev)
    if outcome.signal is not None:
        return outcome.signal
    result: dict[str, Any] = {"seed": seed, "steps": outcome.step, "dev": dev}
    if plan.test is not None:
        result["test"] = score(model, plan, plan.test, runtime)
    result["seconds"] = round(time.monotonic() - begin, 1)
    results[seed] = result
    # The model first: a run killed in between trains this seed again and finds the same.
    found = collect(plan, results)
    if found["best_seed"] == seed:
        save_model(plan, model, found)
    write_json(folder / "result.json", result)
    write_results(plan, results)
    return None


def make_model(plan: Plan, seed: int) -> SequenceClassifier:
    """The classifier of a seed: a fresh head on the given encoder, or on a fresh one of the same shape."""
    torch.manual_seed(derive_seed(seed, "initialize"))
    model = SequenceClassifier(plan.pretrained.config, plan.outputs)
    if not plan.config.from_scratch:
        model.encoder.load_state_dict(plan.pretrained.encoder_state)
    return model


def _train_model(
    plan: Plan, seed: int, model: SequenceClassifier, runtime: Runtime, folder: Path, dev: dict[str, float]
) -> Outcome:
    """The loop's settings for one seed; `dev` is left with the metrics of the last evaluation."""
    config = plan.config
    groups = layer_decay_groups(
        model.encoder,
        model.head,
        decay=plan.layer_decay,
        google=config.layer_decay_google,
        weight_decay=config.weight_decay,
    )
    state = TrainState(model, [AdamW(groups, bias_correction=config.bias_correction)])
    loop = LoopConfig(
        steps=plan.steps,
        batch_size=config.batch_size,
        seed=seed,
        log_every=min(50, plan.epoch_steps),
        eval_every=plan.epoch_steps,
    )

    def evaluate() -> dict[str, float]:
        dev.update(score(model, plan, plan.dev, runtime))
        return dev

    print(f"\nseed {seed}", flush=True)
    log = RunLog(folder, phases=[(plan.steps, 1.0)])
    try:
        return train(
            state,
            loop=loop,
            clip_norm=CLIP_NORM,
            runtime=runtime,
            learning_rate=functools.partial(
                warmup_decay,
                peak=plan.learning_rate,
                steps=plan.steps,
                warmup_steps=int(config.warmup * plan.steps),
            ),
            load=Loader(plan, seed),
            summarise=lambda sums, steps: {"loss": sums["loss"] / steps},
            log=log,
            evaluate=evaluate,
        )
    finally:
        log.close()


class Loader:
    """Makes the work of a step; which examples it holds follows from (seed, step)."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.seed = plan, seed
        self.labels = plan.train.labels if plan.scale is None else plan.scale.to_unit(plan.train.labels)
        self._batches = functools.lru_cache(maxsize=1)(
            lambda epoch: epoch_batches(plan.train.features.lengths, plan.config.batch_size, seed, epoch)
        )

    def __call__(self, step: int) -> Work:
        epoch, number = divmod(step, self.plan.epoch_steps)
        rows = self._batches(epoch)[number]
        size = self.plan.config.micro_batch_size or len(rows)
        micro_batches = [
            collate(self.plan.train.features, rows[i : i + size], self.labels, derive_seed(self.seed, step, i))
            for i in range(0, len(rows), size)
        ]
        tokens = sum(batch.input_ids.numel() for batch in micro_batches)
        return Work(micro_batches, {"examples": float(len(rows))}, tokens)


def score(model: SequenceClassifier, plan: Plan, split: EncodedSplit, runtime: Runtime) -> dict[str, float]:
    """The task's metrics on a split, a regression's on the scale of its labels."""
    with runtime.autocast():
        logits = predict_logits(model, split.features)
    if plan.scale is not None:
        return regression_metrics(plan.scale.to_labels(logits[:, 0]), split.labels)
    return classification_metrics(logits.argmax(-1), split.labels, plan.outputs)


# -------------------------------------------------------------------------------------------------- results


def collect(plan: Plan, results: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """What results.json holds: facts of the run, each seed's metrics in the order of the seeds, and their summary."""
    config = plan.config
    seeds = [results[seed] for seed in config.seeds if seed in results]
    facts: dict[str, Any] = {
        "task": plan.task.name,
        "kind": plan.task.kind,
        "labels": list(plan.task.output_names),
        "metric": plan.task.metric,
        "model": config.model,
        "from_scratch": config.from_scratch,
        "train_examples": len(plan.train.labels),
        "dev_examples": len(plan.dev.labels),
        "test_examples": len(plan.test.labels) if plan.test is not None else 0,
        "steps": plan.steps,
        "learning_rate": plan.learning_rate,
        "layer_decay": plan.layer_decay,
        "notes": plan.notes,
    }
    return facts | summarise_seeds(seeds, plan.task.metric)


def write_results(plan: Plan, results: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Write results.json, results.md, metrics.jsonl of all seeds and the card of `model/`; returns the first."""
    out, found = plan.config.out, collect(plan, results)
    write_json(out / "results.json", found)
    with atomic_file(out / "results.md", "w") as file:
        file.write(results_table(found) + "\n")
    with atomic_file(out / "metrics.jsonl", "w") as file:
        for result in found["seeds"]:
            for line in (out / f"seed-{result['seed']}" / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                file.write(json.dumps({"seed": result["seed"]} | json.loads(line)) + "\n")
    with atomic_file(out / "model" / "README.md", "w") as file:
        file.write(model_card(plan.config, found))
    return found


def save_model(plan: Plan, model: SequenceClassifier, found: dict[str, Any]) -> None:
    """Write `model/`, which ElectraForSequenceClassification and pipeline("text-classification") load."""
    names = plan.task.output_names
    save_model_folder(
        plan.config.out / "model",
        config=plan.pretrained.config,
        encoder=model.encoder.state_dict(),
        head=model.head_tensors(plan.scale),
        architecture="ElectraForSequenceClassification",
        vocabulary=plan.pretrained.vocabulary,
        card=model_card(plan.config, found),
        overwrite=True,
        id2label={str(number): name for number, name in enumerate(names)},
        label2id={name: number for number, name in enumerate(names)},
        problem_type="regression" if plan.task.kind == "regression" else "single_label_classification",
    )
