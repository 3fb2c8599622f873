"""A model folder for each kind of tab of `electra app`, tiny, with random weights that are far apart."""

import socket
from pathlib import Path

import torch
from tiny_models import PIECES, make_model_folder
from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    PreTrainedModel,
)

from electra.app.detector_tab import TEXTS
from electra.tasks.questions.heads import JointHead
from electra.tokenizer import Vocabulary, load_tokenizer


def app_vocabulary(folder: Path) -> Vocabulary:
    """One that reads the English examples of the page well, and no emoji."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [*PIECES, *" ".join(TEXTS[:2]).lower().replace(".", "").split()]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")
    return load_tokenizer(folder / "vocab.txt")


def save_network(folder: Path, kind: type[PreTrainedModel], seed: int = 1, **config: object) -> Path:
    vocabulary = app_vocabulary(folder)
    vocabulary.save(folder)
    torch.manual_seed(seed)
    shape = ElectraConfig(
        vocab_size=vocabulary.size,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
        **config,
    )
    kind(shape).save_pretrained(folder)
    return folder


def named(*labels: str) -> dict[str, object]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def make_pair(folder: Path) -> Path:
    """A run's export: discriminator and generator."""
    save_network(folder / "discriminator", ElectraForPreTraining, seed=1)
    save_network(folder / "generator", ElectraForMaskedLM, seed=2)
    return folder


def make_joint(folder: Path) -> Path:
    """A model for questions with Google's head."""
    torch.manual_seed(3)
    head = JointHead(32)  # the width of tiny_config
    return make_model_folder(folder, extra=head.state_dict(), electra_null_threshold=0.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_models(folder: Path) -> dict[str, Path]:
    """Tab name -> its model folder."""
    sentences, tags = ElectraForSequenceClassification, ElectraForTokenClassification
    several = {"problem_type": "multi_label_classification"}
    return {
        "run": make_pair(folder / "run"),
        "mood": save_network(folder / "mood", sentences, **named("sad", "plain", "glad")),
        "pair": save_network(folder / "pair", sentences, seed=2, electra_task="mrpc", **named("differs", "same")),
        "topics": save_network(folder / "topics", sentences, seed=3, **several, **named("art", "sport", "food")),
        "stars": save_network(folder / "stars", sentences, seed=4, num_labels=1, problem_type="regression"),
        "names": save_network(folder / "names", tags, seed=5, **named("O", "B-PER", "I-PER", "B-LOC", "I-LOC")),
        "words": save_network(folder / "words", tags, seed=6, electra_scheme="plain", **named("NOUN", "VERB")),
        "qa": save_network(folder / "qa", ElectraForQuestionAnswering, seed=7),
        "joint": make_joint(folder / "joint"),
    }
