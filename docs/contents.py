"""The table of contents of the site, kept out of the pages so that these read well in the repository, too."""

from pathlib import Path

ROOT = Path(__file__).parent.parent

CONTENTS = {
    "Tutorial": {"tutorial": "A folder of text to a served model"},
    "How to": {
        "data": "Data",
        "pretraining": "Pre-training",
        "finetuning": "Fine-tuning and prediction",
        "app": "A web page",
        "interop": "Other formats",
        "korean": "Korean",
        "historic-english": "Historic English",
        "machines": "For each machine",
        "launching": "Launching",
        "performance": "Speed",
        "troubleshooting": "Troubleshooting",
    },
    "Coming from": {
        "from-google": "Google's scripts",
        "from-nvidia": "NVIDIA's scripts",
        "from-habana": "Habana's scripts",
        "from-sagemaker": "The SageMaker scripts",
        "from-korean": "The Korean scripts",
    },
    "Understanding": {
        "replaced-token-detection": "Replaced-token detection",
        "exactness": "What differs from the original",
        "order-and-resume": "Order and resuming",
        "scaling": "Scaling",
    },
    "Reference": {
        "cli": "The command line",
        "configuration": "Configuration files",
        "presets": "Presets",
        "python": "From Python",
        "devices": "Devices and precisions",
        "google-hparams": "Google's hyper-parameters",
    },
    "Project": {"results": "Measurements", "../CHANGELOG": "Changelog", "../CONTRIBUTING": "Contributing"},
}
"""Groups of pages, and the name of each page in the navigation."""


def contents() -> str:
    """The navigation, one hidden tree a group."""
    return "\n\n".join(_tree(pages, f":caption: {group}\n") for group, pages in CONTENTS.items())


def measured() -> str:
    """The pages below the one about measurements."""
    results = sorted(path.stem for path in (ROOT / "benchmarks" / "results").glob("*.md"))
    return _tree({"../benchmarks/README": "Benchmarks"} | {f"../benchmarks/results/{name}": name for name in results})


def _tree(pages: dict[str, str], options: str = "") -> str:
    lines = "\n".join(f"{title} <{page}>" for page, title in pages.items())
    return f"```{{toctree}}\n:hidden:\n{options}\n{lines}\n```"
