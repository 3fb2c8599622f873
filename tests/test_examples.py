"""Named and own tasks: their files, splits, label sets, folds, and rows that cannot be used."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from electra.config import TaskConfig
from electra.tasks.catalogue import GROUPS, TASKS, find_task
from electra.tasks.problems import Problems
from electra.tasks.sentences.examples import Fold, Split, TaskData, load_task_data
from electra.tasks.sentences.glue import COLA, MNLI, MRPC, SST2, STSB
from electra.tasks.sentences.korean import HATE_SPEECH, NSMC, PAWS
from electra.tasks.sentences.task import SentenceTask

CUSTOM = find_task("custom", TaskConfig())


def write(folder: Path, **files: str) -> Path:
    """Write train_tsv="..." as train.tsv and so on."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        head, _, suffix = name.rpartition("_")
        (folder / f"{head}.{suffix}").write_text(text, encoding="utf-8", newline="")
    return folder


def load(task: SentenceTask, folder: Path, **options: object) -> TaskData:
    return load_task_data(task, folder, Problems(), **options)


def texts(split: Split) -> list[str]:
    return [row.text for row in split.examples]


def table(*rows: Sequence[object]) -> str:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


# ------------------------------------------------------------------------------------------------ real files


@pytest.mark.parametrize(
    ("name", "folder", "sizes"),
    [
        ("sst2", "glue/SST-2", {"train": 67349, "dev": 872, "test": 1821}),
        ("cola", "glue/CoLA", {"train": 8551, "dev": 1043, "test": 1063}),
        ("mrpc", "glue/MRPC", {"train": 2 * 3668, "dev": 408, "test": 1725}),
        ("rte", "glue/RTE", {"train": 2490 - 249, "dev": 249, "test": 3000}),
        ("stsb", "glue/STS-B", {"train": 2 * (5749 - 575), "dev": 575, "test": 1379}),
        ("wnli", "glue/WNLI", {"train": 635 - 64, "dev": 64, "test": 146}),
        ("nsmc", "nsmc", {"train": 135_000, "dev": 15_000}),
        ("korsts", "koelectra_splits/korsts", {"train": 5749, "dev": 1500}),
        ("question-pair", "koelectra_splits/question-pair", {"train": 6136, "dev": 682}),
        ("hate-speech", "koelectra_splits/hate-speech", {"train": 7896 - 790, "dev": 790}),
    ],
)
def test_official_files_have_their_official_row_counts(
    real_data: Path, name: str, folder: str, sizes: dict[str, int]
) -> None:
    problems = Problems()
    data = load_task_data(TASKS[name], real_data / folder, problems)
    assert {split: len(found.examples) for split, found in data.splits.items()} == sizes
    assert problems.counts() == ({"rows with an empty text: kept": 5} if name == "nsmc" else {})
    assert "test" not in data.splits or data.splits["test"].labels is None
    labels = data.splits["train"].labels
    if data.task.kind == "regression":
        assert (labels.min(), labels.max()) == (0, 5)
    else:
        assert set(labels.tolist()) == set(range(len(data.task.labels)))
    assert all((row.pair is not None) == bool(data.task.pair) for row in data.splits["dev"].examples)


@pytest.mark.parametrize(
    ("name", "folder", "split", "count"),
    [
        ("paws", "koelectra_splits/paws", "dev", 2000),
        ("kornli", "koelectra_splits/kornli", "dev", 2490),
        ("qnli", "glue/QNLI", "dev", 5463),
        ("mnli", "glue/diagnostic", "diagnostic", 1104),
    ],
)
def test_files_without_a_training_file_can_be_answered(
    real_data: Path, name: str, folder: str, split: str, count: int
) -> None:
    data = load(TASKS[name], real_data / folder, train=False)
    assert {found: len(rows.examples) for found, rows in data.splits.items()} == {split: count}


