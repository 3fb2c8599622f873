import itertools
import json
import random
import threading
from dataclasses import fields

import numpy as np
import pytest
from stores import make_store, numbered_documents, random_documents, read_documents, some_rows

from electra import batches
from electra.batches import Rows, google_examples, prefetch
from electra.build import build
from electra.config import BuildConfig, RowsConfig
from electra.draws import keys, shuffled
from electra.packing import PackedRows, RowBatch
from electra.store import Store

CLS, SEP = 2, 3


def random_sizes(count, seed=0):
    """Line lengths of documents with a heavy tail."""
    return [[len(line) for line in document] for document in random_documents(count, seed)]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> Store:
    """A store in which every token is another id, so that a token tells where it comes from; 5 % held out."""
    folder = tmp_path_factory.mktemp("numbered")
    return make_store(folder / "store", numbered_documents(random_sizes(300)), held_out=0.05, vocab=65000)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("large") / "store", random_documents(3000, mean_lines=12))


def same(one: RowBatch, other: RowBatch) -> bool:
    return all(np.array_equal(getattr(one, item.name), getattr(other, item.name)) for item in fields(RowBatch))


def pieces_of(batch: RowBatch) -> list[list[tuple[list[int], list[int]]]]:
    """The pieces (A, B) of each row, by plain loops that check the layout on the way."""
    rows = []
    for ids, segments, numbers, positions in zip(
        batch.input_ids.tolist(),
        batch.segment_ids.tolist(),
        batch.piece_ids.tolist(),
        batch.position_ids.tolist(),
        strict=True,
    ):
        row = []
        place = 0
        while place < len(ids) and numbers[place]:
            end = place
            while end < len(ids) and numbers[end] == len(row) + 1:
                end += 1
            piece, kinds = ids[place:end], segments[place:end]
            assert positions[place:end] == list(range(end - place))
            a = kinds.count(0) - 2
            assert kinds == sorted(kinds)
            assert a > 0 and piece[0] == CLS and piece[a + 1] == SEP and piece[-1] == SEP
            first, second = piece[1 : a + 1], piece[a + 2 : -1]
            assert min(first + second) >= 5 and (second or len(piece) == a + 2)
            row.append((first, second))
            place = end
        assert ids[place:] == segments[place:] == numbers[place:] == positions[place:] == [0] * (len(ids) - place)
        rows.append(row)
    return rows


def epoch_rows(rows: Rows, epoch: int = 0) -> RowBatch:
    return rows.rows(epoch * rows.rows_per_epoch, rows.rows_per_epoch)


# -------------------------------------------------------------------------------------------------- packed


@pytest.mark.parametrize("seq_len", [8, 10, 16, 64, 128, 512])
@pytest.mark.parametrize(("single", "short"), [(0.1, 0.05), (0, 0), (1, 1), (0.5, 0.9)])
@pytest.mark.parametrize("group_tokens", [1 << 30, 3000])
def test_every_token_once_an_epoch_and_in_order(numbered, seq_len, single, short, group_tokens, monkeypatch):
    monkeypatch.setattr(batches, "GROUP_TOKENS", group_tokens)
    config = RowsConfig(seq_len=seq_len, single_segment_prob=single, short_row_prob=short)
    for held_out in (False, True):
        rows = Rows(numbered, config, seed=3, held_out=held_out)
        ends = np.cumsum(numbered.document_lengths()) + 5
        expected = []
        for document in numbered.document_ids(held_out):
            expected += range(ends[document] - numbered.document_lengths()[document], ends[document])
        assert rows.tokens_per_epoch == len(expected)
        for epoch in (0, 1):
            batch = epoch_rows(rows, epoch)
            pieces = [first + second for row in pieces_of(batch) for first, second in row]
            assert sorted(itertools.chain(*pieces)) == expected
            for piece in pieces:
                assert piece == list(range(piece[0], piece[-1] + 1))
                assert np.searchsorted(ends, piece[0], "right") == np.searchsorted(ends, piece[-1], "right")


