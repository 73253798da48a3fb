"""Figures for a classifier: scikit-learn's, with an interval, calibration error and nothing hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def score(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """All figures for probabilities [N, classes] against labels [N].

    `accuracy_ci` is the 95 % Wilson interval. `auroc` is given where every class is present
    (binary: of the second class; otherwise one against the rest, mean over classes), else null.
    `ece` is the expected calibration error over 15 equal bins (Guo et al. 2017, arXiv:1706.04599).
    """
    from scipy.stats import binomtest
    from sklearn import metrics

    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)  # float32 rows miss 1 by more than scikit-learn accepts
    predicted = probabilities.argmax(1)
    correct = int((predicted == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(method="wilson")
    present = np.unique(labels)
    return {
        "n": len(labels),
        "accuracy": correct / len(labels),
        "accuracy_ci": [float(interval.low), float(interval.high)],
        "balanced_accuracy": float(np.mean([(predicted[labels == c] == c).mean() for c in present])),
        "auroc": _auroc(probabilities, labels) if len(present) == len(classes) else None,
        "log_loss": float(metrics.log_loss(labels, probabilities, labels=range(len(classes)))),
        "ece": expected_calibration_error(probabilities, labels),
        "recall": {classes[c]: float((predicted[labels == c] == c).mean()) for c in present},
    }


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, weighted by the share of examples in each bin."""
    confidence = probabilities.max(1)
    hit = probabilities.argmax(1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[which == b].mean() - hit[which == b].mean()) * (which == b).mean() for b in np.unique(which)]
    return float(sum(gaps))


def _auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    if probabilities.shape[1] == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr", labels=range(probabilities.shape[1])))