def test_mrpc_keeps_quotes_and_the_first_row(real_data: Path) -> None:
    dev = load(MRPC, real_data / "glue/MRPC").splits["dev"].examples
    assert sum('"' in row.text for row in dev) > 50
    assert dev[0].line == 2


def test_equal_questions_are_the_same_question(real_data: Path) -> None:
    """Class 0 of Question Pair, though its column is called is_duplicate."""
    data = load(TASKS["question-pair"], real_data / "koelectra_splits/question-pair")
    train = data.splits["train"]
    equal = [label for row, label in zip(train.examples, train.labels, strict=True) if row.text == row.pair]
    assert len(equal) > 500
    assert np.mean(equal) < 0.01
    assert data.task.output_names[0] == "same"


# -------------------------------------------------------------------------------------------- named layouts


def test_mnli_has_two_dev_and_three_test_files(tmp_path: Path) -> None:
    header = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
    columns = [*header.split(), "sentence1", "sentence2"]
    row = ["0", *"1234567", "a b", "c"]
    labelled = table([*columns, "label1", "gold_label"], [*row, "neutral", "neutral"], [*row, "x", "entailment"])
    dev = table([*columns, *(f"label{i}" for i in range(1, 6)), "gold_label"], [*row, *"12345", "contradiction"])
    folder = write(
        tmp_path / "MNLI",
        train_tsv=labelled,
        dev_matched_tsv=dev,
        dev_mismatched_tsv=dev,
        test_matched_tsv=table(columns, row),
        test_mismatched_tsv=table(columns, row),
    )
    write(tmp_path / "diagnostic", diagnostic_tsv=table(["index", "sentence1", "sentence2"], [7, "a", "b"]))
    data = load(MNLI, folder)
    assert list(data.splits) == ["train", "dev", "dev_mismatched", "test", "test_mismatched", "diagnostic"]
    assert data.splits["train"].labels.tolist() == [2, 1]
    assert data.splits["dev_mismatched"].labels.tolist() == [0]
    assert data.splits["diagnostic"].labels is None
    assert data.splits["diagnostic"].examples[0].id == "7"
    assert [split.submission for split in data.splits.values()] == ["", "", "", "MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"]


def test_broken_rows_of_qqp_are_left_out(tmp_path: Path) -> None:
    header = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
    rows = table(header, [0, 1, 2, "a?", "b?", 0], [1, 3, 4, "c"], [2, 5, 6, "d?", "e?", 1], [2, 7, 8, "f?", "", 1])
    problems = Problems()
    data = load_task_data(TASKS["qqp"], write(tmp_path, train_tsv=rows, dev_tsv=rows), problems)
    assert data.splits["train"].labels.tolist() == [0, 1, 1]
    assert problems.counts() == {
        "rows with another number of columns than 6: left out": 2,
        "rows with an empty text: kept": 2,
        "rows with the id of an earlier row: kept": 2,
    }


def test_cola_has_a_header_in_its_test_file_alone(tmp_path: Path) -> None:
    rows = "x\t1\t\tfine\nx\t0\t*\tnot fine\n"
    data = load(COLA, write(tmp_path, train_tsv=rows, dev_tsv=rows, test_tsv="index\tsentence\n5\tsome\n"))
    assert [texts(split) for split in data.splits.values()] == [["fine", "not fine"], ["fine", "not fine"], ["some"]]
    assert "test.tsv has no column 'label': it is answered and not scored" in data.notes[0]


