"""Freeze strategies of the core: how many stages to retrain. Each has the shape a stranger would write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from zoo_core.errors import BadOption
from zoo_core.types import FreezePlan, Phase, StageInfo, Task


@dataclass(frozen=True)
class HeadOnly:
    """Train the head alone; the backbone is frozen (linear probe)."""

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        reason = f"All {len(stages)} stages stay frozen, so each image passes the backbone once, ever."
        return FreezePlan((Phase(depth=len(stages)),), reason)


@dataclass(frozen=True)
class Last:
    """Train the last `stages` stages and the head (partial fine-tuning); counted from the output."""

    stages: int = 1

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        if not 0 <= self.stages <= len(stages):
            raise BadOption(
                f"last:stages={self.stages}: this backbone has {len(stages)} stages; expected 0 to {len(stages)}."
            )
        depth = len(stages) - self.stages
        names = ", ".join(stage.name for stage in stages[depth:]) or "none"
        return FreezePlan((Phase(depth),), f"The last {self.stages} of {len(stages)} stages train ({names}).")


@dataclass(frozen=True)
class Full:
    """Train every stage, gently, from the pretrained weights (full fine-tuning).

    `layer_decay` below 1 gives each stage a smaller learning rate than the one after it (LLRD).
    """

    layer_decay: float = 1.0

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        if not 0 < self.layer_decay <= 1:
            raise BadOption(f"full:layer_decay={self.layer_decay}: expected more than 0 and at most 1.")
        scale = tuple(self.layer_decay ** (len(stages) - i) for i in range(len(stages)))
        return FreezePlan((Phase(0, lr_scale=scale),), f"All {len(stages)} stages train from the pretrained weights.")


@dataclass(frozen=True)
class Scratch:
    """Throw the pretrained weights away and train everything (the yardstick for what pretraining gives)."""

    pretrained: ClassVar[bool] = False

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        reason = f"All {len(stages)} stages train from random weights, as asked."
        return FreezePlan((Phase(0),), reason, batch_norm="train")
