"""Verbs about tasks: finetune, compare, predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from electra.cli.parsing import Arguments, google_hparams, parse, take

if TYPE_CHECKING:
    from electra.config import FinetuneConfig
    from electra.interop.google_config import Hparams


def finetune_config_of(arguments: Arguments) -> tuple[FinetuneConfig, Hparams | None]:
    """The configuration of a fine-tuning, with Google's hyper-parameters if they were given."""
    from electra.config import FinetuneConfig
    from electra.toml import read_toml

    rest = list(arguments)
    base, hparams = None, google_hparams(rest, "finetune")
    if hparams is not None:
        from electra.interop.google_config import finetune_config

        base = finetune_config(hparams)
    config_file = take(rest, "--config", "a file: the config.toml of a fine-tuning")
    if config_file is not None:
        if hparams is not None:
            raise ValueError("--google-hparams and --config both say where to begin: leave one out")
        base = read_toml(FinetuneConfig, Path(config_file))
    example = (
        "electra finetune run --task sst2 --data glue/SST-2 --out sst2\n"
        "--config FILE reads the config.toml of a fine-tuning; --google-hparams FILE reads hparams of "
        "google-research/electra (a JSON file or text); flags override both"
    )
    verb = "finetune [--config FILE | --google-hparams FILE]"
    return parse(FinetuneConfig, verb, example, rest, base), hparams


def finetune(arguments: Arguments) -> int:
    """Fine-tune an encoder on a task, with several seeds."""
    config, hparams = finetune_config_of(arguments)
    if hparams is not None:
        from electra.interop.google_config import check_model, remarks

        check_model(hparams, config.model)
        for line in remarks(hparams):
            print(line)

    from electra.suite import run

    signal = run(config)["signal"]
    return 0 if signal is None else 128 + signal


@dataclass(frozen=True)
class CompareArguments:
    """A table over tasks, with a column for each folder that electra finetune left."""

    folders: Positional[tuple[Path, ...]]
    """Folders of one task or of several."""
    out: Path | None = None
    """Folder for the table as results.json, .md and .tex."""


def compare(arguments: Arguments) -> int:
    """A table over several fine-tunings."""
    given = parse(CompareArguments, "compare", "electra compare pretrained random --out table", arguments)

    from electra.suite import compare as run

    print(run(list(given.folders), given.out))
    return 0


def predict(arguments: Arguments) -> int:
    """Predict labels or values for text, a file or standard input."""
    from electra.config import PredictConfig

    example = "electra predict sst2 --text 'a fine film'    or    electra predict sst2 reviews.txt --out labels.tsv"
    config = parse(PredictConfig, "predict", example, arguments)

    from electra.predict import predict as run

    run(config)
    return 0
