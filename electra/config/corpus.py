"""Settings of `electra vocab` and `electra build`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from tyro.conf import Positional

from electra.config.checks import require
from electra.config.cleaning import CleaningConfig
from electra.config.location import Location, is_url


@dataclass(frozen=True)
class VocabConfig:
    """Train a WordPiece vocabulary on text files."""

    corpus: Positional[tuple[str, ...]]
    """Files, folders or globs, or URLs of them (s3://, gs://, https://):
    .txt, .jsonl, .csv, .tsv, .parquet, .arrow, .tar, WikiExtractor's;
    all but parquet and Arrow also as .gz, .zst, .xz or .bz2."""
    out: Location
    """Folder to write, or a URL: tokenizer.json, vocab.txt, tokenizer_config.json."""
    size: int = 30522
    """Number of entries, specials and [unused] slots included."""
    lowercase: bool = True
    """Lower-case the text (an uncased vocabulary)."""
    strip_accents: bool | None = None
    """Remove accents; by default they go when the text is lower-cased, as in BERT."""
    split_chinese: bool = True
    """Treat each Chinese character as a word."""
    limit_alphabet: int = 1000
    """Keep at most this many different characters (1000 for Latin scripts, 6000 for Korean)."""
    min_frequency: int = 2
    """A piece must occur this often."""
    unused: int = 0
    """Number of [unusedN] slots kept free for words added later."""
    sample_mb: float = 512.0
    """Train on a random sample of documents of about this many megabytes; bounds memory."""
    text_field: str = "text"
    """The column that holds the text in files of records."""
    on_error: Literal["fail", "replace", "skip"] = "fail"
    """What to do with bytes that are not UTF-8: stop, put U+FFFD, or leave the line out.
    With the last two, damaged files and bad records are left out as far as need be, and counted."""
    seed: int = 0
    """Chooses the sample."""
    overwrite: bool = False
    """Replace --out if it exists."""

    def __post_init__(self) -> None:
        require(len(self.corpus) > 0, "vocab: name at least one corpus file or folder")
        require(self.size >= 5 + self.unused + 1, f"--size {self.size} leaves no room beside specials and --unused")
        require(self.limit_alphabet > 0, "--limit-alphabet must be positive")
        require(self.min_frequency > 0, "--min-frequency must be positive")
        require(self.unused >= 0, "--unused must not be negative")
        require(self.sample_mb > 0, "--sample-mb must be positive")


@dataclass(frozen=True)
class BuildConfig:
    """Turn text files, or TFRecords of pre-training rows, into a token store: documents -> lines -> tokens."""

    corpus: Positional[tuple[str, ...]]
    """Files, folders or globs, or URLs of them (s3://, gs://, https://):
    .txt, .jsonl, .csv, .tsv, .parquet, .arrow, .tar, WikiExtractor's;
    all but parquet and Arrow also as .gz, .zst, .xz or .bz2; or .tfrecord, each row a document."""
    vocab: Location
    """A vocabulary folder, a tokenizer.json or a vocab.txt; or the URL of one."""
    out: Location
    """Folder to write the store to; for a URL (s3://, gs://) it is made in the cache and sent."""
    lowercase: bool | None = None
    """Only for a bare vocab.txt, which does not say: whether to lower-case (default: yes)."""
    strip_accents: bool | None = None
    """Only for a bare vocab.txt: whether to remove accents (default: as --lowercase)."""
    held_out: float = 0.005
    """Share of the tokens, in whole documents, kept apart for evaluation."""
    processes: int = 0
    """Worker processes; 0 means one for each core."""
    engine: Literal["processes", "ray"] = "processes"
    """Where the work is done: in processes here, or as tasks of a Ray cluster whose machines see the same files."""
    text_field: str = "text"
    """The column that holds the text in files of records."""
    on_error: Literal["fail", "replace", "skip"] = "fail"
    """What to do with bytes that are not UTF-8: stop, put U+FFFD, or leave the line out.
    With the last two, damaged files and bad records are left out as far as need be, and counted."""
    documents: Literal["blank-lines", "lines", "files"] = "blank-lines"
    """What ends a document of plain text: an empty line, each line, or the end of its file alone."""
    sentences: str = ""
    """Split lines into sentences of this language (en, ko, ...), where text has a paragraph or an article on a line;
    needs the extra `sentences`."""
    distinct: bool = False
    """Of documents that are the same token for token, read only the first."""
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    seed: int = 0
    """Chooses the held-out documents."""
    append: bool = False
    """Add the text to the store --out, of which files that it has already are left out."""
    shard: str = ""
    """I/N: of N commands that share the folder of --out, this is number I (from 1), which does its part of the work.
    When all are done, the command with --merge makes the store."""
    merge: bool = False
    """Make the store of what the commands with --shard have done."""
    overwrite: bool = False
    """Replace --out if it exists."""

    @property
    def share(self) -> tuple[int, int]:
        """I and N of `shard`; (1, 1) for all of the work."""
        number, _, count = (self.shard or "1/1").partition("/")
        return int(number), int(count)

    def __post_init__(self) -> None:
        known = re.fullmatch(r"[1-9]\d*/[1-9]\d*", self.shard or "1/1")
        require(
            known is not None and self.share[0] <= self.share[1], f"--shard {self.shard} is not I/N with I from 1 to N"
        )
        require(
            sum([self.append, self.merge, self.shard != ""]) <= 1,
            "--append, --shard and --merge are commands of their own",
        )
        require(not (self.append and self.overwrite), "--append adds to --out, which --overwrite would replace")
        alone = not (self.append or self.shard or self.merge or self.engine == "ray")
        require(
            alone or not is_url(self.out),
            f"--append, --shard, --merge and --engine ray need a folder for --out, which {self.out} is not: "
            "build there, and copy the finished store to its place",
        )
        require(len(self.corpus) > 0, "build: name at least one corpus file or folder")
        require(0 <= self.held_out < 0.5, "--held-out must be at least 0 and below 0.5")
        require(self.processes >= 0, "--processes must not be negative")
