"""The command line: verbs -> functions. `electra VERB --help` explains each.

This file parses and reports; the work is in the module a verb is named after, imported only when its verb is
called, so that `electra --help` needs no torch. A user's mistake ends in one sentence and exit code 2;
`--debug` shows the traceback.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tyro.conf import Positional

from electra import __version__
from electra.config.location import Location

if TYPE_CHECKING:
    from electra.config import FinetuneConfig, PretrainConfig
    from electra.interop.google_config import Hparams
    from electra.launch.job import Job

Config = TypeVar("Config")
Arguments = Sequence[str]


def _parse(kind: type[Config], verb: str, example: str, arguments: Arguments, default: Config | None = None) -> Config:
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


def _parse_known(kind: type[Config], verb: str, example: str, arguments: Arguments) -> tuple[Config, list[str]]:
    """As `_parse`, with the arguments that are not of this kind."""
    import tyro

    return tyro.cli(
        kind,
        prog=f"electra {verb}",
        description=f"{(kind.__doc__ or '').strip()}\n\nExample: {example}",
        args=list(arguments),
        config=(tyro.conf.HelptextFromCommentsOff, tyro.conf.FlagCreatePairsOff),
        return_unknown_args=True,
    )


def _take(arguments: list[str], flag: str, what: str) -> str | None:
    """Remove a flag that no dataclass knows and its value from the arguments; returns the value."""
    if flag not in arguments:
        return None
    place = arguments.index(flag)
    if place + 1 == len(arguments):
        raise ValueError(f"{flag} needs {what}")
    value = arguments[place + 1]
    del arguments[place : place + 2]
    return value


def _google_hparams(arguments: list[str], verb: Literal["pretrain", "finetune"]) -> Hparams | None:
    """Remove and read --google-hparams."""
    text = _take(arguments, "--google-hparams", "a JSON file, or a JSON text in quotes")
    if text is None:
        return None
    from electra.interop.google_config import FINETUNING, PRETRAINING, read_hparams

    return read_hparams(text, PRETRAINING if verb == "pretrain" else FINETUNING)


def vocab(arguments: Arguments) -> int:
    """Train a WordPiece vocabulary on text files."""
    from electra.config import VocabConfig
    from electra.tokenizer import train_vocabulary

    config = _parse(VocabConfig, "vocab", "electra vocab corpus/ --out vocab --size 32000", arguments)
    summary = train_vocabulary(config)
    _print_summary(summary)
    return 0


def build(arguments: Arguments) -> int:
    """Turn text files, or TFRecords, into a token store."""
    from electra.build import build as build_store
    from electra.build import progress_bar
    from electra.cleaning import report_lines
    from electra.config import BuildConfig

    config = _parse(BuildConfig, "build", "electra build corpus/ --vocab vocab --out store", arguments)
    with progress_bar("building") as progress:
        summary = build_store(config, progress)
    cleaning = summary["build"].pop("cleaning", {})
    if config.shard:
        _print_summary({"part": f"{config.shard} of {config.out}"} | summary["build"])
        for line in report_lines(cleaning):
            print(line)
        return 0
    held_out = summary["held_out"]
    counts = {name: summary[name] for name in ("documents", "lines", "tokens")}
    held = {"held_out_documents": held_out["documents"], "held_out_tokens": held_out["tokens"]}
    if config.distinct:
        held |= {"repeated_documents_not_read": summary["excluded"]["documents"]}
    _print_summary({"store": config.out} | counts | held | summary["build"])
    for line in report_lines(cleaning):
        print(line)
    return 0


def _pretrain_config(arguments: Arguments) -> tuple[PretrainConfig, Hparams | None]:
    """The configuration of a pre-training, with Google's hyper-parameters if they were given."""
    from electra.config import PretrainConfig
    from electra.presets import PRESETS
    from electra.toml import read_toml

    rest = list(arguments)
    base = PretrainConfig()
    hparams = _google_hparams(rest, "pretrain")
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
    config_file = _take(rest, "--config", "a file: the config.toml of a run, or one of your own")
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
    config = _parse(PretrainConfig, verb, example, rest, replace(base, phases=()))
    config = replace(config, phases=base.phases)
    if not config.data:
        raise ValueError("pretrain needs --data, a token store made by electra build")
    return config, hparams


