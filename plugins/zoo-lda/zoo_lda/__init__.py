"""Head `lda`: linear discriminant analysis on frozen features, solved at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from zoo_core import ZooError, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo_core import Task


@dataclass(frozen=True)
class Lda:
    """Linear discriminant analysis on the frozen features, solved at once (Fisher 1936).

    Every class is a Gaussian about its mean, all of one covariance, which is shrunk towards a round one: by
    the share `shrinkage`, or for 0 by the one that held-out folds of the training data favour (Friedman 1989).
    `priors=equal` takes no notice of how frequent the classes are in the training data.
    """

    shrinkage: float = 0.0
    priors: Literal["data", "equal"] = "data"

    solves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.shrinkage <= 1:
            raise ZooError(f"lda:shrinkage={self.shrinkage:g}: expected 0 (chosen from the data) up to 1.")

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from torch import nn

        return nn.Linear(feature_dim, len(task.classes))

    def solve(self, head: nn.Linear, features: Tensor, labels: Tensor, widths: Sequence[int]) -> str:
        """Fill the head; returns how, in words."""
        import torch

        from zoo_lda.discriminant import solve

        found = solve(features, labels, head.out_features, self.shrinkage, self.priors == "equal")
        with torch.no_grad():
            head.weight.copy_(found.weight)
            head.bias.copy_(found.bias)
        return f"discriminant analysis, covariance shrunk by {found.shrinkage:g}, scores times {found.factor:.2g}"

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction="none")

    def probabilities(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(1)


@hookimpl
def zoo_head_builders() -> dict[str, type]:
    return {"lda": Lda}
