"""The breakdown of the held-out metrics against loops over single tokens and scikit-learn's AUC."""

import dataclasses
import json
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from stores import make_store, numbered_documents, random_documents, read_documents

from electra.batches import Rows
from electra.breakdown import Breakdown, Table, by_frequency, by_position, by_shown, report_run, token_counts
from electra.cli import main
from electra.config import LoopConfig, ModelConfig, ObjectiveConfig, PretrainConfig, RowsConfig
from electra.evaluate import Evaluator
from electra.objectives import make_model
from electra.pretrain import pretrain
from electra.runtime import Runtime
from electra.store import Store

CPU = Runtime(torch.device("cpu"), "fp32", "")
SHAPE = ModelConfig(32, 1, 2, 64, 16, generator_width=0.5, max_positions=64)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("breakdown")
    rng = np.random.default_rng(0)
    # Ranks like those of words: low ids often, the upper ones hardly ever, so that some occur in held-out text alone.
    documents = [
        [np.minimum(5 + rng.exponential(60, len(line)).astype(int), 999).tolist() for line in document]
        for document in random_documents(80)
    ]
    return make_store(folder / "store", documents, held_out=0.2)


def config_for(store: Store, **objective) -> PretrainConfig:
    return PretrainConfig(
        data=(str(store.folder),),
        model=SHAPE,
        objective=ObjectiveConfig(**objective),
        rows=RowsConfig(seq_len=32),
        loop=LoopConfig(steps=3, batch_size=8, eval_rows=40, precision="fp32", device="cpu"),
    )


def evaluated(store: Store, config: PretrainConfig):
    """A model of large random weights, whose generator and discriminator have opinions, and its evaluator."""
    torch.manual_seed(1)
    model = make_model(config.model, config.objective, store.vocab_size).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model, Evaluator(Rows(store, config.rows, seed=0, held_out=True), config, store.special, CPU)


def naive(batch, out, group_of) -> dict:
    """Group -> metrics, by loops over slots and tokens; `group_of(row, place)` is the name of a token's group."""
    slots, tokens = defaultdict(list), defaultdict(list)
    for row in range(len(batch.input_ids)):
        for k in range(batch.positions.shape[1]):
            if batch.weights[row, k] == 0:
                continue
            logits = out.generator_logits[row, k].double()
            true = int(batch.token_ids[row, k])
            loss = float(torch.logsumexp(logits, 0) - logits[true])
            hit, drawn = int(logits.argmax()) == true, int(out.sampled_ids[row, k]) == true
            slots[group_of(row, int(batch.positions[row, k]))].append((loss, hit, drawn))
        for place in range(batch.input_ids.shape[1]):
            if batch.piece_ids[row, place] > 0:
                replaced = int(out.corrupted_ids[row, place]) != int(batch.input_ids[row, place])
                tokens[group_of(row, place)].append((float(out.logits[row, place]), replaced))
    found = {}
    for group, pairs in tokens.items():
        logits, labels = (np.array(column) for column in zip(*pairs, strict=True))
        called, mine = logits > 0, slots[group]
        found[group] = {
            "predictions": len(mine),
            **{
                name: sum(values[i] for values in mine) / len(mine) if mine else None
                for i, name in enumerate(("generator_loss", "generator_accuracy", "generator_sampled_accuracy"))
            },
            "tokens": len(pairs),
            "replaced_share": labels.mean(),
            "discriminator_accuracy": (called == labels).mean(),
            "discriminator_precision": (called & labels).sum() / called.sum() if called.any() else None,
            "discriminator_recall": (called & labels).sum() / labels.sum() if labels.any() else None,
            "discriminator_auc": roc_auc_score(labels, logits) if 0 < labels.sum() < len(labels) else None,
        }
    return found


def same(table: Table, expected: dict) -> None:
    assert table.rows.keys() == expected.keys()
    for group, row in table.rows.items():
        assert row.keys() == expected[group].keys()
        for name, value in row.items():
            wanted = expected[group][name]
            assert value == (None if wanted is None else pytest.approx(wanted, rel=1e-5, abs=1e-9)), (group, name)


