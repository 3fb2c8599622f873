"""Corpus -> store: equal to a naive reader, whatever the blocks and the processes; failures leave nothing behind."""

import dataclasses
import errno
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import Document, read_documents

from electra import encoding, portions
from electra.build import build
from electra.config import BuildConfig
from electra.store import Store
from electra.tokenizer import load_tokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh.", *(f"##{letter}" for letter in "abcdefgh")]
NO_TOKENS = "\u200b"  # a character that the normaliser removes: a line, but one without tokens


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def config(tmp_path: Path, vocab: Path) -> BuildConfig:
    (tmp_path / "corpus").mkdir()
    return BuildConfig(
        corpus=(str(tmp_path / "corpus"),), vocab=vocab, out=tmp_path / "store", processes=1, held_out=0.1
    )


def random_text(draw: random.Random, lines: int) -> str:
    def words() -> str:
        return " ".join(draw.choices(["abc", "de.", "f", "gh"], k=draw.randint(1, 6)))

    kinds: list[Callable[[], str]] = [words, str, lambda: NO_TOKENS]
    ends = draw.choices(["\n", "\r\n", " \n"], weights=[8, 1, 1], k=lines)
    return "".join(draw.choices(kinds, weights=[8, 2, 1])[0]() + end for end in ends)[: draw.choice([None, -1])]


def naive(texts: list[str], vocab: Path) -> list[Document]:
    """What `read_documents` should find if `texts` are the contents of the plain files, in order."""
    vocabulary = load_tokenizer(vocab)
    found: list[Document] = []
    for text in texts:
        document: list[list[int]] = []
        for line in [*text.split("\n"), ""]:
            if not line.strip():
                found += [document] if document else []
                document = []
            elif ids := vocabulary.encode_batch([line])[0]:
                document.append(ids)
    return found


def checksums(store: Store) -> str:
    return json.dumps([store.summary["shards"], store.summary["held_out"], store.summary["files"]])


# ------------------------------------------------------------------------------------------------- right results


