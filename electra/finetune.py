"""Fine-tuning: a model folder and a task's files -> one model a trial, their metrics, and the best as a model folder.

    read and encode the task (once) -> for each trial: fresh head, `train`, dev (and test) metrics -> out/seed-N
                                    -> after each: results.json, .md, .tex, metrics.jsonl, model/ and predictions/

The recipe is the paper's (Clark et al. 2020, appendix B) or another one's (tasks/recipes.py): AdamW with layer-wise
decay of the learning rate, a tenth of the steps warm-up, linear decay, clip at 1. What differs from Google's code on
purpose, unless its recipe is asked for: the loss is a mean over the batch, the decay counts depths correctly, Adam
corrects its bias. The last, smaller batch of an epoch is used. Unless it is asked for (`select`), no checkpoint is
picked by its dev metric: the model of a trial is that of its last step, and only the trial whose model stays is picked.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from electra.config import FinetuneConfig
from electra.files import atomic_file, read_json, refuse_existing, write_json
from electra.interop.hf import load_pretrained, save_model_folder
from electra.machine import record_start
from electra.results import latex_table, model_card, results_table, summarise_trials
from electra.runtime import Runtime, running
from electra.tasks.catalogue import find_task
from electra.tasks.kinds import prepare
from electra.tasks.prepared import Outputs, Prepared, mean_outputs
from electra.tasks.problems import Problems
from electra.tasks.recipes import recipe_length, resolve
from electra.toml import differences, read_toml, write_toml
from electra.trials import Plan, Result, Trial, finish_trial, save_predictions, train_trial


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """`fine_tune` on the device that `config` names, with the other processes if torchrun started several."""
    with running(config.device, config.precision) as runtime, runtime.main_speaks():
        return fine_tune(config, runtime)


def fine_tune(config: FinetuneConfig, runtime: Runtime) -> dict[str, Any]:
    """Fine-tune once for each seed (and fold), print a table and return what results.json holds.

    In the modes "eval" and "predict" nothing is trained: the model, a fine-tuned one, is scored, or only answers.
    A run that was interrupted is continued: finished trials are not trained again, the unfinished one goes on from
    its checkpoint. After SIGTERM or SIGINT `signal` in the result is the signal's number.
    Raises ValueError in a sentence for every mistake in files, labels, options or `--out`.
    """
    plan = make_plan(config)
    if runtime.is_main:
        open_run(config)
    runtime.barrier()
    announce(plan, runtime)
    if config.mode in ("eval", "predict"):
        return answer(plan, runtime)
    results = finished_trials(plan)
    if runtime.is_main and len(results) < len(plan.trials):
        record_start(config.out, 0, runtime)
    for trial in plan.trials:
        if trial.name in results:
            print(f"{trial.name}: finished before, its result is kept", flush=True)
            continue
        done = train_trial(plan, trial, runtime)
        if isinstance(done, int):
            print(f"stopped by signal {done}: run the same command again to go on with {trial.name}", flush=True)
            return collect(plan, results) | {"signal": done, "folder": config.out}
        model, results[trial.name], outputs = done
        runtime.barrier()  # all have read what is removed now
        if not runtime.is_main:
            continue
        # The model first: a run killed in between trains the rest of this trial again and finds the same.
        found = collect(plan, results)
        if found["best_trial"] == trial.name:
            save_model(plan, trial, model, found)
            save_predictions(plan.config.out / "predictions", plan.prepare(trial.fold), outputs)
        finish_trial(plan, trial, results[trial.name], outputs)
        write_results(plan, results)
    found = write_results(plan, results) if runtime.is_main else collect(plan, results, ensemble_outputs(plan))
    print(f"\n{results_table(found)}\n\nThe model of {found['best_trial']} is in {config.out / 'model'}", flush=True)
    return found | {"signal": None, "folder": config.out}


def finished_trials(plan: Plan) -> dict[str, Result]:
    """The results that an earlier call has left in --out, by the trial's name."""
    paths = {trial.name: plan.config.out / trial.name / "result.json" for trial in plan.trials}
    try:
        return {name: read_json(path) for name, path in paths.items() if path.exists()}
    except ValueError as error:
        raise ValueError(f"{error}: remove that file, and the trial is trained again") from None


# ------------------------------------------------------------------------------------------------ preparing


