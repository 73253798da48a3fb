"""Heads of the core: features to predictions, with their loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo_core.types import Task

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Linear:
    """One linear layer on the pooled features: softmax and cross-entropy.

    `label_smoothing` moves that share of each target to the other classes.
    """

    label_smoothing: float = 0.0

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from torch import nn

        head = nn.Linear(feature_dim, len(task.classes))
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        return head

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction="none", label_smoothing=self.label_smoothing)

    def probabilities(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(1)
