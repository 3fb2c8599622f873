"""Windows of question answering: how long they take, and how much of the gold answers can be given back at all.

    python benchmarks/questions.py FILE... --vocab VOCAB [--no-lowercase] [--korquad] [--out results/questions.json]

For each file in SQuAD's format: seconds to read it and to make its windows (384 tokens, 128 apart) with one process
and with two, in alternation. Then the ceiling of exact match and F1: the gold answer's tokens turned into text again,
by the offsets of its tokens and as Google's code does, scored by the official rules.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from electra.tasks.problems import Problems
from electra.tasks.questions.features import QuestionFeatures, answer_text, build_features
from electra.tasks.questions.files import Question, read_questions
from electra.tasks.questions.scores import score_korquad, score_squad1
from electra.tasks.questions.text import find_words, span_text
from electra.tasks.questions.windows import WindowOptions
from electra.tokenizer import Vocabulary, load_tokenizer

OPTIONS = WindowOptions(max_length=384, doc_stride=128, max_query_length=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--lowercase", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--korquad", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    vocabulary = load_tokenizer(args.vocab, args.lowercase)
    report: dict[str, Any] = {"machine": describe(), "vocabulary": args.vocab.name, "files": {}}
    if args.out and args.out.exists():
        report["files"] = json.loads(args.out.read_text())["files"]
    for path in args.files:
        report["files"][path.name] = measure(path, vocabulary, args.korquad, args.repeats)
        print(path.name, json.dumps(report["files"][path.name], indent=1), flush=True)
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(path: Path, vocabulary: Vocabulary, korquad: bool, repeats: int) -> dict[str, Any]:
    begin = time.perf_counter()
    questions = read_questions(path, Problems()).questions
    reading = time.perf_counter() - begin
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for processes, found in seconds.items():
            begin = time.perf_counter()
            features = build_features(questions, vocabulary, OPTIONS, processes)
            found.append(time.perf_counter() - begin)
    score = score_korquad if korquad else score_squad1
    answerable = [question for question in questions if not question.is_impossible]
    ceilings = {}
    for name, google in (("offsets", False), ("Google's", True)):
        texts = gold_texts(questions, features, vocabulary, google)
        scores = score(answerable, texts)
        ceilings[name] = {metric: round(scores[metric], 3) for metric in ("exact_match", "f1")}
    return {
        "questions": len(questions),
        "windows": len(features),
        "reading_seconds": round(reading, 2),
        "window_seconds": {
            f"{processes} processes": {"median": round(statistics.median(found), 2), "all": np.round(found, 2).tolist()}
            for processes, found in seconds.items()
        },
        "ceiling": ceilings,
    }


def gold_texts(
    questions: list[Question], features: QuestionFeatures, vocabulary: Vocabulary, google: bool
) -> dict[str, str]:
    """The answer of each question out of its gold tokens, from the first window that holds them; "" without one."""
    texts = {question.id: "" for question in questions}
    for window in np.flatnonzero(features.ends > 0)[::-1]:
        question = questions[features.questions[window]]
        first, last = int(features.starts[window]), int(features.ends[window])
        if google:
            words = find_words(question.context)
            text = answer_text(features, vocabulary, question.context, words, int(window), first, last)
        else:
            tokens = features.passage_tokens(int(window), first, last)
            begin, end = features.token_begins[tokens.start], features.token_ends[tokens.stop - 1]
            text = span_text(question.context, int(begin), int(end))
        texts[question.id] = text
    return texts


if __name__ == "__main__":
    main()
