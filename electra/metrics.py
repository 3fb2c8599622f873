"""Metrics: of replaced-token detection, of classification, of regression, and over several seeds.

Plain arrays in, plain floats out. The numbers are scikit-learn's and scipy's; what is decided here is what
happens where they are undefined (constant predictions, one class only): a correlation is 0, precision
without a positive prediction is 0, AUC of one class is 0.5. Nothing here returns nan for finite input.

scikit-learn and scipy are imported inside the functions: they take 0.7 s, and a pre-training run wants its
first step before its first evaluation.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

CLASSIFICATION_METRICS = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "mcc")
BINARY_METRICS = (*CLASSIFICATION_METRICS, "precision", "recall", "f1")
REGRESSION_METRICS = ("pearson", "spearman", "mse")


def rtd_metrics(logits: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and AUC of the discriminator.

    `logits` (N,) and `labels` (N,), 1 = replaced, are those of the valid tokens: Google's AUC also counts padding as
    easy negatives (google-research/electra run_pretraining.py), which flatters it. A token is called replaced where
    its logit is above 0.
    """
    from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

    scores, truth = np.asarray(logits, dtype=np.float64).ravel(), np.asarray(labels).ravel().astype(np.int64)
    _require_pairs(scores, truth)
    predicted = (scores > 0).astype(np.int64)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average="binary", zero_division=0.0)
    both_classes = 0 < int(truth.sum()) < truth.size
    return {
        "accuracy": float(np.mean(predicted == truth)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "auc": float(roc_auc_score(truth, scores)) if both_classes else 0.5,
    }


@dataclass(frozen=True)
class PrecisionRecall:
    """The discriminator at every threshold: (N,) by rising recall, at most a point for each distinct logit."""

    recall: np.ndarray
    precision: np.ndarray
    threshold: np.ndarray
    """Probability from which on a token is called replaced; 1 at recall 0, where none is."""
    average_precision: float


def precision_recall(logits: ArrayLike, labels: ArrayLike) -> PrecisionRecall | None:
    """scikit-learn's precision_recall_curve and average_precision_score; None if no token is replaced."""
    from scipy.special import expit
    from sklearn.metrics import average_precision_score, precision_recall_curve

    scores, truth = np.asarray(logits, dtype=np.float64).ravel(), np.asarray(labels).ravel().astype(np.int64)
    _require_pairs(scores, truth)
    if not truth.any():
        return None
    precision, recall, threshold = precision_recall_curve(truth, scores)
    return PrecisionRecall(
        recall[::-1],
        precision[::-1],
        expit(np.append(threshold, np.inf)[::-1]),
        float(average_precision_score(truth, scores)),
    )


@dataclass(frozen=True)
class Calibration:
    """Tokens by the probability of being replaced that they were given, in N equal bins from 0 to 1.

    Arrays (N,): how many, their mean probability, and the share of them that is replaced; 0 of an empty bin.
    """

    edges: np.ndarray  # (N + 1,)
    counts: np.ndarray
    predicted: np.ndarray
    replaced: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over tokens of |predicted - replaced| of their bin."""
        return float(np.sum(self.counts * np.abs(self.predicted - self.replaced)) / self.counts.sum())


def calibration(logits: ArrayLike, labels: ArrayLike, bins: int = 20) -> Calibration:
    """How far the probabilities of the discriminator can be believed; the bins are those of scikit-learn."""
    from scipy.special import expit

    given, truth = expit(np.asarray(logits, dtype=np.float64).ravel()), np.asarray(labels, dtype=np.float64).ravel()
    _require_pairs(given, truth)
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.searchsorted(edges[1:-1], given)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values, minlength=bins) for values in (given, truth)]
    predicted, replaced = (total / np.maximum(counts, 1) for total in sums)
    return Calibration(edges, counts, predicted, replaced)


def histogram_auc(originals: np.ndarray, replaced: np.ndarray) -> float:
    """AUC from counts (bins,) of the logits of original and of replaced tokens, bins in ascending order.

    The share of pairs of one of each in which the replaced token has the higher logit; a pair within one bin counts
    half, as ties do in scikit-learn.
    """
    pairs = float(originals.sum() * replaced.sum())
    below = np.cumsum(originals) - originals / 2
    return float((replaced * below).sum() / pairs) if pairs else 0.5


def classification_metrics(predictions: ArrayLike, labels: ArrayLike, classes: int) -> dict[str, float]:
    """Accuracy, macro precision / recall / F1 and Matthews correlation; of two classes also those of class 1.

    `predictions` and `labels` (N,) are class numbers from 0 to `classes` - 1. Macro means run over all the classes,
    those that do not occur counted as 0, so that the number does not depend on which classes a model predicts.
    """
    from sklearn.metrics import matthews_corrcoef, precision_recall_fscore_support

    predicted, truth = np.asarray(predictions, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    _require_pairs(predicted, truth)
    each = precision_recall_fscore_support(truth, predicted, labels=range(classes), zero_division=0.0)
    constant = _is_constant(predicted) or _is_constant(truth)
    found = {
        "accuracy": float(np.mean(predicted == truth)),
        "macro_precision": float(np.mean(each[0])),
        "macro_recall": float(np.mean(each[1])),
        "macro_f1": float(np.mean(each[2])),
        "mcc": 0.0 if constant else float(matthews_corrcoef(truth, predicted)),
    }
    if classes == 2:
        found |= {"precision": float(each[0][1]), "recall": float(each[1][1]), "f1": float(each[2][1])}
    return found


def multi_label_metrics(predictions: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Micro and macro F1 of (N, C) zeros and ones, and the share of rows of which every label is right.

    A label that neither occurs nor is predicted counts as 0 in the macro mean.
    """
    from sklearn.metrics import f1_score

    predicted, truth = np.asarray(predictions, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    _require_pairs(predicted, truth)
    return {
        "micro_f1": float(f1_score(truth, predicted, average="micro", zero_division=0.0)),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
        "accuracy": float(np.mean((predicted == truth).all(axis=1))),
    }


def regression_metrics(predictions: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Pearson and Spearman correlation and the mean squared error of (N,) numbers on the labels' own scale."""
    from scipy.stats import pearsonr, spearmanr

    predicted, truth = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    _require_pairs(predicted, truth)
    # Below 1e-9 of the values' size a spread is rounding, and scipy warns that the correlation is not to be trusted.
    constant = _is_constant(predicted, 1e-9) or _is_constant(truth, 1e-9)
    return {
        "pearson": 0.0 if constant else float(pearsonr(predicted, truth).statistic),
        "spearman": 0.0 if constant else float(spearmanr(predicted, truth).statistic),
        "mse": float(np.mean((predicted - truth) ** 2)),
    }


@dataclass(frozen=True)
class Summary:
    """One metric over several seeds."""

    median: float
    mean: float
    std: float
    """Sample standard deviation (n - 1); 0 for a single value."""


def summarise(values: list[float]) -> Summary:
    """Median, mean and sample standard deviation of at least one value."""
    assert values, "a summary needs a value"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return Summary(statistics.median(values), statistics.fmean(values), spread)


def _is_constant(values: np.ndarray, tolerance: float = 0.0) -> bool:
    return float(np.ptp(values)) <= tolerance * float(np.max(np.abs(values)))


def _require_pairs(predictions: np.ndarray, labels: np.ndarray) -> None:
    assert predictions.shape == labels.shape, f"{predictions.shape} predictions for {labels.shape} labels"
    assert predictions.size > 0, "metrics of nothing"
