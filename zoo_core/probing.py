"""Many heads, rates and seeds on the frozen features of one pass: which head, at which rate, by the validation side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo_core import components, fit
from zoo_core.backbone import Backbone
from zoo_core.beginning import Beginning
from zoo_core.console import Console
from zoo_core.errors import BadOption
from zoo_core.next_tokens import NextTokens
from zoo_core.objective import Objective, objective
from zoo_core.plugins import Plugins
from zoo_core.recipe import Recipe
from zoo_core.stacked import fit_stacked
from zoo_core.targets import Number
from zoo_core.trainer import head_dim, kept_at
from zoo_core.types import Task

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Peak rates that are tried unless others are given: the default one for heads, and two on each side."""
HEADS = ("linear", "cosine", "mlp", "multi-stage")


@dataclass(frozen=True)
class Score:
    """What the validation side says about one head at one rate.

    Attributes:
        head: as it is spelled.
        lr: peak rate; None for a head that is solved at once.
        figures: of each seed, by name; `loss` is the log loss, of numbers the squared error in standard deviations.
    """

    head: str
    lr: float | None
    figures: dict[str, list[float]]

    @property
    def loss(self) -> float:
        """Mean over the seeds; the lower, the better."""
        return float(np.mean(self.figures["loss"]))

    def told(self) -> dict[str, Any]:
        """Plain data, with mean and spread of each figure."""
        figures = {
            name: {"mean": float(np.mean(v)), "std": float(np.std(v, ddof=1)) if len(v) > 1 else None, "values": v}
            for name, v in self.figures.items()
        }
        return asdict(self) | {"figures": figures}


@dataclass(frozen=True)
class _Features:
    """One side's features [N, D] and labels."""

    x: Tensor
    y: Tensor


def probe(
    recipe: Recipe,
    heads: Sequence[str],
    rates: Sequence[float],
    plugins: Plugins,
    task: Task,
    body: Backbone,
    console: Console,
) -> list[Score]:
    """Train every head at every rate with `recipe.seeds` seeds, side by side; best first. The test side is not read.

    Raises:
        BadOption: there is no validation side, or a head cannot be trained so.
    """
    if not task.split("val"):
        raise BadOption("zoo probe compares by validation examples, and there are none. Give --set val_share=0.15")
    body.freeze(len(body.stages))
    kept = kept_at(recipe, task, body, len(body.stages), 1, console, views=False)
    plan = components.build(plugins, "freeze", "head-only").plan(body.info(), task)
    schedule = fit.default_schedule(plan, body, len(task.split("train")))
    given = {k: getattr(recipe, k) for k in ("epochs", "batch_size") if getattr(recipe, k) is not None}
    schedule = fit.Schedule(**{**vars(schedule), **given, "weight_decay": recipe.weight_decay})
    found: list[Score] = []
    with console.track("Heads", len(heads)) as advance:
        for spelled in heads:
            one = recipe.with_values(head=spelled)
            builder = objective(components.build(plugins, "head", spelled), task, one)
            if builder.reads_positions:
                raise BadOption(
                    f"--head {spelled} reads positions, not pooled features. Type zoo finetune --head {spelled}"
                )
            read = kept.all_stages if builder.reads_stages else kept.features
            train, val = (_features(task, side, read, builder) for side in ("train", "val"))
            size, beginning = head_dim(builder, body, kept.plain.pooled.widths), Beginning(builder, body, task)
            if builder.solves:
                head = _made(beginning, size, recipe.seed)
                builder.solve(head, train.x, train.y, kept.plain.pooled.widths if builder.reads_stages else ())
                found.append(Score(spelled, None, _figures([head], builder, val)))
            else:
                regime = components.build(plugins, "regime", "new-only")
                found += _grid(one, beginning, size, rates, regime, schedule, train, val)
            advance(1)
    return sorted(found, key=lambda score: score.loss)


def _grid(
    recipe: Recipe,
    beginning: Beginning,
    size: int,
    rates: Sequence[float],
    regime: Any,
    schedule: fit.Schedule,
    train: _Features,
    val: _Features,
) -> list[Score]:
    """One head at all rates, with all seeds, in one training."""
    builder, seeds = beginning.builder, range(recipe.seed, recipe.seed + recipe.seeds)
    modules = [_made(beginning, size, seed) for seed in seeds]
    try:
        trained, _ = fit_stacked(builder, modules, rates, seeds, regime, schedule, (train.x, train.y), (val.x, val.y))
    except RuntimeError as error:  # what vmap cannot do, such as batch norm that keeps statistics
        reason = str(error).splitlines()[0]
        raise BadOption(
            f"--head {recipe.head} cannot be trained in many copies at once ({reason}). "
            f"Type zoo finetune --head {recipe.head}"
        ) from error
    return [Score(recipe.head, lr, _figures(row, builder, val)) for lr, row in zip(rates, trained, strict=True)]


def _made(beginning: Beginning, size: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    head = beginning.builder.build(size, beginning.task)
    beginning(head)
    return head


def _features(task: Task, side: Any, read: Any, builder: Objective) -> _Features:
    examples = task.split(side)
    return _Features(read([e.digest for e in examples]), builder.target.labels([task.text(e) for e in examples]))


@torch.no_grad()
def _figures(heads: Sequence[nn.Module], builder: Objective, val: _Features) -> dict[str, list[float]]:
    """The target's figures and the loss of each head."""
    target, found = builder.target, defaultdict(list)
    for head in heads:
        outputs = head.eval()(val.x)
        answers = builder.probabilities(outputs)
        scores = target.score(answers.numpy(), val.y.numpy(), intervals=False)
        for name in target.figures:
            if scores.get(name) is not None:
                found[name].append(float(scores[name]))
        if isinstance(target, Number | NextTokens):
            loss = target.loss(builder, outputs, val.y).mean()
        else:
            loss = target.log_loss(answers, val.y)
        found["loss"].append(float(loss))
    return dict(found)