def test_equals_a_naive_reader_wherever_blocks_end(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Path(config.corpus[0])
    for seed in range(60):
        draw = random.Random(seed)
        texts = [random_text(draw, draw.randint(1, 30)) for _ in range(3)]
        for number, text in enumerate(texts):
            (corpus / f"{number}.txt").write_bytes(text.encode())
        # The second file once more, as a stream instead of byte ranges.
        (corpus / "3.txt.gz").write_bytes(gzip.compress(texts[1].encode()))
        expected = naive([*texts, texts[1]], config.vocab)
        if not expected:
            continue
        monkeypatch.setattr(encoding, "BLOCK_BYTES", draw.choice([1, 3, 10, 40, 1000]))
        summary = build(dataclasses.replace(config, overwrite=True))
        store = Store.open(config.out)
        assert read_documents(store) == expected
        assert (summary["documents"], summary["lines"]) == (len(expected), sum(map(len, expected)))
        assert summary["tokens"] == sum(len(line) for document in expected for line in document)


def test_the_number_of_processes_changes_nothing(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, draw = Path(config.corpus[0]), random.Random(7)
    texts = [random_text(draw, 900), random_text(draw, 50), "abc " * 3000]
    for number, text in enumerate(texts):
        (corpus / f"{number}.txt").write_bytes(text.encode())
    records = [{"text": "abc\nde"}, {"text": ""}, {"text": "f\n\ngh"}] * 300
    (corpus / "records.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 700)
    found = {}
    for processes in (1, 2, 3):
        calls: list[tuple[int, int]] = []
        out = config.out.with_name(f"store{processes}")
        replaced = dataclasses.replace(config, out=out, processes=processes)
        summary = build(replaced, progress=lambda done, total, calls=calls: calls.append((done, total)))  # type: ignore[misc]
        assert summary["build"]["processes"] == processes
        size = sum(file.stat().st_size for file in corpus.iterdir())
        assert [done for done, _ in calls] == sorted(done for done, _ in calls) and calls[-1] == (size, size)
        found[checksums(Store.open(out))] = read_documents(Store.open(out))
    assert len(found) == 1
    (documents,) = found.values()
    plain = naive(texts, config.vocab)
    assert documents[: len(plain)] == plain
    assert documents[len(plain) :] == naive(["abc\nde\n\nf\ngh\n"] * 300, config.vocab)


def test_one_line_is_a_corpus(config: BuildConfig) -> None:
    (Path(config.corpus[0]) / "a.txt").write_text("abc de")
    summary = build(config)
    assert (summary["documents"], summary["lines"], summary["tokens"]) == (1, 1, 5)
    assert summary["sources"] == [{"path": str(Path(config.corpus[0]) / "a.txt"), "bytes": 6}]
    assert load_tokenizer(config.out).sha256 == summary["vocabulary"]["sha256"] == load_tokenizer(config.vocab).sha256


def test_large_vocabularies_are_stored_in_32_bits(config: BuildConfig) -> None:
    config.vocab.write_text("\n".join([*PIECES, *(f"w{number}" for number in range(1 << 16))]))
    (Path(config.corpus[0]) / "a.txt").write_text("abc w65535 de")
    assert build(config)["dtype"] == "uint32"
    assert read_documents(Store.open(config.out)) == naive(["abc w65535 de"], config.vocab)


def test_on_error_is_obeyed_and_counted(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 4)
    data = b"abc\n" * 3000 + b"d\xffe\nf\n"
    (Path(config.corpus[0]) / "a.txt").write_bytes(data)
    (Path(config.corpus[0]) / "b.txt.gz").write_bytes(gzip.compress(data))
    with pytest.raises(ValueError, match=r"a.txt: byte 12001 is not UTF-8"):
        build(config)
    summary = build(dataclasses.replace(config, on_error="skip"))
    assert (summary["build"]["lines_skipped"], summary["build"]["lines_replaced"]) == (2, 0)
    assert summary["lines"] == 6002
    summary = build(dataclasses.replace(config, on_error="replace", overwrite=True))
    assert (summary["build"]["lines_skipped"], summary["build"]["lines_replaced"]) == (0, 2)
    assert summary["lines"] == 6004 and summary["options"]["on_error"] == "replace"


def test_files_that_cannot_be_read_are_left_out_and_in_the_receipt(config: BuildConfig) -> None:
    folder = Path(config.corpus[0])
    (folder / "a.txt").write_text("abc de\n")
    (folder / "b.txt").write_bytes(b"\x7fELF\0\0")
    (folder / "c.txt.gz").write_bytes(gzip.compress(b"de\n" * 9)[:-9])
    (folder / "d.jsonl").write_text('{"text": "abc"}\nno json\n')
    (folder / "e.csv").write_text("body\nabc\n")
    (folder / "f.txt").write_text("abc\n")
    with pytest.raises(ValueError, match=r"b.txt is not UTF-8 text but binary"):
        build(config)
    assert not config.out.exists()
    with pytest.warns(UserWarning, match=r"b.txt is not UTF-8 text.*\(and 2 more files were not read, or not to"):
        summary = build(dataclasses.replace(config, on_error="skip"))
    left_out = json.loads((config.out / "store.json").read_text())["left_out"]
    assert (left_out["lines_replaced"], left_out["lines_skipped"]) == (0, 1)
    assert [re.search(r"[bce]\.(txt|csv)", fault)[0] for fault in left_out["faults"]] == ["b.txt", "c.txt", "e.csv"]
    assert (summary["build"]["lines_skipped"], summary["build"]["files_not_read_whole"]) == (1, 3)
    assert read_documents(Store.open(config.out))[0] == naive(["abc de"], config.vocab)[0]


def test_a_file_that_changes_while_it_is_read_is_noticed(config: BuildConfig) -> None:
    path = Path(config.corpus[0]) / "a.txt"
    path.write_text("abc\n")

    def grow(done: int, total: int) -> None:
        with open(path, "a") as file:
            file.write("de\n")

    with pytest.raises(ValueError, match=r"a.txt changed while it was read"):
        build(config, grow)
    assert not config.out.exists()
    with pytest.warns(UserWarning, match=r"a.txt changed while it was read"):
        build(dataclasses.replace(config, on_error="skip"), grow)


def test_what_is_no_file_and_what_is_missing(config: BuildConfig) -> None:
    folder = Path(config.corpus[0])
    (folder / "dir.txt").mkdir()
    (folder / "dir.txt" / "a.txt").write_text("abc de\n")
    os.mkfifo(folder / "pipe.txt")
    assert build(config)["sources"] == [{"path": str(folder / "dir.txt" / "a.txt"), "bytes": 7}]
    with pytest.raises(ValueError, match=r"pipe.txt is a pipe or a device"):  # and does not wait for it
        build(dataclasses.replace(config, corpus=(str(folder / "pipe.txt"),), overwrite=True))
    (folder / "gone.txt").symlink_to("nowhere")
    config = dataclasses.replace(config, overwrite=True)
    with pytest.raises(OSError, match=r"gone.txt"):
        build(config)
    with pytest.warns(UserWarning, match=r"gone.txt"):
        summary = build(dataclasses.replace(config, on_error="skip"))
    assert summary["build"]["files_not_read_whole"] == len(summary["left_out"]["faults"]) == 1
    assert summary["tokens"] == 5


AS_NOBODY = """
import os, secrets, sys
from pathlib import Path
from electra import build, cli, config

corpus, vocab, out, on_error = sys.argv[1:]
given = config.BuildConfig(corpus=(corpus,), vocab=Path(vocab), out=Path(out), on_error=on_error, processes=1)
if os.geteuid() == 0:  # who may read everything
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
try:
    print(build.build(given)["left_out"])
except (ValueError, OSError) as error:
    print(cli._sentence(error))
"""


def test_what_may_not_be_read(config: BuildConfig, tmp_path: Path) -> None:
    folder = Path(config.corpus[0])
    (folder / "a.txt").write_text("abc de\n")
    (folder / "b.txt").write_text("abc de\n")
    (folder / "b.txt").chmod(0)
    for path in tmp_path.parents[:-2]:
        path.chmod(path.stat().st_mode | 0o755)
    tmp_path.chmod(0o777)

    def run(on_error: str) -> str:
        command = [sys.executable, "-c", AS_NOBODY, str(folder), str(config.vocab), str(config.out), on_error]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run("fail") == f"{folder}/b.txt: Permission denied\n"
    assert not config.out.exists() and not Path(f"{config.out}.building").exists()
    assert f"Permission denied: '{folder}/b.txt'" in run("skip")
    assert Store.open(config.out).num_tokens == 5
    (folder / "closed").mkdir(mode=0)
    shutil.rmtree(config.out)
    assert run("skip") == f"{folder}/closed: Permission denied\n"  # what it holds is not known


@pytest.mark.parametrize("on_error", ["fail", "replace", "skip"])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_truncated_file_in_the_middle_of_a_list(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch, on_error: Any, processes: int
) -> None:
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 400_000)
    folder, lines = Path(config.corpus[0]), ["abc de"] * 200_000
    (folder / "a.txt").write_text("abc\n" * 2000)
    packed = gzip.compress("\n".join(lines).encode())
    (folder / "b.txt.gz").write_bytes(packed[:-9])
    (folder / "c.txt").write_text("de\n" * 2000)
    config = dataclasses.replace(config, on_error=on_error, processes=processes, held_out=0)
    if on_error == "fail":
        with pytest.raises(ValueError, match=r"b.txt.gz is damaged or cut short"):
            build(config)
        assert not config.out.exists() and not Path(f"{config.out}.building").exists()
        return
    with pytest.warns(UserWarning, match=r"b.txt.gz is damaged or cut short"):
        assert build(config)["build"]["files_not_read_whole"] == 1
    first, second, third = read_documents(Store.open(config.out))
    assert [first, third] == naive(["abc\n" * 2000, "de\n" * 2000], config.vocab)
    assert 0 < len(second) < 200_000 and [second] == naive(["\n".join(lines[: len(second)])], config.vocab)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("documents", "expected"), [("blank-lines", [2, 1, 1]), ("lines", [1, 1, 1, 1]), ("files", [3, 1])]
)
def test_what_ends_a_document_is_obeyed(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch, processes: int, documents: Any, expected: list[int]
) -> None:
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 5)
    folder = Path(config.corpus[0])
    (folder / "a.txt").write_text("abc\nde\n\nabc\n")
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"de\n"))
    build(dataclasses.replace(config, documents=documents, processes=processes, held_out=0))
    store = Store.open(config.out)
    assert np.diff(store.shards[0].documents).tolist() == expected and store.num_tokens > 0


