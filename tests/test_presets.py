"""Every preset against the numbers of its source, typed here from the papers, scripts and READMEs."""

import pytest

from electra.phases import plan
from electra.presets import PRESETS
from electra.rtd import generator_config

SMALL, BASE, LARGE = (12, 256, 1024, 4, 128), (12, 768, 3072, 12, 768), (24, 1024, 4096, 16, 1024)
NVIDIA = [(10_000, 67_584, 128, 6e-3, 2000), (933, 27_648, 512, 4e-3, 200)]
# preset: (layers, hidden, FFN, heads, embedding), generator's hidden and heads, mask %,
#         [(steps, global batch, length, learning rate, warm-up), one a phase]
TABLE = {
    # Clark et al. 2020, table 6
    "electra-small": (SMALL, (64, 1), 0.15, [(1_000_000, 128, 128, 5e-4, 10_000)]),
    "electra-base": (BASE, (256, 4), 0.15, [(766_000, 256, 512, 2e-4, 10_000)]),
    "electra-large": (LARGE, (256, 4), 0.25, [(400_000, 2048, 512, 2e-4, 10_000)]),
    # google-research/electra: README, issues 39 and 44; base: see the preset
    "electra-small-released": (SMALL, (256, 4), 0.15, [(4_000_000, 128, 512, 5e-4, 10_000)]),
    "electra-base-released": (BASE, (256, 4), 0.15, [(4_000_000, 256, 512, 2e-4, 10_000)]),
    "electra-large-released": (LARGE, (256, 4), 0.25, [(1_750_000, 2048, 512, 2e-4, 10_000)]),
    # google-research/electra configure_pretraining.py
    "electra-small-google": (SMALL, (64, 1), 0.15, [(1_000_000, 128, 128, 5e-4, 10_000)]),
    "electra-base-google": (BASE, (256, 4), 0.15, [(1_000_000, 256, 512, 2e-4, 10_000)]),
    "electra-large-google": (LARGE, (256, 4), 0.25, [(1_000_000, 2048, 512, 2e-4, 10_000)]),
    # NVIDIA scripts/configs/pretrain_config.sh: 8 GPUs x 176 x 48, then 8 x 24 x 144
    "nvidia-base": (BASE, (256, 4), 0.15, NVIDIA),
    # ifuseok/electra-tf2-gpu: 4 GPUs x 132 x 256 and x 18 x 768; x 88 x 192 and x 12 x 576
    "korean-small": (SMALL, (256, 4), 0.15, [(10_000, 135_168, 128, 6e-3, 2000), (933, 55_296, 512, 4e-3, 200)]),
    "korean-small++": ((12, 512, 2048, 8, 256), (256, 4), 0.15, NVIDIA),
    "korean-base": (BASE, (256, 4), 0.15, NVIDIA),
    "korean-large": (LARGE, (256, 4), 0.15, NVIDIA),
    # Habana electra.sh
    "gaudi-base": (BASE, (256, 4), 0.15, [(20, 8, 128, 6e-3, 5), (20, 8, 512, 4e-3, 5)]),
    # deep-learning-models models/nlp/electra README
    "sagemaker-small": (SMALL, (256, 4), 0.15, [(125_000, 1024, 512, 2e-3, 10_000)]),
    # blbooks-lms pretraining_electra.md
    "historic-english-base": (BASE, (256, 4), 0.15, [(1_000_000, 256, 512, 2e-4, 10_000)]),
    # KoELECTRA pretrain/config
    "koelectra-small": (SMALL, (256, 4), 0.15, [(375_000, 512, 512, 5e-4, 10_000)]),
    "koelectra-base": (BASE, (256, 4), 0.15, [(700_000, 256, 512, 2e-4, 10_000)]),
}


def test_every_preset_has_a_row():
    assert set(PRESETS) - {"tiny"} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_numbers_are_those_of_the_source(name):
    shape, generator, mask_prob, phases = TABLE[name]
    config = PRESETS[name]()
    model = config.model
    found = (model.num_layers, model.hidden_size, model.intermediate_size, model.num_heads, model.embedding_size)
    assert found == shape
    small = generator_config(model, 30522)
    assert (small.hidden_size, small.num_heads, small.num_layers) == (*generator, model.num_layers)
    assert small.intermediate_size == 4 * small.hidden_size and small.embedding_size == model.embedding_size
    assert config.objective.mask_prob == mask_prob
    rows = [
        (
            phase.steps,
            phase.config.loop.batch_size,
            phase.config.rows.seq_len,
            phase.config.optimizer.learning_rate,
            phase.config.optimizer.warmup_steps,
        )
        for phase in plan(config)
    ]
    assert rows == phases
    assert config.optimizer.weight_decay == 0.01 and config.optimizer.epsilon == 1e-6


def test_optimizers_are_those_of_the_source():
    optimizers = {name: PRESETS[name]().optimizer for name in TABLE}
    for name, optimizer in optimizers.items():
        betas = (optimizer.beta1, optimizer.beta2)
        if name.startswith(("nvidia", "korean", "gaudi")):  # tensorflow_addons' LAMB as NVIDIA calls it
            assert optimizer.optimizer == "lamb" and betas == (0.878, 0.974)
            assert optimizer.schedule == "polynomial" and optimizer.decay_power == 0.5
            assert optimizer.bias_correction and optimizer.skip_adaptive and optimizer.end_learning_rate == 0
        else:
            assert optimizer.optimizer == "adamw" and betas == (0.9, 0.999) and optimizer.decay_power == 1
    sagemaker = optimizers["sagemaker-small"]
    assert (sagemaker.learning_rate, sagemaker.end_learning_rate, sagemaker.schedule) == (2e-3, 4e-4, "polynomial")
    assert sagemaker.bias_correction and not optimizers["electra-small"].bias_correction
    (phase,) = plan(PRESETS["sagemaker-small"]())
    assert phase.learning_rate(10_000) == 2e-3 and phase.learning_rate(125_000) == pytest.approx(4e-4)


def test_nvidia_restarts_what_its_phase_2_does():
    """run_pretraining.py --phase2: optimizer.iterations and the step to 0, moments restored (reference, trap 38)."""
    first, second = plan(PRESETS["nvidia-base"]())
    assert second.restarts_count and not second.restarts_moments
    assert second.learning_rate(10_000) == 0 and second.learning_rate(10_200) == 4e-3
    assert second.learning_rate(10_000 + 933) == 0
    rows = [phase.steps * phase.config.loop.batch_size for phase in (first, second)]
    assert rows[0] / sum(rows) == pytest.approx(0.96, abs=0.005)  # its README: 96 % of the sequences at 128


def test_every_preset_says_where_it_comes_from():
    assert all(preset.__doc__ for preset in PRESETS.values())
