"""Model folders against transformers: what we write it loads, what it writes we load, logits equal."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from stores import make_store, random_documents
from tiny_models import make_model_folder, make_vocabulary
from transformers import (
    AutoModel,
    AutoTokenizer,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraModel,
)

from electra.checkpoint import load_model
from electra.config import LoopConfig, ModelConfig, OptimizerConfig, PretrainConfig, RowsConfig
from electra.export import export_run
from electra.interop.heads import HEADS, head_from_hf, head_to_hf
from electra.interop.hf import (
    build_model,
    check_network,
    encoder_from_hf,
    encoder_to_hf,
    load_pretrained,
    read_hf,
    write_hf,
)
from electra.interop.network import OUTPUT, WORDS
from electra.interop.onnx import export_onnx, open_session
from electra.pretrain import pretrain
from electra.rtd import ReplacedTokenDetection


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short pre-training run with its export; the vocabulary of 1,000 is padded to 1,024 inside."""
    folder = tmp_path_factory.mktemp("run")
    store = make_store(folder / "store", random_documents(40), held_out=0.1)
    config = PretrainConfig(
        data=(str(store.folder),),
        out=folder / "run",
        model=ModelConfig(64, 2, 1, 256, 32, generator_width=0.5, max_positions=64),
        rows=RowsConfig(seq_len=32),
        optimizer=OptimizerConfig(warmup_steps=1, learning_rate=1e-2),
        loop=LoopConfig(steps=4, batch_size=8, eval_rows=16, precision="fp32", device="cpu"),
    )
    pretrain(config)
    model = ReplacedTokenDetection(config.model, config.objective, 1000)
    load_model(folder / "run", model)
    return folder / "run", model.eval()


def load(kind, path):
    model, report = kind.from_pretrained(path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    return model.eval()


def inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 1000, (2, 20), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "token_type_ids": (torch.arange(20) > 9).long().expand(2, 20)}


@torch.no_grad()
def test_exported_networks_load_and_give_our_logits(run):
    folder, ours = run
    batch = inputs()
    embedded = ours.embeddings(batch["input_ids"], batch["token_type_ids"])
    discriminator = load(ElectraForPreTraining, folder / "export" / "discriminator")
    expected = ours.discriminator_head(ours.discriminator(embedded))
    torch.testing.assert_close(discriminator(**batch).logits, expected, rtol=1e-5, atol=1e-5)
    generator = load(ElectraForMaskedLM, folder / "export" / "generator")
    expected = ours.generator_head(ours.generator(embedded), ours.embeddings.word.weight)
    torch.testing.assert_close(generator(**batch).logits, expected, rtol=1e-5, atol=1e-5)
    assert generator.generator_lm_head.weight.shape == (1000, 32)


