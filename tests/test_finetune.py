"""Fine-tuning from end to end on a tiny model: it learns, it can be repeated, continued and loaded elsewhere."""

import dataclasses
import json
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from tiny_models import WORDS, make_model_folder
from transformers import AutoTokenizer, pipeline

from electra import trials
from electra.config import FinetuneConfig, TaskConfig
from electra.encoder import EncoderConfig
from electra.finetune import finetune, make_plan
from electra.front_matter import check_card
from electra.results import command
from electra.tasks.recipes import resolve
from electra.toml import read_toml
from electra.train import Work
from electra.trials import Loader, make_model

FILLER = [word for word in WORDS.split() if word not in ("good", "great", "bad", "awful")]


def sentences(count: int, seed: int) -> list[tuple[str, int]]:
    """Random words with one that decides the label."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        label = rng.randrange(2)
        words = rng.choices(FILLER, k=rng.randint(3, 9))
        words.insert(rng.randrange(len(words)), rng.choice([("bad", "awful"), ("good", "great")][label]))
        rows.append((" ".join(words), label))
    return rows


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def keyword_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keyword")
    for name, count, seed in (("train", 640, 0), ("dev", 100, 1), ("test", 60, 2)):
        rows = "".join(f"{text}\t{('minus', 'plus')[label]}\n" for text, label in sentences(count, seed))
        (folder / f"{name}.tsv").write_text(f"text\tlabel\n{rows}", encoding="utf-8")
    return folder


def config_for(model: Path, data: Path, out: Path, **changes: object) -> FinetuneConfig:
    base = FinetuneConfig(
        model=str(model),
        data=data,
        out=out,
        epochs=6,
        learning_rate=3e-3,
        max_length=32,
        seeds=(0, 1),
        device="cpu",
        precision="fp32",
    )
    return dataclasses.replace(base, **changes)


@pytest.fixture(scope="session")
def finished(model_folder: Path, keyword_data: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    config = config_for(model_folder, keyword_data, tmp_path_factory.mktemp("run") / "out")
    finetune(config)
    return config


def test_it_learns_and_leaves_everything_behind(finished: FinetuneConfig) -> None:
    found = json.loads((finished.out / "results.json").read_text())
    assert found["summary"]["dev"]["accuracy"]["median"] > 0.9
    assert found["summary"]["test"]["accuracy"]["median"] > 0.9
    values = [seed["dev"]["accuracy"] for seed in found["trials"]]
    assert found["summary"]["dev"]["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert found["best_trial"] == f"seed-{max((0, 1), key=lambda seed: values[seed])}"
    assert read_toml(FinetuneConfig, finished.out / "config.toml") == finished
    rows = [json.loads(line) for line in (finished.out / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert [(row["seed"], row["step"]) for row in evaluations] == [(s, 20 * e) for s in (0, 1) for e in range(1, 7)]
    assert evaluations[5]["accuracy"] == values[0]
    assert "median" in (finished.out / "results.md").read_text()
    card = (finished.out / "model" / "README.md").read_text()
    assert "electra finetune" in card
    assert "seed 1" in card
    assert check_card(card) == [] and "hardware: 1 x" in card
    results = ModelCard(card).data.eval_results
    best = next(trial for trial in found["trials"] if f"seed-{trial['seed']}" == found["best_trial"])
    shown = {(result.dataset_split, result.metric_type): result.metric_value for result in results}
    assert shown == {
        (split, name): pytest.approx(value, abs=1e-6)
        for split in ("dev", "test")
        for name, value in best[split].items()
    }


def test_pipeline_gives_the_dev_accuracy_of_the_best_seed(finished: FinetuneConfig) -> None:
    found = json.loads((finished.out / "results.json").read_text())
    classify = pipeline("text-classification", model=str(finished.out / "model"))
    rows = sentences(100, 1)
    answers = classify([text for text, _ in rows])
    right = [answer["label"] == ("minus", "plus")[label] for answer, (_, label) in zip(answers, rows, strict=True)]
    best = next(seed for seed in found["trials"] if f"seed-{seed['seed']}" == found["best_trial"])
    assert np.mean(right) == pytest.approx(best["dev"]["accuracy"])


def test_same_seed_same_model_and_finished_seeds_are_kept(
    finished: FinetuneConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of seed 0 alone, to which seed 1 is added later, ends like the run of both."""
    alone = dataclasses.replace(finished, out=tmp_path / "out", seeds=(0,))
    finetune(alone)
    capsys.readouterr()
    finetune(dataclasses.replace(alone, seeds=(0, 1)))
    assert "seed-0: finished before" in capsys.readouterr().out
    theirs, ours = (json.loads((folder / "results.json").read_text()) for folder in (finished.out, alone.out))
    assert theirs["summary"] == ours["summary"]
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (finished.out, alone.out)]
    assert weights[0] == weights[1]


