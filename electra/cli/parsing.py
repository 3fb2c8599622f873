"""Arguments -> dataclasses, and a dictionary -> lines on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from electra.interop.google_config import Hparams

Config = TypeVar("Config")
Arguments = Sequence[str]


def parse(kind: type[Config], verb: str, example: str, arguments: Arguments, default: Config | None = None) -> Config:
    """Flags -> dataclass through tyro; sections give flat flags: --learning-rate, not --optimizer.learning-rate."""
    import tyro

    doc = (kind.__doc__ or "").strip()
    return tyro.cli(
        kind,
        prog=f"electra {verb}",
        description=f"{doc}\n\nExample: {example}",
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
        default=tyro.MISSING_NONPROP if default is None else default,
    )


def parse_known(kind: type[Config], verb: str, example: str, arguments: Arguments) -> tuple[Config, list[str]]:
    """As `parse`, with the arguments that are not of this kind."""
    import tyro

    return tyro.cli(
        kind,
        prog=f"electra {verb}",
        description=f"{(kind.__doc__ or '').strip()}\n\nExample: {example}",
        args=list(arguments),
        config=(tyro.conf.HelptextFromCommentsOff, tyro.conf.FlagCreatePairsOff),
        return_unknown_args=True,
    )


def take(arguments: list[str], flag: str, what: str) -> str | None:
    """Remove a flag that no dataclass knows and its value from the arguments; returns the value."""
    if flag not in arguments:
        return None
    place = arguments.index(flag)
    if place + 1 == len(arguments):
        raise ValueError(f"{flag} needs {what}")
    value = arguments[place + 1]
    del arguments[place : place + 2]
    return value


def google_hparams(arguments: list[str], verb: Literal["pretrain", "finetune"]) -> Hparams | None:
    """Remove and read --google-hparams."""
    text = take(arguments, "--google-hparams", "a JSON file, or a JSON text in quotes")
    if text is None:
        return None
    from electra.interop.google_config import FINETUNING, PRETRAINING, read_hparams

    return read_hparams(text, PRETRAINING if verb == "pretrain" else FINETUNING)


def print_summary(values: dict[str, Any]) -> None:
    """A flat dictionary as aligned lines."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        if isinstance(value, float):
            text = f"{value:.4g}"
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        print(f"{name.replace('_', ' '):{width}}  {text}")
