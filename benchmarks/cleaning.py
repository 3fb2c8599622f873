"""What each way of cleaning costs `electra build`, and what it leaves out, on the first megabytes of real text.

    python benchmarks/cleaning.py enwiki.txt reviews_ko.txt --vocab vocab_en vocab_ko --documents blank-lines lines \
        [--megabytes 12] [--repeats 2] --out benchmarks/results/cleaning.json

Every measurement is a fresh process that builds a store of a few words first, with the same settings (that is the
start: imports and the loading of models included), and then of the text; the settings take turns. Times are seconds of
CPU, which other programs on the machine disturb least; of several runs the shortest counts.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import describe

BUILD = """
import dataclasses
import json
import sys
import time
from pathlib import Path
from electra.build import build
from electra.config import BuildConfig, CleaningConfig

if __name__ == "__main__":
    text, vocab, out, documents, cleaning = sys.argv[1:]
    config = BuildConfig(
        corpus=(text,),
        vocab=Path(vocab),
        out=Path(out),
        documents=documents,
        processes=1,
        cleaning=CleaningConfig(**json.loads(cleaning)),
    )
    few = Path(out).with_name("few.txt")
    few.write_text("A few words are enough to load whatever is needed for the others.")
    build(dataclasses.replace(config, corpus=(str(few),), out=few.with_name("few")))
    start = time.process_time()
    summary = build(config)
    found = summary["build"].get("cleaning", {})
    dropped = {reason: entry["documents"] for reason, entry in found.get("dropped", {}).items()}
    near = found.get("near_duplicates", {"repeated": 0, "documents": 0})
    print(json.dumps({
        "start_seconds": start,
        "cpu_seconds": time.process_time() - start,
        "documents": summary["documents"] + sum(dropped.values()),
        "lines_changed": found.get("lines_normalized", 0) + found.get("lines_stripped", 0),
        "dropped": dropped | {"repeated": near["repeated"], "near duplicates": near["documents"]},
    }))
"""

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "normalize NFC": {"normalize": "NFC"},
    "strip control": {"strip_control": True},
    "length, symbols": {"min_characters": 20, "min_words": 3, "max_symbols": 0.25},
    "language": {"languages": ["en", "ko"]},
    "near duplicates 0.8": {"near_duplicates": 0.8},
}
SETTINGS["all"] = {name: value for setting in SETTINGS.values() for name, value in setting.items()}


def run(text: Path, vocab: str, documents: str, setting: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.py")
        script.write_text(BUILD)
        arguments = [str(text), vocab, str(Path(folder, "store")), documents, json.dumps(setting)]
        output = subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE, check=True).stdout
    found: dict[str, Any] = json.loads(output)
    return found


def measure(text: Path, vocab: str, documents: str, megabytes: float, repeats: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder, text.name)
        with open(text, "rb") as file:
            head.write_bytes(file.read(int(megabytes * 1e6)).rpartition(b"\n")[0] + b"\n")
        for _ in range(repeats):
            for name, setting in SETTINGS.items():
                found = run(head, vocab, documents, setting)
                if name not in results or found["cpu_seconds"] < results[name]["cpu_seconds"]:
                    results[name] = found
        size = head.stat().st_size / 1e6
    plain = results["plain"]["cpu_seconds"]
    for name, found in results.items():
        found["mb_per_cpu_second"] = size / found["cpu_seconds"]
        found["times_plain"] = found["cpu_seconds"] / plain
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in found["dropped"].items() if count)
        print(
            f"{text.name:32}{name:22}{found['mb_per_cpu_second']:6.2f} MB/s, {found['times_plain']:.2f} times plain, "
            f"{found['start_seconds']:.1f} s to start; {found['lines_changed']:,} lines changed; "
            f"of {found['documents']:,} documents: {dropped or '-'}",
            flush=True,
        )
    return {"vocabulary": Path(vocab).name, "documents": documents, "text_mb": size, "results": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--vocab", required=True, nargs="+")
    parser.add_argument("--documents", nargs="+", help="of each text, as in electra build", required=True)
    parser.add_argument("--megabytes", type=float, default=12.0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    texts = {}
    for text, vocab, documents in zip(args.text, args.vocab, args.documents, strict=True):
        texts[text.name] = measure(text, vocab, documents, args.megabytes, args.repeats)
    names = ("electra-toolkit", "tokenizers", "numpy", "rensa", "py3langid")
    report = {
        "repeats": args.repeats,
        "machine": describe(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "settings": SETTINGS,
        "texts": texts,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
