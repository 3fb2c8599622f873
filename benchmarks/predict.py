"""`electra predict` against transformers.pipeline, in alternation, each turn a fresh process with the same inputs.

    python benchmarks/predict.py [--quick]
    python benchmarks/predict.py --texts glue/SST-2/train.tsv --column sentence --squad dev-v1.1.json \
        --pipeline-python transformers4/bin/python --out benchmarks/results/predict.json

Two jobs: the labels of 10,000 lines (text-classification), the answers to 1,000 questions (question-answering). The
models are made here: ELECTRA-Small with random weights, the vocabulary of --vocab or one trained on the text. Without
--texts and --squad the text is invented. A turn loads the model, answers a few inputs to warm up, and is timed over
all of them, from strings to the list of answers; loading is reported beside it. The pipeline has the best of
--batch-sizes, which a first round finds; ours what it chooses itself. Answers must be equal: labels, and scores within
1e-3 (0.1 in bf16); of the answers to questions 95 % in fp32, since the pipeline compares the windows of a passage by
probability within each, and ours by logits and only where a word has its most context, as Google's and
transformers' scripts do.

transformers 5 has no question-answering pipeline any more. --pipeline-python names a Python that has transformers 4 and
torch, for the pipeline's side of that job; without it, its side is left out where transformers has none.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WARM_UP = 64
"""Inputs answered before the clock starts."""
QUESTION_LENGTH, STRIDE = 384, 128

Report = dict[str, Any]


# -------------------------------------------------------------------------------------- one turn, in its own process


def work(task: Report) -> Report:
    """Answer the inputs of a task with one side; {"load_seconds", "seconds", "answers"}."""
    import torch

    begin = time.perf_counter()
    inputs = json.loads(Path(task["inputs"]).read_text(encoding="utf-8"))
    run = (ours if task["side"].startswith("ours") else theirs)(task)
    loaded = time.perf_counter()
    run(inputs[:WARM_UP])
    warm = time.perf_counter()
    answers = run(inputs)
    seconds = time.perf_counter() - warm
    threads = torch.get_num_threads()
    return {"load_seconds": loaded - begin, "seconds": seconds, "answers": answers, "threads": threads}


def ours(task: Report) -> Any:
    from electra.config import PredictConfig
    from electra.predict import answer_chunks, load_predictor
    from electra.tasks.questions.files import Question

    precision = "fp32" if task["side"] == "ours" else task["side"].removeprefix("ours-")
    length = QUESTION_LENGTH if task["job"] == "questions" else 0
    config = PredictConfig(model=task["model"], device=task["device"], precision=precision, max_length=length)
    predictor = load_predictor(config)

    def labels(texts: list[str]) -> list[list[Any]]:
        pairs = ((text, None) for text in texts)
        return [[found.label, found.score] for answers in answer_chunks(predictor, pairs) for found in answers]

    def answers(questions: list[list[str]]) -> list[list[Any]]:
        asked = (Question(str(number), text, context) for number, (text, context) in enumerate(questions))
        return [[found.text, found.score] for chunk in answer_chunks(predictor, asked) for found in chunk]

    return answers if task["job"] == "questions" else labels


def theirs(task: Report) -> Any:
    from transformers import pipeline

    name = "question-answering" if task["job"] == "questions" else "text-classification"
    pipe = pipeline(name, model=task["model"], device=task["device"])

    def labels(texts: list[str]) -> list[list[Any]]:
        found = pipe(texts, batch_size=task["batch_size"], truncation=True, max_length=512)
        return [[each["label"], each["score"]] for each in found]

    def answers(questions: list[list[str]]) -> list[list[Any]]:
        asked = [{"question": text, "context": context} for text, context in questions]
        options = {"batch_size": task["batch_size"], "max_seq_len": QUESTION_LENGTH, "doc_stride": STRIDE}
        found = pipe(asked, max_answer_len=30, max_question_len=64, align_to_words=False, **options)
        return [[each["answer"], each["score"]] for each in found]

    return answers if task["job"] == "questions" else labels


def turn(python: str, task: Report) -> Report:
    """`work` in a fresh process; {"error": ...} if that fails."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as out:
        command = [python, __file__, "--worker", json.dumps(task | {"out": out.name})]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
        return json.load(out)


# ------------------------------------------------------------------------------------------------ inputs and models


def load_texts(path: Path | None, column: str, count: int) -> list[str]:
    if path is None:
        from invented import invented_text, invented_words

        draw, words = random.Random(1), invented_words(20_000)
        return [invented_text(draw, words, 12) for _ in range(count)]
    from electra.tasks.tables import read_table

    return [row[column] for _, row in read_table(path)][:count]


