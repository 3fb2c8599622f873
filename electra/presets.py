"""Named pre-training recipes, as functions that return a config. Each says where its numbers come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from electra.config import (
    LoopConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    PretrainConfig,
    RowsConfig,
)


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
    return _change(electra_small(), **GOOGLE_RULES)


def tiny() -> PretrainConfig:
    """A model for small budgets: minutes on a CPU, some million tokens; 4 layers of 128, no dropout.

    Sinusoidal positions: from the same tokens a model learns more than with Google's draw (benchmarks/plateau.py); and
    Muon on the matrices of the layers.
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
            position_init="sinusoidal",
        ),
        optimizer=OptimizerConfig(
            optimizer="muon", learning_rate=7e-4, muon_learning_rate=5e-3, warmup_steps=50, bias_correction=True
        ),
        loop=LoopConfig(steps=2200, batch_size=32, log_every=50, eval_every=200, eval_rows=256, save_every=200),
    )


def electra_small_released() -> PretrainConfig:
    """The released ELECTRA-Small, "Small++": a generator as wide as the discriminator, 4 M steps of 128 x 512.

    Generator: google-research/electra README and issue 39; steps: its README on continuing from the release, issue 44;
    length: appendix D of the paper, as richarddwang/electra_pytorch issue 26 quotes it. The text was XLNet's.
    """
    return _change(electra_small(), model={"generator_width": 1.0}, rows={"seq_len": 512}, loop={"steps": 4_000_000})


def electra_base_released() -> PretrainConfig:
    """The released ELECTRA-Base, "Base++": the paper's recipe on XLNet's text, and for longer.

    For how long was not published with its hyper-parameters; the 4 M steps are those of the released small model.
    """
    return _change(electra_base(), loop={"steps": 4_000_000})


def electra_large_released() -> PretrainConfig:
    """The released ELECTRA-Large, ELECTRA-1.75M of the paper (table 2): the recipe of Large for 1.75 M steps."""
    return _change(electra_large(), loop={"steps": 1_750_000})


def electra_base_google() -> PretrainConfig:
    """ELECTRA-Base as google-research/electra computes it (the block in configure_pretraining.py, uncommented).

    Faults as in `electra-small-google`; the generator is .33333 of the discriminator. Steps: the code's million.
    """
    return _change(electra_base(), model={"generator_width": 0.33333}, loop={"steps": 1_000_000}, **GOOGLE_RULES)


def electra_large_google() -> PretrainConfig:
    """ELECTRA-Large as google-research/electra computes it. Its count of predictions a row, taken before the sizes were
    set (79 at 512 tokens and 25 %), is not repeated: it is 130 here."""
    return _change(electra_large(), loop={"steps": 1_000_000}, **GOOGLE_RULES)


# ---------------------------------------------------------------------- LAMB in two phases: NVIDIA and its heirs


def nvidia_base() -> PretrainConfig:
    """ELECTRA-Base by NVIDIA's two-phase plan (DeepLearningExamples, TensorFlow2/LanguageModeling/ELECTRA).

    scripts/configs/pretrain_config.sh: 10,000 steps of 67,584 x 128 at 6e-3, then 933 of 27,648 x 512 at 4e-3, LAMB;
    run_pretraining.py and run.sub: betas .878/.974, decay with power .5 after the warm-up, trust ratios not on biases
    and LayerNorms. Phase 2 sets the step and Adam's count to zero and keeps the moments.
    """
    return _two_phases(electra_base())


def korean_small() -> PretrainConfig:
    """`small` of ifuseok/electra-tf2-gpu (Korean, 4 GPUs): Google's released small with NVIDIA's plan.

    nvidia-electra/scripts/configs/pretrain_config.sh, rtx60_4gpu_amp_small: global batches of 135,168 and 55,296. Its
    vocabulary has 32,200 entries, cased; here that comes from the store.
    """
    return _two_phases(_change(electra_small(), model={"generator_width": 1.0}), batches=(135_168, 55_296))


def korean_small_plus() -> PretrainConfig:
    """`small++` of ifuseok/electra-tf2-gpu: 512 wide, embeddings of 256, generator one half; not the paper's Small++.

    rtx60_4gpu_amp_small_plus: global batches of 67,584 and 27,648. Vocabulary 32,200, cased, from the store.
    """
    shape = {"hidden_size": 512, "num_heads": 8, "intermediate_size": 2048, "embedding_size": 256}
    return _two_phases(_change(electra_small(), model=shape | {"generator_width": 0.5}))


def korean_base() -> PretrainConfig:
    """`base` of ifuseok/electra-tf2-gpu: NVIDIA's base and plan (dgx1_4gpu_amp), vocabulary 32,200, cased."""
    return _two_phases(electra_base())


def korean_large() -> PretrainConfig:
    """`large` of ifuseok/electra-tf2-gpu: NVIDIA's large, for which neither has a plan of its own: that of base."""
    return _two_phases(_change(electra_large(), objective={"mask_prob": 0.15}))


