"""The command line: verbs -> functions. `electra VERB --help` explains each.

The files of this folder parse and report; the work is in the module a verb is named after, imported only when its verb
is called, so that `electra --help` needs no torch. A user's mistake ends in one sentence and exit code 2; `--debug`
shows the traceback.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Callable

from electra import __version__
from electra.cli.data import build, inspect, vocab
from electra.cli.finetuning import compare, finetune, predict
from electra.cli.launching import launch
from electra.cli.machine import demo, doctor
from electra.cli.parsing import Arguments
from electra.cli.pretraining import convert, evaluate, export, pretrain, push
from electra.cli.reporting import app, report
from electra.terminal import clear

VERBS: dict[str, Callable[[Arguments], int]] = {
    verb.__name__: verb
    for verb in (
        demo, vocab, build, inspect, pretrain, evaluate, report, export, push, convert, finetune, compare, predict, app,
        launch, doctor,
    )
}  # fmt: skip


def help_text() -> str:
    lines = [f"    {name:10} {(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            f"electra {__version__}: train your own text encoder by replaced-token detection",
            "",
            "usage: electra VERB [...]       electra VERB --help explains a verb",
            "",
            *lines,
            "",
            "--debug shows the traceback of an error; --version prints the version.",
        ]
    )


def main(argv: Arguments | None = None) -> int:
    """Run a verb; returns the exit code: 0, 2 for a user's mistake, 128 + signal when stopped by one."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    else:  # a sentence, without the line of code that it comes from
        warnings.formatwarning = _warning
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # a log file is to be read while the run goes on
    try:
        if arguments == ["--version"]:
            print(__version__)
            return 0
        if not arguments or arguments[0] in ("-h", "--help"):
            print(help_text())
            return 0
        if arguments[0] not in VERBS:
            raise ValueError(f"unknown verb {arguments[0]!r}: the verbs are {', '.join(VERBS)}")
        return VERBS[arguments[0]](arguments[1:])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) has left
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if debug or (isinstance(error, RuntimeError) and not _tells_of_memory(error)):
            raise
        return _fail(_sentence(error))


def _tells_of_memory(error: RuntimeError) -> bool:
    """torch.OutOfMemoryError of an accelerator, or what torch raises when the system gives it no memory."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: " in str(error)


def _warning(message: Warning | str, *_: object, **__: object) -> str:
    clear()
    return f"electra: warning: {message}\n"


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full{f' ({error.filename})' if error.filename else ''}: free some space and try again"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"the memory is full{f' ({error})' if str(error) else ''}: free some, or ask for less at a time"
    if isinstance(error, RuntimeError):
        wanted = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        return (
            f"the memory of the device is full{f' ({wanted[1]} more were wanted)' if wanted else ''}: take fewer rows "
            "at a time (--micro-batch-size, for predict --batch-tokens), shorter rows or a smaller model"
        )
    return str(error)


def _fail(sentence: str, code: int = 2) -> int:
    clear()
    print(f"electra: {sentence}", file=sys.stderr)
    return code
