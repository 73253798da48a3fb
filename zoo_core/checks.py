"""What of a recipe does not go together: found before anything is trained, with what to type instead."""

from __future__ import annotations

from typing import Any

from zoo_core import fit
from zoo_core import training as options_of
from zoo_core.backbone import Backbone
from zoo_core.errors import BadOption
from zoo_core.recipe import Recipe
from zoo_core.types import ONE_LABEL, FreezePlan, Task


def head(head: str, freeze: str, builder: Any, plan: FreezePlan, body: Backbone) -> None:
    """Some heads need every stage frozen: they are solved at once, or read the pretrained stages."""
    if plan.depth < len(body.stages) and (getattr(builder, "solves", False) or getattr(builder, "reads_stages", False)):
        raise BadOption(
            f"--head {head} works on the frozen backbone, but --freeze {freeze} trains "
            f"{len(body.stages) - plan.depth} stages. Give --freeze head-only, or another head."
        )


def training(recipe: Recipe, schedule: fit.Schedule, builder: Any, task: Task) -> None:
    """Options that something else in the recipe leaves without an effect."""
    options = schedule.training
    if options != options_of.Training() and getattr(builder, "solves", False):
        raise BadOption(
            f"--training {recipe.training}: --head {recipe.head} is solved at once, not trained. Leave one out."
        )
    if options.find_lr and recipe.lr is not None:
        raise BadOption(f"--training find_lr looks for the rate that --lr {recipe.lr:g} gives. Leave one out.")
    if options.patience and not task.split("val"):
        raise BadOption(
            f"--training patience={options.patience} needs validation examples, and there are none. "
            "Give --set val_share=0.15, or leave it out."
        )


def trials(recipe: Recipe, task: Task) -> None:
    """Trials compare right and wrong answers of plain training."""
    other = "Give --freeze full or --freeze head-only."
    if task.kind not in ONE_LABEL:
        raise BadOption(f"--freeze {recipe.freeze} compares shares of right answers; this task is {task.kind}. {other}")
    if recipe.balance != "none" or recipe.class_weights:
        raise BadOption(f"--freeze {recipe.freeze} compares ways without --balance and --class-weights. {other}")


def epochs(recipe: Recipe, schedule: fit.Schedule, builder: Any, plan: FreezePlan, body: Backbone) -> None:
    """Every phase has an epoch; none at all is for a head that begins with something, behind a frozen backbone."""
    if schedule.epochs == 0:
        if builder.begins and not builder.solves and plan.depth == len(body.stages) and not schedule.training.find_lr:
            return
        raise BadOption(
            f"--epochs 0 trains nothing, which leaves --head {recipe.head} with --freeze {recipe.freeze} to chance. "
            "Give --epochs 1 or more, or --head zero-shot --freeze head-only."
        )
    if schedule.epochs < len(plan.phases):
        raise BadOption(
            f"--epochs {schedule.epochs}: --freeze {recipe.freeze} has {len(plan.phases)} phases of at least one epoch "
            f"each. Give --epochs {len(plan.phases)} or more."
        )


def steady(recipe: Recipe, strategy: Any, regime: Any) -> bool:
    """Whether all images pass the stages, and where they are cut can be told from labels and counts."""
    old = recipe.old or getattr(regime, "needs_old", False) or getattr(regime, "distil", 0) > 0
    return not (old or hasattr(strategy, "trials") or hasattr(regime, "thin"))
