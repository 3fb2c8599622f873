"""GLUE: its nine tasks with the diagnostic set, as the benchmark distributes them, and its submission file.

    one folder a task (`FOLDERS`) -> fine-tuning -> predictions/CoLA.tsv ... -> `zip_submission` -> submission.zip

Layouts, labels and metrics: Wang et al. 2019 and gluebenchmark.com. Epochs: Clark et al. 2020, table 7. Rows with
training pairs in both orders: google-research/electra finetune/classification/classification_tasks.py.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from electra.files import atomic_file
from electra.tasks.sentences.task import Part, SentenceTask

ENTAILMENT = ("entailment", "not_entailment")


def _parts(submission: str) -> tuple[Part, ...]:
    """The files of most tasks; test files have a header line even where the others have none."""
    return Part("dev", "dev.tsv"), Part("test", "test.tsv", (), submission)


COLA = SentenceTask(
    name="cola",
    text="sentence",
    label="label",
    id="index",
    header=("source", "label", "mark", "sentence"),
    train="train.tsv",
    parts=_parts("CoLA.tsv"),
    labels=("0", "1"),
    label_names=("unacceptable", "acceptable"),
    metric="mcc",
)
"""CoLA, is this English sentence acceptable? (Warstadt et al. 2019): 8,551 / 1,043 / 1,063 rows, four columns without
a header line, `index sentence` in the test file. Metric: Matthews correlation."""

SST2 = SentenceTask(
    name="sst2",
    text="sentence",
    label="label",
    id="index",
    train="train.tsv",
    parts=_parts("SST-2.tsv"),
    labels=("0", "1"),
    label_names=("negative", "positive"),
)
"""SST-2, sentiment of film reviews (Socher et al. 2013): 67,349 / 872 / 1,821 rows, `sentence label`. Accuracy."""

MRPC = SentenceTask(
    name="mrpc",
    text="#1 String",
    pair="#2 String",
    label="Quality",
    id="index",
    train="train.tsv",
    parts=_parts("MRPC.tsv"),
    labels=("0", "1"),
    label_names=("not_equivalent", "equivalent"),
    both_orders=True,
)
"""MRPC, do two sentences mean the same? (Dolan and Brockett 2005): 3,668 / 408 / 1,725 rows,
`Quality, #1 ID, #2 ID, #1 String, #2 String`. Metric: accuracy, F1 beside it."""

STSB = SentenceTask(
    name="stsb",
    text="sentence1",
    pair="sentence2",
    label="score",
    id="index",
    train="train.tsv",
    parts=_parts("STS-B.tsv"),
    kind="regression",
    value_range=(0.0, 5.0),
    metric="spearman",
    epochs=10.0,
    both_orders=True,
)
"""STS-B, how similar are two sentences, from 0 to 5? (Cer et al. 2017): 5,749 / 1,500 / 1,379 rows of ten columns.
Metric: Spearman correlation, Pearson beside it."""

QQP = SentenceTask(
    name="qqp",
    text="question1",
    pair="question2",
    label="is_duplicate",
    id="id",
    train="train.tsv",
    parts=_parts("QQP.tsv"),
    labels=("0", "1"),
    label_names=("not_duplicate", "duplicate"),
)
"""QQP, do two questions of Quora ask the same? 363,846 / 40,430 / 390,965 rows, `id qid1 qid2 question1 question2
is_duplicate`; some rows of the official files are broken. Metric: accuracy, F1 beside it."""

MNLI = SentenceTask(
    name="mnli",
    text="sentence1",
    pair="sentence2",
    label="gold_label",
    id="index",
    train="train.tsv",
    parts=(
        Part("dev", "dev_matched.tsv"),
        Part("dev_mismatched", "dev_mismatched.tsv"),
        Part("test", "test_matched.tsv", submission="MNLI-m.tsv"),
        Part("test_mismatched", "test_mismatched.tsv", submission="MNLI-mm.tsv"),
        Part("diagnostic", "diagnostic.tsv", submission="AX.tsv"),
        Part("diagnostic", "../diagnostic/diagnostic.tsv", submission="AX.tsv"),
    ),
    labels=("contradiction", "entailment", "neutral"),
)
"""MNLI, does the first text entail or contradict the second? (Williams et al. 2018): 392,702 training rows, 9,815 and
9,832 dev rows (of the genres of the training file, and of others), 9,796 and 9,847 test rows. Metric: accuracy. Its
model also answers the diagnostic set (1,104 rows), which lies in this folder or in one beside it."""

QNLI = SentenceTask(
    name="qnli",
    text="question",
    pair="sentence",
    label="label",
    id="index",
    train="train.tsv",
    parts=_parts("QNLI.tsv"),
    labels=ENTAILMENT,
)
"""QNLI, does the sentence answer the question? (from SQuAD): 104,743 / 5,463 / 5,463 rows,
`index question sentence label`. Metric: accuracy."""

RTE = SentenceTask(
    name="rte",
    text="sentence1",
    pair="sentence2",
    label="label",
    id="index",
    train="train.tsv",
    parts=_parts("RTE.tsv"),
    labels=ENTAILMENT,
    epochs=10.0,
)
"""RTE, does the first text entail the second? (Dagan et al. and three later rounds): 2,490 / 277 / 3,000 rows,
`index sentence1 sentence2 label`. Metric: accuracy."""

WNLI = SentenceTask(
    name="wnli",
    text="sentence1",
    pair="sentence2",
    label="label",
    id="index",
    train="train.tsv",
    parts=_parts("WNLI.tsv"),
    labels=("0", "1"),
    label_names=("not_entailment", "entailment"),
)
"""WNLI, does the sentence with the pronoun replaced follow? (Levesque et al. 2012): 635 / 71 / 146 rows,
`index sentence1 sentence2 label`. Metric: accuracy. Its dev file contradicts its training file: most models are below
the majority, and the paper leaves it out."""

TASKS = (COLA, SST2, MRPC, STSB, QQP, MNLI, QNLI, RTE, WNLI)

FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}
"""The folder of each task in the benchmark's download."""

