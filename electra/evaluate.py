"""Held-out metrics of a pre-training model: masked LM and replaced-token detection.

Rows and masks are the same at every evaluation of a run, whatever the number of processes, so that the curve
shows the model and not the draw.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from electra.batches import Rows
from electra.checkpoint import load_model
from electra.config import PretrainConfig
from electra.devices import DEVICES, choose_device, choose_precision
from electra.files import read_json
from electra.masking import Masks, continuations, global_rng, mask_rows
from electra.metrics import rtd_metrics
from electra.mixture import MixedRows, Mixture
from electra.mlm import MaskedLM, MaskedLMOutput
from electra.objectives import PretrainingModel, make_model
from electra.packing import RowBatch
from electra.phases import phase_at, plan
from electra.progress import counted
from electra.rtd import RTDBatch, RTDOutput
from electra.runtime import Runtime
from electra.tokenizer import SpecialIds
from electra.toml import read_toml

EVALUATION_STREAM = 1  # of random numbers; training draws from stream 0

Observer = Callable[[RTDBatch, RTDOutput | MaskedLMOutput], None]
"""Is shown a micro-batch and what the model said of it."""


def rtd_batch(rows: RowBatch, masks: Masks) -> RTDBatch:
    """Rows and masks from the host as the tensors that the model reads."""

    def tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)

    return RTDBatch(
        input_ids=tensor(rows.input_ids, torch.int64),
        masked_input_ids=tensor(masks.masked_input_ids, torch.int64),
        segment_ids=tensor(rows.segment_ids, torch.int64),
        position_ids=tensor(rows.position_ids, torch.int64),
        piece_ids=tensor(rows.piece_ids, torch.int64),
        positions=tensor(masks.positions, torch.int64),
        weights=tensor(masks.weights, torch.float32),
        token_ids=tensor(masks.token_ids, torch.int64),
        uniforms=tensor(masks.uniforms, torch.float32),
        candidates=tensor(masks.candidates, torch.bool),
    )


class Evaluator:
    """Evaluates a model on the first `loop.eval_rows` held-out rows of a store, or of several in their shares.

    `continuations` (V,) bool are the ids of `##` pieces, when whole words are masked.
    """

    def __init__(
        self,
        held_out: Rows | MixedRows,
        config: PretrainConfig,
        special: SpecialIds,
        runtime: Runtime,
        continuations: np.ndarray | None = None,
    ) -> None:
        self.config, self.runtime = config, runtime
        self.num_rows = min(config.loop.eval_rows, held_out.rows_per_epoch)
        rows = held_out.rows(0, self.num_rows)
        masks = mask_rows(
            rows.input_ids,
            rows.valid,
            special=special,
            mask_prob=config.objective.mask_prob,
            max_predictions=config.objective.max_predictions(config.rows.seq_len),
            with_replacement=config.objective.mask_with_replacement,
            rng=global_rng(config.loop.seed, 0, EVALUATION_STREAM),
            continuations=continuations,
        )
        self.batch = rtd_batch(rows, masks)

    @torch.no_grad()
    def __call__(self, model: PretrainingModel, observe: Observer | None = None) -> dict[str, float]:
        """Loss and accuracy of the masked LM, and of a discriminator loss, accuracy, precision, recall, F1 and AUC.

        Each rank takes a share of the rows; the numbers are those of all rows together, on every rank. The masked LM is
        called "generator", or "masked_lm" where it is all there is; of a uniform generator there are no numbers.
        `observe` is shown each micro-batch of this rank and what the model said of it (breakdown.py).
        """
        model.eval()
        runtime = self.runtime
        sums: dict[str, float] = defaultdict(float)
        logits, labels = [], []
        begin, end = (self.num_rows * rank // runtime.world_size for rank in (runtime.rank, runtime.rank + 1))
        longest = -(-self.num_rows // runtime.world_size)  # of all ranks: those with sharded weights go together
        firsts = range(begin, begin + longest, 32)
        sizes = [min(32, begin + longest - first) for first in firsts]
        for first in counted(firsts, "evaluating", "rows", sizes, longest):
            batch = self.batch.part(slice(first, max(first, min(first + 32, end)))).to(runtime.device)
            with runtime.autocast():
                if isinstance(model, MaskedLM):
                    alone = model.run(batch)
                    _add_slots(sums, batch, alone.logits, alone.token_losses)
                    if observe is not None:
                        observe(batch, alone)
                    continue
                out = model.run(batch)
            if observe is not None:
                observe(batch, out)
            if out.generator_logits is not None and out.token_losses is not None:
                _add_slots(sums, batch, out.generator_logits, out.token_losses)
                sums["sampled_correct"] += float(((out.sampled_ids == batch.token_ids) * batch.weights).sum())
            valid = batch.piece_ids > 0
            sums["discriminator_loss"] += float(out.row_token_losses.cpu().double().sum())
            sums["tokens"] += float(valid.sum())
            valid = valid.cpu()  # chosen on the host: on the device it would be another shape each time
            logits.append(out.logits.cpu()[valid].numpy())
            labels.append(out.labels.cpu()[valid].numpy())
        sums = defaultdict(float, runtime.sum_over_ranks(dict(sums)))
        objective = self.config.objective
        losses: dict[str, float] = {}
        rest: dict[str, float] = {}
        total = 0.0
        if "slot_loss" in sums:
            name = "masked_lm" if isinstance(model, MaskedLM) else "generator"
            predictions = max(1.0, sums["predictions"])
            losses[f"{name}_loss"] = sums["slot_loss"] / predictions
            rest[f"{name}_accuracy"] = sums["correct"] / predictions
            if "sampled_correct" in sums:
                rest["generator_sampled_accuracy"] = sums["sampled_correct"] / predictions
            total += objective.generator_weight * losses[f"{name}_loss"]
        if not isinstance(model, MaskedLM):
            losses["discriminator_loss"] = sums["discriminator_loss"] / max(1.0, sums["tokens"])
            total += objective.discriminator_weight * losses["discriminator_loss"]
            all_logits, all_labels = runtime.gather(np.concatenate(logits)), runtime.gather(np.concatenate(labels))
            detection = rtd_metrics(all_logits, all_labels)
            rest |= {f"discriminator_{name}": value for name, value in detection.items()}
        return {"loss": total} | losses | rest

    @torch.no_grad()
    def row(self, model: PretrainingModel, number: int) -> tuple[RTDBatch, RTDOutput | MaskedLMOutput]:
        """One of the held-out rows, counted round and round, and what the model says of it; the same on every rank."""
        model.eval()
        first = number % self.num_rows
        batch = self.batch.part(slice(first, first + 1)).to(self.runtime.device)
        with self.runtime.autocast():
            return batch, model.run(batch)


def _add_slots(sums: dict[str, float], batch: RTDBatch, logits: Tensor, token_losses: Tensor) -> None:
    """Add the masked LM's loss and hits on a micro-batch."""
    used = (batch.weights > 0).cpu()
    sums["slot_loss"] += float(token_losses.cpu()[used].double().sum())
    sums["correct"] += float((logits.argmax(-1) == batch.token_ids).cpu()[used].sum())
    sums["predictions"] += float(used.sum())


