"""`electra finetune` against Hugging Face's Trainer on SST-2 and SQuAD 1.1, at the same settings.

    pip install accelerate                                       # which Trainer needs and the package does not
    python benchmarks/finetune.py --quick
    python benchmarks/finetune.py --model MODEL --sst2 glue/SST-2 --squad-train train-v1.1.json \
        --squad-dev dev-v1.1.json --max-train 3200 --seeds 0 1 2 --out benchmarks/results/finetune.json

A cell is a task, a precision, a seed and a side: ours, Trainer as it comes, and Trainer with rows grouped by length;
each trains in a fresh process, the sides of a seed one after the other, in an order that turns with the seed. Its time
goes from the raw files to the trained model in a folder: reading, tokenising, training, writing; imports are not
counted, and --seconds-only leaves scores out. All sides start from the same weights (--model, a folder with them in
Hugging Face's layout; without it random ones of ELECTRA-Small's shape) and have the same batch size, length, epochs,
peak rate, linear schedule with a tenth of warm-up, AdamW without weight decay and layer-wise decay, clip at 1, dropout
0.1. Trainer is faster here than its examples, which pad every row to the longest allowed: texts are tokenised in whole
batches, rows padded to the longest of their batch, logging and checkpoints off. Long passages are cut in windows as
run_qa.py does (an overlap of 128 tokens), ours in steps that give about as many. Dev scores of all come from `electra
finetune --mode eval`, which loads either folder.

--out is written after each cell; the same command goes on with the cells that are missing. --max-train bounds the time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TASKS = ("sst2", "squadv1")
SIDES = {"ours": "", "trainer": "random", "trainer-grouped": "group_by_length"}
"""And how Trainer draws its batches: `random` is its default."""
OVERLAP, STEP = 128, 240
"""Tokens that two windows of a passage share with run_qa.py; and about the same, told as what lies between their begins
when a row has 384 and a question 12."""

Report = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training."""

    task: str
    precision: str
    seed: int
    side: str

    @property
    def name(self) -> str:
        return f"{self.task} {self.precision} seed {self.seed} {self.side}"


# -------------------------------------------------------------------------------------- one cell, in its own process


def work(job: Report) -> Report:
    """Train one cell and score it; {"seconds", "rows", "dev", "threads"}."""
    import torch

    out = Path(job["folder"])
    seconds, model = (ours if job["side"] == "ours" else trainer)(job, out)
    found: Report = {"seconds": seconds, "threads": torch.get_num_threads()}
    if not job["seconds_only"]:
        from electra.finetune import finetune

        config = our_config(job, str(model), out / "eval", mode="eval", precision="fp32")
        found["dev"] = finetune(config)["summary"]["dev"]
    return found


def our_config(job: Report, model: str, out: Path, **changes: Any) -> Any:
    from electra.config import FinetuneConfig, QuestionConfig

    config = FinetuneConfig(
        model=model,
        data=Path(job["data"]),
        out=out,
        task=job["task"],
        mode="train",
        questions=QuestionConfig(doc_stride=STEP),
        epochs=job["epochs"],
        batch_size=job["batch_size"],
        learning_rate=job["learning_rate"],
        layer_decay=1.0,
        weight_decay=0.0,
        warmup=0.1,
        max_length=job["max_length"],
        max_train=job["max_train"],
        seeds=(job["seed"],),
        save_every=1_000_000,
        cache=Path(job["folder"]) / "cache",  # an empty one: making the features counts
        precision=job["precision"],
        device=job["device"],
    )
    return dataclasses.replace(config, **changes)


def ours(job: Report, out: Path) -> tuple[float, Path]:
    import torch.utils.tensorboard  # noqa: F401  # the run imports it, and imports are not counted

    from electra.finetune import finetune

    begin = time.perf_counter()
    finetune(our_config(job, job["model"], out / "run"))
    return time.perf_counter() - begin, out / "run" / "model"


def trainer(job: Report, out: Path) -> tuple[float, Path]:
    """What transformers' own examples do (run_glue.py, run_qa.py), without the library `datasets`."""
    import torch
    from transformers import (
        AutoTokenizer,
        DataCollatorWithPadding,
        ElectraForQuestionAnswering,
        ElectraForSequenceClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    begin = time.perf_counter()
    set_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    is_sst2 = job["task"] == "sst2"
    rows = sst2_rows(job, tokenizer) if is_sst2 else squad_rows(job, tokenizer)
    kind = ElectraForSequenceClassification if is_sst2 else ElectraForQuestionAnswering
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}} if is_sst2 else {}
    model = kind.from_pretrained(job["model"], hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, **names)
    # Google's Adam has an epsilon of 1e-6, and so has ours.
    arguments = TrainingArguments(
        output_dir=str(out / "trainer"),
        per_device_train_batch_size=job["batch_size"],
        num_train_epochs=job["epochs"],
        learning_rate=job["learning_rate"],
        warmup_steps=0.1,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        adam_epsilon=1e-6,
        max_grad_norm=1.0,
        train_sampling_strategy=SIDES[job["side"]],
        bf16=job["precision"] == "bf16",
        use_cpu=job["device"] == "cpu",
        dataloader_pin_memory=job["device"] != "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        seed=job["seed"],
    )
    collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=None if job["device"] == "cpu" else 8)
    assert isinstance(model, torch.nn.Module)
    Trainer(model, arguments, train_dataset=rows, data_collator=collator, processing_class=tokenizer).train()
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    return time.perf_counter() - begin, out / "model"


