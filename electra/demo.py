"""`electra demo`: the whole road in minutes, on English that every CPython carries.

    docstrings + pydoc topics -> vocabulary -> token store -> pre-training -> export
                              -> fine-tuning on "which package does this paragraph document?", beside the same
                                 network from random weights -> table

Paragraphs of the task's dev set, and the docstrings they come from, are kept out of the pre-training text. Each stage
prints the command that does the same on one's own data, and leaves its folder behind.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import re
import shutil
import sys
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra.build import build
from electra.config import BuildConfig, FinetuneConfig, VocabConfig
from electra.files import atomic_file, refuse_existing
from electra.finetune import finetune
from electra.presets import tiny
from electra.pretrain import pretrain
from electra.progress import duration
from electra.tokenizer import train_vocabulary

TEXT = "python-docs.txt"
CLASSES = 10
EPOCHS = 20.0
DEV_SHARE = 0.2
Docstring = tuple[str, str]  # (top-level package, text)
# Each start gets the rates that suit it best of those tried (3e-4, 5e-4, 1e-3; with and without layer-wise decay):
# random weights do not learn at 1e-3, and have nothing in their lower layers to spare. So small a model does better
# without dropout.
STARTS = {
    "pretrained": ("Fine-tuning: which package does this paragraph document?", 1e-3, 0.9),
    "random": ("The same network from random weights", 5e-4, 1.0),
}


def demo(out: Path, steps: int = 0, overwrite: bool = False) -> dict[str, float]:
    """Run the demo in `out`; returns the median dev accuracies {"pretrained", "random"}.

    Stages whose folder is there are not done again, so an interrupted demo goes on where it was. `steps` changes the
    length of the pre-training. Raises ValueError if `out` holds something else.
    """
    began = time.monotonic()
    corpus, vocab, store, run, task = (out / name for name in ("corpus", "vocab", "store", "run", "task"))
    if overwrite and (corpus / TEXT).exists():
        shutil.rmtree(out)
    if not (corpus / TEXT).exists():
        refuse_existing(out, overwrite=False)

    _title("Text", "the documentation inside this Python: docstrings of the standard library and pydoc's topics.")
    packages = write_text_and_task(corpus / TEXT, task)

    _title("Vocabulary", f"electra vocab {corpus} --out {vocab} --size 8192")
    if not _done_before(vocab):
        train_vocabulary(VocabConfig((str(corpus),), vocab, size=8192))

    _title("Token store", f"electra build {corpus} --vocab {vocab} --out {store} --held-out 0.02")
    if not _done_before(store):
        built = build(BuildConfig((str(corpus),), vocab, store, held_out=0.02))
        print(f"{built['tokens']:,} tokens; rows of any length can be cut from them")

    flags = f" --steps {steps}" if steps else ""
    _title("Pre-training", f"electra pretrain tiny --data {store} --out {run}{flags}")
    print("A generator fills masked positions; the discriminator learns to tell which tokens were replaced. Watch the")
    print("held-out AUC: 0.5 is guessing.\n")
    config = dataclasses.replace(tiny(), data=(str(store),), out=run)
    if steps:
        config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, steps=steps))
    _go_on_after(pretrain(config).signal)

    results = {}
    for name, (title, learning_rate, layer_decay) in STARTS.items():
        folder, scratch = out / f"finetuned-{name}", name == "random"
        flags = f"--max-train 500 --epochs {EPOCHS:g} --dropout 0{' --from-scratch' if scratch else ''} "
        flags += f"--learning-rate {learning_rate:g} --layer-decay {layer_decay:g}"
        _title(title, f"electra finetune {run} --data {task} --out {folder} {flags}")
        given = FinetuneConfig(str(run), task, folder, epochs=EPOCHS, max_train=500, dropout=0.0)
        results[name] = finetune(
            dataclasses.replace(given, learning_rate=learning_rate, layer_decay=layer_decay, from_scratch=scratch)
        )
        _go_on_after(results[name]["signal"])
    return _report(results, packages, out, time.monotonic() - began)


def _done_before(folder: Path) -> bool:
    if folder.exists():
        print(f"{folder} is there already")
    return folder.exists()


def _go_on_after(signal: int | None) -> None:
    if signal is not None:
        raise ValueError(f"stopped by signal {signal}: run the same command again to go on")


def _title(stage: str, command: str) -> None:
    print(f"\n== {stage}\n   {command}\n", flush=True)


def _report(results: dict[str, dict[str, Any]], packages: list[str], out: Path, seconds: float) -> dict[str, float]:
    """The final table; returns the medians."""
    print("\n== Result: which package does this paragraph document? Dev accuracy of three seeds\n")
    print(f"   {'start':22} {'median':>8} {'mean':>8} {'sd':>7}   seeds")
    medians = {}
    for name, label in (("pretrained", "pre-trained by us"), ("random", "random weights")):
        summary = results[name]["summary"]["dev"]["accuracy"]
        values = [seed["dev"]["accuracy"] for seed in results[name]["trials"]]
        medians[name] = summary["median"]
        shown = "  ".join(f"{value:.3f}" for value in values)
        print(f"   {label:22} {summary['median']:8.3f} {summary['mean']:8.3f} {summary['std']:7.3f}   {shown}")
    print(f"   (guessing among {len(packages)} packages: about {1 / len(packages):.2f})")
    print(f"\n{duration(seconds)} in all. What is left to look at, below {out}:")
    for name, what in (
        ("corpus/, task/", "the text and the task"),
        ("vocab/, store/", "vocabulary and tokens: electra inspect " + str(out / "store")),
        ("run/", "curves in metrics.jsonl and tensorboard/, checkpoints/, Hugging Face models in export/"),
        ("finetuned-pretrained/", "results.md and model/, ready for electra predict or transformers"),
        ("finetuned-random/", "the comparison"),
    ):
        print(f"   {name:22} {what}")
    return medians


# ------------------------------------------------------------------------------------------------- text


def write_text_and_task(corpus: Path, task: Path) -> list[str]:
    """Write the pre-training text and the task's train.tsv and dev.tsv; returns the classes."""
    docstrings = list(standard_library_docstrings())
    packages = task_packages(docstrings)
    documents = write_corpus([text for package, text in docstrings if not is_dev(package, text, packages)], corpus)
    train, dev = (write_task(docstrings, packages, split, task / f"{split}.tsv") for split in ("train", "dev"))
    print(f"{documents:,} documents, {corpus.stat().st_size / 1e6:.1f} MB in {corpus}")
    print(f"task: {train:,} paragraphs to train on, {dev:,} to test on, which are not in that text;")
    print(f"      the answer is one of {', '.join(packages)}")
    return packages