@torch.no_grad()
def test_automodel_and_autotokenizer(run):
    folder, ours = run
    path = folder / "export" / "discriminator"
    model = AutoModel.from_pretrained(path).eval()
    assert isinstance(model, ElectraModel)
    tokenizer = AutoTokenizer.from_pretrained(path)
    encoded = tokenizer("a b c", "d e", return_tensors="pt")
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]) == (
        ["[CLS]", "a", "b", "c", "[SEP]", "d", "e", "[SEP]"]
    )
    expected = ours.encoder()(encoded["input_ids"], encoded["token_type_ids"])
    torch.testing.assert_close(model(**encoded).last_hidden_state, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_run_exports_both_networks_as_onnx(run, tmp_path):
    folder, ours = run
    export_onnx(folder, tmp_path / "onnx")
    batch = inputs() | {"attention_mask": torch.ones(2, 20, dtype=torch.long)}
    embedded = ours.embeddings(batch["input_ids"], batch["token_type_ids"])
    expected = {
        "discriminator": ours.discriminator_head(ours.discriminator(embedded)),
        "generator": ours.generator_head(ours.generator(embedded), ours.embeddings.word.weight),
    }
    for name, logits in expected.items():
        session = open_session(tmp_path / "onnx" / name / "model.onnx")
        (found,) = session.run(["logits"], {key: ids.numpy() for key, ids in batch.items()})
        torch.testing.assert_close(torch.from_numpy(found), logits, rtol=0, atol=1e-4)
        assert AutoTokenizer.from_pretrained(tmp_path / "onnx" / name).vocab_size == 1000


def test_the_model_card_says_what_and_how(run):
    card = (run[0] / "export" / "discriminator" / "README.md").read_text()
    for word in ("4 steps", "tokens in", "discriminator auc", "batch_size = 8", "from_pretrained"):
        assert word in card


def test_an_export_is_not_overwritten_silently(run):
    with pytest.raises(ValueError, match="exists already"):
        export_run(run[0], run[0] / "export")


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("old_names", [False, True])
@torch.no_grad()
def test_we_load_what_transformers_writes(tmp_path, safe, old_names):
    config = ElectraConfig(
        vocab_size=53,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    theirs = ElectraForPreTraining(config).eval()
    theirs.save_pretrained(tmp_path)
    if not safe:
        (tmp_path / "model.safetensors").unlink()
        state = theirs.state_dict()
        if old_names:
            for kind, old in (("weight", "gamma"), ("bias", "beta")):
                state = {name.replace(f"LayerNorm.{kind}", f"LayerNorm.{old}"): v for name, v in state.items()}
        torch.save(state, tmp_path / "pytorch_model.bin")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    loaded = load_pretrained(str(tmp_path))
    ids = torch.randint(0, 53, (2, 11))
    expected = theirs.electra(ids).last_hidden_state
    ours = loaded.encoder().eval()(ids, torch.zeros_like(ids))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert set(loaded.head_state) == {
        f"discriminator_predictions.{layer}.{kind}"
        for layer in ("dense", "dense_prediction")
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "deberta-v2"}, "is a 'deberta-v2' model: only ELECTRA models load here"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"hidden_size": None}, "lacks the key 'hidden_size'"),
        ({"hidden_size": "256"}, "has hidden_size '256': it must be a whole number of at least 1"),
        ({"num_attention_heads": 0}, "has num_attention_heads 0: it must be a whole number of at least 1"),
        ({"id2label": ["no", "yes"]}, "has an id2label that maps nothing"),
        ({"num_hidden_layers": 5}, r"lacks the tensor electra.encoder.layer.2"),
        ({"vocab_size": 7}, "the tokenizer has"),
    ],
)
def test_folders_that_are_no_electra_model(tmp_path, change, sentence):
    folder = make_model_folder(tmp_path / "model")
    values = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    with pytest.raises(ValueError, match=sentence):
        load_pretrained(str(folder))


@pytest.mark.parametrize("cut", [10, 5000])
def test_damaged_weights_are_named(tmp_path, cut):
    folder = make_model_folder(tmp_path / "model")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:cut])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        load_pretrained(str(folder))


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_pretrained(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="is no model folder"):
        load_pretrained(str(tmp_path))


# ------------------------------------------------------------------------------------------------- every head

HEAD_NAMES = list(HEADS)


def make_theirs(name: str, **changes: object) -> transformers.PreTrainedModel:
    """A random model of a class of transformers, every parameter drawn, biases and LayerNorms too."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 53,
        "embedding_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
    }
    if "Classification" in name:
        shape |= {"id2label": {0: "red", 1: "green", 2: "blue"}, "label2id": {"red": 0, "green": 1, "blue": 2}}
    model = getattr(transformers, name)(ElectraConfig(**(shape | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def their_inputs(name: str) -> dict[str, torch.Tensor]:
    shape = (2, 3, 11) if name == "ElectraForMultipleChoice" else (4, 11)
    batch = {
        "input_ids": torch.randint(0, 53, shape, generator=torch.Generator().manual_seed(1)),
        "attention_mask": (torch.arange(11) < 8).long().expand(shape).clone(),
        "token_type_ids": (torch.arange(11) > 4).long().expand(shape).clone(),
    }
    batch["attention_mask"][0] = 1
    return batch


@pytest.mark.parametrize("name", HEAD_NAMES)
@torch.no_grad()
def test_round_trip_of_every_head_is_bit_equal(tmp_path: Path, name: str) -> None:
    """transformers -> Network -> our modules' state dicts -> Network -> transformers."""
    theirs = make_theirs(name)
    theirs.save_pretrained(tmp_path / "a")
    network = read_hf(tmp_path / "a")
    assert network.architecture == name
    config = check_network(network)
    encoder = encoder_from_hf(network.tensors, config, network.source)
    head = head_from_hf(network.tensors, name, config)
    again = encoder_to_hf(encoder, config) | head_to_hf(head, name, config)
    assert again.keys() == network.tensors.keys()
    write_hf(tmp_path / "b", type(network)("ours", name, network.config, again), None, "")

    before, after = load_file(tmp_path / "a" / "model.safetensors"), load_file(tmp_path / "b" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    back = load(type(theirs), tmp_path / "b")
    state = back.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in theirs.state_dict().items())
    assert back.config.to_diff_dict() == load(type(theirs), tmp_path / "a").config.to_diff_dict()
    batch = their_inputs(name)
    expected, found = theirs(**batch), back(**batch)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.parametrize("name", HEAD_NAMES)