def test_korean_layouts(tmp_path: Path) -> None:
    paws = table(["id", "sentence1", "sentence2", "label"], [1, "a", "b", 1], [2, "", "b", 0], [3, "c", "d", 0])
    problems = Problems()
    data = load_task_data(PAWS, write(tmp_path / "p", translated_train_tsv=paws, dev_2k_tsv=paws), problems)
    assert texts(data.splits["dev"]) == ["a", "c"]
    assert problems.counts() == {"rows with an empty text: left out": 2}
    hate = [[f"t{i}", f"c{i}", "none", ("none", "offensive", "hate")[i % 3]] for i in range(30)]
    rows = table(["title", "comment", "bias", "hate"], *hate)
    data = load(HATE_SPEECH, write(tmp_path / "h", train_tsv=rows, val_tsv=rows))
    assert (texts(data.splits["test"])[:2], data.splits["test"].labels[:3].tolist()) == (["c0", "c1"], [0, 1, 2])
    assert len(data.splits["dev"].examples) == 3


def test_published_protocol_chooses_on_the_test_file(tmp_path: Path) -> None:
    rows = table(["id", "document", "label"], *([i, f"t{i}", i % 2] for i in range(20)))
    write(tmp_path, ratings_train_txt=rows)
    with pytest.raises(ValueError, match=r"has no ratings_test.txt, which --published-protocol takes"):
        load(NSMC, tmp_path, published=True)
    write(tmp_path, ratings_test_txt=table(["id", "document", "label"], [77, "t", 1]))
    ours, theirs = load(NSMC, tmp_path), load(NSMC, tmp_path, published=True)
    sizes = [{name: len(split.examples) for name, split in data.splits.items()} for data in (ours, theirs)]
    assert sizes == [{"train": 18, "dev": 2, "test": 1}, {"train": 20, "dev": 1}]
    assert "these scores are no measure of unseen text" in theirs.notes[0]
    header = ["sentence", "label"]
    other = write(tmp_path / "s", train_tsv=table(header, ["a", 0], ["b", 1]), dev_tsv=table(header, ["a", 0]))
    assert "changes nothing for sst2" in load(SST2, other, published=True).notes[0]


def test_groups_name_tasks_and_folders() -> None:
    assert len(GROUPS["glue"]) == 9
    assert len(GROUPS["korean"]) == 8
    assert all(task in TASKS for group in GROUPS.values() for task in group)


# ------------------------------------------------------------------------------------------------- own tasks


def test_three_formats_give_the_same_examples(tmp_path: Path) -> None:
    formats = {
        "train_tsv": 'label\ttext\nyes\ta "quote\nno\tplain',
        "train_csv": 'text,label\n"a ""quote",yes\nplain,no\n',
        "train_jsonl": '{"text": "a \\"quote", "label": "yes"}\n{"label": "no", "text": "plain"}\n',
    }
    for name, text in formats.items():
        folder = write(tmp_path / name, **{name: text, name.replace("train", "dev"): text})
        data = load(CUSTOM, folder)
        assert data.task.labels == ("no", "yes")
        assert texts(data.splits["train"]) == ['a "quote', "plain"]
        assert data.splits["train"].labels.tolist() == [1, 0]


def test_json_labels_may_be_numbers(tmp_path: Path) -> None:
    rows = "".join(f'{{"text": "t", "label": {label}}}\n' for label in (10, 2, 10))
    assert load(CUSTOM, write(tmp_path, train_jsonl=rows, dev_jsonl=rows)).task.labels == ("2", "10")


def test_a_toml_file_describes_a_task(tmp_path: Path) -> None:
    path = tmp_path / "stars.toml"
    path.write_text('kind = "regression"\ntext = "body"\nlabel = "stars"\nid = "number"\n')
    task = find_task(str(path), TaskConfig())
    assert (task.name, task.kind, task.text, task.metric) == ("stars", "regression", "body", "spearman")
    path.write_text('kinds = "regression"\n')
    with pytest.raises(ValueError, match=r"stars.toml: unknown key 'kinds'"):
        find_task(str(path), TaskConfig())


