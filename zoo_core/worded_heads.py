"""Heads that begin with what a text tower makes of the class names: zero-shot, and few-shot beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

from zoo_core.errors import BadOption
from zoo_core.heads import Softmax
from zoo_core.prompts import prompts_of
from zoo_core.types import ONE_LABEL, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo_core.backbone import Backbone
    from zoo_core.head_modules import CosineLayer, TipLayer

SCALE = 100.0
"""Of cosines, until a backbone says its own: the largest that CLIP was let learn."""


@dataclass(frozen=True)
class ZeroShot(Softmax):
    """Cosine to what the text tower makes of the class names (CLIP, Radford et al. 2021); training starts from there.

    `names` is a file of lines `class = words`, `templates` one of lines such as `a photo of a {}.`; without them a
    label is its class's name. With `--epochs 0` nothing is trained.
    """

    names: str = ""
    templates: str = ""
    label_smoothing: float = 0.0
    kinds: ClassVar[tuple[str, ...]] = ONE_LABEL

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from zoo_core.head_modules import CosineLayer

        return CosineLayer(feature_dim, task.n_outputs, SCALE, learnt=False)

    def begin(self, head: CosineLayer, body: Backbone, task: Task) -> str:
        """Fill the head from the class names; returns how, in words."""
        return worded(head, body, task, self.names, self.templates)


@dataclass(frozen=True)
class TipAdapter(Softmax):
    """Zero-shot, and training examples that are alike vote beside it (Tip-Adapter, Zhang et al. 2022).

    Solved at once on the kept features. `alpha` weighs the votes, `beta` says how alike is alike; both are chosen by
    leaving each training example out, unless given. Names and templates as for `zero-shot`.
    """

    names: str = ""
    templates: str = ""
    alpha: float | None = None
    beta: float | None = None
    kinds: ClassVar[tuple[str, ...]] = ONE_LABEL
    solves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (self.alpha is not None and self.alpha < 0) or (self.beta is not None and self.beta <= 0):
            raise BadOption(
                f"tip-adapter: got alpha={self.alpha} and beta={self.beta}; expected 0 or more, and more than 0. "
                "Type --head tip-adapter:alpha=1,beta=5.5"
            )

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from zoo_core.head_modules import TipLayer

        return TipLayer(feature_dim, task.n_outputs, SCALE)

    def begin(self, head: TipLayer, body: Backbone, task: Task) -> str:
        """Fill the head's part that knows the class names; returns how, in words."""
        return worded(head, body, task, self.names, self.templates)

    def solve(self, head: TipLayer, features: Tensor, labels: Tensor, widths: Sequence[int]) -> str:
        """Keep the training examples and choose the strengths; returns how, in words."""
        from zoo_core.solvers import tip_strengths

        head.remember(features, labels)
        alpha, beta, how = tip_strengths(head, labels, self.alpha, self.beta)
        head.alpha.fill_(alpha)
        head.beta.fill_(beta)
        return f"{len(features)} training examples vote with alpha {alpha:g} and beta {beta:g}, {how}"


def worded(head: Any, body: Backbone, task: Task, names: str, templates: str) -> str:
    """Fill `weight` [classes, D] and `scale` of a head from what the text tower makes of each class's prompts.

    A class is the mean of its prompts' unit vectors, of unit length again.

    Raises:
        BadOption: the backbone has no text tower beside it, or a file does not fit.
    """
    import torch
    from torch.nn.functional import normalize

    if body.words is None:
        raise BadOption(
            f"{body.card.name} has no text tower with weights beside it, which could read class names. Give an image "
            "tower of CLIP's kind (zoo list 'clip/*'), or --head linear."
        )
    prompts = prompts_of(task.classes, names, templates)
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # loading a tower draws its first weights
        rows, scale = body.words([prompt for each in prompts for prompt in each])
        ends = list(accumulate(map(len, prompts)))
        means = [rows[end - len(each) : end].mean(0) for each, end in zip(prompts, ends, strict=True)]
        head.weight.copy_(normalize(torch.stack(means), dim=1))
        head.scale.fill_(scale)
    count = sum(map(len, prompts))
    return f"begins with {len(prompts)} classes that the text tower read in {count} prompts, such as {prompts[0][0]!r}"
