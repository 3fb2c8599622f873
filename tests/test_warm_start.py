"""Runs that begin from a model that exists, its vocabulary kept, reordered and extended."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from stores import make_store, random_documents, tiny_vocabulary
from test_pretrain import SHAPE, config_for

from electra.checkpoint import load_model
from electra.config import ModelConfig, ObjectiveConfig, PretrainConfig
from electra.objectives import make_model
from electra.pretrain import pretrain
from electra.store import Store
from electra.tokenizer import Vocabulary, load_tokenizer
from electra.warm_start import match_tokens, warm_start


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store", random_documents(60), held_out=0.1).folder


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Path:
    config = config_for(store, tmp_path_factory.mktemp("runs") / "run", steps=3)
    pretrain(config)
    return config.out


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Vocabulary:
    """The run's vocabulary in another order, 100 of its words left out, with words of its own."""
    folder = tmp_path_factory.mktemp("extended")
    before = tiny_vocabulary(folder / "before").tokens
    tokens = [*before[:5], "bb", "##ab", "zq", *reversed(before[105:])]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return load_tokenizer(folder / "vocab.txt", lowercase=True)


def a_model(config: PretrainConfig, vocab_size: int = 1000) -> torch.nn.Module:
    torch.manual_seed(7)
    return make_model(config.model, config.objective, vocab_size)


def test_a_run_goes_on_from_an_exported_one(store, run, tmp_path, capsys):
    config = dataclasses.replace(config_for(store, tmp_path / "next", steps=1), init=str(run))
    model, before = a_model(config), a_model(config)
    warm_start(model, config, Store.open(store).vocabulary())
    load_model(run, before)
    for name, value in model.state_dict().items():
        rows = 1000 if name in ("embeddings.word.weight", "generator_head.bias") else None  # the rest is padding
        assert torch.equal(value[:rows], before.state_dict()[name][:rows]), name
    pretrain(config)
    said = capsys.readouterr().out
    assert f"begin       ElectraForPreTraining of {run}/export/discriminator" in said
    assert f"begin       generator of {run}/export/generator" in said
    assert "vocabulary  " not in said
    pretrain(config)  # resumed: the checkpoint counts
    assert "begin " not in capsys.readouterr().out


def test_discriminator_alone(run, store):
    config = config_for(store, Path("out"))
    alone = run.parent / "alone"
    if not alone.exists():
        alone.symlink_to(run / "export" / "discriminator")
    config = dataclasses.replace(config, init=str(alone))
    model, fresh = a_model(config), a_model(config)
    lines = warm_start(model, config, Store.open(store).vocabulary())
    assert lines[-1] == "begin       the generator at random"
    same = {name: torch.equal(value, fresh.state_dict()[name]) for name, value in model.state_dict().items()}
    assert all(same[name] for name in same if name.startswith("generator"))
    assert not any(same[name] for name in same if name.startswith(("embeddings.word", "discriminator.layers.0.qkv.w")))


def test_another_vocabulary_gives_the_same_answers_on_words_of_both(run, store, extended):
    """Against transformers on the model that it began from."""
    config = dataclasses.replace(config_for(store, Path("out")), init=str(run))
    model = a_model(config, extended.size)
    lines = warm_start(model, config, extended)
    assert f"vocabulary  {extended.size - 3:,} of {extended.size:,} vectors taken as they are, 3 made" in lines[-1]
    old = tiny_vocabulary(run.parent / "old")
    words = [token for token in old.tokens[105:] if token in extended.tokens][:20]
    theirs = transformers.ElectraForPreTraining.from_pretrained(run / "export" / "discriminator").eval()
    generator = transformers.ElectraForMaskedLM.from_pretrained(run / "export" / "generator").eval()
    before = torch.tensor([[old.tokens.index(word) for word in words]])
    now = torch.tensor([[extended.tokens.index(word) for word in words]])
    model.eval()
    segments = torch.zeros_like(now)
    with torch.no_grad():
        hidden = model.discriminator(model.embeddings(now, segments), None)
        found = model.discriminator_head(hidden)
        torch.testing.assert_close(found, theirs(input_ids=before).logits, rtol=0, atol=1e-5)
        hidden = model.generator(model.embeddings(now, segments), None)
        found = model.generator_head(hidden, model.embeddings.word.weight)[..., now[0]]
        torch.testing.assert_close(found, generator(input_ids=before).logits[..., before[0]], rtol=0, atol=1e-5)


def test_new_tokens_are_the_mean_of_their_pieces(run, store, extended):
    """ "bb" is unknown to a vocabulary of whole words and letters without ## pieces: [UNK]; "##ab" likewise."""
    old = tiny_vocabulary(run.parent / "old")
    ids, weights = match_tokens(old, extended)
    table = torch.randn(old.size, 4)
    vectors = (table[ids] * weights[..., None]).sum(1)
    for index, token in enumerate(extended.tokens):
        pieces = [old.tokens.index(token)] if token in old.tokens else old.encode_lines([token.removeprefix("##")])[0]
        torch.testing.assert_close(vectors[index], table[torch.as_tensor(pieces)].mean(0))


