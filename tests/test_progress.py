"""The line of progress, on real pseudo-terminals of several widths, in logs, and under each verb that has one."""

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from test_predict import make_classifier

import electra.progress
from electra.cli import main
from electra.log import RunLog
from electra.progress import Pace, Progress, amount, counted

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A pseudo-terminal as a stream to write to; `lines` are the drawings of it since the last call."""

    def __init__(self, columns: int) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns)
        self.stream = os.fdopen(slave, "w", buffering=1, encoding="utf-8", newline="")
        os.set_blocking(self.master, False)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self) -> str:
        self.stream.flush()
        found = b""
        try:
            while part := os.read(self.master, 1 << 16):
                found += part
        except BlockingIOError:
            pass
        return found.decode()

    def drawings(self) -> list[str]:
        return [ANSI.sub("", part).rstrip() for part in re.split(r"[\r\n]+", self.read()) if ANSI.sub("", part)]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Terminal]:
    """Makes standard error a terminal of so many columns, which shows everything at once."""
    for name in ("NO_COLOR", "RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    at_once(monkeypatch)

    def make(columns: int) -> Terminal:
        made = Terminal(columns)
        monkeypatch.setattr(sys, "stderr", made.stream)
        return made

    return make


def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST", "EVERY", "LINE_FIRST", "LINE_LONGEST"):
        monkeypatch.setattr(electra.progress, name, 0.0)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (120, r"building   42%  ━{13}─{17}  0:\d\d left  12\.6 of 30\.0 MB  [\d,.]+ [MG]B/s"),
        (80, r"building   42%  ━{8}─{12}  0:\d\d left  12\.6 of 30\.0 MB  [\d,.]+ [MG]B/s"),
        (40, r"building   42%  0:\d\d left"),
        (12, r"building  …"),
    ],
)
def test_a_line_fits_the_terminal(terminal, columns, line):
    screen = terminal(columns)
    with Progress("building", "bytes", 30_000_000) as progress:
        time.sleep(0.02)
        progress.add(12_600_000)
        (drawn,) = screen.drawings()
    assert re.fullmatch(line, drawn) and cell_len(drawn) < columns
    assert screen.read() == "\r\x1b[K"  # nothing is left of it


def test_what_cannot_be_counted_shows_its_title(terminal, capsys):
    screen = terminal(80)
    with Progress("merging pieces"):
        assert screen.drawings() == ["merging pieces"]
    assert screen.read() == "\r\x1b[K"


def test_a_line_follows_the_window(terminal):
    screen = terminal(100)
    with Progress("reading", "rows", 50) as progress:
        for columns in (100, 30, 60):
            screen.resize(columns)
            progress.add(5)
            assert all(0 < cell_len(line) < columns for line in screen.drawings())


def test_colours_only_where_they_are_wanted(terminal, monkeypatch):
    for no_color, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        screen = terminal(80)
        with Progress("reading", "rows", 2) as progress:
            progress.add(1)
            assert ("\x1b[36m" in screen.read()) == coloured


def test_a_dumb_terminal_and_a_file_get_plain_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    streams = [terminal(80), io.StringIO()]
    for stream in streams:
        monkeypatch.setattr(sys, "stderr", stream.stream if isinstance(stream, Terminal) else stream)
        with Progress("reading", "rows", 4) as progress:
            time.sleep(0.02)
            progress.add(1)
            progress.add(3)
    for text in (streams[0].read().replace("\r\n", "\n"), streams[1].getvalue()):
        assert re.fullmatch(
            r"reading: 1 of 4 rows \(25%\), [\d,.]+ rows/s, 0:\d\d left\n"
            r"reading: 4 of 4 rows \(100%\), [\d,.]+ rows/s, 0:00 left\n",
            text,
        )


def test_an_encoding_without_blocks_does_not_stop_the_work(terminal):
    screen = terminal(80)
    screen.stream.reconfigure(encoding="ascii")
    with Progress("reading", "rows", 2) as progress:
        progress.add(1)
    assert "????" in screen.read()


def test_work_of_a_moment_says_nothing(capsys):
    for item in counted(range(1000), "reading", "rows", [1] * 1000, 1000):
        assert item >= 0
    assert capsys.readouterr() == ("", "")


def test_lines_of_a_log_become_rare(monkeypatch):
    """A day's log has a few hundred of them, an hour's not a hundred; a terminal is drawn four times a second."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace, said = Pace(on_terminal=False), []
    while now < 86_400:
        now += 1.0
        if pace.is_due():
            said.append(now)
    assert said[:3] == [10.0, 20.0, 30.0] and sum(at < 3600 for at in said) < 100 < len(said) < 300
    assert max(after - before for before, after in itertools.pairwise(said)) <= 601
    now = 0.0
    pace = Pace(on_terminal=True)
    due = []
    for tick in range(300):
        now = tick / 100
        if pace.is_due():
            due.append(now)
    assert due == [1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75]