def test_unknown_task_and_misplaced_columns() -> None:
    with pytest.raises(ValueError, match="unknown task 'sst': choose one of cola, sst2, mrpc"):
        find_task("sst", TaskConfig())
    with pytest.raises(ValueError, match="--task sst2 has its own columns"):
        find_task("sst2", TaskConfig(text="review"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"metric": "pearson"}, "custom.metric of custom.kind classification must be one of auto, accuracy"),
        ({"kind": "multi-label", "metric": "mcc"}, "must be one of auto, micro_f1, macro_f1, accuracy, not mcc"),
        ({"kind": "multiple-choice"}, "custom.choices must name the columns of at least two choices"),
        ({"choices": ("a", "b")}, "custom.choices is for custom.kind multiple-choice"),
        ({"kind": "multiple-choice", "choices": ("a", "b"), "labels": ("1",)}, "custom.labels must name each choice"),
        ({"kind": "regression", "labels": ("1", "2")}, "custom.labels has no meaning for a regression"),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        TaskConfig(**fields)


def test_several_labels(tmp_path: Path) -> None:
    task = find_task("custom", TaskConfig(kind="multi-label", separator=";"))
    rows = "text\tlabel\nx\tred; blue\ny\t\nz\tgreen\n"
    data = load(task, write(tmp_path, train_tsv=rows, dev_tsv="text\tlabel\nx\tblue;pink\ny\tgreen\n"))
    assert data.task.labels == ("blue", "green", "red")
    assert data.splits["train"].labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert data.splits["dev"].labels.tolist() == [[-1, -1, -1], [0, 1, 0]]
    lists = '{"text": "x", "label": ["red", "blue"]}\n{"text": "y", "label": []}\n'
    again = load(task, write(tmp_path / "j", train_jsonl=lists, dev_jsonl=lists))
    assert again.splits["train"].labels.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("labels", "expected", "numbers"),
    [
        ("0 2 1", "012", [0, 2, 1]),
        ("1 3 3", "123", [0, 2, 2]),
        ("A C B", "ABC", [0, 2, 1]),
        ("b b a", "abc", [1, 1, 0]),
        ("left right mid", ("left", "mid", "right"), [0, 2, 1]),
    ],
)
def test_labels_of_choices(tmp_path: Path, labels: str, expected: Sequence[str], numbers: list[int]) -> None:
    task = find_task("custom", TaskConfig(kind="multiple-choice", choices=("left", "mid", "right")))
    rows = table(["text", "left", "mid", "right", "label"], *(["q", "x", "y", "z", label] for label in labels.split()))
    data = load(task, write(tmp_path, train_tsv=rows, dev_tsv=rows))
    assert data.task.labels == tuple(expected)
    assert data.splits["dev"].labels.tolist() == numbers
    assert data.splits["dev"].examples[0].choices == ("x", "y", "z")


@pytest.mark.parametrize(("label", "sentence"), [("2", "from 0 or from 1"), ("?", "names none of 3 choices")])
def test_labels_of_choices_that_say_too_little(tmp_path: Path, label: str, sentence: str) -> None:
    task = find_task("custom", TaskConfig(kind="multiple-choice", choices=("a", "b", "c")))
    rows = table(["text", "a", "b", "c", "label"], ["q", "x", "y", "z", label], ["q", "x", "y", "z", label])
    with pytest.raises(ValueError, match=sentence):
        load(task, write(tmp_path, train_tsv=rows, dev_tsv=rows))


# ---------------------------------------------------------------------------------------------------- splits


def test_dev_set_is_cut_the_same_way_each_time_and_apart(tmp_path: Path) -> None:
    write(tmp_path, train_tsv="text\tlabel\n" + "".join(f"t{i}\t{i % 2}\n" for i in range(50)))
    data = load(CUSTOM, tmp_path)
    train, dev = texts(data.splits["train"]), texts(data.splits["dev"])
    assert (len(train), len(dev)) == (45, 5)
    assert not set(train) & set(dev)
    assert "5 of 50 training examples (10%, seed 0) are kept apart" in data.notes[0]
    assert texts(load(CUSTOM, tmp_path).splits["dev"]) == dev
    fewer = texts(load(CUSTOM, tmp_path, max_train=7).splits["train"])
    assert len(fewer) == 7
    assert set(fewer) < set(train)
    assert list(load(CUSTOM, tmp_path, cut_dev=False).splits) == ["train"]


