"""The spread of a figure: the same training on folds and with several seeds, from the same cached values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo_core.fit import Model, Side
from zoo_core.solvers import fold_of
from zoo_core.targets import Target


def repeat(
    scored: Callable[[str, Side, int, Callable[[Model], dict[str, Any]]], dict[str, Any]],
    outputs: Callable[[Model, Sequence[str]], Tensor],
    side: Side,
    strata: Sequence[int],
    target: Target,
    folds: int,
    seeds: int,
) -> dict[str, Any]:
    """Cross-validate on one side of the data; the test side is not looked at.

    Args:
        scored: the name of a fold, its inside, a seed, and how a model is scored, to the scores of one trained so.
        outputs: of a model for some rows.
        side: what is split into folds, anew for each seed.
        strata: the group of each example that is spread evenly over the folds.
        target: says how answers are scored.

    Returns:
        `folds`, `seeds`, and for each figure its mean, standard deviation and all values.
    """
    labels = side.labels.numpy()
    found: dict[str, list[float]] = {name: [] for name in (*target.figures, "log_loss")}
    for seed in range(seeds):
        fold = fold_of(np.array(strata), folds, seed)
        for k in range(folds):
            inside, outside = np.flatnonzero(fold != k).tolist(), np.flatnonzero(fold == k).tolist()

            def score(model: Model, rows: list[int] = outside) -> dict[str, Any]:
                answers = outputs(model, [side.digests[i] for i in rows])
                return target.score(model.builder.probabilities(answers).numpy(), labels[rows], intervals=False)

            scores = scored(f"seed-{seed}-fold-{k}", part(side, inside), seed, score)
            for name, values in found.items():
                if scores.get(name) is not None:
                    values.append(scores[name])
    figures = {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": values}
        for name, values in found.items()
        if len(values) > 1
    }
    return {"folds": folds, "seeds": seeds} | figures


def part(side: Side, indices: list[int]) -> Side:
    """Some examples of a side."""
    return Side([side.digests[i] for i in indices], side.labels[indices], side.views)


def joined(a: Side, b: Side) -> Side:
    """Two sides as one."""
    return Side([*a.digests, *b.digests], torch.cat([a.labels, b.labels]), a.views)
