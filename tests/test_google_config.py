"""Google's hyper-parameters as our configuration: against the fields of its own code, and every refusal."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from stores import make_store, random_documents
from tiny_models import make_model_folder

from electra.announcement import parameters
from electra.cli import main
from electra.config import FinetuneConfig, LoopConfig, ModelConfig, OptimizerConfig, PretrainConfig, QuestionConfig
from electra.interop.google_config import (
    FINETUNING,
    OVERRIDES,
    PRETRAINING,
    finetune_config,
    model_config,
    pretrain_config,
    read_hparams,
    remarks,
)
from electra.interop.google_fields import table
from electra.presets import electra_small_google
from electra.rtd import ReplacedTokenDetection, generator_config
from electra.toml import read_toml

DOC = Path(__file__).parent.parent / "docs" / "google-hparams.md"


def translate(**hparams) -> PretrainConfig:
    return pretrain_config(read_hparams(json.dumps(hparams), PRETRAINING))


def translate_finetuning(**hparams) -> FinetuneConfig:
    config = finetune_config(read_hparams(json.dumps(hparams), FINETUNING))
    return dataclasses.replace(config, model="model", data=Path("data"), out=Path("out"))


def test_the_document_shows_every_field():
    """Print the tables with `google_fields.table` when a row has changed."""
    text = DOC.read_text(encoding="utf-8")
    for fields in (PRETRAINING, FINETUNING, OVERRIDES):
        assert table(fields) in text
        names = [field.name for field in fields]
        assert len(names) == len(set(names))


def test_the_fields_are_those_of_googles_code(golden):
    """meta.config is `vars(PretrainingConfig(...))` of the original; each attribute has a row with its default."""
    found = json.loads((golden / "pre_a_meta.json").read_text())["config"]
    rows = {field.name: field for field in PRETRAINING}
    assert set(rows) - set(found) == {"data_dir"}
    changed = {"model_name", "learning_rate", "num_warmup_steps", "num_train_steps", "model_hparam_overrides"}
    changed |= {"embedding_size", "vocab_size", "max_seq_length", "train_batch_size"}
    for name, value in found.items():
        if name not in changed and type(rows[name].default) in (bool, int, float, type(None)):
            assert value == rows[name].default, name


def test_the_golden_run_is_accepted_whole(golden):
    config = translate(**json.loads((golden / "pre_a_meta.json").read_text())["config"])
    assert config.model == ModelConfig(
        hidden_size=32, num_layers=2, num_heads=4, intermediate_size=64, embedding_size=16, max_positions=128,
        generator_width=0.25, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    assert config.optimizer == OptimizerConfig(learning_rate=1e-3, warmup_steps=4)
    assert config.objective.max_predictions(config.rows.seq_len) == 4
    assert (config.loop.steps, config.loop.batch_size, config.rows.seq_len) == (20, 4, 32)


def test_defaults_are_googles():
    """Nothing given: our preset of the same name, but for what is kept and evaluated."""
    preset = electra_small_google()
    assert translate() == dataclasses.replace(preset, loop=LoopConfig(keep=5, eval_rows=12_800))


@pytest.mark.parametrize(
    ("size", "shape", "generator"),
    [
        ("small", (256, 12, 4, 1024, 128), (64, 12, 1, 256)),
        ("base", (768, 12, 12, 3072, 768), (192, 12, 3, 768)),
        ("large", (1024, 24, 16, 4096, 1024), (256, 24, 4, 1024)),
    ],
)
def test_sizes(size, shape, generator):
    """Reference: util/training_utils.get_bert_config and run_pretraining.get_generator_config."""
    config = translate(model_size=size)
    model = config.model
    assert (
        model.hidden_size, model.num_layers, model.num_heads, model.intermediate_size, model.embedding_size
    ) == shape  # fmt: skip
    ours = generator_config(model, 100)
    assert (ours.hidden_size, ours.num_layers, ours.num_heads, ours.intermediate_size) == generator
    assert config.optimizer.learning_rate == 5e-4 and config.rows.seq_len == 128 and config.loop.batch_size == 128


def test_base_of_the_paper_has_its_parameters():
    """109,483,009 with the head, 9,903,418 of the generator's own: counted from the original's variables."""
    config = translate(model_size="base", generator_hidden_size=0.33333, max_seq_length=512)
    with torch.device("meta"):
        counts = parameters(ReplacedTokenDetection(config.model, config.objective, 30522))
    padding = 30528 - 30522
    assert counts["discriminator"] - padding * 768 == 109_483_009
    assert counts["generator"] - padding == 9_903_418


def test_released_small_has_a_full_generator():
    model = translate(generator_hidden_size=1.0).model
    ours = generator_config(model, 100)
    assert (ours.hidden_size, ours.num_heads, ours.intermediate_size) == (256, 4, 1024)


def test_base_and_large_are_the_shape_alone_and_a_run_says_so():
    (line,) = remarks(read_hparams('{"model_size": "large", "mask_prob": 0.25}', PRETRAINING))
    assert "max_seq_length 128, learning_rate 0.0005, train_batch_size 128 stay" in line
    assert "mask_prob" not in line
    full = {"model_size": "base", "max_seq_length": 512, "learning_rate": 2e-4}
    full |= {"generator_hidden_size": 0.33333, "train_batch_size": 256}
    assert remarks(read_hparams(json.dumps(full), PRETRAINING)) == []


@pytest.mark.parametrize(("given", "width"), [({}, 128), ({"embedding_size": 64}, 64), ({"embedding_size": None}, 256)])
def test_embedding_size(given, width):
    """Passed-in arguments are laid over the defaults of a size last: null means the hidden size, for small too."""
    assert translate(**given).model.embedding_size == width


def test_overrides_change_what_follows_from_them():
    model = translate(model_size="base", model_hparam_overrides={"hidden_size": 512, "num_hidden_layers": 6}).model
    assert (model.num_heads, model.intermediate_size, model.embedding_size, model.num_layers) == (8, 2048, 512, 6)


def test_debug_is_googles_debug_and_what_is_given_beats_it():
    config = translate(debug=True, num_train_steps=7)
    model = config.model
    assert (model.hidden_size, model.num_layers, model.num_heads, model.intermediate_size) == (144, 3, 4, 576)
    assert (config.loop.steps, config.loop.batch_size, config.loop.eval_rows) == (7, 8, 8)


def test_whole_numbers_may_be_written_as_floats_and_keep_may_be_null():
    config = translate(num_train_steps=1e6, temperature=2, keep_checkpoint_max=None)
    assert config.loop.steps == 1_000_000 and type(config.loop.steps) is int
    assert config.objective.temperature == 2.0
    assert config.loop.keep == 0


@pytest.mark.parametrize(
    ("given", "objective", "generator", "width"),
    [
        ({}, "electra", "shared-embeddings", 0.25),
        ({"untied_generator_embeddings": True}, "electra", "own-embeddings", 0.25),
        ({"untied_generator": False}, "electra", "same-network", 1.0),
        ({"untied_generator": False, "untied_generator_embeddings": True}, "electra", "same-network", 1.0),
        ({"uniform_generator": True, "temperature": 0.5}, "electra", "uniform", 0.25),
        ({"electra_objective": False, "temperature": 0.5}, "masked-lm", "shared-embeddings", 0.25),
        ({"electra_objective": False, "disallow_correct": True}, "masked-lm", "shared-embeddings", 0.25),
        ({"electra_objective": False, "untied_generator": False}, "masked-lm", "shared-embeddings", 0.25),
        ({"two_tower_generator": True, "temperature": 0.5}, "electra", "two-tower", 0.25),
        ({"electric_objective": True}, "electric", "two-tower", 0.25),
        ({"electric_objective": True, "electra_objective": False}, "electric", "two-tower", 0.25),
        ({"electric_objective": False, "electra_objective": False}, "masked-lm", "shared-embeddings", 0.25),
    ],
)  # fmt: skip
def test_objectives_and_generators(given, objective, generator, width):
    """The branches of run_pretraining.PretrainingModel."""
    config = translate(**given)
    assert (config.objective.objective, config.objective.generator) == (objective, generator)
    assert config.model.generator_width == width


def test_only_a_generator_of_its_own_has_heads_of_its_own():
    heads = {"model_hparam_overrides": {"num_attention_heads": 16}}
    for given in ({"untied_generator": False}, {"uniform_generator": True}, {"electra_objective": False}):
        assert translate(**heads, **given).model.num_heads == 16


def test_file_and_text_are_the_same(tmp_path):
    path = tmp_path / "hparams.json"
    path.write_text('{"mask_prob": 0.2}')
    assert pretrain_config(read_hparams(str(path), PRETRAINING)) == translate(mask_prob=0.2)


# ------------------------------------------------------------------------------------------- fine-tuning


def test_finetuning_defaults_are_googles():
    config = translate_finetuning(task_names=["sst"])
    assert config == FinetuneConfig(
        model="model", data=Path("data"), out=Path("out"), task="sst2", learning_rate=1e-4, layer_decay=0.8,
        layer_decay_google=True, weight_decay=0.01, bias_correction=False, seeds=(0,), batch_size=32, warmup=0.1,
        recipe="google", save_every=1_000_000, questions=QuestionConfig(head="joint", null_threshold=-2.75),
    )  # fmt: skip
    assert config.epochs == 0.0, "the task's own, which is Google's"


def test_finetuning_by_size_task_and_trials():
    config = translate_finetuning(model_size="large", task_names=["sts"], num_trials=3, num_train_epochs=5)
    assert (config.learning_rate, config.layer_decay, config.task) == (5e-5, 0.9, "stsb")
    assert (config.seeds, config.epochs) == ((0, 1, 2), 5.0)
    assert translate_finetuning(layerwise_lr_decay=0, task_names=["rte"]).layer_decay == 1.0


def test_finetuning_shape():
    shape = model_config(read_hparams('{"model_size": "base"}', FINETUNING))
    assert (shape.hidden_size, shape.num_heads, shape.embedding_size) == (768, 12, 768)


# ------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("hparams", "sentence"),
    [
        ('{"learning_rat": 1}', "no field 'learning_rat' here, the nearest is 'learning_rate'"),
        ('{"num_trials": 1}', "no field 'num_trials' here: it is one of fine-tuning"),
        ('{"hidden_size": 512}', "no field 'hidden_size' here: it is one of model_hparam_overrides"),
        ('{"model_hparam_overrides": {"hiden_size": 1}}', "the nearest is 'hidden_size'"),
        ('{"learning_rate": "5e-4"}', 'learning_rate must be a number, not "5e-4"'),
        ('{"num_train_steps": 1.5}', "num_train_steps must be a whole number, not 1.5"),
        ('{"debug": 1}', "debug must be true or false, not 1"),
        ('{"train_batch_size": true}', "train_batch_size must be a whole number, not true"),
        ('{"max_seq_length": null}', "max_seq_length must be a whole number, not null"),
        ('{"model_size": "huge"}', "model_size must be one of small, base, large, not 'huge'"),
        ('{"electric_objective": true, "two_tower_generator": false}', "with two_tower_generator false is refused"),
        ('{"electric_objective": true, "uniform_generator": true}', "with uniform_generator true is refused"),
        ('{"electric_objective": true, "untied_generator": false}', "with untied_generator false is refused"),
        ('{"electric_objective": true, "untied_generator_embeddings": true}', "two towers share the discriminator's"),
        ('{"electric_objective": true, "temperature": 2}', "temperature 2.0 is refused, since Google's loss"),
        ('{"electric_objective": true, "disallow_correct": true}', r"disallow_correct \(.*\) cannot go with"),
        ('{"two_tower_generator": true, "electra_objective": false}', "with electra_objective false is refused"),
        ('{"uniform_generator": true, "untied_generator": false}', "with untied_generator false is refused"),
        ('{"uniform_generator": true, "electra_objective": false}', "with electra_objective false is refused"),
        ('{"do_train": false}', "do_train false is refused, since .* `electra evaluate RUN`"),
        ('{"do_eval": true}', "do_eval true is refused"),
        ('{"model_hparam_overrides": {"hidden_act": "relu"}}', 'model_hparam_overrides: hidden_act "relu" is refused'),
        ('{"generator_hidden_size": 1.5}', r"generator_hidden_size \(model.generator_width\) must be above 0"),
        ('{"max_seq_length": 1024}', "max_seq_length .* is longer than max_position_embeddings"),
        ('{"mask_prob": 0.25, "max_seq_length": 512, "max_predictions_per_seq": 79}', "79 is refused.* = 130 in"),
        ('{"model_hparam_overrides": {"num_attention_heads": 16}}', "num_attention_heads 16 is refused"),
        ('{"model_hparam_overrides": {"num_attention_heads": 5}}', "is not a multiple of num_attention_heads"),
        ('{"mask_prob": 0.15', "is not valid JSON"),
        ("absent.json", "absent.json does not exist"),
    ],
)  # fmt: skip
def test_mistakes_in_pretraining_are_named(hparams, sentence):
    with pytest.raises(ValueError, match=sentence):
        pretrain_config(read_hparams(hparams, PRETRAINING))


@pytest.mark.parametrize(
    ("hparams", "sentence"),
    [
        ('{"task_names": ["ner"]}', "task_names 'ner' is not among the tasks here: sst, sts"),
        ('{"task_names": ["sst", "cola"]}', "a run has one task"),
        ('{"task_names": "sst"}', 'task_names must be a list of texts, not "sst"'),
        ('{"double_unordered": false}', "double_unordered false is refused"),
        ('{"joint_prediction": false}', "joint_prediction false is refused without answerable_classifier the same"),
        ('{"doc_stride": 0}', r"doc_stride \(--doc-stride\) must be positive"),
        ('{"debug": true}', "debug true is refused"),
        ('{"num_trials": -1}', "num_trials must be above 0"),
        ('{"warmup_proportion": 1}', r"warmup_proportion \(--warmup\) is a share of the steps"),
        ('{"layerwise_lr_decay": 1.5}', r"layerwise_lr_decay \(--layer-decay\) must be from 0 to 1"),
        ('{"gen_weight": 1}', "it is one of pre-training"),
    ],
)
def test_mistakes_in_finetuning_are_named(hparams, sentence):
    with pytest.raises(ValueError, match=sentence):
        finetune_config(read_hparams(hparams, FINETUNING))


# ------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store", random_documents(60), held_out=0.1).folder


def test_pretrain_reads_them_and_flags_override(store, tmp_path, capsys):
    hparams = {"num_train_steps": 2, "train_batch_size": 4, "max_seq_length": 32, "num_warmup_steps": 1}
    hparams |= {
        "model_hparam_overrides": {"hidden_size": 32, "num_hidden_layers": 2},
        "use_tpu": True,
        "tpu_name": "mine",
    }
    path = tmp_path / "hparams.json"
    path.write_text(json.dumps(hparams | {"vocab_size": 1000, "do_lower_case": True}))
    out = ["--data", str(store), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(["pretrain", "--google-hparams", str(path), "--eval-rows", "8", "--mask-prob", "0.2", *out]) == 0
    said = capsys.readouterr().out
    assert said.startswith("google      no meaning here: use_tpu, tpu_name (devices are chosen with --device")
    found = read_toml(PretrainConfig, tmp_path / "run" / "config.toml")
    assert found.objective.mask_prob == 0.2 and found.objective.mask_with_replacement
    assert (found.loop.steps, found.loop.eval_rows, found.rows.packing) == (2, 8, "google")


@pytest.mark.parametrize(
    ("hparams", "sentence"),
    [
        ({"vocab_size": 30522}, "vocab_size is 30522, but the vocabulary of .*store has 1000 entries"),
        ({"do_lower_case": False}, "do_lower_case is false, but the vocabulary of .*store is uncased"),
        ({"model_hparam_overrides": {"vocab_size": 7}}, "vocab_size is 7"),
    ],
)
def test_the_vocabulary_of_the_store_is_compared(store, tmp_path, capsys, hparams, sentence):
    arguments = [
        "pretrain",
        "--google-hparams",
        json.dumps(hparams),
        "--data",
        str(store),
        "--out",
        str(tmp_path / "r"),
    ]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(sentence, error)
    assert not (tmp_path / "r").exists()


def test_a_preset_beside_them_is_refused(store, capsys):
    assert main(["pretrain", "tiny", "--google-hparams", "{}", "--data", str(store), "--out", "nowhere"]) == 2
    assert "begins from the defaults of Google's code: leave out the preset tiny" in capsys.readouterr().err
    assert main(["pretrain", "--google-hparams"]) == 2
    assert "--google-hparams needs a JSON file, or a JSON text in quotes" in capsys.readouterr().err


TINY = {  # the shape of tiny_models.py
    "embedding_size": 16,
    "model_hparam_overrides": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("model") / "tiny")


def test_finetune_reads_them_and_flags_override(model, tmp_path):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\n" + "a good film\tyes\na bad film\tno\n" * 8)
    hparams = json.dumps(
        TINY | {"num_train_epochs": 1, "train_batch_size": 8, "max_seq_length": 16, "learning_rate": 1e-3}
    )
    out = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    arguments = ["finetune", str(model), "--google-hparams", hparams, "--task", "custom", "--warmup", "0.5", *out]
    assert main(arguments) == 0
    found = read_toml(FinetuneConfig, tmp_path / "out" / "config.toml")
    assert (found.seeds, found.batch_size, found.weight_decay, found.warmup) == ((0,), 8, 0.01, 0.5)
    assert found.layer_decay_google and not found.bias_correction
    assert json.loads((tmp_path / "out" / "results.json").read_text())["steps"] == 2


def test_tasks_modes_and_questions():
    assert translate_finetuning().task == "chunk"
    found = translate_finetuning(task_names=["squad"], do_train=False, doc_stride=64, beam_size=5)
    assert (found.task, found.mode, found.recipe, found.max_length) == ("squad", "eval", "google", 0)
    assert (found.questions.head, found.questions.doc_stride, found.questions.beam_size) == ("joint", 64, 5)
    assert (found.questions.null_threshold, found.questions.answerable_weight) == (-2.75, 0.5)
    assert translate_finetuning(joint_prediction=False, answerable_classifier=False).questions.head == "simple"
    assert translate_finetuning(do_eval=False).mode == "train"
    assert translate_finetuning(do_train=False, do_eval=False).mode == "predict"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model_hparam_overrides": {}},
            "with model_size 'small', Google's default, the hidden size is 256, but .* has 32",
        ),
        ({"embedding_size": 32}, "the embedding size is 32, but .* has 16"),
        ({"vocab_size": 5}, "vocab_size is 5, but the vocabulary of"),
        ({"do_lower_case": False}, "do_lower_case is false"),
        (
            {"model_hparam_overrides": TINY["model_hparam_overrides"] | {"hidden_dropout_prob": 0.3}},
            "hidden_dropout_prob is 0.3, but .* has 0.1",
        ),
    ],
)
def test_the_model_is_compared(model, tmp_path, capsys, changes, sentence):
    out = ["--task", "sst2", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["finetune", str(model), "--google-hparams", json.dumps(TINY | changes), *out]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(sentence, error), error
