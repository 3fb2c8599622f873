"""A build on a real Ray cluster of two nodes gives the bytes of a build here, also when workers are killed."""

import dataclasses
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from electra import portions
from electra.build import build
from electra.config import BuildConfig
from electra.ray_engine import map_on_ray
from electra.store import Store

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def config(tmp_path, monkeypatch) -> BuildConfig:
    """Six files of different words, a portion each."""
    monkeypatch.setattr(portions, "PORTION_BYTES", 2_000_000)
    monkeypatch.chdir(tmp_path)  # which the workers do not
    letters = "abcdefgh"
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    Path("vocab.txt").write_text("\n".join(vocab) + "\n")
    Path("corpus").mkdir()
    draw = random.Random(0)
    for number in range(6):
        words = ("".join(draw.choices(letters, k=draw.randint(1, 12))) for _ in range(200_000))
        Path(f"corpus/{number}.txt").write_text(
            "\n\n".join(" ".join(line) for line in zip(*[words] * 20, strict=False))
        )
    return BuildConfig(corpus=("corpus",), vocab=Path("vocab.txt"), out=Path("here"), processes=1)


def checksums(folder: Path) -> list:
    summary = Store.open(folder).summary
    return [summary[name] for name in ("shards", "held_out", "files", "documents")]


def kill_workers(names: str, count: int, killed: list[int], stop: threading.Event) -> None:
    """Kill the first `count` processes that run such a task, each when it has worked for a moment."""
    while len(killed) < count and not stop.wait(0.05):
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = entry.read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::" + names.encode()) and int(entry.parent.name) not in killed:
                time.sleep(0.3)
                os.kill(int(entry.parent.name), signal.SIGKILL)
                killed.append(int(entry.parent.name))
                break


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_the_same_bytes_though_workers_are_killed(cluster, config):
    build(config)
    expected = checksums(config.out)
    killed, stop, shown = [], threading.Event(), []
    killer = threading.Thread(target=kill_workers, args=("_make_remotely", 2, killed, stop))
    killer.start()
    try:
        summary = build(
            dataclasses.replace(config, out=Path("there"), engine="ray"),
            lambda done, total: shown.append((done, total)),
        )
    finally:
        stop.set()
        killer.join()
    assert len(killed) == 2
    assert checksums(Path("there")) == expected and summary["build"]["portions"] == 6
    assert shown[-1][0] == shown[-1][1] and not Path("there.building").exists()


def test_an_error_arrives_as_it_was_and_finished_portions_stay(cluster, config):
    with open("corpus/5.txt", "ab") as file:
        file.write(b"\n\xff\n")
    with (
        pytest.raises(ValueError, match=r"5.txt: byte \d+ is not UTF-8: mend it"),
        pytest.warns(UserWarning, match="of 6"),
    ):
        build(dataclasses.replace(config, engine="ray"))
    assert not config.out.exists() and Path("here.building/portion-00000/portion.json").is_file()


def test_a_task_that_always_dies_is_given_up(cluster):
    with pytest.raises(ValueError, match="a task died 4 times on the Ray cluster"):
        list(map_on_ray(lambda item: os._exit(1), (), [1]))
