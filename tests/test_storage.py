"""Text and stores in object storage, against a real S3 server: the same bytes, and one sentence for each fault."""

import bz2
import dataclasses
import gzip
import io
import json
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import urllib.request
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import s3fs
from moto.server import ThreadedMotoServer
from stores import read_documents

from electra import build as build_module
from electra import copies, encoding, portions, storage
from electra.build import build
from electra.cli import main
from electra.config import BuildConfig, VocabConfig
from electra.corpus import Reading, Tally, find_files, read_lines
from electra.log import read_metrics
from electra.storage import FileChanged, RemoteFile, StorageError
from electra.store import Store
from electra.tokenizer import load_tokenizer, train_vocabulary

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *(f"##{letter}" for letter in "abcdefgh")]


class Server:
    """An S3 server on this machine with an empty bucket, which can be stopped and goes on with what it had."""

    def __init__(self) -> None:
        self.port, self.runs = 0, False
        self.start()
        self.port = self._server.get_host_and_port()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()
        self.runs = True

    def stop(self) -> None:
        if self.runs:
            self._server.stop()
        self.runs = False


@pytest.fixture(scope="module")
def only_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(only_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    server = only_server
    if not server.runs:
        server.start()
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/moto-api/reset", method="POST")).close()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "ELECTRA_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    return server


@pytest.fixture
def bucket(server: Server) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(use_listings_cache=False)


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    """A folder with a file of each kind, in an order that differs by strings and by paths."""
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    corpus, draw = tmp_path / "corpus", random.Random(0)
    (corpus / "a").mkdir(parents=True)
    texts = ["".join(random_line(draw) for _ in range(lines)) for lines in (60, 10, 30, 40)]
    records = [{"text": "".join(random_line(draw) for _ in range(3)), "id": number} for number in range(40)]
    table = pyarrow.Table.from_pylist(records)
    (corpus / "a" / "b.txt").write_text(texts[0])
    (corpus / "a-b.txt").write_text(texts[1])
    (corpus / "c.txt.gz").write_bytes(gzip.compress(texts[2].encode()))
    (corpus / "d.jsonl.bz2").write_bytes(bz2.compress("\n".join(map(json.dumps, records)).encode()))
    pyarrow.parquet.write_table(table, corpus / "e.parquet", row_group_size=7)
    with pyarrow.OSFile(str(corpus / "f.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with tarfile.open(corpus / "g.tar", "w") as archive:
        member = tarfile.TarInfo("inside.txt")
        member.size = len(texts[3])
        archive.addfile(member, io.BytesIO(texts[3].encode()))
    (corpus / ".hidden.txt").write_text("not this one\n")
    (corpus / "z.unknown").write_bytes(b"\0")
    return BuildConfig(
        corpus=(str(corpus),), vocab=tmp_path / "vocab.txt", out=tmp_path / "store", processes=1, held_out=0.1
    )


def random_line(draw: random.Random) -> str:
    return "".join(draw.choices("abcdefgh  ", k=draw.randint(1, 40))) + draw.choice(["\n", "\n", "\n\n"])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many portions, of many blocks, read by many requests."""
    monkeypatch.setattr(portions, "PORTION_BYTES", 4000)
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 300)


@pytest.fixture
def remote(bucket: s3fs.S3FileSystem, config: BuildConfig) -> BuildConfig:
    """The same in the bucket."""
    bucket.put(f"{config.corpus[0]}/", "bucket/corpus/", recursive=True)
    return dataclasses.replace(config, corpus=("s3://bucket/corpus",), out="s3://bucket/store")


def checksums(summary: dict[str, Any]) -> list[Any]:
    return [summary[name] for name in ("shards", "held_out", "files", "documents", "left_out", "options")]


# -------------------------------------------------------------------------------------------------- the same bytes


def test_a_build_from_and_to_the_storage_is_the_local_one(bucket, config, remote, small, capsys):
    local = build(config)
    summary = build(remote)
    assert checksums(summary) == checksums(local) and summary["build"]["portions"] == local["build"]["portions"] > 3
    names = [source["path"].replace("s3://bucket/corpus", config.corpus[0]) for source in summary["sources"]]
    assert names == [source["path"] for source in local["sources"]] and len(names) == 7
    sent = {path.relative_to(config.out).as_posix() for path in config.out.rglob("*") if path.is_file()}
    assert {name.removeprefix("bucket/store/") for name in bucket.find("bucket/store")} == sent
    assert not list(copies.cache_folder().rglob("*/*/*"))  # what the build needed is gone
    store = Store.open("s3://bucket/store")
    assert read_documents(store) == read_documents(Store.open(config.out))
    assert store.vocabulary().sha256 == load_tokenizer(config.vocab).sha256
    shown = capsys.readouterr().err
    assert "sending" in shown and "copying s3://bucket/store to" in shown


def test_small_files_are_read_whole(config, remote):
    assert checksums(build(remote)) == checksums(build(config))


def test_workers_read_parts_of_a_file_themselves(config, remote, monkeypatch):
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 500)
    summary = build(dataclasses.replace(remote, processes=2))
    assert checksums(summary) == checksums(build(config)) and summary["build"]["processes"] == 2


def test_names(bucket, remote):
    def found(*names: str) -> list[str]:
        return [str(file).removeprefix("s3://bucket/corpus/") for file in find_files(names)]

    whole = ["a/b.txt", "a-b.txt", "c.txt.gz", "d.jsonl.bz2", "e.parquet", "f.arrow", "g.tar"]
    assert found("s3://bucket/corpus") == found("s3://bucket/corpus/") == found("s3://bucket/corpu*") == whole
    assert found("s3://bucket/corpus/*.txt", "s3://bucket/corpus/a-b.txt") == ["a-b.txt"]
    assert found("s3://bucket/corpus/**/*.txt") == ["a/b.txt", "a-b.txt"]
    bucket.pipe_file("bucket/corpus/odd [1]", b"abc\n")
    assert found("s3://bucket/corpus/odd [1]") == ["odd [1]"]
    bucket.pipe_file("bucket/corpus-2/x.txt", b"abc\n")  # begins like the folder, but is not in it
    assert found("s3://bucket/corpus") == whole
    for name in ("s3://bucket/nothing", "s3://bucket/corpus/*.nothing", "s3://nobucket/corpus"):
        with pytest.raises(ValueError, match=r"matches no file or folder"):
            find_files([name])
    with pytest.raises(ValueError, match=r"s3://bucket/corpus/z.unknown is neither text nor of a known format"):
        find_files(["s3://bucket/corpus/z.unknown"])
    bucket.pipe_file("bucket/pictures/a.jpg", b"\0")
    with pytest.raises(ValueError, match=r"has no files ending in"):
        find_files(["s3://bucket/pictures"])
    with pytest.raises(ValueError, match=r"x.tfrecord: TFRecords are read from a disk"):
        build(dataclasses.replace(remote, corpus=("s3://bucket/x.tfrecord",)))


def test_other_protocols(bucket, remote, server, tmp_path):
    expected = list(read_lines(Path(tmp_path / "corpus" / "a" / "b.txt")))
    bucket.chmod("bucket/corpus/a/b.txt", acl="public-read")
    web = f"{server.url}/bucket/corpus/a/b.txt"
    local = f"file://{tmp_path}/corpus/a/b.txt"
    for url in (web, local):
        (file,) = find_files([url])
        assert isinstance(file, RemoteFile) and list(read_lines(file)) == expected and file.is_unchanged()
    build(dataclasses.replace(remote, out=f"file://{tmp_path}/by/url"))
    assert Store.open(tmp_path / "by" / "url").summary["documents"] == Store.open(build_local(remote)).num_documents


def build_local(config: BuildConfig) -> Path:
    out = Path(config.vocab).with_name("local")
    build(dataclasses.replace(config, out=out))
    return out


def test_a_vocabulary_there_and_back(bucket, config, remote):
    here, there = config.out.with_name("vocab"), "s3://bucket/vocabulary"
    given = {"corpus": remote.corpus, "size": 60, "min_frequency": 1}
    train_vocabulary(VocabConfig(out=here, **given))
    train_vocabulary(VocabConfig(out=there, **given))
    with pytest.raises(ValueError, match="s3://bucket/vocabulary exists already"):
        train_vocabulary(VocabConfig(out=there, **given))
    local = load_tokenizer(here)
    for url in (there, f"{there}/tokenizer.json", f"{there}/vocab.txt"):
        assert load_tokenizer(url).sha256 == local.sha256
    build(dataclasses.replace(remote, vocab=there))
    assert load_tokenizer("s3://bucket/store").sha256 == local.sha256  # of a store
    with pytest.raises(ValueError, match="s3://bucket/corpus is no vocabulary"):
        load_tokenizer("s3://bucket/corpus")


def test_the_command_line(remote, tmp_path, capsys):
    flags = ["--processes", "1", "--held-out", "0.1"]
    assert (
        main(["build", "s3://bucket/corpus", "--vocab", str(remote.vocab), "--out", "s3://bucket/store", *flags]) == 0
    )
    assert "store                 s3://bucket/store" in capsys.readouterr().out
    assert main(["inspect", "s3://bucket/store", "--verify"]) == 0
    assert "token store s3://bucket/store, checksums right" in capsys.readouterr().out
    assert main(["inspect", "s3://bucket/nothing"]) == 2
    assert "s3://bucket/nothing is not a token store" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"need a folder for --out, which s3://bucket/store is not"):
        dataclasses.replace(remote, append=True)


# ----------------------------------------------------------------------------------------------------- faults


def test_who_is_to_blame(server, remote, monkeypatch):
    build(dataclasses.replace(remote, out=Path(remote.vocab).with_name("plan")))  # all is well
    with pytest.raises(FileNotFoundError) as missing:
        build(dataclasses.replace(remote, out="s3://nobucket/store"))
    assert missing.value.filename == "s3://nobucket/store" and missing.value.strerror == (
        "there is no such file, folder or bucket"
    )
    for change, sentence in (
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, r"the storage does not answer \(Could not connect"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, r"does not answer \(Unable to locate credentials\)"),
    ):
        with monkeypatch.context() as context:
            for name, value in change.items():
                context.setenv(name, value) if value else context.delenv(name)
            s3fs.S3FileSystem.clear_instance_cache()
            with pytest.raises(StorageError, match=rf"^s3://bucket/corpus: .*{sentence}"):
                build(remote)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_plan_is_not_made_without_the_server(server, remote, small):
    files = find_files(remote.corpus)
    assert len(portions.plan(files, Reading())) > 3
    server.stop()
    large = dataclasses.replace(files[0], size=5000)
    with pytest.raises(StorageError, match="does not answer"):  # another plan would not fit what is finished
        portions.plan([large], Reading())


def test_missing_libraries(config, monkeypatch):
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "fsspec", None)
        context.setitem(sys.modules, "fsspec.core", None)
        with pytest.raises(ValueError, match=r"s3://b/x: .* needs fsspec: pip install 'electra-toolkit\[storage\]'"):
            find_files(["s3://b/x"])
        build(config)  # local files need none of it
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"gs://b/x: a library for gs:// is missing: pip install gcsfs"):
        find_files(["gs://b/x"])
    with pytest.raises(ValueError, match=r"xyz://b/x is no URL that fsspec reads"):
        find_files(["xyz://b/x"])


def test_denied_access_is_no_fault_of_the_file(remote, monkeypatch):
    files = find_files(remote.corpus)

    class Denying:
        def cat_file(self, *given: Any, **named: Any) -> bytes:
            raise PermissionError("The provided token has expired.")

        info = cat_file

    monkeypatch.setattr(storage, "connect", lambda url: (Denying(), url))
    for file in files:
        tally = Tally()
        with pytest.raises(StorageError, match=r"access is denied \(The provided token has expired\)"):
            list(read_lines(file, Reading(on_error="skip"), tally))
        assert not tally.faults


def test_an_object_that_changes_or_goes_while_it_is_read(bucket, remote, small):
    (file,) = find_files(["s3://bucket/corpus/a/b.txt"])
    content = bucket.cat_file("bucket/corpus/a/b.txt")

    def build_while(change: Callable[[], Any], **settings: Any) -> dict[str, Any]:
        bucket.pipe_file("bucket/corpus/a/b.txt", content)
        pending = [change]

        def progress(done: int, total: int) -> None:
            if pending:
                pending.pop()()

        return build(dataclasses.replace(remote, corpus=(str(file),), overwrite=True, **settings), progress)

    with pytest.raises(ValueError, match=r"s3://bucket/corpus/a/b.txt changed while it was read"):
        build_while(lambda: bucket.pipe_file("bucket/corpus/a/b.txt", content[::-1]))
    with pytest.raises(FileNotFoundError, match="no such file"):
        build_while(lambda: bucket.rm_file("bucket/corpus/a/b.txt"))
    with pytest.raises(FileChanged, match=r"^s3://bucket/corpus/a/b.txt: it changed while it was read"):
        build_while(lambda: bucket.pipe_file("bucket/corpus/a/b.txt", content[:100]))
    with pytest.warns(UserWarning, match="changed while it was read"):
        summary = build_while(lambda: bucket.pipe_file("bucket/corpus/a/b.txt", content[:100]), on_error="skip")
    assert summary["left_out"]["faults"]


def test_a_build_goes_on_when_the_server_is_back(server, config, remote, small, monkeypatch):
    expected = checksums(build(config))
    make, made = build_module._make_portion, []

    def stop_in_the_middle(job: Any, portion: Any, progress: Any) -> int:
        if len(made) == 3 and server.runs:
            server.stop()
            made.append(-1)
        size = make(job, portion, progress)
        made.append(portion.number)
        return size

    monkeypatch.setattr(build_module, "_make_portion", stop_in_the_middle)
    with (
        pytest.raises(StorageError, match=r"the storage does not answer"),
        pytest.warns(UserWarning, match=r"3 of \d+ portions are finished and wait in"),
    ):
        build(dataclasses.replace(remote, on_error="skip"))  # which is for bad files, not for storage that is away
    server.start()
    summary = build(dataclasses.replace(remote, on_error="skip"))
    made.remove(-1)
    assert made == list(range(summary["build"]["portions"])) and checksums(summary)[:5] == expected[:5]


def test_an_upload_goes_on_when_the_server_is_back(server, bucket, config, remote, small, monkeypatch):
    expected = checksums(build(config))
    sent: list[int] = []

    def stop_in_the_middle(lines: Any, num_bytes: int) -> None:
        sent.append(num_bytes)
        if len(sent) == 8:
            server.stop()

    monkeypatch.setattr(copies.Progress, "add", stop_in_the_middle)
    with (
        pytest.raises(StorageError, match=r"^s3://bucket/store: the storage does not answer"),
        pytest.warns(UserWarning, match="the store is made and waits in .*: the same command sends what is missing"),
    ):
        build(remote)
    server.start()
    with pytest.raises(ValueError, match="is not a token store"):  # nobody reads half of it
        Store.open("s3://bucket/store")
    monkeypatch.setattr(build_module, "_make_portion", None)  # all is made
    summary = build(remote)
    assert checksums(summary) == expected
    assert len(sent) == len(bucket.find("bucket/store")) - 1 > 10  # each file once, and store.json
    assert read_documents(Store.open("s3://bucket/store")) == read_documents(Store.open(config.out))
    assert not bucket.exists("bucket/store/store.json.part")


def test_files_of_an_upload_of_another_store_are_sent_again(server, bucket, remote, small, monkeypatch):
    """The held-out documents of another seed have the same size and other content."""

    def fail(lines: Any, num_bytes: int) -> None:
        if bucket.exists("bucket/store/held_out.npy"):
            raise OSError("a cable")

    with monkeypatch.context() as context:
        context.setattr(copies.Progress, "add", fail)
        with pytest.raises(StorageError, match="a cable"), pytest.warns(UserWarning, match="waits in"):
            build(remote)
    summary = build(dataclasses.replace(remote, seed=1))
    assert Store.open("s3://bucket/store").summary["held_out"] == summary["held_out"]


def test_overwriting(bucket, remote, small):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(remote)
        with pytest.raises(
            ValueError, match="s3://bucket/store exists already: choose another --out, or pass --overwrite"
        ):
            build(remote)
        before = Store.open("s3://bucket/store")
        fewer = dataclasses.replace(remote, corpus=("s3://bucket/corpus/a-b.txt",), overwrite=True)
        summary = build(fewer)
    names = {f"{shard['name']}/{name}" for shard in summary["shards"] for name in shard["files"]} | {*summary["files"]}
    assert {name.removeprefix("bucket/store/") for name in bucket.find("bucket/store")} == names | {"store.json"}
    after = Store.open("s3://bucket/store")
    assert after.num_documents == summary["documents"] < before.num_documents
    kept = {path.relative_to(after.folder).as_posix() for path in after.folder.rglob("*") if path.is_file()}
    assert kept == names | {"store.json"}
    bucket.pipe_file("bucket/mine/notes.txt", b"mine")
    for out in ("s3://bucket/mine", "s3://bucket"):
        with pytest.raises(ValueError, match=f"{out} holds other files and no store.json"):
            build(dataclasses.replace(remote, out=out, overwrite=True))
    assert bucket.exists("bucket/mine/notes.txt")


# ------------------------------------------------------------------------------------------------------ the cache


@pytest.fixture
def store(remote: BuildConfig, small: None) -> str:
    """A store in the bucket."""
    build(remote)
    return str(remote.out)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are copied from now on."""
    fetch, names = copies._fetch_file, []

    def note(url: str, *given: Any) -> None:
        names.append(url)
        fetch(url, *given)

    monkeypatch.setattr(copies, "_fetch_file", note)
    return names


def test_a_copy_is_used_again(server, store, fetched):
    documents = read_documents(Store.open(store))
    assert len(fetched) == len(set(fetched)) > 10
    fetched.clear()
    assert read_documents(Store.open(store)) == read_documents(Store.open(f"{store}/")) == documents and not fetched
    server.stop()
    with pytest.warns(UserWarning, match=r"the storage does not answer .*; the copy in .* is used, which may be older"):
        assert read_documents(Store.open(store)) == documents
    with pytest.raises(StorageError, match=r"^s3://bucket/other/store.json: the storage does not answer"):
        Store.open("s3://bucket/other")


def test_a_damaged_copy_is_mended(store, fetched):
    opened = Store.open(store)
    documents = read_documents(opened)
    shard = opened.folder / "shard-00001"
    fetched.clear()
    with open(shard / "lines.npy", "r+b") as file:
        file.truncate(100)
    (shard / "hashes.npy").unlink()
    assert read_documents(Store.open(store, verify=False)) == documents
    assert sorted(fetched) == [f"{store}/shard-00001/hashes.npy", f"{store}/shard-00001/lines.npy"]
    fetched.clear()
    content = bytearray((shard / "tokens.npy").read_bytes())
    content[-1] ^= 1
    (shard / "tokens.npy").write_bytes(content)
    assert read_documents(Store.open(store)) == documents and fetched == [f"{store}/shard-00001/tokens.npy"]


def test_a_copy_that_was_broken_off_goes_on(server, bucket, store, fetched, monkeypatch):
    fetch = copies._fetch_file
    monkeypatch.setattr(copies, "_CONNECTIONS", 1)

    def stop_in_the_middle(*given: Any) -> None:
        if len(fetched) == 6:
            server.stop()
        fetch(*given)

    monkeypatch.setattr(copies, "_fetch_file", stop_in_the_middle)
    with pytest.raises(StorageError, match="the storage does not answer"):
        Store.open(store)
    server.start()
    done = set(fetched[:6])
    del fetched[:]
    monkeypatch.setattr(copies, "_fetch_file", fetch)
    Store.open(store)
    assert fetched and not done & set(fetched)


def test_a_store_that_changed_is_copied_anew_as_far_as_it_differs(remote, store, fetched):
    Store.open(store)
    fetched.clear()
    summary = build(dataclasses.replace(remote, seed=3, overwrite=True))
    assert Store.open(store).summary["held_out"] == summary["held_out"]
    assert fetched == [f"{store}/held_out.npy"]


def test_what_is_wrong_there(bucket, store, monkeypatch):
    disk = namedtuple("disk", "total used free")
    with monkeypatch.context() as context:
        context.setattr(shutil, "disk_usage", lambda path: disk(10, 9, 1))
        with pytest.raises(ValueError, match=r"has room for 0 MB, but the copy of .* let ELECTRA_CACHE name"):
            Store.open(store)
    content = bucket.cat_file("bucket/store/shard-00001/tokens.npy")
    bucket.pipe_file("bucket/store/shard-00001/tokens.npy", content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"s3://bucket/store/shard-00001/tokens.npy is damaged \(its sha256"):
        Store.open(store)
    bucket.rm_file("bucket/store/shard-00001/tokens.npy")
    with pytest.raises(FileNotFoundError) as missing:
        Store.open(store)
    assert missing.value.filename == "s3://bucket/store/shard-00001/tokens.npy"
    summary = json.loads(bucket.cat_file("bucket/store/store.json"))
    for damaged, sentence in (
        (b"{", "is damaged"),
        (json.dumps(summary | {"version": 99}).encode(), "has format version 99"),
        (json.dumps({**summary, "shards": 7}).encode(), "is damaged"),
        (json.dumps({**summary, "files": {"held_out.npy": {}}}).encode(), "is damaged"),
        (json.dumps({**summary, "files": {"../../x": {}}}).encode(), "names ../../x, which is not in the store"),
        (b"[]", "does not describe a token store"),
    ):
        bucket.pipe_file("bucket/store/store.json", damaged)
        with pytest.raises(ValueError, match=rf"s3://bucket/store/store.json {sentence}"):
            Store.open(store)


def test_several_processes_make_one_copy(store):
    code = f"from electra.store import Store; print(Store.open({store!r}, verify=False).num_tokens)"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    shown = [process.communicate(timeout=120) for process in started]
    assert len({out for out, _ in shown}) == 1 and int(shown[0][0]) > 0
    assert "".join(err for _, err in shown).count("copying") == 1


def test_a_run_on_a_store_there_is_the_run_on_a_local_one(server, store, config, tmp_path):
    """And it resumes from the copy when the server is gone."""
    build(dataclasses.replace(config, overwrite=True))
    model = "--hidden-size 16 --num-layers 1 --num-heads 1 --intermediate-size 16 --embedding-size 16 --seq-len 16"
    loop = "--batch-size 4 --steps 4 --warmup-steps 1 --log-every 1 --save-every 2 --eval-rows 4 --precision fp32"
    losses = []
    for data, out in ((config.out, tmp_path / "local"), (store, tmp_path / "remote")):
        assert main(["pretrain", "tiny", *model.split(), *loop.split(), "--data", str(data), "--out", str(out)]) == 0
        losses.append([metrics["loss"] for metrics in read_metrics(out, "train")])
    assert losses[0] == losses[1] and len(losses[0]) == 4
    assert f'data = [\n    "{store}",\n]' in (tmp_path / "remote" / "config.toml").read_text()
    server.stop()
    with pytest.warns(UserWarning, match="the copy in .* is used, which may be older"):
        assert main(["evaluate", str(tmp_path / "remote")]) == 0


def test_a_server_without_ranges_says_so(tmp_path):
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(tmp_path))

        def log_message(self, *given: Any) -> None:
            pass

    (tmp_path / "a.txt").write_text("abc\n" * 10_000)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        (url,) = [f"http://127.0.0.1:{web.server_port}/a.txt"]
        with pytest.raises(StorageError, match=r"a.txt: the server gives no parts of files: download it first"):
            storage.find(url)[0][0].read_range(10, 20)
        web.shutdown()
