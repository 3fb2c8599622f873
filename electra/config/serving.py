"""Settings of `electra app`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from electra.config.checks import require


@dataclass(frozen=True)
class AppConfig:
    """A web page for trying out models: replaced tokens of a pre-trained one, answers of fine-tuned ones."""

    models: Positional[tuple[str, ...]]
    """Run folders, exports, fine-tuned folders, or ids of ELECTRA models on the Hugging Face hub; each gets a tab."""
    host: str = "127.0.0.1"
    """Address to serve at; 0.0.0.0: everybody who reaches this machine can use the page."""
    port: int = 7860
    """Port to serve at."""
    device: str = "auto"
    """cuda, hpu, tpu, mps, cpu, or auto: the first of them that is there."""
    space: Path | None = None
    """Folder to write in place of serving: a Hugging Face Space with these models."""
    overwrite: bool = False
    """Replace --space if it exists."""

    def __post_init__(self) -> None:
        require(len(self.models) > 0, "app needs a model: a run folder, an export or a fine-tuned folder")
        require(0 < self.port < 65_536, f"--port {self.port} is no port: choose one from 1 to 65535")
