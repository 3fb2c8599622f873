"""Schemes of tags and scores of entities, against seqeval, scikit-learn and cases worked out by hand."""

import random

import pytest
from seqeval.metrics import accuracy_score, classification_report, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES
from sklearn.metrics import f1_score as class_f1

from electra.tasks.tagging.schemes import (
    SCHEMES,
    Entity,
    Scheme,
    convert_tags,
    detect_scheme,
    find_entities,
    find_google_entities,
    google_f1,
    inside,
    is_tag_of,
    label_set,
    macro_f1,
    opens_inside,
    score_tags,
    write_entities,
)

TAGS: dict[Scheme, list[str]] = {
    "iob1": ["O", "B-A", "I-A", "B-B", "I-B"],
    "iob2": ["O", "B-A", "I-A", "B-B", "I-B", "I-a-b"],
    "bioes": ["O", *(f"{position}-{kind}" for position in "BIES" for kind in "AB")],
    "suffix": ["O", "A-B", "A-I", "B-B", "B-I", "a-b-I"],
}


def random_tags(scheme: Scheme, count: int, seed: int) -> list[list[str]]:
    """Any sequences, most of them ill-formed."""
    rng = random.Random(seed)
    return [rng.choices(TAGS[scheme], k=rng.randint(1, 9)) for _ in range(count)]


def random_entities(rng: random.Random) -> tuple[list[Entity], int]:
    entities, place = [], 0
    for _ in range(rng.randint(0, 4)):
        start = place + rng.randint(0, 2)
        place = start + rng.randint(1, 3)
        entities.append(Entity(start, place, rng.choice("AB")))
    return entities, place + rng.randint(0, 2) or 1


@pytest.mark.parametrize("scheme", TAGS)
def test_entities_are_those_of_seqeval(scheme: Scheme) -> None:
    for tags in random_tags(scheme, 3000, seed=0):
        expected = [Entity(start, end + 1, kind) for kind, start, end in get_entities(tags, scheme == "suffix")]
        assert find_entities(tags, scheme) == expected, tags


def test_schemes_by_hand() -> None:
    entities = [Entity(0, 2, "PER"), Entity(2, 3, "PER"), Entity(3, 4, "LOC")]
    expected = {
        "iob1": "I-PER I-PER B-PER I-LOC O",
        "iob2": "B-PER I-PER B-PER B-LOC O",
        "bioes": "B-PER E-PER S-PER S-LOC O",
        "suffix": "PER-B PER-I PER-B LOC-B O",
    }
    for scheme, tags in expected.items():
        assert write_entities(entities, 5, scheme) == tags.split()
        assert find_entities(tags.split(), scheme) == entities
        for other, others in expected.items():
            assert convert_tags(tags.split(), scheme, other) == others.split()


def test_entities_survive_every_scheme() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        entities, length = random_entities(rng)
        for scheme in TAGS:
            tags = write_entities(entities, length, scheme)
            assert find_entities(tags, scheme) == entities
            assert all(is_tag_of(tag, scheme) for tag in tags)
            assert scheme == "iob1" or not opens_inside(tags, scheme)


@pytest.mark.parametrize(("scheme", "suffix"), [("iob1", False), ("iob2", False), ("bioes", False), ("suffix", True)])
def test_scores_are_those_of_seqeval(scheme: Scheme, suffix: bool) -> None:
    gold, predicted = random_tags(scheme, 400, seed=2), random_tags(scheme, 400, seed=3)
    predicted = [
        (other * 9)[: len(tags)] if index % 3 else tags
        for index, (tags, other) in enumerate(zip(gold, predicted, strict=True))
    ]
    found = score_tags(gold, predicted, scheme, types=["A", "B"])
    report = classification_report(gold, predicted, suffix=suffix, output_dict=True, zero_division=0)
    assert found["f1"] == f1_score(gold, predicted, suffix=suffix)
    assert found["precision"] == precision_score(gold, predicted, suffix=suffix)
    assert found["recall"] == recall_score(gold, predicted, suffix=suffix)
    assert found["accuracy"] == accuracy_score(gold, predicted)
    assert found["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"], abs=1e-15)
    assert (found["f1_A"], found["f1_B"]) == (report["A"]["f1-score"], report["B"]["f1-score"])
    assert list(found)[:2] == ["f1", "precision"]


@pytest.mark.parametrize(("scheme", "rule"), [("iob2", IOB2), ("bioes", IOBES)])
def test_strict_scores_are_those_of_seqeval(scheme: Scheme, rule: type) -> None:
    gold = [write_entities(*random_entities(random.Random(seed)), scheme) for seed in range(300)]
    predicted = [(other * 30)[: len(tags)] for tags, other in zip(gold, random_tags(scheme, 300, seed=4), strict=True)]
    found = score_tags(gold, predicted, scheme, strict=True)
    options = {"mode": "strict", "scheme": rule}
    assert found["f1"] == f1_score(gold, predicted, **options)
    assert found["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro", **options), abs=1e-15)
    assert found["f1"] != score_tags(gold, predicted, scheme)["f1"]


