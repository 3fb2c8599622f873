"""Warnings that save a week: what a plan or an evaluation shows of a run that will disappoint, in a sentence each.

Each stands for complaints of users of the systems before this one, who learnt it after the run: models that fine-tune
at chance because there was too little text, or text of another casing than the vocabulary's, or because the learning
rate had ended (google-research/electra issues 111, 85, 45, 97; KoELECTRA issues 5, 13, 26), and a discriminator that
calls every token original (electra issue 49, KoELECTRA issue 26). Nothing here stops a run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from electra.mixture import MixedRows
from electra.phases import Phase
from electra.store import Store

MOST_EPOCHS = 40
"""Beyond these repeated text was measured to teach language models nothing more (Muennighoff et al. 2023, figure 1)."""
MOST_UNKNOWN = 0.02
"""Share of [UNK]. Measured on 300 KB each of seven English and Korean corpora: 0 to 1.1 % with a vocabulary of the
language and the right casing; 8 to 14 % of English that kept its capitals with BERT's uncased one; 4 % and more of
Korean with an English one, 76 % and more where lower-casing strips its accents."""
MANY_CAPITALS = 0.1
"""Share of the entries with capitals that makes a vocabulary a cased one: 29 % of BERT's cased one."""
IDLE_RATE, MOST_IDLE = 0.01, 0.1
"""A learning rate below this share of the peak moves nothing; straight decay to 0 spends 1 % of the steps there."""
STRONG_GENERATOR = 0.7
SILENT_RECALL, SILENT_AUC = 0.01, 0.55
_SAMPLED_ROWS = 256
_SAMPLED_RATES = 1000


