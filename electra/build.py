"""Corpus -> token store, in parallel processes, or shared out among machines.

How the pieces nest: portions.py plans which files, or parts of files, are done at a time; `_make_portion` turns one
into shards in the folder OUT.building (encoding.py makes the arrays); when all portions are there, `_put_together`
makes the store of their shards. A portion is finished or not there, so the same command goes on after an
interruption, and machines that share a folder can each do some of the portions (`--shard`).

TFRecords of pre-training rows hold tokens already: interop/record_store.py imports them, each row a document.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from electra import encoding
from electra.cleaning import Report, from_settings, settings
from electra.config import BuildConfig
from electra.corpus import Reading, Tally, find_files, warn_of_faults
from electra.destination import check_out, local_out, send
from electra.files import atomic_folder, read_json, write_json
from electra.interop.record_store import import_records
from electra.interop.tfrecord import find_records
from electra.portions import Piece, Portion, plan
from electra.ray_engine import map_on_ray
from electra.shards import ShardWriter, shard_name
from electra.stitching import Stitcher
from electra.storage import File, RemoteFile, size_of
from electra.store import REPORT, Store, finish_store
from electra.tokenizer import Vocabulary, load_tokenizer

PLAN, RECEIPT = "plan.json", "portion.json"
_UNKNOWN_WARNING = 0.01
_REQUESTS = 16  # at a time, to ask whether remote files have changed

Show = Callable[[int, int], None]
"""Told of the bytes of the corpus done so far, and of all."""


@dataclass(frozen=True)
class Job:
    """All that is known before the work begins."""

    config: BuildConfig
    vocabulary: Vocabulary
    reading: Reading
    files: list[File]
    portions: list[Portion]
    grown: Store | None
    """The store to which the portions are added."""

    @property
    def folder(self) -> Path:
        """Where finished portions wait for the others."""
        return self.out.with_name(f"{self.out.name}.building")

    @property
    def out(self) -> Path:
        """Where the store is put together."""
        return local_out(self.config)

    @property
    def mine(self) -> list[Portion]:
        """The portions that this command makes."""
        number, count = self.config.share
        return self.portions[number - 1 :: count]

    @property
    def processes(self) -> int:
        num_bytes = sum(portion.num_bytes for portion in self.mine)
        return min(self.config.processes or _cores(), 1 + num_bytes // encoding.BLOCK_BYTES)

    def is_finished(self, portion: Portion) -> bool:
        return (self.folder / portion.name / RECEIPT).is_file()


@dataclass
class Made:
    """What became of a portion, or of several."""

    shards: list[dict[str, Any]] = field(default_factory=list)
    """Their entries for store.json."""
    tokens: int = 0
    unknown: int = 0
    """Tokens that are [UNK]."""
    text_bytes: int = 0
    tally: Tally = field(default_factory=Tally)
    report: Report = field(default_factory=Report)

    def add(self, other: Made) -> None:
        self.shards += other.shards
        self.tokens += other.tokens
        self.unknown += other.unknown
        self.text_bytes += other.text_bytes
        self.tally.add(other.tally)
        self.report.add(other.report)


def build(config: BuildConfig, progress: Show | None = None) -> dict[str, Any]:
    """Write the token store `config.out` and return store.json's content plus the key "build".

    summary["build"]: files, portions, text_mb, seconds, mb_per_second, processes, unknown_share, lines_replaced,
    lines_skipped, files_not_read_whole; a warning and `left_out` in store.json say why; for a cleaned corpus also
    cleaning, what cleaning.json says (of the portions made). With `config.shard` there is no store yet, and the summary
    has nothing else. `progress` is called with the bytes of the corpus done so far and in all. Warns (UserWarning) when
    more than 1 % of the tokens are [UNK]. Raises ValueError for an empty corpus, an `out` that exists, files that
    change meanwhile, and all that `find_files`, `read_lines`, `load_tokenizer` and `cleaning.settings` raise; whatever
    is raised, nothing is left behind but finished portions. If `config.out` is a URL, the store is made in the cache
    and sent (destination.py), which raises `storage.StorageError`, as reading from a URL does. If `config.corpus`
    names TFRecords, they are imported: see `record_store.import_records`.
    """
    records = find_records(config.corpus)
    if records and (config.append or config.merge or config.shard or config.cleaning.is_on):
        raise ValueError(f"{records[0]} is a TFRecord, but --append, --merge, --shard and cleaning are for text")
    if records:
        check_out(config)
        imported = import_records(records, dataclasses.replace(config, out=local_out(config)), progress)
        send(config)
        return imported
    started = time.perf_counter()
    job = _plan_job(config)
    text_bytes = _make_portions(job, progress)
    made = Made()
    for portion in job.mine:
        made.add(_receipt(job, portion))
    warn_of_faults(made.tally.faults)
    if made.tokens == 0 and not config.shard:
        shutil.rmtree(job.folder)
        if made.report.dropped:
            counts = ", ".join(f"{dropped.documents:,} for {why}" for why, dropped in made.report.dropped.items())
            raise ValueError(f"cleaning left nothing of the corpus ({counts}): ask less of the documents")
        raise ValueError("the corpus holds no text: check the paths, the text field and that files are not empty")
    summary: dict[str, Any] = {} if config.shard else _put_together(job, made)
    cleaned = {}
    if job.config.cleaning.is_on:
        cleaned["cleaning"] = made.report.to_json() if config.shard else read_json(job.out / REPORT)
    seconds = time.perf_counter() - started
    unknown_share = made.unknown / max(1, made.tokens)
    if unknown_share > _UNKNOWN_WARNING:
        warnings.warn(
            f"{unknown_share:.1%} of the tokens are [UNK]: does the vocabulary {config.vocab} fit the text's language, "
            "and --lowercase and --strip-accents the vocabulary?",
            stacklevel=2,
        )
    if not config.shard:
        send(config)
        shutil.rmtree(job.folder, ignore_errors=True)
    return summary | {
        "build": {
            "files": len(job.files),
            "portions": len(job.mine),
            "text_mb": made.text_bytes / 1e6,
            "seconds": seconds,
            "mb_per_second": text_bytes / 1e6 / seconds,
            "processes": job.processes,
            "unknown_share": unknown_share,
            "lines_replaced": made.tally.replaced,
            "lines_skipped": made.tally.skipped,
            "files_not_read_whole": len(made.tally.faults),
        }
        | cleaned
    }


def _cores() -> int:
    """The cores that this process may use, which in a container or a batch job are not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------- planning