def pretrain(arguments: Arguments) -> int:
    """Pre-train by replaced-token detection; resumes by itself."""
    dry_run, profile = (flag in arguments for flag in ("--dry-run", "--profile"))
    config, hparams = _pretrain_config([given for given in arguments if given not in ("--dry-run", "--profile")])
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
    given = _parse(EvaluateArguments, "evaluate", "electra evaluate run --data store", arguments)

    from electra.breakdown import report_run
    from electra.files import write_json

    report = report_run(given.run, given.data, given.rows, given.device, given.samples)
    _print_summary(report.metrics)
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


def export(arguments: Arguments) -> int:
    """Write a run's newest checkpoint as model folders, or a store as TFRecords."""
    example = "electra export run --out model    or    electra export store --format tfrecord --seq-len 128 --out rows"
    given = _parse(ExportArguments, "export", example, arguments)
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
        _print_summary({"folder": given.out} | summary)
        return 0
    if given.format == "onnx":
        from electra.interop.onnx import export_onnx

        export_onnx(given.run, given.out, given.int8, given.overwrite)
        return 0

    from electra.export import export_run

    exported = export_run(given.run, given.out, given.format, given.overwrite)
    folders = " and ".join(str(given.out / name) for name in exported.networks)
    print(f"wrote {folders} from step {exported.step:,}")
    return 0


def convert(arguments: Arguments) -> int:
    """Bring weights of other systems into today's formats."""
    from electra.config import ConvertConfig

    example = "electra convert electra_small/ --out model    or    electra convert model.ckpt-100 --format run ..."
    config = _parse(ConvertConfig, "convert", example, arguments)

    from electra.convert import convert as run

    run(config)
    return 0


def _finetune_config(arguments: Arguments) -> tuple[FinetuneConfig, Hparams | None]:
    """The configuration of a fine-tuning, with Google's hyper-parameters if they were given."""
    from electra.config import FinetuneConfig
    from electra.toml import read_toml

    rest = list(arguments)
    base, hparams = None, _google_hparams(rest, "finetune")
    if hparams is not None:
        from electra.interop.google_config import finetune_config

        base = finetune_config(hparams)
    config_file = _take(rest, "--config", "a file: the config.toml of a fine-tuning")
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
    return _parse(FinetuneConfig, verb, example, rest, base), hparams


def finetune(arguments: Arguments) -> int:
    """Fine-tune an encoder on a task, with several seeds."""
    config, hparams = _finetune_config(arguments)
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
    given = _parse(CompareArguments, "compare", "electra compare pretrained random --out table", arguments)

    from electra.suite import compare as run

    print(run(list(given.folders), given.out))
    return 0


def predict(arguments: Arguments) -> int:
    """Predict labels or values for text, a file or standard input."""
    from electra.config import PredictConfig

    example = "electra predict sst2 --text 'a fine film'    or    electra predict sst2 reviews.txt --out labels.tsv"
    config = _parse(PredictConfig, "predict", example, arguments)

    from electra.predict import predict as run

    run(config)
    return 0


@dataclass(frozen=True)
class InspectArguments:
    """What is in a token store, a run folder, a model folder, or TFRecords of pre-training rows."""

    path: Positional[Location]
    """The folder, the URL of a store, or a TFRecord file."""
    rows: int = 3
    """Rows of a store or of TFRecords to show."""
    seq_len: int = 64
    """Their length; those of TFRecords, and of a store imported from some, keep theirs."""
    vocab: Path | None = None
    """Vocabulary to decode TFRecords with; without it their ids are shown."""
    verify: bool = False
    """Read every file of a store and compare it with its checksum (those of TFRecords always are)."""
    plot: Path | None = None
    """Draw tokens, documents and lines of a store into this picture: .png, .svg or .pdf."""


def inspect(arguments: Arguments) -> int:
    """What is in a store, a run, a model folder or TFRecords."""
    given = _parse(InspectArguments, "inspect", "electra inspect store", arguments)

    from electra.inspect import inspect as run

    run(given.path, given.rows, given.seq_len, given.vocab, given.verify, given.plot)
    return 0


@dataclass(frozen=True)
class DoctorArguments:
    """This machine: versions, device, precisions and their speed, disk."""

    folder: Path = Path()
    """Where the disk is measured."""


def doctor(arguments: Arguments) -> int:
    """Device, precisions, disk and speed of this machine."""
    given = _parse(DoctorArguments, "doctor", "electra doctor", arguments)

    from electra.doctor import doctor as run

    run(given.folder)
    return 0


