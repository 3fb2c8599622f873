"""`electra push`: a model folder to the Hugging Face Hub as one commit.

    folder -> `find_local_model` -> files and card checked here -> the Hub, whose validator reads the card again -> URL

The token is huggingface_hub's own (HF_TOKEN, or `hf auth login`) and HF_ENDPOINT names another server than the Hub.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from electra.front_matter import check_card
from electra.interop.hub import find_local_model

WEIGHTS = ("*.safetensors", "*.h5", "*.onnx", "pytorch_model*.bin")
PATTERNS = ("*.json", "*.txt", "*.md", *WEIGHTS)


def push(model: Path, repo: str, private: bool = False, dry_run: bool = False) -> None:
    """Send the model in a folder, its own or its run's, to the repository `repo` ("me/electra-ko"), made if need be.

    Raises ValueError, before anything is sent, for a folder that is no model, a card that is not valid, a name that is
    none of a repository; and for what the Hub refuses.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    folder = find_local_model(model)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is no name of a repository, such as me/electra-ko: {_first_line(error)}") from None
    files = sorted({path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()})
    if not any(path.match(pattern) for path in files for pattern in WEIGHTS):
        raise ValueError(f"{folder} holds no weights ({', '.join(WEIGHTS)}): export the model first")
    for path in files:
        print(f"{path.name:24} {path.stat().st_size / 1e6:10,.2f} MB")
    card = folder / "README.md"
    faults = check_card(card.read_text(encoding="utf-8")) if card.is_file() else ["there is none"]
    print(f"card        {'; '.join(faults) if faults else 'valid'}")
    if faults:
        raise ValueError(f"the model card {card} is not valid: {faults[0]}; mend or write it")
    if dry_run:
        print(f"dry run     nothing was sent; {len(files)} files would go to {repo}")
        return
    print(f"sent        {_send(files, repo, private)}")


def _send(files: list[Path], repo: str, private: bool) -> str:
    """Create the repository and commit the files; returns where they are."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise ValueError("no token for the Hugging Face Hub is known: run hf auth login, or set HF_TOKEN")
    api = HfApi(library_name="electra-toolkit")
    operations = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files]
    try:
        with warnings.catch_warnings(record=True) as said:  # what the Hub's validator merely remarks
            url = api.create_repo(repo, private=private, exist_ok=True)
            api.create_commit(url.repo_id, operations, commit_message="Upload model with electra-toolkit")
    except Exception as error:  # no network, no right, no space: the hub has its own dozen types, and httpx others
        raise ValueError(f"{api.endpoint} did not take the model as {repo}: {_first_line(error)}") from None
    for remark in said:
        print(f"remark      {' '.join(str(remark.message).split())}")
    return str(url)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