def sst2_rows(job: Report, tokenizer: Any) -> list[Report]:
    lines = (Path(job["data"]) / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]
    pairs = sample([line.split("\t") for line in lines], job["max_train"])
    encoded = tokenizer([text for text, _ in pairs], truncation=True, max_length=job["max_length"])
    return [
        {name: values[i] for name, values in encoded.items()} | {"labels": int(pairs[i][1])} for i in range(len(pairs))
    ]


def squad_rows(job: Report, tokenizer: Any) -> list[Report]:
    """The windows of run_qa.py's `prepare_train_features`."""
    data = json.loads((Path(job["data"]) / "train.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in data for paragraph in article["paragraphs"]]
    asked = sample(
        [(entry, paragraph["context"]) for paragraph in paragraphs for entry in paragraph["qas"]], job["max_train"]
    )
    encoded = tokenizer(
        [entry["question"].lstrip() for entry, _ in asked],
        [context for _, context in asked],
        truncation="only_second",
        max_length=job["max_length"],
        stride=OVERLAP,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    samples, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
    rows = []
    for number, sample_number in enumerate(samples):
        answer = asked[sample_number][0]["answers"][0]
        begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
        segments = encoded.sequence_ids(number)
        first, last = segments.index(1), len(segments) - 1 - segments[::-1].index(1)
        start = stop = 0
        if offsets[number][first][0] <= begin and offsets[number][last][1] >= end:
            start = max(i for i in range(first, last + 1) if offsets[number][i][0] <= begin)
            stop = min(i for i in range(first, last + 1) if offsets[number][i][1] >= end)
        row = {name: values[number] for name, values in encoded.items()}
        rows.append(row | {"start_positions": start, "end_positions": stop})
    return rows


def sample(rows: list[Any], count: int) -> list[Any]:
    import random

    return random.Random(0).sample(rows, count) if 0 < count < len(rows) else rows


# ---------------------------------------------------------------------------------------------------- all the cells


def run_cell(cell: Cell, job: Report) -> Report:
    """`work` in a fresh process; {"error": ...} if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        whole = job | dataclasses.asdict(cell) | {"folder": folder}
        command = [sys.executable, __file__, "--worker", json.dumps(whole)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
        return json.loads((Path(folder) / "cell.json").read_text(encoding="utf-8"))


def summary(cells: dict[str, Report], task: str, precision: str, options: Report) -> Report | None:
    """Medians and ranges of each side, and ratios seed by seed; None until a seed has them all."""
    names = [{side: Cell(task, precision, seed, side).name for side in SIDES} for seed in options["seeds"]]
    seeds = [
        {side: cells[name] for side, name in of_seed.items()}
        for of_seed in names
        if all("seconds" in cells.get(name, {}) for name in of_seed.values())
    ]
    if not seeds:
        return None
    examples = options["examples"][task] * options["epochs"]
    found: Report = {}
    for side in SIDES:
        speeds = [examples / seed[side]["seconds"] for seed in seeds]
        ratios = [seed[side]["seconds"] / seed["ours"]["seconds"] for seed in seeds]
        found[side] = {
            "examples_per_second": round(statistics.median(speeds), 2),
            "range": [round(min(speeds), 2), round(max(speeds), 2)],
            "ours_is_faster": [round(f(ratios), 2) for f in (statistics.median, min, max)],
        }
        if "dev" in seeds[0][side]:
            found[side]["dev"] = {
                name: [round(seed[side]["dev"][name]["median"], 4) for seed in seeds] for name in seeds[0][side]["dev"]
            }
    return found


def markdown(report: Report) -> str:
    machine, asked = report["machine"], report["asked"]
    lines = [
        "# Fine-tuning",
        "",
        f"`electra finetune` and Hugging Face's Trainer from raw files to the model, {machine['cpu']}, "
        f"{report.get('threads', '?')} threads of {machine['cores']} cores, device {asked['device']}, "
        f"{machine['date']}; model {report['model']}, batches of {asked['batch_size']}, {asked['epochs']:g} epochs, "
        f"{len(asked['seeds'])} seeds.",
        "",
        "| task | precision | side | examples a second | range | ours is faster by | range | dev, each seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in report["results"].items():
        task, precision = name.split()
        for side, row in found.items():
            ratio, low, high = row["ours_is_faster"]
            dev = "; ".join(f"{metric} {', '.join(map(str, values))}" for metric, values in row.get("dev", {}).items())
            lines.append(
                f"| {task} ({asked['examples'][task]:,}) | {precision} | {side} | {row['examples_per_second']} | "
                f"{row['range'][0]} to {row['range'][1]} | "
                + (f" | | {dev} |" if side == "ours" else f"{ratio} | {low} to {high} | {dev} |")
            )
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------- data and model


def make_data(folder: Path, options: argparse.Namespace) -> dict[str, tuple[Path, int]]:
    """A folder for each task with train and dev as both sides read them, and its number of examples."""
    from invented import squad_files, sst2_files

    found = {}
    for task in options.tasks:
        data = folder / task
        data.mkdir()
        if task == "sst2":
            invented = None if options.sst2 else sst2_files()
            for name in ("train.tsv", "dev.tsv"):
                text = invented[name] if invented else (options.sst2 / name).read_text(encoding="utf-8")
                (data / name).write_text(text, encoding="utf-8")
            count = len((data / "train.tsv").read_text(encoding="utf-8").splitlines()) - 1
        else:
            given = {"train.json": options.squad_train, "dev.json": options.squad_dev}
            invented = None if options.squad_train else squad_files()
            for name, path in given.items():
                text = invented[name] if invented else path.read_text(encoding="utf-8")
                (data / name).write_text(text, encoding="utf-8")
            articles = json.loads((data / "train.json").read_text(encoding="utf-8"))["data"]
            count = sum(len(paragraph["qas"]) for article in articles for paragraph in article["paragraphs"])
        found[task] = data, min(count, options.max_train or count)
    return found


def make_model(folder: Path, texts: list[Path], tiny: bool) -> Path:
    """Random weights, and a vocabulary trained on the text."""
    from invented import random_model, train_on
    from transformers import ElectraModel

    vocabulary = train_on(folder, [path.read_text(encoding="utf-8") for path in texts])
    random_model(ElectraModel, vocabulary, tiny).save_pretrained(folder / "model")
    vocabulary.save(folder / "model")
    return folder / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder in Hugging Face's layout; else random weights")
    parser.add_argument("--sst2", type=Path, help="folder with GLUE's train.tsv and dev.tsv; else invented")
    parser.add_argument("--squad-train", type=Path, help="train-v1.1.json; else invented")
    parser.add_argument("--squad-dev", type=Path, help="dev-v1.1.json")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-train", type=int, default=0, help="examples to train on; 0: all")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds-only", action="store_true", help="no dev scores")
    parser.add_argument("--quick", action="store_true", help="a tiny model and invented text: does it all run?")
    parser.add_argument("--out", type=Path, help="a .json file; a .md of the same name is written beside it")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        job = json.loads(options.worker)
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        (Path(job["folder"]) / "cell.json").write_text(json.dumps(work(job)), encoding="utf-8")
        return
    if options.quick:
        options.model = options.sst2 = options.squad_train = options.squad_dev = None
        options.seeds, options.max_train = [0], 96
    if (options.squad_train is None) != (options.squad_dev is None):
        raise SystemExit("--squad-train and --squad-dev belong together")

    import accelerate  # here, before hours of training without it
    import torch
    import transformers
    from machine import describe

    asked = {key: value for key, value in vars(options).items() if key not in ("out", "worker", "quick")}
    asked = json.loads(json.dumps(asked, default=lambda path: path.name))  # of paths the name
    report: Report = {"cells": {}}
    if options.out and options.out.exists():
        report = json.loads(options.out.read_text(encoding="utf-8"))
        before = {key: value for key, value in report["asked"].items() if key not in ("examples", "seeds")}
        if before != {key: value for key, value in asked.items() if key != "seeds"}:
            raise SystemExit(f"{options.out} holds other settings: choose another --out")
    with tempfile.TemporaryDirectory() as temporary:
        data = make_data(Path(temporary), options)
        asked["examples"] = {task: count for task, (_, count) in data.items()}
        model = options.model
        if model is None:
            texts = [path for folder, _ in data.values() for path in folder.iterdir() if path.name.startswith("train")]
            model = make_model(Path(temporary), texts, tiny=options.quick)
        report |= {
            "machine": describe(),
            "versions": {
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "accelerate": accelerate.__version__,
            },
            "model": options.model.name if options.model else "random",
            "asked": asked,
            "results": report.get("results", {}),
        }
        for task in options.tasks:
            for precision in options.precisions:
                for seed in options.seeds:
                    sides = [*SIDES][seed % 3 :] + [*SIDES][: seed % 3]
                    for cell in (Cell(task, precision, seed, side) for side in sides):
                        if "seconds" in report["cells"].get(cell.name, {}):
                            continue
                        job = asked | {"model": str(model), "data": str(data[task][0])}
                        job["max_length"] = 128 if task == "sst2" else 384
                        found = report["cells"][cell.name] = run_cell(cell, job)
                        report["threads"] = found.get("threads", report.get("threads"))
                        told = found.get("error") or f"{found['seconds']:.1f} s"
                        print(f"{cell.name}: {told}", flush=True)
                        if (row := summary(report["cells"], task, precision, asked)) is not None:
                            report["results"][f"{task} {precision}"] = row
                        if options.out:
                            options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
                            options.out.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    main()
