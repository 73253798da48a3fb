"""Augmentation behind the cut: mixup, cutmix and noise on what the store gave. It costs no frozen pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from zoo_core.backbone import Value
from zoo_core.errors import BadOption
from zoo_core.training import Training

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Outputs [B, outputs] and labels to one loss per example [B]."""


def mixed(value: Value, labels: Tensor, loss: Loss, options: Training) -> tuple[Value, Callable[[Tensor], Tensor]]:
    """The value that enters the tail, changed as asked, and outputs [B, outputs] to losses [B] for it.

    A mixed example's loss is the mean of the losses for both its labels, weighted by what each gives to it, so any
    loss will do. Where mixup and cutmix are both on, each batch draws one of them. Random numbers are torch's own,
    drawn on the CPU but for the noise.

    Raises:
        BadOption: the value at this cut cannot be changed so.
    """
    if not options.mixes:
        return value, lambda outputs: loss(outputs, labels)
    parts = value if isinstance(value, tuple) else (value,)
    if not all(part.is_floating_point() for part in parts):
        raise BadOption(
            "--training mixup, cutmix and noise change numbers, but what enters the tail here holds indices or masks. "
            "Leave them out, or freeze more stages."
        )
    if options.noise:
        parts = tuple(part + options.noise * part.std() * torch.randn_like(part) for part in parts)
    first = 1.0
    order = torch.arange(len(labels))
    if options.mixup or options.cutmix:
        cut = bool(options.cutmix) and (not options.mixup or bool(torch.rand(()) < 0.5))
        first, order = _beta(options.cutmix if cut else options.mixup), torch.randperm(len(labels))
        if cut:
            parts, first = _cut_in(parts, order, first)
        else:
            parts = tuple(torch.lerp(part[order.to(part.device)], part, first) for part in parts)
    found: Value = parts if isinstance(value, tuple) else parts[0]
    other = labels[order.to(labels.device)]

    def both(outputs: Tensor) -> Tensor:
        return (
            first * loss(outputs, labels) + (1 - first) * loss(outputs, other) if first < 1 else loss(outputs, labels)
        )

    return found, both


def _cut_in(parts: tuple[Tensor, ...], order: Tensor, first: float) -> tuple[tuple[Tensor, ...], float]:
    """A rectangle of another example laid into each one; and the share that is left of the first one."""
    if len(parts) > 1 or parts[0].ndim != 4:
        shape = " and ".join(str(list(part.shape)) for part in parts)
        raise BadOption(
            f"--training cutmix needs one map [B, C, H, W] behind the cut, but {shape} enters the tail. "
            "Give mixup in its place, or freeze fewer stages."
        )
    value = parts[0]
    height, width = value.shape[2:]
    side = (1 - first) ** 0.5
    centre = torch.rand(2).tolist()
    top, bottom = _edges(centre[0], side, height)
    left, right = _edges(centre[1], side, width)
    found = value.clone()
    found[:, :, top:bottom, left:right] = value[order.to(value.device), :, top:bottom, left:right]
    return (found,), 1 - (bottom - top) * (right - left) / (height * width)


def _edges(centre: float, side: float, length: int) -> tuple[int, int]:
    """First and last (excluded) cell of a stretch of a length, `centre` and `side` in shares of it; clipped."""
    return max(0, round((centre - side / 2) * length)), min(length, round((centre + side / 2) * length))


def _beta(alpha: float) -> float:
    """A draw of Beta(alpha, alpha), its seed drawn from torch's state, since torch draws it on no generator."""
    return float(np.random.default_rng(int(torch.randint(2**31, ()))).beta(alpha, alpha))
