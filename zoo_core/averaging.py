"""An exponential average of the weights while they train (Polyak and Juditsky 1992; Tarvainen and Valpola 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """Follows parameters; steps early on count more, so that the first weights are soon forgotten.

    Args:
        decay: what a step leaves of the average, at most; after n steps (1 + n) / (10 + n) where that is less.

    Attributes:
        values: of each parameter, in order.
        steps: taken so far.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float):
        self.parameters, self.decay, self.steps = list(parameters), decay, 0
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take a step's weights in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The average stands where the weights do, until the end."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)
