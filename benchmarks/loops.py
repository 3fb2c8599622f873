"""The two training steps that the benchmarks compare: ours, and a straightforward loop with transformers' modules.

`Ours` goes through the functions of the training loop. `HuggingFace` is what one writes in an afternoon:
ElectraForMaskedLM and ElectraForPreTraining with tied embeddings, 15 % of the tokens masked and predicted over the
whole row, sampled fakes at the masked positions, torch.optim.AdamW, clip 1.0, attention by SDPA, the default of
transformers, or "eager"; with `best` also no attention mask, a fused optimizer where there is one and torch.compile.
Shapes, rows, dropout and precision are the same on both sides, and cutting rows and masking on the host is part of the
step. Text is random tokens: nothing to download.
"""

from __future__ import annotations

import dataclasses
import itertools
import string
from pathlib import Path

import numpy as np
import torch
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra.batches import Rows
from electra.compiled import compile_forward
from electra.config import PretrainConfig
from electra.interop.hf import hf_config
from electra.objectives import make_model
from electra.optim import global_norm, make_optimizers, scale_gradients, set_learning_rate
from electra.phases import plan
from electra.presets import PRESETS
from electra.pretrain import load_work, micro_batches
from electra.rtd import ReplacedTokenDetection
from electra.runtime import Runtime
from electra.store import Store, StoreWriter
from electra.tokenizer import load_tokenizer
from electra.train import forward_backward


