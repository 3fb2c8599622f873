"""What a model card says that no file of a run knows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from electra.config.checks import require

LANGUAGE = re.compile(r"[a-z]{2,3}|multilingual|code")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class CardConfig:
    """Model card of an exported run."""

    language: tuple[str, ...] = ()
    """Languages of the text by codes of ISO 639 (en, ko, ...); by default what the store was told when it was built."""
    license: str = ""
    """Licence of the model by its identifier on the Hugging Face Hub (apache-2.0, cc-by-4.0, other)."""
    carbon: float = 0.0
    """Estimate the carbon of the run: grams of CO2 equivalent per kWh where it ran. Needs --watts."""
    watts: float = 0.0
    """Power that the run drew, of all its machines together, while it trained: measured, or from a data sheet."""

    def __post_init__(self) -> None:
        for code in self.language:
            require(
                LANGUAGE.fullmatch(code) is not None,
                f"--language {code} is no code of ISO 639: give two or three letters, such as en or ko",
            )
        require(
            not self.license or LICENSE.fullmatch(self.license) is not None,
            f"--license {self.license} is no identifier of the Hub: give one such as apache-2.0 or other",
        )
        require(
            0 <= self.carbon < float("inf") and 0 <= self.watts < float("inf"),
            "--carbon and --watts must be numbers that are not negative",
        )
        require(
            (self.carbon > 0) == (self.watts > 0),
            "--carbon (grams of CO2 per kWh) and --watts go together: energy is watts times hours, carbon follows",
        )