@torch.no_grad()
def test_our_modules_give_their_results(tmp_path: Path, name: str) -> None:
    theirs = make_theirs(name)
    theirs.save_pretrained(tmp_path)
    batch = their_inputs(name)
    expected, found = theirs(**batch), build_model(read_hf(tmp_path))(**batch)
    for key, ours in zip(HEADS[name].outputs, found, strict=True):
        torch.testing.assert_close(ours, expected[key], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_row_of_padding_alone_gives_numbers(tmp_path: Path) -> None:
    make_theirs("ElectraModel").save_pretrained(tmp_path)
    batch = their_inputs("ElectraModel")
    batch["attention_mask"][1] = 0
    (found,) = build_model(read_hf(tmp_path))(**batch)
    assert found.isfinite().all()


# -------------------------------------------------------------------------------------------- oddities of files


def write_state(folder: Path, state: dict[str, torch.Tensor], **config: object) -> Path:
    """A folder with a pytorch_model.bin of `state`, and config.json changed (None: the key is removed)."""
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "pytorch_model.bin")
    values = (
        make_theirs("ElectraForPreTraining").config.to_dict() | {"architectures": ["ElectraForPreTraining"]} | config
    )
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    return folder


def test_buffers_among_the_weights_are_left_out(tmp_path: Path) -> None:
    state = make_theirs("ElectraForPreTraining").state_dict()
    positions = {"electra.embeddings.position_ids": torch.arange(40)[None]}
    network = read_hf(write_state(tmp_path, state | positions))
    assert network.tensors.keys() == state.keys()


@pytest.mark.parametrize("name", HEAD_NAMES)
def test_a_config_without_architectures(tmp_path: Path, name: str) -> None:
    """The class follows from the head in the file; an old generator has its tied matrix twice."""
    theirs = make_theirs(name)
    changes = {"id2label": theirs.config.id2label, "label2id": theirs.config.label2id}
    network = read_hf(write_state(tmp_path, theirs.state_dict(), architectures=None, **changes))
    assert network.architecture == name
    assert "generator_lm_head.weight" not in network.tensors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    theirs = make_theirs("ElectraForPreTraining").to(dtype)
    theirs.save_pretrained(tmp_path / "a")
    network = read_hf(tmp_path / "a")
    for name, value in theirs.state_dict().items():
        assert torch.equal(network.tensors[name], value.float())
    write_hf(tmp_path / "b", network, None, "")
    assert ElectraForPreTraining.from_pretrained(tmp_path / "b").dtype == torch.float32


