"""Model folders against transformers: what we write it loads, what it writes we load, logits equal."""

import json

import pytest
import torch
from stores import make_store, random_documents
from tiny_models import make_model_folder
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
from electra.interop.hf import load_pretrained
from electra.pretrain import pretrain
from electra.rtd import ReplacedTokenDetection


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short pre-training run with its export; the vocabulary of 1,000 is padded to 1,024 inside."""
    folder = tmp_path_factory.mktemp("run")
    store = make_store(folder / "store", random_documents(40), held_out=0.1)
    config = PretrainConfig(
        data=store.folder,
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
