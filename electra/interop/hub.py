"""Where a model lies: a folder, the export of a run, the output of a fine-tuning run, or the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path


def find_model_folder(name: str) -> Path:
    """The folder of a model, of a run's exported discriminator or masked LM, or the local copy of a hub model."""
    if Path(name).exists() or name.count("/") > 1 or name.startswith((".", "~", "/")):
        return find_local_model(Path(name))
    return _download(name)


def find_local_model(folder: Path) -> Path:
    """The same, of what is on this machine. ValueError for what is none."""
    networks = (place / network for place in (folder, folder / "export") for network in ("discriminator", "masked_lm"))
    for candidate in (folder, *networks, folder / "model"):
        if (candidate / "config.json").is_file():
            return candidate
    if folder.exists():
        raise ValueError(f"{folder} is no model folder: it has no config.json (export the run first?)")
    raise ValueError(f"{folder} does not exist")


def _download(name: str) -> Path:
    """The local copy of a hub model; safetensors alone where the hub has them."""
    from huggingface_hub import snapshot_download  # slow to import, and only for hub ids
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "vocab.txt"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "pytorch_model*.bin", "vocab.txt"]))
        return folder
    except LocalEntryNotFoundError:
        raise ValueError(
            f"{name} is no folder here, and the Hugging Face hub cannot be reached from this machine: download it "
            f"elsewhere (hf download {name} --local-dir FOLDER) and name that folder"
        ) from None
    except Exception as error:  # authentication, unknown id: the hub has its own dozen types
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{name} is neither a folder here nor a model that the hub gives: {reason}") from None
