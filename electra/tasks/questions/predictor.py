"""Questions about passages -> answers, with fine-tuned model folders: `predictor.Predictor` for this kind.

    --question and --context, a file as files.py reads it, or JSON lines from standard input -> `Question`s
    -> windows (features.py) -> models -> best spans (answers.py) -> `GivenAnswer`s

Takes the folders of `electra finetune` with either head, of transformers (ElectraForQuestionAnswering), and what
`electra convert` makes of Google's fine-tuned checkpoints. How passages are cut, and above which odds the answer is
that there is none, stand in a folder of ours; of another one passages are cut in the usual way and a question always
has an answer, unless a threshold is given.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from electra.config import PredictConfig, QuestionConfig
from electra.interop.hf import Pretrained
from electra.runtime import Runtime
from electra.tasks.predictor import check_alike
from electra.tasks.prepared import mean_outputs
from electra.tasks.problems import Problems
from electra.tasks.questions.answers import Answer, find_answers, predict_windows
from electra.tasks.questions.features import QuestionFeatures, build_features
from electra.tasks.questions.files import Question, read_questions
from electra.tasks.questions.heads import JointQuestionModel, SimpleQuestionModel
from electra.tasks.questions.prepared import THRESHOLD, question_head, window_options
from electra.tasks.questions.windows import WindowOptions
from electra.tasks.streams import check_whole, read_lines
from electra.tasks.tables import as_text, whole_text
from electra.tokenizer import Vocabulary


@dataclass(frozen=True)
class GivenAnswer:
    """What is said to one question."""

    id: str
    text: str
    """A part of the passage; nothing where the odds of no answer are above the threshold."""
    found: Answer

    @property
    def score(self) -> float:
        """The probability of the best span among the candidates."""
        return self.found.candidates[0].probability

    def tsv(self) -> str:
        values = (self.id, self.text, f"{self.score:.6f}", f"{self.found.null_odds:.6f}")
        return "\t".join(" ".join(value.split()) for value in values) + "\n"

    def row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "answer": self.text,
            "score": self.score,
            "null_odds": self.found.null_odds,
            "candidates": [candidate.as_json() for candidate in self.found.candidates],
        }


@dataclass(frozen=True)
class QuestionPredictor:
    """Models that are ready to answer; of several the logits are averaged."""

    models: tuple[SimpleQuestionModel | JointQuestionModel, ...]
    vocabulary: Vocabulary
    windows: WindowOptions
    runtime: Runtime
    threshold: float | None
    """Of the null odds, above which the answer is nothing; none: there is always an answer."""
    options: QuestionConfig
    batch_tokens: int = 0

    @property
    def header(self) -> str:
        return "id\tanswer\tscore\tnull_odds\n"

    def read(self, config: PredictConfig) -> Iterable[Question]:
        if config.column:
            raise ValueError("--column is for models of another kind: a file of questions has names of its own")
        if config.question:
            context = check_whole("--context", config.context)
            return [
                Question(str(i), check_whole("--question", text), context) for i, text in enumerate(config.question)
            ]
        if config.text:
            raise ValueError("--text is for models of another kind: this one takes --question and --context, or a file")
        return _read_standard_input() if config.file is None else _read_file(config)

    def encode(self, inputs: Sequence[Question]) -> tuple[Sequence[Question], QuestionFeatures | None]:
        return inputs, build_features(inputs, self.vocabulary, self.windows) if inputs else None

    def answer(self, encoded: tuple[Sequence[Question], QuestionFeatures | None]) -> list[GivenAnswer]:
        questions, features = encoded
        if features is None:
            return []
        outputs = [predict_windows(model, features, self.runtime, self.batch_tokens) for model in self.models]
        answers = find_answers(
            outputs[0] if len(outputs) == 1 else mean_outputs(outputs),
            questions,
            features,
            self.vocabulary,
            n_best=self.options.n_best,
            max_answer_length=self.options.max_answer_length,
            unanswerable=True,
        )
        return [
            GivenAnswer(question.id, answer.given(self.threshold), answer)
            for question, answer in zip(questions, answers, strict=True)
        ]

    def __call__(self, inputs: Sequence[Question]) -> list[GivenAnswer]:
        return self.answer(self.encode(inputs))


def load_question_predictor(
    pretrained: Sequence[Pretrained], runtime: Runtime, config: PredictConfig
) -> QuestionPredictor:
    """The models of some folders on the device of `runtime`, with windows and threshold of the first of them.

    ValueError for a folder without a head for question answering, and for several that cannot answer together.
    """
    check_alike(pretrained, [()] * len(pretrained))
    options = QuestionConfig()
    models = tuple(_load_model(each, options.beam_size).to(runtime.device) for each in pretrained)
    if len(models) > 1 and any(isinstance(model, JointQuestionModel) for model in models):
        raise ValueError(f"{pretrained[0].source}: the answers of joint heads cannot be averaged; give one model")
    return QuestionPredictor(
        models=models,
        vocabulary=pretrained[0].vocabulary,
        windows=window_options(pretrained[0], options, config.max_length, trained=True),
        runtime=runtime,
        threshold=pretrained[0].hf_config.get(THRESHOLD) if config.null_threshold is None else config.null_threshold,
        options=options,
        batch_tokens=config.batch_tokens,
    )


def _load_model(pretrained: Pretrained, beam_size: int) -> SimpleQuestionModel | JointQuestionModel:
    kind, head = question_head(pretrained)
    model: SimpleQuestionModel | JointQuestionModel
    if kind == "simple":
        model = SimpleQuestionModel(pretrained.config)
    else:
        model = JointQuestionModel(pretrained.config, beam_size)
    model.encoder.load_state_dict(pretrained.encoder_state)
    model.head.load_state_dict(head)
    return model


def _read_file(config: PredictConfig) -> list[Question]:
    assert config.file is not None
    problems = Problems()
    questions = read_questions(config.file, problems).questions
    for sentence in problems.sentences():
        if "left out" in sentence:
            print(f"fault     {sentence}", file=sys.stderr)
    return questions


def _read_standard_input() -> Iterator[Question]:
    """A JSON object a line, with "question", "context" and perhaps "id"."""
    for number, line in read_lines(None):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"standard input, line {number}: not valid JSON ({error})") from None
        question, context = (row.get("question"), row.get("context")) if isinstance(row, dict) else (None, None)
        if not isinstance(question, str) or not isinstance(context, str):
            raise ValueError(
                f'standard input, line {number}: a line must be an object {{"question": ..., "context": ...}} of texts'
            )
        name = as_text(row.get("id")) or str(number)
        yield Question(name, whole_text(question), whole_text(context))