def test_folds_are_those_of_scikit_learn(tmp_path: Path) -> None:
    labels = [0] * 30 + [1] * 12 + [2] * 2
    rows = "text\tlabel\n" + "".join(f"t{i}\t{label}\n" for i, label in enumerate(labels))
    write(tmp_path, train_tsv=rows)
    with pytest.warns(UserWarning, match="least populated class"):
        expected = list(StratifiedKFold(4, shuffle=True, random_state=0).split(labels, labels))
    seen = []
    for number in range(4):
        data = load(CUSTOM, tmp_path, fold=Fold(number, 4))
        assert texts(data.splits["dev"]) == [f"t{i}" for i in expected[number][1]]
        assert texts(data.splits["train"]) == [f"t{i}" for i in expected[number][0]]
        seen += texts(data.splits["dev"])
    assert sorted(seen) == sorted(f"t{i}" for i in range(44))
    with pytest.raises(ValueError, match="--folds 45 is more than the 44 examples"):
        load(CUSTOM, tmp_path, fold=Fold(0, 45))
    write(tmp_path, dev_tsv=rows)
    with pytest.raises(ValueError, match=r"--folds is for tasks without a dev file, and .*dev.tsv is one"):
        load(CUSTOM, tmp_path, fold=Fold(0, 4))


def test_symmetric_pairs_train_in_both_orders(tmp_path: Path) -> None:
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    write(tmp_path, train_tsv=header + "1\t1\t2\ta\tb\n0\t1\t2\tc\td\n", dev_tsv=header + "1\t3\t4\te\tf\n")
    data = load(MRPC, tmp_path)
    train = data.splits["train"]
    assert [(row.text, row.pair) for row in train.examples] == [("a", "b"), ("c", "d"), ("b", "a"), ("d", "c")]
    assert train.labels.tolist() == [1, 0, 1, 0]
    assert [(row.text, row.pair) for row in data.splits["dev"].examples] == [("e", "f")]


def test_test_file_is_scored_only_with_labels(tmp_path: Path) -> None:
    rows = "text\tlabel\na\t0\nb\t1\n"
    write(tmp_path, train_tsv=rows, dev_tsv=rows, test_tsv="text\na\n")
    assert load(CUSTOM, tmp_path).splits["test"].labels is None
    problems = Problems()
    dummies = load_task_data(CUSTOM, write(tmp_path, test_tsv="text\tlabel\na\t-1\nb\t-1\n"), problems)
    assert dummies.splits["test"].labels is None
    assert problems.counts() == {}
    assert load(CUSTOM, write(tmp_path, test_tsv=rows)).splits["test"].labels.tolist() == [0, 1]


# -------------------------------------------------------------------------------------------------- bad rows

GOOD = "text\tlabel\na\t0\nb\t1\n"


