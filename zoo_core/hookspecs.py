"""The four hook specs. A plugin is a module (entry-point group `zoo`) with any of these functions.

All four are plain list hooks: no arguments, called once per process when `zoo` looks for what is
installed, each on its own. Each returns `dict[name, class]`. Names are lower-case words joined by
`-`. A hook that raises, exits or returns something else is reported by `zoo plugins` as the reason
why that plugin is broken; everything else goes on. Nothing depends on the order of plugins: a name
supplied twice must be asked for as `distribution:name`.

Importing a plugin must not import torch, timm, open_clip or transformers: listing backbones would
become thirty times slower for everyone. Import them inside the methods that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor, nn

    from zoo_core.backbone import Backbone
    from zoo_core.card import Card
    from zoo_core.types import FreezePlan, StageInfo, Task
    from zoo_core.weights import Weights

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


class Provider(Protocol):
    """Turns a card and its weights into a backbone.

    Made without arguments each time a backbone is loaded. Its cards join the registry as a layer of
    their own. Raise `ZooError` where a card or the weights do not fit: the user reads its text.
    """

    cards: ClassVar[Path]
    """A JSON file of cards (`{"schema": 1, "cards": {name: {...}}}`) shipped in the plugin."""

    def load(self, card: Card, weights: Weights | None) -> Backbone:
        """Build the chain of stages; `None` means random weights, asked for by the user."""
        ...


class FreezeStrategy(Protocol):
    """Decides which stages train. A frozen dataclass; its fields are the user's options.

    A strategy that wants random weights says so with a class variable `pretrained = False`. One that
    needs trials on the user's data has a method `trials` and finds them as `task.evidence`; see `auto`.
    One that adds tensors to the trained stages (adapters) has a method `adapt(stages)`, called with the
    modules after the cut before each training, with torch's seed set. Weights that ask for a gradient may
    be adapted; the added tensors hang on the stages' modules and train whatever `Phase.only` says
    (`added`: they alone). It returns a function without arguments, called when training ends, which merges
    them: upstream's names, and the outputs that the adapted stages gave. See the package zoo-lora.
    Raise `ZooError` for an option or a chain that cannot be.
    """

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        """Phases and a reason; pure: the same stages and task give the same plan."""
        ...


class HeadBuilder(Protocol):
    """Features to predictions, with the loss. A frozen dataclass; its fields are the user's options.

    A head that is solved at once, in place of training, has `solves = True` and a method `solve`; one
    that reads the pooled features of all stages has `reads_stages = True`; see `multi-stage`. One with
    `reads_positions = True` takes the last stage's place: its module gets the value that enters that stage.
    One that begins with something better than chance has a method `begin(head, body, task)`, called once before
    training, which fills the module and returns how, in words; see `zero-shot`.
    `kinds` lists the kinds of task it knows, where that is more than one label; see docs/heads.md.

    A head for conversations has `examples = "chat"`, and `kinds = ("next-token",)`. It has a method
    `reader(backbone)`, which gives the reader of conversations; with `reads_tokens = True` its module gets what the
    last stage gives before it is pooled. `bind(module, backbone)` lets a head go on with the backbone's own output
    layer: it is called after `build`, before training and when a saved run is opened. `say(model, messages, how)`
    answers, `export(model, folder)` writes another library's files; see `causal-lm` in zoo-text.
    """

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        """A module from features [B, D] to outputs [B, classes]; drawn from torch's global seed."""
        ...

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Outputs [B, classes] and labels [B] to one loss per example [B]."""
        ...

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs [B, classes] to probabilities [B, classes], rows summing to 1."""
        ...


class DataRegime(Protocol):
    """Decides which examples enter each epoch. A frozen dataclass; its fields are the user's options.

    A regime that mixes old examples in (`needs_old`) states their share of an epoch, in [0, 1), as `ratio`, and as
    `buffer` how many old training examples are kept for it (0 for all), chosen as `select` says: `random`, `herding`
    or `margin`. One with `distil` above 0 gets the old model's answers, softened by `temperature`, as soft targets of
    that weight. The engine does the choosing and computing; see `rehearsal` and `lwf`, and docs/forgetting.md.
    """

    needs_old: ClassVar[bool]
    """Whether the user must give the old task's data (`--old`)."""

    def batches(self, n_new: int, n_old: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """One epoch: index arrays; below `n_new` a new example, from `n_new` on an old one.

        `rng` is a pure function of (seed, epoch), so the order needs no saved state.
        """
        ...


@hookspec
def zoo_backbone_providers() -> dict[str, type[Provider]]:  # type: ignore[empty-body]
    """Supply backbones (`-b CARD`, through the cards that name the provider).

    Called once a process, whenever a command looks for what is installed. The names are those that cards
    give as their `provider`. An error leaves this plugin out and is shown by `zoo plugins`.

    Example:
        @hookimpl
        def zoo_backbone_providers():
            return {"cnn": CnnProvider}
    """


@hookspec
def zoo_freeze_strategies() -> dict[str, type[FreezeStrategy]]:  # type: ignore[empty-body]
    """Supply answers to "which stages train?" (`--freeze NAME:field=value`).

    Called once a process, whenever a command looks for what is installed. The class is made from the
    user's options before data are read, and asked for its plan once the backbone is loaded. An error in
    the hook leaves this plugin out and is shown by `zoo plugins`.

    Example:
        @hookimpl
        def zoo_freeze_strategies():
            return {"every-other": EveryOther}
    """


@hookspec
def zoo_head_builders() -> dict[str, type[HeadBuilder]]:  # type: ignore[empty-body]
    """Supply heads (`--head NAME:field=value`).

    Called once a process, whenever a command looks for what is installed. The head is built after the
    plan, for the features at the end of the chain, and built again when a saved run is opened. An error in
    the hook leaves this plugin out and is shown by `zoo plugins`.

    Example:
        @hookimpl
        def zoo_head_builders():
            return {"mlp": Mlp}
    """


@hookspec
def zoo_data_regimes() -> dict[str, type[DataRegime]]:  # type: ignore[empty-body]
    """Supply regimes (`--regime NAME:field=value`).

    Called once a process, whenever a command looks for what is installed. The regime is asked for its
    batches at the start of every epoch. An error in the hook leaves this plugin out and is shown by
    `zoo plugins`.

    Example:
        @hookimpl
        def zoo_data_regimes():
            return {"new-only": NewOnly}
    """


SPECS: dict[str, str] = {
    "provider": "zoo_backbone_providers",
    "freeze": "zoo_freeze_strategies",
    "head": "zoo_head_builders",
    "regime": "zoo_data_regimes",
}
"""Kind, as users say it, to hook name."""

METHODS: dict[str, tuple[str, ...]] = {
    "provider": ("cards", "load"),
    "freeze": ("plan",),
    "head": ("build", "loss", "probabilities"),
    "regime": ("needs_old", "batches"),
}
"""Kind to the attributes that a supplied class must have."""


def manager() -> Any:
    """A fresh plugin manager that knows the four specs; never a global."""
    import sys

    pm = pluggy.PluginManager("zoo")
    pm.add_hookspecs(sys.modules[__name__])
    return pm
