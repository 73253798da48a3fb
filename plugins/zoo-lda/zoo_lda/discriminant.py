"""The closed form: class means, one covariance, and the linear layer that follows from both by Bayes' rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
FACTORS = torch.logspace(-3, 0.5, 36).double()
FOLDS = 5


class Solved(NamedTuple):
    """A linear layer: weight [classes, D], bias [classes], and the shrinkage and factor that were chosen."""

    weight: Tensor
    bias: Tensor
    shrinkage: float
    factor: float


def solve(features: Tensor, labels: Tensor, classes: int, shrinkage: float, equal: bool) -> Solved:
    """The layer for features [N, D] with labels [N].

    A plug-in of estimated Gaussians is far too sure of itself where there are fewer examples than features; so the
    shrinkage (where it is 0), and a factor on the scores, are those that make examples of held-out folds most
    probable. Features are taken as they come: in units of their own spread, one that hardly varies among the training
    images would decide alone where it does. A class without examples gets a score that never wins.
    """
    x, y = features.double().cpu(), labels.cpu()
    count = torch.bincount(y, minlength=classes).double()
    centre = x.mean(0)
    z = x - centre
    axes = torch.linalg.svd(z, full_matrices=False).Vh.T if len(z) < z.shape[1] else None  # exact, and much smaller
    z = z if axes is None else z @ axes
    prior = ((count > 0).double() if equal else count).clamp_min(1e-30)
    prior = (prior / prior.sum()).log()
    share, factor = _chosen(z, y, prior, (shrinkage,) if shrinkage else SHARES)
    weight, bias = gaussians(z, y, classes)(share)
    weight, bias = factor * (weight if axes is None else weight @ axes.T), factor * bias + prior
    bias = bias - weight @ centre
    return Solved(weight, bias.where(count > 0, bias[count > 0].min() - 1e4), share, factor)


def gaussians(z: Tensor, y: Tensor, classes: int) -> Callable[[float], tuple[Tensor, Tensor]]:
    """A function from a shrinkage to weight and bias of the discriminant, without priors."""
    means, rest, freedom = _within(z, y, classes)
    values, vectors = torch.linalg.eigh(rest.T @ rest / freedom)
    level, turned = values.mean().clamp_min(1e-9), means @ vectors

    def at(share: float) -> tuple[Tensor, Tensor]:
        weight = (turned / ((1 - share) * values.clamp_min(0) + share * level)) @ vectors.T
        return weight, -(weight * means).sum(1) / 2

    return at


def _chosen(z: Tensor, y: Tensor, prior: Tensor, shares: tuple[float, ...]) -> tuple[float, float]:
    """The shrinkage and factor of the least log loss over examples that each fit has not seen."""
    fold = torch.zeros_like(y)
    for label in y.unique():
        fold[y == label] = torch.arange(int((y == label).sum())) % FOLDS
    held: list[list[Tensor]] = [[] for _ in shares]
    truth = []
    for number in range(FOLDS):
        inside = fold != number
        mine = ~inside & torch.isin(y, y[inside])  # of a class of one example nothing is known without it
        if not bool(mine.any()):
            continue
        at = gaussians(z[inside], y[inside], len(prior))
        absent = torch.bincount(y[inside], minlength=len(prior)) == 0
        truth.append(y[mine])
        for scores, share in zip(held, shares, strict=True):
            weight, bias = at(share)
            scores.append((z[mine] @ weight.T + bias).masked_fill(absent, -1e30))
    if not truth:  # one example of each class: the nearest one wins
        return shares[-1], 1.0
    every = [torch.cat(scores) for scores in held]
    tried = [
        (float(F.cross_entropy(f * s + prior, torch.cat(truth))), a, float(f))
        for f in FACTORS
        for a, s in zip(shares, every, strict=True)
    ]
    return min(tried)[1:]


def _within(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor, int]:
    """Class means [classes, D], what is left of each example [N, D], and its degrees of freedom."""
    count = torch.bincount(y, minlength=classes)
    means = torch.zeros(classes, x.shape[1], dtype=x.dtype).index_add(0, y, x) / count.clamp_min(1)[:, None]
    return means, x - means[y], max(1, len(x) - int((count > 0).sum()))
