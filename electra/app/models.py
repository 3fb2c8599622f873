"""MODEL of the command line -> what a tab shows: a detector of replaced tokens or the panel of a fine-tuned model.

    run folder with an export, or the export    its generator and discriminator
    run folder without one                      those of the newest checkpoint
    a discriminator alone                       judges, but replaces nothing
    fine-tuned folder, or a Hugging Face one    the panel of its head's kind

All are opened when the page starts, so that a wrong name is told at once.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from electra.app.detection import Detector
from electra.app.tasks import TaskPanel, task_panel
from electra.config import PredictConfig, PretrainConfig
from electra.export import read_run
from electra.files import read_json
from electra.interop.hf import build_model, load_pretrained
from electra.interop.hub import find_model_folder
from electra.interop.network import Network
from electra.predict import load_predictor
from electra.runtime import start
from electra.tokenizer import Vocabulary
from electra.toml import read_toml

NETWORKS = ("discriminator", "generator")
_COMMON_NAMES = ("model", "export", "discriminator")


@dataclass(frozen=True)
class Tab:
    """A model and its place on the page."""

    name: str
    """Its title, and what links call it."""
    model: Detector | TaskPanel
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while it answers: one text at a time, whoever asks."""

    @property
    def id(self) -> str:
        """What the names of its components in the page begin with."""
        return re.sub(r"[^\w-]", "-", self.name)


def open_tabs(models: Sequence[str], device: str) -> list[Tab]:
    """A tab for each model. ValueError in a sentence for what is none, or none that a page can show."""
    names: list[str] = []
    for model in models:
        path = Path(model).resolve() if Path(model).exists() else Path(model)
        parts = [part for part in path.parts[::-1] if part not in _COMMON_NAMES]
        base = name = parts[0] if parts else model
        number = 1
        while name in names:
            number += 1
            name = f"{base} {number}"
        names.append(name)
    return [Tab(name, _open(model, device)) for name, model in zip(names, models, strict=True)]


def find_networks(folder: Path) -> dict[str, Path]:
    """The exported networks of a run folder or of its export, by name; empty if it is another folder."""
    for place in (folder, folder / "export"):
        if (place / NETWORKS[0] / "config.json").is_file():
            return {name: place / name for name in NETWORKS if (place / name / "config.json").is_file()}
    return {}


def _open(model: str, device: str) -> Detector | TaskPanel:
    folder = Path(model)
    if exported := find_networks(folder):
        _refuse_electric(folder)
        found = [load_pretrained(str(path)) for path in exported.values()]
        return _detector(found[0].vocabulary, [each.network for each in found], device)
    if (folder / "checkpoints").is_dir() and not (folder / "model").is_dir():
        _refuse_electric(folder)
        run = read_run(folder)
        if NETWORKS[0] not in run.networks:
            raise ValueError(f"{folder} is a masked LM alone, which detects nothing: fine-tune it for a task")
        return _detector(run.vocabulary, [run.networks[name] for name in NETWORKS if name in run.networks], device)
    place = find_model_folder(model)
    config = read_json(place / "config.json")
    architecture = (config.get("architectures") or [""])[0]
    if architecture == "ElectraForPreTraining":
        alone = load_pretrained(str(place))
        return _detector(alone.vocabulary, [alone.network], device)
    if architecture == "ElectraForMaskedLM":
        raise ValueError(f"{place} is a generator or masked LM alone: give the folder of the run, or its export")
    predictor = load_predictor(PredictConfig(model=str(place), device=device))
    return task_panel(predictor, config.get("electra_task", ""))


def _detector(vocabulary: Vocabulary, networks: Sequence[Network], device: str) -> Detector:
    """The discriminator and, behind it, perhaps the generator."""
    chosen = start(device, "fp32").device
    models = [build_model(network).to(chosen) for network in networks]
    return Detector(vocabulary, models[0], models[1] if len(models) > 1 else None, chosen)


def _refuse_electric(folder: Path) -> None:
    """ValueError for a run of Electric, whose discriminator gives energies and no probabilities of replacement."""
    for run in (folder, folder.resolve().parent):
        if (run / "config.toml").is_file() and (run / "checkpoints").is_dir():
            if read_toml(PretrainConfig, run / "config.toml").objective.objective == "electric":
                raise ValueError(f"{run} is a run of Electric, whose scores are energies: the page shows ELECTRA's")
            return