def test_another_configuration_is_refused(finished: FinetuneConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"another configuration \(learning_rate is 0.003 there, 0.001 now\)"):
        finetune(dataclasses.replace(finished, learning_rate=1e-3))
    with pytest.raises(ValueError, match="seeds is"):
        finetune(dataclasses.replace(finished, seeds=(1, 2)))
    (tmp_path / "letter.txt").write_text("precious")
    with pytest.raises(ValueError, match="exists already: choose another --out"):
        finetune(dataclasses.replace(finished, out=tmp_path))
    assert (tmp_path / "letter.txt").read_text() == "precious"


def test_interrupt_keeps_finished_seeds(
    model_folder: Path, keyword_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal during seed 1 leaves seed 0; the same command then ends as if nothing had happened."""
    config = config_for(model_folder, keyword_data, tmp_path / "out", epochs=1)

    class Interrupting(Loader):
        def __call__(self, step: int) -> Work:
            if (self.seed, step) == (1, 5):
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(step)

    with monkeypatch.context() as patch:
        patch.setattr(trials, "Loader", Interrupting)
        stopped = finetune(config)
    assert stopped["signal"] == signal.SIGTERM
    assert [seed["seed"] for seed in stopped["trials"]] == [0]
    assert not (config.out / "seed-1" / "result.json").exists()
    resumed = finetune(config)
    assert resumed["signal"] is None
    whole = finetune(dataclasses.replace(config, out=tmp_path / "whole"))
    assert resumed["summary"] == whole["summary"]


def test_regression_is_exported_on_the_scale_of_its_labels(model_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, count, seed in (("train", 480, 0), ("dev", 80, 1)):
        rng = random.Random(seed)
        lines = [f"{text}\t{10 + 20 * label + rng.random():.3f}\n" for text, label in sentences(count, seed)]
        (data / f"{name}.tsv").write_text("text\tscore\n" + "".join(lines))
    config = config_for(
        model_folder, data, tmp_path / "out", seeds=(1,), custom=TaskConfig("regression", label="score")
    )
    found = finetune(config)
    assert found["metric"] == "spearman"
    assert found["summary"]["dev"]["pearson"]["median"] > 0.9
    rate = pipeline("text-classification", model=str(config.out / "model"))
    rows = [line.split("\t") for line in (data / "dev.tsv").read_text().splitlines()[1:]]
    errors = [(rate(text)[0]["score"] - float(value)) ** 2 for text, value in rows]
    assert np.mean(errors) == pytest.approx(found["summary"]["dev"]["mse"]["median"], rel=1e-3)
    assert rate("good")[0]["label"] == "score"


def test_named_pair_task_learns_from_scratch(model_folder: Path, tmp_path: Path) -> None:
    """RTE's layout; the label says whether both texts have the same keyword, so it needs both segments read."""
    data, rng = tmp_path / "data", random.Random(0)
    data.mkdir()
    rows = []
    for index in range(40):
        first, second = rng.choice(["good", "bad"]), rng.choice(["good", "bad"])
        label = "entailment" if first == second else "not_entailment"
        rows.append(f"{index}\tthe film is {first}\tthe plot is {second}\t{label}\n")
    (data / "train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(rows))
    config = config_for(model_folder, data, tmp_path / "out", task="rte", epochs=1, seeds=(0,), from_scratch=True)
    found = finetune(config)
    assert found["from_scratch"]
    assert found["examples"] == {"train": 36, "dev": 4}
    assert any("kept apart as the dev set" in note for note in found["notes"])
    assert "kept apart" in (config.out / "model" / "README.md").read_text()
    assert AutoTokenizer.from_pretrained(config.out / "model")("good", "bad")["token_type_ids"] == [0, 0, 0, 1, 1]


def test_micro_batches_give_the_same_metrics(model_folder: Path, keyword_data: Path, tmp_path: Path) -> None:
    """Without dropout, two micro-batches of 16 are one of 32 up to rounding."""
    losses = []
    for size in (0, 16):
        config = config_for(
            model_folder, keyword_data, tmp_path / str(size), epochs=0.5, seeds=(0,), micro_batch_size=size, dropout=0.0
        )
        finetune(config)
        rows = [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if row["kind"] == "train"])
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)


