"""Korean sentence tasks, with the files, columns, labels and metrics of monologg/KoELECTRA (finetune/).

Where KoELECTRA had no dev file it chose its checkpoints on the test file (`published_dev`); here a part of the training
file takes its place, unless --published-protocol asks for the other. Labels are in KoELECTRA's order.
"""

from __future__ import annotations

from electra.tasks.sentences.task import Part, SentenceTask

NSMC = SentenceTask(
    name="nsmc",
    text="document",
    label="label",
    id="id",
    train="ratings_train.txt",
    parts=(Part("dev", "ratings_dev.txt"), Part("test", "ratings_test.txt")),
    published_dev="test",
    labels=("0", "1"),
    label_names=("negative", "positive"),
)
"""NSMC, sentiment of Korean film reviews (github.com/e9t/nsmc): 150,000 training and 50,000 test rows, header
`id document label`; some documents are empty, and kept. Metric: accuracy."""

KORNLI = SentenceTask(
    name="kornli",
    text="sentence1",
    pair="sentence2",
    label="gold_label",
    train="multinli.train.ko.tsv",
    parts=(Part("dev", "xnli.dev.ko.tsv"), Part("test", "xnli.test.ko.tsv")),
    labels=("contradiction", "entailment", "neutral"),
)
"""KorNLI, entailment (Ham et al. 2020, github.com/kakaobrain/KorNLUDatasets): MultiNLI by machine for training, XNLI
by people for 2,490 dev and 5,010 test rows; header `sentence1 sentence2 gold_label`. Metric: accuracy."""

KORSTS = SentenceTask(
    name="korsts",
    text="sentence1",
    pair="sentence2",
    label="score",
    train="sts-train.tsv",
    parts=(Part("dev", "sts-dev.tsv"), Part("test", "sts-test.tsv")),
    kind="regression",
    value_range=(0.0, 5.0),
    metric="spearman",
    epochs=10.0,
)
"""KorSTS, similarity from 0 to 5 (Ham et al. 2020): STS-B translated, 5,749 / 1,500 / 1,379 rows of seven columns.
Metric: Spearman correlation, Pearson beside it."""

PAWS = SentenceTask(
    name="paws",
    text="sentence1",
    pair="sentence2",
    label="label",
    train="translated_train.tsv",
    parts=(Part("dev", "dev_2k.tsv"), Part("test", "test_2k.tsv")),
    labels=("0", "1"),
    label_names=("different", "same"),
    skip_empty=True,
)
"""PAWS-X in Korean, do two sentences of nearly the same words mean the same? (Yang et al. 2019): header
`id sentence1 sentence2 label`; rows with an empty sentence are left out, as in KoELECTRA. Metric: accuracy."""

QUESTION_PAIR = SentenceTask(
    name="question-pair",
    text="question1",
    pair="question2",
    label="is_duplicate",
    train="train.tsv",
    parts=(Part("dev", "dev.tsv"), Part("test", "test.tsv")),
    labels=("0", "1"),
    label_names=("same", "different"),
)
"""Question Pair, do two Korean questions ask the same? (github.com/songys/Question_pair): 6,136 / 682 / 758 rows,
header `question1 question2 is_duplicate`. In spite of the column's name, 0 is *the same* and 1 different: the pairs of
two equal sentences carry 0. Metric: accuracy."""

HATE_SPEECH = SentenceTask(
    name="hate-speech",
    text="comment",
    label="hate",
    train="train.tsv",
    parts=(Part("test", "val.tsv"),),
    published_dev="test",
    labels=("none", "offensive", "hate"),
    metric="macro_f1",
)
"""Korean hate speech in comments on news (Moon et al. 2020, github.com/kocohub/korean-hate-speech): 7,896 rows, and 471
that published results name test; header `title comment bias hate`, of which comment and hate count. Macro F1."""

TASKS = (NSMC, KORNLI, KORSTS, PAWS, QUESTION_PAIR, HATE_SPEECH)

FOLDERS = {
    "nsmc": "nsmc",
    "kornli": "kornli",
    "paws": "paws",
    "korsts": "korsts",
    "question-pair": "question-pair",
    "hate-speech": "hate-speech",
    "naver-ner": "naver-ner",
    "korquad": "korquad",
}
"""The folder of each of KoELECTRA's eight tasks in its finetune/data; two of them are not sentence tasks."""
