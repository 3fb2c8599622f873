"""SageMaker jobs: requests against the service's model and a server that speaks its API, and what runs in them."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from stores import make_store, random_documents
from test_processes import assert_equal_to_1e5, tiny

import electra.pretrain
from electra.cli import main
from electra.config import FinetuneConfig, PretrainConfig
from electra.config.launching import SageMakerConfig
from electra.launch.sagemaker import KEPT, check_request, in_container
from electra.launch.sagemaker_entry import drop_partial_checkpoints, torchrun
from electra.presets import sagemaker_small
from electra.toml import read_toml, write_toml

ROLE = "arn:aws:iam::123456789012:role/SageMaker"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/electra:1"
COMMON = ["--image", IMAGE, "--role", ROLE]
ON_S3 = ["sagemaker-small", "--data", "s3://bucket/store", "--out", "s3://bucket/runs/small", *COMMON]
RECIPES = Path(__file__).parents[1] / "recipes"


def dry_run(capsys, *arguments: str) -> dict:
    assert main(["launch", "sagemaker", *arguments, "--dry-run"]) == 0
    return json.loads(capsys.readouterr().out)


# ---------------------------------------------------------------------------------------------- the request


def valid(request: dict) -> bool:
    """By botocore's own validator."""
    import botocore.session
    from botocore.validate import ParamValidator

    model = botocore.session.get_session().get_service_model("sagemaker")
    report = ParamValidator().validate(request, model.operation_model("CreateTrainingJob").input_shape)
    assert not report.has_errors(), report.generate_report()
    return True


def test_a_spot_job_on_s3(capsys):
    request = dry_run(capsys, *ON_S3, "--spot", "--max-hours", "2", "--tags", "team=nlp", "--volume-gb", "50")
    assert valid(request)
    assert request["CheckpointConfig"] == {"S3Uri": "s3://bucket/runs/small", "LocalPath": KEPT}
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200, "MaxWaitTimeInSeconds": 14_400}
    assert request["EnableManagedSpotTraining"] and request["Tags"] == [{"Key": "team", "Value": "nlp"}]
    data, config = request["InputDataConfig"]
    assert data["ChannelName"] == "data" and data["DataSource"]["S3DataSource"]["S3Uri"] == "s3://bucket/store/"
    name = request["TrainingJobName"]
    place = config["DataSource"]["S3DataSource"]["S3Uri"]
    assert name.startswith("small-2") and place == f"s3://bucket/runs/small-jobs/{name}/electra-config/"
    assert "VpcConfig" not in request


@pytest.mark.parametrize("recipe", ["sagemaker-small.sh", "sagemaker-squad.sh"])
def test_the_recipes_print_valid_requests(recipe, tmp_path):
    names = {"FSX": "fsx://fs-0123456789abcdef0/fsx", "BUCKET": "s3://bucket/electra", "ROLE": ROLE, "IMAGE": IMAGE}
    names |= {"SUBNETS": "subnet-0a", "SECURITY_GROUPS": "sg-0a sg-0b"}
    (tmp_path / "electra").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m electra "$@"\n')
    (tmp_path / "electra").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(RECIPES / recipe), "--dry-run"],
        env=os.environ | names | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    request = json.loads(done.stdout)
    assert valid(request)
    channels = {channel["ChannelName"]: channel["DataSource"] for channel in request["InputDataConfig"]}
    if recipe == "sagemaker-small.sh":
        assert request["ResourceConfig"]["InstanceCount"] == 8
        out = channels["out"]["FileSystemDataSource"]
        assert out["DirectoryPath"] == "/fsx/runs" and out["FileSystemAccessMode"] == "rw"
        assert request["VpcConfig"] == {"Subnets": ["subnet-0a"], "SecurityGroupIds": ["sg-0a", "sg-0b"]}
    else:
        assert {"model", "data", "electra-config"} == channels.keys()
        assert request["AlgorithmSpecification"]["ContainerArguments"][-1] == "finetune"


def test_the_plan_of_the_recipe():
    loop = sagemaker_small().loop
    assert (loop.steps, loop.batch_size, sagemaker_small().rows.seq_len) == (125_000, 1024, 512)


