"""Hyper-parameters of fine-tuning: what is not given comes from a recipe, by task and by the size of the model.

    paper      Clark et al. 2020, table 7 and appendix B: the default
    google     google-research/electra configure_finetuning.py, with what its code does differently
    koelectra  monologg/KoELECTRA finetune/config: a setting for each Korean task

The paper's and Google's code disagree about weight decay (0 and 0.01) and about the rate of the small model (3e-4 and
1e-4). Google's code sums the loss over the batch instead of averaging it, so that the gradient is clipped at nearly
every step; its Adam corrects no bias, and its layer-wise decay counts one power more than the paper says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from electra.config import FinetuneConfig
from electra.encoder import EncoderConfig

Value = TypeVar("Value")


@dataclass(frozen=True)
class Settings:
    """The numbers of a run."""

    learning_rate: float
    layer_decay: float
    layer_decay_google: bool
    warmup: float
    weight_decay: float
    bias_correction: bool
    epsilon: float
    batch_size: int
    epochs: float
    sum_loss: bool
    """The loss of a step is the sum over its examples, not the mean."""
    why_rate: str
    """Where the learning rate comes from, for people."""
    why_decay: str


@dataclass(frozen=True)
class KoreanTask:
    """One of KoELECTRA's configuration files, in what differs between them."""

    epochs: float
    learning_rate: float = 5e-5
    batch_size: int = 32
    small_batch_size: int = 32
    max_length: int = 128


KOELECTRA = {
    "nsmc": KoreanTask(10),
    "kornli": KoreanTask(15, batch_size=64, small_batch_size=64),
    "paws": KoreanTask(15, learning_rate=3e-5, small_batch_size=64),
    "korsts": KoreanTask(10),
    "question-pair": KoreanTask(10),
    "hate-speech": KoreanTask(10),
    "naver-ner": KoreanTask(20),
    "korquad": KoreanTask(7, batch_size=8, small_batch_size=32, max_length=512),
}

GOOGLE_QUESTION_LENGTH = 512
QUESTIONS = frozenset({"squad", "squadv1", "newsqa", "naturalqs", "triviaqa", "searchqa"})


def is_small(encoder: EncoderConfig) -> bool:
    return encoder.hidden_size < 512


def recipe_length(recipe: str, task: str) -> int:
    """Tokens in a row where the recipe has its own length for a task; 0: it has the task's."""
    if recipe == "koelectra" and task in KOELECTRA:
        return KOELECTRA[task].max_length
    return GOOGLE_QUESTION_LENGTH if recipe == "google" and task in QUESTIONS else 0


def resolve(config: FinetuneConfig, task: str, epochs: float, encoder: EncoderConfig) -> Settings:
    """The numbers of a run on `task`, whose epochs in the paper are `epochs`.

    ValueError for a recipe that knows nothing of the task.
    """
    size = f"for width {encoder.hidden_size}"
    if config.recipe == "koelectra":
        if task not in KOELECTRA:
            raise ValueError(f"--recipe koelectra is for {', '.join(KOELECTRA)}, not for {task}: leave it out")
        korean = KOELECTRA[task]
        batch_size = korean.small_batch_size if is_small(encoder) else korean.batch_size
        rate, decay, epochs = korean.learning_rate, 1.0, korean.epochs
        warmup, weight_decay, epsilon = 0.0, 0.0, 1e-8
        why_rate = why_decay = "KoELECTRA's"
    else:
        rate = _learning_rate(encoder, google=config.recipe == "google")
        decay = 0.9 if encoder.num_layers >= 24 else 0.8
        batch_size, warmup, epsilon = 32, 0.1, 1e-6
        weight_decay = 0.01 if config.recipe == "google" else 0.0
        why_rate, why_decay = size, f"for {encoder.num_layers} layers"
    google = config.recipe == "google"

    return Settings(
        learning_rate=config.learning_rate or rate,
        layer_decay=config.layer_decay or decay,
        layer_decay_google=_given(config.layer_decay_google, google),
        warmup=_given(config.warmup, warmup),
        weight_decay=_given(config.weight_decay, weight_decay),
        bias_correction=_given(config.bias_correction, not google),
        epsilon=epsilon,
        batch_size=config.batch_size or batch_size,
        epochs=config.epochs or epochs,
        sum_loss=google,
        why_rate="asked for" if config.learning_rate else why_rate,
        why_decay="asked for" if config.layer_decay else why_decay,
    )


def _given(value: Value | None, recipe: Value) -> Value:
    return recipe if value is None else value


def _learning_rate(encoder: EncoderConfig, google: bool) -> float:
    """By width: the paper's 3e-4 small (256), 1e-4 base (768), 5e-5 large (1024); Google's code has no small."""
    if is_small(encoder):
        return 1e-4 if google else 3e-4
    return 1e-4 if encoder.hidden_size < 1024 else 5e-5
