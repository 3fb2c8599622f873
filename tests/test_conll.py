"""Reading sentences with tags: the layouts, the official files, and whatever can be wrong with a file."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold

from electra.config import FinetuneConfig, TaskConfig
from electra.tasks.catalogue import find_task
from electra.tasks.problems import Problems
from electra.tasks.tagging.conll import Sentence, one_field, read_sentences
from electra.tasks.tagging.data import TaggingData, load_tagging_data
from electra.tasks.tagging.task import CHUNK, CONLL2003, KLUE_NER, NAVER_NER, TaggingTask, custom_tagging_task

CUSTOM = custom_tagging_task("custom", TaskConfig(kind="tagging"))
CHUNKS = "The DT B-NP\nfilm NN I-NP\nends VBZ B-VP\n. . O\n\nSo RB B-ADVP\n"


def read(folder: Path, text: str, task: TaggingTask = CUSTOM, name: str = "train.txt") -> tuple[list[Sentence], str]:
    """The sentences of a file with this text, and what was wrong with it."""
    (folder / name).write_text(text, encoding="utf-8", newline="")
    problems = Problems()
    return read_sentences(folder / name, task, problems), "; ".join(problems.sentences())


def load(task: TaggingTask, folder: Path, fold: int | None = None, **changes: object) -> tuple[TaggingData, str]:
    problems = Problems()
    config = dataclasses.replace(FinetuneConfig(model="m", data=folder, out=folder / "out"), **changes)
    return load_tagging_data(task, config, fold, (), problems), "; ".join(problems.sentences())


# ------------------------------------------------------------------------------------------------ real files


def test_conll2000_has_its_official_counts(real_data: Path) -> None:
    data, faults = load(CHUNK, real_data / "conll2000")
    assert (len(data.splits["train"]), len(data.splits["dev"])) == (8936 - 894, 894)
    assert sum(len(found.words) for sentences in data.splits.values() for found in sentences) == 211_727
    assert not faults
    assert (data.scheme, data.learned) == ("iob2", "bioes")
    assert {label[2:] for label in data.task.labels if label != "O"} == {
        "ADJP", "ADVP", "CONJP", "INTJ", "LST", "NP", "PP", "PRT", "SBAR", "UCP", "VP",
    }  # fmt: skip


def test_klue_has_its_official_counts(real_data: Path) -> None:
    problems = Problems()
    path = real_data / "klue" / "klue-ner-v1.1_dev.tsv"
    found = read_sentences(path, KLUE_NER, problems)
    text = path.read_text(encoding="utf-8")
    marked = [line.split("\t")[1] for line in text.split("\n") if line.startswith("## klue-ner")]
    assert len(found) == len(marked) == 5000
    assert not problems.sentences()
    for sentence, line in zip(found, marked, strict=True):
        assert len(sentence.tags) == len("".join(sentence.words))
        assert "".join(sentence.words) == "".join(re.sub(r"<([^<>]*):[A-Z]{2}>", r"\1", line).split())
        # Two entities begin with a blank, whose B goes with it, as in the KLUE baseline.
        assert sum(tag[0] == "B" for tag in sentence.tags) == len(re.findall(r"<[^<>\s][^<>]*:[A-Z]{2}>", line))


# --------------------------------------------------------------------------------------------------- layouts


def test_columns(tmp_path: Path) -> None:
    expected = [
        Sentence(("The", "film", "ends", "."), ("B-NP", "I-NP", "B-VP", "O"), 1),
        Sentence(("So",), ("B-ADVP",), 6),
    ]
    assert read(tmp_path, CHUNKS) == (expected, "")
    assert read(tmp_path, CHUNKS.replace("\n", "\r\n"), CHUNK) == (expected, "")
    assert read(tmp_path, "\n\n" + CHUNKS.replace("\n\n", "\n\n\n")[:-1])[0][1].words == ("So",)
    parts = custom_tagging_task("custom", TaskConfig(kind="tagging", label="1"))
    assert read(tmp_path, CHUNKS, parts)[0][0].tags == ("DT", "NN", "VBZ", ".")


def test_documents_comments_and_odd_characters(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O O\n\n# # B-NP B-ORG\n\u2028 NN I-NP I-ORG\n\n-DOCSTART- -X- O O\n\nJo NNP B-NP B-PER\n"
    found, faults = read(tmp_path, text.replace("\u2028", "\u200b"), CONLL2003)
    assert [sentence.words for sentence in found] == [("#", "\u200b"), ("Jo",)]
    assert found[1].tags == ("B-PER",)
    assert not faults
    tabs = "New York\tB-LOC\nx\u2028y\tO\n"  # a tab file may have words with blanks
    assert read(tmp_path, tabs)[0][0].words == ("New York", "x\u2028y")


def test_characters_are_put_together_to_words(tmp_path: Path) -> None:
    text = "## head\t\n## id\t<ab:PS> c\na\tB-PS\nb\tI-PS\n \tO\nc\tO\n\n## id2\tx\n#\tO\n"
    found, faults = read(tmp_path, text, KLUE_NER)
    assert found[0] == Sentence(("ab", "c"), ("B-PS", "I-PS", "O"), 3)
    assert found[0].units(characters=True) == ("a", "b", "c")
    assert found[1].words == ("#",)
    assert not faults
    _, faults = read(tmp_path, "ab\tO\n\nc\tO\n", KLUE_NER)
    assert "1 sentences with units that are not one character: left out" in faults


def test_lines(tmp_path: Path) -> None:
    text = "가 나다 라\tPER-B PER-I O\n\n마\tO\n바 사\tO\n아\tO O\n\tO\n자 차\n"
    found, faults = read(tmp_path, text, NAVER_NER)
    assert [sentence.words for sentence in found] == [("가", "나다", "라"), ("마",)]
    assert found[0].tags == ("PER-B", "PER-I", "O")
    for fault in (
        "1 sentences with fewer tags than words: left out",
        "1 sentences with more tags than words: left out",
        "1 sentences without words: left out",
        "1 sentences without tags in a file that has them: left out",
    ):
        assert fault in faults


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        {"tokens": ["a", "b"], "tags": ["O", "B-X"]},
        {"tokens": ["c"], "tags": ["O", "O"]},
        {"tokens": [], "tags": []},
        {"tokens": "text", "tags": ["O"]},
        [1],
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows) + "{\n"
    found, faults = read(tmp_path, text, name="train.jsonl")
    assert found == [Sentence(("a", "b"), ("O", "B-X"), 1)]
    assert "1 sentences with more tags than words" in faults
    assert "1 sentences without words" in faults
    assert "3 lines that are not a JSON object such as" in faults
    numbered = dataclasses.replace(CUSTOM, tokens="words", tags="ner", labels=("O", "B-X"))
    found, _ = read(tmp_path, '{"words": ["a", "b"], "ner": [1, 0]}\n', numbered, name="train.jsonl")
    assert found[0].tags == ("B-X", "O")


def test_ragged_rows_and_wrong_bytes(tmp_path: Path) -> None:
    found, faults = read(tmp_path, CHUNKS + "\nA DT B-NP\nfilm I-NP\n\nIt PRP B-NP\n", CHUNK)
    assert [sentence.words[0] for sentence in found] == ["The", "So", "It"]
    assert "1 sentences with a row that has not 3 fields: left out" in faults
    assert "train.txt, line 8" in faults
    (tmp_path / "train.txt").write_bytes(CHUNKS.encode("utf-16"))
    with pytest.raises(ValueError, match="is not UTF-8 but UTF-16"):
        read_sentences(tmp_path / "train.txt", CHUNK, Problems())


# -------------------------------------------------------------------------------------------------- the data


def sentences_file(count: int, tag: str = "B-X") -> str:
    return "".join(f"w{index} {tag if index % 2 else 'O'}\n\n" for index in range(count))


def words(sentences: list[Sentence]) -> list[str]:
    return [sentence.words[0] for sentence in sentences]


def test_dev_set_is_cut_the_same_way_each_time(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(sentences_file(50))
    data, _ = load(CUSTOM, tmp_path)
    train, dev = words(data.splits["train"]), words(data.splits["dev"])
    assert (len(train), len(dev)) == (45, 5)
    assert not set(train) & set(dev)
    assert data.notes[-1].startswith("no dev file: 5 of 50 training sentences (10%, seed 0)")
    assert words(load(CUSTOM, tmp_path)[0].splits["dev"]) == dev
    fewer, _ = load(CUSTOM, tmp_path, max_train=7)
    assert set(words(fewer.splits["train"])) < set(train)
    assert "dev" not in load(CUSTOM, tmp_path, mode="train")[0].splits


def test_folds_are_those_of_scikit_learn(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(sentences_file(23))
    for fold, (train, dev) in enumerate(KFold(4, shuffle=True, random_state=0).split(np.zeros(23))):
        data, _ = load(CUSTOM, tmp_path, fold, folds=4)
        assert words(data.splits["train"]) == [f"w{index}" for index in train]
        assert words(data.splits["dev"]) == [f"w{index}" for index in dev]
    (tmp_path / "dev.txt").write_text(sentences_file(4))
    with pytest.raises(ValueError, match=r"--folds is for data without a dev file, and .*dev.txt is there"):
        load(CUSTOM, tmp_path, 0, folds=4)


def test_schemes_of_files_and_model(tmp_path: Path) -> None:
    (tmp_path / "eng.train").write_text("Jo x x I-PER\nLi x x B-PER\n. x x O\n\nx x x O\n")
    (tmp_path / "eng.testa").write_text("Jo x x I-PER\n")
    data, _ = load(CONLL2003, tmp_path)
    assert (data.scheme, data.learned, data.task.labels) == ("iob1", "iob2", ("O", "B-PER"))
    assert "scheme iob1, learned as iob2" in data.notes[-1]
    (tmp_path / "train.txt").write_text("a DT\nb NN\n")
    (tmp_path / "dev.txt").write_text("a DT\n")
    plain, _ = load(CUSTOM, tmp_path)
    assert (plain.scheme, plain.task.metric, plain.task.labels) == ("plain", "accuracy", ("DT", "NN"))
    with pytest.raises(ValueError, match="name no entities, so there is no f1: take macro_f1 or accuracy"):
        load(dataclasses.replace(CUSTOM, metric="f1"), tmp_path)


def test_published_protocol_of_naver(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("가 나\tPER-B O\n" * 20)
    (tmp_path / "test.tsv").write_text("다\tPER-B\n")
    data, _ = load(NAVER_NER, tmp_path)
    assert [len(data.splits[split]) for split in ("train", "dev", "test")] == [18, 2, 1]
    assert len(data.task.labels) == 29
    published, _ = load(NAVER_NER, tmp_path, published_protocol=True)
    assert [len(found) for found in published.splits.values()] == [20, 1]
    assert published.notes[0].startswith("published protocol: test.tsv, the test file, chooses the model as dev")


def test_faults_of_tags_are_counted(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a B-X\nb I-X\n\nc BX\nd O\n\ne O\nf I-X\n")
    (tmp_path / "dev.txt").write_text("a B-Y\n\nb XX\nc B-X\n")
    data, faults = load(CUSTOM, tmp_path)
    assert data.task.labels == ("O", "B-X", "I-X")
    assert data.gold("dev") == [["B-Y"], ["O", "B-X"]]
    for fault in (
        "1 sentences of train with 'BX', no tag of the scheme iob2: not trained on",
        "1 sentences of train in which an entity of the scheme iob2 begins with I: kept as they are",
        "1 sentences of dev with 'B-Y', not in the label set: scored as never found",
        "1 sentences of dev with 'XX', no tag of the scheme iob2: scored as O",
    ):
        assert fault in faults
    _, faults = load(dataclasses.replace(CUSTOM, labels=("O", "B-X")), tmp_path)
    assert "2 sentences of train with 'I-X', not in the label set: not trained on" in faults


def test_json_that_is_no_text(tmp_path: Path) -> None:
    """Halves of characters, which JSON can spell, numbers and nestings that it cannot read, and line ends in words."""
    half = json.dumps({"tokens": ["a", "\ud83d"], "tags": ["B-X", "O"]})
    found, faults = read(tmp_path, f"{half}\n{'[' * 100_000}\n{'1' * 5000}\n", name="train.jsonl")
    assert [sentence.words for sentence in found] == [("a", "\ufffd")]
    assert "1 sentences with halves of characters: replaced by U+FFFD" in faults
    assert "2 lines that are not a JSON object" in faults
    assert one_field("a\tb\r\n") == "a b "


@pytest.mark.parametrize(
    ("files", "task", "sentence"),
    [
        ({}, CHUNK, "has no train.txt, which the task chunk needs"),
        ({}, CUSTOM, "has no train.txt|.tsv|.conll|.jsonl, which the task custom needs"),
        ({"train.txt": CHUNKS, "train.tsv": CHUNKS}, CUSTOM, "has train.txt and train.tsv: keep one of them"),
        ({"train.txt": ""}, CUSTOM, "train.txt holds no sentences"),
        ({"train.txt": "a\nb\n"}, CUSTOM, "train.txt has no tags, which the task custom needs there"),
        ({"train.txt": CHUNKS, "dev.txt": "a x\n"}, CHUNK, "dev.txt has no tags, which the task chunk needs there"),
        ({"train.txt": "a O\nb B-X\n"}, CUSTOM, "train.txt has 1 sentences: too few to cut a dev set from"),
        ({"train.txt": "a O\n\nb O\n"}, CUSTOM, "'O' is the only tag, so that there is nothing to learn"),
        (
            {"train.txt": "a O\n\nb X-B\n"},
            dataclasses.replace(CUSTOM, scheme="iob2"),
            "'O' is the only tag of the scheme iob2, to which 'X-B' does not belong",
        ),
        ({"train.txt": CHUNKS}, dataclasses.replace(CUSTOM, word_column=5), "train.txt has 3 columns: column 5"),
    ],
)
def test_bad_files(tmp_path: Path, files: dict[str, str], task: TaggingTask, sentence: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load(task, tmp_path)


def test_modes_without_training_need_no_training_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no dev"):
        load(CUSTOM, tmp_path, mode="eval")
    with pytest.raises(ValueError, match="is not a folder"):
        load(CUSTOM, tmp_path / "nowhere")
    (tmp_path / "test.txt").write_text("a\nb\n")
    problems = Problems()
    config = FinetuneConfig(model="m", data=tmp_path, out=tmp_path / "out", mode="predict")
    data = load_tagging_data(CUSTOM, config, None, ("O", "PER-B", "PER-I"), problems)
    assert list(data.splits) == ["test"]
    assert (data.scheme, data.learned, data.task.labels) == ("suffix", "suffix", ("O", "PER-B", "PER-I"))


def test_the_catalogue_knows_them(tmp_path: Path) -> None:
    assert find_task("conll2000", TaskConfig()) == find_task("chunk", TaskConfig()) == CHUNK
    assert find_task("naver-ner", TaskConfig()) == NAVER_NER
    assert NAVER_NER.labels[:3] == ("O", "PER-B", "PER-I")
    given = TaskConfig(kind="tagging", text="words", label="ner", scheme="bioes", layout="lines", labels=("O", "S-X"))
    task = find_task("custom", given)
    assert isinstance(task, TaggingTask)
    assert (task.tokens, task.tags, task.scheme, task.layout) == ("words", "ner", "bioes", "lines")
    (tmp_path / "names.toml").write_text('kind = "tagging"\ntext = "1"\nlabel = "-2"\ncomment = "#"\n')
    own = find_task(str(tmp_path / "names.toml"), TaskConfig())
    assert isinstance(own, TaggingTask)
    assert (own.name, own.word_column, own.tag_column) == ("names", 1, -2)
    tree = "# text = It ends\n1\tIt\tPRON\t_\n2\tends\tVERB\t_\n\n"
    assert read(tmp_path, tree, own)[0] == [Sentence(("It", "ends"), ("PRON", "VERB"), 2)]
    with pytest.raises(ValueError, match=r"custom.scheme, .* are for custom.kind tagging"):
        TaskConfig(scheme="iob2")
    with pytest.raises(ValueError, match=r"custom.metric of custom.kind tagging must be one of auto, f1"):
        TaskConfig(kind="tagging", metric="pearson")
