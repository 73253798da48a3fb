"""Freeze strategies of the core: which stages to retrain, when, how fast. Each has the shape a stranger would write.

What each is for, when people use it, and where it comes from: docs/freezing.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from zoo_core.errors import BadOption, BadStage, near
from zoo_core.types import BatchNorm, FreezePlan, Only, Phase, StageInfo, Task

HEAD_RATE = 10.0
"""What a phase of the head alone takes of the rate for stages: 3e-3 beside 3e-4, the defaults of both by themselves."""


@dataclass(frozen=True)
class HeadOnly:
    """Train the head alone; the backbone is frozen (linear probe)."""

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        reason = f"All {len(stages)} stages stay frozen, so each image passes the backbone once, ever."
        return FreezePlan((Phase(depth=len(stages)),), reason)


@dataclass(frozen=True)
class Last:
    """Train the last `stages` stages and the head (partial fine-tuning); counted from the output.

    `layer_decay` below 1 gives each stage a smaller learning rate than the one after it (LLRD).
    `batch_norm=train` lets running statistics move in trained stages.
    """

    stages: int = 1
    layer_decay: float = 1.0
    batch_norm: BatchNorm = "frozen"

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        depth = _depth_before("last", self.stages, stages, least=0)
        reason = f"The last {self.stages} of {len(stages)} stages train ({_names(stages[depth:])})."
        phase = Phase(depth, lr_scale=_decayed("last", len(stages) - depth, self.layer_decay))
        return FreezePlan((phase,), reason, batch_norm=self.batch_norm)


@dataclass(frozen=True)
class UpTo:
    """Freeze up to and including the stage called `stage`; train what comes after it, and the head.

    `layer_decay` and `batch_norm` as for `last`.
    """

    stage: str = ""
    layer_decay: float = 1.0
    batch_norm: BatchNorm = "frozen"

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        depth = _index("upto:stage", self.stage, stages) + 1
        reason = f"Frozen up to and including {self.stage}; {_names(stages[depth:])} of {len(stages)} stages train."
        phase = Phase(depth, lr_scale=_decayed("upto", len(stages) - depth, self.layer_decay))
        return FreezePlan((phase,), reason, batch_norm=self.batch_norm)


@dataclass(frozen=True)
class Full:
    """Train every stage, gently, from the pretrained weights (full fine-tuning).

    `layer_decay` and `batch_norm` as for `last`.
    """

    layer_decay: float = 1.0
    batch_norm: BatchNorm = "frozen"

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        phase = Phase(0, lr_scale=_decayed("full", len(stages), self.layer_decay))
        reason = f"All {len(stages)} stages train from the pretrained weights."
        return FreezePlan((phase,), reason, batch_norm=self.batch_norm)


@dataclass(frozen=True)
class Scratch:
    """Throw the pretrained weights away and train everything (the yardstick for what pretraining gives)."""

    pretrained: ClassVar[bool] = False

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        reason = f"All {len(stages)} stages train from random weights, as asked."
        return FreezePlan((Phase(0),), reason, batch_norm="train")


@dataclass(frozen=True)
class Gradual:
    """Unfreeze from the top: the head first, then more stages in each of `steps` phases (gradual unfreezing).

    `stages` counts from the output how far it goes; none for all. The last phase has half of the epochs.
    `layer_decay` and `batch_norm` as for `last`.
    """

    stages: int | None = None
    steps: int = 4
    layer_decay: float = 1.0
    batch_norm: BatchNorm = "frozen"

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        if self.steps < 2:
            raise BadOption(f"gradual:steps={self.steps}: expected 2 or more; with 1 it would be full.")
        end = _depth_before("gradual", self.stages, stages)
        opened = len(stages) - end
        steps = min(self.steps, opened + 1)
        depths = [len(stages) - round(opened * k / (steps - 1)) for k in range(steps)]
        phases = tuple(
            Phase(
                depth,
                share=0.5 if depth == end else 0.5 / (steps - 1),
                lr_scale=_decayed("gradual", len(stages) - depth, self.layer_decay),
                rate=HEAD_RATE if depth == len(stages) else 1.0,
            )
            for depth in depths
        )
        opening = ", ".join(str(len(stages) - depth) for depth in depths)
        reason = f"Unfrozen from the top in {steps} phases: {opening} of {len(stages)} stages train."
        return FreezePlan(phases, reason, batch_norm=self.batch_norm)


@dataclass(frozen=True)
class LpFt:
    """Train the head alone first, then the stages with it (linear probe, then fine-tune; Kumar et al. 2022).

    `stages` counts from the output which ones are fine-tuned; none for all. `head_share` of the epochs go to the
    head, which costs next to nothing. `layer_decay` and `batch_norm` as for `last`.
    """

    stages: int | None = None
    head_share: float = 0.7
    layer_decay: float = 1.0
    batch_norm: BatchNorm = "frozen"

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        if not 0 < self.head_share < 1:
            raise BadOption(f"lp-ft:head_share={self.head_share}: expected more than 0 and less than 1.")
        depth = _depth_before("lp-ft", self.stages, stages)
        scales = _decayed("lp-ft", len(stages) - depth, self.layer_decay)
        probe = Phase(len(stages), share=self.head_share, rate=HEAD_RATE)
        tune = Phase(depth, share=1 - self.head_share, lr_scale=scales)
        reason = (
            f"First the head alone, so that the {len(stages) - depth} stages that train then start from a good one."
        )
        return FreezePlan((probe, tune), reason, batch_norm=self.batch_norm)


@dataclass(frozen=True)
class NormOnly:
    """Train the weights and biases of the normalisation layers, and the head.

    `stages` counts from the output in which ones; none for all. `layer_decay` and `batch_norm` as for `last`.
    """

    stages: int | None = None
    layer_decay: float = 1.0
    batch_norm: BatchNorm = "frozen"

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        return _some("norm-only", "norm", self.stages, self.layer_decay, self.batch_norm, stages)


@dataclass(frozen=True)
class BiasOnly:
    """Train the biases of all layers, and the head (BitFit, Ben Zaken et al. 2022).

    `stages` counts from the output in which ones; none for all. `layer_decay` and `batch_norm` as for `last`.
    """

    stages: int | None = None
    layer_decay: float = 1.0
    batch_norm: BatchNorm = "frozen"

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        return _some("bias-only", "bias", self.stages, self.layer_decay, self.batch_norm, stages)


@dataclass(frozen=True)
class Surgical:
    """Train the stages that are named, joined by `+`, and the head; all others stand still (Lee et al. 2023).

    `layer_decay` and `batch_norm` as for `last`.
    """

    stages: tuple[str, ...] = ()
    layer_decay: float = 1.0
    batch_norm: BatchNorm = "frozen"

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        named = {_index("surgical:stages", name, stages) for name in self.stages or ("",)}
        depth = min(named)
        scales = _decayed("surgical", len(stages) - depth, self.layer_decay)
        chosen = tuple(scale if i in named else 0.0 for i, scale in enumerate(scales, start=depth))
        reason = f"Only {_names([stages[i] for i in sorted(named)])} of {len(stages)} stages train, as asked."
        return FreezePlan((Phase(depth, lr_scale=chosen),), reason, batch_norm=self.batch_norm)


def _some(
    who: str, only: Only, count: int | None, layer_decay: float, batch_norm: BatchNorm, stages: Sequence[StageInfo]
) -> FreezePlan:
    """Some parameters of the last `count` stages; stages that have none stand still."""
    first = _depth_before(who, count, stages)
    able = [i for i in range(first, len(stages)) if stages[i].trainable(only)]
    what = {"norm": "normalisation layers", "bias": "biases"}.get(only, only)
    if not able:
        raise BadOption(
            f"{who}: no {what} in the last {len(stages) - first} stages. Try --freeze last:1, or more stages."
        )
    depth = able[0]
    scales = _decayed(who, len(stages) - depth, layer_decay)
    chosen = tuple(scale if i in able else 0.0 for i, scale in enumerate(scales, start=depth))
    total = sum(stages[i].trainable(only) for i in able)
    reason = f"Only the {what} of {len(able)} of {len(stages)} stages train, {total:,} numbers."
    return FreezePlan((Phase(depth, lr_scale=chosen, only=only),), reason, batch_norm=batch_norm)


def _depth_before(who: str, count: int | None, stages: Sequence[StageInfo], least: int = 1) -> int:
    """How many stages come before the last `count`; none for all."""
    if count is not None and not least <= count <= len(stages):
        given = f"{who}:stages={count}: this backbone has {len(stages)} stages"
        raise BadOption(f"{given}; expected {least} to {len(stages)}.")
    return 0 if count is None else len(stages) - count


def _decayed(who: str, count: int, layer_decay: float) -> tuple[float, ...]:
    """Learning-rate factors of the last `count` stages, input side first: each `layer_decay` times the one after it."""
    if not 0 < layer_decay <= 1:
        raise BadOption(f"{who}:layer_decay={layer_decay}: expected more than 0 and at most 1.")
    return tuple(layer_decay ** (count - i) for i in range(count))


def _index(option: str, name: str, stages: Sequence[StageInfo]) -> int:
    """Where the stage of that name stands, counted from 0 at the input."""
    names = [stage.name for stage in stages]
    if name not in names:
        given = f"no stage {name!r} in this backbone" if name else "no stage named"
        hint = near(name, names)
        listed = names if len(names) <= 32 else [*names[:3], "...", *names[-3:]]
        raise BadStage(f"{option}: {given}; expected one of {', '.join(listed)}. {hint}".strip())
    return names.index(name)


def _names(stages: Sequence[StageInfo]) -> str:
    return ", ".join(stage.name for stage in stages) or "none"
