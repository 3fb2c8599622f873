"""Verbs about pre-training and what it leaves: pretrain, evaluate, export, push, convert."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from electra.cli.parsing import Arguments, google_hparams, parse, print_summary, take
from electra.config.card import CardConfig

if TYPE_CHECKING:
    from electra.config import PretrainConfig
    from electra.interop.google_config import Hparams


def pretrain_config_of(arguments: Arguments) -> tuple[PretrainConfig, Hparams | None]:
    """The configuration of a pre-training, with Google's hyper-parameters if they were given."""
    from electra.config import PretrainConfig
    from electra.presets import PRESETS
    from electra.toml import read_toml

    rest = list(arguments)
    base = PretrainConfig()
    hparams = google_hparams(rest, "pretrain")
    if rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in PRESETS:
            raise ValueError(f"preset {name!r} is unknown: the presets are {', '.join(PRESETS)}")
        if hparams is not None:
            raise ValueError(f"--google-hparams begins from the defaults of Google's code: leave out the preset {name}")
        base = PRESETS[name]()
    if hparams is not None:
        from electra.interop.google_config import pretrain_config

        base = pretrain_config(hparams)
    config_file = take(rest, "--config", "a file: the config.toml of a run, or one of your own")
    if config_file is not None:
        base = read_toml(PretrainConfig, Path(config_file), base)
    example = (
        "electra pretrain electra-small --data store --out run\n"
        f"Presets: {', '.join(PRESETS)}. --config FILE reads a config.toml, flags override it; "
        "--google-hparams FILE reads hparams of google-research/electra (a JSON file or text) in place of a preset; "
        "--dry-run says what would happen; --profile writes a trace of steps 10 to 15 into RUN/profile; "
        "several stores: --data general domain --weights 0.7 0.3; "
        "several processes: torchrun --nproc-per-node 2 -m electra pretrain ..."
    )
    verb = "pretrain [PRESET | --google-hparams FILE] [--config FILE] [--dry-run] [--profile]"
    # Phases have the names of other sections' fields, which as flags have no prefix: they go round the parser.
    config = parse(PretrainConfig, verb, example, rest, replace(base, phases=()))
    config = replace(config, phases=base.phases)
    if not config.data:
        raise ValueError("pretrain needs --data, a token store made by electra build")
    return config, hparams


def pretrain(arguments: Arguments) -> int:
    """Pre-train by replaced-token detection; resumes by itself."""
    dry_run, profile = (flag in arguments for flag in ("--dry-run", "--profile"))
    config, hparams = pretrain_config_of([given for given in arguments if given not in ("--dry-run", "--profile")])
    if hparams is not None:
        from electra.interop.google_config import check_store, remarks

        check_store(hparams, config.data[0])  # the others have the same vocabulary, or the run refuses them
        if os.environ.get("RANK", "0") == "0":  # torchrun starts several of us
            for line in remarks(hparams):
                print(line)

    from electra.pretrain import pretrain as run

    outcome = run(config, dry_run=dry_run, profile=profile)
    return 0 if outcome.signal is None else 128 + outcome.signal


@dataclass(frozen=True)
class EvaluateArguments:
    """Held-out metrics of a pre-training run: masked LM and replaced-token detection."""

    run: Positional[Path]
    """The run folder."""
    data: str | None = None
    """A token store, or the URL of one; by default what the run was trained on, in the same shares."""
    rows: int = 0
    """Held-out rows to read; 0 means as many as the run's own evaluations."""
    samples: int = 0
    """Rows to show as original text, corrupted text and what the discriminator says of it."""
    json: Path | None = None
    """File for the metrics and the tables."""
    device: str = "auto"
    """cuda, cpu, or auto."""