@pytest.mark.filterwarnings("ignore:.*UNK")
@pytest.mark.parametrize("processes", [1, 2])
def test_lines_are_split_into_sentences(config: BuildConfig, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 30)
    text = "Abc de. Gh e.g. ab! Cd\nDr. Gh ab. De\n\nAb cd. Ef"
    (Path(config.corpus[0]) / "a.txt").write_text(text)
    config = dataclasses.replace(config, processes=processes, held_out=0)
    build(config)
    whole = read_documents(Store.open(config.out))
    build(dataclasses.replace(config, sentences="en", overwrite=True))
    found = read_documents(Store.open(config.out))
    split = "Abc de.\nGh e.g. ab!\nCd\nDr. Gh ab.\nDe\n\nAb cd.\nEf"
    assert found == naive([split], config.vocab) and [len(document) for document in found] == [5, 2]
    joined = [[[token for line in document for token in line] for document in store] for store in (found, whole)]
    assert joined[0] == joined[1]


# ------------------------------------------------------------------------------------------------------ failures


def test_many_unknown_tokens_are_warned_of(config: BuildConfig) -> None:
    (Path(config.corpus[0]) / "a.txt").write_text("abc xyz de")
    with pytest.warns(UserWarning, match=r"16.7% of the tokens are \[UNK\]: does the vocabulary .*vocab.txt fit"):
        summary = build(config)
    assert summary["build"]["unknown_share"] == pytest.approx(1 / 6)