def standard_library_docstrings() -> Iterator[Docstring]:
    """Docstrings of the standard library's sources, read without importing them, of built-in modules, and topics."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if "site-packages" in parts or "test" in parts or "tests" in parts or parts[0].startswith("config-"):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # lib2to3 keeps broken files on purpose
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and len(text.split()) >= 4:
                    yield parts[0].removesuffix(".py"), text
    for name in sorted(sys.builtin_module_names):
        module = __import__(name)
        for value in [module, *vars(module).values()]:
            text = getattr(value, "__doc__", None)
            if isinstance(text, str) and len(text.split()) >= 4:
                yield name, inspect.cleandoc(text)
    from pydoc_data.topics import topics

    for text in topics.values():
        yield "pydoc", text


def paragraphs(text: str) -> list[str]:
    """Paragraphs of prose as one line each."""
    return [" ".join(block.split()) for block in re.split(r"\n\s*\n", text) if block.strip()]


def write_corpus(texts: list[str], path: Path) -> int:
    """One paragraph a line, an empty line between documents, repeated documents once; returns their number."""
    unique = list(dict.fromkeys(texts))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, "w") as file:
        for text in unique:
            file.write("\n".join(paragraphs(text)) + "\n\n")
    return len(unique)


# ------------------------------------------------------------------------------------------------- task


def _examples(docstrings: list[Docstring]) -> Iterator[tuple[str, str, str]]:
    """(package, paragraph, docstring) for each paragraph of 8 to 80 words, once."""
    seen = set()
    for package, text in docstrings:
        for paragraph in paragraphs(text):
            if 8 <= len(paragraph.split()) <= 80 and paragraph not in seen:
                seen.add(paragraph)
                yield package, paragraph, text


def task_packages(docstrings: list[Docstring]) -> list[str]:
    """The packages with the most paragraphs, which are the classes."""
    counts = Counter(package for package, _, _ in _examples(docstrings) if package != "pydoc")
    return sorted(package for package, _ in counts.most_common(CLASSES))


def is_dev(package: str, text: str, packages: list[str]) -> bool:
    """Whether a docstring belongs to the dev set: decided by a hash of its text."""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    return package in packages and int.from_bytes(digest[:4], "big") < DEV_SHARE * 2**32


def write_task(docstrings: list[Docstring], packages: list[str], split: str, path: Path) -> int:
    """A TSV with columns text and label; returns the number of examples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic_file(path, "w") as file:
        file.write("text\tlabel\n")
        for package, paragraph, text in _examples(docstrings):
            if package in packages and is_dev(package, text, packages) == (split == "dev"):
                file.write(f"{paragraph}\t{package}\n")
                count += 1
    return count