SUBMISSION = {
    "CoLA.tsv": 1063,
    "SST-2.tsv": 1821,
    "MRPC.tsv": 1725,
    "STS-B.tsv": 1379,
    "QQP.tsv": 390_965,
    "MNLI-m.tsv": 9796,
    "MNLI-mm.tsv": 9847,
    "QNLI.tsv": 5463,
    "RTE.tsv": 3000,
    "WNLI.tsv": 146,
    "AX.tsv": 1104,
}
"""The files of a submission and their rows below the header line. A zip that lacks one is not accepted."""


def zip_submission(tree: Path, out: Path) -> list[str]:
    """Collect the predictions below `tree` in the zip file `out`; returns what it lacks, as phrases.

    Of several files with one name that closest to `tree` is taken; ValueError if two are equally close. Nothing is
    made up for absent tasks: the benchmark accepts whole submissions only.
    """
    chosen: dict[str, Path] = {}
    lacks = []
    for name, rows in SUBMISSION.items():
        found = sorted(tree.rglob(name), key=lambda path: len(path.parts))
        if not found:
            lacks.append(name)
            continue
        if len(found) > 1 and len(found[0].parts) == len(found[1].parts):
            raise ValueError(
                f"{found[0]} and {found[1]} are both predictions for {name}: keep one of them below {tree}"
            )
        chosen[name] = found[0]
        size = found[0].read_text(encoding="utf-8").count("\n") - 1
        if size != rows:
            lacks.append(f"the right number of rows in {name} ({size:,}, not {rows:,})")
    if not chosen:
        raise ValueError(f"{tree} holds no predictions for GLUE ({', '.join(SUBMISSION)})")
    with atomic_file(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in chosen.items():
            # With a fixed date: the same predictions are the same bytes.
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return lacks
