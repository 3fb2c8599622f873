"""Prediction: inputs and fine-tuned model folders -> an answer for each input, in their order.

    options, file, standard input -> `Predictor.read` -> chunks -> encode (a chunk ahead, in a thread) -> answer
                                                                -> TSV or JSON lines, chunk by chunk

What a model folder can answer follows from its head: sentences/predictor.py (labels, values, choices),
tagging/predictor.py, questions/predictor.py. Rows of a chunk go through the model sorted by length. Memory holds some
chunks, whatever the size of the input; standard output gets the answers of a chunk when they are there, a file all
of them or, when the run is interrupted, none.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from electra.config import PredictConfig
from electra.files import atomic_file, refuse_existing
from electra.interop.hf import Pretrained, load_pretrained
from electra.progress import Progress
from electra.runtime import start
from electra.tasks.predictor import Answer, Predictor
from electra.tasks.questions.predictor import load_question_predictor
from electra.tasks.sentences.predictor import load_choice_predictor, load_sentence_predictor
from electra.tasks.streams import count_texts
from electra.tasks.tagging.predictor import load_tagging_predictor
from electra.terminal import clear

CHUNK_INPUTS = 4096
CHUNK_CHARACTERS = 1 << 20
"""A chunk ends with the input that exceeds one of the two: rows enough for batches without padding, and 250,000 tokens
of long texts, which ELECTRA-Small reads in a minute on one core."""


def predict(config: PredictConfig) -> int:
    """Answer every input of `config` and write the answers; returns how many there were.

    Raises ValueError in a sentence if the model has no head for a task, or an input is not what was said. What was
    answered before the faulty line is on standard output then; a file is not written.
    """
    if config.out is not None:
        refuse_existing(config.out, config.overwrite)
        if config.out.is_dir():
            raise ValueError(f"{config.out} is a folder where a file belongs: choose another --out")
    predictor = load_predictor(config)
    count = 0
    with _output(config) as file:
        if config.format == "tsv":
            file.write(predictor.header)
        inputs = predictor.read(config)
        total = len(inputs) if isinstance(inputs, Sized) else count_texts(config)
        for answers in answer_chunks(predictor, inputs, total):
            if file.isatty():
                clear()
            file.writelines(
                answer.tsv() if config.format == "tsv" else json.dumps(answer.row(), ensure_ascii=False) + "\n"
                for answer in answers
            )
            file.flush()
            count += len(answers)
    return count


def answer_chunks(predictor: Predictor, inputs: Iterable[Any], total: int = 0) -> Iterator[list[Answer]]:
    """The answers chunk by chunk; the next chunk is read and encoded while the models answer one.

    A line of progress says how many are answered, of `total` if that is known (not 0).
    """
    chunks = cut_chunks(inputs)

    def encode_next() -> tuple[int, Any] | None:
        chunk = next(chunks, None)
        return None if chunk is None else (len(chunk), predictor.encode(chunk))

    with (
        ThreadPoolExecutor(1, thread_name_prefix="encode") as pool,
        Progress("answering", "inputs", total) as progress,
    ):
        ahead = pool.submit(encode_next)
        while (found := ahead.result()) is not None:
            ahead = pool.submit(encode_next)
            size, encoded = found
            progress.expect(size, len(predictor.models))
            yield list(predictor.answer(encoded))
            progress.add(size)


def cut_chunks(inputs: Iterable[Any]) -> Iterator[list[Any]]:
    """Chunks of at least one input."""
    chunk: list[Any] = []
    characters = 0
    for item in inputs:
        chunk.append(item)
        characters += count_characters(item)
        if len(chunk) >= CHUNK_INPUTS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def count_characters(item: Any) -> int:
    """Of all texts of an input."""
    if isinstance(item, str):
        return len(item)
    if isinstance(item, list | tuple):
        return sum(map(count_characters, item))
    return len(item.context) + len(item.question) if hasattr(item, "context") else 0


def load_predictor(config: PredictConfig) -> Predictor:
    """The models of `config`, ready to answer: `predictor(["a fine film", ("one text", "another")])`.

    ValueError for a folder without a head for a task, and for models that cannot answer together.
    """
    models = [load_pretrained(name) for name in (config.model, *config.also)]
    runtime = start(config.device, config.precision)
    first, *others = models
    for model in others:
        if architecture_of(model) != architecture_of(first):
            raise ValueError(f"{model.source} is no {architecture_of(first)} as {first.source} is: use them apart")
        if model.config.max_positions != first.config.max_positions:
            raise ValueError(f"{model.source} and {first.source} read texts of different lengths: use them apart")
    limit = first.config.max_positions
    if config.max_length > limit:
        raise ValueError(f"--max-length {config.max_length} is longer than the model can read ({limit})")
    length, tokens = config.max_length or limit, config.batch_tokens
    match architecture_of(first):
        case "ElectraForSequenceClassification":
            return load_sentence_predictor(models, runtime, length, tokens)
        case "ElectraForMultipleChoice":
            return load_choice_predictor(models, runtime, length, tokens)
        case "ElectraForTokenClassification":
            return load_tagging_predictor(models, runtime, length, tokens)
        case "ElectraForQuestionAnswering":
            return load_question_predictor(models, runtime, config)
    raise ValueError(f"{first.source} has no head for a task: fine-tune it first (electra finetune)")


def architecture_of(model: Pretrained) -> str:
    """The class of transformers that a folder is for; that of questions too where their head is one of Google's."""
    is_joint = model.network.architecture == "ElectraModel" and "answerable.weight" in model.extra
    return "ElectraForQuestionAnswering" if is_joint else model.network.architecture


@contextlib.contextmanager
def _output(config: PredictConfig) -> Iterator[IO[str]]:
    if config.out is None:
        yield sys.stdout
        return
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(config.out, "w") as file:
        yield file
