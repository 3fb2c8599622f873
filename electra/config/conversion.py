"""Settings of `electra convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class ConvertConfig:
    """Weights of other systems -> Hugging Face folders, tf_model.h5, or a run folder that goes on training."""

    checkpoint: Positional[str]
    """Checkpoint of Google (TensorFlow 1), NVIDIA, Habana or AWS (prefix, file or folder), a tf_model.h5, a Hugging
    Face folder (also one with discriminator/ and generator/ in it), or a hub id."""
    out: Path
    """Folder to write."""
    format: Literal["hf", "tf-h5", "run"] = "hf"
    """hf: Hugging Face (safetensors); tf-h5: its TensorFlow classes; run: a run folder for electra pretrain."""
    vocab: Path | None = None
    """The vocabulary of the model, where it does not lie beside the weights: a folder, tokenizer.json or vocab.txt."""
    generator: str | None = None
    """The generator (any of these forms), where the checkpoint is a discriminator alone."""
    data: Path | None = None
    """run: the token store to go on with."""
    hparams: str | None = None
    """Google's hparams, a JSON file or text: checked against the weights; for a run also its recipe."""
    overwrite: bool = False
    """Replace --out if it exists."""