def test_plan_and_model_of_a_seed(model_folder: Path, keyword_data: Path, tmp_path: Path) -> None:
    plan = make_plan(config_for(model_folder, keyword_data, tmp_path / "out", batch_size=100, epochs=1.5))
    assert (plan.epoch_steps(plan.prepared), plan.steps(plan.prepared)) == (7, round(1.5 * 7))
    model = make_model(plan, plan.prepared, 3)
    torch.testing.assert_close(model.encoder.state_dict(), plan.pretrained.encoder_state)
    scratch = dataclasses.replace(plan, config=dataclasses.replace(plan.config, from_scratch=True))
    one, same, other = (make_model(scratch, plan.prepared, seed).state_dict() for seed in (3, 3, 4))
    torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert not torch.equal(one["encoder.body.layers.0.up.weight"], other["encoder.body.layers.0.up.weight"])
    assert not torch.equal(one["encoder.body.layers.0.up.weight"], model.encoder.body.layers[0].up.weight)


@pytest.mark.parametrize(
    ("hidden", "layers", "rate", "decay"), [(256, 12, 3e-4, 0.8), (768, 12, 1e-4, 0.8), (1024, 24, 5e-5, 0.9)]
)
def test_defaults_of_the_paper(hidden: int, layers: int, rate: float, decay: float) -> None:
    """Table 7 of the paper."""
    encoder = EncoderConfig(100, 128, hidden, layers, hidden // 64, 4 * hidden)
    found = resolve(FinetuneConfig("model", Path("data"), Path("out")), "sst2", 3.0, encoder)
    assert (found.learning_rate, found.layer_decay, found.warmup, found.weight_decay) == (rate, decay, 0.1, 0.0)
    assert (found.batch_size, found.epochs, found.bias_correction, found.sum_loss) == (32, 3.0, True, False)


def test_bad_options(model_folder: Path, keyword_data: Path, tmp_path: Path) -> None:
    def config(**changes: object) -> FinetuneConfig:
        return config_for(model_folder, keyword_data, tmp_path / "out", **changes)

    with pytest.raises(ValueError, match="unknown task 'gleu'"):
        finetune(config(task="gleu"))
    with pytest.raises(ValueError, match=r"--max-length 512 is longer than the model can read \(64\)"):
        finetune(config(max_length=512))
    with pytest.raises(ValueError, match="no column 'review'"):
        finetune(config(custom=TaskConfig(text="review")))
    with pytest.raises(ValueError, match=r"has no label of the label set \(neg, pos\)"):
        finetune(config(custom=TaskConfig(labels=("neg", "pos"))))
    with pytest.raises(ValueError, match="must be one of auto, accuracy, f1, macro_f1, mcc, not pearson"):
        TaskConfig(metric="pearson")
    with pytest.raises(ValueError, match="--seeds names a seed twice"):
        config(seeds=(1, 1))
    assert not (tmp_path / "out").exists()


def test_overwrite_removes_no_input(model_folder: Path, keyword_data: Path, tmp_path: Path) -> None:
    for out, what in (keyword_data, "--data"), (keyword_data.parent, "--data"), (model_folder, "the model"):
        with pytest.raises(ValueError, match=f"--overwrite would remove {what}"):
            finetune(config_for(model_folder, keyword_data, out, overwrite=True))
    (tmp_path / "letter").write_text("precious")
    with pytest.raises(ValueError, match="is a file: choose a folder"):
        finetune(config_for(model_folder, keyword_data, tmp_path / "letter", overwrite=True))
    assert (tmp_path / "letter").exists()
    assert (keyword_data / "dev.tsv").exists()


def test_published_protocol_takes_the_best_checkpoint(model_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in "train", "val":
        rows = "".join(f"t\t{text}\tnone\t{('none', 'hate')[label]}\n" for text, label in sentences(40, len(name)))
        (data / f"{name}.tsv").write_text(f"title\tcomment\tbias\thate\n{rows}")
    plan = make_plan(config_for(model_folder, data, tmp_path / "out", task="hate-speech", published_protocol=True))
    assert plan.config.select == "best"
    assert any("the test file" in note for note in plan.notes)


def test_f1_needs_two_labels(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\nc,2\n")
    with pytest.raises(ValueError, match="has 3: use macro_f1"):
        finetune(config_for(model_folder, tmp_path, tmp_path / "out", custom=TaskConfig(metric="f1")))


def test_command_repeats_the_run(keyword_data: Path, tmp_path: Path) -> None:
    config = config_for(Path("my model"), Path("data"), Path("out"), bias_correction=False, from_scratch=True)
    words = command(dataclasses.replace(config, custom=TaskConfig(labels=("a", "b"))))
    assert words.startswith("electra finetune 'my model' --data data --out out --from-scratch --epochs 6")
    assert "--bias-correction False" in words
    assert words.endswith("--labels a b")