def test_speed_leaves_out_what_was_done_before(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with Progress("building", "bytes") as progress:
        now = 5.0
        progress.show(400_000_000, 1_000_000_000)
        now = 15.0
        progress.show(500_000_000, 1_000_000_000)
    assert capsys.readouterr().err == "building: 0.50 of 1.00 GB (50%), 10.0 MB/s, 0:50 left\n"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((12_345_678, "bytes", 98_765_432), "12.3 of 98.8 MB"),
        ((12_345_678, "bytes", 9_876_543_210), "0.01 of 9.88 GB"),
        ((1024, "rows", 4096), "1,024 of 4,096 rows"),
        ((7, "inputs", 0), "7 inputs"),
        ((0.3125, "rows", 0), "0.31 rows"),
    ],
)
def test_amounts(given, text):
    assert amount(*given) == text


def test_parts_move_the_line_of_the_whole(monkeypatch, capsys):
    """Two models answer four inputs each: a quarter of eight is done when the first is in the middle of the second."""
    at_once(monkeypatch)
    with Progress("answering", "inputs", 8) as whole:
        whole.expect(4, parts=2)
        for _ in range(2):
            for _ in counted(range(2), "tokens of a part", "tokens", [50, 50], 100):
                pass
        whole.add(4)
    shown = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == [f"answering: {done} of 8 inputs ({share}%)" for done, share in
                     ((1, 12), (2, 25), (3, 38), (4, 50), (4, 50))]  # fmt: skip


def test_another_thread_says_nothing_meanwhile(monkeypatch, capsys):
    at_once(monkeypatch)
    with Progress("answering", "inputs", 2) as progress:
        other = threading.Thread(target=lambda: list(counted([1], "encoding", "texts", [1], 1)))
        other.start()
        other.join()
        progress.add(1)
    assert "encoding" not in (shown := capsys.readouterr().err) and "1 of 2" in shown


@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID"])
def test_the_first_process_alone_speaks(monkeypatch, capsys, name):
    at_once(monkeypatch)
    for rank, speaks in (("0", True), ("1", False)):
        monkeypatch.setenv(name, rank)
        with Progress("reading", "rows", 1) as progress:
            progress.add(1)
        assert bool(capsys.readouterr().err) == speaks


def test_a_run_has_one_line_between_its_sentences(terminal, monkeypatch):
    """Drawn at each step, with the metrics of the last log step; sentences stand above it, an evaluation in it."""
    screen = terminal(60)
    monkeypatch.setattr(sys, "stdout", screen.stream)
    log = RunLog(None, phases=[(100, 1.0)])
    log.progress(1)
    log.metrics(2, {"loss": 3.25, "tokens_per_second": 12345.0})
    log.progress(3)
    assert screen.drawings() == [
        "step 1/100    1%  " + 30 * "─" + "  0:00 left",
        "step 3/100    3%  0:00 left  12,345 tok/s  loss 3.25",
    ]
    list(counted([1], "evaluating", "rows", [1], 1))
    log.metrics(3, {"loss": 3.5}, kind="eval")
    text = screen.read()
    assert "evaluating  100%" in ANSI.sub("", text) and text.endswith("\r\x1b[Kstep 3 eval: loss 3.5\r\n")
    log.progress(4)
    log.close()
    assert screen.read().endswith("\r\x1b[K")