def gaudi_base() -> PretrainConfig:
    """ELECTRA-Base as Habana's electra.sh starts it: NVIDIA's plan with the numbers of a smoke test.

    20 steps with 5 of warm-up in each phase, batches of 2 x 4 rows at 6e-3 and 4e-3, seed 100, fp32. For a real model
    take `nvidia-base`, of which Habana's code is a copy.
    """
    plan = _two_phases(electra_base(), steps=(20, 20), warmup=(5, 5), batches=(8, 8))
    return _change(plan, loop={"seed": 100, "save_every": 20, "precision": "fp32"})


# --------------------------------------------------------------------------------------- plans of one phase


def sagemaker_small() -> PretrainConfig:
    """ELECTRA-Small as trained on SageMaker (deep-learning-models, models/nlp/electra): 125,000 steps of 1,024 x 512.

    Its README: 2e-3 down to 4e-4 after 10,000 steps of warm-up, 64 V100s, 11 h 40 min, SQuAD 2.0 68.27 / 71.56. AdamW
    with Keras's bias correction, no dropout, no clipping. The generator is that of the Hugging Face hub, as wide as the
    discriminator. Positions are masked by our rule: theirs also masks [CLS] and [SEP].
    """
    return _change(
        electra_small(),
        model={"generator_width": 1.0, "dropout": 0.0, "attention_dropout": 0.0},
        rows={"seq_len": 512},
        optimizer={
            "learning_rate": 2e-3,
            "end_learning_rate": 4e-4,
            "schedule": "polynomial",
            "bias_correction": True,
            "clip_norm": 0.0,
        },
        loop={"steps": 125_000, "batch_size": 1024, "seed": 42, "save_every": 5000, "eval_every": 5000},
    )


def historic_english_base() -> PretrainConfig:
    """ELECTRA-Base of stefan-it's blbooks-lms (historic English, pretraining_electra.md): 1 M steps of 256 x 512.

    Cased vocabulary of 32,000, from the store; a checkpoint every 50,000 steps, all kept. 2.7 days on a TPU v3-32.
    """
    return _change(
        electra_base(),
        model={"generator_width": 0.33333},
        loop={"steps": 1_000_000, "save_every": 50_000, "keep": 0},
    )


def koelectra_small() -> PretrainConfig:
    """KoELECTRA-Small (monologg/KoELECTRA): generator as wide as the discriminator, 512 rows of 512, 5e-4.

    pretrain/config/small_config.json has 375,000 steps; its README says 300,000, and 800,000 for v3.
    """
    return _change(
        electra_small(),
        model={"generator_width": 1.0},
        rows={"seq_len": 512},
        loop={"steps": 375_000, "batch_size": 512, "save_every": 18_750},
    )


def koelectra_base() -> PretrainConfig:
    """KoELECTRA-Base (monologg/KoELECTRA, pretrain/config/base_config.json): 700,000 steps of 256 x 512; v3 1.5 M."""
    return _change(electra_base(), model={"generator_width": 0.33333}, loop={"steps": 700_000, "save_every": 25_000})


def _two_phases(
    base: PretrainConfig,
    *,
    steps: tuple[int, int] = (10_000, 933),
    warmup: tuple[int, int] = (2000, 200),
    batches: tuple[int, int] = (67_584, 27_648),
) -> PretrainConfig:
    """NVIDIA's plan for a network, see `nvidia_base`."""
    return _change(
        dataclasses.replace(
            base,
            phases=(),
            optimizer=OptimizerConfig(
                optimizer="lamb",
                learning_rate=6e-3,
                schedule="polynomial",
                decay_power=0.5,
                warmup_steps=warmup[0],
                beta1=0.878,
                beta2=0.974,
                bias_correction=True,
                skip_adaptive=True,
            ),
        ),
        rows={"seq_len": 128},
        loop={"steps": sum(steps), "batch_size": batches[0], "save_every": 500, "eval_every": 500, "seed": 42},
        phases=(
            PhaseConfig(steps=steps[0]),
            PhaseConfig(steps=steps[1], seq_len=512, batch_size=batches[1], learning_rate=4e-3, warmup_steps=warmup[1]),
        ),
    )


def _change(config: PretrainConfig, **sections: Any) -> PretrainConfig:
    """A config with some fields of its sections replaced."""
    changed = {
        name: dataclasses.replace(getattr(config, name), **values) if isinstance(values, dict) else values
        for name, values in sections.items()
    }
    return dataclasses.replace(config, **changed)


GOOGLE_RULES = {"rows": {"packing": "google"}, "objective": {"mask_with_replacement": True}}
"""The rows and masks of google-research/electra, known faults included."""

PRESETS: dict[str, Callable[[], PretrainConfig]] = {
    "tiny": tiny,
    "electra-small": electra_small,
    "electra-base": electra_base,
    "electra-large": electra_large,
    "electra-small-released": electra_small_released,
    "electra-base-released": electra_base_released,
    "electra-large-released": electra_large_released,
    "electra-small-google": electra_small_google,
    "electra-base-google": electra_base_google,
    "electra-large-google": electra_large_google,
    "nvidia-base": nvidia_base,
    "korean-small": korean_small,
    "korean-small++": korean_small_plus,
    "korean-base": korean_base,
    "korean-large": korean_large,
    "gaudi-base": gaudi_base,
    "sagemaker-small": sagemaker_small,
    "historic-english-base": historic_english_base,
    "koelectra-small": koelectra_small,
    "koelectra-base": koelectra_base,
}
