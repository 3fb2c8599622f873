"""The data of a tagging task: which sentences train, which are scored, and what tags there are.

    folder -> conll.py (sentences) -> scheme of the files, label set of the model, dev set -> `TaggingData`

Gold tags are kept as the files have them, since that is what scores are computed on. A tag that does not belong to the
scheme (a typing error) is counted, not trained on, and read as O where it is scored; a tag that the training file
does not have stays where it is scored and cannot be found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from electra.config import FinetuneConfig
from electra.tasks.problems import Problems
from electra.tasks.sentences.examples import DEV_SEED, DEV_SHARE
from electra.tasks.tagging.conll import Sentence, read_sentences
from electra.tasks.tagging.schemes import (
    OUTSIDE,
    Scheme,
    convert_tags,
    detect_scheme,
    is_tag_of,
    label_set,
    opens_inside,
)
from electra.tasks.tagging.task import TaggingTask

SUFFIXES = (".txt", ".tsv", ".conll", ".jsonl")


@dataclass(frozen=True)
class TaggingData:
    """Everything read for a task."""

    task: TaggingTask
    """With its labels and metric filled in."""
    scheme: Scheme
    """Of the files."""
    learned: Scheme
    """Of the model."""
    splits: dict[str, list[Sentence]]
    notes: list[str]
    """Sentences about what was decided here; they are to be printed."""

    def gold(self, split: str) -> list[list[str]]:
        """The tags of a split as scores take them."""
        return [
            [tag if is_tag_of(tag, self.scheme) else OUTSIDE for tag in sentence.tags]
            for sentence in self.splits[split]
        ]


def load_tagging_data(
    task: TaggingTask,
    config: FinetuneConfig,
    fold: int | None,
    trained_labels: Sequence[str],
    problems: Problems,
) -> TaggingData:
    """Read the files of `task` in `config.data`.

    Without a dev file a tenth of the training sentences, drawn with a fixed seed, or the fold with number `fold`,
    becomes the dev set. `config.max_train` > 0 keeps that many training sentences, drawn with a fixed seed. The modes
    without training need no training file and take `trained_labels`, those of the fine-tuned model.
    """
    folder = config.data
    if not folder.is_dir():
        raise ValueError(f"--data {folder} is not a folder: give the one that holds the files of the task {task.name}")
    notes: list[str] = []
    files = find_files(task, folder, notes, config.published_protocol)
    if config.mode in ("eval", "predict"):
        files.pop("train", None)
    elif "train" not in files:
        raise ValueError(f"{folder} has no {_expected(task.train)}, which the task {task.name} needs")
    if not files:
        raise ValueError(f"{folder} has no {_expected(task.dev)} and no {_expected(task.test)} of the task {task.name}")
    if fold is not None and "dev" in files:
        raise ValueError(f"--folds is for data without a dev file, and {files['dev']} is there: leave it out")
    splits = {split: read_sentences(path, task, problems) for split, path in files.items()}
    for split in ("train", "dev"):
        if split in splits and not splits[split][0].tags and config.mode != "predict":
            raise ValueError(f"{files[split]} has no tags, which the task {task.name} needs there")
    schemes = _schemes(task, splits, trained_labels, notes)
    labels = tuple(trained_labels) or task.labels or _found_labels(splits["train"], *schemes)
    if len(labels) < 2:
        foreign = [tag for found in splits["train"] for tag in found.tags if not is_tag_of(tag, schemes[0])]
        why = f" of the scheme {schemes[0]}, to which {foreign[0]!r} does not belong" if foreign else ""
        raise ValueError(
            f"{files['train']}: {''.join(labels)!r} is the only tag{why}, so that there is nothing to learn"
        )
    metric = ("accuracy" if schemes[0] == "plain" else "f1") if task.metric == "auto" else task.metric
    if schemes[0] == "plain" and metric == "f1":
        raise ValueError(f"the tags of {folder} name no entities, so there is no f1: take macro_f1 or accuracy")
    if "dev" not in files and config.mode == "train_eval":
        files["dev"] = files["train"]
        splits["train"], splits["dev"] = _cut_dev(files["train"], splits["train"], config.folds, fold, notes)
    if 0 < config.max_train < len(splits.get("train", [])):
        splits["train"] = _sample(splits["train"], config.max_train, notes)

    data = TaggingData(replace(task, labels=labels, metric=metric), *schemes, splits, notes)
    for split in splits:
        _note_faults(data, split, files[split], problems)
    return data


def _schemes(
    task: TaggingTask, splits: dict[str, list[Sentence]], trained_labels: Sequence[str], notes: list[str]
) -> tuple[Scheme, Scheme]:
    """The scheme of the files and that of the model."""
    known = splits.get("train") or [sentence for found in splits.values() for sentence in found]
    tags = [sentence.tags for sentence in known if sentence.tags] or [tuple(trained_labels)]
    scheme = detect_scheme(tags) if task.scheme == "auto" else task.scheme
    learned = task.learned or ("iob2" if scheme == "iob1" else scheme)
    if task.characters and learned == "bioes":
        learned = "iob2"  # a piece of several characters cannot say where between two of them E begins
    if trained_labels:
        learned = detect_scheme([tuple(trained_labels)])
    if task.scheme == "auto":
        notes.append(f"the tags are of the scheme {scheme}{f', learned as {learned}' if learned != scheme else ''}")
    return scheme, learned


def find_files(task: TaggingTask, folder: Path, notes: list[str], published: bool) -> dict[str, Path]:
    """The file of each split that has one; with `published` that on which published results chose stands for dev."""
    names = {"train": task.train, "dev": task.dev, "test": task.test}
    files = {split: path for split in names if (path := find_file(folder, names[split])) is not None}
    if published and task.published_dev in files:
        files["dev"] = files.pop(task.published_dev)
        notes.append(
            f"published protocol: {files['dev'].name}, the test file, chooses the model as dev, as in the published "
            "results; these scores are no measure of unseen text"
        )
    elif published and not task.published_dev:
        notes.append(f"--published-protocol changes nothing for {task.name}: its published results were chosen on dev")
    return files


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that is in `folder`; one without a suffix is tried with those of SUFFIXES."""
    for name in names:
        candidates = [folder / name] if Path(name).suffix else [folder / f"{name}{suffix}" for suffix in SUFFIXES]
        found = [path for path in candidates if path.is_file()]
        if len(found) > 1:
            raise ValueError(f"{folder} has {' and '.join(path.name for path in found)}: keep one of them")
        if found:
            return found[0]
    return None


