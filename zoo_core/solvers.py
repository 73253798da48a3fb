"""Linear classifiers solved at once on cached features: many strengths and folds in one optimisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo_core.leave_one_out import LeaveOneOut

if TYPE_CHECKING:
    from zoo_core.head_modules import TipLayer

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""L2 strengths tried, as the factor of half the squared weights on standardised features."""
ALPHAS, BETAS = (0.0, 0.1, 0.3, 1.0, 3.0), (0.5, 1.0, 2.0, 3.5, 5.5, 7.0)
"""Tried for Tip-Adapter, in the range that its authors search (up to 3 and 7)."""
AT_MOST = 5000
"""Examples on which strengths are compared; the final fit uses all."""


@dataclass(frozen=True)
class Solved:
    """A linear map from features [B, D] to outputs [B, classes], and how its strength was chosen.

    Attributes:
        weight, bias: [classes, D] and [classes], for the features as they are.
        strength: the one chosen.
        log_loss: strength -> cross-validated log loss.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    log_loss: dict[float, float]


def logistic(x: Tensor, y: Tensor, n_classes: int, widths: Sequence[int] = (), folds: int = 5) -> Solved:
    """Multinomial logistic regression by L-BFGS, its strength by cross-validation on the same rows.

    Args:
        x, y: features [N, D] and labels [N].
        widths: of blocks of columns that are each scaled by the inverse root of their width, so that wide
            ones do not drown narrow ones; none for one block without scaling.
    """
    mean, scale = _scales(x, widths)
    z = (x - mean) * scale
    some = torch.from_numpy(np.random.default_rng(0).permutation(len(x))[:AT_MOST])
    losses = cross_validate(z[some], y[some], n_classes, STRENGTHS, folds) if len(STRENGTHS) > 1 else {}
    strength = min(losses, key=losses.__getitem__)
    weight, bias = fit_many(z, y, n_classes, [strength], torch.ones(1, len(z)))
    return _unscaled(weight[0], bias[0], mean, scale, strength, losses)


def cross_validate(z: Tensor, y: Tensor, n_classes: int, strengths: Sequence[float], folds: int) -> dict[float, float]:
    """Strength -> log loss on rows left out, every strength and fold fitted in one go."""
    fold = torch.from_numpy(fold_of(y.numpy(), min(folds, len(y)), 0))
    count = int(fold.max()) + 1
    inside = torch.stack([(fold != k).float() for k in range(count)]).repeat(len(strengths), 1)
    repeated = [s for s in strengths for _ in range(count)]
    weight, bias = fit_many(z, y, n_classes, repeated, inside)
    logits = torch.einsum("nd,fcd->fnc", z, weight) + bias[:, None]
    losses = F.cross_entropy(logits.flatten(0, 1), y.repeat(len(repeated)), reduction="none").view(len(repeated), -1)
    outside = 1 - inside
    means = (losses * outside).sum(1) / outside.sum(1)
    return {s: float(m) for s, m in zip(strengths, means.view(-1, count).mean(1), strict=True)}


def fit_many(
    z: Tensor, y: Tensor, n_classes: int, strengths: Sequence[float], rows: Tensor, steps: int = 100
) -> tuple[Tensor, Tensor]:
    """Independent fits in one L-BFGS run: their losses share no weights, so the sum's minimum is each one's.

    Args:
        z: standardised features [N, D].
        strengths: of each fit.
        rows: weight of each example in each fit [fits, N].

    Returns:
        Weights [fits, classes, D] and biases [fits, classes].
    """
    count, width = len(strengths), z.shape[1]
    weight = torch.zeros(count, n_classes, width, requires_grad=True)
    bias = torch.zeros(count, n_classes, requires_grad=True)
    l2 = torch.tensor(strengths)
    share = rows / rows.sum(1, keepdim=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = (z @ weight.flatten(0, 1).T).view(len(z), count, n_classes).transpose(0, 1) + bias[:, None]
        each = F.cross_entropy(logits.flatten(0, 1), y.repeat(count), reduction="none").view(count, -1)
        total = (each * share).sum() + (l2 * weight.square().sum((1, 2))).sum() / 2
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def ridge(x: Tensor, y: Tensor, n_outputs: int, widths: Sequence[int], power: float = 0.5) -> Solved:
    """Ridge on the features of all stages (after Head2Toe, Evci et al. 2022, arXiv:2201.03529).

    Strength by leave-one-out, exactly. Ridge gives scores, not probabilities: for classes they are multiplied by the
    factor that makes the left-out scores most probable (temperature scaling, Guo et al. 2017).

    Args:
        y: classes [N], several labels [N, outputs] of 0 and 1, or numbers [N].
        power: of the deviation that each feature of all stages is divided by. With the root, features that vary more
            weigh more: better than the whole deviation by 1.5 points over 42 samples of five data sets
            (benchmarks/scales.py). One stage's features are always divided by all of it.
    """
    mean, scale = _scales(x, widths, power if widths else 1.0)
    numbers = y.is_floating_point() and y.ndim == 1
    target = as_matrix(y, n_outputs).double()
    aims = target if numbers else 2 * target - 1
    fits = LeaveOneOut(x, mean, scale, aims - aims.mean(0))
    strength = fits.best()
    errors, weight = fits.at(strength)
    left_out = aims - errors
    factor, loss = (1.0, float(errors.square().mean())) if numbers else most_probable(left_out, y)
    bias = (factor * aims.mean(0)).float()
    return _unscaled((factor * weight.T).float(), bias, mean, scale, strength, {strength: loss})


def heaviest(x: Tensor, weight: Tensor, share: float) -> Tensor:
    """Columns of x [N, D] whose weights [outputs, D] are largest over all outputs, in order (group selection).

    After Head2Toe (Evci et al. 2022), which ranks a feature by the norm of its weights, one group a feature.
    """
    norms = weight.square().sum(0).sqrt() * x.std(0)
    best: Tensor = norms.topk(max(1, round(share * len(norms)))).indices
    return best.sort().values


def solved_on(
    chosen: Tensor,
    solve: Callable[[Tensor, Tensor, int, Sequence[int]], Solved],
    x: Tensor,
    y: Tensor,
    n_outputs: int,
    widths: Sequence[int],
) -> Solved:
    """A solution with weights on some columns alone, 0 elsewhere; `widths` are those of all columns' blocks."""
    ends = torch.tensor([0, *widths]).cumsum(0)
    counts = [int(((chosen >= a) & (chosen < b)).sum()) for a, b in pairwise(ends.tolist())]
    solved = solve(x[:, chosen], y, n_outputs, [count for count in counts if count])
    weight = torch.zeros(n_outputs, x.shape[1])
    weight[:, chosen] = solved.weight
    return replace(solved, weight=weight)