def make_plan(config: FinetuneConfig) -> Plan:
    """Read model and data, encode the texts, and work out every number that the run needs."""
    task = find_task(config.task, config.custom)
    if config.mode == "train":
        of_dev = {"--select best": config.select == "best", "--patience": config.patience, "--folds": config.folds}
        for option in (name for name, given in of_dev.items() if given):
            raise ValueError(f"{option} needs dev metrics, which --mode train does not have: leave out one of them")
    published_dev = getattr(task, "published_dev", "")
    if config.published_protocol and published_dev:
        config = dataclasses.replace(config, select="best")  # the published results are those of the best checkpoint
    pretrained = load_pretrained(config.model)
    limit = pretrained.config.max_positions
    if config.max_length > limit:
        raise ValueError(f"--max-length {config.max_length} is longer than the model can read ({limit})")
    length = config.max_length or min(recipe_length(config.recipe, task.name), limit)
    given = dataclasses.replace(config, max_length=length)

    if config.mode in ("eval", "predict") and not (pretrained.extra or pretrained.head_state):
        raise ValueError(f"{config.model} has no head for a task: fine-tune it first (electra finetune)")
    faults: list[str] = []

    @functools.lru_cache(maxsize=2)  # the fold in training, and the first, which describes the run
    def prepare_fold(fold: int | None) -> Prepared:
        problems = Problems()
        prepared = prepare(task, given, pretrained, fold, problems)
        if config.strict:
            problems.refuse()
        faults[:] = problems.sentences()
        return prepared

    prepared = prepare_fold(0 if config.folds else None)
    if config.mode == "train_eval" and "dev" not in prepared.splits:
        raise ValueError(f"{config.data} has no dev set for the task {task.name}: add one, or use --mode train")
    notes = list(prepared.notes)
    if "ElectraForMaskedLM" in pretrained.hf_config.get("architectures", []):
        notes.append(f"{config.model} is a generator; the discriminator is what fine-tunes well")
    return Plan(
        config=config,
        settings=resolve(config, prepared.task.name, prepared.task.epochs, pretrained.config),
        pretrained=pretrained,
        prepare=prepare_fold,
        notes=notes,
        faults=list(faults),
    )


def open_run(config: FinetuneConfig) -> None:
    """Create --out, or accept an unfinished run of the same configuration there.

    More seeds may be asked for, and where there were several tasks more of these.
    """
    path = config.out / "config.toml"
    if config.overwrite and config.out.exists():
        _remove(config)
    if path.exists():
        old = read_toml(FinetuneConfig, path)
        seeds = config.seeds if set(old.seeds) <= set(config.seeds) else old.seeds
        is_longer = "," in old.task and set(old.task.split(",")) <= set(config.task.split(","))
        task = config.task if is_longer else old.task
        same = dataclasses.replace(old, seeds=seeds, task=task, out=config.out, overwrite=config.overwrite)
        found = differences(same, config)
        if found:
            raise ValueError(
                f"{config.out} holds a run of another configuration ({'; '.join(found)}): "
                "choose another --out, or pass --overwrite to replace it"
            )
    else:
        refuse_existing(config.out, overwrite=False)
    config.out.mkdir(parents=True, exist_ok=True)
    write_toml(dataclasses.replace(config, overwrite=False), path)


def _remove(config: FinetuneConfig) -> None:
    """Remove --out, unless that is a file or holds what the run reads."""
    if not config.out.is_dir():
        raise ValueError(f"--out {config.out} is a file: choose a folder")
    for option, path in ("--data", config.data), ("the model", Path(config.model)):
        if path.exists() and path.resolve().is_relative_to(config.out.resolve()):
            raise ValueError(f"--overwrite would remove {option} {path} with --out {config.out}: choose another --out")
    shutil.rmtree(config.out)


def announce(plan: Plan, runtime: Runtime) -> None:
    """Say what is about to happen, each derived number with its reason."""
    config, settings, prepared = plan.config, plan.settings, plan.prepared
    weights = "random weights (a baseline)" if config.from_scratch else "its weights"
    size = sum(tensor.numel() for tensor in plan.pretrained.encoder_state.values())
    print(f"model     {config.model}: {size:,} parameters, {weights}")
    chosen = f", best trial by {prepared.metric} on dev" if config.mode == "train_eval" else ""
    print(f"task      {prepared.task.name}: {prepared.task.kind}{chosen}")
    for split in prepared.splits:
        print(f"{split:9} {prepared.describe(split)}")
    for note in plan.notes:
        print(f"note      {note}")
    for fault in plan.faults:
        print(f"fault     {fault}")
    if config.mode in ("train_eval", "train"):
        steps, epoch_steps = plan.steps(prepared), plan.epoch_steps(prepared)
        trials = f"seeds {', '.join(map(str, config.seeds))}"
        trials += f", {config.folds} folds each" if config.folds else ""
        print(
            f"training  {steps:,} steps of {settings.batch_size} rows ({steps / epoch_steps:g} epochs), learning rate "
            f"{settings.learning_rate:g} ({settings.why_rate}), layer decay {settings.layer_decay:g} "
            f"({settings.why_decay}), recipe {config.recipe}, {trials}"
        )
    print(f"machine   {runtime.device}, {runtime.precision} ({runtime.why})", flush=True)


# -------------------------------------------------------------------------------------------------- results