def load_questions(path: Path | None, count: int) -> list[list[str]]:
    if path is None:
        from invented import invented_text, invented_words

        draw, words = random.Random(2), invented_words(20_000)
        contexts = [invented_text(draw, words, 120) for _ in range(-(-count // 5))]
        return [[invented_text(draw, words, 10) + "?", contexts[number // 5]] for number in range(count)]
    from electra.tasks.problems import Problems
    from electra.tasks.questions.files import read_questions

    return [[each.question, each.context] for each in read_questions(path, Problems()).questions[:count]]


def make_models(folder: Path, vocab: Path | None, texts: list[str], size: str) -> dict[str, str]:
    """A folder for each job: random weights, drawn wide so that the answers differ from input to input."""
    import torch
    from invented import random_model, train_on
    from transformers import ElectraForQuestionAnswering, ElectraForSequenceClassification

    from electra.tokenizer import load_tokenizer

    vocabulary = load_tokenizer(vocab) if vocab else train_on(folder, texts)
    found = {}
    for job, kind in (("labels", ElectraForSequenceClassification), ("questions", ElectraForQuestionAnswering)):
        model = random_model(kind, vocabulary, tiny=size == "tiny")
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() == 2:
                    weight.mul_(5 if "classifier" in name or "qa_outputs" in name else 2)
        model.save_pretrained(folder / job)
        vocabulary.save(folder / job)
        values = json.loads((folder / job / "tokenizer_config.json").read_text(encoding="utf-8"))
        values |= {"tokenizer_class": "ElectraTokenizerFast", "model_max_length": 512}  # which transformers 4 wants
        (folder / job / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")
        found[job] = str(folder / job)
    return found


# ---------------------------------------------------------------------------------------------------- comparison


def equal_share(job: str, mine: list[list[Any]], other: list[list[Any]], tolerance: float) -> float:
    """The share of equal answers: labels with scores within the tolerance, texts of answers."""
    assert len(mine) == len(other)
    if job == "questions":
        return statistics.mean(a[0].strip() == b[0].strip() for a, b in zip(mine, other, strict=True))
    return statistics.mean(
        abs(a[1] - b[1]) < tolerance and (a[0] == b[0] or a[1] - 0.5 < tolerance)
        for a, b in zip(mine, other, strict=True)
    )


def compare(job: str, model: str, inputs: Path, count: int, options: argparse.Namespace) -> Report:
    """Find the pipeline's batch size, then alternate over rounds."""
    task = {"job": job, "model": model, "inputs": str(inputs), "device": options.device, "batch_size": 1}
    python = options.pipeline_python if job == "questions" and options.pipeline_python else sys.executable
    few = inputs.with_name(f"{job}-few.json")
    few.write_text(json.dumps(json.loads(inputs.read_text(encoding="utf-8"))[: max(WARM_UP, count // 10)]))
    tried = {}
    for size in options.batch_sizes:
        found = turn(python, task | {"side": "pipeline", "inputs": str(few), "batch_size": size})
        if "error" in found:
            print(f"{job}: the pipeline's side is left out: {found['error']}", flush=True)
            break
        tried[size] = len(found["answers"]) / found["seconds"]
        print(f"{job}: pipeline, batch size {size}: {tried[size]:,.1f} a second", flush=True)
    sides = ["ours", *options.also_ours]
    if tried:
        task["batch_size"] = max(tried, key=lambda size: tried[size])
        sides.append("pipeline")
    rounds: list[dict[str, Report]] = []
    for number in range(options.rounds):
        order = sides if number % 2 == 0 else sides[::-1]
        found = {side: turn(python if side == "pipeline" else sys.executable, task | {"side": side}) for side in order}
        for side, result in found.items():
            if "error" in result:
                raise SystemExit(f"{job}, {side}: {result['error']}")
        rounds.append(found)
        speeds = ", ".join(f"{side} {count / found[side]['seconds']:,.1f}" for side in sides)
        print(f"{job}: round {number + 1}: {speeds} a second", flush=True)
    report: Report = {"inputs": count, "pipeline_batch_sizes": {str(size): round(tried[size], 1) for size in tried}}
    for side in sides:
        speeds = [count / found[side]["seconds"] for found in rounds]
        report[side] = {
            "per_second": round(statistics.median(speeds), 1),
            "range": [round(min(speeds), 1), round(max(speeds), 1)],
            "load_seconds": round(statistics.median(found[side]["load_seconds"] for found in rounds), 2),
        }
        if side != sides[0]:
            share = equal_share(job, rounds[0]["ours"]["answers"], rounds[0][side]["answers"], _tolerance(side))
            report[side]["equal_answers"] = round(share, 4)
            assert share >= _least(job, side), f"{job}: only {share:.2%} of the answers of ours and {side} are equal"
        if side != "pipeline" and tried:
            ratios = [found["pipeline"]["seconds"] / found[side]["seconds"] for found in rounds]
            report[side]["over_pipeline"] = [round(f(ratios), 2) for f in (statistics.median, min, max)]
    report["threads"] = rounds[0]["ours"]["threads"]
    return report


def _tolerance(side: str) -> float:
    return 0.1 if side.endswith("bf16") else 1e-3


def _least(job: str, side: str) -> float:
    """In bf16 spans of nearly equal score change places, in random weights most of all."""
    if side.endswith("bf16"):
        return 0.9 if job == "labels" else 0.3
    return 1.0 if job == "labels" else 0.95


def markdown(report: Report) -> str:
    machine = report["machine"]
    lines = [
        "# Prediction",
        "",
        f"`electra predict` and transformers.pipeline, ELECTRA-{report['size']} with random weights, {machine['cpu']}, "
        f"{report['threads']} of {machine['cores']} cores, device {report['device']}, {machine['date']}; "
        f"{report['rounds']} rounds in alternation. The pipeline has the batch size that is fastest for it.",
        "",
        "| job | side | inputs a second | range | times the pipeline | range | equal answers | loading, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for job, found in report["jobs"].items():
        for side in ("ours", *report["also_ours"], "pipeline"):
            if side not in found:
                continue
            row, low_high = found[side], "{} to {}".format(*found[side]["range"])
            ratio, low, high = row.get("over_pipeline", ["", "", ""])
            spread = f"{low} to {high}" if low else ""
            equal = f"{row['equal_answers']:.2%}" if "equal_answers" in row else ""
            name = f"{job} ({found['inputs']:,})"
            lines.append(
                f"| {name} | {side} | {row['per_second']} | {low_high} | {ratio} | {spread} | {equal} "
                f"| {row['load_seconds']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="a .tsv, .csv or .jsonl file with the texts; else they are invented")
    parser.add_argument("--column", default="sentence", help="its column of the texts")
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--squad", type=Path, help="a file in SQuAD's format; else questions are invented")
    parser.add_argument("--questions", type=int, default=1_000)
    parser.add_argument("--vocab", type=Path, help="a vocab.txt or vocabulary folder; else one is trained on the text")
    parser.add_argument("--jobs", nargs="+", default=["labels", "questions"], choices=["labels", "questions"])
    parser.add_argument("--also-ours", nargs="*", default=["ours-bf16"], help="ours in further precisions")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 4, 8, 32, 64], help="tried for the pipeline")
    parser.add_argument("--pipeline-python", help="a Python with transformers 4, for its question-answering pipeline")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a tiny model and few inputs: does it all run?")
    parser.add_argument("--out", type=Path, help="a .json file; a .md of the same name is written beside it")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        task = json.loads(options.worker)
        Path(task["out"]).write_text(json.dumps(work(task)), encoding="utf-8")
        return
    if options.quick:
        options.lines, options.questions, options.rounds, options.batch_sizes = 300, 40, 2, [4, 16]

    import torch
    import transformers
    from machine import describe

    report: Report = {
        "machine": describe(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "size": "tiny" if options.quick else "small",
        "device": options.device,
        "rounds": options.rounds,
        "also_ours": options.also_ours,
        "text": options.texts.name if options.texts else "invented",
        "questions": options.squad.name if options.squad else "invented",
        "jobs": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        inputs: dict[str, list[Any]] = {
            "labels": load_texts(options.texts, options.column, options.lines),
            "questions": load_questions(options.squad, options.questions),
        }
        everything = [*inputs["labels"], *(text for pair in inputs["questions"] for text in pair)]
        models = make_models(folder, options.vocab, everything, report["size"])
        for job in options.jobs:
            path = folder / f"{job}.json"
            path.write_text(json.dumps(inputs[job]), encoding="utf-8")
            report["jobs"][job] = compare(job, models[job], path, len(inputs[job]), options)
            report["threads"] = report["jobs"][job]["threads"]
            if options.out:
                options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
                options.out.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    main()
