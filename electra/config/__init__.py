"""Every stage's settings as frozen dataclasses; toml.py writes them to files and reads them back.

    corpus.py   pretraining.py   finetuning.py   conversion.py       one file a stage

One dataclass a concern, merged into one a stage. The docstring under a field is its `--help` text.
Values are checked where a config is made (`__post_init__`), each failure one sentence that names the
field. Sizes that follow from data (vocabulary, special ids) are not here: they come from the store.
"""

from electra.config.card import CardConfig
from electra.config.cleaning import CleaningConfig
from electra.config.conversion import ConvertConfig
from electra.config.corpus import BuildConfig, VocabConfig
from electra.config.finetuning import FinetuneConfig, PredictConfig, QuestionConfig, TaskConfig
from electra.config.pretraining import (
    LoopConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    PretrainConfig,
    RowsConfig,
)

__all__ = [
    "BuildConfig",
    "CardConfig",
    "CleaningConfig",
    "ConvertConfig",
    "FinetuneConfig",
    "LoopConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PhaseConfig",
    "PredictConfig",
    "PretrainConfig",
    "QuestionConfig",
    "RowsConfig",
    "TaskConfig",
    "VocabConfig",
]
