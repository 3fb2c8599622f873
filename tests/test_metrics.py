"""Metrics against scikit-learn and scipy, and their values where those are undefined."""

import statistics
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from electra.metrics import classification_metrics, regression_metrics, rtd_metrics, summarise


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


def test_summary_of_seeds() -> None:
    values = [0.8, 0.9, 0.7, 0.85]
    found = summarise(values)
    assert (found.median, found.mean) == (pytest.approx(0.825), pytest.approx(np.mean(values)))
    assert found.std == pytest.approx(np.std(values, ddof=1)) == pytest.approx(statistics.stdev(values))
    assert summarise([0.5]).std == 0.0