class Adviser:
    """Advice on one run, each piece given once."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = phases
        self._said: set[str] = set()

    def before_training(self, rows: Sequence[MixedRows], first_step: int = 0) -> list[str]:
        """On the plan and the first rows; `rows` are those of each phase, `first_step` is where the run goes on."""
        found = self._epochs(rows)
        stores = rows[0].mixture.stores
        for store, source in zip(stores, rows[0].sources, strict=True):
            first = source.rows(0, min(_SAMPLED_ROWS, source.rows_per_epoch))
            text = first.input_ids[first.valid]
            text = text[(text != store.special.cls) & (text != store.special.sep)]
            found += [f"in {store.folder} {line}" if len(stores) > 1 else line for line in _casing(text, store)]
        found.append(self._peak() or self._idle(first_step))
        return self._once({line: line for line in found if line})

    def after_evaluation(self, step: int, metrics: dict[str, float]) -> list[str]:
        """On the held-out metrics after `step` steps."""
        found = {}
        if (accuracy := metrics.get("generator_accuracy", 0.0)) > STRONG_GENERATOR:
            found["generator"] = (
                f"the generator guesses {accuracy:.0%} of the masked tokens, so that few are replaced and the "
                "discriminator has little to learn from: look for repeated text in the corpus, raise --mask-prob to "
                "0.25, or take a smaller generator"
            )
        recall, auc = metrics.get("discriminator_recall"), metrics.get("discriminator_auc")
        if (
            recall is not None
            and auc is not None
            and recall < SILENT_RECALL
            and auc < SILENT_AUC
            and step >= self.patience()
        ):
            found["silent"] = (
                f"after {step:,} steps the discriminator still calls every token original (recall {recall:.3f}, AUC "
                f"{auc:.3f}): begin with the layers of a masked language model (--objective masked-lm, then --init; "
                "docs/pretraining.md, Short budgets), with Muon, or with another learning rate"
            )
        return self._once(found)

    def patience(self) -> int:
        """Steps after which a discriminator should have begun to tell tokens apart: twice the warm-up, 1,000 at least.

        At most half of the run, so that a short one is warned as well; but a run of 300 steps has seen nothing yet.
        """
        warmup = self.phases[0].config.optimizer.warmup_steps
        return max(300, min(self.phases[-1].end // 2, max(1000, 2 * warmup)))

    def _once(self, found: dict[str, str]) -> list[str]:
        fresh = [f"warning: {line}" for key, line in found.items() if key not in self._said]
        self._said |= found.keys()
        return fresh

    def _epochs(self, rows: Sequence[MixedRows]) -> list[str]:
        of_phases = [
            phase_rows.epochs(phase.steps * phase.config.loop.batch_size)
            for phase, phase_rows in zip(self.phases, rows, strict=True)
        ]
        stores, found = rows[0].mixture.stores, []
        for store, source, epochs in zip(stores, rows[0].sources, map(sum, zip(*of_phases, strict=True)), strict=True):
            if epochs > MOST_EPOCHS:
                name, or_else = (f" {store.folder}", ", give it less weight") if len(stores) > 1 else ("", "")
                found.append(
                    f"this plan reads the {source.tokens_per_epoch:,} tokens of the store{name} {epochs:,.0f} times, "
                    f"and beyond some {MOST_EPOCHS} epochs repeated text teaches nothing more: add text{or_else}, or "
                    f"stop after about {int(self.phases[-1].end * MOST_EPOCHS / epochs):,} steps"
                )
        return found

    def _peak(self) -> str:
        reached = max(float(np.max(_rates(phase, phase.begin))) / _peak(phase) for phase in self.phases)
        if reached >= 0.5:
            return ""
        warmup, steps = self.phases[0].config.optimizer.warmup_steps, self.phases[-1].end
        return (
            f"the learning rate never exceeds {reached:.1%} of --learning-rate: {warmup:,} steps of warm-up are too "
            f"long for {steps:,} steps; set --warmup-steps to about {max(1, steps // 10):,}"
        )

    def _idle(self, first_step: int) -> str:
        idle, left, steps = 0.0, 0, self.phases[-1].end
        for phase in self.phases:
            begin = max(phase.begin, first_step)
            if begin >= phase.end:
                continue
            rates = _rates(phase, begin)
            falls = np.diff(rates, append=rates[-1]) <= 0  # what is low in the warm-up is no end
            idle += float(np.mean((rates < IDLE_RATE * _peak(phase)) & falls)) * (phase.end - begin)
            left += phase.end - begin
        if idle <= MOST_IDLE * steps:
            return ""
        return (
            f"the learning rate is below {IDLE_RATE:.0%} of its peak in about {idle:,.0f} of the {left:,} steps to "
            "come, which will change nothing: set --end-learning-rate, a lower --decay-power or fewer --steps"
        )


def _peak(phase: Phase) -> float:
    return phase.config.optimizer.learning_rate


def _rates(phase: Phase, begin: int) -> np.ndarray:
    """Learning rates from step `begin` to the end of a phase, evenly taken."""
    steps = np.unique(np.linspace(begin, phase.end - 1, _SAMPLED_RATES).astype(int))
    return np.array([phase.learning_rate(int(step)) for step in steps])


def _casing(text: np.ndarray, store: Store) -> list[str]:
    """On the tokens of the first rows: too many unknown, or a cased vocabulary whose capitals never occur."""
    vocabulary = store.vocabulary()
    special = set(vars(store.special).values())
    capitals = np.array([token != token.lower() and i not in special for i, token in enumerate(vocabulary.tokens)])
    cased = float(capitals.mean())
    unknown = float(np.mean(text == store.special.unk))
    found = []
    if unknown > MOST_UNKNOWN:
        kept_capitals = vocabulary.options.get("lowercase") is False and not capitals.any()
        remedy = (
            "has no capitals but the store kept those of the text: build it again with --lowercase True"
            if kept_capitals
            else "does not fit this text: train one on it with electra vocab, or build the store with the other casing"
        )
        found.append(f"{unknown:.1%} of the first {len(text):,} tokens are [UNK], the vocabulary {remedy}")
    if cased > MANY_CAPITALS and not capitals[text].any():
        found.append(
            f"{cased:.0%} of the vocabulary's entries have capitals and the first {len(text):,} tokens none, so that "
            "they take room and are never learnt: build the store with --lowercase False, or train another vocabulary"
        )
    return found