@pytest.mark.parametrize(
    ("files", "task", "sentence"),
    [
        ({}, CUSTOM, "has no train.tsv or train.csv or train.jsonl, which the task custom needs"),
        ({}, SST2, "has no train.tsv, which the task sst2 needs"),
        ({"train_tsv": GOOD, "train_csv": "text,label\n"}, CUSTOM, "has train.tsv and train.csv: keep one"),
        ({"train_tsv": ""}, CUSTOM, "train.tsv holds no examples"),
        ({"train_tsv": "text\tlabel\n"}, CUSTOM, "train.tsv holds no examples"),
        ({"train_tsv": "text\tlabel\na\nb\n"}, CUSTOM, "holds no examples: 2 rows with another number of columns"),
        ({"train_tsv": "sentence\tlabel\na\t0\n"}, CUSTOM, "no column 'text'; the columns here are sentence, label"),
        ({"train_tsv": "text\tlabels\na\t0\n"}, CUSTOM, "train.tsv has no column 'label' for the labels"),
        ({"train_tsv": GOOD, "dev_tsv": "text\na\n"}, CUSTOM, "dev.tsv has no column 'label' for the labels"),
        ({"train_tsv": GOOD, "dev_tsv": "text\tlabel\na\t7\n"}, CUSTOM, "dev.tsv has no label of the label set (0, 1)"),
        ({"train_tsv": "sentence\tlabel\na\tx\n"}, SST2, "no label of the label set (0, 1): its first is 'x'"),
        ({"train_tsv": "text\tlabel\na\t0\nb\t0\n"}, CUSTOM, "the only label is '0'"),
        ({"train_tsv": "sentence\tlabel\na\t0\n"}, SST2, "too few to cut a dev set from"),
        ({"train_jsonl": '{"text": "a"}\n{"text": "b", "label": 1}\n'}, CUSTOM, "the only label is '1'"),
    ],
)
def test_useless_files(tmp_path: Path, files: dict[str, str], task: SentenceTask, sentence: str) -> None:
    write(tmp_path, **files)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load(task, tmp_path)


def test_labels_that_nobody_knows(tmp_path: Path) -> None:
    """A training row is left out; of the others the answer is wanted all the same, the score is not."""
    header = "sentence\tlabel\n"
    folder = write(
        tmp_path,
        train_tsv=header + "a\t0\nb\t1\nc\tone\nd\t1\n",
        dev_tsv=header + "a\t0\nb\t2\n",
        test_tsv=header + "a\t1\nb\t\n",
    )
    problems = Problems()
    data = load_task_data(SST2, folder, problems)
    assert texts(data.splits["train"]) == ["a", "b", "d"]
    assert {name: split.labels.tolist() for name, split in data.splits.items()} == {
        "train": [0, 1, 1],
        "dev": [0, -1],
        "test": [1, -1],
    }
    fault = "rows whose label is not in the label set (0, 1)"
    assert problems.counts() == {f"{fault}: left out": 1, f"{fault}: not scored": 2}
    assert "train.tsv, line 4 ('one')" in problems.sentences()[0]


def test_a_label_that_occurs_once_may_be_a_typo(tmp_path: Path) -> None:
    rows = "text\tlabel\n" + "".join(f"t{i}\t{('no', 'yes')[i % 2]}\n" for i in range(60)) + "x\tyse\n"
    assert any("only once: 'yse'" in note for note in load(CUSTOM, write(tmp_path, train_tsv=rows)).notes)


def test_values_of_a_regression(tmp_path: Path) -> None:
    task = find_task("custom", TaskConfig(kind="regression"))
    write(tmp_path, train_tsv="text\tlabel\na\t-1\nb\thigh\nc\tnan\nd\t6\n", dev_tsv="text\tlabel\na\t1\nb\t?\n")
    problems = Problems()
    data = load_task_data(task, tmp_path, problems)
    assert data.task.value_range == (-1, 6)
    assert data.splits["train"].labels.tolist() == [-1, 6]
    np.testing.assert_array_equal(data.splits["dev"].labels, np.array([1, np.nan], dtype=np.float32))
    assert sum(problems.counts().values()) == 3
    with pytest.raises(ValueError, match="there is nothing to learn"):
        load(task, write(tmp_path, train_tsv="text\tlabel\na\t2\nb\t2\n"))
    with pytest.raises(ValueError, match="no number as a label: the first is 'x'"):
        load(task, write(tmp_path, train_tsv="text\tlabel\na\tx\n"))
    assert STSB.value_range == (0, 5)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        load(CUSTOM, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has none of the files of the task sst2 \(dev.tsv or test.tsv\)"):
        load(SST2, tmp_path, train=False)
