"""A run as one module that needs nothing of ours: pixels in, calibrated answers out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo_core.backbone import Chain, Value
from zoo_core.calibration import Calibration
from zoo_core.fit import span
from zoo_core.predicting import averaged

if TYPE_CHECKING:
    from zoo_core.predicting import Predictor


class Deployed(nn.Module):
    """Normalisation, all stages, the head, and the temperature.

    In: uint8 pixels [B, C, H, W], resized and cropped. Out: probabilities [B, classes], or numbers [B, 1].
    """

    def __init__(self, predictor: Predictor, calibration: Calibration):
        super().__init__()
        model = predictor.model
        first, last = span(model.builder, predictor.depth, len(model.backbone.stages))
        self.chain = Chain(model.backbone.stages[:last])
        self.head = model.head
        self.builder, self.calibration = model.builder, calibration
        self.second = Deployed(predictor.second, Calibration()) if predictor.second else None
        self.pooling = model.backbone.pooling
        self.pooled = first == len(model.backbone.stages)
        self.reads_stages = bool(getattr(model.builder, "reads_stages", False))
        spec = model.backbone.card.input
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1))
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        value: Value = pixels.float().div(255).sub(mean).div(std)
        parts = []
        for link in self.chain.links:
            value = link(value)
            if self.reads_stages:
                parts.append(self._row(value))
        if self.reads_stages:
            value = torch.cat(parts, dim=1)
        elif self.pooled:
            value = self._row(value)
        answers: Tensor = self.builder.probabilities(self.head(value))
        if self.second is not None:
            answers = averaged(answers, self.second(pixels))
        return self.calibration.apply(self.builder.target, answers)

    def _row(self, value: Value) -> Tensor:
        """Pooled features; what is a row already stays as it is, for any number of examples."""
        return value if isinstance(value, Tensor) and value.ndim == 2 else self.pooling(value)