def test_lines_of_a_run_in_a_log(capsys):
    """One for each log step, and nothing between."""
    log = RunLog(None, phases=[(1000, 1.0)])
    for step in range(1, 1001):
        if step % 500 == 0:
            log.metrics(step, {"loss": 1.0})
        log.progress(step)
    log.close()
    shown = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["step 500/1,000", "step 1,000/1,000"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n\nagain and again it does\n\n" * 500)
    return path


def test_verbs_about_text(corpus, tmp_path, monkeypatch, capsys):
    """vocab reads, counts and merges; build encodes; both say so on standard error."""
    at_once(monkeypatch)
    assert main(["vocab", str(corpus), "--out", str(tmp_path / "vocab"), "--size", "60", "--unused", "0"]) == 0
    shown = capsys.readouterr()
    size = corpus.stat().st_size / 1e6
    for title in ("reading the corpus", "counting characters", "counting words"):
        assert re.search(rf"^{title}: 0\.0 of 0\.0 MB \(\d+%\)", shown.err, re.M), (title, size)
    assert "reading" not in shown.out
    assert main(["build", str(corpus), "--vocab", str(tmp_path / "vocab"), "--out", str(tmp_path / "store")]) == 0
    shown = capsys.readouterr()
    assert re.search(r"^building: 0\.0 of 0\.0 MB \(100%\)", shown.err, re.M) and "building" not in shown.out
    assert main(["inspect", str(tmp_path / "store"), "--verify"]) == 0
    assert re.search(r"^checking the store: \d\.\d of \d\.\d MB \(100%\)", capsys.readouterr().err, re.M)


def test_predictions_are_not_mixed_with_progress(tmp_path, monkeypatch, capsys):
    model = make_classifier(tmp_path / "model")
    capsys.readouterr()
    (tmp_path / "in.txt").write_text("a film\n" * 50)
    arguments = ["predict", str(model), str(tmp_path / "in.txt"), "--device", "cpu"]
    assert main(arguments) == 0
    quiet = capsys.readouterr()
    at_once(monkeypatch)
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out == quiet.out and quiet.err == ""
    assert re.search(r"^answering: 50 of 50 inputs \(100%\), [\d,.]+ inputs/s, 0:00 left$", shown.err, re.M)


def test_totals_are_known_where_lines_tell(tmp_path, monkeypatch):
    from electra.config import PredictConfig
    from electra.tasks.streams import count_texts

    def count(name: str, text: str, **options: str) -> int:
        (tmp_path / name).write_text(text)
        return count_texts(PredictConfig(model="m", file=tmp_path / name, **options))

    assert count("a.txt", "one\n\nthree") == 3
    assert count("a.tsv", "text\nx\n\ny\n", column="text") == 2
    assert count("a.jsonl", '{"text": "x"}\n\n{"text": "y"}', column="text") == 2
    assert count("a.csv", 'text\n"x\ny"\n', column="text") == 0
    assert count_texts(PredictConfig(model="m")) == 0
    assert count_texts(PredictConfig(model="m", text=("a", "b"))) == 2


def test_a_warning_and_an_error_have_lines_of_their_own():
    """Also while a line stands: a real process on a real terminal."""
    code = """
import sys, warnings
import electra.progress
from electra import cli
from electra.progress import Progress
electra.progress.FIRST = electra.progress.EVERY = 0.0
def verb(arguments):
    with Progress("building", "rows", 2) as progress:
        progress.add(1)
        warnings.warn("mind this")
        progress.add(1)
        raise ValueError("it failed")
cli.VERBS = {"build": verb}
sys.exit(cli.main(["build"]))
"""
    screen = Terminal(80)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stderr=screen.stream,
        stdout=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm", "PYTHONPATH": os.getcwd()},
    )
    text = screen.read()
    assert done.returncode == 2
    assert "\r\x1b[Kelectra: warning: mind this\r\n" in text and "\r\x1b[Kelectra: it failed\r\n" in text