def test_an_empty_corpus_leaves_nothing(config: BuildConfig) -> None:
    for content in ("", "\n\n  \n", f"{NO_TOKENS}\n"):
        (Path(config.corpus[0]) / "a.txt").write_text(content)
        with pytest.raises(ValueError, match="the corpus holds no text"):
            build(config)
    assert sorted(path.name for path in config.out.parent.iterdir()) == ["corpus", "vocab.txt"]


def test_nothing_is_overwritten(config: BuildConfig) -> None:
    (Path(config.corpus[0]) / "a.txt").write_text("abc")
    build(config)
    (Path(config.corpus[0]) / "a.txt").write_text("abc de")
    with pytest.raises(ValueError, match="store exists already"):
        build(config)
    assert build(dataclasses.replace(config, overwrite=True))["tokens"] == 5


def test_a_failing_worker_leaves_nothing(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 2000)
    (Path(config.corpus[0]) / "a.txt").write_bytes(b"abc\n" * 5000 + b"\xff\n" + b"abc\n" * 5000)
    with pytest.raises(ValueError, match=r"a.txt: byte 20000 is not UTF-8"):
        build(dataclasses.replace(config, processes=2))
    assert sorted(path.name for path in config.out.parent.iterdir()) == ["corpus", "vocab.txt"]


def test_an_error_in_a_worker_arrives_as_it_was(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 2000)
    path = Path(config.corpus[0]) / "a.txt"
    path.write_bytes(b"abc\n" * 50_000)
    with pytest.raises(FileNotFoundError) as caught:
        build(dataclasses.replace(config, processes=2), progress=lambda done, total: path.unlink(missing_ok=True))
    assert "in encode" in caught.value.__notes__[0]
    assert not config.out.exists()


@pytest.mark.skipif(not Path("/proc/mounts").exists(), reason="needs tmpfs")
def test_a_full_disk_is_named_and_the_build_goes_on_afterwards(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("may not mount a tmpfs")
    try:
        monkeypatch.setattr(portions, "PORTION_BYTES", 40_000)
        for number in range(6):
            (Path(config.corpus[0]) / f"{number}.txt").write_text(f"{'abcdefgh'[number]} de f\n\n" * 5_000)
        expected = build(config)["shards"]
        config = dataclasses.replace(config, out=small / "store")
        with pytest.raises(OSError) as caught, pytest.warns(UserWarning, match=r"[1-5] of 6 portions are finished"):
            build(config)
        assert caught.value.errno == errno.ENOSPC and not config.out.exists()
        assert not list(small.rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert build(config)["shards"] == expected and [path.name for path in small.iterdir()] == ["store"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


BUILD = """
import sys
from pathlib import Path
from electra import build, encoding
from electra.config import BuildConfig

if __name__ == "__main__":
    encoding.BLOCK_BYTES = 100_000
    corpus, vocab, out = sys.argv[1:]
    progress = lambda done, total: print(done, flush=True)
    build.build(BuildConfig(corpus=(corpus,), vocab=Path(vocab), out=Path(out), processes=2), progress)
"""


@pytest.fixture
def running(config: BuildConfig, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a build of some seconds with two workers, and wait until it has written something."""
    (Path(config.corpus[0]) / "a.txt").write_text("abc de. f gh abc de. f gh\n" * 1_500_000)
    script = tmp_path / "script.py"
    script.write_text(BUILD)
    started = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, str(script), config.corpus[0], str(config.vocab), str(config.out)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell starts background jobs with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline()
        return process

    yield start
    for process in started:
        for left in processes_of_session(process.pid):
            os.kill(left, signal.SIGKILL)


def processes_of_session(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(entry.name)] if state != "Z" else []
        except OSError:
            continue
    return found


def wait_until_gone(session: int) -> None:
    deadline = time.monotonic() + 20
    while processes_of_session(session):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_ctrl_c_leaves_nothing(running: Callable[[], subprocess.Popen[str]], config: BuildConfig) -> None:
    process = running()
    os.killpg(process.pid, signal.SIGINT)  # the whole group, as a terminal does
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0 and errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert errors.count("Traceback") == 1
    wait_until_gone(process.pid)
    assert sorted(path.name for path in config.out.parent.iterdir()) == ["corpus", "script.py", "vocab.txt"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_no_process_outlives_a_killed_one(running: Callable[[], subprocess.Popen[str]], config: BuildConfig) -> None:
    process = running()
    assert len(processes_of_session(process.pid)) >= 3
    process.kill()
    process.communicate(timeout=30)
    wait_until_gone(process.pid)
    # A worker that is killed, as the kernel does when memory runs out, ends the build instead of hanging it.
    process = running()
    workers = [pid for pid in processes_of_session(process.pid) if pid != process.pid]
    os.kill(max(workers), signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert "ValueError: a worker process died" in errors
    assert not config.out.exists()
    wait_until_gone(process.pid)