def _plan_job(config: BuildConfig) -> Job:
    vocabulary = load_tokenizer(config.vocab, config.lowercase, config.strip_accents)
    reading = Reading(config.text_field, config.on_error, config.documents, config.sentences)
    files = find_files(config.corpus)
    grown = None
    if config.append:
        grown = _store_to_grow(local_out(config), vocabulary)
        cleaned_before = grown.summary["options"].get("cleaning", {})
        if not config.cleaning.is_on:
            config = dataclasses.replace(config, cleaning=from_settings(cleaned_before))
        files = _new_files(files, grown)
    else:
        check_out(config)
    cleaning = settings(config.cleaning)  # complains of a missing library at once
    if grown is not None:
        _check_cleaning(cleaning, cleaned_before, grown.folder)
    encoding.sentence_splitter(reading.sentences)  # so does this
    job = Job(config, vocabulary, reading, files, plan(files, reading), grown)
    known = {
        "vocabulary": vocabulary.sha256,
        "reading": asdict(reading),
        "cleaning": cleaning,
        "portions": [portion.to_json() for portion in job.portions],
    }
    if (job.folder / PLAN).is_file() and read_json(job.folder / PLAN) != known:
        if not config.overwrite:
            raise ValueError(
                f"{job.folder} holds an unfinished build of other files, another vocabulary or other settings: give "
                "that command again, or remove the folder"
            )
        shutil.rmtree(job.folder)
    if not config.merge:
        job.folder.mkdir(parents=True, exist_ok=True)
        write_json(job.folder / PLAN, known)
    return job


