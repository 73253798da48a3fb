"""Freeze strategy `lora`: low-rank adapters on the last stages, merged when training ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo_core import ZooError, hookimpl

if TYPE_CHECKING:
    from torch import nn

    from zoo_core import FreezePlan, StageInfo, Task

LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class Lora:
    """Train low-rank adapters on the last `stages` stages, and the head (LoRA, Hu et al. 2021).

    A weight W of a linear or convolutional layer becomes W + alpha/rank * B A, of which B [rows, rank] and
    A [rank, columns] train; when training ends they are merged into W. `norms=true` trains the weights and
    biases of normalisation layers as well. Nothing else of the backbone changes.
    """

    rank: int = 8
    alpha: float = 16.0
    stages: int = 2
    norms: bool = False

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        from zoo_core import FreezePlan, Phase

        if self.rank < 1:
            raise ZooError(f"lora:rank={self.rank}: expected 1 or more.")
        if not self.alpha > 0:
            raise ZooError(f"lora:alpha={self.alpha}: expected more than 0.")
        if not 1 <= self.stages <= len(stages):
            raise ZooError(
                f"lora:stages={self.stages}: this backbone has {len(stages)} stages; expected 1 to {len(stages)}."
            )
        depth = len(stages) - self.stages
        names = ", ".join(stage.name for stage in stages[depth:])
        reason = f"Adapters of rank {self.rank} train on the last {self.stages} of {len(stages)} stages ({names})"
        reason += " beside their norms." if self.norms else "."
        return FreezePlan((Phase(depth, only="norm" if self.norms else "added"),), reason, lr=LEARNING_RATE)

    def adapt(self, stages: Sequence[nn.Module]) -> Callable[[], None]:
        from zoo_lora.adapters import attach

        return attach(stages, self.rank, self.alpha / self.rank)


@hookimpl
def zoo_freeze_strategies() -> dict[str, type]:
    return {"lora": Lora}