@dataclass(frozen=True)
class DemoArguments:
    """The whole road on the documentation that every Python carries: vocabulary, store, pre-training, fine-tuning."""

    out: Path = Path("demo")
    """Folder to write."""
    steps: int = 0
    """Pre-training steps; 0 means the demo's own."""
    overwrite: bool = False
    """Replace --out if it exists."""


def demo(arguments: Arguments) -> int:
    """The whole pipeline on text that every machine has."""
    given = _parse(DemoArguments, "demo", "electra demo", arguments)

    from electra.demo import demo as run

    run(given.out, given.steps, given.overwrite)
    return 0


def _job(arguments: Arguments) -> Job:
    """What a launcher is to start: PRESET ..., pretrain ... or finetune ..., checked as the verb itself would."""
    from electra.launch.job import Job

    verb, *rest = arguments if arguments and arguments[0] in ("pretrain", "finetune") else ("pretrain", *arguments)
    if verb == "finetune":
        return Job("finetune", tuple(rest), _finetune_config(rest)[0])
    return Job("pretrain", tuple(rest), _pretrain_config(rest)[0])


def _launch_slurm(arguments: Arguments) -> int:
    from electra.config.launching import SlurmConfig
    from electra.launch.slurm import launch

    example = (
        "electra launch slurm electra-base --data store --out run --nodes 2 --gpus-per-node 8 --partition gpu "
        "(what these options do not name goes to electra pretrain or, after the word finetune, to electra finetune)"
    )
    config, rest = _parse_known(SlurmConfig, "launch slurm [finetune] [PRESET] ...", example, arguments)
    launch(config, _job(rest))
    return 0


def _launch_sagemaker(arguments: Arguments) -> int:
    from electra.config.launching import SageMakerConfig
    from electra.launch.sagemaker import in_container, launch

    example = (
        "electra launch sagemaker electra-small --data s3://b/store --out s3://b/run --image ... --role ... "
        "(what these options do not name goes to electra pretrain or, after the word finetune, to electra finetune)"
    )
    config, rest = _parse_known(SageMakerConfig, "launch sagemaker [finetune] [PRESET] ...", example, arguments)
    moved, places = in_container(rest)
    return launch(config, _job(moved), places)


def _launch_sagemaker_entry(arguments: Arguments) -> int:
    from electra.config.launching import SageMakerEntryConfig
    from electra.launch.sagemaker_entry import enter

    verb = "launch sagemaker-entry"
    config = _parse(SageMakerEntryConfig, verb, "electra launch sagemaker-entry pretrain", arguments)
    return enter(config.verb, config.root, config.processes)


LAUNCHERS = {
    "slurm": _launch_slurm,
    "sagemaker": _launch_sagemaker,
    "sagemaker-entry": _launch_sagemaker_entry,
}


def launch(arguments: Arguments) -> int:
    """Start a run on a Slurm cluster or on Amazon SageMaker."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: electra launch slurm|sagemaker [PRESET] ...    electra launch slurm --help explains each")
        print("\nExample: electra launch slurm electra-base --data store --out run --gpus-per-node 8 --dry-run")
        raise SystemExit(0)
    where, *rest = arguments
    if where not in LAUNCHERS:
        raise ValueError(f"electra launch cannot start a run on {where!r}: it knows slurm and sagemaker")
    return LAUNCHERS[where](rest)


VERBS: dict[str, Callable[[Arguments], int]] = {
    verb.__name__: verb
    for verb in (
        demo, vocab, build, inspect, pretrain, evaluate, export, convert, finetune, compare, predict, launch, doctor,
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
        warnings.formatwarning = lambda message, *_, **__: f"electra: warning: {message}\n"
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
    except (ValueError, OSError, MemoryError) as error:
        if debug:
            raise
        return _fail(_sentence(error))


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full{f' ({error.filename})' if error.filename else ''}: free some space and try again"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"the memory is full{f' ({error})' if str(error) else ''}: free some, or ask for less at a time"
    return str(error)


def _fail(sentence: str, code: int = 2) -> int:
    print(f"electra: {sentence}", file=sys.stderr)
    return code


def _print_summary(values: dict[str, Any]) -> None:
    """A flat dictionary as aligned lines."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        if isinstance(value, float):
            text = f"{value:.4g}"
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        print(f"{name.replace('_', ' '):{width}}  {text}")


if __name__ == "__main__":
    sys.exit(main())
