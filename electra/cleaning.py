"""Lines -> clean lines, without the documents that are not wanted, and a report of what was done.

How the pieces nest: `clean` takes the lines of a block, as encoding.py reads them, through `mend_line` and gives them
back without the documents that `fault` finds. A document may go on beyond the block: for what is open at its borders
`clean` gives `Facts` instead of a judgement, which add up; whoever joins the blocks judges their sum (stitching.py), so
that it is always the whole document that is judged, in bounded memory. Reports add up too. Documents that are like an
earlier one are found when all are there (near_duplicates.py).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import re
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from electra.config import CleaningConfig
from electra.near_duplicates import check_rensa
from electra.storage import File

SAMPLES = 5
"""Documents of each kind that a report shows."""
SAMPLE_CHARACTERS = 200

REASONS = ("", "too few characters", "too few words", "too many symbols", "other language")

_WHITE, _SYMBOL = 1, 2
_WINDOW = 130  # characters of each of three places by which the language of a document is told
_CODES = 1 << 18  # characters looked up at once, each of which takes 12 bytes for a moment
_CERTAIN = 0.99  # from where on other languages are not looked at, which takes longer than telling the first

# What ends a line or a page for some programs. BERT's tokenizers remove most of these, which would join two words.
_BREAKS = re.compile("[\r\x0b\x0c\x1c-\x1f\x85\u2028\u2029]")
# Control characters, and of the format characters those that nobody sees: soft hyphen, marks of direction, invisible
# operators, byte order marks, interlinear marks, tags. Those that are seen (Arabic number signs) or shape what is
# seen stay.
_INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0001\U000e0020-\U000e007f]"
)
# Joiners spell words of Arabic and Indic scripts and make emoji of several; a space of no width parts words of Thai,
# Lao, Tibetan, Burmese and Khmer. After other characters they are litter of web pages.
_STRAY = re.compile(
    "(?<![\u0600-\u109f\u1780-\u18af\u1a20-\u1cff\u2190-\u27bf\u2b00-\u2bff\ua800-\ua8ff\ua9e0-\ua9ff\uaa60-\uaaff"
    "\uabc0-\uabff\ufb50-\ufdff\ufe0f\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001ffff])[\u200c\u200d]"
    "|(?<![\u0e00-\u109f\u1780-\u17ff])\u200b"
)


@dataclass
class Sample:
    """A document that was left out."""

    place: str
    """Its file, and about where in it."""
    text: str
    """How it begins."""


def _draw(sample: Sample) -> bytes:
    return hashlib.blake2b(f"{sample.place}\n{sample.text}".encode()).digest()


@dataclass
class Dropped:
    """The documents that were left out for one reason."""

    documents: int = 0
    characters: int = 0
    """Their text without white space."""
    samples: list[Sample] = field(default_factory=list)
    """Some of them, chosen by a hash: the same ones in whatever order the documents come."""

    def add(self, other: Dropped) -> None:
        self.documents += other.documents
        self.characters += other.characters
        self.samples = sorted(self.samples + other.samples, key=_draw)[:SAMPLES]


@dataclass
class Report:
    """What cleaning did; reports of parts add up to that of the whole, in any order."""

    lines_normalized: int = 0
    """Lines that Unicode normalisation changed."""
    lines_stripped: int = 0
    """Lines with control characters or invisible ones."""
    dropped: dict[str, Dropped] = field(default_factory=dict)
    """By the reason."""

    def add(self, other: Report) -> None:
        self.lines_normalized += other.lines_normalized
        self.lines_stripped += other.lines_stripped
        for reason, dropped in other.dropped.items():
            self.dropped.setdefault(reason, Dropped()).add(dropped)

    def drop(self, reason: str, facts: Facts) -> None:
        """Count a document that is left out."""
        sample = Sample(facts.place, " ".join(facts.opening.split()))
        self.dropped.setdefault(reason, Dropped()).add(Dropped(1, int(facts.counts[0]), [sample]))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"dropped": {reason: asdict(self.dropped[reason]) for reason in sorted(self.dropped)}}

    @staticmethod
    def from_json(found: dict[str, Any]) -> Report:
        dropped = {
            reason: Dropped(entry["documents"], entry["characters"], [Sample(**sample) for sample in entry["samples"]])
            for reason, entry in found["dropped"].items()
        }
        return Report(found["lines_normalized"], found["lines_stripped"], dropped)


@dataclass
class Facts:
    """What a document, or a part of it, is judged by; the facts of parts add up."""

    counts: np.ndarray
    """(4,) float64: characters other than white space, words, symbols, and the characters times the probability that
    they are in one of the wanted languages."""
    opening: str
    """How the text begins."""
    place: str
    """Where it begins."""

    def __add__(self, other: Facts) -> Facts:
        opening = f"{self.opening}\n{other.opening}"[:SAMPLE_CHARACTERS]
        return Facts(self.counts + other.counts, opening, self.place)


@dataclass(frozen=True)
class Origin:
    """Where lines come from."""

    path: File
    start: int
    """How many bytes, or documents, of the file come before them."""
    counts_bytes: bool

    def place(self, num_bytes: int, num_documents: int) -> str:
        """The place in words of what comes after so much more."""
        if self.counts_bytes:
            return f"{self.path.name}, about byte {self.start + num_bytes:,}"
        return f"{self.path.name}, about document {self.start + num_documents + 1:,}"


@dataclass
class Cleaned:
    """A block's lines after cleaning; an empty line ends a document, also one that is left out."""

    lines: list[str]
    report: Report
    has_end: bool
    """Whether a document ends in the block."""
    head: Facts | None = None
    """Of the text before the first end, which may go on with a document of the block before; None for no text."""
    tail: Facts | None = None
    """Of the text after the last end, which may go on in the next block."""


