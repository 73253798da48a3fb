"""Old-new bias: a head that saw few old examples, or none, gives new classes outputs that are too high; put right here.

Both ways end in the head's own weights, so that prediction and export know nothing of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

_PULL = 1e-3
"""Of the factor towards 1: without it, examples that can be told apart perfectly have no best factor."""


def fit_bias(outputs: Tensor, labels: Tensor, old: int) -> tuple[float, float]:
    """Factor and offset of the new classes' outputs with the lowest log loss (BiC, Wu et al. 2019, arXiv:1905.13260).

    Both tasks weigh the same, however many examples each has.

    Args:
        outputs: [N, classes] for examples of both tasks that the head was not trained on.
        labels: [N]; those below `old` are old classes.
    """
    fixed, of_old = outputs.detach().clone(), labels < old
    weights = torch.where(of_old, 0.5 / of_old.sum().clamp_min(1), 0.5 / (~of_old).sum().clamp_min(1))
    numbers = torch.zeros(2, requires_grad=True)  # logarithm of the factor, which stays positive; the offset
    optimiser = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        both = torch.cat([fixed[:, :old], numbers[0].exp() * fixed[:, old:] + numbers[1]], dim=1)
        total = (weights * cross_entropy(both, labels, reduction="none")).sum() + _PULL * numbers[0].square()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    log_factor, offset = numbers.detach().tolist()
    factor = math.exp(max(-99.0, min(99.0, log_factor)))
    return (factor, offset) if 0.01 < factor < 100 and abs(offset) < 1e4 else (1.0, 0.0)


def correct_bias(head: nn.Linear, outputs: Tensor, labels: Tensor, old: int) -> str:
    """Multiply and shift a linear head's new outputs as `fit_bias` says; returns what was done, in words."""
    factor, offset = fit_bias(outputs, labels, old)
    with torch.no_grad():
        head.weight[old:] *= factor
        head.bias[old:] = factor * head.bias[old:] + offset
    count = int((labels < old).sum())
    return (
        f"bias correction: outputs of new classes times {factor:.2f} {offset:+.2f}, "
        f"from {count} old and {len(labels) - count} new examples that were not trained on"
    )


def align_norms(head: nn.Linear, old: int) -> str:
    """Make new rows as long as old ones in the mean (weight aligning, Zhao et al. 2020, arXiv:1911.07053)."""
    norms = head.weight.detach().norm(dim=1)
    factor = float(norms[:old].mean() / norms[old:].mean().clamp_min(1e-12))
    with torch.no_grad():
        head.weight[old:] *= factor
    return f"weight aligning: rows of new classes times {factor:.2f}"