def test_suffix_scores_by_hand() -> None:
    gold = [["PER-B", "PER-I", "O", "LOC-B"], ["DAT-B", "O"]]
    predicted = [["PER-B", "PER-I", "O", "ORG-B"], ["DAT-I", "O"]]  # an -I alone opens an entity, as in conlleval
    found = score_tags(gold, predicted, "suffix", types=["PER", "LOC", "ORG", "TIM"])
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["macro_f1"] == pytest.approx(2 / 4)  # PER and DAT of PER, DAT, LOC, ORG
    assert [found[f"f1_{kind}"] for kind in ("PER", "LOC", "ORG", "TIM")] == [1, 0, 0, 0]


def test_google_rule_for_chunks() -> None:
    """As get_span_labels of its finetune/tagging/tagging_utils.py: B, S and O end a chunk, the last tag names it."""
    tags = ["B-NP", "E-NP", "I-VP", "O", "E-PP", "S-NP"]
    assert find_google_entities(tags, "bioes") == [Entity(0, 3, "VP"), Entity(4, 5, "PP"), Entity(5, 6, "NP")]
    well_formed = ["B-NP", "I-NP", "E-NP", "S-VP", "O", "S-NP"]
    assert find_google_entities(well_formed, "bioes") == find_entities(well_formed, "bioes")
    assert google_f1([well_formed], [["B-NP", "I-NP", "E-NP", "S-VP", "O", "S-PP"]], "bioes") == pytest.approx(2 / 3)
    assert google_f1([["O"]], [["O"]], "bioes") == 0
    rng = random.Random(5)
    gold = [write_entities(*random_entities(rng), "bioes") for _ in range(200)]
    predicted = [["O"] * len(tags) if index % 4 == 0 else tags for index, tags in enumerate(gold)]
    assert google_f1(gold, predicted, "bioes") == pytest.approx(f1_score(gold, predicted), abs=1e-12)


def test_plain_tags_and_nothing_to_find() -> None:
    gold, predicted = [["NN", "VB"], ["NN"]], [["NN", "NN"], ["NN"]]
    found = score_tags(gold, predicted, "plain")
    expected = class_f1(["NN", "VB", "NN"], ["NN", "NN", "NN"], average="macro", zero_division=0)
    assert found == {"accuracy": pytest.approx(2 / 3), "macro_f1": pytest.approx(expected)}
    for strict in (False, True):
        assert score_tags([["O", "O"]], [["O", "O"]], "iob2", ["A"], strict) == {
            "f1": 0, "precision": 0, "recall": 0, "accuracy": 1, "macro_f1": 0, "f1_A": 0,
        }  # fmt: skip
    assert macro_f1([["O", "B-A"]], [["O", "O"]], ["O", "B-A", "I-A"]) == pytest.approx((2 / 3 + 0 + 1) / 3)


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        (["B-A I-A O", "B-A B-B"], "iob2"),
        (["I-A I-A O", "I-A B-A"], "iob1"),
        (["I-A I-A O"], "iob1"),
        (["B-A I-B O"], "iob2"),
        (["B-A E-A O", "S-B"], "bioes"),
        (["S-B"], "bioes"),
        (["PER-B PER-I", "O"], "suffix"),
        (["NN VB", "O"], "plain"),
        (["B-A I-A BA O"], "iob2"),
        (["B-A I-A"] * 9 + ["B-a BA A i-A"], "iob2"),  # typing errors, more of them than tags
        (["O O"], "iob2"),
        (["O B-A I-A B-B I-B"], "iob2"),
    ],
)
def test_schemes_are_told_by_their_tags(sentences: list[str], scheme: Scheme) -> None:
    assert detect_scheme([tags.split() for tags in sentences]) == scheme


def test_label_sets() -> None:
    assert label_set(["I-B", "B-B", "O", "B-A", "BA"], "iob2") == ("O", "B-A", "B-B", "I-B")
    assert label_set(["B-I", "B-B", "A-B"], "suffix") == ("O", "A-B", "B-B", "B-I")
    assert label_set(["VB", "NN", "VB"], "plain") == ("NN", "VB")
    assert [inside(tag, "iob2") for tag in ("B-A", "I-A", "O")] == ["I-A", "I-A", "O"]
    assert inside("A-B", "suffix") == "A-I"
    assert inside("NN", "plain") == "NN"
    assert set(SCHEMES) == {*TAGS, "plain"}
