"""`electra convert` from end to end: every format in, what comes out against transformers, and what is refused."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from bundles import write_bundle
from google_checkpoints import CONFIG, dense, pretraining, random_arrays
from safetensors.torch import load_file
from stores import make_store, random_documents, tiny_vocabulary
from test_hf import load, make_theirs

import electra.convert as convert_module
import electra.interop.compare as compare_module
from electra.build import build
from electra.cli import main
from electra.config import BuildConfig
from electra.interop.google import encoder_variables, read_google
from electra.interop.google_config import PRETRAINING, read_hparams
from electra.interop.heads import HEADS
from electra.interop.hf import read_hf
from electra.interop.network import OUTPUT, WORDS, Network
from electra.interop.reference import Probe, reference_results
from electra.interop.tf_h5 import read_h5
from electra.log import read_metrics

FIXTURES = Path(__file__).parent / "fixtures"
GOOGLE = {"model_size": "small", "embedding_size": 12, "vocab_size": 100, "max_seq_length": 20}
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 24}
HPARAMS = GOOGLE | {"model_hparam_overrides": SHAPE | {"max_position_embeddings": 20}}


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory) -> Path:
    """Checkpoints that TensorFlow wrote, unpacked."""
    folder = tmp_path_factory.mktemp("fixtures")
    for name in ("nvidia", "aws", "tf_h5_v3", "tf_h5_v4"):
        with zipfile.ZipFile(FIXTURES / f"{name}.zip") as archive:
            archive.extractall(folder / name)
    return folder


@pytest.fixture
def google(tmp_path) -> Path:
    """A random checkpoint of Google's, both networks, no moments."""
    return write_bundle(tmp_path / "google" / "model.ckpt-7", pretraining() | {"global_step": np.array(7, "i8")})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A token store that fits `google`."""
    return make_store(tmp_path_factory.mktemp("store") / "store", random_documents(40, vocab=100), vocab=100).folder


def convert(capsys, *arguments: object) -> str:
    """Run the verb and return what it said."""
    capsys.readouterr()
    assert main(["convert", *map(str, arguments)]) == 0
    said = capsys.readouterr().out
    assert all(line[11] == " " and line[12] != " " for line in said.splitlines()), "labels in a column of 12"
    return said


@torch.no_grad()
def check_logits(folder: Path, source: Network) -> None:
    """transformers gives for the written folder what the plain formulas give for the network that was read."""
    model = load(getattr(transformers, source.architecture), folder)
    probe = Probe.of(source)
    batch = vars(probe)
    if source.architecture == "ElectraForMultipleChoice":
        batch = {key: ids[None] for key, ids in batch.items()}
    found = model(**batch)
    for key, expected in zip(HEADS[source.architecture].outputs, reference_results(source, probe), strict=True):
        torch.testing.assert_close(found[key].double(), expected, rtol=1e-5, atol=1e-5)


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------- Google


def golden_hparams(golden: Path, tmp_path: Path, tag: str) -> Path:
    path = tmp_path / "hparams.json"
    path.write_text(json.dumps(json.loads((golden / f"pre_{tag}_meta.json").read_text())["config"]))
    return path


def test_golden_checkpoint_a(golden, tmp_path, capsys):
    hparams = golden_hparams(golden, tmp_path, "a")
    flags = ["--hparams", hparams, "--vocab", golden / "vocab512.txt", "--out", tmp_path / "out"]
    said = convert(capsys, golden / "ckpt_a", *flags)
    assert "model.ckpt-10, step 10" in said and "missing" not in said and "4 attention heads" in said
    source = read_google(golden / "ckpt_a", read_hparams(str(hparams), PRETRAINING).given)
    check_logits(tmp_path / "out" / "discriminator", source.discriminator)
    check_logits(tmp_path / "out" / "generator", source.generator)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out" / "generator")
    assert len(tokenizer) == 512


def test_golden_checkpoint_b_says_what_it_lacks(golden, tmp_path, capsys):
    said = convert(capsys, golden / "ckpt_b" / "model.ckpt-10.index", "--out", tmp_path / "out")
    assert "missing     Adam's moments\n" in said
    assert "heads       one for each 64 units" in said and "vocabulary  none beside the weights" in said
    check_logits(tmp_path / "out" / "discriminator", read_google(golden / "ckpt_b").discriminator)


def test_golden_checkpoint_goes_on_training(golden, tmp_path, capsys):
    corpus, vocab, store = str(golden / "tiny_corpus" / "tiny.txt"), golden / "vocab512.txt", tmp_path / "store"
    build(BuildConfig(corpus=(corpus,), vocab=vocab, out=store, held_out=0.05, processes=1))
    run, hparams = tmp_path / "run", golden_hparams(golden, tmp_path, "a")
    flags = ["--hparams", hparams, "--format", "run", "--data", store]
    said = convert(capsys, golden / "ckpt_a", *flags, "--out", run)
    assert said.count("checked     every tensor bit-equal") == 2
    assert "optimizer   the moments of Adam as they were at step 10" in said
    assert f"wrote       {run} at step 10;" in said
    assert f"to go on    electra pretrain --config {run / 'config.toml'}\n" in said
    assert main(["pretrain", "--config", str(run / "config.toml"), "--device", "cpu"]) == 0
    assert f"resuming from {run / 'checkpoints' / 'step-10'}" in capsys.readouterr().out
    assert read_metrics(run, "train")[-1]["step"] == 20


def test_google_checkpoint_with_the_vocabulary_beside_it(google, tmp_path, capsys):
    tiny_vocabulary(google.parent, 100)
    said = convert(capsys, google, "--hparams", json.dumps(HPARAMS), "--out", tmp_path / "out")
    assert "missing     Adam's moments\n" in said and "vocabulary" not in said and "heads  " not in said
    source = read_google(google)
    for name, network in (("discriminator", source.discriminator), ("generator", source.generator)):
        check_logits(tmp_path / "out" / name, network)
        assert (tmp_path / "out" / name / "vocab.txt").is_file() and (tmp_path / "out" / name / "README.md").is_file()


def test_half_a_google_checkpoint(tmp_path, capsys):
    only = {name: array for name, array in pretraining().items() if not name.startswith("generator")}
    said = convert(capsys, write_bundle(tmp_path / "half", only), "--out", tmp_path / "out")
    assert "missing     the generator, Adam's moments, the step\n" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["discriminator"]


def test_fine_tuned_google_checkpoint_has_a_folder_for_each_task(tmp_path, capsys):
    """The joint head of SQuAD has no class in transformers: its tensors lie beside the encoder."""
    heads = [dense("task_specific/sst/dense", 16, 2), dense("task_specific/squad/dense", 16, 1)]
    heads += [dense("task_specific/squad/qa_hidden", 32, 512), dense("task_specific/squad/dense_1", 512, 1)]
    heads += [dense("task_specific/squad/dense_2", 32, 512), dense("task_specific/squad/dense_3", 512, 1)]
    variables = random_arrays(encoder_variables(CONFIG, "electra", "electra"), *heads)
    prefix = write_bundle(tmp_path / "tuned", variables)
    said = convert(capsys, prefix, "--out", tmp_path / "out")
    layers = "answerable, answerable_hidden, end, end_hidden, start"
    assert f"head        {layers} in task_heads.safetensors: no class of transformers has such layers" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sst", "squad"}
    tasks = read_google(prefix).tasks
    for name in ("sst", "squad"):
        check_logits(tmp_path / "out" / name, tasks[name].network)
    extra = load_file(tmp_path / "out" / "squad" / "task_heads.safetensors")
    assert extra.keys() == tasks["squad"].extra.keys()
    assert all(torch.equal(value, tasks["squad"].extra[name]) for name, value in extra.items())
    config = json.loads((tmp_path / "out" / "sst" / "config.json").read_text())
    assert config["architectures"] == ["ElectraForSequenceClassification"]


# ------------------------------------------------------------------------------------- other systems' files


@pytest.mark.parametrize("beside", [False, True], ids=["--vocab", "beside"])
def test_nvidia_checkpoint_loses_the_padding_of_its_vocabulary(fixtures, tmp_path, capsys, beside):
    """61 entries, padded to 64; phase 2 with LAMB is the latest in the folder."""
    shutil.copytree(fixtures / "nvidia", tmp_path / "nvidia")
    vocabulary = tmp_path / "nvidia" if beside else tmp_path / "vocab"
    tiny_vocabulary(vocabulary, 61)
    flags = [] if beside else ["--vocab", vocabulary]
    said = convert(capsys, tmp_path / "nvidia", *flags, "--out", tmp_path / "out")
    assert "NVIDIA checkpoint of phase 2, 3 rows of padding cut off" in said and "ckpt-p2-1, step 1" in said
    expected = np.load(tmp_path / "nvidia" / "expected.npz")
    batch = {name: torch.from_numpy(expected[name]).long() for name in ("input_ids", "attention_mask")}
    for name, kind in (("discriminator", "ElectraForPreTraining"), ("generator", "ElectraForMaskedLM")):
        model = load(getattr(transformers, kind), tmp_path / "out" / name)
        assert model.config.vocab_size == 61
        logits = torch.from_numpy(expected[f"ckpt-p2|{name}"])
        with torch.no_grad():
            found = model(**batch).logits
        torch.testing.assert_close(found, logits[..., :61] if name == "generator" else logits, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["tied-step1-generator", "untied-step1-generator", "tied-step1-discriminator"])
def test_aws_checkpoints(fixtures, tmp_path, capsys, name):
    """The "tied" generator has an output matrix of its own, which transformers loads."""
    said = convert(capsys, fixtures / "aws" / f"{name}.ckpt", "--out", tmp_path / "out")
    assert "AWS checkpoint" in said
    run, part = name.split("-step1-")
    expected = np.load(fixtures / "aws" / "expected.npz")
    batch = {key: torch.from_numpy(expected[key]).long() for key in ("input_ids", "attention_mask", "token_type_ids")}
    kind = {"discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}[part]
    with torch.no_grad():
        found = load(getattr(transformers, kind), tmp_path / "out")(**batch).logits
    torch.testing.assert_close(found, torch.from_numpy(expected[f"{run}|{part}"]), rtol=0, atol=2e-6)
    assert (OUTPUT in load_file(tmp_path / "out" / "model.safetensors")) == (name == "tied-step1-generator")


@pytest.mark.parametrize("version", ["v3", "v4"])
@pytest.mark.parametrize("name", ["ElectraForPreTraining", "ElectraForMaskedLM", "ElectraForQuestionAnswering"])
def test_h5_files(fixtures, tmp_path, capsys, version, name):
    source = fixtures / f"tf_h5_{version}" / name
    assert "heads  " not in convert(capsys, source, "--out", tmp_path / "hf")
    check_logits(tmp_path / "hf", read_h5(source))
    (tmp_path / "alone").mkdir()
    shutil.copy(source / "tf_model.h5", tmp_path / "alone")
    said = convert(capsys, tmp_path / "alone" / "tf_model.h5", "--out", tmp_path / "hf2")
    assert "heads       one for each 64 units" in said
    assert_same_weights(tmp_path / "hf", tmp_path / "hf2")


@pytest.mark.parametrize("name", HEADS)
def test_hugging_face_to_h5_and_back_is_bit_equal(tmp_path, capsys, name):
    make_theirs(name).save_pretrained(tmp_path / "a")
    said = convert(capsys, tmp_path / "a", "--format", "tf-h5", "--out", tmp_path / "b")
    assert "transformers on the source" in said
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"tf_model.h5", "config.json", "README.md"}
    convert(capsys, tmp_path / "b", "--out", tmp_path / "c")
    assert_same_weights(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("name", HEADS)
def test_hugging_face_to_hugging_face_is_bit_equal(tmp_path, capsys, name):
    theirs = make_theirs(name)
    theirs.save_pretrained(tmp_path / "a")
    convert(capsys, tmp_path / "a", "--out", tmp_path / "b")
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert load(type(theirs), tmp_path / "b").config.to_diff_dict() == theirs.config.to_diff_dict()


def test_pickle_with_old_names(tmp_path, capsys):
    theirs = make_theirs("ElectraForPreTraining")
    theirs.save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").rename(tmp_path / "model.safetensors")
    state = {name.replace("Norm.weight", "Norm.gamma"): value for name, value in theirs.state_dict().items()}
    torch.save(state, tmp_path / "a" / "pytorch_model.bin")
    convert(capsys, tmp_path / "a", "--out", tmp_path / "b")
    assert_same_weights(tmp_path, tmp_path / "b")


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_fp32(tmp_path, capsys, half):
    make_theirs("ElectraForPreTraining").to(half).save_pretrained(tmp_path / "a")
    convert(capsys, tmp_path / "a", "--out", tmp_path / "b")
    assert load_file(tmp_path / "b" / "model.safetensors")[WORDS].dtype == torch.float32


# ------------------------------------------------------------------------------------------------ to a run


@pytest.mark.parametrize("apart", [False, True], ids=["pair folder", "--generator"])
def test_a_pair_of_folders_becomes_a_run(google, store, tmp_path, capsys, apart):
    pair, run = tmp_path / "pair", tmp_path / "run"
    convert(capsys, google, "--vocab", store / "tokenizer", "--out", pair)
    given = [pair / "discriminator", "--generator", pair / "generator"] if apart else [pair]
    said = convert(capsys, *given, "--format", "run", "--data", store, "--out", run)
    assert "no moments of Adam to go on with" in said and "schedule    step 0 of" in said
    assert said.count("checked     every tensor bit-equal") == 2
    recipe = (run / "config.toml").read_text()
    for name, value in (("steps", 3), ("batch_size", 8), ("eval_rows", 8), ("seq_len", 16)):
        recipe, count = re.subn(rf"^{name} = \d+$", f"{name} = {value}", recipe, flags=re.MULTILINE)
        assert count == 1
    (run / "config.toml").write_text(recipe)
    assert main(["pretrain", "--config", str(run / "config.toml"), "--device", "cpu"]) == 0
    assert read_metrics(run, "train")[-1]["step"] == 3


def test_a_generator_from_elsewhere_completes_a_pair(google, tmp_path, capsys):
    convert(capsys, google, "--out", tmp_path / "pair")
    pair = tmp_path / "pair"
    convert(capsys, pair / "discriminator", "--generator", google, "--out", tmp_path / "again")
    for name in ("discriminator", "generator"):
        assert_same_weights(pair / name, tmp_path / "again" / name)


# --------------------------------------------------------------------------------------------- what is refused


def refuse(capsys, out: Path, sentence: str, *arguments: object) -> None:
    """One sentence, exit code 2, and nothing left behind, not even a temporary folder."""
    before = sorted(out.parent.iterdir())
    capsys.readouterr()
    assert main(["convert", *map(str, arguments), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("electra: ") and error.count("\n") == 1
    assert re.search(sentence, error), error
    assert sorted(out.parent.iterdir()) == before


def test_what_is_no_checkpoint(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    refuse(capsys, out, "absent/checkpoint.x does not exist", tmp_path / "absent" / "checkpoint.x")
    (tmp_path / "notes.txt").write_text("These are notes.")
    refuse(capsys, out, r"notes\.txt is no checkpoint: name a folder", tmp_path / "notes.txt")
    (tmp_path / "notes.h5").write_text("These are notes.")
    refuse(capsys, out, r"notes\.h5 is no HDF5 file", tmp_path / "notes.h5")
    (tmp_path / "notes.index").write_text("These are notes.")
    refuse(capsys, out, r"notes\.index", tmp_path / "notes.index")
    (tmp_path / "empty").mkdir()
    refuse(capsys, out, "empty is no model folder: it has no config.json", tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "empty")
    refuse(capsys, out, "is no model folder", ".")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refuse(capsys, out, "google/electra-absent is no folder here.*cannot be reached", "google/electra-absent")


def test_other_models(tmp_path, capsys):
    model = tmp_path / "model"
    make_theirs("ElectraForPreTraining").save_pretrained(model)
    values = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(values | {"model_type": "deberta-v2"}))
    refuse(capsys, tmp_path / "out", "is a 'deberta-v2' model: only ELECTRA models load here", model)
    (model / "model.safetensors").unlink()
    (model / "config.json").write_text(json.dumps(values))
    refuse(capsys, tmp_path / "out", r"has neither model\.safetensors nor pytorch_model\.bin", model)


def test_hparams_that_do_not_fit(google, tmp_path, capsys):
    out = tmp_path / "out"
    wide = json.dumps(GOOGLE | {"model_hparam_overrides": SHAPE | {"hidden_size": 32}})
    refuse(capsys, out, "hidden_size 32 disagrees with .*whose hidden_size is 16", google, "--hparams", wide)
    make_theirs("ElectraForPreTraining").save_pretrained(tmp_path / "hf")
    flags = ["--hparams", json.dumps(HPARAMS)]
    refuse(capsys, out, "--hparams describes checkpoints of google-research/electra, and", tmp_path / "hf", *flags)


def test_damaged_google_checkpoints(google, tmp_path, capsys):
    index, data = Path(f"{google}.index"), Path(f"{google}.data-00000-of-00001")
    whole, content = index.read_bytes(), bytearray(data.read_bytes())
    index.write_bytes(whole[: len(whole) // 2])
    refuse(capsys, tmp_path / "out", r"model\.ckpt-7\.index", google)
    index.write_bytes(whole)
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    refuse(capsys, tmp_path / "out", "the checksum of .* is wrong", google)
    data.write_bytes(content[:-100])
    refuse(capsys, tmp_path / "out", "cut off or belongs to another checkpoint", google)
    data.unlink()
    refuse(capsys, tmp_path / "out", "is missing: a checkpoint is its .index and all its .data files", google)


def test_a_vocabulary_larger_than_the_model(google, tmp_path, capsys):
    tiny_vocabulary(tmp_path / "vocab", 101)
    sentence = "the tokenizer has 101 entries but the model only 100"
    refuse(capsys, tmp_path / "out", sentence, google, "--vocab", tmp_path / "vocab")


def test_what_no_run_can_be_made_of(google, fixtures, store, tmp_path, capsys):
    out, run = tmp_path / "out", ["--format", "run", "--data", store]
    pair = tmp_path / "pair"
    convert(capsys, google, "--out", pair)
    refuse(capsys, out, "--format run and --data go together", google, "--format", "run")
    refuse(capsys, out, "--format run and --data go together", google, "--data", store)
    refuse(capsys, out, "leave out --vocab", google, *run, "--vocab", store / "tokenizer")
    refuse(capsys, out, "discriminator has no generator, and a run goes on with both", pair / "discriminator", *run)
    refuse(capsys, out, "generator has no discriminator, and a run goes on with both", pair / "generator", *run)
    flags = [*run, "--generator", pair / "discriminator"]
    refuse(capsys, out, "holds no generator", pair / "discriminator", *flags)
    small = make_store(tmp_path / "small", random_documents(5, vocab=90), vocab=90).folder
    refuse(capsys, out, "of 100 entries and the store one of 90", pair, "--format", "run", "--data", small)
    other = make_store(tmp_path / "other", random_documents(9, vocab=61), vocab=61).folder
    aws = [f"{fixtures / 'aws' / 'tied-step1-'}{part}.ckpt" for part in ("discriminator", "generator")]
    flags = ["--generator", aws[1], "--format", "run", "--data", other]
    refuse(capsys, out, "has hidden_size 64, but in a run of this configuration it would have 16", aws[0], *flags)


def test_a_generator_with_an_output_of_its_own_does_not_go_on(google, store, tmp_path, capsys):
    pair = tmp_path / "pair"
    convert(capsys, google, "--out", pair)
    generator = read_hf(pair / "generator")
    config = generator.config | {"tie_word_embeddings": False}
    tensors = generator.tensors | {OUTPUT: generator.tensors[WORDS] + 1}
    convert_module.write_hf(tmp_path / "own", Network("own", generator.architecture, config, tensors), None, "")
    flags = ["--generator", tmp_path / "own", "--format", "run", "--data", store]
    refuse(capsys, tmp_path / "out", "has an output matrix of its own, but in a run", pair / "discriminator", *flags)
    refuse(capsys, tmp_path / "out", "has an output matrix of its own", tmp_path / "own", "--format", "tf-h5")


def test_nothing_is_overwritten_unasked(google, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    refuse(capsys, out, "out exists already: choose another --out", google)
    assert (out / "mine.txt").read_text() == "mine"
    convert(capsys, google, "--out", out, "--overwrite")
    assert {path.name for path in out.iterdir()} == {"discriminator", "generator"}


# ------------------------------------------------------------------------------- the check that ends a conversion


@pytest.mark.parametrize("format", ["hf", "tf-h5"])
def test_a_file_that_comes_back_changed_is_not_kept(google, tmp_path, capsys, monkeypatch, format):
    name, file = {"hf": ("read_hf", "generator"), "tf-h5": ("read_h5", "generator")}[format]
    read = getattr(convert_module, name)

    def changed(folder: Path) -> Network:
        network = read(folder)
        if folder.name == file:
            network.tensors[WORDS] = network.tensors[WORDS].clone()
            network.tensors[WORDS][3, 3] += 1e-6
        return network

    monkeypatch.setattr(convert_module, name, changed)
    sentence = "word_embeddings.weight came back from the disk with other values, so nothing was kept"
    refuse(capsys, tmp_path / "out", sentence, google, "--format", format)


def test_a_result_above_the_tolerance_is_not_kept(google, store, tmp_path, capsys, monkeypatch):
    build_model = compare_module.build_model

    def damaged(network: Network) -> torch.nn.Module:
        model = build_model(network)
        with torch.no_grad():
            model.encoder.body.layers[0].up.bias += 1e-2
        return model

    monkeypatch.setattr(compare_module, "build_model", damaged)
    sentence = "what was written answers differently from the plain formulas .* by .* so nothing was kept"
    refuse(capsys, tmp_path / "out", sentence, google)
    refuse(capsys, tmp_path / "out", sentence, google, "--format", "run", "--data", store)


def test_weights_that_are_no_numbers_are_not_kept(google, tmp_path, capsys):
    variables = pretraining()
    variables["electra/embeddings/LayerNorm/beta"][:] = np.nan
    prefix = write_bundle(tmp_path / "nan" / "model.ckpt-1", variables)
    refuse(capsys, tmp_path / "out", "answers differently .*by nan", prefix)
