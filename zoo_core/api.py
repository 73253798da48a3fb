"""The Python front door: what `zoo_core` exports, over the same engine as the command line."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.filtering import wanted
from zoo_core.layers import Registry, load_registry
from zoo_core.plugins import Plugins, discover

if TYPE_CHECKING:
    from zoo_core.backbone import Backbone
    from zoo_core.card import Card
    from zoo_core.console import Console
    from zoo_core.runs import Run


@cache
def installed(core: bool = True) -> Plugins:
    """The plugins of this process, found once; without `core`, those that may supply backbones."""
    return discover(core=core)


def registry() -> Registry:
    """Cards of all layers, read afresh."""
    return load_registry(installed(core=False))


def backbones(pattern: str = "*", **filters: Any) -> list[Card]:
    """Cards whose names match a shell pattern (or contain it, without wildcards); no torch.

    Args:
        filters: those of `zoo list`, see `filtering.wanted`.

    Example: `backbones("*lite*", licence="permissive", max_params="5M")`.
    """
    from zoo_core.card import Card

    chosen, providers = wanted(**filters), installed(core=False).supplied("provider")
    found = registry().plain(pattern)
    return [Card.from_json(name, entry) for name, entry in found if chosen.keeps(name, entry, providers)]


def load_backbone(name: str, weights: str | None = "pretrained") -> Backbone:
    """A backbone by card name, cut into stages.

    Args:
        name: as `zoo list` prints it.
        weights: `None` gives random weights; they are never given unasked.

    Raises:
        UnknownBackbone, WeightsMissing, DigestMismatch.
    """
    from zoo_core.weights import load_backbone as load

    return load(registry().get(name), installed(core=False), pretrained=weights is not None)


def finetune(
    data: str | Path,
    *,
    backbone: str | Backbone,
    freeze: Any = "head-only",
    head: Any = "linear",
    regime: Any = "new-only",
    out: str | Path | None = None,
    force: bool = False,
    console: Console | None = None,
    **fields: Any,
) -> Run:
    """Fine-tune a backbone on labelled images and return the finished run.

    Args:
        data: folder of class folders, or a CSV (`path,label[,split][,group]`).
        backbone: card name, or a loaded backbone (a copy of it is trained).
        freeze, head, regime: a spelling such as `last:stages=2`, or an instance such as
            `zoo.freeze.Last(stages=2)`.
        out: the run's folder; by default `runs/` and the recipe's name.
        force: replace a run that is there.
        fields: the recipe's other fields: epochs, budget, lr, batch_size, seed, device, ...; with `then=[...]`, further
            tasks, the run of the last one is returned.
    """
    from zoo_core import components
    from zoo_core.engine import finetune as run_recipe
    from zoo_core.recipe import Recipe

    plugins = installed()
    recipe = Recipe.of(
        {
            "data": str(data),
            "backbone": backbone if isinstance(backbone, str) else backbone.card.name,
            "freeze": components.spell(plugins, "freeze", freeze),
            "head": components.spell(plugins, "head", head),
            "regime": components.spell(plugins, "regime", regime),
            **fields,
        }
    )
    folder = Path(out) if out else Path("runs") / recipe.run_name
    loaded = None if isinstance(backbone, str) else backbone
    if recipe.then:
        from zoo_core.console import Console
        from zoo_core.streams import learn

        return learn(recipe, registry(), plugins, folder, console or Console(), backbone=loaded, force=force)[-1]
    return run_recipe(recipe, registry(), plugins, folder, backbone=loaded, console=console, force=force)
