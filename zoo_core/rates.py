"""A peak learning rate from a range test: the rate rises step by step until the loss does (Smith 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

import numpy as np
import torch

from zoo_core import fit
from zoo_core.errors import Collapsed
from zoo_core.stepping import step

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 100
SMOOTHING = 0.9
"""What the running mean of the losses keeps at each step."""
RISEN = 2.0
"""The test ends where the running mean is this many times its lowest."""
BELOW = 10.0
"""The rate taken lies so many times below the one with the lowest loss, as in fastai's `minimum`."""


@dataclass(frozen=True)
class Found:
    """What a range test gave.

    Attributes:
        rate: to train with at the peak.
        rates, losses: of each step; the losses are running means.
    """

    rate: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]


def find(
    model: fit.Model,
    regime: Any,
    schedule: fit.Schedule,
    boundary: fit.Boundary,
    train: fit.Side,
    seed: int,
) -> Found:
    """Train the last phase's stages and the head for at most `STEPS` steps; the model is not as it was afterwards.

    Each step takes a batch in the usual order, at a rate a little higher than the one before.

    Raises:
        Collapsed: the loss is no number from the first step on.
    """
    phase = model.plan.phases[-1]
    top = replace(schedule, lr=HIGHEST)
    optimiser = torch.optim.AdamW(fit.parameter_groups(model, phase, top), lr=HIGHEST)
    fit.training_mode(model, phase)
    torch.manual_seed(seed)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for number, (epoch, batch) in enumerate(islice(_batches(regime, train, schedule.batch_size, seed), STEPS)):
        rate = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
        soft = train.soft_loss(batch, epoch)
        total = step(
            model, optimiser, top, boundary, train.rows(batch, epoch), train.labels[batch], rate / HIGHEST, soft=soft
        )
        loss = float(total) / len(batch)
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smooth = mean / (1 - SMOOTHING ** (number + 1))
        if not math.isfinite(loss) or (losses and smooth > RISEN * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
    if not losses:
        raise Collapsed("the loss is no number before anything was trained", LOWEST)
    best = rates[int(np.argmin(losses))]
    return Found(float(f"{best / BELOW:.2g}"), tuple(rates), tuple(losses))


def _batches(regime: Any, train: fit.Side, batch_size: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Epoch and batch, epoch after epoch, as training will see them."""
    for epoch in count():
        rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        for batch in regime.batches(len(train) - train.n_old, train.n_old, batch_size, rng):
            yield epoch, batch
