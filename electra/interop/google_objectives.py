"""Which objective and generator the hyper-parameters of google-research/electra mean.

Google's flags are independent of each other and its code is a chain of branches (run_pretraining.PretrainingModel), so
some flags switch others off, and some pairs end in an exception there. Here each combination is one objective with one
generator, or refused. google_config.py calls this for `--google-hparams`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

UNTRAINABLE = "it cannot be trained in Google's code either"


def choose_objective(values: Mapping[str, Any], sections: dict[str, dict[str, Any]], source: str) -> None:
    """Set objective and generator in `sections`, the fields of our configuration, as the branches choose them.

    `values` are the fields of Google's that have one. What a branch does not read is taken out, as it has no effect
    there and is an error here. Raises ValueError, beginning with `source`, for a combination that is refused.
    """
    objective = sections["objective"]
    uniform, untied = values["uniform_generator"], values["untied_generator"]
    if values["electric_objective"] or values.get("two_tower_generator"):
        _check_two_towers(values, source)
        objective |= {"generator": "two-tower", "objective": "electric" if values["electric_objective"] else "electra"}
        return
    if uniform and not (values["electra_objective"] and untied):
        other = "untied_generator" if values["electra_objective"] else "electra_objective"
        raise ValueError(
            f"{source}: uniform_generator true with {other} false is refused, since {UNTRAINABLE}: choose one of them"
        )
    if not values["electra_objective"]:
        objective["objective"] = "masked-lm"
        del objective["temperature"], objective["disallow_correct"]
    elif uniform:
        objective["generator"] = "uniform"
        del objective["temperature"]
    elif not untied:
        objective["generator"] = "same-network"
        sections["model"] |= {"generator_width": 1.0, "generator_depth": 1.0}
    elif values["untied_generator_embeddings"]:
        objective["generator"] = "own-embeddings"


def _check_two_towers(values: Mapping[str, Any], source: str) -> None:
    """ValueError for what Google's code cannot train with the two-tower generator, or trains otherwise than we do."""
    electric = values["electric_objective"]
    needed: dict[str, tuple[Any, str]] = {
        "uniform_generator": (False, UNTRAINABLE),
        "untied_generator": (True, UNTRAINABLE),
        "two_tower_generator": (True, UNTRAINABLE),
        "untied_generator_embeddings": (False, "the two towers share the discriminator's embeddings here"),
    }
    if electric:
        reason = "Google's loss leaves it out of the noise's probabilities and --temperature does not"
        needed["temperature"] = (1, reason)
    else:
        needed["electra_objective"] = (True, UNTRAINABLE)
    for name, (value, why) in needed.items():
        if values.get(name, value) != value:
            raise ValueError(
                f"{source}: {'electric_objective' if electric else 'two_tower_generator'} true with {name} "
                f"{json.dumps(values[name])} is refused, since {why}: leave one of them out"
            )
