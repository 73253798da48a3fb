"""Heads that compare with the training examples themselves: solved at once, no step by step training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from zoo_core.errors import BadOption
from zoo_core.heads import Softmax, fill
from zoo_core.types import KINDS, ONE_LABEL, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo_core.head_modules import Neighbours

_LINKS = {"multi-label": "logit", "regression": "none"}


@dataclass(frozen=True)
class Prototype(Softmax):
    """The nearest class mean of the frozen features, standardised (Mensink et al. 2013, Snell et al. 2017).

    Squared distances are turned into probabilities by the factor that makes the left-out training examples
    most probable. A class without training examples is never predicted.
    """

    kinds: ClassVar[tuple[str, ...]] = ONE_LABEL
    solves: ClassVar[bool] = True

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from torch import nn

        return nn.Linear(feature_dim, task.n_outputs)  # distances to means, less what is equal for all, are linear

    def solve(self, head: nn.Linear, features: Tensor, labels: Tensor, widths: Sequence[int]) -> str:
        """Fill the head; returns how, in words."""
        from zoo_core.solvers import nearest_mean

        return fill(head, nearest_mean(features, labels, head.out_features), "nearest class mean")


@dataclass(frozen=True)
class Knn(Softmax):
    """The most similar training examples vote, weighted by exp(cosine / temperature) (Wu et al. 2018).

    Solved at once: the run keeps the features of every training example, which takes room and time at
    prediction; both are said. For numbers the neighbours' mean is taken, for several labels their shares.
    """

    k: int = 20
    temperature: float = 0.07

    kinds: ClassVar[tuple[str, ...]] = KINDS
    solves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.k < 1 or self.temperature <= 0:
            raise BadOption(
                f"knn: got k={self.k} and temperature={self.temperature:g}; expected 1 or more, and more than 0. "
                "Type --head knn:k=20"
            )

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from zoo_core.head_modules import Neighbours

        return Neighbours(feature_dim, task.n_outputs, self.k, self.temperature, _LINKS.get(task.kind, "log"))

    def solve(self, head: Neighbours, features: Tensor, labels: Tensor, widths: Sequence[int]) -> str:
        """Fill the head; returns how, in words, with the memory it takes."""
        from zoo_core.solvers import as_matrix

        head.remember(features, as_matrix(labels, head.targets.shape[1]).to(features))
        size = 4 * (head.memory.numel() + head.targets.numel())
        return f"{min(self.k, len(features))} nearest of {len(features)} examples, which are kept: {size:,} bytes"
