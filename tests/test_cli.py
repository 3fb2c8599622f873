"""The command line as a user meets it: help, sentences instead of tracebacks, exit codes."""

import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from electra.cli import VERBS, main


def run(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "electra", *arguments], capture_output=True, text=True, **kwargs)


def test_help_needs_no_torch():
    code = "import sys; from electra.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    for verb in VERBS:
        assert f"    {verb} " in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"electra {verb}" in " ".join(capsys.readouterr().out.replace("Example:", "").split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fly"], "unknown verb 'fly'"),
        (["pretrain", "enormous"], "preset 'enormous' is unknown: the presets are tiny, electra-small"),
        (["pretrain", "tiny"], "pretrain needs --data"),
        (["pretrain", "tiny", "--data", "nowhere", "--out", "run"], "nowhere"),
        (["pretrain", "--config", "absent.toml"], "absent.toml does not exist"),
        (["pretrain", "--config"], "--config needs a file"),
        (["vocab", "nowhere", "--out", "v"], "nowhere"),
        (["inspect", "nowhere"], "nowhere does not exist"),
        (["evaluate", "nowhere"], "nowhere"),
        (["export", "nowhere", "--out", "model"], "nowhere"),
        (["predict", "nowhere/at/all", "--text", "hello"], "nowhere/at/all does not exist"),
        (["finetune", "nowhere/at/all", "--data", "d", "--out", "o", "--task", "chess"], "chess"),
    ],
)
def test_mistakes_are_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_impossible_flag_values_leave_no_traceback(tmp_path):
    done = run("pretrain", "tiny", "--data", "s", "--out", "r", "--mask-prob", "1.5", cwd=tmp_path)
    assert done.returncode == 2
    assert "objective.mask_prob must be between 0 and 1" in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr


def test_want_of_memory_is_a_sentence(monkeypatch, capsys):
    """Real refusals of numpy and of torch; that of an accelerator as torch words it."""
    cuda = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of ...")
    for verb, sentence in (
        (lambda arguments: np.empty(1 << 50), "the memory is full (Unable to allocate 8.00 PiB"),
        (lambda arguments: torch.empty(1 << 50), "full (4503599627370496 bytes more were wanted): take fewer rows"),
        (Mock(side_effect=cuda), "full (20.00 GiB more were wanted): take fewer rows"),
    ):
        monkeypatch.setitem(VERBS, "build", verb)
        assert main(["build"]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1
    monkeypatch.setitem(VERBS, "build", Mock(side_effect=RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes"):  # our own mistake keeps its traceback
        main(["build"])


def test_debug_shows_the_traceback(tmp_path):
    done = run("--debug", "inspect", "nowhere", cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_version():
    from electra import __version__

    assert run("--version").stdout.strip() == __version__


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    """`electra ... | head -1` must not end in a traceback."""
    command = f"{sys.executable} -m electra --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
