"""Transferability scores equal what their definitions give when they are computed in another way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from zoo_core.transferability import h_score, logme, neighbours


@pytest.fixture
def sample():
    """Features [60, 6] of three classes that overlap, and the classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    centres = rng.normal(size=(3, 6))
    return centres[y] + rng.normal(size=(60, 6)), y


def test_logme_is_the_largest_marginal_likelihood(sample):
    """LogME is the evidence of a Bayesian linear regression, at the precisions that an optimiser finds for it."""
    x, y = sample

    def evidence(column):
        def negative(log_precisions):
            alpha, beta = np.exp(log_precisions)
            covariance = x @ x.T / alpha + np.eye(len(y)) / beta
            return -stats.multivariate_normal(np.zeros(len(y)), covariance).logpdf(column)

        return -optimize.minimize(negative, [0.0, 0.0], method="Nelder-Mead").fun / len(y)

    expected = np.mean([evidence((y == label).astype(float)) for label in range(3)])
    assert logme(x, y) == pytest.approx(expected, abs=1e-5)


def test_logme_with_more_features_than_examples():
    """LogME is defined where features outnumber examples, and prefers features that hold the class."""
    rng = np.random.default_rng(1)
    y = np.arange(20) % 2
    noise = rng.normal(size=(20, 50))
    told = noise.copy()
    told[:, :5] += 2 * y[:, None]
    assert np.isfinite(logme(noise, y))
    assert logme(told, y) > logme(noise, y)


def test_h_score_is_the_sum_of_squared_canonical_correlations():
    """Without shrinkage the H-score is the sum of squared canonical correlations of features and classes."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 50_000)
    x = rng.normal(size=(3, 4))[y] + rng.normal(size=(50_000, 4))
    columns = np.eye(3)[y][:, :2]
    bases = [np.linalg.qr(part - part.mean(0))[0] for part in (x, columns)]
    correlations = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    assert h_score(x, y) == pytest.approx((correlations**2).sum(), rel=2e-3)


def test_h_score_with_more_features_than_examples():
    """The H-score is defined where features outnumber examples, and prefers features that hold the class."""
    rng = np.random.default_rng(3)
    y = np.arange(30) % 3
    noise = rng.normal(size=(30, 100))
    told = noise + 3 * np.eye(3)[y] @ rng.normal(size=(3, 100))
    assert h_score(told, y) > h_score(noise, y) > 0


def test_neighbours_leave_the_example_out(sample):
    """An example is no neighbour of its own: the share is that of scikit-learn's classifier, left out one by one."""
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    x, y = sample
    model = KNeighborsClassifier(1, metric="cosine")
    assert neighbours(x, y, 1) == pytest.approx(cross_val_score(model, x, y, cv=LeaveOneOut()).mean())
    two = y > 0
    model = KNeighborsClassifier(5, metric="cosine")
    assert neighbours(x, two.astype(int), 5) == pytest.approx(cross_val_score(model, x, two, cv=LeaveOneOut()).mean())
