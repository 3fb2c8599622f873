"""Named pre-training recipes, as functions that return a config. Each says where its numbers come from."""

from __future__ import annotations

from collections.abc import Callable

from electra.config import LoopConfig, ModelConfig, ObjectiveConfig, OptimizerConfig, PretrainConfig, RowsConfig


def electra_small() -> PretrainConfig:
    """ELECTRA-Small of the paper (Clark et al. 2020, table 6): 14 M parameters, generator a quarter as wide.

    1 M steps of 128 rows of 128 tokens, AdamW 5e-4 without bias correction.
    """
    return PretrainConfig()


def electra_base() -> PretrainConfig:
    """ELECTRA-Base of the paper (table 6): 110 M parameters, generator a third as wide, 766 k steps of 256 x 512."""
    return PretrainConfig(
        model=ModelConfig(
            hidden_size=768, num_heads=12, intermediate_size=3072, embedding_size=768, generator_width=1 / 3
        ),
        rows=RowsConfig(seq_len=512),
        optimizer=OptimizerConfig(learning_rate=2e-4),
        loop=LoopConfig(steps=766_000, batch_size=256),
    )


def electra_large() -> PretrainConfig:
    """ELECTRA-Large of the paper (table 6): 335 M parameters, 25 % masked, 400 k steps of 2,048 x 512."""
    return PretrainConfig(
        model=ModelConfig(hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096, embedding_size=1024),
        objective=ObjectiveConfig(mask_prob=0.25),
        rows=RowsConfig(seq_len=512),
        optimizer=OptimizerConfig(learning_rate=2e-4),
        loop=LoopConfig(steps=400_000, batch_size=2048),
    )


def electra_small_google() -> PretrainConfig:
    """ELECTRA-Small as google-research/electra computes it, known faults included.

    Rows by the original builder's rule (overflow thrown away), masks drawn with replacement, repeated positions
    averaged. For comparisons with the original; `electra-small` is the better choice for all else.
    """
    return PretrainConfig(rows=RowsConfig(packing="google"), objective=ObjectiveConfig(mask_with_replacement=True))


def tiny() -> PretrainConfig:
    """A model for small budgets: minutes on a CPU, some million tokens; 4 layers of 128, no dropout.

    Muon on the matrices of the layers: from the same tokens the generator learns more than with AdamW
    (benchmarks/plateau.py).
    """
    return PretrainConfig(
        model=ModelConfig(
            hidden_size=128,
            num_layers=4,
            num_heads=2,
            intermediate_size=512,
            embedding_size=128,
            generator_width=0.25,
            generator_depth=0.5,
            dropout=0.0,
            attention_dropout=0.0,
        ),
        optimizer=OptimizerConfig(
            optimizer="muon", learning_rate=7e-4, muon_learning_rate=5e-3, warmup_steps=50, bias_correction=True
        ),
        loop=LoopConfig(steps=2200, batch_size=32, log_every=50, eval_every=200, eval_rows=256, save_every=200),
    )


PRESETS: dict[str, Callable[[], PretrainConfig]] = {
    "tiny": tiny,
    "electra-small": electra_small,
    "electra-base": electra_base,
    "electra-large": electra_large,
    "electra-small-google": electra_small_google,
}
