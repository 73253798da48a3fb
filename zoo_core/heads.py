"""Heads of the core: features to predictions, with their loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from zoo_core.types import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo_core.solvers import Solved


class _Softmax:
    """What heads for one label of several share: softmax and cross-entropy."""

    label_smoothing: float = 0.0

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction="none", label_smoothing=self.label_smoothing)

    def probabilities(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(1)


@dataclass(frozen=True)
class Linear(_Softmax):
    """One linear layer on the pooled features: softmax and cross-entropy.

    `label_smoothing` moves that share of each target to the other classes. `solver=lbfgs` solves it at once
    where the whole backbone is frozen, its L2 strength chosen by cross-validation on the training side.
    """

    label_smoothing: float = 0.0
    solver: Literal["sgd", "lbfgs"] = "sgd"

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from torch import nn

        head = nn.Linear(feature_dim, len(task.classes))
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        return head

    @property
    def solves(self) -> bool:
        """Whether `solve` takes the place of training."""
        return self.solver == "lbfgs"

    def solve(self, head: nn.Linear, features: Tensor, labels: Tensor, widths: Sequence[int]) -> str:
        """Fill the head; returns how, in words."""
        from zoo_core.solvers import logistic

        return _fill(head, logistic(features, labels, head.out_features), "logistic regression")


@dataclass(frozen=True)
class MultiStage(_Softmax):
    """One linear layer on the pooled features of all stages, solved at once (Head2Toe, Evci et al. 2022).

    The backbone stays frozen. `solver` is `ridge` (strength by leave-one-out) or `logistic` (by
    cross-validation); each stage's block is standardised and divided by the root of its width.
    """

    solver: Literal["ridge", "logistic"] = "ridge"
    reads_stages: ClassVar[bool] = True
    solves: ClassVar[bool] = True

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from torch import nn

        return nn.Linear(feature_dim, len(task.classes))

    def solve(self, head: nn.Linear, features: Tensor, labels: Tensor, widths: Sequence[int]) -> str:
        """Fill the head; returns how, in words."""
        from zoo_core import solvers

        solve = solvers.ridge if self.solver == "ridge" else solvers.logistic
        return _fill(head, solve(features, labels, head.out_features, widths), self.solver)


@dataclass(frozen=True)
class Mlp(_Softmax):
    """Two linear layers with a GELU and dropout between them, on normalised features."""

    hidden: int = 512
    dropout: float = 0.1
    label_smoothing: float = 0.0

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from torch import nn

        return nn.Sequential(
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, self.hidden),
            nn.GELU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, len(task.classes)),
        )


def _fill(head: nn.Linear, solved: Solved, what: str) -> str:
    import torch

    with torch.no_grad():
        head.weight.copy_(solved.weight)
        head.bias.copy_(solved.bias)
    return f"{what}, strength {solved.strength:g}, chosen among {max(1, len(solved.log_loss))}"
