"""zoo: fine-tune a pretrained model on your own data, with the evidence for every choice.

Example:
    import zoo_core as zoo

    zoo.backbones("*lite*")                                    # cards, no torch
    run = zoo.finetune("photos/", backbone="cnn/tf_efficientnet_lite0.in1k", freeze="last:2")
    list(run.predict(["a.jpg"])), run.metrics
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zoo_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from zoo_core import conversations as conversations
    from zoo_core import freeze as freeze
    from zoo_core import heads as heads
    from zoo_core import regimes as regimes
    from zoo_core import sounds as sounds
    from zoo_core import testing as testing
    from zoo_core import texts as texts
    from zoo_core import weights as weights
    from zoo_core.api import backbones as backbones
    from zoo_core.api import finetune as finetune
    from zoo_core.api import load_backbone as load_backbone
    from zoo_core.api import registry as registry
    from zoo_core.backbone import Backbone as Backbone
    from zoo_core.backbone import Stage as Stage
    from zoo_core.backbone import chain_from_modules as chain_from_modules
    from zoo_core.card import AudioInput as AudioInput
    from zoo_core.card import Card as Card
    from zoo_core.card import Source as Source
    from zoo_core.card import TextInput as TextInput
    from zoo_core.conversations import Saying as Saying
    from zoo_core.errors import BadCard as BadCard
    from zoo_core.errors import BadExample as BadExample
    from zoo_core.errors import BadOption as BadOption
    from zoo_core.errors import NotAChain as NotAChain
    from zoo_core.errors import WeightsMismatch as WeightsMismatch
    from zoo_core.errors import WeightsMissing as WeightsMissing
    from zoo_core.errors import ZooError as ZooError
    from zoo_core.files import read_json as read_json
    from zoo_core.open_clip_provider import OpenClipProvider as OpenClipProvider
    from zoo_core.readers import Reader as Reader
    from zoo_core.recipe import Recipe as Recipe
    from zoo_core.runs import Run as Run
    from zoo_core.timm_provider import TimmProvider as TimmProvider
    from zoo_core.tracing import trace_stages as trace_stages
    from zoo_core.types import FreezePlan as FreezePlan
    from zoo_core.types import Phase as Phase
    from zoo_core.types import StageInfo as StageInfo
    from zoo_core.types import Task as Task

_PUBLIC = {
    "AudioInput": "zoo_core.card",
    "Backbone": "zoo_core.backbone",
    "BadCard": "zoo_core.errors",
    "BadExample": "zoo_core.errors",
    "BadOption": "zoo_core.errors",
    "Card": "zoo_core.card",
    "FreezePlan": "zoo_core.types",
    "OpenClipProvider": "zoo_core.open_clip_provider",
    "NotAChain": "zoo_core.errors",
    "Phase": "zoo_core.types",
    "Reader": "zoo_core.readers",
    "Recipe": "zoo_core.recipe",
    "Run": "zoo_core.runs",
    "Saying": "zoo_core.conversations",
    "Source": "zoo_core.card",
    "Stage": "zoo_core.backbone",
    "StageInfo": "zoo_core.types",
    "Task": "zoo_core.types",
    "TextInput": "zoo_core.card",
    "TimmProvider": "zoo_core.timm_provider",
    "WeightsMismatch": "zoo_core.errors",
    "WeightsMissing": "zoo_core.errors",
    "ZooError": "zoo_core.errors",
    "backbones": "zoo_core.api",
    "chain_from_modules": "zoo_core.backbone",
    "finetune": "zoo_core.api",
    "load_backbone": "zoo_core.api",
    "read_json": "zoo_core.files",
    "registry": "zoo_core.api",
    "trace_stages": "zoo_core.tracing",
}
_MODULES = ("conversations", "freeze", "heads", "regimes", "sounds", "testing", "texts", "weights")

__all__ = [
    "conversations",
    "freeze",
    "heads",
    "hookimpl",
    "regimes",
    "sounds",
    "testing",
    "texts",
    "weights",
    *sorted(_PUBLIC),
]


def __getattr__(name: str) -> Any:
    """Resolve public names when they are first used: `import zoo_core` imports no torch."""
    if name in _MODULES:
        return importlib.import_module(f"zoo_core.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'zoo_core' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
