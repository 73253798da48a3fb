"""From inputs to outputs as training saw them: the frozen stages in their own precision, then tail and head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_core.activations import Numbers
from zoo_core.backbone import Value, pool
from zoo_core.fit import Model


@dataclass(frozen=True)
class Predictor:
    """A trained model, ready for images.

    Attributes:
        model: backbone and head, all in eval mode.
        depth: stages that were frozen in training.
        numbers: the arithmetic of the frozen pass.
    """

    model: Model
    depth: int
    numbers: Numbers

    def probabilities(self, x: Tensor) -> Tensor:
        """Normalised input [B, C, H, W] to probabilities [B, classes]."""
        found: Tensor = self.model.builder.probabilities(self.model.head(self.features(x)))
        return found

    def features(self, x: Tensor) -> Tensor:
        """What the head reads [B, D]."""
        backbone, stages = self.model.backbone, self.model.backbone.stages
        if getattr(self.model.builder, "reads_stages", False):
            return self._all_stages(x)
        if not self.depth:
            return backbone(x)
        value = self.numbers.pass_through(backbone, 0, self.depth, x)
        if self.depth < len(stages):
            value = self.numbers.rounded(value)
        for stage in stages[self.depth :]:
            value = stage.module(value)
        return pool(value) if self.depth == len(stages) else _tensor(value)

    def _all_stages(self, x: Tensor) -> Tensor:
        value: Value = x
        parts = []
        with self.numbers.autocast(x.device):
            for stage in self.model.backbone.stages:
                value = stage.module(value)
                parts.append(pool(value).float())
        return torch.cat(parts, dim=1)


def _tensor(value: Value) -> Tensor:
    assert isinstance(value, Tensor)
    return value