def test_urls_become_places_in_the_container():
    given = ["finetune", "s3://b/model", "--task", "squad", "--data=fsx://fs-01234567/m/squad", "--out", "s3://b/o"]
    moved, places = in_container(given)
    assert moved == [
        *["finetune", "/opt/ml/input/data/model", "--task", "squad", "--data=/opt/ml/input/data/data"],
        *["--out", "/opt/ml/checkpoints"],
    ]
    assert places.channels == {"model": "s3://b/model", "data": "fsx://fs-01234567/m/squad"}
    assert (places.checkpoints, places.file_system) == ("s3://b/o", "")
    moved, places = in_container(["tiny", "--data", "s3://b/one", "s3://b/two", "--weights", "2", "1"])
    assert moved[2:4] == ["/opt/ml/input/data/data", "/opt/ml/input/data/data-2"]
    assert places.channels == {"data": "s3://b/one", "data-2": "s3://b/two"}
    moved, places = in_container(["--out", "fsx://fs-01234567/mount/runs/one"])
    assert moved == ["--out", "/opt/ml/input/data/out/one"] and places.file_system == "fsx://fs-01234567/mount/runs"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([*ON_S3, "--role", "SageMaker"], "--role 'SageMaker' is no ARN of a role"),
        (
            [*ON_S3, "--instance-type", "ml.p4.24xlarge"],
            "--instance-type 'ml.p4.24xlarge' is unknown to SageMaker: ",
        ),
        ([*ON_S3, "--job-name", "a_b"], "--job-name 'a_b' does not have the form"),
        ([*ON_S3, "--instances", "8"], "--instances 8 write one run folder, which all must see"),
        ([*ON_S3, "--data", "store"], "--data store is a path of this machine"),
        ([*ON_S3, "--out", "run"], "--out run is a path of this machine"),
        ([*ON_S3, "--data", "fsx://fs-01234567/m/store"], "fsx:// needs --subnets"),
        ([*ON_S3, "--out", "fsx://fs-01234567"], "must be fsx://FILE-SYSTEM-ID/MOUNT/FOLDER"),
        (["nothing", *ON_S3[1:]], "preset 'nothing' is unknown"),
    ],
)
def test_mistakes_are_one_sentence(arguments, sentence, capsys):
    assert main(["launch", "sagemaker", *arguments, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_values_that_make_no_job():
    with pytest.raises(ValueError, match="--subnets and --security-groups belong together"):
        SageMakerConfig(IMAGE, ROLE, subnets=("subnet-0a",))
    with pytest.raises(ValueError, match="--max-wait-hours 1 is below --max-hours 24"):
        SageMakerConfig(IMAGE, ROLE, spot=True, max_wait_hours=1)
    with pytest.raises(ValueError, match="SageMaker would refuse the job: Missing required parameter"):
        check_request({"TrainingJobName": "a"})


# ------------------------------------------------------------------------------------------------ the server


@pytest.fixture
def server(monkeypatch):
    """Moto's server on this machine, in place of Amazon."""
    moto = pytest.importorskip("moto.server")
    monkeypatch.setattr(logging.getLogger("werkzeug"), "disabled", True)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # What other tests of this process made is still there.
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "eu-west-1"}
    for name, value in ({"AWS_ENDPOINT_URL": f"http://{host}:{port}"} | credentials).items():
        monkeypatch.setenv(name, value)
    yield
    server.stop()


def test_the_server_accepts_the_job_and_its_configuration(server, tmp_path, capsys):
    import boto3

    store = boto3.client("s3")
    store.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName="/aws/sagemaker/TrainingJobs")
    where = {"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamName": "one/algo-1-1"}
    logs.create_log_stream(**where)
    lines = [{"timestamp": int(time.time() * 1000) + n, "message": f"step {n}"} for n in range(30)]
    logs.put_log_events(**where, logEvents=lines)

    assert main(["launch", "sagemaker", *ON_S3, "--job-name", "one", "--wait"]) == 0
    said = capsys.readouterr().out
    assert "started arn:aws:sagemaker:eu-west-1:123456789012:training-job/one" in said and "one is done: s3://" in said
    assert [line for line in said.splitlines() if line.startswith("  step")] == [f"  step {n}" for n in range(10, 30)]
    job = boto3.client("sagemaker").describe_training_job(TrainingJobName="one")
    assert job["CheckpointConfig"]["S3Uri"] == "s3://bucket/runs/small" and job["RoleArn"] == ROLE

    sent = store.get_object(Bucket="bucket", Key="runs/small-jobs/one/electra-config/config.toml")["Body"].read()
    (tmp_path / "config.toml").write_bytes(sent)
    config = read_toml(PretrainConfig, tmp_path / "config.toml")
    assert (config.model, config.loop) == (sagemaker_small().model, sagemaker_small().loop)
    assert (config.data, str(config.out)) == (("/opt/ml/input/data/data",), KEPT)


def test_a_bucket_that_is_not_there(server, capsys):
    assert main(["launch", "sagemaker", *ON_S3, "--out", "s3://absent/run"]) == 2
    error = capsys.readouterr().err
    assert "Amazon refused PutObject: NoSuchBucket" in error and error.count("\n") == 1


