"""`electra app MODEL... --space FOLDER`: the same page as a folder that is a Hugging Face Space.

    README.md (front matter), app.py, requirements.txt, .gitattributes     what the Hub reads
    electra/                                                               this toolkit, as it is here
    models/NAME/...                                                        the models: exported networks or folders

Nothing in it is to be looked up elsewhere but the libraries of requirements.txt. `hf upload` sends it.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from pathlib import Path

import electra
from electra.app.models import Tab, find_networks, open_tabs
from electra.app.serve import check_installed
from electra.config.serving import AppConfig
from electra.export import export_run
from electra.files import atomic_folder
from electra.interop.hub import find_model_folder

DISTRIBUTION = "electra-toolkit"
PATTERNS = ("*.json", "*.txt", "*.md", "*.safetensors", "pytorch_model*.bin")
"""Files of a model folder that its tab reads, and its card."""
LARGE = ("*.safetensors", "*.bin")
WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu"
"""Where pip finds torch without CUDA, which a Space without a GPU has no use for."""
TITLE_LENGTH = 60

APP = '''"""The page of these models: electra app, as a Space."""

from pathlib import Path

from electra.app.serve import serve_space

HERE = Path(__file__).parent
MODELS = {models}

if __name__ == "__main__":
    serve_space([str(HERE / "models" / name) for name in MODELS])
'''


def write_space(config: AppConfig) -> None:
    """Write the folder. ValueError if it exists, or a model is none; each has been opened once."""
    assert config.space is not None
    check_installed()
    tabs = open_tabs(config.models, config.device)
    names = [tab.id for tab in tabs]
    if len(set(names)) < len(names):
        raise ValueError(f"two models would have the same folder among {', '.join(names)}: rename one")
    with atomic_folder(config.space, config.overwrite) as folder:
        for model, name in zip(config.models, names, strict=True):
            _copy_model(model, folder / "models" / name)
        (folder / "app.py").write_text(APP.format(models=names), encoding="utf-8")
        (folder / "requirements.txt").write_text(_requirements(), encoding="utf-8")
        (folder / ".gitattributes").write_text(
            "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE), encoding="utf-8"
        )
        (folder / "README.md").write_text(_readme(tabs), encoding="utf-8")
        source = Path(electra.__file__).parent
        shutil.copytree(source, folder / "electra", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    size = sum(path.stat().st_size for path in config.space.rglob("*") if path.is_file())
    print(f"wrote     {config.space} ({size / 1e6:,.1f} MB)")
    print(f"try it    cd {config.space} && python app.py")
    print(f"send it   hf upload YOU/NAME {config.space} --repo-type space")


def _copy_model(model: str, out: Path) -> None:
    """The files that the tab of a model reads, of a run without an export its newest checkpoint's."""
    if found := find_networks(Path(model)):
        folders = {out / name: place for name, place in found.items()}
    elif (Path(model) / "checkpoints").is_dir() and not (Path(model) / "model").is_dir():
        export_run(Path(model), out)
        return
    else:
        folders = {out: find_model_folder(model)}
    for target, place in folders.items():
        target.mkdir(parents=True)
        for path in sorted({path for pattern in PATTERNS for path in place.glob(pattern)}):
            shutil.copyfile(path, target / path.name)


def _readme(tabs: list[Tab]) -> str:
    """Front matter for the Hub, and a sentence."""
    import gradio
    from huggingface_hub import SpaceCardData

    names = ", ".join(tab.name for tab in tabs)
    data = SpaceCardData(
        title=f"ELECTRA: {names}"[:TITLE_LENGTH],
        sdk="gradio",
        sdk_version=gradio.__version__,
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        emoji="🔎",
        colorFrom="blue",
        colorTo="green",
        pinned=False,
    )
    text = f"# {names}\n\nA page to try out these models, made by `electra app` (electra {electra.__version__}).\n"
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def _requirements() -> str:
    """What the toolkit itself needs; Gradio comes with the Space's sdk_version."""
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"what the Space must install is not known: pip install {DISTRIBUTION} here first") from None
    lines = [line for line in required if "extra ==" not in line.replace("'", '"')]
    return "\n".join([WHEELS, *lines]) + "\n"
