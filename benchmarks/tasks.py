"""A pre-trained model on every task there is data for, beside the same network from random weights: one table.

    python benchmarks/tasks.py RUN --data DATA --out OUT [--only rte chunk] [--results benchmarks/results]

DATA is a folder with the public files listed in TASKS. Both starts get the same data, steps and seeds, and each has
two recipes, of which the better one on dev stands in the table: the paper's (3e-4 for so small a model; with layer-
wise decay where there is something in the lower layers to spare) and a rate of 1e-3 without decay (--learning-rate).
Large sets are cut to a random part and have one seed, small ones three. Where a benchmark's training file is not
there, the official file that is serves as training file, and a tenth of it as dev set: such a row says so and compares
with no published figure. A command that was interrupted goes on when it is given again; rows and sides can run in
processes of their own (--only, --sides).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import describe

from electra.config import FinetuneConfig, PretrainConfig, QuestionConfig, TaskConfig
from electra.finetune import finetune
from electra.log import read_metrics
from electra.toml import read_toml

STARTS = {"pre-trained": ("pretrained", "pretrained-paper"), "random weights": ("random", "random-paper")}
SIDES = [side for sides in STARTS.values() for side in sides]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    task: str
    files: dict[str, str]
    """Name that the task expects: path below DATA."""
    options: dict[str, Any] = field(default_factory=dict)
    seeds: int = 3
    remark: str = ""


TASKS = {
    "cola": Row("cola", {"train.tsv": "glue/CoLA/train.tsv", "dev.tsv": "glue/CoLA/dev.tsv"}),
    "sst2": Row(
        "sst2", {"train.tsv": "glue/SST-2/train.tsv", "dev.tsv": "glue/SST-2/dev.tsv"}, {"max_train": 20_000}, 1
    ),
    "mrpc": Row("mrpc", {"train.tsv": "glue/MRPC/train.tsv", "dev.tsv": "glue/MRPC/dev.tsv"}),
    "stsb": Row("stsb", {"train.tsv": "glue/STS-B/train.tsv"}, {"epochs": 3.0}, remark="dev cut from train; 3 epochs"),
    "rte": Row("rte", {"train.tsv": "glue/RTE/train.tsv"}, {"epochs": 3.0}, remark="dev cut from train; 3 epochs"),
    "wnli": Row("wnli", {"train.tsv": "glue/WNLI/train.tsv"}, remark="dev cut from train"),
    "qqp": Row(
        "qqp",
        {"train.tsv": "glue/QQP/sample_from_train.tsv"},
        {"max_train": 10_000},
        1,
        "a sample of the training file",
    ),
    "qnli": Row("qnli", {"train.tsv": "glue/QNLI/dev.tsv"}, {}, 1, "trained and scored on parts of the dev file"),
    "chunk": Row("chunk", {"train.txt": "conll2000/train.txt"}, remark="dev cut from train"),
    "nsmc": Row(
        "nsmc", {"ratings_train.txt": "nsmc/ratings_train.txt"}, {"max_train": 20_000}, 1, "dev cut from train"
    ),
    "kornli": Row(
        "kornli",
        {"multinli.train.ko.tsv": "koelectra_splits/kornli/xnli.dev.ko.tsv"},
        {},
        3,
        "parts of XNLI's dev file",
    ),
    "korsts": Row(
        "korsts",
        {f"sts-{part}.tsv": f"koelectra_splits/korsts/sts-{part}.tsv" for part in ("train", "dev")},
        {"epochs": 3.0},
        remark="3 epochs",
    ),
    "paws": Row("paws", {"translated_train.tsv": "koelectra_splits/paws/dev_2k.tsv"}, remark="parts of the dev file"),
    "question-pair": Row(
        "question-pair", {f"{part}.tsv": f"koelectra_splits/question-pair/{part}.tsv" for part in ("train", "dev")}
    ),
    "hate-speech": Row(
        "hate-speech", {"train.tsv": "koelectra_splits/hate-speech/train.tsv"}, remark="dev cut from train"
    ),
    "klue-ner": Row(
        "klue-ner", {"klue-ner-v1.1_train.tsv": "klue/klue-ner-v1.1_dev.tsv"}, remark="parts of the dev file"
    ),
    "squadv1, simple head": Row(
        "squadv1",
        {"train-v1.1.json": "squad/train-v1.1.rebuilt.json", "dev-v1.1.json": "squad/dev-v1.1.half1.json"},
        {"max_train": 15_000, "max_length": 256, "epochs": 3.0},
        1,
        "half of dev; 3 epochs",
    ),
    "squadv1, joint head": Row(
        "squadv1",
        {"train-v1.1.json": "squad/train-v1.1.rebuilt.json", "dev-v1.1.json": "squad/dev-v1.1.half1.json"},
        {
            "max_train": 15_000,
            "max_length": 256,
            "epochs": 3.0,
            "questions": QuestionConfig(head="joint"),
        },
        1,
        "half of dev; 3 epochs",
    ),
    "squad": Row(
        "squad",
        {"train-v2.0.json": "squad/train-v2.0.10articles.json", "dev-v2.0.json": "squad/dev-v2.0.half1.json"},
        {"max_length": 256},
        1,
        "10 articles, half of dev",
    ),
    "korquad": Row(
        "korquad", {"KorQuAD_v1.0_train.json": "korquad/KorQuAD_v1.0_dev.json"}, {}, 1, "parts of the dev file"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=SIDES)
    args = parser.parse_args()
    for name in args.only:
        row = TASKS[name]
        absent = [path for path in row.files.values() if not (args.data / path).is_file()]
        if absent:
            print(f"{name}: {', '.join(absent)} is not in {args.data}, left out")
            continue
        folder = lay_out(row, args.data, args.out / "data" / name)
        for side in args.sides:
            config = FinetuneConfig(
                args.model,
                folder,
                args.out / side / name,
                task=row.task,
                from_scratch=side.startswith("random"),
                learning_rate=0.0 if side.endswith("paper") else args.learning_rate,  # 0: the paper's
                layer_decay=0.0 if side == "pretrained-paper" else 1.0,
                seeds=tuple(range(row.seeds)),
                precision=args.precision,
                custom=TaskConfig(),
            )
            found = finetune(dataclasses.replace(config, **row.options))
            if found["signal"] is not None:
                raise SystemExit(128 + found["signal"])
        write(args.out, args.results or args.out, args.model)


def lay_out(row: Row, data: Path, folder: Path) -> Path:
    """A folder with the task's files under the names that it expects."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, path in row.files.items():
        os.symlink((data / path).resolve(), folder / name)
    return folder


