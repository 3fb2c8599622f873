"""Verbs about text: vocab, build, inspect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from electra.cli.parsing import Arguments, parse, print_summary
from electra.config.location import Location


def vocab(arguments: Arguments) -> int:
    """Train a WordPiece vocabulary on text files."""
    from electra.config import VocabConfig
    from electra.tokenizer import train_vocabulary

    config = parse(VocabConfig, "vocab", "electra vocab corpus/ --out vocab --size 32000", arguments)
    summary = train_vocabulary(config)
    print_summary(summary)
    return 0


def build(arguments: Arguments) -> int:
    """Turn text files, or TFRecords, into a token store."""
    from electra.build import build as build_store
    from electra.cleaning import report_lines
    from electra.config import BuildConfig
    from electra.progress import Progress

    config = parse(BuildConfig, "build", "electra build corpus/ --vocab vocab --out store", arguments)
    with Progress("building", "bytes") as progress:
        summary = build_store(config, progress.show)
    cleaning = summary["build"].pop("cleaning", {})
    if config.shard:
        print_summary({"part": f"{config.shard} of {config.out}"} | summary["build"])
        for line in report_lines(cleaning):
            print(line)
        return 0
    held_out = summary["held_out"]
    counts = {name: summary[name] for name in ("documents", "lines", "tokens")}
    held = {"held_out_documents": held_out["documents"], "held_out_tokens": held_out["tokens"]}
    if config.distinct:
        held |= {"repeated_documents_not_read": summary["excluded"]["documents"]}
    print_summary({"store": config.out} | counts | held | summary["build"])
    for line in report_lines(cleaning):
        print(line)
    return 0


@dataclass(frozen=True)
class InspectArguments:
    """What is in a token store, a run folder, a model folder, or TFRecords of pre-training rows."""

    path: Positional[Location]
    """The folder, the URL of a store, or a TFRecord file."""
    rows: int = 3
    """Rows of a store or of TFRecords to show."""
    seq_len: int = 64
    """Their length; those of TFRecords, and of a store imported from some, keep theirs."""
    vocab: Path | None = None
    """Vocabulary to decode TFRecords with; without it their ids are shown."""
    verify: bool = False
    """Read every file of a store and compare it with its checksum (those of TFRecords always are)."""
    plot: Path | None = None
    """Draw tokens, documents and lines of a store into this picture: .png, .svg or .pdf."""


def inspect(arguments: Arguments) -> int:
    """What is in a store, a run, a model folder or TFRecords."""
    given = parse(InspectArguments, "inspect", "electra inspect store", arguments)

    from electra.inspect import inspect as run

    run(given.path, given.rows, given.seq_len, given.vocab, given.verify, given.plot)
    return 0
