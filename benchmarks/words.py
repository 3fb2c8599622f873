"""Whether the table of words gives what `tokenizers` gives, line by line, on any amount of text; and how fast both are.

    python benchmarks/words.py TEXT... --vocab VOCAB... [--mb 1000] [--out benchmarks/results/words.json]

TEXT are files, or folders with any number of them; of a file that is longer than --mb the first part is read. Every
line is compared twice with each VOCAB (a vocab.txt): with the options that it was made for, lower-cased without accents
or cased with them, and with one of the other seven (lower-cased or not, accents stripped or not, Chinese characters
split off or not), which take turns every LINES lines. One process, one thread; the seconds are those of this one
reading and tell the order of magnitude, benchmarks/build.py measures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from machine import describe

from electra.tokenizer import Vocabulary, load_tokenizer

LINES = 5_000


class Options(NamedTuple):
    lowercase: bool
    strip_accents: bool
    split_chinese: bool

    def load(self, vocab: Path) -> Vocabulary:
        said = {
            "do_lower_case": self.lowercase,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": self.split_chinese,
        }
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "vocab.txt").write_bytes(vocab.read_bytes())
            Path(folder, "tokenizer_config.json").write_text(json.dumps(said))
            return load_tokenizer(Path(folder, "vocab.txt"))


def groups_of_lines(path: Path, most_bytes: float) -> Iterator[list[str]]:
    taken = 0
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        while taken < most_bytes and (lines := [line.strip() for line in itertools.islice(file, LINES)]):
            taken += sum(len(line.encode()) + 1 for line in lines)
            yield lines


def compare(lines: list[str], vocabulary: Vocabulary) -> dict[str, float]:
    begin = time.perf_counter()
    ids, lengths = vocabulary.encode_lines(lines)
    middle = time.perf_counter()
    expected = vocabulary.encode_batch(lines)
    end = time.perf_counter()
    stops = lengths.cumsum().tolist()
    whole = ids.tolist()
    equal = sum(
        whole[stop - int(length) : stop] == line for stop, length, line in zip(stops, lengths, expected, strict=True)
    )
    return {
        "lines": len(lines),
        "equal": equal,
        "tokens": len(whole),
        "mb": sum(len(line.encode()) + 1 for line in lines) / 1e6,
        "seconds": middle - begin,
        "seconds_tokenizers": end - middle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", type=Path)
    parser.add_argument("--vocab", nargs="+", type=Path, required=True)
    parser.add_argument("--mb", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("ignore")  # that a vocabulary does not fit an option is no matter here
    files = [
        file for path in args.text for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file()
    ]
    every = [Options(*flags) for flags in itertools.product((True, False), repeat=3)]
    rows = []
    for vocab in args.vocab:
        cased = any(
            token != token.lower() for token in vocab.read_text(encoding="utf-8").split("\n") if token[:1] != "["
        )
        own = Options(not cased, not cased, True)
        vocabularies = {options: options.load(vocab) for options in every}
        others = itertools.cycle([options for options in every if options != own])
        for path in files:
            found: dict[Options, dict[str, float]] = {}
            for lines in groups_of_lines(path, args.mb * 1e6):
                for options in (own, next(others)):
                    new = compare(lines, vocabularies[options])
                    so_far = found.get(options, dict.fromkeys(new, 0))
                    found[options] = {name: so_far[name] + value for name, value in new.items()}
            of_file = [
                {"text": path.name, "vocabulary": vocab.name, "own": options == own} | options._asdict() | counts
                for options, counts in found.items()
            ]
            rows += of_file
            for name, some in (("its own options", [own]), ("others", [o for o in found if o != own])):
                lines, equal, mb, ours, theirs = (
                    sum(found[options][key] for options in some if options in found)
                    for key in ("lines", "equal", "mb", "seconds", "seconds_tokenizers")
                )
                if lines:
                    print(
                        f"{path.name:34.34}{vocab.name:26}{name:16}{equal:>9,} of {lines:>9,} lines are equal; "
                        f"{mb / ours:5.1f} MB/s, tokenizers {mb / theirs:.1f}",
                        flush=True,
                    )
            if args.out:
                total = {key: sum(row[key] for row in rows) for key in ("lines", "equal", "tokens", "mb")}
                report = {"machine": describe(), "all": total, "rows": rows}
                args.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    lines, equal = sum(row["lines"] for row in rows), sum(row["equal"] for row in rows)
    print(f"{equal:,} of {lines:,} comparisons of a line are equal")
    if equal != lines:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