def _expected(names: Sequence[str]) -> str:
    return " or ".join(name if Path(name).suffix else f"{name}{'|'.join(SUFFIXES)}" for name in names)


def _cut_dev(
    path: Path, sentences: list[Sentence], folds: int, fold: int | None, notes: list[str]
) -> tuple[list[Sentence], list[Sentence]]:
    """Training and dev sentences, each in file order."""
    if len(sentences) < max(2, folds):
        raise ValueError(f"{path} has {len(sentences)} sentences: too few to cut a dev set from; add a dev file")
    if fold is not None:
        from sklearn.model_selection import KFold

        parts = list(KFold(folds, shuffle=True, random_state=DEV_SEED).split(sentences))
        train, dev = parts[fold]
        notes.append(
            f"no dev file: fold {fold + 1} of {folds} (seed {DEV_SEED}), {len(dev):,} sentences, is the dev set"
        )
    else:
        size = max(1, round(DEV_SHARE * len(sentences)))
        order = np.random.default_rng(DEV_SEED).permutation(len(sentences))
        train, dev = np.sort(order[size:]), np.sort(order[:size])
        notes.append(
            f"no dev file: {size:,} of {len(sentences):,} training sentences ({DEV_SHARE:.0%}, seed {DEV_SEED}) are "
            "kept apart as the dev set"
        )
    return [sentences[index] for index in train], [sentences[index] for index in dev]


def _sample(sentences: list[Sentence], size: int, notes: list[str]) -> list[Sentence]:
    notes.append(f"{size:,} of {len(sentences):,} training sentences are used (seed {DEV_SEED})")
    chosen = np.random.default_rng(DEV_SEED).permutation(len(sentences))[:size]
    return [sentences[index] for index in np.sort(chosen)]


def _found_labels(sentences: list[Sentence], scheme: Scheme, learned: Scheme) -> tuple[str, ...]:
    """The tags of the training file, its part for dev too, as the model writes them: the same in all folds."""
    converted = (convert_tags(found.tags, scheme, learned) for found in sentences)
    return label_set((tag for tags in converted for tag in tags), learned)


def _note_faults(data: TaggingData, split: str, path: Path, problems: Problems) -> None:
    labels, scheme = set(data.task.labels), data.scheme
    done = "not trained on" if split == "train" else "scored as never found"
    for sentence in data.splits[split]:
        foreign = sorted({tag for tag in sentence.tags if not is_tag_of(tag, scheme)})
        for tag in foreign:
            what = "not trained on" if split == "train" else "scored as O"
            fault = f"sentences of {split} with {tag!r}, no tag of the scheme {scheme}: {what}"
            problems.add(fault, path, sentence.line)
        unknown = sorted(set(convert_tags(sentence.tags, scheme, data.learned)) - labels - set(foreign))
        for tag in unknown:
            problems.add(f"sentences of {split} with {tag!r}, not in the label set: {done}", path, sentence.line)
        if scheme != "iob1" and scheme != "plain" and opens_inside(sentence.tags, scheme):
            fault = f"sentences of {split} in which an entity of the scheme {scheme} begins with I: kept as they are"
            problems.add(fault, path, sentence.line)
