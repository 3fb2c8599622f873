"""One ELECTRA-Small training step: ours against a straightforward Hugging Face loop, in alternation.

    python benchmarks/step.py --out benchmarks/results/step-cpu.json

The other side is what one writes with transformers in an afternoon: ElectraForMaskedLM and ElectraForPreTraining with
tied embeddings, 15 % of the tokens masked and predicted over the whole row, sampled fakes at the masked positions,
torch.optim.AdamW, clip 1.0. Same shapes, rows, dropout, precision and number of threads on both sides; ours is timed
through the training loop's own functions, with row cutting and masking on the host included on both sides.
Prints medians, the ratio of medians, and the spread of the ratios of neighbouring pairs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from machine import describe
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra.batches import Rows
from electra.config import PretrainConfig
from electra.interop.hf import hf_config
from electra.optim import global_norm, make_optimizers, scale_gradients, set_learning_rate
from electra.presets import electra_small
from electra.pretrain import load_work
from electra.rtd import ReplacedTokenDetection
from electra.runtime import Runtime
from electra.schedules import warmup_decay
from electra.store import Store, StoreWriter
from electra.tokenizer import load_tokenizer
from electra.train import forward_backward


class Ours:
    """The toolkit's own step."""

    def __init__(self, config: PretrainConfig, store: Store, rows: Rows, runtime: Runtime) -> None:
        self.config, self.store, self.rows, self.runtime = config, store, rows, runtime
        self.model = ReplacedTokenDetection(config.model, config.objective, store.vocab_size).to(runtime.device)
        self.optimizers = make_optimizers(self.model, config.optimizer)

    def step(self, number: int) -> float:
        batch = self.config.loop.batch_size
        work = load_work(self.config, self.rows, self.store, self.runtime, batch, number)
        sums = forward_backward(self.model, work, work.totals, self.runtime)
        norm = global_norm(self.model)
        scale_gradients(self.model, (1.0 / norm).clamp(max=1.0))
        set_learning_rate(self.optimizers, warmup_decay(number, peak=5e-4, steps=1_000_000, warmup_steps=10_000))
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad(set_to_none=True)
        return float(sums["loss"])


class HuggingFace:
    """The straightforward loop with transformers' modules."""

    def __init__(self, ours: Ours) -> None:
        self.config, self.store, self.rows, self.runtime = ours.config, ours.store, ours.rows, ours.runtime
        model, runtime = ours.model, ours.runtime
        generator = ElectraConfig(**hf_config(model.generator_config, "ElectraForMaskedLM"))
        discriminator = ElectraConfig(**hf_config(model.config, "ElectraForPreTraining"))
        self.generator = ElectraForMaskedLM(generator).to(runtime.device)
        self.discriminator = ElectraForPreTraining(discriminator).to(runtime.device)
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            setattr(self.generator.electra.embeddings, name, getattr(self.discriminator.electra.embeddings, name))
        self.generator.generator_lm_head.weight = self.discriminator.electra.embeddings.word_embeddings.weight
        both = torch.nn.ModuleList([self.generator, self.discriminator])
        self.parameters = list(both.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=5e-4, eps=1e-6, weight_decay=0.01)
        self.draw = np.random.default_rng(0)

    def step(self, number: int) -> float:
        batch, device = self.config.loop.batch_size, self.runtime.device
        rows = self.rows.rows(number * batch, batch)
        ids = torch.from_numpy(rows.input_ids).long()
        special = torch.isin(ids, torch.tensor(list(dataclasses.asdict(self.store.special).values())))
        chosen = (torch.rand(ids.shape) < 0.15) & ~special
        labels = torch.where(chosen, ids, -100).to(device)
        masked = torch.where(chosen & (torch.rand(ids.shape) < 0.85), self.store.special.mask, ids).to(device)
        ids, chosen = ids.to(device), chosen.to(device)
        segments = torch.from_numpy(rows.segment_ids).long().to(device)
        attention = torch.from_numpy(rows.valid).long().to(device)
        with self.runtime.autocast():
            out = self.generator(input_ids=masked, attention_mask=attention, token_type_ids=segments, labels=labels)
            with torch.no_grad():
                logits = out.logits[chosen].float()
                noise = -torch.log(-torch.log(torch.rand_like(logits) + 1e-9) + 1e-9)
                fakes = ids.clone()
                fakes[chosen] = (logits + noise).argmax(-1)
            detected = self.discriminator(
                input_ids=fakes, attention_mask=attention, token_type_ids=segments, labels=(fakes != ids).long()
            )
            loss = out.loss + 50.0 * detected.loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss)