def _store_to_grow(folder: Path, vocabulary: Vocabulary) -> Store:
    store = Store.open(folder, verify=False)
    if store.imported_seq_len is not None:
        raise ValueError(f"{folder} was imported from TFRecords: build a store of its own from the text")
    if store.vocab_sha256 != vocabulary.sha256:
        raise ValueError(f"{folder} was made with another vocabulary: pass --vocab {folder}")
    if any("hashes.npy" not in shard["files"] for shard in store.summary["shards"]):
        raise ValueError(f"{folder} is of an earlier version, which kept no hashes of documents: build it again")
    return store


def _check_cleaning(wanted: dict[str, Any], known: dict[str, Any], folder: Path) -> None:
    """Refuse to add text to a store that was cleaned in another way."""
    before, now = from_settings(known), from_settings(wanted)
    for each in dataclasses.fields(before):
        if getattr(before, each.name) != getattr(now, each.name):
            raise ValueError(
                f"{folder} was built with {each.name} = {getattr(before, each.name)!r}: leave out the flags for "
                "cleaning, and new text is cleaned like the old"
            )
    versions = [each.get("versions", {}).get("rensa") for each in (known, wanted)]
    if versions[0] != versions[1]:
        raise ValueError(
            f"{folder} has signatures of rensa's version {versions[0]}, but the one installed makes version "
            f"{versions[1]}: install another rensa, or build the store again"
        )


def _new_files(files: list[File], store: Store) -> list[File]:
    """Those of the files that the store does not have."""
    known = {source["path"]: source["bytes"] for source in store.summary["sources"]}
    for file in files:
        if known.get(str(file), size_of(file)) != size_of(file):
            raise ValueError(
                f"{file} has changed since {store.folder} was built: build the store again without --append"
            )
    new = [file for file in files if str(file) not in known]
    if not new:
        raise ValueError(f"{store.folder} has all of these files already: name new ones")
    return new


# --------------------------------------------------------------------------------------------------- making


def _make_portions(job: Job, progress: Show | None) -> int:
    """Make those of this command's portions that are not finished; returns the bytes of text in them."""
    missing = [portion for portion in job.mine if not job.is_finished(portion)]
    if job.config.merge and missing:
        raise ValueError(
            f"{job.folder} has {len(job.mine) - len(missing)} of {len(job.mine)} portions: {missing[0].name} and "
            f"{len(missing) - 1} more are missing, which other commands with --shard have to make"
        )
    total = sum(portion.num_bytes for portion in job.mine)
    done = total - sum(portion.num_bytes for portion in missing)
    text_bytes = 0

    def show(more: int) -> None:
        if progress is not None:
            progress(done + more, total)

    try:
        if job.config.engine == "ray":
            given = (_remote_config(job.config), job.vocabulary.to_json(), job.reading)
            for portion, size in map_on_ray(_make_remotely, given, list(map(_absolute, missing))):
                text_bytes += size
                show(portion.num_bytes)
                done += portion.num_bytes
        else:
            for portion in missing:
                text_bytes += _make_portion(job, portion, show)
                done += portion.num_bytes
    except BaseException:
        finished = sum(map(job.is_finished, job.portions))
        if finished:
            kept = f"{finished} of {len(job.portions)} portions are finished and wait in {job.folder}"
            warnings.warn(f"{kept}: the same command goes on with the others", stacklevel=3)
        elif not job.config.shard:
            shutil.rmtree(job.folder, ignore_errors=True)
        raise
    return text_bytes


def _make_portion(job: Job, portion: Portion, progress: Callable[[int], None]) -> int:
    """Write one portion; returns the bytes of text in it."""
    made = Made()
    blocks = encoding.blocks(portion.pieces, job.reading)
    results = encoding.encode_all(blocks, job.vocabulary, job.reading, job.config.cleaning, job.processes)
    with (
        atomic_folder(job.folder / portion.name, overwrite=True) as folder,
        contextlib.closing(results) as parts,
    ):
        stitcher = Stitcher(ShardWriter(folder, job.vocabulary), job.config.cleaning)
        for part in parts:
            stitcher.add(part)
            made.unknown += part.unknown
            made.text_bytes += part.text_bytes
            made.tally.add(part.tally)
            progress(made.tally.disk_bytes)
        with ThreadPoolExecutor(_REQUESTS) as pool:
            as_planned = list(pool.map(Piece.is_as_planned, portion.pieces))
        for piece, is_as_planned in zip(portion.pieces, as_planned, strict=True):
            if not is_as_planned:
                sentence = f"{piece.path} changed while it was read: let it come to rest, and build the store again"
                if job.reading.on_error == "fail":
                    raise ValueError(sentence)
                made.tally.faults.append(sentence)
        made.shards, made.report = stitcher.finish(), stitcher.report
        made.tokens = sum(shard["tokens"] for shard in made.shards)
        write_json(folder / RECEIPT, asdict(made))
    return made.text_bytes


