"""Heads of the core: features to predictions, with their loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from zoo_core.errors import BadOption, shown
from zoo_core.types import KINDS, ONE_LABEL, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo_core.solvers import Solved


class Softmax:
    """What the heads of the core share: outputs are scores, which for one label mean softmax and cross-entropy.

    `kinds` are the kinds of task they know; those with several labels or numbers bring their own loss
    (see `targets.py`).
    """

    kinds: ClassVar[tuple[str, ...]] = KINDS
    label_smoothing: float = 0.0

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction="none", label_smoothing=self.label_smoothing)

    def probabilities(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(1)


@dataclass(frozen=True)
class Linear(Softmax):
    """One linear layer on the pooled features: softmax and cross-entropy.

    `label_smoothing` moves that share of each target to the other classes. `solver=lbfgs` solves it at once
    where the whole backbone is frozen, its L2 strength chosen by cross-validation on the training side.
    `correct` puts new classes right against those of an old task after training: `bias` (Wu et al. 2019) with a factor
    and an offset from held-out examples of both, `norm` (Zhao et al. 2020) by the length of their rows, or `none`;
    `auto` is `bias` where the regime keeps an old task and has such examples.
    """

    label_smoothing: float = 0.0
    solver: Literal["sgd", "lbfgs"] = "sgd"
    correct: Literal["auto", "bias", "norm", "none"] = "auto"

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from torch import nn

        head = nn.Linear(feature_dim, task.n_outputs)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        return head

    @property
    def kinds(self) -> tuple[str, ...]:  # type: ignore[override]
        """The solver knows one label only."""
        return ONE_LABEL if self.solves else KINDS

    @property
    def solves(self) -> bool:
        """Whether `solve` takes the place of training."""
        return self.solver == "lbfgs"

    def solve(self, head: nn.Linear, features: Tensor, labels: Tensor, widths: Sequence[int]) -> str:
        """Fill the head; returns how, in words."""
        from zoo_core.solvers import logistic

        return fill(head, logistic(features, labels, head.out_features), "logistic regression")


@dataclass(frozen=True)
class MultiStage(Softmax):
    """One linear layer on the pooled features of all stages, solved at once (Head2Toe, Evci et al. 2022).

    The backbone stays frozen. `solver` is `ridge` (strength by leave-one-out) or `logistic` (by
    cross-validation, one label only); each stage's block is standardised and divided by the root of its width.
    `keep` below 1 solves again with that share of the features alone, those that weigh most over all outputs.
    """

    solver: Literal["ridge", "logistic"] = "ridge"
    keep: float = 1.0
    reads_stages: ClassVar[bool] = True
    solves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise BadOption(
                f"multi-stage:keep={self.keep:g}: expected more than 0, up to 1. Type --head multi-stage:keep=0.1"
            )

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from torch import nn

        return nn.Linear(feature_dim, task.n_outputs)

    @property
    def kinds(self) -> tuple[str, ...]:  # type: ignore[override]
        """Ridge fits any target."""
        return KINDS if self.solver == "ridge" else ONE_LABEL

    def solve(self, head: nn.Linear, features: Tensor, labels: Tensor, widths: Sequence[int]) -> str:
        """Fill the head; returns how, in words."""
        from zoo_core import solvers

        solve = solvers.ridge if self.solver == "ridge" else solvers.logistic
        solved = solve(features, labels, head.out_features, widths)
        if self.keep == 1:
            return fill(head, solved, self.solver)
        chosen = solvers.heaviest(features, solved.weight, self.keep)
        solved = solvers.solved_on(chosen, solve, features, labels, head.out_features, widths)
        return fill(head, solved, f"{self.solver} on {len(chosen)} of {features.shape[1]} features")


@dataclass(frozen=True)
class Mlp(Softmax):
    """Two linear layers with a GELU and dropout between them, on normalised features."""

    hidden: int = 512
    dropout: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.hidden <= 1 << 16:
            raise BadOption(f"mlp:hidden={shown(self.hidden)}: expected 1 to {1 << 16}. Type --head mlp:hidden=512")
        if not 0 <= self.dropout < 1:
            raise BadOption(f"mlp:dropout={self.dropout:g}: expected 0 up to, not including, 1. Type --head mlp")

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from torch import nn

        return nn.Sequential(
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, self.hidden),
            nn.GELU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, task.n_outputs),
        )


@dataclass(frozen=True)
class Cosine(Softmax):
    """Scaled cosine between the features and one direction a class (Gidaris and Komodakis 2018).

    The features' length says nothing then, which helps with few examples or uneven classes. `learnt=false`
    keeps the scale at the value given.
    """

    scale: float = 10.0
    learnt: bool = True
    label_smoothing: float = 0.0
    kinds: ClassVar[tuple[str, ...]] = ONE_LABEL

    def __post_init__(self) -> None:
        if not 0 < self.scale < 1e6:
            raise BadOption(
                f"cosine:scale={self.scale:g}: expected more than 0, under a million. Type --head cosine:scale=10"
            )

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from zoo_core.head_modules import CosineLayer

        return CosineLayer(feature_dim, task.n_outputs, self.scale, self.learnt)


@dataclass(frozen=True)
class Attentive(Softmax):
    """Learnt queries look at every position or token, then one linear layer (attentive probing).

    It takes the place of the backbone's last stage, which pools, and reads what enters that stage. Each query
    sums its own share of the channels, without further projections (after Psomas et al. 2025).
    """

    queries: int = 4
    label_smoothing: float = 0.0
    reads_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.queries <= 1024:
            raise BadOption(
                f"attentive:queries={shown(self.queries)}: expected 1 to 1024. Type --head attentive:queries=4"
            )

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from zoo_core.head_modules import AttentionPool

        return AttentionPool(feature_dim, task.n_outputs, self.queries)


def fill(head: nn.Linear, solved: Solved, what: str) -> str:
    """Put a solution into a linear head; returns how it was found, in words."""
    import torch

    with torch.no_grad():
        head.weight.copy_(solved.weight)
        head.bias.copy_(solved.bias)
    return f"{what}, strength {solved.strength:g}, chosen among {max(1, len(solved.log_loss))}"