def made_up_store(folder: Path, vocab_size: int = 30_522, tokens: int = 4_000_000) -> Store:
    """A store of random tokens in lines of about 70 and documents of about 700, with made-up words as vocabulary."""
    folder.mkdir(parents=True)
    words = map("".join, itertools.product(string.ascii_lowercase, repeat=4))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path = folder / "vocab.txt"
    path.write_text("\n".join([*special, *itertools.islice(words, vocab_size - len(special))]) + "\n")
    vocabulary = load_tokenizer(path, lowercase=True)
    writer = StoreWriter(folder / "store", vocabulary, held_out=0.0, seed=0, sources=[], options={})
    draw = np.random.default_rng(0)
    lines = draw.integers(20, 120, tokens // 70)
    documents = np.full(len(lines) // 10, 10)
    lines = lines[: documents.sum()]
    writer.add(
        draw.integers(len(special), vocab_size, lines.sum()).astype(np.uint16),
        lines.astype(np.int64),
        documents.astype(np.int64),
    )
    writer.close()
    return Store.open(folder / "store")


def plan_of(
    size: str, seq_len: int, batch: int, micro_batch: int = 0, attention_dropout: float | None = None
) -> PretrainConfig:
    """The paper's preset of a size with another row length and batch."""
    config = PRESETS[f"electra-{size}"]()
    model = config.model
    if attention_dropout is not None:
        model = dataclasses.replace(model, attention_dropout=attention_dropout)
    return dataclasses.replace(
        config,
        model=model,
        rows=dataclasses.replace(config.rows, seq_len=seq_len),
        loop=dataclasses.replace(config.loop, batch_size=batch, micro_batch_size=micro_batch),
    )


class Ours:
    """The toolkit's own step."""

    def __init__(
        self,
        config: PretrainConfig,
        store: Store,
        runtime: Runtime,
        *,
        compiled: bool = False,
        cuda_graphs: bool = False,
        varlen: bool = True,
    ) -> None:
        self.config, self.store, self.runtime, self.cuda_graphs, self.varlen = (
            config,
            store,
            runtime,
            cuda_graphs,
            varlen,
        )
        self.phase = plan(config)[0]
        self.rows = Rows(store, config.rows, seed=0)
        self.split = micro_batches(config, runtime)
        torch.manual_seed(0)
        self.model = make_model(config.model, config.objective, store.vocab_size).to(runtime.device)
        if compiled:
            compile_forward(self.model, runtime.device, cuda_graphs=cuda_graphs)
        self.optimizers = make_optimizers(self.model, config.optimizer)

    def step(self, number: int) -> torch.Tensor:
        work = load_work(self.phase, self.rows, self.store, self.runtime, self.split, number)
        if not self.varlen:
            unbounded = [dataclasses.replace(batch, bounds=None) for batch in work.micro_batches]
            work = dataclasses.replace(work, micro_batches=unbounded)
        sums = forward_backward(self.model, work, work.totals, self.runtime)
        norm = global_norm(self.model)
        scale_gradients(self.model, (1.0 / norm).clamp(max=1.0))
        set_learning_rate(self.optimizers, self.phase.learning_rate(number))
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad(set_to_none=not self.cuda_graphs)
        return sums["loss"]


class HuggingFace:
    """The straightforward loop with transformers' modules."""

    def __init__(
        self, config: PretrainConfig, store: Store, runtime: Runtime, *, best: bool = False, attention: str = "sdpa"
    ) -> None:
        self.config, self.store, self.runtime, self.best = config, store, runtime, best
        self.rows = Rows(store, config.rows, seed=0)
        self.split = micro_batches(config, runtime)
        torch.manual_seed(0)
        with torch.device("meta"):  # for its shapes
            shapes = ReplacedTokenDetection(config.model, config.objective, store.vocab_size)
        self.generator, self.discriminator = (
            kind(ElectraConfig(**hf_config(shape, kind.__name__), attn_implementation=attention)).to(runtime.device)
            for kind, shape in (
                (ElectraForMaskedLM, shapes.generator_config),
                (ElectraForPreTraining, shapes.config),
            )
        )
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            setattr(self.generator.electra.embeddings, name, getattr(self.discriminator.electra.embeddings, name))
        self.generator.generator_lm_head.weight = self.discriminator.electra.embeddings.word_embeddings.weight
        self.parameters = list(torch.nn.ModuleList([self.generator, self.discriminator]).parameters())
        fused = best and runtime.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(self.parameters, lr=5e-4, eps=1e-6, weight_decay=0.01, fused=fused)
        if best:
            self.generator.compile()
            self.discriminator.compile()

    def step(self, number: int) -> torch.Tensor:
        batch = self.config.loop.batch_size
        rows = self.rows.rows(number * batch, batch)
        total = torch.zeros((), device=self.runtime.device)
        for first in range(0, batch, self.split):
            part = slice(first, first + self.split)
            total += self._backward(rows.input_ids[part], rows.segment_ids[part], rows.valid[part])
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _backward(self, input_ids: np.ndarray, segment_ids: np.ndarray, valid: np.ndarray) -> torch.Tensor:
        device = self.runtime.device
        ids = torch.from_numpy(input_ids).long()
        special = torch.isin(ids, torch.tensor(list(dataclasses.asdict(self.store.special).values())))
        chosen = (torch.rand(ids.shape) < 0.15) & ~special
        labels = torch.where(chosen, ids, -100).to(device)
        masked = torch.where(chosen & (torch.rand(ids.shape) < 0.85), self.store.special.mask, ids).to(device)
        ids, chosen = ids.to(device), chosen.to(device)
        shared = {"token_type_ids": torch.from_numpy(segment_ids).long().to(device)}
        if not self.best:  # rows are full but for a few tokens
            shared["attention_mask"] = torch.from_numpy(valid).long().to(device)
        with self.runtime.autocast():
            out = self.generator(input_ids=masked, labels=labels, **shared)
            with torch.no_grad():
                logits = out.logits[chosen].float()
                noise = -torch.log(-torch.log(torch.rand_like(logits) + 1e-9) + 1e-9)
                fakes = ids.clone()
                fakes[chosen] = (logits + noise).argmax(-1)
            detected = self.discriminator(input_ids=fakes, labels=(fakes != ids).long(), **shared)
            loss = (out.loss + 50.0 * detected.loss) * (len(ids) / self.config.loop.batch_size)
        loss.backward()
        return loss.detach()