def test_a_tokenizer_and_a_card_are_written_when_given(tmp_path: Path) -> None:
    make_theirs("ElectraModel", vocab_size=100, pad_token_id=3).save_pretrained(tmp_path / "a")
    vocabulary = make_vocabulary(tmp_path / "v")
    write_hf(tmp_path / "b", read_hf(tmp_path / "a"), vocabulary, "# A card")
    assert {file.name for file in (tmp_path / "b").iterdir()} == {
        *("config.json", "model.safetensors", "README.md", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    }
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "b")("good film").input_ids[1:3]
        == vocabulary.encode_batch(["good film"])[0]
    )
    assert ElectraConfig.from_pretrained(tmp_path / "b").pad_token_id == 0
    with pytest.raises(ValueError, match="exists already"):
        write_hf(tmp_path / "b", read_hf(tmp_path / "a"), vocabulary, "")
    make_theirs("ElectraModel").save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ entries but the model only 53"):
        write_hf(tmp_path / "c", read_hf(tmp_path / "small"), vocabulary, "")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "bert"}, "is a 'bert' model"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key': only 'absolute'"),
        ({"is_decoder": True}, "is_decoder True: only False"),
        ({"add_cross_attention": True}, "add_cross_attention True"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05: only 1e-12"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"num_attention_heads": 3}, "hidden_size 16 is no multiple of 3 heads"),
        ({"architectures": ["ElectraForMultipleChoice"], "summary_type": "mean"}, "summary_type 'mean'"),
        ({"architectures": ["ElectraForCausalLM"]}, "is a ElectraForCausalLM: known are ElectraModel"),
        ({"architectures": ["ElectraForMaskedLM"]}, "lacks the tensor generator_lm_head.bias, .*ElectraForMaskedLM"),
        ({"architectures": ["ElectraModel"]}, "has the tensor discriminator_predictions.dense.bias.* and 1 more"),
        ({"num_hidden_layers": 1}, r"has the tensor electra.encoder.layer.1.* and 13 more, which"),
        ({"intermediate_size": 31}, r"intermediate.dense.* is \(32, 16\), but by the config it is \(31, 16\)"),
    ],
)
def test_what_we_do_not_run_is_refused_by_name(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    folder = write_state(tmp_path, make_theirs("ElectraForPreTraining").state_dict(), **change)
    with pytest.raises(ValueError, match=sentence):
        read_hf(folder)


def test_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    make_theirs("ElectraForSequenceClassification").save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"id2label": {"0": "a", "1": "b"}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"classifier.out_proj.\w+ is \(3.*by the config it is \(2"):
        read_hf(tmp_path)


@pytest.mark.parametrize("said", [True, False], ids=["said", "not said"])
@torch.no_grad()
def test_a_generator_with_an_output_of_its_own(tmp_path: Path, said: bool) -> None:
    """transformers 5 goes by the values in the file, whatever its config.json says; so do we, and then we say it."""
    theirs = make_theirs("ElectraForMaskedLM", tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path / "a")
    values = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps(values | {"tie_word_embeddings": not said}))
    network = read_hf(tmp_path / "a")
    assert network.own_output and not torch.equal(network.tensors[OUTPUT], network.tensors[WORDS])
    write_hf(tmp_path / "b", network, None, "")
    before, after = load_file(tmp_path / "a" / "model.safetensors"), load_file(tmp_path / "b" / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    back = load(ElectraForMaskedLM, tmp_path / "b")
    assert back.config.tie_word_embeddings is False
    batch = their_inputs("ElectraForMaskedLM")
    expected = theirs(**batch).logits
    assert torch.equal(back(**batch).logits, expected)
    torch.testing.assert_close(build_model(network)(**batch)[0], expected, rtol=1e-5, atol=1e-5)


def test_an_output_that_is_said_to_be_apart_must_be_there(tmp_path: Path) -> None:
    state = dict(make_theirs("ElectraForMaskedLM").state_dict())
    config = {"architectures": ["ElectraForMaskedLM"], "tie_word_embeddings": False}
    assert read_hf(write_state(tmp_path, state, **config)).own_output, "equal today, apart in training"
    del state[OUTPUT]
    with pytest.raises(ValueError, match=r"lacks the tensor generator_lm_head.weight: .*tie_word_embeddings false"):
        read_hf(write_state(tmp_path, state, **config))


def test_a_model_costs_no_second_copy(tmp_path: Path) -> None:
    make_theirs("ElectraForPreTraining", vocab_size=64).save_pretrained(tmp_path)
    network = read_hf(tmp_path)
    pointers = {tensor.data_ptr() for tensor in network.tensors.values()}
    own = {name for name, value in build_model(network).named_parameters() if value.data_ptr() not in pointers}
    assert own and all(".qkv." in name for name in own)


def test_a_hub_id_offline_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"^google/electra-absent is no folder here.*cannot be reached.*\w$"):
        read_hf("google/electra-absent")
