"""Held-out metrics against a plain computation, and `inspect`, on one short run."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from stores import make_store, random_documents, tiny_vocabulary

from electra.batches import Rows
from electra.build import build
from electra.checkpoint import load_model
from electra.config import BuildConfig, LoopConfig, ModelConfig, PretrainConfig, RowsConfig
from electra.evaluate import Evaluator, evaluate_run
from electra.inspect import inspect
from electra.log import read_metrics
from electra.pretrain import pretrain
from electra.rtd import ReplacedTokenDetection
from electra.runtime import Runtime
from electra.store import Store

CPU = Runtime(torch.device("cpu"), "fp32", "")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    store = make_store(folder / "store", random_documents(60), held_out=0.2)
    config = PretrainConfig(
        data=(str(store.folder),),
        out=folder / "run",
        model=ModelConfig(32, 1, 2, 64, 16, generator_width=0.5, max_positions=64),
        rows=RowsConfig(seq_len=32),
        loop=LoopConfig(steps=3, batch_size=8, eval_rows=40, precision="fp32", device="cpu"),
    )
    pretrain(config)
    return config


def test_metrics_equal_a_plain_computation(run):
    store = Store.open(run.data[0])
    model = ReplacedTokenDetection(run.model, run.objective, store.vocab_size)
    load_model(run.out, model)
    evaluator = Evaluator(Rows(store, run.rows, seed=0, held_out=True), run, store.special, CPU)
    found = evaluator(model)
    with torch.no_grad():
        out = model.eval().run(evaluator.batch)
    batch = evaluator.batch
    used, valid = batch.weights > 0, batch.piece_ids > 0
    losses = F.cross_entropy(out.generator_logits[used], batch.token_ids[used])
    assert found["generator_loss"] == pytest.approx(losses.item(), rel=1e-5)
    expected = F.binary_cross_entropy_with_logits(out.logits[valid], out.labels[valid])
    assert found["discriminator_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert found["loss"] == pytest.approx(losses.item() + 50 * expected.item(), rel=1e-5)
    assert found["discriminator_auc"] == pytest.approx(roc_auc_score(out.labels[valid], out.logits[valid]), rel=1e-6)


def test_the_verb_gives_what_the_run_logged_last(run):
    logged = read_metrics(run.out, "eval")[-1]
    found = evaluate_run(run.out, None, 0, "cpu")
    assert found["step"] == 3
    for name, value in found.items():
        if name in logged and name != "step":
            assert value == pytest.approx(logged[name], rel=1e-6), name


def test_evaluation_is_the_same_every_time(run):
    assert evaluate_run(run.out, None, 16, "cpu") == evaluate_run(run.out, None, 16, "cpu")


def test_a_store_of_another_vocabulary_is_refused(run, tmp_path):
    other = make_store(tmp_path / "other", random_documents(30, vocab=400), held_out=0.2, vocab=500)
    with pytest.raises(ValueError, match="was built with another vocabulary"):
        evaluate_run(run.out, str(other.folder), 0, "cpu")


def test_a_store_that_holds_nothing_out_is_refused(run, tmp_path):
    other = make_store(tmp_path / "other", random_documents(30), held_out=0.0)
    with pytest.raises(ValueError, match="has no held-out documents: build it with another --held-out share"):
        evaluate_run(run.out, str(other.folder), 0, "cpu")


def test_a_run_without_checkpoint(run, tmp_path):
    from electra.toml import write_toml

    (tmp_path / "store.json").write_text((run.out / "store.json").read_text())
    write_toml(dataclasses.replace(run, out=tmp_path), tmp_path / "config.toml")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        evaluate_run(tmp_path, None, 0, "cpu")


def test_inspect_shows_store_run_and_model(run, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("\n".join("a b c d e f g" for _ in range(30)) + "\n\n" + "h i j\n")
    tiny_vocabulary(tmp_path / "vocab")
    build(BuildConfig((str(text),), tmp_path / "vocab" / "vocab.txt", tmp_path / "store", held_out=0.0, processes=1))
    inspect(tmp_path / "store", num_rows=2, seq_len=16)
    shown = capsys.readouterr().out
    assert "213 in 31 lines of 2 documents" in shown and "«" in shown and "a b c" in shown
    inspect(run.out)
    shown = capsys.readouterr().out
    assert "eval  step 3" in shown and "batch_size = 8" in shown
    inspect(run.out / "export" / "discriminator")
    shown = capsys.readouterr().out
    assert "ElectraForPreTraining" in shown and "hidden_size        32" in shown


def test_inspect_of_anything_else(tmp_path):
    with pytest.raises(ValueError, match="is neither a token store, nor a run or model folder, nor TFRecords"):
        inspect(tmp_path)


def test_held_out_documents_are_not_trained_on(run):
    store = Store.open(run.data[0])
    held_out = set(store.document_ids(held_out=True).tolist())
    assert held_out and not held_out & set(store.document_ids(held_out=False).tolist())
    assert len(held_out) + len(store.document_ids(held_out=False)) == store.num_documents
    assert np.all(np.diff(store.document_ids(held_out=True)) > 0)
