"""Trials of a fine-tuning: interrupted and resumed, the best model, patience, ensembles, and the modes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score
from test_finetune import config_for, keyword_data, model_folder, sentences  # noqa: F401  (fixtures)

from electra import finetune as finetuning
from electra import trials
from electra.config import FinetuneConfig
from electra.encoder import EncoderConfig
from electra.finetune import finetune, make_plan
from electra.results import command
from electra.runtime import start
from electra.tasks.recipes import KOELECTRA, recipe_length, resolve
from electra.tasks.sentences.prepared import SentencesPrepared
from electra.train import Work
from electra.trials import Loader


@pytest.fixture
def config(model_folder: Path, keyword_data: Path, tmp_path: Path) -> FinetuneConfig:  # noqa: F811
    return config_for(model_folder, keyword_data, tmp_path / "out", epochs=3, seeds=(0,), max_train=320)


def weights(config: FinetuneConfig) -> bytes:
    return (config.out / "model" / "model.safetensors").read_bytes()


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal, as of a machine that is taken away, when the work of `step` is loaded."""

    class Interrupting(Loader):
        def __call__(self, number: int) -> Work:
            if number == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(number)

    monkeypatch.setattr(trials, "Loader", Interrupting)


@pytest.mark.parametrize("select", ["last", "best"])
def test_a_trial_goes_on_where_it_was_stopped(
    config: FinetuneConfig,
    select: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = dataclasses.replace(config, select=select)
    whole = dataclasses.replace(config, out=tmp_path / "whole")
    finetune(whole)
    with monkeypatch.context() as patch:
        stop_at(15, patch)
        assert finetune(config)["signal"] == signal.SIGTERM
    capsys.readouterr()
    finetune(config)
    assert "goes on after step 1" in capsys.readouterr().out
    assert weights(config) == weights(whole)
    rows = [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [10, 20, 30]
    assert not (config.out / "seed-0" / "checkpoints").exists()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Dev accuracies that are handed out in order; afterwards the real ones."""
    script: list[float] = []
    real = SentencesPrepared.score

    def score(self: SentencesPrepared, outputs: dict[str, np.ndarray], split: str) -> dict[str, float]:
        found = real(self, outputs, split)
        return found | {"accuracy": script.pop(0)} if script and split == "dev" else found

    monkeypatch.setattr(SentencesPrepared, "score", score)
    yield script


def test_best_model_is_the_one_with_the_best_metric(config: FinetuneConfig, scripted: list[float]) -> None:
    scripted += [0.2, 0.9, 0.4, 0.9]
    found = finetune(dataclasses.replace(config, epochs=4, select="best"))
    (trial,) = found["trials"]
    assert (trial["steps"], trial["trained_steps"]) == (20, 40)
    # The metrics are those of the model that stays: the outputs that were kept give them again.
    again = finetune(
        dataclasses.replace(config, model=str(config.out / "model"), mode="eval", out=config.out.parent / "eval")
    )
    assert again["trials"][0]["dev"] == trial["dev"]
    assert "flattered" in (config.out / "results.md").read_text()


def test_patience_ends_a_trial(config: FinetuneConfig, scripted: list[float]) -> None:
    scripted += [0.5, 0.6, 0.6, 0.1]
    found = finetune(dataclasses.replace(config, epochs=10, patience=2))
    assert (found["trials"][0]["steps"], found["trials"][0]["trained_steps"]) == (40, 40)


def test_patience_is_not_begun_anew(
    config: FinetuneConfig, scripted: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that goes away after the last evaluation and checkpoint of a trial."""
    scripted += [0.5, 0.6, 0.6, 0.1]
    config = dataclasses.replace(config, epochs=10, patience=2, save_every=40)

    def vanish(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "finish_trial", vanish)
        with pytest.raises(KeyboardInterrupt):
            finetune(config)
    found = finetune(config)
    assert found["trials"][0]["trained_steps"] == 40


def test_modes(config: FinetuneConfig, tmp_path: Path) -> None:
    for changes in ({"select": "best"}, {"patience": 2}, {"folds": 3}):
        with pytest.raises(ValueError, match="needs dev metrics, which --mode train does not have"):
            finetune(dataclasses.replace(config, mode="train", **changes))
    trained = finetune(dataclasses.replace(config, mode="train"))
    assert "dev" not in trained["summary"]
    assert "on dev" not in (config.out / "model" / "README.md").read_text()
    assert "Nothing was scored" not in (config.out / "results.md").read_text()  # the test file was
    model = str(config.out / "model")
    evaluated = finetune(dataclasses.replace(config, model=model, mode="eval", out=tmp_path / "eval"))
    assert "None" not in (tmp_path / "eval" / "results.md").read_text()
    assert "Every trial" not in (tmp_path / "eval" / "results.md").read_text()
    whole = finetune(dataclasses.replace(config, out=tmp_path / "whole"))
    assert evaluated["trials"][0]["dev"] == whole["trials"][0]["dev"]
    answered = finetune(dataclasses.replace(config, model=model, mode="predict", out=tmp_path / "predict"))
    assert not answered["summary"]
    ours, theirs = (sorted((tmp_path / name / "predictions").iterdir()) for name in ("predict", "whole"))
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]
    with pytest.raises(ValueError, match="has no head for a task"):
        finetune(dataclasses.replace(config, mode="eval", out=tmp_path / "other"))


def test_ensemble_is_the_mean_of_the_logits(config: FinetuneConfig) -> None:
    found = finetune(dataclasses.replace(config, seeds=(0, 1, 2), epochs=1))
    logits = np.mean([np.load(config.out / f"seed-{seed}" / "test.npz")["logits"] for seed in (0, 1, 2)], axis=0)
    labels = [label for _, label in sentences(60, 2)]
    assert found["ensemble"]["test"]["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(-1)))
    assert "ensemble" in (config.out / "results.md").read_text()
    answers = config.out / "ensemble" / "predictions"
    assert {path.name for path in answers.iterdir()} == {"dev.tsv", "test.tsv"}


def test_seeds_may_be_added_in_any_order(config: FinetuneConfig) -> None:
    config = dataclasses.replace(config, epochs=0.1, learning_rate=1e-9, max_train=64)
    finetune(dataclasses.replace(config, seeds=(3,)))
    found = finetune(dataclasses.replace(config, seeds=(3, 1)))
    assert set(found["ensemble"]) == {"dev", "test"}
    before = weights(config)
    again = finetune(dataclasses.replace(config, seeds=(1, 3)))
    assert again["best_trial"] == found["best_trial"]
    assert weights(config) == before
    (config.out / "seed-3" / "result.json").write_text('{"seed": 3, "de')
    with pytest.raises(ValueError, match=r"result\.json is damaged .*remove that file, and the trial is trained again"):
        finetune(dataclasses.replace(config, seeds=(1, 3)))


def test_a_fold_is_prepared_once(
    config: FinetuneConfig,
    keyword_data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.tsv").write_bytes((keyword_data / "train.tsv").read_bytes())
    folds, prepare = [], finetuning.prepare

    def counting(*arguments: Any) -> Any:
        folds.append(arguments[3])
        return prepare(*arguments)

    monkeypatch.setattr(finetuning, "prepare", counting)
    finetune(dataclasses.replace(config, data=tmp_path / "data", folds=3, seeds=(0, 1), epochs=0.1, max_train=64))
    assert folds == [0, 1, 2]


def test_dropout_is_on(config: FinetuneConfig) -> None:
    """Two passes over the same rows differ in training with dropout, and do not without."""
    for dropout, is_equal in ((0.1, False), (0.0, True)):
        plan = make_plan(dataclasses.replace(config, dropout=dropout))
        model = trials.make_model(plan, plan.prepared, 0).train()
        losses = []
        for seed in (1, 2):
            batch = plan.prepared.batch(np.arange(8), seed)
            torch.manual_seed(batch.seed)
            losses.append(model(batch, {"examples": 8.0})[0].item())
        assert (losses[0] == losses[1]) is is_equal


def test_google_sums_the_loss(config: FinetuneConfig) -> None:
    """The gradient of a step is 32 times that of the mean loss, and what is logged is the mean all the same."""
    losses = {}
    for recipe in ("paper", "google"):
        changed = dataclasses.replace(config, recipe=recipe, epochs=0.1, dropout=0.0, out=config.out.parent / recipe)
        work = Loader(plan := make_plan(changed), plan.prepared, 0, start("cpu", "fp32"))(0)
        losses[recipe] = work.totals["examples"]
        finetune(changed)
        row = json.loads((changed.out / "metrics.jsonl").read_text().splitlines()[0])
        losses[f"{recipe} logged"] = row["loss"]
    assert (losses["paper"], losses["google"]) == (32.0, 1.0)
    assert losses["google logged"] == pytest.approx(losses["paper logged"])


SMALL, BASE = (EncoderConfig(100, 128, width, 12, 4, 4 * width) for width in (256, 768))


def test_recipes() -> None:
    """google-research/electra configure_finetuning.py; monologg/KoELECTRA finetune/config."""
    config = FinetuneConfig("model", Path("data"), Path("out"), recipe="google")
    found = resolve(config, "sst2", 3.0, SMALL)
    assert (found.learning_rate, found.weight_decay, found.epsilon, found.warmup) == (1e-4, 0.01, 1e-6, 0.1)
    assert (found.layer_decay_google, found.bias_correction, found.sum_loss) == (True, False, True)
    assert recipe_length("google", "squad") == 512
    config = dataclasses.replace(config, recipe="koelectra")
    found = resolve(config, "paws", 3.0, BASE)
    assert (found.learning_rate, found.epochs, found.warmup, found.epsilon) == (3e-5, 15, 0.0, 1e-8)
    assert (found.layer_decay, found.bias_correction, found.sum_loss) == (1.0, True, False)
    assert [resolve(config, "korquad", 2.0, encoder).batch_size for encoder in (SMALL, BASE)] == [32, 8]
    assert [KOELECTRA[task].epochs for task in ("nsmc", "kornli", "naver-ner", "korquad")] == [10, 15, 20, 7]
    given = dataclasses.replace(config, learning_rate=1e-3, warmup=0.0, epochs=1.0, batch_size=4, weight_decay=0.5)
    found = resolve(given, "paws", 3.0, BASE)
    assert (found.learning_rate, found.epochs, found.batch_size, found.weight_decay) == (1e-3, 1.0, 4, 0.5)
    with pytest.raises(ValueError, match="--recipe koelectra is for nsmc"):
        resolve(config, "sst2", 3.0, SMALL)


def test_best_weights_are_those_of_the_best_step(config: FinetuneConfig, scripted: list[float]) -> None:
    """What is restored is what the model was at that evaluation, to the bit."""
    seen: list[dict[str, torch.Tensor]] = []
    real = trials.Watch.evaluate

    def evaluate(self: trials.Watch) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return real(self)

    scripted += [0.3, 0.8, 0.1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials.Watch, "evaluate", evaluate)
        finetune(dataclasses.replace(config, select="best"))
    written = load_file(config.out / "model" / "model.safetensors")
    torch.testing.assert_close(written["classifier.out_proj.weight"], seen[1]["head.out_proj.weight"], rtol=0, atol=0)


@pytest.mark.parametrize("recipe", ["paper", "google"])
def test_two_processes_train_as_one(config: FinetuneConfig, recipe: str, tmp_path: Path) -> None:
    """Without dropout, the losses of two processes that share each step's rows are those of one."""
    one = dataclasses.replace(config, recipe=recipe, dropout=0.0, epochs=1, max_train=65, select="best")
    two = dataclasses.replace(one, out=tmp_path / "two")
    finetune(one)
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m"]
    done = subprocess.run([*words, *command(two).split()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training  ") == 1
    found = [
        [json.loads(line) for line in (each.out / "metrics.jsonl").read_text().splitlines()] for each in (one, two)
    ]
    losses = [[row["loss"] for row in rows if row["kind"] == "train"] for rows in found]
    assert len(losses[0]) == 1  # 65 examples: 32, 32 and one, which both processes read
    norms = [[row["gradient_norm"] for row in rows if row["kind"] == "train"] for rows in found]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-4)
    assert (two.out / "model" / "model.safetensors").is_file()