def synthetic_store(folder: Path, vocab: Path, tokens: int = 4_000_000) -> Store:
    """A store of random tokens in lines of about 70 and documents of about 700."""
    draw = np.random.default_rng(0)
    vocabulary = load_tokenizer(vocab)
    writer = StoreWriter(folder, vocabulary, held_out=0.0, seed=0, sources=[], options={})
    lines = draw.integers(20, 120, tokens // 70)
    documents = np.full(len(lines) // 10, 10)
    lines = lines[: documents.sum()]
    ids = draw.integers(1000, vocabulary.size, lines.sum()).astype(np.uint16)
    writer.add(ids, lines.astype(np.int64), documents.astype(np.int64))
    writer.close()
    return Store.open(folder)


def measure(precision: str, args: argparse.Namespace, store: Store) -> dict:
    device = torch.device(args.device)
    runtime = Runtime(device, precision, "asked for")
    base = electra_small()
    loop = dataclasses.replace(base.loop, batch_size=args.batch)
    config = dataclasses.replace(base, loop=loop, rows=dataclasses.replace(base.rows, seq_len=args.seq_len))
    rows = Rows(store, config.rows, seed=0)
    torch.manual_seed(0)
    ours = Ours(config, store, rows, runtime)
    theirs = HuggingFace(ours)
    times: dict[str, list[float]] = {"ours": [], "hugging_face": []}
    for number in range(args.warmup + args.repeats):
        for name, side in (("ours", ours), ("hugging_face", theirs)):
            begin = time.perf_counter()
            side.step(number)  # ends in a float(), which waits for the device
            if number >= args.warmup:
                times[name].append(time.perf_counter() - begin)
    ratios = [b / a for a, b in zip(times["ours"], times["hugging_face"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "precision": precision,
        "ours_ms": 1000 * statistics.median(times["ours"]),
        "hugging_face_ms": 1000 * statistics.median(times["hugging_face"]),
        "ratio": statistics.median(times["hugging_face"]) / statistics.median(times["ours"]),
        "ratio_quartiles": [quartiles[0], quartiles[2]],
        "ours_tokens_per_second": args.batch * args.seq_len / statistics.median(times["ours"]),
        "repeats": args.repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=Path, required=True, help="a vocabulary of the size to measure with")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = synthetic_store(Path(folder) / "store", args.vocab)
        results = [measure(precision, args, store) for precision in args.precisions]
    best = {side: min(row[f"{side}_ms"] for row in results) for side in ("ours", "hugging_face")}
    report = {
        "what": f"ELECTRA-Small step, {args.batch} x {args.seq_len}, vocabulary {store.vocab_size}",
        "machine": describe(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "results": results,
        "best_of_theirs_over_best_of_ours": best["hugging_face"] / best["ours"],
    }
    for row in results:
        low, high = row["ratio_quartiles"]
        print(
            f"{row['precision']}: ours {row['ours_ms']:.0f} ms, Hugging Face {row['hugging_face_ms']:.0f} ms, "
            f"ratio {row['ratio']:.2f} (quartiles of pairs {low:.2f} to {high:.2f})"
        )
    print(f"best of theirs / best of ours: {report['best_of_theirs_over_best_of_ours']:.2f}")
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
