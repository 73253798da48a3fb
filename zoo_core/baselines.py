"""What costs nothing once the features are there, and every fine-tuned model must beat.

All are fitted on the training side and scored on the test side; none sees the test before that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_core.metrics import score

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_core.solvers import Solved


def baselines(
    features: dict[str, np.ndarray],
    all_stages: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    classes: Sequence[str],
    widths: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Majority class, 20 nearest neighbours, linear probe (logistic), ridge on all stages.

    Args:
        features: side -> the backbone's own pooled features [N, D]; sides `train` and `test`.
        all_stages: side -> pooled features of every stage [N, sum of widths].
        labels: side -> label indices [N].
        widths: width of each stage's block in `all_stages`.
    """
    from zoo_core import solvers

    y, n_classes = labels["train"], len(classes)
    probabilities = {
        "majority": np.tile(np.bincount(y, minlength=n_classes) / len(y), (len(labels["test"]), 1)),
        "knn": _neighbours(features, y, n_classes),
        "linear_probe": _solved(features, lambda x, y: solvers.logistic(x, y, n_classes), y),
        "multi_stage": _solved(all_stages, lambda x, y: solvers.ridge(x, y, n_classes, widths), y),
    }
    kept = ("accuracy", "accuracy_ci", "balanced_accuracy", "auroc")
    scores = {name: score(p, labels["test"], classes) for name, p in probabilities.items()}
    return {name: {k: s[k] for k in kept} for name, s in scores.items()}


def _neighbours(x: dict[str, np.ndarray], y: np.ndarray, n_classes: int) -> np.ndarray:
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(min(20, len(y)), metric="cosine").fit(x["train"], y)
    return _spread(model.predict_proba(x["test"]), model.classes_, n_classes)


def _solved(x: dict[str, np.ndarray], solve: Callable[[Tensor, Tensor], Solved], y: np.ndarray) -> np.ndarray:
    import torch

    solved = solve(torch.from_numpy(x["train"]), torch.from_numpy(y))
    found: np.ndarray = (torch.from_numpy(x["test"]) @ solved.weight.T + solved.bias).softmax(1).numpy()
    return found


def _spread(probabilities: np.ndarray, present: np.ndarray, n_classes: int) -> np.ndarray:
    """Columns for every class, zero for those the training side lacks."""
    full = np.zeros((len(probabilities), n_classes))
    full[:, present] = probabilities
    return full
