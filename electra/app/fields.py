"""What can be typed into a panel: texts and numbers with their bounds, from the page and from a link.

    page, or ?tab=sst2&text=a+fine+film -> `Field.read` -> checked value        values -> `to_query` -> the link

Everybody who sees the page may send what he likes, also past its widgets: every value is checked here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from electra.tasks.tables import whole_text
from electra.tokenizer import Vocabulary

MAX_TEXT = 5_000
"""Characters of a text."""
MAX_PASSAGE = 20_000
"""Characters of a passage that answers a question: two seconds of one core, for four layers of width 256."""
MAX_LINK = 8_000
"""Characters of a link; servers refuse longer ones."""
MAX_SEED = 2**32 - 1

Value = str | float | None
Values = Mapping[str, Value]


@dataclass(frozen=True)
class TextField:
    """A text that may be empty only if it is `optional`."""

    name: str
    """In links."""
    label: str
    lines: int = 1
    limit: int = MAX_TEXT
    placeholder: str = ""
    optional: bool = False
    default: str = ""

    def read(self, value: object) -> str:
        """The text as a tokeniser takes it; ValueError in a sentence if it is missing or too long."""
        text = whole_text(value) if isinstance(value, str) else ""
        if len(text) > self.limit:
            raise ValueError(f"{self.label}: {len(text):,} characters are too many: shorten it to {self.limit:,}.")
        if not text.strip() and not self.optional:
            raise ValueError(f"{self.label}: there is no text yet: type one.")
        return text


@dataclass(frozen=True)
class NumberField:
    """A number within bounds; `optional` if it may be left empty."""

    name: str
    label: str
    default: float | None
    low: float
    high: float
    step: float = 1.0
    slider: bool = True
    optional: bool = False
    info: str = ""

    def read(self, value: object) -> float | None:
        """The number, from its text too; ValueError in a sentence if it is none or out of bounds."""
        if value is None or value == "":
            if self.optional:
                return None
            raise ValueError(f"{self.label}: there is no number: give one {self._bounds}.")
        try:
            number = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.label}: give a number {self._bounds}.")
        return number

    @property
    def _bounds(self) -> str:
        return f"from {self.low:,.10g} to {self.high:,.10g}"


Field = TextField | NumberField


def read_values(fields: Sequence[Field], values: Mapping[str, object]) -> dict[str, Value]:
    """All values checked; ValueError names the first that is not as it should be."""
    return {field.name: field.read(values.get(field.name)) for field in fields}


def check_known(label: str, ids: Sequence[int], vocabulary: Vocabulary) -> None:
    """ValueError for a text without a token, or of which the vocabulary knows nothing (emoji, for most)."""
    if not len(ids):
        raise ValueError(f"{label}: there is no letter in it that the model reads: type a text.")
    if all(token == vocabulary.special.unk for token in ids):
        raise ValueError(f"{label}: the model's vocabulary knows nothing in it: write as its training text is written.")


# ------------------------------------------------------------------------------------------------------- links


def to_query(tab: str, fields: Sequence[Field], values: Mapping[str, object]) -> str:
    """ "?tab=...&text=..." of a panel with these values; what stands at its default is left out.

    Empty where it would be too long for a link.
    """
    shown = {"tab": tab}
    for field in fields:
        value = values.get(field.name)
        if value != field.default and value is not None:
            shown[field.name] = f"{value:.10g}" if isinstance(value, float) else whole_text(str(value))
    query = f"?{urlencode(shown)}"
    return query if len(query) <= MAX_LINK else ""


def from_query(query: str) -> dict[str, str]:
    """Names and texts of a link's query string, each name once; ValueError if it is too long."""
    if len(query) > MAX_LINK:
        raise ValueError(f"The link is longer than {MAX_LINK:,} characters: paste its text into the page instead.")
    return dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))