def evaluate(arguments: Arguments) -> int:
    """Held-out metrics of a pre-training run."""
    given = parse(EvaluateArguments, "evaluate", "electra evaluate run --data store", arguments)

    from electra.breakdown import report_run
    from electra.files import write_json

    report = report_run(given.run, given.data, given.rows, given.device, given.samples)
    print_summary(report.metrics)
    for lines in [*(table.lines() for table in report.tables), *report.samples]:
        print("", *lines, sep="\n")
    if given.json is not None:
        write_json(given.json, {"metrics": report.metrics} | {table.title: table.rows for table in report.tables})
    return 0


@dataclass(frozen=True)
class ExportArguments:
    """Write the networks of a run's newest checkpoint as model folders; or a store as TFRecords."""

    run: Positional[Path]
    """The run folder; for onnx also a model folder or a hub id; for tfrecord, a token store."""
    out: Path
    """Folder to write."""
    format: Literal["hf", "tf-h5", "onnx", "tfrecord"] = "hf"
    """hf: Hugging Face (safetensors); tf-h5: its TensorFlow classes; onnx; tfrecord: rows for Google's reader."""
    seq_len: int = 128
    """tfrecord: tokens in a row."""
    shards: int = 0
    """tfrecord: files to write; 0 means one for a thousand rows or so, at most Google's 1000."""
    seed: int = 0
    """tfrecord: of the draws in Google's rule for rows (Python's random)."""
    int8: bool = False
    """onnx: write model.int8.onnx too, its weights and matrix products in 8 bits."""
    overwrite: bool = False
    """Replace --out if it exists."""
    card: CardConfig = field(default_factory=CardConfig)


def export(arguments: Arguments) -> int:
    """Write a run's newest checkpoint as model folders, or a store as TFRecords."""
    example = "electra export run --out model    or    electra export store --format tfrecord --seq-len 128 --out rows"
    given = parse(ExportArguments, "export", example, arguments)
    if given.card != CardConfig() and not (given.run / "checkpoints").is_dir():
        raise ValueError(
            "--language, --license, --carbon and --watts are for the model cards of a pre-training run, and "
            f"{given.run} is none: leave them out"
        )
    if given.format == "tfrecord":
        from electra.interop.record_store import export_records
        from electra.store import Store

        summary = export_records(
            Store.open(given.run),
            given.out,
            given.seq_len,
            shards=given.shards,
            seed=given.seed,
            overwrite=given.overwrite,
        )
        del summary["vocabulary"]
        print_summary({"folder": given.out} | summary)
        return 0
    if given.format == "onnx":
        from electra.interop.onnx import export_onnx

        export_onnx(given.run, given.out, given.int8, given.overwrite, given.card)
        return 0

    from electra.export import export_run

    exported = export_run(given.run, given.out, given.format, given.overwrite, given.card)
    folders = " and ".join(str(given.out / name) for name in exported.networks)
    print(f"wrote {folders} from step {exported.step:,}")
    return 0


@dataclass(frozen=True)
class PushArguments:
    """Send a model folder with its card to the Hugging Face Hub, as one commit."""

    model: Positional[Path]
    """The model folder: one of an export, or the model of a fine-tuning run."""
    repo: Positional[str]
    """Repository on the Hub (me/electra-ko), made if it is not there."""
    private: bool = False
    """Make a new repository private."""
    dry_run: bool = False
    """Say what would be sent and whether the card is valid; needs no network."""


def push(arguments: Arguments) -> int:
    """Send a model to the Hugging Face Hub."""
    given = parse(PushArguments, "push", "electra push run/export/discriminator me/electra-ko --dry-run", arguments)

    from electra.push import push as run

    run(given.model, given.repo, given.private, given.dry_run)
    return 0


def convert(arguments: Arguments) -> int:
    """Bring weights of other systems into today's formats."""
    from electra.config import ConvertConfig

    example = "electra convert electra_small/ --out model    or    electra convert model.ckpt-100 --format run ..."
    config = parse(ConvertConfig, "convert", example, arguments)

    from electra.convert import convert as run

    run(config)
    return 0
