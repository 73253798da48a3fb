"""Collapse: a training that goes wrong is noticed in its first epochs, so that it can begin again more gently."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo_core.errors import Collapsed

RETRIES = 2
"""How often a collapsed training begins again, each time at a third of the rate."""
GENTLER = 1 / 3
ONE_CLASS = 0.995
"""Share of the answers of an epoch from which on a model is said to know one class only."""
FALLING = 0.995
"""A loss that is more than this share of the one before does not fall."""
RISEN = 1.5


class Watch:
    """Looks on while a model trains: raises `Collapsed` when its loss climbs, or when it has come to know one class.

    The second is: nearly all answers of an epoch are the same, the loss is no better than that of the best constant
    answer (the entropy of the class shares), and it does not fall. A loss that never moved is a rate too small: no
    collapse.

    Args:
        labels: of the training side [N]; where they are no class indices, the loss alone is looked at.
        last: only note the sign, since there is no other attempt.

    Attributes:
        sign: what is wrong after the latest epoch, in words; empty while all is well.
    """

    def __init__(self, labels: Tensor, last: bool = False):
        self.last, self.sign = last, ""
        self.floor: float | None = None
        if labels.ndim == 1 and not labels.is_floating_point():
            shares = torch.bincount(labels).float() / max(1, len(labels))
            self.floor = float(-(shares * shares.clamp_min(1e-12).log()).sum())
        self.losses: list[float] = []
        self.answers: Tensor | None = None
        self.patience = 3

    def begin(self, epochs: int) -> None:
        """A phase of so many epochs begins: its loss is compared with itself only."""
        self.losses, self.answers = [], None
        self.patience = max(3, math.ceil(epochs / 4))

    def state(self) -> dict[str, Any]:
        """Plain data from which `put_back` goes on."""
        answers = None if self.answers is None else self.answers.tolist()
        return {"sign": self.sign, "losses": self.losses[:], "answers": answers, "patience": self.patience}

    def put_back(self, state: Mapping[str, Any], device: torch.device | None = None) -> None:
        """Go on from where `state` was called."""
        self.sign, self.losses, self.patience = state["sign"], list(state["losses"]), state["patience"]
        self.answers = None if state["answers"] is None else torch.tensor(state["answers"], device=device)

    def saw(self, outputs: Tensor) -> None:
        """Count the answers of a batch [B, classes]."""
        if self.floor is None or outputs.ndim != 2:
            return
        if self.answers is None:
            self.answers = torch.zeros(outputs.shape[1], device=outputs.device)
        best = outputs.detach().argmax(1)
        self.answers.index_add_(0, best, torch.ones_like(best, dtype=self.answers.dtype))

    def close(self, loss: float, lr: float) -> None:
        """An epoch has ended with this mean loss.

        Raises:
            Collapsed: something is wrong, and there is another attempt.
        """
        self.losses.append(loss)
        self.sign = self._climbs() or self._one_class()
        self.answers = None
        if self.sign and not self.last:
            raise Collapsed(self.sign, lr)

    def _climbs(self) -> str:
        if len(self.losses) < 3:
            return ""
        first, (a, b, c) = self.losses[0], self.losses[-3:]
        if a < b < c and c > RISEN * first and c > (self.floor or 0.0):
            return f"the loss rose from {first:.3g} to {c:.3g} in {len(self.losses)} epochs"
        return ""

    def _one_class(self) -> str:
        if not self.floor or self.answers is None or len(self.losses) < self.patience:
            return ""
        one = float(self.answers.max() / self.answers.sum()) >= ONE_CLASS
        before, now = self.losses[-2:]
        moved = max(self.losses) > 1.01 * min(self.losses)
        if one and moved and now >= self.floor and now > FALLING * before:
            return f"after {len(self.losses)} epochs the model answers one class only and its loss ({now:.3g}) is stuck"
        return ""
