"""How `electra build` cleans text: a part of its settings, all of it off by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from electra.config.checks import require


@dataclass(frozen=True)
class CleaningConfig:
    """What is mended in lines and which documents are left out; what was done stands in the store's cleaning.json."""

    normalize: Literal["none", "NFC", "NFKC"] = "none"
    """Unicode normalisation: NFC joins letters and accents, and Korean letters to syllables; NFKC also
    replaces full-width letters, ligatures, circled numbers and the like by plain ones."""
    strip_control: bool = False
    """Remove control characters and invisible ones (zero-width spaces, soft hyphens, marks of direction), but not
    joiners in the scripts that spell with them; form feeds and the like become spaces."""
    min_characters: int = 0
    """Leave out documents with fewer characters, white space not counted."""
    min_words: int = 0
    """Leave out documents with fewer words between spaces (Chinese and Japanese have none: --min-characters)."""
    max_symbols: float = 1.0
    """Leave out documents with a larger share of characters that are no letters, digits or accents, of all but white
    space; tables and source code have several times as many as prose."""
    languages: tuple[str, ...] = ()
    """Leave out documents in other languages than these (en, ko, ... as py3langid names them)."""
    language_confidence: float = 0.5
    """How probable it must be that a document is in one of --languages; for tables and lists of names it is low."""
    near_duplicates: float = 0.0
    """Of documents whose runs of five tokens are the same to this share (Jaccard; 0.8 is usual), read only the first;
    0 means off. It finds equal ones, too."""

    @property
    def is_on(self) -> bool:
        """Whether anything is to be done."""
        return self != CleaningConfig(language_confidence=self.language_confidence)

    @property
    def judges_documents(self) -> bool:
        """Whether documents may be left out for what they say."""
        return bool(self.min_characters or self.min_words or self.max_symbols < 1 or self.languages)

    def __post_init__(self) -> None:
        require(self.min_characters >= 0, "--min-characters must not be negative")
        require(self.min_words >= 0, "--min-words must not be negative")
        require(0 < self.max_symbols <= 1, "--max-symbols must be a share above 0 and at most 1, which means off")
        require(0 < self.language_confidence < 1, "--language-confidence must be between 0 and 1")
        require(
            self.near_duplicates == 0 or 0.5 <= self.near_duplicates <= 1,
            "--near-duplicates must be a share from 0.5 to 1, or 0 for off",
        )
