"""From inputs to outputs as training saw them: the frozen stages in their own precision, then tail and head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_core.activations import Numbers, parts_of, single
from zoo_core.backbone import Value
from zoo_core.fit import Model, span
from zoo_core.portions import Portion, cut


@dataclass(frozen=True)
class Predictor:
    """A trained model, ready for inputs.

    Attributes:
        model: backbone and head, all in eval mode.
        depth: stages that were frozen in training.
        numbers: the arithmetic of the frozen pass.
        second: a model of its own whose answers are averaged with this one's.
    """

    model: Model
    depth: int
    numbers: Numbers
    second: Predictor | None = None

    def probabilities(self, x: Value) -> Tensor:
        """The reader's input to probabilities [B, classes]."""
        tensors = parts_of(x)

        def answers(size: int) -> Tensor:
            parts = cut(len(tensors[0]), size)
            return torch.cat([self._answers(single(tuple(t[part] for t in tensors))) for part in parts])

        found = Portion().run(answers, len(tensors[0]))
        return averaged(found, self.second.probabilities(x)) if self.second else found

    def _answers(self, x: Value) -> Tensor:
        found: Tensor = self.model.builder.probabilities(self.model.head(self.features(x)))
        return found

    def to(self, where: torch.device) -> Predictor:
        """Move it, ready to predict: everything in eval mode."""
        backbone = self.model.backbone
        backbone.to(where)
        backbone.model.to(memory_format=torch.channels_last)
        backbone.freeze(len(backbone.stages))
        self.model.head.to(where).eval()
        if self.second:
            self.second.to(where)
        return self

    def features(self, x: Value) -> Value:
        """What the head reads: pooled features [B, D], or positions for a head that reads them."""
        builder, backbone, stages = self.model.builder, self.model.backbone, self.model.backbone.stages
        if getattr(builder, "reads_stages", False):
            return self._all_stages(x)
        first, last = span(builder, self.depth, len(stages))
        value: Value = x
        if first:
            value = self.numbers.pass_through(backbone, 0, first, x)
        if 0 < first < len(stages):
            value = self.numbers.rounded(value)
        for stage in stages[first:last]:
            value = stage.module(value)
        return backbone.pooling(value) if first == len(stages) else value

    def _all_stages(self, x: Value) -> Tensor:
        value: Value = x
        parts = []
        with self.numbers.autocast(self.model.device):
            for stage in self.model.backbone.stages:
                value = stage.module(value)
                parts.append(self.model.backbone.pooling(value).float())
        return torch.cat(parts, dim=1)


def averaged(first: Tensor, second: Tensor) -> Tensor:
    """The answers of two models [N, outputs], each having half a say."""
    return (first + second) / 2
