"""`electra inspect`: what is in a token store, a run or model folder, or TFRecords, with decoded examples."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from electra.batches import Rows
from electra.census import census_lines, plot_census, take_census
from electra.cleaning import report_lines
from electra.config import PretrainConfig, RowsConfig
from electra.config.location import is_url
from electra.files import read_json
from electra.interop.tfrecord import find_records, read_rows
from electra.mixture import read_receipts, shares_of
from electra.store import REPORT, Store
from electra.terminal import terminal
from electra.tokenizer import load_tokenizer
from electra.toml import read_toml


def inspect(
    path: Path | str,
    num_rows: int = 3,
    seq_len: int = 64,
    vocab: Path | None = None,
    verify: bool = False,
    plot: Path | None = None,
) -> None:
    """Print what a folder or a TFRecord file holds, or a store at a URL; ValueError if it is none of the toolkit's.

    `vocab` decodes TFRecords; everything else knows its own vocabulary. Of a store, `verify` compares the checksums and
    `plot` names a picture to draw.
    """
    if is_url(path):
        inspect_store(path, num_rows, seq_len, verify, plot)
        return
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if (path / "config.toml").exists() and (path / "metrics.jsonl").exists():
        inspect_run(path)
    elif (path / "store.json").exists():
        inspect_store(path, num_rows, seq_len, verify, plot)
    elif (path / "config.json").exists():
        inspect_model(path)
    elif files := find_records([str(path)]):
        inspect_records(files, num_rows, vocab)
    else:
        raise ValueError(f"{path} is neither a token store, nor a run or model folder, nor TFRecords")


def inspect_store(
    path: Path | str, num_rows: int, seq_len: int, verify: bool = False, plot: Path | None = None
) -> None:
    """Counts, sources, and rows as training would read them, segment B in colour or marked, pieces apart.

    The rows of a store imported from TFRecords are shown as they were there.
    """
    store = Store.open(path, verify=verify)
    vocabulary = store.vocabulary()
    held_out = store.document_ids(held_out=True)
    lengths = store.document_lengths()
    sources = store.summary["sources"]
    megabytes = sum(receipt["bytes"] for shard in store.summary["shards"] for receipt in shard["files"].values()) / 1e6
    print(f"token store {path}, {'checksums right' if verify else 'checksums not compared (--verify does)'}")
    print(f"  vocabulary   {store.vocab_size:,} entries, {store.vocab_sha256[:16]}")
    print(f"  tokens       {store.num_tokens:,} in {store.num_lines:,} lines of {store.num_documents:,} documents")
    print(f"  on disk      {megabytes:,.1f} MB in {len(store.shards):,} shards")
    print(f"  documents    {lengths.min():,} to {lengths.max():,} tokens, {lengths.mean():,.0f} on average")
    print(f"  held out     {len(held_out):,} documents, {lengths[held_out].sum():,} tokens")
    if len(store.excluded):
        print(f"  not read     {len(store.excluded):,} repeated documents, {lengths[store.excluded].sum():,} tokens")
    for source in sources[:10]:
        print(f"  source       {source['path']}")
    if len(sources) > 10:
        print(f"               and {len(sources) - 10:,} more")
    left_out = store.summary.get("left_out", {})
    for name in ("lines_replaced", "lines_skipped"):
        if left_out.get(name):
            print(f"  {name.replace('_', ' '):12} {left_out[name]:,}")
    for fault in left_out.get("faults", [])[:10]:
        print(f"  left out     {fault}")
    if REPORT in store.summary["files"]:
        for line in report_lines(read_json(store.folder / REPORT), samples=3):
            print(f"  {line}")
    census = take_census(store)
    print("\n".join(census_lines(census, vocabulary)))
    if plot is not None:
        plot_census(census, f"{PurePosixPath(path).name}: {store.num_tokens:,} tokens", plot)
        print(f"  picture      {plot}")
    config = RowsConfig(seq_len=seq_len)
    if store.imported_seq_len is not None:
        config = RowsConfig(seq_len=store.imported_seq_len, packing="rows")
        print(f'  imported     from TFRecords, rows of {config.seq_len} tokens: rows.packing = "rows" gives them back')
    rows = Rows(store, config, seed=0)
    print(f"  rows         {rows.rows_per_epoch:,} of {config.seq_len} tokens an epoch")
    if num_rows == 0:
        return
    in_colour = terminal()[1]
    print(f"  the first, {'B in colour' if in_colour else 'B marked «»'}:")
    batch = rows.rows(0, min(num_rows, rows.rows_per_epoch))
    for ids, segments, pieces in zip(batch.input_ids, batch.segment_ids, batch.piece_ids, strict=True):
        print()
        for piece in range(1, pieces.max() + 1):
            first = vocabulary.decode(ids[(pieces == piece) & (segments == 0)].tolist())
            second = vocabulary.decode(ids[(pieces == piece) & (segments == 1)].tolist())
            shown = f"\x1b[36m{second}\x1b[0m" if in_colour else f"«{second}»"
            print(f"    {first}{f' {shown}' if second else ''}")


def inspect_records(files: list[Path], num_rows: int, vocab: Path | None) -> None:
    """Counts, lengths and padding of TFRecord files, every checksum compared, and their first rows."""
    vocabulary = None if vocab is None else load_tokenizer(vocab)
    rows = pairs = seq_len = largest = 0
    lengths: list[np.ndarray] = []
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    for file in files:
        for block in read_rows(file):
            if seq_len and block.input_ids.shape[1] != seq_len:
                raise ValueError(
                    f"{file} holds rows of {block.input_ids.shape[1]} tokens but {files[0]} rows of {seq_len}: "
                    "inspect them apart"
                )
            seq_len = block.input_ids.shape[1]
            rows += len(block.input_ids)
            lengths.append(np.bincount((block.input_mask != 0).sum(axis=1), minlength=seq_len + 1))
            pairs += int((block.segment_ids != 0).any(axis=1).sum())
            largest = max(largest, int(block.input_ids.max()))
            for ids, mask, segments in zip(block.input_ids, block.input_mask, block.segment_ids, strict=True):
                if len(shown) == num_rows:
                    break
                shown.append((ids[mask != 0], segments[mask != 0]))
    if rows == 0:
        raise ValueError(f"{files[0]}{f' and {len(files) - 1} more files' * (len(files) > 1)} hold no records")
    counts = np.sum(lengths, axis=0)
    tokens = int((counts * np.arange(seq_len + 1)).sum())
    used = np.flatnonzero(counts)
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    print(f"TFRecords of pre-training rows, {len(files):,} files, {megabytes:,.2f} MB, checksums right")
    print(f"  rows         {rows:,} of {seq_len} tokens, {pairs / rows:.1%} of them with a segment B")
    print(f"  filled       {used[0]:,} to {used[-1]:,} tokens, {tokens / rows:,.1f} on average")
    print(f"  padding      {1 - tokens / (rows * seq_len):.2%}")
    print(f"  largest id   {largest:,}")
    print("  first rows, B marked «»:" if vocabulary else "  first rows, B marked «» (ids; --vocab decodes them):")
    for ids, segments in shown:
        texts = []
        for part in (ids[segments == 0], ids[segments != 0]):
            if vocabulary is not None and part.max(initial=0) >= vocabulary.size:
                raise ValueError(f"{files[0]} holds the id {part.max()} but {vocab} has {vocabulary.size:,} entries")
            texts.append(vocabulary.decode(part.tolist()) if vocabulary else " ".join(map(str, part)))
        print(f"\n    {texts[0]}{f' «{texts[1]}»' if texts[1] else ''}")


def inspect_run(path: Path) -> None:
    """The recipe and the last metrics of a run."""
    from electra.log import format_metrics, read_metrics

    print(f"run folder {path}")
    config = read_toml(PretrainConfig, path / "config.toml")
    receipts = read_receipts(path)
    for location, receipt, share in zip(config.data, receipts, shares_of(config.weights, receipts), strict=True):
        portion = f", {share:.1%} of the rows" if len(receipts) > 1 else ""
        print(f"  store {location}: {receipt['tokens']:,} tokens in {receipt['documents']:,} documents{portion}")
    for kind in ("train", "eval"):
        rows = read_metrics(path, kind)
        if rows:
            last = rows[-1]
            values = {name: value for name, value in last.items() if name not in ("step", "kind") and value is not None}
            print(f"  {kind:5} step {last['step']:,}: {'  '.join(format_metrics(values))}")
    checkpoints = sorted(path.glob("checkpoints/step-*"), key=lambda folder: int(folder.name.removeprefix("step-")))
    print(f"  checkpoints: {', '.join(folder.name for folder in checkpoints) or 'none'}")
    print("  config.toml:")
    for line in (path / "config.toml").read_text(encoding="utf-8").splitlines():
        print(f"    {line}")


def inspect_model(path: Path) -> None:
    """The shape of a model folder."""
    from electra.interop.hf import load_pretrained

    model = load_pretrained(str(path))
    count = sum(tensor.numel() for tensor in [*model.encoder_state.values(), *model.head_state.values()])
    print(f"model folder {path}: {', '.join(model.hf_config.get('architectures', ['?']))}, {count:,} parameters")
    for name, value in vars(model.config).items():
        print(f"  {name:18} {value:,}" if isinstance(value, int) else f"  {name:18} {value}")
    print(f"  head               {', '.join(sorted(model.head_state)) or 'none'}")
    if labels := read_json(path / "config.json").get("id2label"):
        print(f"  labels             {', '.join(labels.values())}")
