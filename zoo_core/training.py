"""Options of the tail's training beyond rate and length: all off unless asked for."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_type_hints

from zoo_core.components import convert
from zoo_core.errors import BadOption, near
from zoo_core.types import FreezePlan


@dataclass(frozen=True)
class Training:
    """What `--training clip=1,patience=5` asks for.

    Attributes:
        clip: the gradient of all that trains is scaled down to this norm where it is longer.
        micro_batch: examples that pass the tail at once; gradients are summed up to the whole batch, so that
            memory falls and the step stays the same.
        ema: decay of an exponential average of the weights, such as 0.99; validation looks at the average, and the
            run keeps it.
        patience: epochs without a lower validation loss after which a phase ends.
        mixup: alpha of the Beta distribution by which pairs of examples are mixed (Zhang et al. 2018).
        cutmix: alpha likewise, for a rectangle of one example laid into another (Yun et al. 2019).
        noise: standard deviation of Gaussian noise, as a share of the value's own.
        find_lr: take the peak rate from a range test (Smith 2017) in the place of the default one.

    The last but one three happen behind the cut, to what the store gave, so they cost no frozen pass; behind frozen
    stages they are the "manifold" kind (Verma et al. 2019).
    """

    clip: float = 0.0
    micro_batch: int = 0
    ema: float = 0.0
    patience: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    noise: float = 0.0
    find_lr: bool = False

    def __post_init__(self) -> None:
        for name in ("clip", "micro_batch", "patience", "mixup", "cutmix", "noise"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise BadOption(f"training: {name}={value:g}, expected 0 (off) or more.")
        if not 0 <= self.ema < 1:
            raise BadOption(f"training: ema={self.ema:g}, expected 0 (off) up to, not including, 1, such as 0.99.")

    @property
    def mixes(self) -> bool:
        """Whether anything is done to the values behind the cut."""
        return bool(self.mixup or self.cutmix or self.noise)

    def stalled(self, history: list[dict[str, Any]]) -> bool:
        """Whether the validation loss of a phase's epochs fell for the last time `patience` epochs ago."""
        losses = [line["val_loss"] for line in history if "val_loss" in line]
        return bool(self.patience and losses) and len(losses) - 1 - losses.index(min(losses)) >= self.patience


def read(text: str) -> Training:
    """Options from `field=value,field=value`; a field alone stands for `true`.

    Raises:
        BadOption: an unknown field, or a value of the wrong type or outside its range.
    """
    hints, values = get_type_hints(Training), {}
    for option in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = option.partition("=")
        if key not in hints:
            fields = ", ".join(f.name for f in dataclasses.fields(Training))
            raise BadOption(f"--training {option}: no such field. {near(key, hints)} Fields are {fields}.")
        values[key] = convert(value if equals else "true", hints[key], f"--training {key}")
    return Training(**values)


def epochs_of(plan: FreezePlan, epochs: int) -> list[int]:
    """Epochs of each phase, by its share, at least one each unless there are none; the last one has what is left."""
    found: list[int] = []
    for number, phase in enumerate(plan.phases[:-1], start=1):
        room = epochs - sum(found) - (len(plan.phases) - number)
        found.append(max(1, min(round(epochs * phase.share), room)))
    return [*found, max(min(1, epochs), epochs - sum(found))]


def warm_cosine(progress: float, warmup: float = 0.1) -> float:
    """Learning-rate factor at a share of the phase in [0, 1]: linear up, then half a cosine down."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
