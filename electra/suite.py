"""More than one fine-tuning from one command: a group of tasks, a small search over settings; and tables over runs.

    --task glue | a,b,c    out/TASK/ for each, one table of all       (`run_tasks`)
    --grid NAME=V,V ...    out/POINT/ for each combination of values  (`run_grid`)
    electra compare A B    a table with a column for each folder      (`compare`)

Each part is a fine-tuning of its own in a folder of its own, so that a command which was interrupted, or to which a
task was added, does what is missing when it is given again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import typing
from pathlib import Path
from typing import Any

from electra.config import FinetuneConfig
from electra.files import atomic_file, read_json, write_json
from electra.finetune import fine_tune, open_run
from electra.results import latex, markdown
from electra.runtime import Runtime, running
from electra.tasks.catalogue import GROUPS, find_task
from electra.tasks.sentences.glue import SUBMISSION, zip_submission
from electra.toml import coerce

Found = dict[str, Any]
SEARCHABLE = (
    *("learning_rate", "epochs", "batch_size", "layer_decay", "warmup", "weight_decay", "dropout", "max_length"),
    *("bias_correction", "layer_decay_google", "recipe", "max_train"),
)


def run(config: FinetuneConfig) -> Found:
    """Fine-tune as `config` says: one task or several, at one setting or several."""
    with running(config.device, config.precision) as runtime, runtime.main_speaks():
        return _run(config, runtime)


def _run(config: FinetuneConfig, runtime: Runtime) -> Found:
    names = task_names(config.task)
    if len(names) > 1:
        return run_tasks(config, names, runtime)
    return run_grid(config, runtime) if config.grid else fine_tune(config, runtime)


def task_names(task: str) -> dict[str, str]:
    """The tasks behind --task and the folder of each below --data; of a single task the folder is --data itself."""
    if task in GROUPS:
        return GROUPS[task]
    names = [name.strip() for name in task.split(",")]
    if len(names) == 1:
        return {task: "."}
    if len(set(names)) < len(names):
        raise ValueError(f"--task {task} names a task twice")
    folders = {name: folder for group in GROUPS.values() for name, folder in group.items()}
    return {name: folders.get(name, _label(name)) for name in names}


def _label(name: str) -> str:
    """What the folders of a task are called: of FILE.toml without its path and suffix."""
    return Path(name).stem if name.endswith(".toml") else name


# ---------------------------------------------------------------------------------------------------- tasks


def run_tasks(config: FinetuneConfig, names: dict[str, str], runtime: Runtime) -> Found:
    """Fine-tune on each task whose folder is there, then write one table of all.

    A task that ends in an error is reported when the others are done, as one ValueError.
    """
    for name in names:
        find_task(name, config.custom)
    there = {name: config.data / folder for name, folder in names.items() if (config.data / folder).is_dir()}
    if not there:
        raise ValueError(
            f"--data {config.data} has no folder of these tasks: {', '.join(names.values())} are what they are called"
        )
    if runtime.is_main:
        open_run(config)
    runtime.barrier()
    absent = [f"{name} ({names[name]}/)" for name in names if name not in there]
    if absent:
        print(f"absent    {', '.join(absent)}: not in {config.data}, left out")
    results: dict[str, Found] = {}
    failures: list[str] = []
    for number, (name, data) in enumerate(there.items(), start=1):
        print(f"\n== {name}, task {number} of {len(there)}", flush=True)
        part = dataclasses.replace(config, task=name, data=data, out=config.out / _label(name), overwrite=False)
        try:
            results[name] = _run(part, runtime)
        except ValueError as error:
            failures.append(f"{name}: {error}")
            print(f"failed    {failures[-1]}", flush=True)
            continue
        if runtime.is_main:
            _write_tables(config.out, {config.model: results})
        if results[name]["signal"] is not None:
            return {"signal": results[name]["signal"]}
    if results:
        print(f"\n{markdown(task_rows({config.model: results}))}\n\nTables are in {config.out}", flush=True)
    answered = {path.name for path in config.out.glob("*/predictions/*")}
    if config.task == "glue" and runtime.is_main and answered & set(SUBMISSION):
        missing = zip_submission(config.out, config.out / "submission.zip")
        lacks = f"; it lacks {', '.join(missing)}" if missing else ""
        print(f"For the leaderboard: {config.out / 'submission.zip'}{lacks}", flush=True)
    if failures:
        raise ValueError("; ".join(failures))
    return {"tasks": results, "signal": None}


def task_rows(columns: dict[str, dict[str, Found]]) -> list[list[str]]:
    """A table over tasks (rows) and models (columns, the results of each by task): medians, deviation, trials.

    A row for each task's main metric on dev, and the mean of the rows for models that have them all.
    """
    # By metric too: tasks of one's own may have one name and different metrics.
    tasks = list(
        dict.fromkeys((name, each["metric"]) for results in columns.values() for name, each in results.items())
    )
    rows = [["task", "metric", *columns]]
    medians: list[list[Any]] = [[] for _ in columns]
    for task, metric in tasks:
        found = [results.get(task) for results in columns.values()]
        same = [each if each and each["metric"] == metric else None for each in found]
        rows.append([task, metric, *(_cell(each, metric) for each in same)])
        for column, each in zip(medians, same, strict=True):
            column.append(_median(each) if each else None)
    means = ["" if None in column else f"{sum(column) / len(column):.4f}" for column in medians]
    if len(tasks) > 1 and any(means):
        rows.append(["mean", "", *means])
    return rows


def _median(found: Found) -> Any:
    return found["summary"].get("dev", {}).get(found["metric"], {}).get("median")


def _cell(found: Found | None, metric: str) -> str:
    value = found["summary"].get("dev", {}).get(metric) if found else None
    if found is None or value is None:
        return ""
    trials = len(found["trials"])
    return f"{value['median']:.4f} (sd {value['std']:.4f}, n {trials})" if trials > 1 else f"{value['median']:.4f}"


def _write_tables(out: Path, columns: dict[str, dict[str, Found]]) -> None:
    rows = task_rows(columns)
    plain = {name: json.loads(json.dumps(results, default=str)) for name, results in columns.items()}
    write_json(out / "results.json", plain)
    for name, text in ("results.md", markdown(rows)), ("results.tex", latex(rows, "Median on dev by the main metric.")):
        with atomic_file(out / name, "w") as file:
            file.write(text + "\n")


# --------------------------------------------------------------------------------------------------- search


def run_grid(config: FinetuneConfig, runtime: Runtime) -> Found:
    """Fine-tune at each combination of the values of --grid, and tell which has the best median on dev.

    Returns the results of that point. The test metrics are shown for it alone.
    """
    points = list(grid_points(config))
    if config.mode != "train_eval":
        raise ValueError("--grid chooses by dev metrics: use it with --mode train_eval")
    if runtime.is_main:
        open_run(config)
    runtime.barrier()
    found: dict[str, Found] = {}
    for number, point in enumerate(points, start=1):
        name = ",".join(f"{key}={value}" for key, value in point.items())
        print(f"\n== {name}, point {number} of {len(points)}", flush=True)
        part = dataclasses.replace(config, **point, grid=(), out=config.out / name, overwrite=False)
        found[name] = fine_tune(part, runtime)
        if found[name]["signal"] is not None:
            return found[name]
    best = max(found, key=lambda name: _median(found[name]))
    metric = found[best]["metric"]
    rows = [["point", f"dev {metric}, median", "mean", "sd"]]
    for name, each in found.items():
        value = each["summary"]["dev"][metric]
        rows.append([name, *(f"{value[kind]:.4f}" for kind in ("median", "mean", "std"))])
    table = f"{markdown(rows)}\n\nBest: {best}, chosen by dev among {len(points)} points, whose metric that flatters."
    if runtime.is_main:
        chosen = found[best] | {"best_point": best, "folder": str(found[best]["folder"])}
        write_json(config.out / "results.json", chosen)
        with atomic_file(config.out / "results.md", "w") as file:
            file.write(table + "\n")
    print(f"\n{table}\nIts model is in {config.out / best / 'model'}", flush=True)
    return found[best]


def grid_points(config: FinetuneConfig) -> typing.Iterator[dict[str, Any]]:
    """The combinations of values, by field; ValueError for a field that cannot be searched or a value of no use."""
    hints = typing.get_type_hints(FinetuneConfig)
    axes: list[list[tuple[str, Any]]] = []
    for axis in config.grid:
        name, sign, values = axis.partition("=")
        key = name.strip().removeprefix("--").replace("-", "_")
        if not sign or not values or key not in SEARCHABLE:
            raise ValueError(f"--grid {axis!r} is not NAME=VALUE,VALUE with a NAME of {', '.join(SEARCHABLE)}")
        if len(set(values.split(","))) < len(values.split(",")) or any(axis[0][0] == key for axis in axes):
            raise ValueError(f"--grid names {name.strip()} or one of its values twice")
        axes.append([(key, coerce(_plain(value), hints[key], f"--grid {key}")) for value in values.split(",")])
    for combination in itertools.product(*axes):
        dataclasses.replace(config, **dict(combination), grid=())  # says what is wrong with a value
        yield dict(combination)


def _plain(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value.strip()


# ----------------------------------------------------------------------------------------------- comparison


def compare(folders: list[Path], out: Path | None = None) -> str:
    """A table over tasks with a column for each folder of `electra finetune`; also as files in `out`."""
    columns = {str(folder): dict(_results(folder)) for folder in folders}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _write_tables(out, columns)
    return markdown(task_rows(columns))


def _results(folder: Path) -> typing.Iterator[tuple[str, Found]]:
    """The results below a folder of one task or of several."""
    single = folder / "results.json"
    if single.is_file() and "task" in (found := read_json(single)):
        yield found["task"], found
        return
    paths = sorted(folder.glob("*/results.json"))
    if not paths:
        raise ValueError(f"{folder} holds no results.json of electra finetune")
    for path in paths:
        found = read_json(path)
        if "task" in found:
            yield found["task"], found
