"""Where a pre-training model is good and where not: the held-out metrics in groups of tokens.

    held-out rows -> model -> micro-batch and output -> Breakdown -> one Table a grouping

Tokens are grouped by their place in the row, by how frequent they are in the store, and by what the generator was
shown. Each group has the metrics of the evaluation under the same names, made of its own tokens: the masked LM's of its
masked positions, the discriminator's of all of them. Letters as in rtd.py, G groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from electra.evaluate import OpenedRun, open_run
from electra.metrics import rtd_metrics
from electra.mixture import Mixture
from electra.mlm import MaskedLM, MaskedLMOutput
from electra.rtd import RTDBatch, RTDOutput
from electra.samples import held_out_sample
from electra.store import Store
from electra.tokenizer import SpecialIds

FREQUENCY_RANKS = (100, 1_000, 10_000)
"""Last rank of the groups by frequency, up to the rarest."""
COUNTED_TOKENS = 2**22
"""Tokens of a large store that are counted, about."""
COUNTED_BLOCK = 2**14


@dataclass(frozen=True)
class Grouping:
    """Names of G groups and which of them each token of a micro-batch belongs to, (B, L) from 0 to G - 1."""

    title: str
    names: Sequence[str]
    groups: Callable[[RTDBatch], np.ndarray]


@dataclass(frozen=True)
class Table:
    """Metrics of each group that has tokens: rows of name -> number, None where a metric has no meaning."""

    title: str
    rows: dict[str, dict[str, float | None]]

    def lines(self) -> list[str]:
        """The table in aligned columns."""
        columns = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        cells = [[self.title, *(_HEADERS.get(name, name) for name in columns)]]
        cells += [[group, *(_cell(row[name]) for name in columns)] for group, row in self.rows.items()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for group, *texts in cells:
            right = [text.rjust(width) for text, width in zip(texts, widths[1:], strict=True)]
            lines.append("  ".join([group.ljust(widths[0]), *right]))
        return lines


_HEADERS = {
    "generator_loss": "gen loss",
    "generator_accuracy": "gen acc",
    "generator_sampled_accuracy": "sampled acc",
    "masked_lm_loss": "mlm loss",
    "masked_lm_accuracy": "mlm acc",
    "replaced_share": "replaced",
    "discriminator_accuracy": "disc acc",
    "discriminator_precision": "precision",
    "discriminator_recall": "recall",
    "discriminator_auc": "AUC",
}


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def by_position(seq_len: int, parts: int = 8) -> Grouping:
    """Equal parts of the row, by the place in it."""
    parts = min(parts, seq_len)
    part_of = np.arange(seq_len) * parts // seq_len
    firsts = np.searchsorted(part_of, np.arange(parts + 1))
    names = [f"{first}-{after - 1}" for first, after in itertools.pairwise(firsts)]
    return Grouping("position in row", names, lambda batch: np.broadcast_to(part_of, batch.input_ids.shape))


def by_frequency(counts: np.ndarray, special: SpecialIds) -> Grouping:
    """Ranks of the true token by `counts` (V,) of the store's tokens.

    Tokens that were not counted, and [CLS] and [SEP], which a store does not hold, are groups of their own.
    """
    seen = int((counts > 0).sum())
    ends = [*(end for end in FREQUENCY_RANKS if end < seen), seen]
    names = [f"{first + 1:,}-{end:,}" for first, end in zip([0, *ends[:-1]], ends, strict=True)]
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    group = np.searchsorted(ends, rank, side="right")  # unseen ones come behind the last rank
    group[[special.cls, special.sep]] = len(ends) + 1
    names += ["not counted", "[CLS], [SEP]"]
    return Grouping("frequency rank", names, lambda batch: group[batch.input_ids.cpu().numpy()])


def by_shown(special: SpecialIds) -> Grouping:
    """What the generator was shown: [MASK], the true token where it had to predict one too, or where it had not."""

    def groups(batch: RTDBatch) -> np.ndarray:
        positions, used = batch.positions.cpu().numpy(), batch.weights.cpu().numpy() > 0
        chosen = np.zeros(batch.input_ids.shape, bool)
        rows, slots = np.nonzero(used)
        chosen[rows, positions[rows, slots]] = True
        masked = batch.masked_input_ids.cpu().numpy() == special.mask
        return np.where(chosen, np.where(masked, 0, 1), 2)

    return Grouping("shown to generator", ["[MASK]", "its own token", "not to predict"], groups)


def token_counts(store: Store) -> np.ndarray:
    """(V,) how often each token occurs in about COUNTED_TOKENS of a store's tokens, in blocks spread evenly over it."""
    counts = np.zeros(store.vocab_size, np.int64)
    every = max(1, -(-store.num_tokens // COUNTED_TOKENS))
    for shard in store.shards:
        for first in range(0, len(shard.tokens), every * COUNTED_BLOCK):
            counts += np.bincount(shard.tokens[first : first + COUNTED_BLOCK], minlength=store.vocab_size)
    return counts


def mixed_counts(mixture: Mixture) -> np.ndarray:
    """(V,) how often each token occurs in the rows of a run, as a share of all."""
    shares = np.zeros(mixture.first.vocab_size)
    for store, share in zip(mixture.stores, mixture.shares, strict=True):
        counts = token_counts(store)
        shares += share * counts / counts.sum()
    return shares


@dataclass
class _Parts:
    """What was seen of one grouping, a list entry for each micro-batch."""

    slot_groups: list[np.ndarray] = field(default_factory=list)  # (predictions,)
    token_groups: list[np.ndarray] = field(default_factory=list)  # (tokens,)


class Breakdown:
    """Collects micro-batches and outputs (it is an `Observer` of evaluate.py) and makes tables of them."""

    def __init__(self, groupings: Sequence[Grouping]) -> None:
        self.groupings = groupings
        self._groups = [_Parts() for _ in groupings]
        self._slots: dict[str, list[np.ndarray]] = {}  # metric -> values of the predictions
        self._logits: list[np.ndarray] = []  # of the tokens that are not padding
        self._labels: list[np.ndarray] = []

    def __call__(self, batch: RTDBatch, out: RTDOutput | MaskedLMOutput) -> None:
        used, valid = batch.weights.cpu().numpy() > 0, batch.piece_ids.cpu().numpy() > 0
        rows, slots = np.nonzero(used)
        positions = batch.positions.cpu().numpy()[rows, slots]
        for grouping, parts in zip(self.groupings, self._groups, strict=True):
            groups = grouping.groups(batch)
            parts.slot_groups.append(groups[rows, positions])
            parts.token_groups.append(groups[valid])
        for name, values in _slot_metrics(batch, out).items():
            self._slots.setdefault(name, []).append(values[used])
        if isinstance(out, RTDOutput):
            self._logits.append(out.logits.float().cpu().numpy()[valid])
            self._labels.append(out.labels.cpu().numpy()[valid])

    def detection(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Logits and labels (N,) of the discriminator at all tokens; None if there is none."""
        return (np.concatenate(self._logits), np.concatenate(self._labels)) if self._logits else None

    def tables(self) -> list[Table]:
        """One table for each grouping; groups without tokens are left out."""
        slots = {name: np.concatenate(values) for name, values in self._slots.items()}
        logits, labels = self.detection() or (None, None)
        tables = []
        for grouping, parts in zip(self.groupings, self._groups, strict=True):
            slot_groups, token_groups = np.concatenate(parts.slot_groups), np.concatenate(parts.token_groups)
            rows: dict[str, dict[str, float | None]] = {}
            for group, name in enumerate(grouping.names):
                mine = token_groups == group
                if not mine.any():
                    continue
                row = _predictions(slots, slot_groups == group)
                if logits is not None and labels is not None:
                    row |= _detection(logits[mine], labels[mine])
                rows[name] = row
            tables.append(Table(grouping.title, rows))
        return tables


def _slot_metrics(batch: RTDBatch, out: RTDOutput | MaskedLMOutput) -> dict[str, np.ndarray]:
    """Metrics of the masked LM at each slot, (B, K); none of a uniform generator."""
    if isinstance(out, MaskedLMOutput):
        name, logits, losses = "masked_lm", out.logits, out.token_losses
    elif out.generator_logits is not None and out.token_losses is not None:
        name, logits, losses = "generator", out.generator_logits, out.token_losses
    else:
        return {}
    values = {f"{name}_loss": losses.float(), f"{name}_accuracy": logits.argmax(-1) == batch.token_ids}
    if isinstance(out, RTDOutput):
        values["generator_sampled_accuracy"] = out.sampled_ids == batch.token_ids
    return {name: value.cpu().numpy() for name, value in values.items()}


def _predictions(slots: dict[str, np.ndarray], mine: np.ndarray) -> dict[str, float | None]:
    """Means over the predictions of a group."""
    count = int(mine.sum())
    means = {name: float(values[mine].mean(dtype=np.float64)) if count else None for name, values in slots.items()}
    return {"predictions": count} | means if slots else {}


def _detection(logits: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """The discriminator on the tokens of a group.

    Without a replaced token there is no recall, without one that it calls replaced no precision, and without both
    kinds no AUC.
    """
    found: dict[str, float | None] = {
        f"discriminator_{name}": value for name, value in rtd_metrics(logits, labels).items() if name != "f1"
    }
    share = float(labels.mean(dtype=np.float64))
    if share == 0:
        found["discriminator_recall"] = None
    if share in (0, 1):
        found["discriminator_auc"] = None
    if not (logits > 0).any():
        found["discriminator_precision"] = None
    return {"tokens": len(labels), "replaced_share": share} | found


def breakdown_of(opened: OpenedRun) -> Breakdown:
    """By all groupings that have a meaning for a run."""
    special, objective = opened.mixture.first.special, opened.model.objective
    seq_len = opened.evaluator.batch.input_ids.shape[1]
    groupings = [by_position(seq_len), by_frequency(mixed_counts(opened.mixture), special)]
    if objective.generator in ("shared-embeddings", "own-embeddings", "same-network"):  # reads [MASK]
        groupings.append(by_shown(special))
    return Breakdown(groupings)


@dataclass(frozen=True)
class Report:
    """What `electra evaluate` says of a run."""

    metrics: dict[str, float]
    tables: list[Table]
    samples: list[list[str]]  # lines of each


def report_run(run: Path, data: str | None, num_rows: int, device: str, num_samples: int = 0) -> Report:
    """Metrics of a run's newest checkpoint, their breakdown, and what it says of the first held-out rows.

    Raises ValueError as `evaluate.open_run`, and for samples of a model without discriminator.
    """
    opened = open_run(run, data, num_rows, device)
    model = opened.model
    if num_samples and isinstance(model, MaskedLM):
        raise ValueError(f"{run} is a masked LM alone: it has no discriminator to show, leave out --samples")
    breakdown = breakdown_of(opened)
    metrics = opened.evaluate(breakdown)
    count = min(num_samples, opened.evaluator.num_rows)
    vocabulary = opened.mixture.first.vocabulary()
    samples = [held_out_sample(opened.evaluator, model, number, vocabulary) for number in range(count)]
    return Report(metrics, breakdown.tables(), samples)
