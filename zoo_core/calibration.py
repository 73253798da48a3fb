"""What is chosen on the validation side after training: a temperature, and thresholds.

The test side has no part in it: its figures say what the choice was worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ENOUGH = 25  # validation examples for a temperature
_OF_EACH = 5  # validation examples with, and without, a label for a threshold of its own
_PRIOR = 0.5  # standard deviation of the temperature's logarithm before anything is seen


@dataclass(frozen=True)
class Calibration:
    """How probabilities are turned into what the user sees.

    Attributes:
        temperature: above 1 makes them less sure, 1 leaves them as the head gives them.
        thresholds: of two classes that of the second one, of several labels one each; empty for none.
        why: one sentence.
    """

    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    why: str = ""

    def apply(self, target: Any, answers: Tensor) -> Tensor:
        """Answers [N, outputs] after temperature scaling."""
        if self.temperature == 1.0:
            return answers
        found: Tensor = target.tempered(answers, self.temperature)
        return found

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Calibration:
        """From a run's plan."""
        temperature, thresholds = float(stored["temperature"]), tuple(map(float, stored["thresholds"]))
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature {temperature}")
        return cls(temperature, thresholds, str(stored["why"]))


def calibrate(target: Any, answers: Tensor, labels: Tensor) -> Calibration:
    """Fit a temperature and thresholds on validation answers [N, outputs] and labels."""
    if target.kind == "next-token":
        return Calibration(why="what a chat model says is not calibrated")
    if target.kind == "regression":
        return Calibration(why="numbers have no probabilities to calibrate")
    if len(labels) < ENOUGH:
        return Calibration(why=f"{len(labels)} validation images are too few to calibrate on ({ENOUGH} are needed)")
    fitted = Calibration(temperature(target, answers, labels))
    tempered = fitted.apply(target, answers).numpy().astype(np.float64)
    why = f"fitted on {len(labels)} validation images"
    return Calibration(fitted.temperature, target.thresholds(tempered, labels.numpy()), why)


def temperature(target: Any, answers: Tensor, labels: Tensor) -> float:
    """The temperature that makes validation labels most probable (Guo et al. 2017, arXiv:1706.04599).

    A weak prior around 1 keeps a validation side without a single mistake from making the model infinitely sure.
    """
    from scipy.optimize import minimize_scalar

    double = answers.double()
    aims = labels.double() if labels.is_floating_point() else labels

    def loss(log: float) -> float:
        found = target.log_loss(target.tempered(double, math.exp(log)), aims)
        return float(found) + (log / _PRIOR) ** 2 / (2 * len(labels))

    best = minimize_scalar(loss, bounds=(-1.5, 2.5), method="bounded")
    return float(math.exp(best.x))


def operating_point(p: np.ndarray, positive: np.ndarray) -> tuple[float, ...]:
    """The threshold of the best balanced accuracy (Youden 1950); none where a class has too few examples."""
    if min(positive.sum(), (~positive).sum()) < _OF_EACH:
        return ()
    cuts = _between(p)
    called = p[:, None] >= cuts
    balanced = called[positive].mean(0) + (~called[~positive]).mean(0)
    return (_middle(cuts, balanced),)


def best_f1(p: np.ndarray, positive: np.ndarray) -> float:
    """The threshold of the best F1; 0.5 where there are too few examples with or without the label."""
    if min(positive.sum(), (~positive).sum()) < _OF_EACH:
        return 0.5
    cuts = _between(p)
    called = p[:, None] >= cuts
    f1 = 2 * (called & positive[:, None]).sum(0) / (called.sum(0) + positive.sum())
    return _middle(cuts, f1)


def _between(p: np.ndarray, at_most: int = 500) -> np.ndarray:
    """Cuts halfway between neighbouring probabilities."""
    ranked = np.unique(p)
    cuts: np.ndarray = (ranked[1:] + ranked[:-1]) / 2 if len(ranked) > 1 else ranked
    few: np.ndarray = cuts[np.linspace(0, len(cuts) - 1, min(at_most, len(cuts))).round().astype(int)]
    return few


def _middle(cuts: np.ndarray, values: np.ndarray) -> float:
    """Of the cuts that are equally good the middle one."""
    best = np.flatnonzero(values >= values.max() - 1e-12)
    return float(cuts[best[len(best) // 2]])


def at_threshold(p: np.ndarray, positive: np.ndarray, thresholds: Sequence[float]) -> dict[str, Any] | None:
    """Figures of two classes where the second is called from its threshold on, with intervals; none without one."""
    from zoo_core import bootstrap

    if len(thresholds) != 1 or not positive.any() or positive.all():
        return None
    called = p >= thresholds[0]
    hits = called == positive
    shares = {
        "sensitivity": lambda w: (w @ (hits & positive)) / (w @ positive),
        "specificity": lambda w: (w @ (hits & ~positive)) / (w @ ~positive),
        "balanced_accuracy": bootstrap.recall(hits, positive.astype(int)),
        "accuracy": bootstrap.mean(hits),
    }
    ones = np.ones((1, len(p)), dtype=np.float32)
    found = {name: float(figure(ones)[0]) for name, figure in shares.items()}
    return {"threshold": thresholds[0]} | found | {"intervals": bootstrap.intervals(shares, len(p))}
