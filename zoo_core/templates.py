"""The texts of a new plugin's files, for `string.Template`; see `scaffold.py` for the words."""

from __future__ import annotations

from typing import Any

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1.0"
description = "$short: $what for zoo"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["zoo-core"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points.zoo]
$short = "$module"

[tool.setuptools]
packages = ["$module"]
$data"""

README = """\
# $name

`$short`, $what for zoo.

    pip install $name
    $use

## Change it

All of it is in `$module/__init__.py`. The class's fields are the user's options, its docstring the help line.

    pip install -e '.[test]'
    pytest                        # what zoo promises of every plugin, checked
    zoo plugins check $name       # the same on the command line

## Publish it

Choose a licence and name it in `pyproject.toml`, then:

    pip install build twine
    python -m build
    twine upload dist/*
"""

GITIGNORE = """\
__pycache__/
*.egg-info/
build/
dist/
"""

CI = """\
name: test
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        python: ["3.11", "3.13"]
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: $${{ matrix.python }}
      - run: pip install '.[test]'
      - run: pytest -rs
      - run: zoo plugins check $name
"""

TEST = """\
from zoo_core import testing


@testing.parametrize("$name")
def test_keeps_what_zoo_promises(check):
    check()
"""

USES = {
    "provider": "zoo finetune photos/ -b $short/small --weights none",
    "freeze": "zoo finetune photos/ -b cnn/resnet18.a1_in1k --freeze $short:frozen=0.7",
    "head": "zoo finetune photos/ -b cnn/resnet18.a1_in1k --head $short:label_smoothing=0.1",
    "regime": "zoo finetune photos/ -b cnn/resnet18.a1_in1k --regime $short:times=3",
}

_PROVIDER = '''\
"""$short: $what for zoo."""

from __future__ import annotations

from pathlib import Path

from zoo_core import hookimpl


class $cls:
    """Loads one small convolutional network; put yours in the place of `network`."""

    cards = Path(__file__).with_name("cards.json")

    def load(self, card, weights):
        from zoo_core import Backbone, chain_from_modules  # here: importing a plugin must not import torch

        net, classifier = network(), {}
        if weights is not None:
            dropped = tuple(f"{name}." for name in card.classifier)
            classifier = {n: t for n, t in weights.tensors.items() if n.startswith(dropped)}
            net.load_state_dict({n: t for n, t in weights.tensors.items() if n not in classifier})
        parts = [("stem", net.stem), ("body", net.body), ("neck", net.neck)]
        return Backbone(card, net, chain_from_modules(parts, net), 32, classifier)


@hookimpl
def zoo_backbone_providers():
    return {"$short": $cls}


def network():
    """Images [B, 3, H, W] to features [B, 32]."""
    from collections import OrderedDict

    from torch import nn

    stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    body = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(OrderedDict(stem=stem, body=body, neck=neck)).eval()
'''

_FREEZE = '''\
"""$short: $what for zoo."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_core import FreezePlan, Phase, ZooError, hookimpl


@dataclass(frozen=True)
class $cls:
    """Freeze a share of the stages, counted from the input."""

    frozen: float = 0.5

    def plan(self, stages, task):
        if not 0 <= self.frozen <= 1:
            raise ZooError(f"$short:frozen={self.frozen}: expected 0 to 1.")
        depth = round(self.frozen * len(stages))
        return FreezePlan((Phase(depth),), f"{depth} of {len(stages)} stages stay frozen, as asked.")


@hookimpl
def zoo_freeze_strategies():
    return {"$short": $cls}
'''

_HEAD = '''\
"""$short: $what for zoo."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_core import hookimpl


@dataclass(frozen=True)
class $cls:
    """One linear layer on normalised features: softmax and cross-entropy."""

    label_smoothing: float = 0.0

    def build(self, feature_dim, task):
        from torch import nn  # here: importing a plugin must not import torch

        return nn.Sequential(nn.LayerNorm(feature_dim), nn.Linear(feature_dim, len(task.classes)))

    def loss(self, outputs, labels):
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction="none", label_smoothing=self.label_smoothing)

    def probabilities(self, outputs):
        return outputs.softmax(1)


@hookimpl
def zoo_head_builders():
    return {"$short": $cls}
'''

_REGIME = '''\
"""$short: $what for zoo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zoo_core import hookimpl


@dataclass(frozen=True)
class $cls:
    """Only new data, each example `times` times an epoch."""

    needs_old: ClassVar[bool] = False
    times: int = 2

    def batches(self, n_new, n_old, batch_size, rng):
        import numpy as np

        order = np.concatenate([rng.permutation(n_new) for _ in range(self.times)])
        return list(np.array_split(order, max(1, -(-len(order) // batch_size))))


@hookimpl
def zoo_data_regimes():
    return {"$short": $cls}
'''

MODULES = {"provider": _PROVIDER, "freeze": _FREEZE, "head": _HEAD, "regime": _REGIME}
"""Kind to the one module of the package."""

CARD: dict[str, Any] = {
    "architecture": "small",
    "parameters": 5136,
    "feature_dim": 32,
    "input": {"size": [3, 64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    "stages": ["stem", "body", "neck"],
    "notes": "An example without weights: ask for random ones, or add a source with its sha256.",
}
"""The card of the new provider's network, but for the names."""
