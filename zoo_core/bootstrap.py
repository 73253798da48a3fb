"""Intervals by drawing the test examples again, with replacement (Efron 1979), many draws at once.

A figure is a function of how often each example was drawn: weights [R, N] to values [R]. Each is the weighted
form of scikit-learn's figure and equals it where every weight is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

Weighted: TypeAlias = Callable[[np.ndarray], Any]
DRAWS = 1000
_WORK = 200_000_000  # examples times outputs times draws, beyond which fewer draws are made
_AT_ONCE = 4_000_000  # numbers in one block of weights


def intervals(figures: Mapping[str, Weighted], n: int, outputs: int = 1, seed: int = 0) -> dict[str, list[float]]:
    """Name -> 95 % percentile interval over draws of `n` examples; figures that no draw defines are left out."""
    draws = int(np.clip(_WORK // max(1, n * outputs), DRAWS // 5, DRAWS))
    rng = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {name: [] for name in figures}
    step = max(1, _AT_ONCE // n)
    for start in range(0, draws, step):
        weights = drawn(rng, n, min(step, draws - start))
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, figure in figures.items():
                found[name].append(figure(weights))
    result = {}
    for name, blocks in found.items():
        values = np.concatenate(blocks)
        values = values[np.isfinite(values)]  # a draw without any example of a class
        if len(values):
            result[name] = [float(q) for q in np.quantile(values, [0.025, 0.975])]
    return result


def drawn(rng: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """How often each of `n` examples is in each draw of `n` [draws, n]."""
    return np.stack([np.bincount(row, minlength=n) for row in rng.integers(0, n, (draws, n))]).astype(np.float32)


def mean(values: np.ndarray) -> Weighted:
    """Mean of values [N]."""
    return lambda w: w @ values.astype(np.float32) / w.sum(1)


def recall(hits: np.ndarray, labels: np.ndarray) -> Weighted:
    """Balanced accuracy: the mean over the classes that are there of the share of hits [N]."""
    member = (labels[:, None] == np.unique(labels)).astype(np.float32)

    def figure(w: np.ndarray) -> Any:
        shares = (w @ (member * hits[:, None])) / (w @ member)
        there = np.isfinite(shares)
        return np.where(there, shares, 0).sum(1) / there.sum(1)

    return figure


def macro_f1(predicted: np.ndarray, truth: np.ndarray) -> Weighted:
    """Mean over outputs of F1, for yes and no [N, outputs]; 0 where nothing is predicted and nothing there."""
    right, both = (predicted & truth).astype(np.float32), predicted.astype(np.float32) + truth

    def figure(w: np.ndarray) -> Any:
        return (2 * (w @ right) / np.maximum(w @ both, 1e-9)).mean(1)

    return figure


def micro_f1(predicted: np.ndarray, truth: np.ndarray) -> Weighted:
    """F1 over all answers, yes and no [N, outputs], together."""
    right = (predicted & truth).sum(1).astype(np.float32)
    both = (predicted.sum(1) + truth.sum(1)).astype(np.float32)
    return lambda w: 2 * (w @ right) / np.maximum(w @ both, 1e-9)


def kappa(predicted: np.ndarray, truth: np.ndarray) -> Weighted:
    """Cohen's kappa of ranks [N] with squared weights: the squared distance against that of chance."""
    p, t = predicted.astype(np.float64), truth.astype(np.float64)

    def figure(w: np.ndarray) -> Any:
        total = w.sum(1)
        chance = (w @ p**2 + w @ t**2) / total - 2 * (w @ p) * (w @ t) / total**2
        return 1 - (w @ (p - t) ** 2) / total / chance

    return figure


def calibration_error(confidence: np.ndarray, hits: np.ndarray, bins: int = 15) -> Weighted:
    """Expected calibration error over equal bins, for one answer an example [N] or several [N, outputs]."""
    confidence, hits = confidence.reshape(len(hits), -1), hits.reshape(len(hits), -1)
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.stack([((confidence - hits) * (which == b)).sum(1) for b in range(bins)], axis=1).astype(np.float32)
    return lambda w: abs(w @ gap).sum(1) / w.sum(1) / hits.shape[1]


def auroc(scores: np.ndarray, positive: np.ndarray) -> Weighted:
    """Area under the ROC curve: how often a positive [N] outranks a negative, ties counting half."""
    order, starts = _by_score(scores)

    def figure(w: np.ndarray) -> Any:
        yes, no = _grouped(w, order, starts, positive), _grouped(w, order, starts, ~positive)
        below = no.cumsum(1) - no / 2
        return (yes * below).sum(1) / (yes.sum(1) * no.sum(1))

    return figure


def average_precision(scores: np.ndarray, positive: np.ndarray) -> Weighted:
    """Average precision: precision at each score, weighted by the recall that it adds."""
    order, starts = _by_score(-scores)

    def figure(w: np.ndarray) -> Any:
        yes, no = _grouped(w, order, starts, positive), _grouped(w, order, starts, ~positive)
        found, asked = yes.cumsum(1), (yes + no).cumsum(1)
        return (yes * found / np.maximum(asked, 1e-9)).sum(1) / yes.sum(1)

    return figure


def average(figures: list[Weighted]) -> Weighted:
    """Mean of several figures, of those that a draw defines."""

    def figure(w: np.ndarray) -> Any:
        values = np.stack([one(w) for one in figures])
        there = np.isfinite(values)
        return np.where(there, values, 0).sum(0) / there.sum(0)

    return figure


def determination(found: np.ndarray, truth: np.ndarray) -> Weighted:
    """R2: the share of the variance of the truth [N] that is explained."""
    found, truth = found.astype(np.float64), truth.astype(np.float64)

    def figure(w: np.ndarray) -> Any:
        centre = (w @ truth) / w.sum(1)
        spread = w @ truth**2 - w.sum(1) * centre**2
        return 1 - (w @ (truth - found) ** 2) / spread

    return figure


def spearman(found: np.ndarray, truth: np.ndarray) -> Weighted:
    """Correlation of ranks, ties sharing theirs."""

    def figure(w: np.ndarray) -> Any:
        a, b = _ranks(w, found), _ranks(w, truth)
        total = w.sum(1, keepdims=True)
        a, b = a - (w * a).sum(1, keepdims=True) / total, b - (w * b).sum(1, keepdims=True) / total
        return (w * a * b).sum(1) / np.sqrt((w * a * a).sum(1) * (w * b * b).sum(1))

    return figure


def _ranks(w: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rank of each example in each draw [R, N]; an example drawn twice has two equal values."""
    order, starts = _by_score(values)
    grouped = np.add.reduceat(w.astype(np.float64)[:, order], starts, axis=1)
    middle = grouped.cumsum(1) - grouped / 2
    ranks = np.empty(w.shape)
    ranks[:, order] = np.repeat(middle, np.diff([*starts, len(order)]), axis=1)
    return ranks


def _by_score(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order of the examples by score, and where each group of equal scores starts in it."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    return order, np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])


def _grouped(w: np.ndarray, order: np.ndarray, starts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    grouped: np.ndarray = np.add.reduceat((w * chosen)[:, order], starts, axis=1)
    return grouped.astype(np.float64)