def nearest_mean(x: Tensor, y: Tensor, n_classes: int) -> Solved:
    """Scores that rank classes by the squared distance to their mean, in standardised features.

    Distances are multiplied by the factor that makes the examples most probable when each is left out of its
    own class's mean; `strength` is that factor. Classes without examples get a score that never wins.
    """
    mean, scale = _scales(x, ())
    z = (x - mean) * scale
    count = torch.bincount(y, minlength=n_classes).float()
    total = torch.zeros(n_classes, z.shape[1]).index_add(0, y, z)
    means = total / count.clamp_min(1)[:, None]
    distances = torch.cdist(z, means).square()
    own = count[y]
    # without itself a class's mean lies further off, by the factor n / (n - 1); a class of one has no other mean
    rows = torch.arange(len(y))
    distances[rows, y] *= (own / (own - 1).clamp_min(1)).square()
    distances[:, count == 0] = float(distances.max()) * 2
    alone = own < 2
    some = ~alone if bool((~alone).any()) else torch.ones_like(alone)
    factor, loss = most_probable(-distances[some] / z.shape[1], y[some])
    factor /= z.shape[1]
    bias = -factor * means.square().sum(1)
    bias[count == 0] = float(bias.min()) - factor * 2 * float(distances.max())
    return _unscaled(2 * factor * means, bias, mean, scale, factor, {factor: loss})


def most_probable(scores: Tensor, y: Tensor) -> tuple[float, float]:
    """The factor on scores [N, outputs] that makes classes [N] or labels [N, outputs] most probable; its log loss."""
    factors = torch.logspace(-1, 2, 31).double()
    several = y.is_floating_point()
    loss = F.binary_cross_entropy_with_logits if several else F.cross_entropy
    losses = [float(loss(scores.double() * f, y.double() if several else y)) for f in factors]
    best = int(np.argmin(losses))
    return float(factors[best].float()), losses[best]


def as_matrix(labels: Tensor, n_outputs: int) -> Tensor:
    """Classes [N], several labels [N, outputs] or numbers [N] as what a regression aims at [N, outputs]."""
    if labels.is_floating_point():
        return labels.reshape(len(labels), n_outputs)
    return F.one_hot(labels, n_outputs).float()


def fold_of(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of each example [N]: classes are spread evenly; a function of (labels, seed)."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(labels), dtype=np.int64)
    start = 0
    for label in np.unique(labels):
        here = rng.permutation(np.flatnonzero(labels == label))
        fold[here] = (np.arange(len(here)) + start) % folds
        start += len(here)
    return fold


def _scales(x: Tensor, widths: Sequence[int], power: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean and factor of each column [D]."""
    mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
    block = torch.cat([torch.full((w,), w**-0.5) for w in widths]) if widths else torch.ones(x.shape[1])
    return mean, block / std**power


def _unscaled(
    weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, strength: float, losses: dict[float, float]
) -> Solved:
    weight = weight * scale
    return Solved(weight, bias - weight @ mean, strength, losses)


def tip_strengths(head: TipLayer, labels: Tensor, alpha: float | None, beta: float | None) -> tuple[float, float, str]:
    """Weight and sharpness of the votes that make the left-out training examples most probable; how, in words.

    With a single example of some class leaving it out leaves nothing that could vote for it: then the values are those
    of the authors' configuration for ImageNet, 1.17 and 1 (github.com/gaopengcuhk/Tip-Adapter, configs/imagenet.yaml).
    """
    if alpha is not None and beta is not None:
        return alpha, beta, "as given"
    if bool((torch.bincount(labels) == 1).any()):
        given = 1.17 if alpha is None else alpha, 1.0 if beta is None else beta
        return *given, "the authors' own, for some class has one example only"
    rows = torch.linspace(0, len(labels) - 1, min(len(labels), 2048)).long()
    similar = head.keys[rows] @ head.keys.T
    similar[torch.arange(len(rows)), rows] = -torch.inf  # nothing votes for itself
    texts, best = head.texts(head.keys[rows]), (float("inf"), 0.0, 1.0)
    for b in BETAS if beta is None else (beta,):
        votes = head.votes(similar, b)
        for a in ALPHAS if alpha is None else (alpha,):
            loss = float(torch.nn.functional.cross_entropy(texts + a * votes, labels[rows]))
            best = min(best, (loss, a, b))
    return best[1], best[2], "chosen by leaving each out"
