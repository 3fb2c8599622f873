"""`electra launch sagemaker`: a run as a training job of Amazon SageMaker, through boto3 alone.

    arguments -> in_container -> Job, Places -> request -> create_training_job [-> follow]

URLs among the arguments become what the job sees in their place: what is read, a channel under /opt/ml/input/data;
--out on S3, the folder that SageMaker keeps in step with S3; --out on FSx, a folder of the file system. The
configuration that results is uploaded as config.toml, a channel of its own, and sagemaker_entry.py reads it there.
The request is held against the service's own model before it is sent: what is missing or of the wrong type, and what
botocore leaves to the server, the patterns, lengths and choices of strings.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import tomli_w

from electra.config.launching import SageMakerConfig
from electra.launch.job import Job
from electra.launch.sagemaker_entry import CHANNELS, CONFIG_CHANNEL, CONFIG_FILE
from electra.toml import to_dict

Request = dict[str, Any]
KEPT = "/opt/ml/checkpoints"  # which SageMaker keeps in step with S3
FLAGS = {
    "TrainingJobName": "--job-name",
    "TrainingImage": "--image",
    "RoleArn": "--role",
    "InstanceType": "--instance-type",
    "Subnets": "--subnets",
    "SecurityGroupIds": "--security-groups",
    "Tags": "--tags",
    "S3OutputPath": "--s3-output",
}


@dataclass
class Places:
    """What the URLs among the arguments stand for."""

    channels: dict[str, str] = field(default_factory=dict)  # name -> URL that is read
    checkpoints: str = ""  # --out on S3
    file_system: str = ""  # the folder above --out on FSx


def launch(config: SageMakerConfig, job: Job, places: Places, say: Callable[[str], None] = print) -> int:
    """Start the job, or with `dry_run` print its request as JSON; with `wait` follow it. Returns the exit code.

    ValueError for what cannot work, without boto3 or credentials, and when the service refuses.
    """
    try:
        import boto3
    except ImportError:
        raise ValueError("launch sagemaker needs boto3: pip install 'electra-toolkit[sagemaker]'") from None
    now = datetime.datetime.now(datetime.UTC)
    request = make_request(config, job, places, now)
    check_request(request)
    if config.dry_run:
        say(json.dumps(request, indent=2))
        return 0
    name = request["TrainingJobName"]
    with _sentences():
        session = boto3.Session(region_name=config.region or None)
        client = session.client("sagemaker")
        bucket, prefix = _bucket(_config_folder(request))
        text = tomli_w.dumps(to_dict(job.config))
        session.client("s3").put_object(Bucket=bucket, Key=prefix + CONFIG_FILE, Body=text.encode())
        arn = client.create_training_job(**request)["TrainingJobArn"]
        say(f"started {arn}")
        if not config.wait:
            say(f"look at it with  aws sagemaker describe-training-job --training-job-name {name}")
            return 0
        from electra.launch.sagemaker_watch import follow

        return follow(client, session.client("logs"), name, say)


# -------------------------------------------------------------------------------------------- the request


def in_container(arguments: Sequence[str]) -> tuple[list[str], Places]:
    """The arguments with paths of the container in place of s3:// and fsx:// URLs, and what these are."""
    places, moved, flag = Places(), [], ""
    for argument in arguments:
        name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        flag = name or flag
        if value.startswith(("s3://", "fsx://")):
            argument = f"{name}{equals}{_move(flag.removeprefix('--') or 'model', value, places)}"
        moved.append(argument)
        if arguments[0] == "finetune" and (equals or not name):
            flag = ""  # the model has none; of electra pretrain several values may follow --data
    return moved, places


def _move(kind: str, url: str, places: Places) -> str:
    """The path in the container of what a URL names, noted in `places`."""
    if kind != "out":
        name = kind if kind not in places.channels else f"{kind}-{len(places.channels) + 1}"
        places.channels[name] = url
        return f"{CHANNELS}/{name}"
    if url.startswith("s3://"):
        places.checkpoints = url
        return KEPT
    path = PurePosixPath(url)
    if len(path.parts) < 4:  # fsx:, the file system, its mount name, the folder
        raise ValueError(f"--out {url} must be fsx://FILE-SYSTEM-ID/MOUNT/FOLDER")
    places.file_system = url.rstrip("/").rpartition("/")[0]
    return f"{CHANNELS}/out/{path.name}"


def make_request(config: SageMakerConfig, job: Job, places: Places, now: datetime.datetime) -> Request:
    """What create_training_job takes. ValueError for places that the machines cannot share or see."""
    _check_places(config, job, places)
    output = (config.s3_output or f"{places.checkpoints.rstrip('/')}-jobs").rstrip("/")
    out = places.checkpoints.rstrip("/").rpartition("/")[2] or job.config.out.name
    name = config.job_name or f"{re.sub('[^A-Za-z0-9]+', '-', out).strip('-')[:40] or 'electra'}-{now:%Y%m%d-%H%M%S}"
    seconds = round(config.max_hours * 3600)
    request: Request = {
        "TrainingJobName": name,
        "RoleArn": config.role,
        "AlgorithmSpecification": {
            "TrainingImage": config.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["electra"],
            "ContainerArguments": ["launch", "sagemaker-entry", job.verb],
        },
        "ResourceConfig": {
            "InstanceType": config.instance_type,
            "InstanceCount": config.instances,
            "VolumeSizeInGB": config.volume_gb,
        },
        "InputDataConfig": [
            *(_channel(channel, url) for channel, url in places.channels.items()),
            *([_channel("out", places.file_system, access="rw")] if places.file_system else []),
            _channel(CONFIG_CHANNEL, f"{output}/{name}/{CONFIG_CHANNEL}"),
        ],
        "OutputDataConfig": {"S3OutputPath": output},
        "StoppingCondition": {"MaxRuntimeInSeconds": seconds},
        "EnableManagedSpotTraining": config.spot,
    }
    if config.spot:
        wait = round((config.max_wait_hours or 2 * config.max_hours) * 3600)
        request["StoppingCondition"]["MaxWaitTimeInSeconds"] = wait
    if places.checkpoints:
        request["CheckpointConfig"] = {"S3Uri": places.checkpoints, "LocalPath": KEPT}
    if config.subnets:
        request["VpcConfig"] = {"Subnets": [*config.subnets], "SecurityGroupIds": [*config.security_groups]}
    if config.tags:
        pairs = (tag.split("=", 1) for tag in config.tags)
        request["Tags"] = [{"Key": key, "Value": value} for key, value in pairs]
    return request


