"""Every command and every piece of Python in the README, the tutorial and docs/python.md is run, on invented text.

The blocks are read from the Markdown. Commands run in this process, as they stand there, with flags after them that
make the networks small and the runs short; nothing is replaced by something else. What is not run is listed with its
reason.
"""

import json
import random
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import write_bundle
from google_checkpoints import pretraining
from pages import ROOT, Block, blocks, electra_arguments
from stores import tiny_vocabulary

from electra.cli import main

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(vocabulary has only|of the tokens are):UserWarning"
)  # so little text

SMALL = "--num-layers 1 --hidden-size 16 --num-heads 1 --intermediate-size 32 --embedding-size 16"
SHORTER = {
    "pretrain": f"{SMALL} --steps 2 --batch-size 4 --seq-len 64 --warmup-steps 1 --eval-rows 4 --log-every 1",
    "evaluate": "--rows 4",
    "report": "--rows 4",
    "app": "--space page",  # or it would serve until somebody stops it
    "finetune": "--seeds 0 --epochs 1 --batch-size 32",
}
NOT_RUN = {
    "pip install": "the tests run in an environment that has it",
    "make demo": "tests/test_demo.py runs the demo, shortened",
    "make test": "is this very command",
}


WORDS = ["the", "film", "plot", "actors", "music", "was", "with", "and", "very"]
OPINIONS = [("fine", "good"), ("great", "good"), ("dull", "bad"), ("slow", "bad")]


def reviews(count: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    return [(f"{' '.join(rng.choices(WORDS, k=6))} {word}", label) for word, label in rng.choices(OPINIONS, k=count)]


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_corpus(folder: Path) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("aeiou", k=2) + rng.choices("bdgklmnprst", k=rng.randint(1, 4))) for _ in range(300)]
    text = [*words, *WORDS, *dict(OPINIONS), "where", "is", "it", "in", "town"]
    for name in ("one", "two"):
        lines = []
        for _ in range(60):
            lines += [f"{' '.join(rng.choices(text, k=rng.randint(4, 12)))}." for _ in range(5)] + [""]
        write(folder / f"{name}.txt", lines)


def write_tasks(folder: Path) -> None:
    """Small files of SST-2, RTE, SQuAD 2.0, CoNLL-2000 and of a task of one's own, each in its own format."""
    for name, count in (("train", 32), ("dev", 8)):
        rows = reviews(count, len(name))
        write(folder / f"reviews/{name}.tsv", ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)])
        sentiment = [f"{text}\t{int(label == 'good')}" for text, label in rows]
        write(folder / f"glue/SST-2/{name}.tsv", ["sentence\tlabel", *sentiment])
        pairs = [f"{n}\t{text}\t{text}\t{('entailment', 'not_entailment')[n % 2]}" for n, (text, _) in enumerate(rows)]
        write(folder / f"glue/RTE/{name}.tsv", ["index\tsentence1\tsentence2\tlabel", *pairs])
        tagged = [f"{word} X {tag}" for word, tag in (("the", "B-NP"), ("film", "I-NP"), ("was", "B-VP"))]
        write(folder / f"conll2000/{name}.txt", [*tagged, ""] * count)
        passage = "the film is in the town"
        paragraphs = []
        for number in range(count):
            answers = [{"text": "town", "answer_start": passage.index("town")}] if number % 3 else []
            question = {"id": f"{name}{number}", "question": "where is it", "answers": answers}
            paragraphs.append({"context": passage, "qas": [question | {"is_impossible": not answers}]})
        content = {"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
        write(folder / f"squad/{name}-v2.0.json", [json.dumps(content)])
    write(folder / "reviews.txt", [text for text, _ in reviews(5, 9)])
    shutil.copy(folder / "reviews.txt", folder / "texts.txt")


def write_old_files(folder: Path) -> None:
    """A checkpoint of Google's, its vocabulary, and TFRecords made with that."""
    write_bundle(folder / "model.ckpt-1000000", pretraining() | {"global_step": np.array(1_000_000, "i8")})
    tiny_vocabulary(folder / "old", size=100)
    shutil.copy(folder / "old" / "vocab.txt", folder / "vocab.txt")
    assert main(["build", "corpus", "--vocab", "vocab.txt", "--out", "old/store"]) == 0
    records = "export old/store --format tfrecord --seq-len 64 --shards 2 --out pretrain_tfrecords"
    assert main(records.split()) == 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has before the first command."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpus")
    write_tasks(tmp_path)
    return tmp_path


def run_command(words: list[str]) -> None:
    command = shlex.join(words)
    if any(command.startswith(start) for start in NOT_RUN):
        return
    arguments = electra_arguments(words)
    assert arguments, f"{command}: neither a command of electra nor in NOT_RUN"
    extra = shlex.split(SHORTER.get(arguments[0], ""))
    if arguments[0] == "build" and Path(arguments[arguments.index("--out") + 1]).exists():
        extra.append("--overwrite")  # another example, in whose folder nothing was before
    assert main([*arguments, *extra]) == 0, command


def run_block(block: Block, page: Path) -> None:
    if block.language == "python":
        exec(compile(block.text, f"{page.name}:{block.line}", "exec"), {"__name__": "docs"})
    for words in block.commands():
        run_command(words)


def run_page(name: str) -> None:
    page = ROOT / name
    for block in blocks(page):
        run_block(block, page)


def test_readme(folder: Path) -> None:
    write_old_files(folder)
    run_page("README.md")
    assert json.loads((folder / "sst2-onnx" / "config.json").read_text())["architectures"]
    for made in ("run/report.html", "labels.tsv", "qa/model", "chunk/model", "all/results.md", "model"):
        assert (folder / made).exists(), made


def test_tutorial_and_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_page("docs/tutorial.md")
    assert "wrote run/report.html" in capsys.readouterr().out
    for made in ("sentiment/results.md", "sentiment-onnx/model.int8.onnx", "encoder/discriminator/README.md"):
        assert (folder / made).is_file(), made
    run_page("docs/python.md")
    assert (folder / "run-2" / "export" / "discriminator" / "model.safetensors").is_file()


def test_what_is_not_run_stands_in_a_page() -> None:
    commands = [
        shlex.join(words)
        for name in ("README.md", "docs/tutorial.md")
        for block in blocks(ROOT / name)
        for words in block.commands()
    ]
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in commands), start
