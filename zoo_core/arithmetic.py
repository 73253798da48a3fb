"""The arithmetic of the frozen pass, and of what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from zoo_core.backbone import Backbone, Value

if TYPE_CHECKING:
    from zoo_core.recipe import Recipe

Number = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Numbers:
    """The arithmetic of the frozen pass; part of every run, so that predictions repeat it.

    Attributes:
        precision: `fp32`, or `bf16` (autocast of the frozen stages only).
        stored: type in which the value at the cut is kept; what is read back is float32 again.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    stored: Number = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16") or self.stored not in DTYPES:  # read back from a run's plan
            raise ValueError(f"no such numbers: {self.precision!r}, kept as {self.stored!r}")

    @classmethod
    def of(cls, recipe: Recipe) -> Numbers:
        """What a recipe asks for; `auto` rounds where what is kept is rounded alike."""
        precision = recipe.precision
        if precision == "auto":
            precision = "bf16" if recipe.cache_dtype == "bf16" else "fp32"
        return cls(precision, recipe.cache_dtype)

    def pass_through(self, backbone: Backbone, first: int, last: int, value: Value) -> Value:
        """Run stages `first` to `last` (excluded) with this precision; float32 comes out."""
        with self.autocast(next(iter(backbone.tensors().values())).device):
            for stage in backbone.stages[first:last]:
                value = stage.module(value)
        return each(value, lambda t: t.float() if t.is_floating_point() else t)

    def rounded(self, value: Value) -> Value:
        """What the store would give back for a value at the cut."""
        return each(value, lambda t: t.to(DTYPES[self.stored]).float() if t.is_floating_point() else t)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of the frozen pass."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")


def each(value: Value, change: Callable[[Tensor], Tensor]) -> Value:
    """A value with each of its tensors changed."""
    return tuple(change(t) for t in value) if isinstance(value, tuple) else change(value)
