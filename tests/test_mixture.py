"""Several stores in one run: shares, order, epochs, resuming, evaluation, and what is refused."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import make_store, numbered_documents, random_documents, some_rows
from test_pretrain import assert_same_run, command, config_for, curve

from electra import batches, mixture
from electra.advice import Adviser
from electra.batches import Rows
from electra.cli import main
from electra.config import LoopConfig, PhaseConfig, PretrainConfig, RowsConfig
from electra.evaluate import evaluate_run, open_run
from electra.mixture import MixedRows, Mixture, read_receipts, row_counts
from electra.packing import RowBatch
from electra.phases import plan
from electra.pretrain import pretrain
from electra.store import Shard, Store
from electra.toml import read_toml

CONFIG = RowsConfig(seq_len=16)


def parallel_stores(folder: Path, sizes: list[list[list[int]]], **options) -> list[Store]:
    """Stores of one vocabulary in which every token is another id, in all of them together."""
    documents = numbered_documents([document for store in sizes for document in store])
    stores, first = [], 0
    for number, store in enumerate(sizes):
        part = documents[first : first + len(store)]
        stores.append(make_store(folder / f"store{number}", part, vocab=9000, **options))
        first += len(store)
    return stores


def random_sizes(count: int, seed: int) -> list[list[int]]:
    return [[len(line) for line in document] for document in random_documents(count, seed)]


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> list[Store]:
    sizes = [random_sizes(count, seed) for seed, count in enumerate((30, 12, 8))]
    return parallel_stores(tmp_path_factory.mktemp("three"), sizes, held_out=0.2)


def locations(stores: list[Store]) -> list[str]:
    return [str(store.folder) for store in stores]


def same(one: RowBatch, other: RowBatch) -> bool:
    return all(
        np.array_equal(getattr(one, item.name), getattr(other, item.name)) for item in dataclasses.fields(RowBatch)
    )


def origin(stores: list[Store], batch: RowBatch) -> np.ndarray:
    """(R,) which store each row comes from, by its largest token."""
    last = np.cumsum([store.num_tokens for store in stores]) + 5
    return np.searchsorted(last, batch.input_ids.max(axis=1), side="right")


def texts(batch: RowBatch) -> list[int]:
    return batch.input_ids[batch.input_ids >= 5].tolist()


# ------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1, 1, 8), (2, 97, 1)])
def test_shares_hold_in_every_stretch_and_exactly_in_whole_periods(three, weights, monkeypatch):
    monkeypatch.setattr(mixture, "PERIOD", 200)
    stores = three[: len(weights)]
    rows = MixedRows(Mixture.open(locations(stores), weights), CONFIG, seed=3)
    shares = np.array(weights) / sum(weights)
    assert rows.mixture.shares == pytest.approx(shares)
    found = np.eye(len(stores))[origin(stores, rows.rows(0, 1000))]
    begun = np.concatenate([np.zeros((1, len(stores))), np.cumsum(found, axis=0)])
    assert (begun[::200] == np.round(shares * np.arange(0, 1001, 200)[:, None])).all()
    excess = begun - shares * np.arange(1001)[:, None]
    # The count of each store is within one of its share at any moment, the number of rows the sum of them.
    assert (np.abs(excess) < 1 + shares * (len(stores) - 2)).all()
    # In which order they come is chance: not a fixed cycle, another one in each period.
    assert not (found[:200] == found[200:400]).all()


def test_weights_default_to_tokens_to_train_on(three):
    opened = Mixture.open(locations(three))
    tokens = np.array([store.document_lengths()[store.document_ids(False)].sum() for store in three])
    assert opened.shares == pytest.approx(tokens / tokens.sum(), abs=1e-6)
    epochs = MixedRows(opened, CONFIG, seed=0).epochs(1000)
    assert max(epochs) < 1.05 * min(epochs)  # all text as often


def test_one_store_alone_gives_its_own_rows(three):
    for weights in ((), (0.2,)):
        for held_out in (False, True):
            mixed = MixedRows(Mixture.open(locations(three[:1]), weights), CONFIG, seed=5, held_out=held_out)
            alone = Rows(three[0], CONFIG, seed=5, held_out=held_out)
            assert mixed.rows_per_epoch == alone.rows_per_epoch
            assert same(mixed.rows(3, 700), alone.rows(3, 700))


def test_phases_share_what_takes_memory(three):
    opened = Mixture.open(locations(three))
    one, two = (MixedRows(opened, RowsConfig(seq_len=length), seed=length) for length in (16, 32))
    for first, second in zip(one.sources, two.sources, strict=True):
        assert first._source.documents is second._source.documents


def test_each_store_gives_its_own_rows_in_order(three, monkeypatch):
    monkeypatch.setattr(mixture, "PERIOD", 128)
    rows = MixedRows(Mixture.open(locations(three), (5, 3, 2)), CONFIG, seed=5)
    batch = rows.rows(0, 500)
    for number, source in enumerate(rows.sources):
        mine = np.flatnonzero(origin(three, batch) == number)
        assert same(some_rows(batch, mine), source.rows(0, len(mine)))
    assert same(
        some_rows(batch, np.flatnonzero(origin(three, batch) == 0)), Rows(three[0], CONFIG, seed=5).rows(0, 250)
    )


def test_rows_do_not_depend_on_how_they_are_asked_for(three, monkeypatch):
    """So a run that resumes, and each of several processes, gets its part of the same rows."""
    monkeypatch.setattr(mixture, "PERIOD", 64)
    opened = Mixture.open(locations(three), (5, 3, 2))
    whole = MixedRows(opened, CONFIG, seed=1).rows(0, 400)
    for start, count in ((0, 1), (63, 2), (64, 64), (5, 300), (399, 1), (130, 8)):
        again = MixedRows(opened, CONFIG, seed=1).rows(start, count)
        assert same(again, some_rows(whole, slice(start, start + count)))
    assert not same(MixedRows(opened, CONFIG, seed=2).rows(0, 400), whole)


def test_the_same_documents_in_two_stores_come_in_another_order(tmp_path):
    """As those of a text and its translation: their rows are not to stand side by side."""
    sizes = [[20]] * 200
    stores = parallel_stores(tmp_path, [sizes, sizes])
    rows = MixedRows(Mixture.open(locations(stores)), RowsConfig(seq_len=23, single_segment_prob=0), seed=0)
    numbers = [(source.rows(0, 200).input_ids.max(axis=1) - 5) % 4000 // 20 for source in rows.sources]
    assert abs(np.corrcoef(*numbers)[0, 1]) < 0.2


line_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=5)
documents = st.lists(line_lengths, min_size=1, max_size=12)


def in_memory(like: Store, sizes: list[list[int]], first: int, num_shards: int) -> Store:
    """A store whose tokens are first, first + 1, ...; its documents dealt out in order to shards."""
    shards = []
    for part in np.array_split(np.arange(len(sizes)), num_shards):
        lines = [length for number in part for length in sizes[number]]
        ends, counts = np.cumsum([0, *lines]), np.cumsum([0, *(len(sizes[number]) for number in part)])
        shards.append(Shard(np.arange(first, first + ends[-1], dtype=np.uint16), ends, counts))
        first += int(ends[-1])
    empty = np.zeros(0, np.int64)
    return dataclasses.replace(like, num_documents=len(sizes), held_out=empty, excluded=empty, shards=tuple(shards))


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(documents, min_size=1, max_size=3),
    weights=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    seq_len=st.integers(8, 40),
    shares=st.tuples(st.sampled_from([0, 0.1, 1]), st.sampled_from([0, 0.05, 1])),
    seed=st.integers(0, 2**40),
    group_tokens=st.sampled_from([50, 1 << 30]),
    num_shards=st.sampled_from([1, 4]),
)
def test_no_token_is_lost_or_duplicated_over_an_epoch(
    three, sizes, weights, seq_len, shares, seed, group_tokens, num_shards
):
    config = RowsConfig(seq_len=seq_len, single_segment_prob=shares[0], short_row_prob=shares[1])
    expected, stores = [], []
    for store in sizes:
        first = expected[-1][-1] + 1 if expected else 5
        expected.append(list(range(first, first + sum(map(sum, store)))))
        stores.append(in_memory(three[0], store, first, num_shards))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture, "PERIOD", 37)
        patch.setattr(batches, "GROUP_TOKENS", group_tokens)
        rows = MixedRows(Mixture(tuple(stores), row_counts(weights[: len(stores)])), config, seed=seed)
        longest = max(s.rows_per_epoch / share for s, share in zip(rows.sources, rows.mixture.shares, strict=True))
        seen = rows.rows(0, 2 * int(longest) + 2 * 37)
    largest = seen.input_ids.max(axis=1)
    for source, tokens in zip(rows.sources, expected, strict=True):
        mine = np.flatnonzero((largest >= tokens[0]) & (largest <= tokens[-1]))
        for epoch in (0, 1):
            places = mine[epoch * source.rows_per_epoch : (epoch + 1) * source.rows_per_epoch]
            assert sorted(texts(some_rows(seen, places))) == tokens


# ----------------------------------------------------------------------------------------------- refused


def test_stores_that_do_not_go_together(three, tmp_path):
    other = make_store(tmp_path / "other", random_documents(5, vocab=500), vocab=500)
    with pytest.raises(ValueError, match=r"store0 and .*other have different vocabularies"):
        Mixture.open([*locations(three), str(other.folder)])
    with pytest.raises(ValueError, match=r"the share of the store .*store1 is less than one row in 1,048,576"):
        Mixture.open(locations(three), (1, 1e-9, 1))
    with pytest.raises(ValueError, match=r"--weights needs a number for each of the 2 stores of --data, not 1"):
        PretrainConfig(data=("a", "b"), weights=(1.0,))
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="--weights must be positive"):
            PretrainConfig(data=("a", "b"), weights=(1.0, weight))
    with pytest.raises(ValueError, match="--data names a store twice"):
        PretrainConfig(data=("a", "a"))
    rows = MixedRows(Mixture.open(locations(three), (1, 1, 2)), CONFIG, seed=0)
    smallest = rows.sources[2].rows_per_epoch
    rows.require_rows(2 * smallest)
    with pytest.raises(ValueError, match=rf"store2 has only {smallest} rows of length 16 but .* {smallest + 1}: lower"):
        rows.require_rows(2 * smallest + 1)


def test_too_many_epochs_are_named_by_store(three):
    config = PretrainConfig(
        rows=CONFIG,
        loop=LoopConfig(steps=2000, batch_size=8),
        phases=(PhaseConfig(steps=1000), PhaseConfig(steps=1000, seq_len=32)),
    )
    phases, opened = plan(config), Mixture.open(locations(three), (90, 9, 1))
    rows = [MixedRows(opened, phase.config.rows, seed=phase.row_seed) for phase in phases]
    lines = [line for line in Adviser(phases).before_training(rows) if "times" in line]
    epochs = sum(8000 * 0.9 / phase_rows.sources[0].rows_per_epoch for phase_rows in rows)
    (line,) = lines
    assert f"of the store {three[0].folder} {epochs:.0f} times" in line and "give it less weight" in line


# -------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("pair")
    names = ("general", "domain")
    return tuple(str(make_store(folder / n, random_documents(60, seed=len(n)), held_out=0.2).folder) for n in names)


def mixed_config(pair: tuple[str, str], out: Path, weights: tuple[float, ...] = (0.7, 0.3), **loop) -> PretrainConfig:
    return dataclasses.replace(config_for(Path(pair[0]), out, **loop), data=pair, weights=weights)


@pytest.fixture(scope="module")
def whole(pair, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert pretrain(mixed_config(pair, out)).step == 12
    return out


def test_a_run_says_what_it_reads(pair, tmp_path, capsys):
    pretrain(mixed_config(pair, tmp_path / "run"), dry_run=True)
    said = capsys.readouterr().out
    rows = MixedRows(Mixture.open(pair, (0.7, 0.3)), RowsConfig(seq_len=32), seed=1)
    for share, folder, source in zip((70, 30), pair, rows.sources, strict=True):
        epochs = share / 100 * 96 / source.rows_per_epoch
        assert f"{share}.0% {folder}: {epochs:.2f} epochs of {source.rows_per_epoch:,} rows" in said
        assert f"store       {folder}: " in said
    assert "12 steps x 8 rows of 32" in said


def test_a_run_resumes_to_the_same_bits(pair, whole, tmp_path):
    out = tmp_path / "stopped"
    pretrain(mixed_config(pair, out))
    for path in (out / "export", *(out / "checkpoints" / f"step-{step}" for step in (12, 9, 6))):
        shutil.rmtree(path)
    assert pretrain(mixed_config(pair, out)).step == 12  # from step 3
    assert_same_run(whole, out)


def test_two_processes_equal_one(pair, tmp_path):
    curves = []
    for processes in (1, 2):
        config = mixed_config(pair, tmp_path / f"p{processes}", steps=2, micro_batch_size=4, eval_every=2)
        done = subprocess.run(command(config, processes=processes), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        curves.append(curve(config.out))
    for one, two in zip(*curves, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_what_a_run_with_other_stores_says(pair, whole, tmp_path):
    with pytest.raises(ValueError, match=r"weights is \(0.7, 0.3\) there, \(0.5, 0.5\) now"):
        pretrain(mixed_config(pair, whole, weights=(0.5, 0.5)))
    with pytest.raises(ValueError, match=r"domain holds other text than the store with which .*whole began"):
        pretrain(mixed_config(pair[::-1], whole))
    alone = tmp_path / "alone"
    pretrain(dataclasses.replace(mixed_config(pair, alone, weights=(), steps=2), data=pair[:1]))
    with pytest.raises(ValueError, match=r"alone began with 1 store, not 2"):
        pretrain(mixed_config(pair, alone, weights=(), steps=2))


def test_the_folder_of_a_run(pair, whole, capsys):
    config = read_toml(PretrainConfig, whole / "config.toml")
    assert config.data == pair and config.weights == (0.7, 0.3)
    for name, store in zip(("store.json", "store-2.json"), pair, strict=True):
        assert (whole / name).read_bytes() == (Path(store) / "store.json").read_bytes()
    card = (whole / "export" / "discriminator" / "README.md").read_text()
    opened = [Store.open(store) for store in pair]
    for share, store in zip(("70.0%", "30.0%"), opened, strict=True):
        assert f"{share} of the rows from {store.num_tokens:,} tokens in {store.num_documents:,} documents" in card
    assert main(["inspect", str(whole)]) == 0
    assert f"store {pair[1]}: {opened[1].num_tokens:,} tokens in 60 documents, 30.0% of the rows" in (
        capsys.readouterr().out
    )


def test_evaluation_reads_the_same_shares_or_one_store(pair, whole):
    opened = open_run(whole, None, 40, "cpu")
    expected = MixedRows(Mixture.open(pair, (0.7, 0.3)), RowsConfig(seq_len=32), seed=1, held_out=True).rows(0, 40)
    assert np.array_equal(opened.evaluator.batch.input_ids.numpy(), expected.input_ids)
    domain = Rows(Store.open(pair[1]), RowsConfig(seq_len=32), seed=1, held_out=True)
    alone = open_run(whole, pair[1], 8, "cpu").evaluator.batch
    assert np.array_equal(alone.input_ids.numpy(), domain.rows(0, 8).input_ids)
    assert evaluate_run(whole, pair[1], 8, "cpu")["held_out_rows"] == 8
    assert main(["evaluate", str(whole), "--rows", "8"]) == 0


def test_stores_without_held_out_documents_are_left_out_of_evaluations(tmp_path, three):
    bare = make_store(tmp_path / "bare", random_documents(20), vocab=9000)
    opened = Mixture.open([*locations(three), str(bare.folder)], (4, 1, 2, 3))
    rows = MixedRows(opened, CONFIG, seed=0, held_out=True)
    assert [store.folder for store in rows.mixture.stores] == [store.folder for store in three]
    assert rows.mixture.shares == pytest.approx((4 / 7, 1 / 7, 2 / 7), abs=1e-6)
    held = np.concatenate([store.document_ids(True) for store in three])
    assert len(held) and set(origin(three, rows.rows(0, 70))) == {0, 1, 2}
    said: list[str] = []
    config = mixed_config((str(three[0].folder), str(bare.folder)), tmp_path / "run", steps=1)
    pretrain(config, say=said.append)
    assert f"the store {bare.folder} has no held-out documents: evaluations are on the others" in said


# ----------------------------------------------------------------------------------------------- settings


def test_data_in_files_and_flags(pair, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('data = "one"\n')
    assert read_toml(PretrainConfig, path).data == ("one",)  # as files said when a run had one store
    path.write_text('data = ["s3://bucket/store", "b"]\nweights = [2, 1]\n')
    config = read_toml(PretrainConfig, path)
    assert config.data == ("s3://bucket/store", "b") and config.weights == (2.0, 1.0)
    flags = ["--out", str(tmp_path / "run"), "--seq-len", "32", "--steps", "5", "--device", "cpu", "--dry-run"]
    assert main(["pretrain", "tiny", "--data", *pair, "--weights", "3", "1", "--batch-size", "8", *flags]) == 0
    assert f"75.0% {pair[0]}: " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["pretrain", "tiny", "--data", *pair, "--weights", "3", *flags])
    assert "--weights needs a number for each of the 2" in capsys.readouterr().err
    assert main(["pretrain", "tiny", *flags]) == 2
    assert "pretrain needs --data" in capsys.readouterr().err


def test_a_location_that_is_no_path_stays_as_it_is(pair, tmp_path, monkeypatch):
    """A URL is not made absolute; here it stands for a local store."""
    url, opened = "memory://bucket/store", Store.open
    monkeypatch.setattr(Store, "open", lambda location, verify=True: opened(pair[0] if location == url else location))
    monkeypatch.chdir(Path(pair[1]).parent)
    pretrain(mixed_config((url, "domain"), tmp_path / "run", steps=1))
    assert read_toml(PretrainConfig, tmp_path / "run" / "config.toml").data == (url, pair[1])


def test_a_run_that_ended_before_it_began(tmp_path):
    with pytest.raises(ValueError, match=r"store.json does not exist: .* remove the folder, and begin again"):
        read_receipts(tmp_path)
