"""The verb launch, for machines that one gets by asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from electra.cli.finetuning import finetune_config_of
from electra.cli.parsing import Arguments, parse, parse_known
from electra.cli.pretraining import pretrain_config_of

if TYPE_CHECKING:
    from electra.launch.job import Job


def _job(arguments: Arguments) -> Job:
    """What a launcher is to start: PRESET ..., pretrain ... or finetune ..., checked as the verb itself would."""
    from electra.launch.job import Job

    verb, *rest = arguments if arguments and arguments[0] in ("pretrain", "finetune") else ("pretrain", *arguments)
    if verb == "finetune":
        return Job("finetune", tuple(rest), finetune_config_of(rest)[0])
    return Job("pretrain", tuple(rest), pretrain_config_of(rest)[0])


def _launch_slurm(arguments: Arguments) -> int:
    from electra.config.launching import SlurmConfig
    from electra.launch.slurm import launch

    example = (
        "electra launch slurm electra-base --data store --out run --nodes 2 --gpus-per-node 8 --partition gpu "
        "(what these options do not name goes to electra pretrain or, after the word finetune, to electra finetune)"
    )
    config, rest = parse_known(SlurmConfig, "launch slurm [finetune] [PRESET] ...", example, arguments)
    launch(config, _job(rest))
    return 0


def _launch_sagemaker(arguments: Arguments) -> int:
    from electra.config.launching import SageMakerConfig
    from electra.launch.sagemaker import in_container, launch

    example = (
        "electra launch sagemaker electra-small --data s3://b/store --out s3://b/run --image ... --role ... "
        "(what these options do not name goes to electra pretrain or, after the word finetune, to electra finetune)"
    )
    config, rest = parse_known(SageMakerConfig, "launch sagemaker [finetune] [PRESET] ...", example, arguments)
    moved, places = in_container(rest)
    return launch(config, _job(moved), places)


def _launch_sagemaker_entry(arguments: Arguments) -> int:
    from electra.config.launching import SageMakerEntryConfig
    from electra.launch.sagemaker_entry import enter

    verb = "launch sagemaker-entry"
    config = parse(SageMakerEntryConfig, verb, "electra launch sagemaker-entry pretrain", arguments)
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
