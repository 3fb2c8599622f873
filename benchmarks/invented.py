"""Text, tasks and models that the benchmarks make themselves: nothing to download.

words -> texts, SST-2 and SQuAD files in the official layouts -> a vocabulary trained on them -> random weights
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from transformers import ElectraConfig

from electra.config import VocabConfig
from electra.tokenizer import Vocabulary, load_tokenizer, train_vocabulary

SYLLABLES = ["ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vo", "zi", "ran", "mel", "tor"]
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


def invented_words(count: int) -> list[str]:
    draw = random.Random(0)
    return sorted({"".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(count)})


def invented_text(draw: random.Random, words: list[str], mean: float) -> str:
    """Frequent words first, as in a language; lengths spread as those of reviews."""
    length = max(2, int(draw.lognormvariate(0, 0.6) * mean))
    return " ".join(words[min(int(draw.paretovariate(0.7)) - 1, len(words) - 1)] for _ in range(length))


def sst2_files() -> dict[str, str]:
    """Texts whose label is whether they hold the word `good`."""
    draw = random.Random(0)
    words = invented_words(100)

    def table(count: int) -> str:
        lines = ["sentence\tlabel"]
        for number in range(count):
            text = draw.choices(words, k=draw.randint(2, 25))
            text[draw.randrange(len(text))] = "good" if number % 2 else "bad"
            lines.append(f"{' '.join(text)}\t{number % 2}")
        return "\n".join(lines) + "\n"

    return {"train.tsv": table(400), "dev.tsv": table(100)}


def squad_files() -> dict[str, str]:
    """Passages in which the answer follows the name that the question asks for."""
    draw = random.Random(0)
    words = invented_words(100)

    def content(count: int) -> str:
        paragraphs = []
        for number in range(count):
            context = " ".join(draw.choices(words, k=draw.randint(40, 400)))
            start = context.index(" ", draw.randrange(len(context) // 2)) + 1
            answer = context[start:].split(" ")[0]
            answers = [{"text": answer, "answer_start": start}]
            entry = {"id": str(number), "question": f"what is {answer[::-1]}?", "answers": answers}
            paragraphs.append({"context": context, "qas": [entry]})
        return json.dumps({"version": "1.1", "data": [{"title": "invented", "paragraphs": paragraphs}]})

    return {"train.json": content(100), "dev.json": content(30)}


def train_on(folder: Path, texts: list[str]) -> Vocabulary:
    """A vocabulary of at most 8,192 pieces."""
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(texts), encoding="utf-8")
    train_vocabulary(VocabConfig(corpus=(str(corpus),), out=folder / "vocabulary", size=8192))
    return load_tokenizer(folder / "vocabulary")


def random_model(kind: Any, vocabulary: Vocabulary, tiny: bool) -> Any:
    """A class of transformers with random weights, of ELECTRA-Small's shape or a tiny one."""
    torch.manual_seed(0)
    return kind(ElectraConfig(vocab_size=vocabulary.size, **(TINY if tiny else {})))
