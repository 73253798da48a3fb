"""What more data would bring: a probe on an eighth, a quarter, half and all of the training side.

The probe is logistic regression on cached features, so the whole curve costs one small optimisation. It says how
the data, not the fine-tuned model, would grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo_core import bootstrap
from zoo_core.solvers import fit_many, fold_of

_PARTS = {1: (0, 1, 2, 3), 2: (0, 2, 4, 6), 4: (0, 4), 8: (0,)}
"""Eighths in a share -> where each draw of so many eighths starts."""
_STEPS = 40
_DRAWS = 500


def learning_curve(
    train: Tensor, labels: Tensor, test: Tensor, truth: Tensor, n_classes: int, strength: float
) -> dict[str, Any] | None:
    """Accuracy by number of training examples, and a power law's guess for twice as many.

    Args:
        train, test: features [N, D].
        labels, truth: their classes [N].
        strength: L2 strength that suits the whole training side; it grows as examples become fewer.

    Returns:
        `examples`, `accuracy` (means over disjoint draws) and `draws` for each share; `twice` with `examples`,
        `accuracy`, `interval` and `gain`, or null where fewer than three shares have two examples a class. None where
        even the whole side has fewer.
    """
    eighth = torch.from_numpy(fold_of(labels.numpy(), 8, 0))
    shares = [parts for parts in _PARTS if len(labels) * parts / 8 >= 2 * n_classes]
    if not shares:
        return None
    mean, std = train.mean(0), train.std(0).clamp_min(1e-6)
    rows, strengths, owner = [], [], []
    for parts in shares:
        for start in _PARTS[parts]:
            rows.append(((eighth >= start) & (eighth < start + parts)).float())
            strengths.append(min(1.0, strength * 8 / parts))
            owner.append(parts)
    weight, bias = fit_many((train - mean) / std, labels, n_classes, strengths, torch.stack(rows), steps=_STEPS)
    outputs = torch.einsum("nd,fcd->fnc", (test - mean) / std, weight) + bias[:, None]
    wrong = (outputs.argmax(2) != truth).numpy()
    sizes = [round(len(labels) * parts / 8) for parts in shares]
    by_share = [wrong[[i for i, parts in enumerate(owner) if parts == share]] for share in shares]
    return {
        "model": "logistic regression on the frozen backbone's features",
        "examples": sizes,
        "accuracy": [float(1 - rows.mean()) for rows in by_share],
        "draws": [len(rows) for rows in by_share],
        "twice": twice(sizes, by_share) if len(shares) >= 3 else None,
    }


def twice(sizes: Sequence[int], wrong: Sequence[np.ndarray], seed: int = 0) -> dict[str, Any]:
    """What twice the last size would bring, if errors go on falling as a power of the size.

    The power is fitted to all shares in half of the draws and to the last three in the other half: how much the
    two differ is part of the interval, beside the draws of training and of test examples.

    Args:
        sizes: training examples of each share.
        wrong: for each share whether each test example was wrong [draws, N].
    """
    rng = np.random.default_rng(seed)
    n_test = wrong[0].shape[1]
    weights = bootstrap.drawn(rng, n_test, _DRAWS)
    x = np.log(np.array(sizes, dtype=float))
    errors = []
    for rows in wrong:
        picks = rng.integers(0, len(rows), (_DRAWS, len(rows)))
        by_draw = weights @ rows.T / n_test  # [draws, subsets]
        errors.append(np.take_along_axis(by_draw, picks, 1).mean(1))
    # half an error more: a share without any has a logarithm, too
    table = np.log(np.stack(errors, axis=1) + 0.5 / n_test)
    slopes = np.where(np.arange(_DRAWS) % 2, _slope(x, table), _slope(x[-3:], table[:, -3:]))
    last = float(wrong[-1].mean())
    centre = np.log(np.array([[rows.mean() for rows in wrong]]) + 0.5 / n_test)
    steady = float(np.minimum(0.0, (_slope(x, centre) + _slope(x[-3:], centre[:, -3:])) / 2)[0])
    gains = last * (1 - 2.0 ** np.minimum(0.0, slopes))
    low, high = np.quantile(gains, [0.025, 0.975])
    gain = last * (1 - 2.0**steady)
    low, high = min(low, gain), max(high, gain)
    return {
        "examples": 2 * sizes[-1],
        "accuracy": 1 - last + gain,
        "interval": [1 - last + float(low), 1 - last + float(high)],
        "gain": gain,
        "power": -steady,
    }


def sentence(curve: dict[str, Any] | None) -> str:
    """One line for the user; empty where there is no curve."""
    if curve is None:
        return ""
    points = ", ".join(f"{a:.3f}" for a in curve["accuracy"])
    sizes = ", ".join(map(str, curve["examples"]))
    text = f"a probe on {sizes} training examples: {points}"
    more = curve["twice"]
    if more is None:
        return f"{text}; too few to say what more would bring"
    low, high = more["interval"]
    return f"{text}; on {more['examples']} perhaps {more['accuracy']:.3f} ({low:.3f} to {high:.3f}), if the trend holds"


def _slope(x: np.ndarray, y: np.ndarray) -> Any:
    """Of the straight line through each row of y [R, points]."""
    centred = x - x.mean()
    return y @ centred / (centred**2).sum()
