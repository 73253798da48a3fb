"""What costs nothing once the features are there, and every fine-tuned model must beat.

All are fitted on the training side and scored on the test side; none sees the test before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_core.metrics import score


def baselines(
    features: dict[str, np.ndarray],
    all_stages: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    classes: Sequence[str],
    widths: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Majority class, 20 nearest neighbours, linear probe, multi-stage ridge.

    Args:
        features: side -> the backbone's own pooled features [N, D]; sides `train` and `test`.
        all_stages: side -> pooled features of every stage [N, sum of widths].
        labels: side -> label indices [N].
        widths: width of each stage's block in `all_stages`.
    """
    y, n_classes = labels["train"], len(classes)
    probabilities = {
        "majority": np.tile(np.bincount(y, minlength=n_classes) / len(y), (len(labels["test"]), 1)),
        "knn": _neighbours(features, y, n_classes),
        "linear_probe": _logistic(features, y, n_classes),
        "multi_stage": _ridge(all_stages, y, n_classes, widths),
    }
    kept = ("accuracy", "accuracy_ci", "balanced_accuracy", "auroc")
    scores = {name: score(p, labels["test"], classes) for name, p in probabilities.items()}
    return {name: {k: s[k] for k in kept} for name, s in scores.items()}


def _neighbours(x: dict[str, np.ndarray], y: np.ndarray, n_classes: int) -> np.ndarray:
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(min(20, len(y)), metric="cosine").fit(x["train"], y)
    return _spread(model.predict_proba(x["test"]), model.classes_, n_classes)


def _logistic(x: dict[str, np.ndarray], y: np.ndarray, n_classes: int) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200)).fit(x["train"], y)
    return _spread(model.predict_proba(x["test"]), model.classes_, n_classes)


def _ridge(x: dict[str, np.ndarray], y: np.ndarray, n_classes: int, widths: Sequence[int]) -> np.ndarray:
    """Ridge on all stages (after Head2Toe, Evci et al. 2022, arXiv:2201.03529), strength by leave-one-out.

    Each stage's block is standardised and divided by the root of its width, so that wide stages do
    not drown narrow ones. Outputs are regression scores made probabilities by a softmax: use the
    ranking and the decision, not the calibration.
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x["train"])
    weight = np.concatenate([np.full(w, w**-0.5, dtype=np.float32) for w in widths])
    model = RidgeClassifierCV(np.logspace(-3, 2, 11)).fit(scaler.transform(x["train"]) * weight, y)
    scores = model.decision_function(scaler.transform(x["test"]) * weight)
    scores = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
    exp = np.exp(scores - scores.max(axis=1, keepdims=True))
    return _spread(exp / exp.sum(axis=1, keepdims=True), model.classes_, n_classes)


def _spread(probabilities: np.ndarray, present: np.ndarray, n_classes: int) -> np.ndarray:
    """Columns for every class, zero for those the training side lacks."""
    full = np.zeros((len(probabilities), n_classes))
    full[:, present] = probabilities
    return full