def pretraining(run: Path) -> dict[str, float]:
    """Shape, tokens and last held-out metrics of a run, and the tokens of the run that it began from."""
    if not (run / "config.toml").is_file():
        return {}  # any other model
    config = read_toml(PretrainConfig, run / "config.toml")
    last = read_metrics(run, "eval")[-1]
    names = ("generator_loss", "discriminator_auc")
    facts = {
        "layers": config.model.num_layers,
        "hidden_size": config.model.hidden_size,
        "steps": last["step"],
        "tokens": last["step"] * config.loop.batch_size * config.rows.seq_len,
        **{f"held-out_{name}": last[name] for name in names if name in last},
    }
    before = pretraining(Path(config.init)) if config.init else {}
    return facts | ({"tokens_as_masked_LM_before": before["tokens"]} if before else {})


def write(out: Path, results: Path, model: str) -> None:
    """The table of all that is finished, as tasks.json and tasks.md."""
    rows = []
    for name, row in TASKS.items():
        found = {
            side: json.loads(path.read_text())
            for side in SIDES
            if (path := out / side / name / "results.json").is_file()
        }
        if not all(any(side in found for side in sides) for sides in STARTS.values()):
            continue
        one = next(iter(found.values()))
        metric = one["metric"]
        sides = {
            side: {
                "learning_rate": each["learning_rate"],
                "median": each["summary"]["dev"][metric]["median"],
                "seeds": [trial["dev"][metric] for trial in each["trials"]],
            }
            for side, each in found.items()
        }
        sizes = {key: one[key] for key in ("examples", "steps")}
        rows.append({"task": name, "metric": metric, **sizes, "sides": sides, "remark": row.remark})
    report = {"machine": describe(), "model": pretraining(Path(model)), "rows": rows}
    (results / "tasks.json").write_text(json.dumps(report, indent=1) + "\n")
    facts = ", ".join(
        f"{name.replace('_', ' ')} {value:,.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value:,}"
        for name, value in report["model"].items()
    )
    lines = ["# Tasks, pre-trained and from random weights", "", f"The pre-trained model: {facts}.", ""]
    lines += [f"| task | metric | train, dev | {' | '.join(STARTS)} | at rates of | |", "|---|---|---|---|---|---|---|"]
    for each in rows:
        sides, sizes, rates = each["sides"], each["examples"], []
        cells = [each["task"], each["metric"], f"{sizes['train']:,}, {sizes['dev']:,}"]
        for names in STARTS.values():
            best = max((sides[side] for side in names if side in sides), key=lambda side: side["median"])
            seeds = best["seeds"]
            spread = f" ({min(seeds):.3f} to {max(seeds):.3f})" if len(seeds) > 1 else ""
            cells.append(f"{best['median']:.3f}{spread}")
            rates.append(f"{best['learning_rate']:g}")
        lines.append(f"| {' | '.join([*cells, ', '.join(rates), each['remark']])} |")
    (results / "tasks.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
