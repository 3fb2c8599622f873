"""Whether the table of words gives what `tokenizers` gives, line by line, on any amount of text; and how fast both are.

    python benchmarks/words.py TEXT... --vocab VOCAB... [--out benchmarks/results/words.json]

Each file is read with each vocabulary and each of BERT's options (lower-cased or not, accents stripped or not), in one
thread. The seconds are those of this one reading and tell the order of magnitude; benchmarks/build.py measures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
import warnings
from pathlib import Path

from machine import describe

from electra.tokenizer import Vocabulary, load_tokenizer

LINES = 20_000


def compare(path: Path, vocabulary: Vocabulary) -> dict[str, float]:
    found = {"lines": 0, "equal": 0, "tokens": 0, "mb": path.stat().st_size / 1e6, "seconds": 0.0, "tokenizers": 0.0}
    with open(path, encoding="utf-8", newline="\n") as file:
        while lines := [line.strip() for line in itertools.islice(file, LINES)]:
            begin = time.perf_counter()
            ids, lengths = vocabulary.encode_lines(lines)
            middle = time.perf_counter()
            expected = vocabulary.encode_batch(lines)
            found["tokenizers"] += time.perf_counter() - middle
            found["seconds"] += middle - begin
            ends = lengths.cumsum().tolist()
            whole = ids.tolist()
            found["equal"] += sum(
                whole[end - int(length) : end] == line
                for end, length, line in zip(ends, lengths, expected, strict=True)
            )
            found["lines"] += len(lines)
            found["tokens"] += len(whole)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", type=Path)
    parser.add_argument("--vocab", nargs="+", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("ignore")  # that a vocabulary does not fit an option is no matter here
    rows = []
    for path, vocab in itertools.product(args.text, args.vocab):
        for lowercase, strip_accents in itertools.product((True, False), (True, False)):
            found = compare(path, load_tokenizer(vocab, lowercase, strip_accents))
            options = {"lowercase": lowercase, "strip_accents": strip_accents}
            rows.append({"text": path.name, "vocabulary": vocab.name} | options | found)
            print(
                f"{path.name:32}{vocab.name:28}{'lower' if lowercase else 'cased':6}"
                f"{'no accents' if strip_accents else 'accents':11}{found['equal']:>11,} of {found['lines']:>11,} lines"
                f"{found['mb'] / found['seconds']:7.1f} MB/s, tokenizers {found['mb'] / found['tokenizers']:.1f}",
                flush=True,
            )
    if args.out:
        args.out.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
