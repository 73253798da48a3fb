"""A second model beside the trained one: ridge on all stages as published, whose answers are averaged with its own.

Of all fixed rules that were compared, this mean was the best (docs/science.md): the trained model knows the task, the
other one has forgotten nothing, and they err on different examples. It is solved in a moment from what is kept anyway;
at prediction the published backbone runs beside the trained one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo_core import components, tensors
from zoo_core.activations import Numbers
from zoo_core.backbone import Backbone
from zoo_core.baselines import Floor
from zoo_core.errors import BadOption, RunDamaged
from zoo_core.fit import Model, Side
from zoo_core.objective import Objective, objective
from zoo_core.plugins import Plugins
from zoo_core.predicting import Predictor, averaged
from zoo_core.recipe import Recipe
from zoo_core.trainer import Kept
from zoo_core.types import FreezePlan, Split, Task
from zoo_core.weights import load_backbone

if TYPE_CHECKING:
    from zoo_core.runs import Run

Answered: TypeAlias = tuple[Tensor, Tensor]
"""Answers [N, outputs] for a side, and its labels."""
HEAD = "multi-stage"
FILE = "second.safetensors"


@dataclass(frozen=True)
class Second:
    """The model beside the trained one, solved.

    Attributes:
        head: a linear layer on the pooled features of every stage.
        builder: of the head.
        all_stages: names of examples to those features [N, sum of widths], from the store.
        note: how it was solved.
        backbone_digest: of the published backbone.
    """

    head: nn.Module
    builder: Objective
    all_stages: Callable[[Sequence[str]], Tensor]
    note: str
    backbone_digest: str

    def beside(self, val: Answered, test: Answered, sides: Mapping[Split, Side], floor: Floor) -> tuple[Answered, ...]:
        """Both sides' answers averaged with this model's; those of the trained model alone become a baseline."""
        floor.answers["alone"] = test[0].numpy()
        return self._with(val, sides["val"]), self._with(test, sides["test"])

    def _with(self, found: Answered, side: Side) -> Answered:
        if not len(side):
            return found
        with torch.inference_mode():
            own = self.builder.probabilities(self.head(self.all_stages(side.digests)))
        return averaged(found[0], own), found[1]

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the head into a run's folder; returns what `plan.json` says of the model."""
        state = self.head.state_dict()
        tensors.write(folder / FILE, state)
        about = {"head": HEAD, "head_dim": state["weight"].shape[1], "note": self.note}
        return about | {"backbone_digest": self.backbone_digest}


def wanted(recipe: Recipe, plan: FreezePlan, body: Backbone, builder: Objective) -> bool:
    """Whether a second model stands beside the trained one: as the recipe says, else as the plan does where it can.

    Raises:
        BadOption: the recipe asks for it, and it cannot; says why.
    """
    if recipe.ensemble is False or not (recipe.ensemble or plan.ensemble):
        return False
    why = _obstacle(recipe, body, builder)
    if why and recipe.ensemble:
        raise BadOption(f"--ensemble {why} Leave one of both out.")
    return not why


def _obstacle(recipe: Recipe, body: Backbone, builder: Objective) -> str:
    if recipe.old or recipe.folds * recipe.seeds > 1:
        return f"does not go with {'--old' if recipe.old else '--folds and --seeds'} yet."
    if not body.pretrained:
        return (
            "needs pretrained weights, which its second model reads, but --weights none or --freeze scratch was given."
        )
    if builder.reads_tokens:
        return "averages answers, and a chat model says words."
    if builder.reads_stages:
        return f"adds the head {HEAD} to another one, but --head is that already."
    return ""


def solve(recipe: Recipe, plugins: Plugins, task: Task, body: Backbone, kept: Kept, train: Side) -> Second:
    """Ridge on all stages, for the training side as it is: no views, no balance.

    Args:
        body: as published: called before anything is trained.
    """
    plain = recipe.with_values(balance="none", class_weights="")
    builder = objective(components.build(plugins, "head", HEAD), task, plain)
    acts = kept.plain
    features = acts.all_stages(train.digests)
    head = builder.build(features.shape[1], task)
    note = builder.solve(head, features, train.labels, acts.pooled.widths)
    return Second(head, builder, acts.all_stages, note, body.digest())


def opened(run: Run, model: Model, plan: dict[str, Any], plugins: Plugins) -> Predictor:
    """The second model of a run, from its folder.

    Args:
        model: the trained one; its reader and plan serve both.

    Raises:
        RunDamaged: the published weights here are not those that it was solved on.
    """
    about = plan["second"]
    body = load_backbone(run.card, plugins)
    body.reader = model.backbone.reader
    if (found := body.digest()) != about["backbone_digest"]:
        raise RunDamaged(
            f"{run.path} averages a model on a backbone with sha256 {about['backbone_digest']}, but the weights here "
            f"give {found}. Get the weights that card.json names."
        )
    builder = Objective(components.build(plugins, "head", about["head"]), run.target)
    head = builder.build(about["head_dim"], Task("", run.classes, (), kind=run.target.kind))
    head.load_state_dict(load_file(run.path / FILE))
    return Predictor(
        replace(model, backbone=body, head=head, builder=builder), len(body.stages), Numbers(**plan["numbers"])
    )


def sentence(plan: Mapping[str, Any]) -> str:
    """For the user: what answers beside the trained model; nothing where it answers alone."""
    if "second" not in plan:
        return ""
    note = plan["second"]["note"]
    return f"half of each answer is {HEAD}'s on the published backbone ({note}), which runs beside it at prediction"
