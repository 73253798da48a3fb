"""The buffer: which old training examples are kept, where not all of them can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core import regimes
from zoo_core.old_model import OldModel
from zoo_core.trainer import Kept
from zoo_core.types import Example


def kept_examples(
    train: Sequence[Example], regime: Any, model: OldModel, kept: Kept, seed: int
) -> tuple[list[int], list[int]]:
    """Indices of the old examples to train on, and of those of the buffer that are held out; all and none without one.

    Args:
        regime: says how large the buffer is, and how its examples are chosen.
    """
    size = getattr(regime, "buffer", 0)
    if not size:
        return list(range(len(train))), []
    chosen = range(len(train)) if size >= len(train) else _chosen(train, regime, size, model, kept, seed)
    apart = {id(e) for e in regimes.held_out([train[i] for i in chosen], seed)}
    return [i for i in chosen if id(train[i]) not in apart], [i for i in chosen if id(train[i]) in apart]


def _chosen(train: Sequence[Example], regime: Any, size: int, model: OldModel, kept: Kept, seed: int) -> Sequence[int]:
    how = getattr(regime, "select", "random")
    if how == "random":
        picked = {id(e) for e in regimes.balanced_first(train, size, seed)}
        return [i for i, e in enumerate(train) if id(e) in picked]
    labels, names = torch.tensor([e.label for e in train]), [e.digest for e in train]
    pick = herding(kept.features(names)) if how == "herding" else _least_sure(model.outputs(kept, names))
    found: list[int] = []
    for label, count in regimes.shares_of(labels.tolist(), size).items():
        found += pick(torch.nonzero(labels == label)[:, 0], count)
    return sorted(found)


def herding(features: Tensor) -> Callable[[Tensor, int], list[int]]:
    """A function that picks examples whose mean stays closest to their class's (iCaRL, Rebuffi et al. 2017)."""
    unit = nn.functional.normalize(features, dim=1)

    def pick(members: Tensor, count: int) -> list[int]:
        rows = unit[members]
        mean, total, left = rows.mean(0), torch.zeros(rows.shape[1]), torch.ones(len(rows), dtype=torch.bool)
        chosen: list[int] = []
        for k in range(1, count + 1):
            gaps = (mean - (total + rows) / k).norm(dim=1).masked_fill(~left, torch.inf)
            best = int(gaps.argmin())
            chosen.append(best)
            total, left[best] = total + rows[best], False
        found: list[int] = members[torch.tensor(chosen)].tolist()
        return found

    return pick


def _least_sure(outputs: Tensor) -> Callable[[Tensor, int], list[int]]:
    """A function that picks the examples whose best class is least ahead of the second one."""
    best = outputs.softmax(1).topk(min(2, outputs.shape[1]), dim=1).values
    margins = best[:, 0] - best[:, -1]

    def pick(members: Tensor, count: int) -> list[int]:
        found: list[int] = members[margins[members].argsort(stable=True)[:count]].tolist()
        return found

    return pick
