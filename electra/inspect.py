"""`electra inspect`: what is in a token store, a run folder or a model folder, with decoded examples."""

from __future__ import annotations

from pathlib import Path

from electra.batches import Rows
from electra.config import RowsConfig
from electra.files import read_json
from electra.store import Store


def inspect(path: Path, num_rows: int = 3, seq_len: int = 64) -> None:
    """Print what a folder holds; ValueError if it is none of the toolkit's."""
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if (path / "config.toml").exists() and (path / "metrics.jsonl").exists():
        inspect_run(path)
    elif (path / "store.json").exists():
        inspect_store(path, num_rows, seq_len)
    elif (path / "config.json").exists():
        inspect_model(path)
    else:
        raise ValueError(f"{path} is neither a token store, nor a run folder, nor a model folder")


def inspect_store(path: Path, num_rows: int, seq_len: int) -> None:
    """Counts, sources, and rows as training would read them, segment B in brackets, pieces apart."""
    store = Store.open(path)
    held_out = store.document_ids(held_out=True)
    lengths = store.document_lengths()
    print(f"token store {path}, checksums right")
    print(f"  vocabulary   {store.vocab_size:,} entries, {store.vocab_sha256[:16]}")
    print(f"  tokens       {store.num_tokens:,} in {store.num_lines:,} lines of {store.num_documents:,} documents")
    print(f"  documents    {lengths.min():,} to {lengths.max():,} tokens, {lengths.mean():,.0f} on average")
    print(f"  held out     {len(held_out):,} documents, {lengths[held_out].sum():,} tokens")
    for source in store.summary["sources"][:10]:
        print(f"  source       {source['path']}")
    rows = Rows(store, RowsConfig(seq_len=seq_len), seed=0)
    print(f"  rows         {rows.rows_per_epoch:,} of {seq_len} tokens an epoch; the first of them, B marked «»:")
    vocabulary = store.vocabulary()
    batch = rows.rows(0, min(num_rows, rows.rows_per_epoch))
    for ids, segments, pieces in zip(batch.input_ids, batch.segment_ids, batch.piece_ids, strict=True):
        print()
        for piece in range(1, pieces.max() + 1):
            first = vocabulary.decode(ids[(pieces == piece) & (segments == 0)].tolist())
            second = vocabulary.decode(ids[(pieces == piece) & (segments == 1)].tolist())
            print(f"    {first}{f' «{second}»' if second else ''}")


def inspect_run(path: Path) -> None:
    """The recipe and the last metrics of a run."""
    from electra.log import format_metrics, read_metrics

    print(f"run folder {path}")
    for kind in ("train", "eval"):
        rows = read_metrics(path, kind)
        if rows:
            last = rows[-1]
            values = {name: value for name, value in last.items() if name not in ("step", "kind") and value is not None}
            print(f"  {kind:5} step {last['step']:,}: {format_metrics(values)}")
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