def test_a_large_store_is_read_in_groups_of_documents(large, monkeypatch):
    monkeypatch.setattr(batches, "GROUP_TOKENS", large.num_tokens // 5 + 1)
    rows = Rows(large, RowsConfig(seq_len=64), seed=0)
    groups = [rows._source._make_group(number) for number in range(5)]
    assert len(rows._source._members) == 5 and rows.rows_per_epoch == sum(group.rows_per_epoch for group in groups)
    whole = [epoch_rows(rows, epoch) for epoch in (0, 1)]
    # Any range gives the same rows, whatever was asked before; the groups come in another order in each epoch.
    for start, count in ((0, 5), (rows.rows_per_epoch - 9, 20), (7, rows.rows_per_epoch // 2)):
        again = Rows(large, RowsConfig(seq_len=64), seed=0).rows(start, count)
        expected = np.concatenate([batch.input_ids for batch in whole])[start : start + count]
        assert (again.input_ids == expected).all()
    assert not (whole[0].input_ids == whole[1].input_ids).all(axis=1).any()
    # The documents of a group are a sample of the whole store.
    means = [group.documents.lengths.mean() for group in groups]
    assert np.std(means) < 3 * large.document_lengths().std() / (large.num_documents / 5) ** 0.5


def test_documents_larger_than_a_group(tmp_path, monkeypatch):
    """As of a file of gigabytes without an empty line: a group is a document then."""
    monkeypatch.setattr(batches, "GROUP_TOKENS", 100)
    store = make_store(tmp_path / "store", numbered_documents([[900], [700]]), vocab=6000)
    rows = Rows(store, RowsConfig(seq_len=16), seed=0)
    assert len(rows._source._members) == 2
    batch = epoch_rows(rows)
    assert sorted(batch.input_ids[batch.input_ids >= 5]) == list(range(5, 1605))


def test_rows_are_full(numbered, large):
    for store in (numbered, large):
        padding = (~epoch_rows(Rows(store, RowsConfig(), seed=0)).valid).sum(axis=1)
        worst_first = np.sort(padding)[::-1]
        # At most 3 places at either end of a window and 1 for a piece of one token; apart from the epoch's last row.
        assert worst_first[1] <= 8
        assert padding.sum() - worst_first[0] < 0.001 * padding.size * 128


def test_statistics(large):
    config = RowsConfig(seq_len=128)
    rows = Rows(large, config, seed=0)
    batch = epoch_rows(rows)
    pieces = pieces_of(batch)
    firsts = np.array([len(first) for row in pieces for first, _ in row])
    seconds = np.array([len(second) for row in pieces for _, second in row])
    divisible = firsts + seconds > 1
    assert abs((seconds[divisible] == 0).mean() - 0.1) < 0.01
    full = (firsts + seconds >= 120) & (seconds > 0)
    assert abs(firsts[full].mean() / (firsts + seconds)[full].mean() - 0.5) < 0.03

    # Short rows: exactly the share, cut anywhere from 5 to 123, and a new piece begins at the cut.
    cuts = rows._source._group(0)._plan(0).cuts
    short = np.flatnonzero(cuts < 128)
    assert abs(len(short) / len(cuts) - 0.05) < 0.001
    assert cuts[short].min() >= 5 and cuts[short].max() <= 123 and abs(cuts[short].mean() - 64) < 5
    assert (batch.position_ids[short, cuts[short]] == 0).mean() > 0.95


def test_segment_a_ends_with_a_line(numbered):
    """Wherever a line ends inside of a piece, A ends with the last line before its half or the first one after."""
    line_ends = np.concatenate([shard.lines for shard in numbered.shards]) + 5  # ids count the tokens
    coins = []
    inside = 0
    for row in pieces_of(epoch_rows(Rows(numbered, RowsConfig(seq_len=128), seed=0))):
        for first, second in row:
            if not second:
                continue
            half = first[0] + (len(first) + len(second)) // 2
            boundaries = [end for end in line_ends if first[0] < end <= second[-1]]
            before = max((end for end in boundaries if end < half), default=None)
            after = min((end for end in boundaries if end >= half), default=None)
            if before is None and after is None:
                assert second[0] == half
                inside += 1
            else:
                assert second[0] in (before, after)
            if before is not None and after is not None:
                coins.append(second[0] == after)
    assert inside > 0 and abs(np.mean(coins) - 0.5) < 0.1


def test_rows_do_not_depend_on_how_they_are_asked_for(numbered):
    config = RowsConfig(seq_len=64)
    rows = Rows(numbered, config, seed=5)
    total = rows.rows_per_epoch
    whole = rows.rows(0, 3 * total)
    assert len(whole.input_ids) == 3 * total
    for start, count in [
        (0, 1),
        (7, 13),
        (total - 2, 5),
        (total - 1, 1),
        (total, 1),
        (10, 2 * total),
        (2 * total, total),
    ]:
        fresh = Rows(numbered, config, seed=5)
        assert same(fresh.rows(start, count), some_rows(whole, slice(start, start + count)))
    pairs = [rows.rows(start, 1) for start in reversed(range(total - 3, total + 3))]
    for row, start in zip(pairs, reversed(range(total - 3, total + 3)), strict=True):
        assert same(row, some_rows(whole, [start]))
    assert rows.epoch_of(2 * total + 3) == (2, 3)


def test_seeds_and_epochs_differ(numbered):
    config = RowsConfig(seq_len=64)
    rows = Rows(numbered, config, seed=5)
    other = Rows(numbered, config, seed=6)
    assert rows.rows_per_epoch == other.rows_per_epoch
    texts = [epoch_rows(rows, 0), epoch_rows(rows, 1), epoch_rows(other, 0)]
    for one, two in itertools.combinations(texts, 2):
        assert (one.input_ids == two.input_ids).all(axis=1).mean() < 0.01
        # Not only the order: rows are cut at other places.
        assert len(set(map(tuple, one.input_ids)) & set(map(tuple, two.input_ids))) < 0.2 * len(one.input_ids)


@pytest.mark.parametrize("packing", ["packed", "google"])
def test_shards_do_not_change_rows(tmp_path, packing):
    documents = random_documents(60)
    one = make_store(tmp_path / "one", documents, held_out=0.1)
    many = make_store(tmp_path / "many", documents, held_out=0.1, shard_tokens=1000)
    assert len(one.shards) == 1 and len(many.shards) > 5
    for held_out in (False, True):
        rows = [Rows(store, RowsConfig(packing=packing), seed=2, held_out=held_out) for store in (one, many)]
        assert same(epoch_rows(rows[0]), epoch_rows(rows[1]))


@pytest.mark.parametrize("packing", ["packed", "google"])
@pytest.mark.parametrize("sizes", [[[1]], [[1], [1]], [[2]], [[1, 1, 1]], [[1]] * 200, [[2]] * 100, [[5000]]])
def test_tiny_and_odd_stores(tmp_path, packing, sizes):
    store = make_store(tmp_path / "store", numbered_documents(sizes), vocab=6000)
    config = RowsConfig(seq_len=512 if len(sizes) == 200 else 8, packing=packing)
    rows = Rows(store, config, seed=0)
    for epoch in range(3):
        seen = [token for row in pieces_of(epoch_rows(rows, epoch)) for piece in row for token in piece[0] + piece[1]]
        if packing == "packed":
            assert sorted(seen) == list(range(5, 5 + sum(map(sum, sizes))))
        else:
            assert seen


def test_number_of_rows_is_the_same_for_all_seeds_and_epochs():
    """Quotas, not chance: on many small stores the last row holds something and the rows hold everything."""

    class Documents:
        def __init__(self, lengths):
            self.lengths = np.array(lengths)

    for seed in range(400):
        rng = np.random.default_rng(seed)
        documents = Documents(rng.integers(1, rng.integers(2, 60), rng.integers(1, 30)))
        single, short = rng.random(2) * rng.integers(0, 2, 2)
        config = RowsConfig(int(rng.integers(8, 40)), "packed", float(single), float(short))
        packed = PackedRows(None, documents, config, seed)
        for epoch in range(3):
            plan = packed._plan(epoch)  # asserts that the last row begins inside the stream and that all fits
            assert len(plan.row_starts) == packed.rows_per_epoch


def test_shuffled_is_a_permutation():
    for count in [0, 1, 2, 3, 10, 1000, 4097]:
        orders = [shuffled(count, key) for key in keys(3, 1, count)]
        assert all(sorted(order) == list(range(count)) for order in orders)
    # No place is favoured: over many keys each number stands in each place equally often.
    table = np.zeros((8, 8))
    for key in keys(4000, 2):
        table[np.arange(8), shuffled(8, key)] += 1
    assert np.abs(table / 4000 - 1 / 8).max() < 0.025


def test_store_too_small(tmp_path):
    store = make_store(tmp_path / "store", random_documents(2))
    rows = Rows(store, RowsConfig(seq_len=128), seed=0)
    rows.require_rows(rows.rows_per_epoch)
    with pytest.raises(
        ValueError, match=r"has only \d+ rows of length 128 but a batch needs 1000: lower loop.batch_size"
    ):
        rows.require_rows(1000)
    with pytest.raises(ValueError, match="has no held-out documents"):
        Rows(store, RowsConfig(), seed=0, held_out=True)


# -------------------------------------------------------------------------------------------------- google


def test_google_examples_equal_googles_own(golden, tmp_path):
    """From text, through a store, to the records that the original ExampleBuilder wrote after random.seed(12345)."""
    expected = json.loads((golden / "tiny_examples.json").read_text())
    corpus = (str(golden / "tiny_corpus" / "tiny.txt"),)
    build(BuildConfig(corpus=corpus, vocab=golden / "vocab512.txt", out=tmp_path / "store", held_out=0, processes=1))
    documents = read_documents(Store.open(tmp_path / "store"))
    length = expected["max_seq_length"]
    records = []
    for first, second in google_examples(documents, length, random.Random(expected["random_seed"])):
        ids = [CLS, *first, SEP, *second, *([SEP] if second else [])]
        segments = [0] * (len(first) + 2) + [1] * (len(ids) - len(first) - 2)
        blank = [0] * (length - len(ids))
        records.append(
            {"input_ids": ids + blank, "input_mask": [1] * len(ids) + blank, "segment_ids": segments + blank}
        )
    assert records == expected["examples"]


def test_google_rows_are_googles_examples(large):
    config = RowsConfig(packing="google")
    rows = Rows(large, config, seed=4)
    documents = []
    for shard in large.shards:
        for first, last in itertools.pairwise(shard.documents):
            documents.append([shard.tokens[shard.lines[n] : shard.lines[n + 1]].tolist() for n in range(first, last)])
    expected = [(a, b) for a, b in google_examples(documents, 128, random.Random(4))]
    for epoch in (0, 1):
        found = pieces_of(epoch_rows(rows, epoch))
        assert sorted(found) == sorted([example] for example in expected)
    assert not same(epoch_rows(rows, 0), epoch_rows(rows, 1))
    assert sum(len(a) + len(b) for a, b in expected) < rows.tokens_per_epoch


@pytest.fixture(scope="module")
def like_googles_corpus(tmp_path_factory, golden) -> Store:
    """A tenth as many documents, with lines that are distributed as in packing_stats.json: a log-normal fits them."""
    expected = json.loads((golden / "packing_stats.json").read_text())
    lengths = expected["line_length_wordpieces"]
    rng = np.random.default_rng(0)
    sigma = (2 * np.log(lengths["mean"] / lengths["median"])) ** 0.5
    lines = np.maximum(1, rng.lognormal(np.log(lengths["median"]), sigma, 9800).round().astype(int))
    assert abs((lines > 126).mean() - lengths["share_over_126"]) < 0.005 and abs(lines.mean() - lengths["mean"]) < 1
    cuts = np.sort(rng.choice(np.arange(1, len(lines)), 209 - 1, replace=False))
    documents = [[rng.integers(5, 1000, size).tolist() for size in part] for part in np.split(lines, cuts)]
    return make_store(tmp_path_factory.mktemp("like") / "store", documents)


def test_statistics_of_googles_builder(golden, like_googles_corpus):
    """What the original builder made of 23 MB of English prose."""
    expected = json.loads((golden / "packing_stats.json").read_text())
    batch = epoch_rows(Rows(like_googles_corpus, RowsConfig(packing="google"), seed=0))
    sizes, is_single = batch.valid.sum(axis=1), batch.segment_ids.max(axis=1) == 0
    kept = (sizes - np.where(is_single, 2, 3)).sum() / like_googles_corpus.num_tokens
    assert kept == pytest.approx(expected["share_of_wordpieces_kept"], abs=0.015)
    assert is_single.mean() == pytest.approx(expected["share_single_segment"], abs=0.025)
    assert (sizes == 128).mean() == pytest.approx(expected["share_full_length_128"], abs=0.015)
    assert sizes.mean() == pytest.approx(expected["mean_length"], abs=1)
    firsts = (batch.valid & (batch.segment_ids == 0)).sum(axis=1)[(sizes == 128) & ~is_single]  # with [CLS] and [SEP]
    of_first = expected["first_segment_length_in_full_two_segment_examples"]
    assert firsts.mean() == pytest.approx(of_first["mean"], abs=2)
    for share, length in of_first["quantiles"].items():
        assert np.quantile(firsts, float(share)) == pytest.approx(length, abs=3), share


def test_statistics_of_packed_rows_beside_googles(golden, like_googles_corpus):
    """Of the same text: nothing is thrown away, rows are full, and A is about as long."""
    expected = json.loads((golden / "packing_stats.json").read_text())
    batch = epoch_rows(Rows(like_googles_corpus, RowsConfig(), seed=0))
    pieces = list(itertools.chain(*pieces_of(batch)))
    assert sum(len(first) + len(second) for first, second in pieces) == like_googles_corpus.num_tokens
    assert batch.valid.mean() > 0.998 > expected["mean_length"] / 128
    full = [len(first) + 2 for first, second in pieces if len(first) + len(second) == 125 and second]
    of_first = expected["first_segment_length_in_full_two_segment_examples"]
    assert np.mean(full) == pytest.approx(of_first["mean"], abs=10)


# ------------------------------------------------------------------------------------------------ prefetch


def test_prefetch_keeps_the_order():
    for depth in (1, 2, 10):
        assert list(prefetch(lambda step: step * step, 3, 9, depth)) == [9, 16, 25, 36, 49, 64]
    assert list(prefetch(str, 5, 5)) == []


def test_prefetch_works_ahead_in_another_thread():
    made = []
    ahead = threading.Event()

    def make(step):
        made.append((step, threading.current_thread()))
        if step == 2:
            ahead.set()
        return step

    stream = prefetch(make, 0, 10)
    assert next(stream) == 0
    assert ahead.wait(5)
    assert all(thread is not threading.current_thread() for _, thread in made)
    stream.close()
    assert len(made) < 10 and not made[0][1].is_alive()


def test_prefetch_raises_where_the_value_would_have_come():
    def make(step):
        if step == 2:
            raise OSError("disk gone")
        return step

    stream = prefetch(make, 0, 5)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(OSError, match="disk gone"):
        next(stream)
