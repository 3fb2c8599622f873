"""Tiny vocabularies and model folders, made in process, for the tests of fine-tuning and prediction."""

from pathlib import Path
from typing import Any

import torch

from electra.encoder import Encoder, EncoderConfig, initialize
from electra.interop.hf import save_model_folder
from electra.tokenizer import Vocabulary, load_tokenizer

WORDS = """the film is a very good bad great awful plot with actors and music that was not so dull bright long short"""
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIALS, *WORDS.split(), *"bcdefghijklmnopqrstuvwxyz.,!?", "##s", "##ing", "##e"]


def make_vocabulary(folder: Path) -> Vocabulary:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return load_tokenizer(folder / "vocab.txt")


def tiny_config(vocabulary: Vocabulary) -> EncoderConfig:
    return EncoderConfig(
        vocab_size=vocabulary.size,
        embedding_size=16,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
        max_positions=64,
    )


def make_model_folder(folder: Path, **more: Any) -> Path:
    """A random encoder as the export of a pre-training run would be; `more` goes to save_model_folder."""
    vocabulary = make_vocabulary(folder.parent / f"{folder.name}-vocabulary")
    torch.manual_seed(0)
    encoder = Encoder(tiny_config(vocabulary))
    initialize(encoder)
    save_model_folder(
        folder,
        config=encoder.config,
        encoder=encoder.state_dict(),
        head={},
        architecture="ElectraModel",
        vocabulary=vocabulary,
        card="",
        **more,
    )
    return folder
