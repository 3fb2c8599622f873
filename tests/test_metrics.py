"""Metrics against scikit-learn and scipy, and their values where those are undefined."""

import statistics
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from electra.metrics import (
    calibration,
    classification_metrics,
    precision_recall,
    regression_metrics,
    rtd_metrics,
    summarise,
)


@pytest.mark.parametrize("classes", [2, 3])
def test_classification_equals_scikit_learn(classes: int) -> None:
    random = np.random.default_rng(classes)
    labels, predictions = random.integers(0, classes, 200), random.integers(0, classes, 200)
    found = classification_metrics(predictions, labels, classes)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predictions))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, predictions, average="macro"))
    assert found["macro_precision"] == pytest.approx(sk.precision_score(labels, predictions, average="macro"))
    assert found["macro_recall"] == pytest.approx(sk.recall_score(labels, predictions, average="macro"))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(labels, predictions))
    if classes == 2:
        assert found["f1"] == pytest.approx(sk.f1_score(labels, predictions))
        assert found["precision"] == pytest.approx(sk.precision_score(labels, predictions))
    else:
        assert "f1" not in found


def test_constant_predictions_score_zero_without_a_warning() -> None:
    labels = np.array([0, 1, 1, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(np.zeros(4), labels, 2)
        assert found["mcc"] == found["f1"] == found["precision"] == 0.0
        assert found["accuracy"] == 0.5
        assert classification_metrics([1, 1], [1, 1], 2)["accuracy"] == 1.0
        constant = regression_metrics(np.full(4, 0.3) + np.array([0, 1e-17, 0, 1e-16]), labels)
        assert constant["pearson"] == constant["spearman"] == 0.0
        assert regression_metrics([1.0], [2.0]) == {"pearson": 0.0, "spearman": 0.0, "mse": 1.0}


def test_regression_equals_scipy() -> None:
    random = np.random.default_rng(0)
    labels = random.uniform(0, 5, 100)
    predictions = labels + random.normal(0, 1, 100)
    found = regression_metrics(predictions, labels)
    assert found["pearson"] == pytest.approx(stats.pearsonr(predictions, labels).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(predictions, labels).statistic)
    assert found["mse"] == pytest.approx(sk.mean_squared_error(labels, predictions))


def test_rtd_metrics_equal_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels = random.random((20, 30)) < 0.15
    logits = random.normal(-1, 1, (20, 30)) + labels
    found = rtd_metrics(logits, labels)
    truth, predicted = labels.ravel(), logits.ravel() > 0
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert found["precision"] == pytest.approx(sk.precision_score(truth, predicted))
    assert found["recall"] == pytest.approx(sk.recall_score(truth, predicted))
    assert found["auc"] == pytest.approx(sk.roc_auc_score(truth, logits.ravel()))


@pytest.mark.parametrize("label", [0, 1])
def test_rtd_metrics_of_one_class_are_finite(label: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rtd_metrics([-1.0, -2.0], [label, label])
    assert found["auc"] == 0.5
    assert found["precision"] == found["recall"] == found["f1"] == 0.0
    assert found["accuracy"] == 1.0 - label


def test_precision_recall_and_calibration_equal_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels = random.random(3000) < 0.15
    logits = random.normal(-2, 1.5, 3000) + labels
    found = precision_recall(logits, labels)
    assert found is not None and found.average_precision == pytest.approx(sk.average_precision_score(labels, logits))
    precision, recall, _ = sk.precision_recall_curve(labels, logits)
    assert np.array_equal(found.precision[::-1], precision) and np.array_equal(found.recall[::-1], recall)
    assert found.threshold[0] == 1 and (np.diff(found.threshold) <= 0).all()
    place = len(found.recall) // 3  # a threshold is where its precision and recall come from
    called = 1 / (1 + np.exp(-logits)) >= found.threshold[place] - 1e-12
    assert found.recall[place] == pytest.approx(sk.recall_score(labels, called))
    assert found.precision[place] == pytest.approx(sk.precision_score(labels, called))
    bins = calibration(logits, labels, bins=10)
    replaced, predicted = calibration_curve(labels, 1 / (1 + np.exp(-logits)), n_bins=10)
    used = bins.counts > 0
    assert bins.predicted[used] == pytest.approx(predicted) and bins.replaced[used] == pytest.approx(replaced)
    assert bins.counts.sum() == 3000
    assert bins.error == pytest.approx(np.average(np.abs(predicted - replaced), weights=bins.counts[used]))
    assert precision_recall(logits, np.zeros(3000)) is None


def test_summary_of_seeds() -> None:
    values = [0.8, 0.9, 0.7, 0.85]
    found = summarise(values)
    assert (found.median, found.mean) == (pytest.approx(0.825), pytest.approx(np.mean(values)))
    assert found.std == pytest.approx(np.std(values, ddof=1)) == pytest.approx(statistics.stdev(values))
    assert summarise([0.5]).std == 0.0
