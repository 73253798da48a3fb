"""After training: what was chosen on the validation side, and what the test side says about all of it, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from zoo_core import baselines, calibration, learning_curve, next_tokens, resolution
from zoo_core.activations import Activations
from zoo_core.baselines import Floor
from zoo_core.calibration import Calibration
from zoo_core.fit import Side
from zoo_core.targets import Target
from zoo_core.trainer import Trainer
from zoo_core.types import ONE_LABEL, Split


@dataclass(frozen=True)
class Judged:
    """What the test side says.

    Attributes:
        answers: of the run for the test side [N, outputs], calibrated.
        calibration: what was fitted on the validation side.
        figures: parts of the summary: `test`, `baselines`, `calibration`, `operating_point`, `resolution`.
    """

    answers: np.ndarray
    calibration: Calibration
    figures: dict[str, Any]


def floor_of(
    acts: Activations, sides: Mapping[Split, Side], target: Target, trainer: Trainer
) -> tuple[Floor, dict[str, Any] | None]:
    """The baselines, and the learning curve where answers are one of several classes."""
    if target.kind == "next-token":
        return next_tokens.floor_of(trainer, sides["train"], sides["test"], trainer.recipe.seed), None
    both: tuple[Split, ...] = ("train", "test")
    features: dict[str, Tensor] = {side: acts.features(sides[side].digests) for side in both}
    stages: dict[str, Tensor] = {side: acts.all_stages(sides[side].digests) for side in both}
    floor = baselines.baselines(features, stages, sides["train"].labels, target, acts.pooled.widths)
    if target.kind not in ONE_LABEL:
        return floor, None
    curve = learning_curve.learning_curve(
        features["train"],
        sides["train"].labels,
        features["test"],
        sides["test"].labels,
        len(target.classes),
        floor.strength,
    )
    return floor, curve


def judge(target: Target, val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], floor: Floor, fit: bool) -> Judged:
    """Calibrate on validation answers and labels, then score the test side.

    Args:
        val, test: answers [N, outputs] and labels.
        fit: whether to calibrate at all.
    """
    fitted = calibration.calibrate(target, *val) if fit else Calibration(why="left out, as asked")
    answers = fitted.apply(target, test[0])
    labels = test[1].numpy()
    cuts = fitted.thresholds if target.kind == "multi-label" else ()
    scores = target.score(answers.numpy(), labels, cuts)
    figures: dict[str, Any] = {
        "test": scores,
        "baselines": baselines.scores(floor, labels, target),
        "calibration": _told(target, fitted, test[0].numpy(), labels, scores),
        "resolution": _resolution(target, answers.numpy(), labels, floor),
    }
    if len(target.classes) == 2 and target.kind in ONE_LABEL:
        figures["operating_point"] = calibration.at_threshold(answers.numpy()[:, 1], labels == 1, fitted.thresholds)
    return Judged(answers.numpy(), fitted, figures)


def _told(
    target: Target, fitted: Calibration, before: np.ndarray, labels: np.ndarray, after: Mapping[str, Any]
) -> dict[str, Any]:
    """What calibration did to the test side's figures."""
    found: dict[str, Any] = {"temperature": fitted.temperature, "why": fitted.why}
    if "ece" in after:
        raw = target.score(before, labels, intervals=False)
        found |= {name: {"before": raw[name], "after": after[name]} for name in ("ece", "log_loss")}
    return found


def _resolution(target: Target, answers: np.ndarray, labels: np.ndarray, floor: Floor) -> dict[str, Any]:
    """This run against the best baseline."""
    each = {name: target.each(found, labels) for name, found in floor.answers.items()}
    rival = max(each, key=lambda name: each[name].mean())
    found = resolution.told_apart(target.each(answers, labels), each[rival], rival)
    return found | {"unit": target.unit}