def _check_places(config: SageMakerConfig, job: Job, places: Places) -> None:
    """ValueError where the job would not see what it reads, or would lose what it writes."""
    for flag, place in (*(("--data", place) for place in job.data), ("--out", str(job.config.out))):
        if "://" not in place and not place.startswith("/opt/ml/"):
            raise ValueError(
                f"{flag} {place} is a path of this machine, which the job cannot see: name s3://BUCKET/PREFIX or "
                "fsx://FILE-SYSTEM-ID/MOUNT/FOLDER"
            )
    urls = [*places.channels.values(), places.checkpoints, places.file_system]
    if any(url.startswith("fsx://") for url in urls) and not config.subnets:
        raise ValueError("fsx:// needs --subnets and --security-groups, those of the file system")
    if config.instances > 1 and not places.file_system:
        raise ValueError(
            f"--instances {config.instances} write one run folder, which all must see: put --out on FSx for Lustre, "
            "fsx://FILE-SYSTEM-ID/MOUNT/FOLDER"
        )
    if not config.s3_output and not places.checkpoints:
        raise ValueError("launch sagemaker needs --s3-output, a place on S3 for the job's configuration and its model")


def _channel(name: str, url: str, access: str = "ro") -> Request:
    """An input of the job, at /opt/ml/input/data/NAME."""
    if url.startswith("s3://"):  # a prefix: without the slash it would take store-2 along with store
        uri = url.rstrip("/") + "/"
        where = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
        return {"ChannelName": name, "DataSource": {"S3DataSource": where}}
    parts = urlsplit(url)
    where = {
        "FileSystemId": parts.netloc,
        "FileSystemType": "FSxLustre",
        "FileSystemAccessMode": access,
        "DirectoryPath": parts.path,
    }
    return {"ChannelName": name, "DataSource": {"FileSystemDataSource": where}}


def _config_folder(request: Request) -> str:
    """URL of the folder on S3 that is the channel of the configuration."""
    uri: str = request["InputDataConfig"][-1]["DataSource"]["S3DataSource"]["S3Uri"]
    return uri


def _bucket(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


# ----------------------------------------------------------------------------------------- what can go wrong


def check_request(request: Request) -> None:
    """ValueError in a sentence for the first thing that the service's model forbids."""
    import botocore.session
    from botocore.validate import ParamValidator

    model = botocore.session.get_session().get_service_model("sagemaker")
    shape = model.operation_model("CreateTrainingJob").input_shape
    _check_strings(request, shape, "")
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise ValueError(f"SageMaker would refuse the job: {report.generate_report().splitlines()[0]}")


def _check_strings(value: Any, shape: Any, name: str) -> None:
    """Patterns, lengths and choices, all the way down."""
    if shape.type_name == "structure":
        for key, part in value.items():
            _check_strings(part, shape.members[key], key)
    elif shape.type_name == "list":
        most = shape.metadata.get("max", len(value))
        if len(value) > most:
            raise ValueError(f"{FLAGS.get(name, name)} has {len(value)} values and SageMaker takes {most}")
        for part in value:
            _check_strings(part, shape.member, name)
    elif shape.type_name == "string":
        said = f"{FLAGS.get(name, name)} {value!r}"
        if shape.enum and value not in shape.enum:
            near = ", ".join(difflib.get_close_matches(value, shape.enum, 3))
            raise ValueError(f"{said} is unknown to SageMaker{f': did you mean {near}?' if near else ''}")
        if len(value) > shape.metadata.get("max", len(value)):
            raise ValueError(f"{said} is longer than SageMaker's {shape.metadata['max']} characters")
        pattern = shape.metadata.get("pattern", ".*")
        if "\\p{" not in pattern and not re.fullmatch(pattern, value):  # Java's classes of characters: the server's
            what = "is no ARN of a role: it has the form arn:aws:iam::ACCOUNT:role/NAME"
            raise ValueError(f"{said} {what if name == 'RoleArn' else f'does not have the form {pattern}'}")


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """What boto3 raises, as ValueErrors in a sentence."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    try:
        yield
    except NoCredentialsError:
        raise ValueError(
            "there are no credentials for Amazon here: run aws configure, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        ) from None
    except NoRegionError:
        raise ValueError("no region of Amazon is configured here: pass --region, or set AWS_DEFAULT_REGION") from None
    except ClientError as error:
        told = error.response["Error"]
        raise ValueError(
            f"Amazon refused {error.operation_name}: {told['Code']}, {' '.join(told['Message'].split())}"
        ) from None
    except BotoCoreError as error:
        raise ValueError(f"Amazon cannot be reached or asked: {' '.join(str(error).split())}") from None
