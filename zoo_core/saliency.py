"""Where a model looked: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) on the last boundary with positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo_core.backbone import Value
from zoo_core.fit import span
from zoo_core.predicting import Predictor

_EXTRA_TOKENS = 8  # class and register tokens that may stand before those of the positions


def look(predictor: Predictor, x: Tensor, outputs: Sequence[int]) -> list[Tensor | None]:
    """How much each position spoke for one output of each example.

    The boundary is the last one whose positions the output depends on: a transformer that reads its class token
    alone does not look at the positions of its last block any more.

    Args:
        x: inputs [N, C, H, W].
        outputs: index of a class, one an example.

    Returns:
        For each example [h, w] in [0, 1]; `None` where no boundary has positions, or nothing there speaks for the
        output.
    """
    values = _values(predictor, x)
    for index in reversed(range(len(values))):
        value = values[index]
        if not isinstance(value, Tensor) or _positions(value) is None:
            continue
        leaf = value.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            scores = _rest(predictor, values, index, leaf)
            chosen = scores[torch.arange(len(x)), torch.tensor(outputs, device=scores.device)]
            (gradient,) = torch.autograd.grad(chosen.sum(), leaf, allow_unused=True)  # examples share nothing
        slope = None if gradient is None else _positions(gradient)
        found = _positions(leaf.detach())
        if slope is None or found is None or not slope.abs().sum() > 0:
            continue
        cams = (found * slope.mean((1, 2), keepdim=True)).sum(3).clamp_min(0).cpu()
        return [cam / cam.max() if cam.max() > 0 else None for cam in cams]
    return [None] * len(x)


def _values(predictor: Predictor, x: Tensor) -> list[Value]:
    """What each stage that the head reads from gives."""
    stages = predictor.model.backbone.stages
    _, last = span(predictor.model.builder, predictor.depth, len(stages))
    value: Value = x
    found: list[Value] = []
    with torch.no_grad():
        for stage in stages[:last]:
            value = stage.module(value)
            found.append(value)
    return found


def _rest(predictor: Predictor, values: list[Value], index: int, leaf: Tensor) -> Tensor:
    """Head outputs [N, outputs], before probabilities are made of them, with `leaf` in the place of a value."""
    model = predictor.model
    backbone, builder = model.backbone, model.builder
    later: list[Value] = [leaf]
    for stage in backbone.stages[index + 1 : len(values)]:
        later.append(stage.module(later[-1]))
    if getattr(builder, "reads_stages", False):
        everything = [*values[:index], *later]
        outputs: Tensor = model.head(torch.cat([backbone.pooling(value).float() for value in everything], dim=1))
        return outputs
    reads_positions = len(values) < len(backbone.stages)
    frozen = predictor.depth >= len(backbone.stages)
    outputs = model.head(later[-1] if reads_positions or not frozen else backbone.pooling(later[-1]))
    return outputs


def _positions(value: Tensor) -> Tensor | None:
    """A stage's value as [N, h, w, C], where it has more than one position."""
    if value.ndim == 4:
        channels_last = value.shape[1] == value.shape[2] != value.shape[3]
        grid = value if channels_last else value.permute(0, 2, 3, 1)
        return grid if grid.shape[1] * grid.shape[2] > 1 else None
    if value.ndim == 3:
        side = math.isqrt(value.shape[1])
        extra = value.shape[1] - side * side
        if side > 1 and extra <= _EXTRA_TOKENS:
            return value[:, extra:].reshape(len(value), side, side, -1)
    return None