def clean(lines: Iterable[str], first: bool, origin: Origin, config: CleaningConfig) -> Cleaned:
    """Clean some consecutive lines, in which an empty one ends a document.

    `first` says that they begin their file, and so a document. Documents that have both ends in the lines are judged.
    """
    report = Report()
    mended = [mended for line in lines if (mended := mend_line(line, config, report)) or not line]
    ends = [index for index, line in enumerate(mended) if not line]
    cleaned = Cleaned(mended, report, has_end=bool(ends))
    if not config.judges_documents:
        return cleaned
    text = "\n".join(mended)
    borders = np.array([-1, *ends, len(mended)])
    places = np.concatenate([[0], np.cumsum([len(line) + 1 for line in mended], dtype=np.int64)])
    begins = np.minimum(places[borders[:-1] + 1], len(text))
    stops = np.maximum(places[borders[1:]] - 1, begins)
    counts = _count(text, begins, stops)
    open_ones = {0} if not first else set()
    open_ones.add(len(ends))
    reasons = _judge(counts, config)
    if config.languages:
        for number in range(len(begins)):
            if counts[0, number] and (reasons[number] == 0 or number in open_ones):
                counts[3, number] *= _probability(text[begins[number] : stops[number]], config.languages)
        reasons = _judge(counts, config)
    cleaned.lines, passed, passed_bytes = [], 0, 0
    for number, reason in enumerate(reasons.tolist()):
        begin = borders[number] + 1
        if counts[0, number] and (number in open_ones or reason):
            # Where it begins, of which a sample tells: the bytes of all text before it, each counted once.
            passed_bytes += len(text[passed : begins[number]].encode())
            passed = begins[number]
            opening = text[passed : min(passed + SAMPLE_CHARACTERS, stops[number])]
            facts = Facts(counts[:, number], opening, origin.place(passed_bytes, number))
            if number == len(ends) and (ends or first):
                cleaned.tail = facts
            elif number in open_ones:
                cleaned.head = facts
            else:
                report.drop(REASONS[reason], facts)
                begin = borders[number + 1]
        cleaned.lines += mended[begin : borders[number + 1] + 1]
    return cleaned


def fault(facts: Facts, config: CleaningConfig) -> str:
    """Why a document is not wanted; "" if it is."""
    return REASONS[_judge(facts.counts[:, None], config)[0]]


def mend_line(line: str, config: CleaningConfig, report: Report) -> str:
    """The line without what is to be removed, normalised and stripped; nothing may be left of it."""
    # Control characters first: what stands between a letter and its accent keeps them apart.
    if config.strip_control and not line.isprintable():
        visible = _STRAY.sub("", _INVISIBLE.sub("", _BREAKS.sub(" ", line))).strip()
        report.lines_stripped += visible != line
        line = visible
    if config.normalize != "none" and not line.isascii():
        normal = unicodedata.normalize(config.normalize, line).strip()
        report.lines_normalized += normal != line
        line = normal
    return line