@dataclass(frozen=True)
class OpenedRun:
    """A run's newest model and what evaluates it."""

    mixture: Mixture
    model: PretrainingModel
    step: int
    evaluator: Evaluator

    def evaluate(self, observe: Observer | None = None) -> dict[str, float]:
        """The step, the number of rows, and the metrics of `Evaluator`."""
        numbers = {"step": self.step, "held_out_rows": self.evaluator.num_rows}
        return numbers | self.evaluator(self.model, observe)


def open_run(run: Path, data: str | None, num_rows: int, device: str) -> OpenedRun:
    """The newest checkpoint of a run and the held-out rows of its stores, or of another one.

    Raises ValueError if that store has another vocabulary or holds nothing out.
    """
    config = read_toml(PretrainConfig, run / "config.toml")
    mixture = Mixture.open((data,)) if data else Mixture.open(config.data, config.weights)
    store = mixture.first
    vocabulary = read_json(run / "store.json")["vocabulary"]
    if store.vocab_sha256 != vocabulary["sha256"]:
        raise ValueError(
            f"{store.folder} was built with another vocabulary than the model in {run}: rebuild it with that"
        )
    chosen = choose_device(device)
    asked = config.loop.precision if config.loop.precision in DEVICES[chosen.type].precisions else "auto"
    precision, why = choose_precision(asked, chosen)
    runtime = Runtime(chosen, precision, why)
    model = make_model(config.model, config.objective, store.vocab_size)
    step = load_model(run, model)
    config = phase_at(plan(config), step).config  # rows as long as those that the model saw last
    loop = dataclasses.replace(config.loop, eval_rows=num_rows or config.loop.eval_rows)
    config = dataclasses.replace(config, loop=loop)
    held_out = MixedRows(mixture, config.rows, seed=config.loop.seed, held_out=True)
    held_out.require_rows(1)
    words = continuations(store.vocabulary()) if config.objective.whole_word else None
    evaluator = Evaluator(held_out, config, store.special, runtime, words)
    return OpenedRun(mixture, model.to(chosen), step, evaluator)


def evaluate_run(run: Path, data: str | None, num_rows: int, device: str) -> dict[str, float]:
    """Metrics of the newest checkpoint of a run on held-out rows. ValueError as `open_run`."""
    return open_run(run, data, num_rows, device).evaluate()
