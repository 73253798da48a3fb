"""What costs nothing once the features are there, and every fine-tuned model must beat.

All are fitted on the training side and answer for the test side; none sees the test before that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from zoo_core import solvers
from zoo_core.heads import Linear
from zoo_core.solvers import Solved
from zoo_core.targets import Target


@dataclass(frozen=True)
class Floor:
    """Answers of the baselines for the test side.

    Attributes:
        answers: name -> [N, outputs].
        strength: L2 strength that the linear probe chose.
    """

    answers: dict[str, np.ndarray]
    strength: float


def baselines(
    features: Mapping[str, Tensor],
    all_stages: Mapping[str, Tensor],
    labels: Tensor,
    target: Target,
    widths: Sequence[int],
) -> Floor:
    """The training side's mean (for classes the majority), 20 nearest neighbours, linear probe, ridge on all stages.

    The probe is logistic regression for classes, ridge for several labels and numbers.

    Args:
        features: side -> the backbone's own pooled features [N, D]; sides `train` and `test`.
        all_stages: side -> pooled features of every stage [N, sum of widths].
        labels: of the training side.
        widths: width of each stage's block in `all_stages`.
    """
    outputs = len(target.classes) or 1
    matrix = solvers.as_matrix(labels, outputs).double().numpy()
    aims = target.aims(labels)

    def probe(x: Tensor) -> Solved:
        return solvers.ridge(x, aims, outputs, ()) if aims.is_floating_point() else solvers.logistic(x, aims, outputs)

    linear = probe(features["train"])
    whole = solvers.ridge(all_stages["train"], aims, outputs, widths)
    answers = {
        "majority": np.tile(matrix.mean(0), (len(features["test"]), 1)),
        "knn": _neighbours(features, matrix),
        "linear_probe": _answers(target, linear, features["test"]),
        "multi_stage": _answers(target, whole, all_stages["test"]),
    }
    return Floor(answers, linear.strength)


def scores(floor: Floor, labels: np.ndarray, target: Target) -> dict[str, dict[str, Any]]:
    """Name -> the figures that are printed, with their intervals."""
    kept = (*target.figures, "accuracy_ci", "intervals")
    found = {name: target.score(answers, labels) for name, answers in floor.answers.items()}
    return {name: {k: s[k] for k in kept if k in s} for name, s in found.items()}


def _neighbours(x: Mapping[str, Tensor], matrix: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import KNeighborsRegressor

    model = KNeighborsRegressor(min(20, len(matrix)), metric="cosine").fit(x["train"], matrix)
    found: np.ndarray = model.predict(x["test"])
    return found


def _answers(target: Target, solved: Solved, x: Tensor) -> np.ndarray:
    found: np.ndarray = target.answers(Linear(), x @ solved.weight.T + solved.bias).numpy()
    return found