def _make_remotely(config: BuildConfig, vocabulary_json: str, reading: Reading, portion: Portion) -> int:
    """`_make_portion` on a machine that knows nothing of the job."""
    job = Job(config, Vocabulary.from_json(vocabulary_json), reading, [], [portion], None)
    return _make_portion(job, portion, lambda done: None)


def _remote_config(config: BuildConfig) -> BuildConfig:
    return dataclasses.replace(config, out=local_out(config).resolve(), processes=1, shard="")


def _absolute(portion: Portion) -> Portion:
    pieces = (
        piece if isinstance(piece.path, RemoteFile) else dataclasses.replace(piece, path=piece.path.resolve())
        for piece in portion.pieces
    )
    return dataclasses.replace(portion, pieces=tuple(pieces))


def _receipt(job: Job, portion: Portion) -> Made:
    """What became of a finished portion, its shards named from `job.folder`."""
    found = read_json(job.folder / portion.name / RECEIPT)
    shards = [shard | {"name": f"{portion.name}/{shard['name']}"} for shard in found["shards"]]
    tally, report = Tally(**found["tally"]), Report.from_json(found["report"])
    return Made(**found | {"shards": shards, "tally": tally, "report": report})


def _put_together(job: Job, made: Made) -> dict[str, Any]:
    """The store of all shards: those of the store that grows, and those of all portions."""
    tally = made.tally
    left_out: dict[str, Any] = {
        "lines_replaced": tally.replaced,
        "lines_skipped": tally.skipped,
        "faults": tally.faults,
    }
    sizes = {piece.path: piece.file_bytes for portion in job.portions for piece in portion.pieces}
    sources = [{"path": str(file), "bytes": sizes[file]} for file in job.files]
    shards = [(job.folder / shard["name"], shard) for shard in made.shards]
    held_out, seed, already = job.config.held_out, job.config.seed, None
    options: dict[str, Any] = asdict(job.reading) | {"cleaning": settings(job.config.cleaning)}
    distinct, report = job.config.distinct, made.report
    if job.grown is not None:
        before = job.grown.summary
        shards = [(job.grown.folder / shard["name"], shard) for shard in before["shards"]] + shards
        sources = before["sources"] + sources
        left_out = {name: before["left_out"].get(name, type(new)()) + new for name, new in left_out.items()}
        held_out, seed, options = before["held_out"]["share"], before["held_out"]["seed"], before["options"]
        distinct |= options.get("distinct", False)
        already = job.grown.held_out
        if job.config.cleaning.is_on:
            report.add(Report.from_json(read_json(job.grown.folder / REPORT)))
    overwrite = job.config.overwrite or job.grown is not None
    with atomic_folder(job.out, overwrite) as folder:
        entries = []
        for number, (source, entry) in enumerate(shards):
            shutil.copytree(source, folder / shard_name(number), copy_function=_link)
            entries.append(entry | {"name": shard_name(number)})
        return finish_store(
            folder,
            job.vocabulary,
            entries,
            held_out=held_out,
            seed=seed,
            sources=sources,
            options=options | {"distinct": distinct},
            left_out=left_out,
            already_held_out=already,
            distinct=distinct,
            near_duplicates=job.config.cleaning.near_duplicates,
            cleaning=report.to_json() if job.config.cleaning.is_on else None,
        )


def _link(source: str, target: str) -> None:
    """The same file under a second name, or a copy of it where the file system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