def answer(plan: Plan, runtime: Runtime) -> dict[str, Any]:
    """The modes without training: score or answer with the model as it is."""
    prepared, config = plan.prepared, plan.config
    model = prepared.make_model(plan.encoder)
    model.get_submodule("encoder").load_state_dict(plan.pretrained.encoder_state)
    prepared.load_head(model, plan.pretrained)
    model.to(runtime.device)
    splits = [split for split in prepared.splits if split != "train"]
    if config.mode == "eval":
        splits = [split for split in splits if prepared.is_labelled(split)]
    if not splits:
        labelled = "labelled " if config.mode == "eval" else ""
        raise ValueError(
            f"{config.data} has no {labelled}file of the task {prepared.task.name} for --mode {config.mode}"
        )
    outputs = {split: prepared.predict(model, split, runtime) for split in splits}
    result: Result = {"steps": 0}
    if config.mode == "eval":
        result |= {split: prepared.score(found, split) for split, found in outputs.items()}
    found = facts(plan) | summarise_trials([result], prepared.metric)
    if runtime.is_main:
        save_predictions(config.out / "predictions", prepared, outputs)
        write_json(config.out / "results.json", found)
        _write(config.out / "results.md", results_table(found))
    if config.mode == "eval":
        print(f"\n{results_table(found)}")
    print(f"\nThe answers are in {config.out / 'predictions'}", flush=True)
    return found | {"signal": None, "folder": config.out}


def facts(plan: Plan) -> dict[str, Any]:
    """What results.json says of the run beside the results."""
    config, prepared = plan.config, plan.prepared
    return {
        "task": prepared.task.name,
        "kind": prepared.task.kind,
        "metric": prepared.metric,
        "model": config.model,
        "from_scratch": config.from_scratch,
        "mode": config.mode,
        "examples": {split: prepared.size(split) for split in prepared.splits},
        "steps": plan.steps(prepared) if "train" in prepared.splits else 0,
        "select": config.select,
        "recipe": config.recipe,
        **dataclasses.asdict(plan.settings),
        "notes": plan.notes,
        "faults": plan.faults,
        **prepared.facts(),
    }


def collect(plan: Plan, results: dict[str, Result], means: dict[str, Outputs] | None = None) -> dict[str, Any]:
    """What results.json holds: facts, the metrics of each trial, their summary, and those of the ensemble `means`."""
    trials = [results[trial.name] for trial in plan.trials if trial.name in results]
    found = facts(plan) | summarise_trials(trials, plan.prepared.metric)
    scored = {split: mean for split, mean in (means or {}).items() if plan.prepared.is_labelled(split)}
    ensemble = {split: plan.prepared.score(mean, split) for split, mean in scored.items()}
    return found | ({"ensemble": ensemble} if ensemble else {})


def ensemble_outputs(plan: Plan) -> dict[str, Outputs]:
    """The mean of all trials' outputs for each split, where there are several and every trial's are there."""
    means: dict[str, Outputs] = {}
    for split in plan.prepared.splits:
        paths = [plan.config.out / trial.name / f"{split}.npz" for trial in plan.trials]
        if split != "train" and len(paths) > 1 and all(path.exists() for path in paths):
            means[split] = mean_outputs([_load(path) for path in paths])
    return means


def write_results(plan: Plan, results: dict[str, Result]) -> dict[str, Any]:
    """Write results.json, .md and .tex, metrics.jsonl of all trials, the card of `model/` and the ensemble's answers.

    Returns what results.json holds.
    """
    out = plan.config.out
    means = ensemble_outputs(plan) if len(results) == len(plan.trials) else {}
    found = collect(plan, results, means)
    if means:
        save_predictions(out / "ensemble" / "predictions", plan.prepared, means)
    write_json(out / "results.json", found)
    _write(out / "results.md", results_table(found))
    _write(out / "results.tex", latex_table(found))
    with atomic_file(out / "metrics.jsonl", "w") as file:
        for trial in plan.trials:
            if trial.name in results:
                for line in (out / trial.name / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                    file.write(json.dumps(trial.facts() | json.loads(line)) + "\n")
    with atomic_file(out / "model" / "README.md", "w") as file:
        file.write(model_card(plan.config, found))
    return found


def save_model(plan: Plan, trial: Trial, model: nn.Module, found: dict[str, Any]) -> None:
    """Write `model/`, which the class of transformers that fits the task loads."""
    prepared = plan.prepare(trial.fold)
    export = prepared.export(model)
    save_model_folder(
        plan.config.out / "model",
        config=plan.encoder,
        encoder={name: value.cpu() for name, value in model.get_submodule("encoder").state_dict().items()},
        head={name: value.cpu() for name, value in export.head.items()},
        architecture=export.architecture,
        vocabulary=plan.pretrained.vocabulary,
        card=model_card(plan.config, found),
        overwrite=True,
        extra={name: value.cpu() for name, value in export.extra.items()},
        **export.config,
    )


def _load(path: Path) -> Outputs:
    with np.load(path) as arrays:
        return dict(arrays)


def _write(path: Path, text: str) -> None:
    with atomic_file(path, "w") as file:
        file.write(text + "\n")