@pytest.mark.parametrize("with_replacement", [False, True])
def test_each_group_equals_a_loop_over_its_tokens(store, with_replacement):
    model, evaluator = evaluated(store, config_for(store, mask_with_replacement=with_replacement))
    counts = Counter(token for document in read_documents(store) for line in document for token in line)
    by_count = sorted(counts, key=lambda token: (-counts[token], token))
    rank = {token: place for place, token in enumerate(by_count)}
    ends = [100, len(by_count)]
    breakdown = Breakdown([by_position(32), by_frequency(token_counts(store), store.special), by_shown(store.special)])
    totals = evaluator(model, breakdown)
    with torch.no_grad():
        out = model.run(evaluator.batch)
    batch = evaluator.batch
    drawn = [set(row[used > 0].tolist()) for row, used in zip(batch.positions, batch.weights, strict=True)]

    def frequency(row: int, place: int) -> str:
        token = int(batch.input_ids[row, place])
        if token in (store.special.cls, store.special.sep):
            return "[CLS], [SEP]"
        return "1-100" if rank[token] < 100 else f"101-{ends[1]:,}"

    def shown(row: int, place: int) -> str:
        if place not in drawn[row]:
            return "not to predict"
        return "[MASK]" if int(batch.masked_input_ids[row, place]) == store.special.mask else "its own token"

    position, frequencies, shown_to = breakdown.tables()
    same(position, naive(batch, out, lambda row, place: f"{place // 4 * 4}-{place // 4 * 4 + 3}"))
    same(frequencies, naive(batch, out, frequency))
    same(shown_to, naive(batch, out, shown))
    for table in (position, frequencies, shown_to):  # the groups together are the whole
        rows = table.rows.values()
        assert sum(row["predictions"] for row in rows) == int(batch.weights.sum())
        losses = sum(row["generator_loss"] * row["predictions"] for row in rows if row["predictions"])
        assert losses / float(batch.weights.sum()) == pytest.approx(totals["generator_loss"], rel=1e-6)
        right = sum(row["discriminator_accuracy"] * row["tokens"] for row in rows)
        assert right / sum(row["tokens"] for row in rows) == pytest.approx(totals["discriminator_accuracy"], rel=1e-9)


def test_tokens_are_counted_over_all_shards(tmp_path):
    store = make_store(tmp_path / "store", random_documents(40), shard_tokens=500)
    assert len(store.shards) > 2
    counts = Counter(token for document in read_documents(store) for line in document for token in line)
    assert token_counts(store).tolist() == [counts[token] for token in range(store.vocab_size)]


def test_of_a_large_store_a_spread_sample_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("electra.breakdown.COUNTED_TOKENS", 200)
    monkeypatch.setattr("electra.breakdown.COUNTED_BLOCK", 10)
    store = make_store(tmp_path / "store", numbered_documents([[40] * 5] * 4))
    counted = np.flatnonzero(token_counts(store)) - 5
    assert 150 <= len(counted) <= 210 and counted.max() > 700


def test_tokens_that_were_not_counted_have_a_group(store):
    counts = token_counts(store)
    grouping = by_frequency(np.where(np.arange(len(counts)) < 20, counts, 0), store.special)
    assert grouping.names == ["1-15", "not counted", "[CLS], [SEP]"]


def test_what_a_model_has_not_is_not_in_its_tables(store):
    for objective, gone in ({"objective": "masked-lm"}, "discriminator"), ({"generator": "uniform"}, "generator"):
        model, evaluator = evaluated(store, config_for(store, **objective))
        breakdown = Breakdown([by_position(32)])
        evaluator(model, breakdown)
        names = [name for row in breakdown.tables()[0].rows.values() for name in row]
        assert names and not any(name.startswith(gone) for name in names)


def test_tables_are_aligned():
    table = Table(
        "group",
        {"a": {"tokens": 12_345, "discriminator_auc": None}, "long name": {"tokens": 1, "discriminator_auc": 0.5}},
    )
    assert table.lines() == [
        "group      tokens     AUC",
        "a          12,345       -",
        "long name       1  0.5000",
    ]


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    config = dataclasses.replace(config_for(store), out=tmp_path_factory.mktemp("breakdown-run") / "run")
    pretrain(config)
    return config.out


def test_the_verb_prints_tables_and_samples_and_writes_json(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--samples", "2", "--json", str(tmp_path / "e.json"), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    for text in ("position in row", "28-31", "frequency rank", "1-100", "shown to generator", "held-out row 2:"):
        assert text in shown
    assert "\x1b" not in shown
    written = json.loads((tmp_path / "e.json").read_text())
    assert written["metrics"]["step"] == 3
    assert math.isfinite(written["position in row"]["0-3"]["generator_loss"])
    assert report_run(run, None, 0, "cpu").metrics == written["metrics"]


def test_samples_of_a_masked_lm_are_refused(store, tmp_path):
    config = dataclasses.replace(config_for(store, objective="masked-lm"), out=tmp_path / "run")
    pretrain(config)
    with pytest.raises(ValueError, match="is a masked LM alone: it has no discriminator to show, leave out --samples"):
        report_run(config.out, None, 0, "cpu", num_samples=1)
