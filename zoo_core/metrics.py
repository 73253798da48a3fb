"""Figures for each kind of task: scikit-learn's, each with an interval, and nothing hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_core import bootstrap


def score(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], intervals: bool = True
) -> dict[str, Any]:
    """All figures for probabilities [N, classes] against labels [N].

    `accuracy_ci` is the 95 % Wilson interval, which holds for few examples; `intervals` has those of the other
    figures by bootstrap. `auroc` is given where every class is present (binary: of the second class; otherwise one
    against the rest, mean over classes), else null. `ece` is the expected calibration error over 15 equal bins
    (Guo et al. 2017, arXiv:1706.04599).
    """
    from scipy.stats import binomtest
    from sklearn import metrics

    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)  # float32 rows miss 1 by more than scikit-learn accepts
    predicted = probabilities.argmax(1)
    hits = predicted == labels
    interval = binomtest(int(hits.sum()), len(labels)).proportion_ci(method="wilson")
    present = np.unique(labels)
    every = len(present) == len(classes)
    found = {
        "n": len(labels),
        "accuracy": int(hits.sum()) / len(labels),
        "accuracy_ci": [float(interval.low), float(interval.high)],
        "balanced_accuracy": float(np.mean([hits[labels == c].mean() for c in present])),
        "macro_f1": float(metrics.f1_score(labels, predicted, average="macro", labels=present, zero_division=0)),
        "auroc": _auroc(probabilities, labels) if every else None,
        "log_loss": float(metrics.log_loss(labels, probabilities, labels=range(len(classes)))),
        "ece": expected_calibration_error(probabilities, labels),
        "recall": {classes[c]: float(hits[labels == c].mean()) for c in present},
    }
    if not intervals:
        return found
    chosen = probabilities[np.arange(len(labels)), labels].clip(np.finfo(np.float64).eps)
    figures = {
        "balanced_accuracy": bootstrap.recall(hits, labels),
        "macro_f1": bootstrap.macro_f1(predicted[:, None] == present, labels[:, None] == present),
        "log_loss": bootstrap.mean(-np.log(chosen)),
        "ece": bootstrap.calibration_error(probabilities.max(1), hits),
    }
    if every:
        columns = [1] if len(classes) == 2 else list(range(len(classes)))
        figures["auroc"] = bootstrap.average([bootstrap.auroc(probabilities[:, c], labels == c) for c in columns])
    return found | {"intervals": bootstrap.intervals(figures, len(labels), len(classes))}


def score_ranks(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], intervals: bool = True
) -> dict[str, Any]:
    """Figures for ordered classes: those of `score`, the mean distance in ranks, and kappa with squared weights."""
    from sklearn.metrics import cohen_kappa_score

    found = score(probabilities, labels, classes, intervals)
    predicted = probabilities.argmax(1)
    distance = abs(predicted - labels)
    same = len(set(predicted.tolist()) | set(labels.tolist())) < 2  # kappa is then 0 by 0
    kappa = None if same else float(cohen_kappa_score(labels, predicted, weights="quadratic"))
    found |= {"rank_error": float(distance.mean()), "kappa": kappa}
    if intervals:
        figures = {"rank_error": bootstrap.mean(distance), "kappa": bootstrap.kappa(predicted, labels)}
        found["intervals"] |= bootstrap.intervals(figures, len(labels))
    return found


def score_several(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    thresholds: Sequence[float] = (),
    intervals: bool = True,
) -> dict[str, Any]:
    """Figures for several labels: probabilities and truth [N, classes], thresholds of each class (0.5 where none).

    `map` is the mean average precision over the classes that are present, the F1 are taken at the thresholds, `exact`
    is the share of examples with every label right, `ece` is taken over all answers, yes or no.
    """
    from sklearn import metrics

    p, truth = probabilities.astype(np.float64), labels > 0.5
    predicted = p >= (np.array(thresholds) if len(thresholds) else 0.5)
    present = [c for c in range(len(classes)) if truth[:, c].any()]
    mixed = [c for c in present if not truth[:, c].all()]
    precision = {classes[c]: float(metrics.average_precision_score(truth[:, c], p[:, c])) for c in present}
    clipped = p.clip(1e-7, 1 - 1e-7)
    loss = -np.where(truth, np.log(clipped), np.log(1 - clipped)).mean(1)
    exact = (predicted == truth).all(1)
    confidence, hits = np.maximum(p, 1 - p), (p >= 0.5) == truth
    found = {
        "n": len(labels),
        "map": float(np.mean(list(precision.values()))) if precision else None,
        "macro_f1": float(metrics.f1_score(truth, predicted, average="macro", zero_division=0)),
        "micro_f1": float(metrics.f1_score(truth, predicted, average="micro", zero_division=0)),
        "auroc": float(np.mean([metrics.roc_auc_score(truth[:, c], p[:, c]) for c in mixed])) if mixed else None,
        "exact": float(exact.mean()),
        "log_loss": float(loss.mean()),
        "ece": _ece(confidence, hits),
        "average_precision": precision,
    }
    if not intervals:
        return found
    figures = {
        "map": bootstrap.average([bootstrap.average_precision(p[:, c], truth[:, c]) for c in present]),
        "macro_f1": bootstrap.macro_f1(predicted, truth),
        "micro_f1": bootstrap.micro_f1(predicted, truth),
        "auroc": bootstrap.average([bootstrap.auroc(p[:, c], truth[:, c]) for c in mixed]),
        "exact": bootstrap.mean(exact),
        "log_loss": bootstrap.mean(loss),
        "ece": bootstrap.calibration_error(confidence, hits),
    }
    figures = {name: figure for name, figure in figures.items() if found[name] is not None}
    return found | {"intervals": bootstrap.intervals(figures, len(labels), 2 * len(classes))}


def score_numbers(found: np.ndarray, truth: np.ndarray, intervals: bool = True) -> dict[str, Any]:
    """Figures for numbers [N] against the truth [N]: mean absolute and root mean squared error, R2, Spearman."""
    from scipy.stats import spearmanr
    from sklearn import metrics

    found, truth = found.astype(np.float64), truth.astype(np.float64)
    error = found - truth
    varied = len(np.unique(truth)) > 1
    ranked = varied and len(np.unique(found)) > 1
    scores = {
        "n": len(truth),
        "mae": float(metrics.mean_absolute_error(truth, found)),
        "rmse": float(metrics.root_mean_squared_error(truth, found)),
        "r2": float(metrics.r2_score(truth, found)) if varied else None,
        "spearman": float(spearmanr(found, truth).statistic) if ranked else None,
    }
    if not intervals:
        return scores
    squared = bootstrap.mean(error**2)
    figures: dict[str, bootstrap.Weighted] = {
        "mae": bootstrap.mean(abs(error)),
        "rmse": lambda w: np.sqrt(squared(w)),
        "r2": bootstrap.determination(found, truth),
        "spearman": bootstrap.spearman(found, truth),
    }
    figures = {name: figure for name, figure in figures.items() if scores[name] is not None}
    return scores | {"intervals": bootstrap.intervals(figures, len(truth))}


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, weighted by the share of examples in each bin."""
    return _ece(probabilities.max(1), probabilities.argmax(1) == labels, bins)


def _ece(confidence: np.ndarray, hits: np.ndarray, bins: int = 15) -> float:
    return float(bootstrap.calibration_error(confidence, hits, bins)(np.ones((1, len(hits)), dtype=np.float32))[0])


def _auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    if probabilities.shape[1] == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr", labels=range(probabilities.shape[1])))