def test_pieces_are_averaged(tmp_path):
    (tmp_path / "old.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "##c"]))
    (tmp_path / "new.txt").write_text("\n".join(["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "abc", "##b", "q"]))
    old, new = (load_tokenizer(tmp_path / name, lowercase=True) for name in ("old.txt", "new.txt"))
    ids, weights = match_tokens(old, new)
    assert [dict(zip(i, w, strict=True)) for i, w in zip(ids.tolist(), weights.tolist(), strict=True)][5:] == [
        {5: pytest.approx(1 / 3), 6: pytest.approx(1 / 3), 7: pytest.approx(1 / 3)},
        {6: 1.0, 0: 0.0},
        {1: 1.0, 0: 0.0},
    ]
    assert ids[:5, 0].tolist() == [2, 3, 0, 1, 4]


def test_masked_lm_begins_from_a_generator(run, store):
    """A run of masked LM takes an ElectraForMaskedLM of its own shape."""
    small = ModelConfig(
        hidden_size=16, num_layers=2, num_heads=1, intermediate_size=64, embedding_size=16, max_positions=64
    )
    config = dataclasses.replace(
        config_for(store, Path("out")), objective=ObjectiveConfig(objective="masked-lm"), model=small
    )
    config = dataclasses.replace(config, init=str(run / "export" / "generator"))
    model = a_model(config)
    warm_start(model, config, Store.open(store).vocabulary())
    before = a_model(config_for(store, Path("out")))
    load_model(run, before)
    assert torch.equal(model.body.layers[1].up.weight, before.generator.layers[1].up.weight)
    assert torch.equal(model.head.bias, before.generator_head.bias)


def test_a_discriminator_begins_with_the_layers_of_a_masked_lm(store, tmp_path, capsys):
    first = dataclasses.replace(
        config_for(store, tmp_path / "first", steps=1), objective=ObjectiveConfig(objective="masked-lm")
    )
    pretrain(first)
    config = dataclasses.replace(config_for(store, tmp_path / "next", steps=1), init=str(first.out))
    model, fresh = a_model(config), a_model(config)
    lines = warm_start(model, config, Store.open(store).vocabulary())
    assert lines == [
        f"begin       ElectraForMaskedLM of {first.out}/export/masked_lm, its head at random",
        "begin       the generator at random",
    ]
    before = transformers.ElectraForMaskedLM.from_pretrained(first.out / "export" / "masked_lm").eval()
    ids = torch.arange(5, 25)[None]
    model.eval()
    with torch.no_grad():
        hidden = model.discriminator(model.embeddings(ids, torch.zeros_like(ids)), None)
        torch.testing.assert_close(hidden, before.electra(input_ids=ids).last_hidden_state, rtol=0, atol=1e-5)
    for name, value in model.state_dict().items():
        if name.startswith(("generator", "discriminator_head")):
            assert torch.equal(value, fresh.state_dict()[name]), name
    capsys.readouterr()
    pretrain(config)
    assert lines[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c, run: {"init": str(run / "export" / "generator")},
            "has hidden_size 16, but model of this run has 32",
        ),
        (lambda c, run: {"init": str(run / "nothing")}, "does not exist"),
        (
            lambda c, run: {"init": str(run), "model": dataclasses.replace(SHAPE, num_layers=1, generator_depth=1.0)},
            "has num_layers 2, but model of this run has 1",
        ),
        (
            lambda c, run: {"init": str(run), "model": dataclasses.replace(SHAPE, generator_width=1.0)},
            "has hidden_size 16, but the generator of this run has 32",
        ),
        (
            lambda c, run: {"init": str(run), "init_generator": str(run / "export" / "discriminator")},
            "is an ElectraForPreTraining: a generator is ElectraForMaskedLM",
        ),
        (
            lambda c, run: {
                "init": str(run),
                "init_generator": str(run / "export" / "generator"),
                "objective": ObjectiveConfig(generator="uniform"),
            },
            "--init-generator is for runs whose generator has layers of its own",
        ),
    ],
)
def test_what_does_not_fit_is_refused(run, store, change, message):
    config = config_for(store, Path("out"))
    config = dataclasses.replace(config, **change(config, run))
    with pytest.raises(ValueError, match=message):
        warm_start(a_model(config), config, Store.open(store).vocabulary())


def test_a_model_of_questions_is_refused(run, store, tmp_path):
    source = transformers.ElectraForQuestionAnswering.from_pretrained(run / "export" / "discriminator")
    source.save_pretrained(tmp_path / "model")
    transformers.AutoTokenizer.from_pretrained(run / "export" / "discriminator").save_pretrained(tmp_path / "model")
    config = dataclasses.replace(config_for(store, Path("out")), init=str(tmp_path / "model"))
    with pytest.raises(ValueError, match="is an ElectraForQuestionAnswering: a run begins from an ElectraForPreTr"):
        warm_start(a_model(config), config, Store.open(store).vocabulary())


def test_generator_of_another_run_is_refused(run, store, tmp_path):
    other = config_for(store, tmp_path / "other", steps=1)
    pretrain(dataclasses.replace(other, loop=dataclasses.replace(other.loop, seed=5)))
    config = dataclasses.replace(
        config_for(store, Path("out")), init=str(run), init_generator=str(other.out / "export" / "generator")
    )
    with pytest.raises(ValueError, match=r"another electra\.embeddings\..* both share their embeddings here"):
        warm_start(a_model(config), config, Store.open(store).vocabulary())
    with pytest.raises(ValueError, match="--init-generator needs --init"):
        dataclasses.replace(config, init="")
