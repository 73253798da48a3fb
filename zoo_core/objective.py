"""A head with the loss of its task, balanced as asked: what training and prediction see of a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_core.errors import BadOption, near
from zoo_core.targets import Target, target_of
from zoo_core.types import ONE_LABEL, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo_core.backbone import Backbone
    from zoo_core.recipe import Recipe


@dataclass(frozen=True)
class Objective:
    """A head's builder whose loss and answers are the task's. It stands wherever a builder can.

    Attributes:
        builder: the head as the user chose it.
        target: what is to be predicted.
        weights: of each class in the loss; empty for 1.
        offsets: added to each output inside the loss alone; empty for 0.
        first: the loss is among the outputs from this one on; all labels are among them.
    """

    builder: Any
    target: Target
    weights: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    first: int = 0

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        module: nn.Module = self.builder.build(feature_dim, task)
        return module

    def bind(self, module: nn.Module, backbone: Backbone) -> None:
        """Let a head that goes on with the backbone's own output layer take it."""
        if hasattr(self.builder, "bind"):
            self.builder.bind(module, backbone)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Outputs [B, outputs] and labels to one loss per example [B]."""
        if self.offsets:
            outputs = outputs + outputs.new_tensor(self.offsets)
        if self.first:
            outputs, labels = outputs[:, self.first :], labels - self.first
        weights = outputs.new_tensor(self.weights[self.first :]) if self.weights else None
        return self.target.loss(self.builder, outputs, labels, weights)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs [B, outputs] to probabilities, or to numbers in the data's own unit."""
        return self.target.answers(self.builder, outputs)

    def solve(self, head: nn.Module, features: Tensor, labels: Tensor, widths: Sequence[int]) -> str:
        """Fill the head at once; returns how, in words."""
        return str(self.builder.solve(head, features, self.target.aims(labels), widths))

    @property
    def begins(self) -> bool:
        """Whether a new head begins with something, not with chance."""
        return hasattr(self.builder, "begin")

    def begin(self, head: nn.Module, body: Backbone, task: Task) -> str:
        """Fill a new head with what it begins with; returns how, in words."""
        return str(self.builder.begin(head, body, task))

    @property
    def solves(self) -> bool:
        """Whether `solve` takes the place of training."""
        return bool(getattr(self.builder, "solves", False))

    @property
    def reads_stages(self) -> bool:
        """Whether the head reads the pooled features of all stages."""
        return bool(getattr(self.builder, "reads_stages", False))

    @property
    def reads_positions(self) -> bool:
        """Whether the head takes the last stage's place and reads what enters it."""
        return bool(getattr(self.builder, "reads_positions", False))

    @property
    def reads_tokens(self) -> bool:
        """Whether the head reads what the last stage gives for each token, before it is pooled."""
        return bool(getattr(self.builder, "reads_tokens", False))


def objective(builder: Any, task: Task, recipe: Recipe) -> Objective:
    """The head for a task, with the recipe's weights of classes.

    Raises:
        BadOption: the head does not know this kind of task, or cannot be balanced so.
    """
    target = target_of(task)
    kinds = getattr(builder, "kinds", ONE_LABEL)
    if target.kind not in kinds:
        raise BadOption(
            f"--head {recipe.head} knows {', '.join(kinds)} tasks, but this one is {target.kind}. "
            f"Give --head {'causal-lm' if target.kind == 'next-token' else 'linear'}, or another --task."
        )
    if recipe.balance == "none" and not recipe.class_weights:
        return Objective(builder, target)
    if getattr(builder, "solves", False):
        raise BadOption(
            f"--head {recipe.head} is solved at once and knows no balance. Leave --balance and --class-weights out, "
            "or give --head linear."
        )
    if not target.classes or (target.kind == "multi-label" and recipe.balance in ("sampler", "logit-adjust")):
        raise BadOption(
            f"--balance {recipe.balance} needs classes of which each example has one; this task is {target.kind}. "
            f"Leave it out{'' if not target.classes else ', or give --balance loss'}."
        )
    counts = np.array([max(0.5, n) for n in task.counts("train").values()])
    total = len(task.split("train"))
    weights = _given(recipe.class_weights, target.classes)
    if recipe.balance == "loss":
        several = target.kind == "multi-label"
        weights = weights * ((total - counts).clip(0.5) / counts if several else counts.sum() / (len(counts) * counts))
    offsets: Sequence[float] = ()
    if recipe.balance == "logit-adjust":  # Menon et al. 2021, arXiv:2007.07314, equation 10, tau = 1
        offsets = np.log(counts / counts.sum()).tolist()
    plain = recipe.balance != "loss" and not recipe.class_weights
    return Objective(builder, target, () if plain else tuple(weights.tolist()), tuple(offsets))


def _given(text: str, classes: Sequence[str]) -> np.ndarray:
    """`cat=2,dog=0.5` as one weight for each class, 1 where none is given."""
    weights = np.ones(len(classes))
    for part in filter(None, text.split(",")):
        name, _, value = (piece.strip() for piece in part.rpartition("="))
        if name not in classes:
            hint = near(name, classes)
            raise BadOption(f"--class-weights {part}: no class {name!r}; expected CLASS=WEIGHT. {hint}".rstrip())
        try:
            weights[list(classes).index(name)] = float(value)
        except ValueError:
            raise BadOption(f"--class-weights {part}: expected a number such as {name}=2.") from None
    if not ((weights >= 0) & np.isfinite(weights)).all() or not weights.any():
        raise BadOption(f"--class-weights {text}: expected numbers of 0 or more, one of them above 0.")
    return weights
