"""How well a backbone's frozen features suit labels, without training: scores to make a shortlist by.

Each takes features [N, D] and classes [N]; larger is better. Their scales differ, so only the order within one
score means something.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 100
_TOLERANCE = 1e-6


def logme(x: np.ndarray, y: np.ndarray) -> float:
    """Logarithm of the maximum evidence an example (LogME, You et al. 2021, arXiv:2102.11005).

    For each class, the marginal likelihood of its 0/1 column under Bayesian linear regression on the features, with
    weights ~ N(0, 1/alpha) and noise ~ N(0, 1/beta), at the alpha and beta that make it largest (fixed point of
    MacKay 1992); mean over classes.
    """
    x = x.astype(np.float64)
    n, width = x.shape
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    squares = s**2
    found = []
    for label in np.unique(y):
        column = (y == label).astype(np.float64)
        along = (u.T @ column) ** 2
        beyond = max(float(column @ column - along.sum()), 0.0)  # what no weights explain
        found.append(_evidence(squares, along, beyond, n, width))
    return float(np.mean(found))


def _evidence(squares: np.ndarray, along: np.ndarray, beyond: float, n: int, width: int) -> float:
    """Largest log evidence an example of one column.

    Args:
        squares: squared singular values of the features.
        along: squared projections of the column on their left singular vectors.
    """
    alpha = beta = 1.0
    last = -np.inf
    for _ in range(_ROUNDS):
        precision = alpha + beta * squares
        weights = float((beta**2 * squares * along / precision**2).sum())
        errors = float((alpha**2 * along / precision**2).sum()) + beyond
        evidence = (
            width * np.log(alpha)
            + n * np.log(beta)
            - np.log(precision).sum()
            - (width - len(squares)) * np.log(alpha)
            - beta * errors
            - alpha * weights
            - n * np.log(2 * np.pi)
        ) / (2 * n)
        if abs(evidence - last) < _TOLERANCE:
            break
        last = float(evidence)
        effective = float((beta * squares / precision).sum())
        alpha = effective / max(weights, 1e-12)
        beta = (n - effective) / max(errors, 1e-12)
    return last


def h_score(x: np.ndarray, y: np.ndarray) -> float:
    """How far apart the class means lie, in units of the features' covariance (H-score, Bao et al. 2019).

    The trace of cov(x)^-1 cov(E[x|y]), with the covariance shrunk after Ledoit and Wolf, since there are often
    fewer examples than features (Ibrahim et al. 2022, arXiv:2110.06893).
    """
    from sklearn.covariance import ledoit_wolf

    z = x.astype(np.float64) - x.mean(0)
    covariance, shrinkage = ledoit_wolf(z, assume_centered=True)
    labels, where, counts = np.unique(y, return_inverse=True, return_counts=True)
    means = np.zeros((len(labels), z.shape[1]))
    np.add.at(means, where, z)
    means /= counts[:, None]
    spread = np.linalg.solve(covariance, means.T)  # [D, classes]
    return float((1 - shrinkage) * (counts / len(y) * (means * spread.T).sum(1)).sum())


def neighbours(x: np.ndarray, y: np.ndarray, k: int = 5) -> float:
    """Share of the examples whose k nearest others (cosine) mostly have their class; ties go to the nearest."""
    from sklearn.neighbors import NearestNeighbors

    k = min(k, len(y) - 1)
    found = NearestNeighbors(n_neighbors=k, metric="cosine").fit(x).kneighbors(return_distance=False)
    votes = np.zeros((len(y), int(y.max()) + 1))
    for place in range(k):
        votes[np.arange(len(y)), y[found[:, place]]] += 1 + 1e-3 * 0.5**place
    return float((votes.argmax(1) == y).mean())