def test_without_region_and_credentials(monkeypatch, tmp_path, capsys):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert main(["launch", "sagemaker", *ON_S3]) == 2
    assert "pass --region" in capsys.readouterr().err
    assert main(["launch", "sagemaker", *ON_S3, "--region", "eu-west-1"]) == 2
    assert "no credentials for Amazon here" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------- in the container


def machine(folder: Path, config: PretrainConfig, me: str, hosts: list[str]) -> Path:
    """What SageMaker lays down on one machine."""
    (folder / "input" / "config").mkdir(parents=True)
    resources = {"current_host": me, "hosts": hosts, "network_interface_name": "lo"}
    (folder / "input" / "config" / "resourceconfig.json").write_text(json.dumps(resources))
    (folder / "input" / "data" / "electra-config").mkdir(parents=True)
    write_toml(config, folder / "input" / "data" / "electra-config" / "config.toml")
    return folder


def start(folder: Path, port: int) -> subprocess.Popen:
    return subprocess.Popen(
        [*[sys.executable, "-m", "electra", "launch", "sagemaker-entry", "pretrain"], f"--root={folder}"],
        env=os.environ | {"MASTER_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store", random_documents(60), held_out=0.2).folder


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "alone"
    electra.pretrain.pretrain(tiny(store, out), say=lambda text: None)
    return out


def test_two_machines_train_as_one_process_does(store, alone, tmp_path):
    hosts, port = ["127.0.0.1", "127.0.0.2"], free_port()
    config = tiny(store, tmp_path / "run")
    machines = [start(machine(tmp_path / host, config, host, hosts), port) for host in reversed(hosts)]
    said = [process.communicate(timeout=100)[0] for process in machines]
    assert [process.returncode for process in machines] == [0, 0], said
    assert "cpu x 2 by ddp" in said[1] and "step 8/8" not in said[0]
    assert_equal_to_1e5(alone, tmp_path / "run")
    assert (tmp_path / "127.0.0.1" / "model" / "discriminator" / "model.safetensors").is_file()
    assert not (tmp_path / "127.0.0.2" / "model").exists()


def test_an_interrupted_machine_saves_and_the_next_goes_on(store, tmp_path):
    """A spot interruption; of the newest checkpoint S3 then has only a part."""
    config = tiny(store, tmp_path / "run", steps=300, eval_every=0, keep=0, save_every=10)
    folder = machine(tmp_path / "ml", config, "127.0.0.1", ["127.0.0.1"])
    first = start(folder, free_port())
    deadline = time.monotonic() + 60
    while not list(config.out.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=60)[0]
    assert first.returncode == 128 + signal.SIGTERM and "stopped by signal 15" in said, said
    assert not (folder / "output" / "failure").exists() and not (folder / "model").exists()

    checkpoints = config.out / "checkpoints"
    newest = max(checkpoints.glob("step-*"), key=lambda path: int(path.name[5:]))
    next(newest.glob("*.distcp")).unlink()
    drop_partial_checkpoints(config.out)
    assert not newest.exists() and list(checkpoints.glob("step-*"))


def test_the_reason_of_a_failure_is_where_sagemaker_looks(tmp_path):
    folder = machine(tmp_path / "ml", tiny(tmp_path / "nowhere", tmp_path / "run"), "127.0.0.1", ["127.0.0.1"])
    failed = start(folder, free_port())
    failed.communicate(timeout=60)
    assert failed.returncode == 1
    assert (folder / "output" / "failure").read_text().startswith(f"{tmp_path / 'nowhere'}")


def test_each_machine_has_its_number_and_all_the_first_ones_address(monkeypatch):
    monkeypatch.delenv("MASTER_PORT", raising=False)
    options = torchrun(["algo-1", "algo-10", "algo-2"], "algo-2", 8)
    assert options == [
        "--nnodes=3",
        "--node-rank=2",
        "--nproc-per-node=8",
        "--master-addr=algo-1",
        "--master-port=29400",
    ]


def test_a_fine_tuning_reads_its_configuration_from_a_file(tmp_path, capsys):
    """As it does in the container; flags override it."""
    config = FinetuneConfig(model=str(tmp_path / "nowhere"), data=tmp_path, out=tmp_path / "out", task="sst2", epochs=2)
    write_toml(config, tmp_path / "config.toml")
    assert main(["finetune", "--config", str(tmp_path / "config.toml"), "--batch-size", "8"]) == 2
    assert f"{tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert main(["finetune", "--config", str(tmp_path / "absent.toml")]) == 2
    assert "absent.toml does not exist" in capsys.readouterr().err
