"""Weights between those before training and those after it (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903).

Fine-tuning moves along a way on which the old task is lost little by little; somewhere between its ends a model is
often better at both. The mixture is chosen on validation examples, of both tasks where there are two; the test side
sees the chosen one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo_core.errors import BadOption
from zoo_core.fit import Model, Side
from zoo_core.recipe import Recipe

if TYPE_CHECKING:
    from zoo_core.old_task import OldTask
    from zoo_core.rehearsing import Keeper
    from zoo_core.trainer import Trainer
    from zoo_core.types import Task

STEPS = 10
"""Mixtures tried beside the beginning: 0.1, 0.2, ... 1."""


def step(recipe: Recipe, trainer: Trainer, model: Model, keeper: Keeper | None, val: Side) -> dict[str, Any]:
    """After training: leave the model at the best mixture; returns `wise_ft`, its part of the summary.

    A head that began with chance is left as it was trained, and only stages are mixed.

    Args:
        keeper: of an old task, where there is one.
        val: new validation examples.
    """
    start = {f"backbone.{name}": t for name, t in trainer.start.items()}
    begun = trainer.builder.begins or (keeper is not None and keeper.begun)
    if begun:
        start |= trainer.first_head
    sides = {"new": val} | ({"old": old} if keeper and len(old := keeper.chooses()) else {})
    found = choose(model, start, trainer.outputs, sides) | {"head": "mixed" if begun else "as trained"}
    if keeper and "old" not in sides:
        found["why"] += "; no old data are at hand, so the old task has no say"
    return {"wise_ft": found}


def check(recipe: Recipe, builder: Any, old: OldTask | None, task: Task) -> None:
    """Whether there is something to mix with, and something to choose by.

    Raises:
        BadOption: says what to give or leave out.
    """
    if not recipe.wise_ft:
        return
    why = ""
    if builder.solves:
        why = f"--head {recipe.head} is solved at once, not trained. Give --head linear, or leave --wise-ft out."
    elif recipe.folds * recipe.seeds > 1:
        why = "--folds and --seeds repeat a training without it. Leave one of both out."
    elif not (builder.begins or (old is not None and old.space != "replace")):
        why = (
            "the head of this run begins with chance, so there is no old model to mix with. Give --head zero-shot and "
            "a backbone of CLIP's kind, or an old task in the same head: --old DATA."
        )
    elif not task.split("val"):
        why = "it chooses by validation examples, and there are none. Give --set val_share=0.15"
    if why:
        raise BadOption(f"--wise-ft: {why}")


def mixture(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) * start + alpha * end, of the tensors that both have in one shape; the end's for the rest.

    The ends are exact, and so is what training left alone.
    """
    found = {}
    for name, last in end.items():
        first = start.get(name)
        alike = first is not None and first.shape == last.shape and last.is_floating_point()
        found[name] = torch.lerp(first.to(last), last, alpha) if alike and first is not None else last
    return found


def choose(
    model: Model,
    start: Mapping[str, Tensor],
    outputs: Callable[[Model, Sequence[str]], Tensor],
    sides: Mapping[str, Side],
) -> dict[str, Any]:
    """Score every mixture on validation sides, and leave the model at the best one.

    Among equal ones the nearest to the beginning is taken.

    Args:
        start: tensors before training, named as `model.trained` names them.
        outputs: of a model for some rows.
        sides: `new`, and `old` where there is an old task with data.

    Returns:
        `alphas`, accuracies by side, `score` (their mean), `chosen` and `why`.
    """
    end = {name: t.detach().clone() for name, t in model.trained(model.plan.depth).items()}
    alphas = [step / STEPS for step in range(STEPS + 1)]
    found: dict[str, list[float]] = {name: [] for name in sides}
    for alpha in alphas:
        model.restore(mixture(start, end, alpha))
        for name, side in sides.items():
            right = model.builder.probabilities(outputs(model, side.digests)).argmax(1) == side.labels
            found[name].append(float(right.double().mean()))
    score = [sum(values) / len(values) for values in zip(*found.values(), strict=True)]
    best = max(range(len(alphas)), key=lambda i: (score[i], -i))
    model.restore(mixture(start, end, alphas[best]))
    counts = " and ".join(f"{len(side)} {name}" for name, side in sides.items())
    return {
        "alphas": alphas,
        **found,
        "score": score,
        "chosen": alphas[best],
        "why": f"the highest mean accuracy on {counts} validation examples, nearest to the beginning among equals",
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The sweep as lines for people."""
    sides = [name for name in ("old", "new") if name in found]
    heading = "  mixture  " + "  ".join(f"{name:>5}" for name in sides)
    rows = [
        f"  {alpha:7.1f}  "
        + "  ".join(f"{found[name][i]:.3f}" for name in sides)
        + ("  <" * (alpha == found["chosen"]))
        for i, alpha in enumerate(found["alphas"])
    ]
    return [heading, *rows]