def settings(config: CleaningConfig) -> dict[str, Any]:
    """The settings as JSON, with the versions of what decides the results; empty for none.

    ValueError if a library is missing, or does not know a language.
    """
    if not config.is_on:
        return {}
    versions = {"unicode": unicodedata.unidata_version}
    if config.languages:
        known = _identifier().labels
        for language in config.languages:
            if language not in known:
                raise ValueError(f"--languages {language} is unknown, py3langid knows {', '.join(sorted(known))}")
        versions["py3langid"] = importlib.metadata.version("py3langid")
    if config.near_duplicates:
        versions["rensa"] = check_rensa()
    return asdict(config) | {"languages": list(config.languages), "versions": versions}


def from_settings(found: dict[str, Any]) -> CleaningConfig:
    """What `settings` was given."""
    values = {name: value for name, value in found.items() if name != "versions"}
    return CleaningConfig(**values | {"languages": tuple(found.get("languages", ()))})


def report_lines(report: dict[str, Any], samples: int = 0) -> list[str]:
    """What cleaning.json says as lines to print, with some samples of each reason; none for an empty one."""
    lines = []
    for name in ("lines_normalized", "lines_stripped"):
        if count := report.get(name, 0):
            lines.append(f"{'cleaned':12} {count:,} {name.replace('_', ' ')}")
    for reason, found in report.get("dropped", {}).items():
        counts = f"{found['documents']:,} documents, {found['characters']:,} characters"
        lines.append(f"{'left out':12} {reason}: {counts}")
        lines += [f"{'':12} {sample['place']}: {sample['text']}" for sample in found["samples"][:samples]]
    if near := report.get("near_duplicates"):
        lines.append(f"{'not read':12} the same as earlier ones: {near['repeated']:,} documents")
        counts = f"{near['documents']:,} documents, {near['tokens']:,} tokens"
        lines.append(f"{'not read':12} nearly the same as earlier ones: {counts}")
        for sample in near["samples"][:samples]:
            later, earlier = sample["documents"]
            lines.append(f"{'':12} document {later:,} is the same as {earlier:,} to {sample['alike']:.1%}:")
            lines += [f"{'':14} {text}" for text in sample["texts"]]
    return lines


def _judge(counts: np.ndarray, config: CleaningConfig) -> np.ndarray:
    """(D,) numbers in REASONS, of D documents with these `Facts.counts`, (4, D)."""
    characters, words, symbols, wanted = counts
    faults = [
        characters < config.min_characters,
        words < config.min_words,
        symbols > config.max_symbols * characters,
        wanted < (config.language_confidence if config.languages else 0) * characters,
    ]
    return np.select(faults, range(1, len(REASONS)), 0)


def _count(text: str, begins: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """`Facts.counts` of the parts of a text, (4, D), as if all of it were in a wanted language."""
    parts = (text[start : start + _CODES].encode("utf-32-le") for start in range(0, max(1, len(text)), _CODES))
    kinds = np.concatenate([_kinds()[np.frombuffer(part, np.uint32)] for part in parts])
    is_white = kinds == _WHITE
    begins_word = ~is_white & np.concatenate([[True], is_white[:-1]])
    # Places and a search among them take a third of the time of running sums.
    white, words, symbols = (
        np.subtract(*np.searchsorted(np.flatnonzero(flags), [stops, begins]))
        for flags in (is_white, begins_word, kinds == _SYMBOL)
    )
    characters = stops - begins - white
    return np.array([characters, words, symbols, characters], np.float64)


@functools.cache
def _kinds() -> np.ndarray:
    """The kind of each character of Unicode, uint8: _WHITE, _SYMBOL or 0 for letters, accents and digits."""
    kinds = np.full(sys.maxunicode + 1, _SYMBOL, np.uint8)
    # The planes between and after these hold no characters yet, or private ones; all of them would take a second.
    for code in (*range(0x40000), *range(0xE0000, 0xF0000)):
        character = chr(code)
        if character.isspace():
            kinds[code] = _WHITE
        elif unicodedata.category(character)[0] in "LMN":
            kinds[code] = 0
    return kinds


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ValueError("--languages needs py3langid: pip install 'electra-toolkit[cleaning]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _probability(text: str, languages: tuple[str, ...]) -> float:
    """How probable it is that a text is in one of the languages, told by its beginning, its middle and its end."""
    if len(text) > 3 * _WINDOW:
        middle = (len(text) - _WINDOW) // 2
        text = " ".join([text[:_WINDOW], text[middle : middle + _WINDOW], text[-_WINDOW:]])
    text = text.replace("\n", " ")
    first, probability = _identifier().classify(text)
    if probability > _CERTAIN:
        return probability if first in languages else 0.0
    return min(1.0, sum(probability for language, probability in _identifier().rank(text) if language in languages))
