"""How a backbone reads its examples: from a file to what enters the first stage.

A backbone carries its reader. The core's is `Pixels`, for images; a plugin brings its own for text or sound.
What a reader gives for one file depends on the file's content, the row's name and `about` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor

from zoo_core import augment, images
from zoo_core.card import Input
from zoo_core.errors import BadOption
from zoo_core.shelves import stack

Raw: TypeAlias = Tensor | tuple[Tensor, ...]
"""What is kept of an example before the first stage: small integers, where that is possible."""


class Reader(Protocol):
    """From files to a backbone's input."""

    def about(self) -> dict[str, Any]:
        """Plain data that names everything rows depend on beside the content: part of every cache key."""
        ...

    def read(self, path: str, row: str) -> Raw:
        """One example without a batch axis; `row` names its augmented view. Raises `BadExample`."""
        ...

    def stack(self, rows: Sequence[Any]) -> Raw:
        """Examples to a batch, batch first."""
        ...

    def to_input(self, raw: Any, device: torch.device) -> Raw:
        """A batch to what enters the first stage, on the device."""
        ...

    def groups(self, value: Any) -> list[tuple[list[int], Any]]:
        """Parts of a batch that are computed together, each with its positions in the batch.

        Texts of one length make a part, so that what is computed for a text depends on no other one. `value` is a
        raw batch, or what a stage gave for one.
        """
        ...

    def widen(self, value: Any) -> Raw:
        """A batch in the one shape that all rows of a shelf have."""
        ...

    def trim(self, value: Any) -> Raw:
        """A widened batch without what is empty in every row."""
        ...

    def blank(self, count: int) -> Raw:
        """An input of the usual form and size that says nothing, on the CPU."""
        ...

    def varied(self, policy: str, seed: int) -> Reader:
        """The same reader, giving augmented views. Raises `BadOption` where there are none of that kind."""
        ...

    def fitted(self, paths: Sequence[str]) -> tuple[Reader, list[str]]:
        """The same reader, made ready for these files, and sentences for the user."""
        ...

    def state(self) -> dict[str, Any]:
        """What `fitted` found, as plain data: kept with a run."""
        ...

    def restored(self, state: Mapping[str, Any]) -> Reader:
        """The same reader with what `state` gave."""
        ...


@dataclass(frozen=True)
class Pixels:
    """Images: decoded, resized and cropped to uint8 [C, H, W], then normalised.

    Attributes:
        one_size: every input has the same shape, so that a batch may be filled up with copies.
        spec: the card's preprocessing.
        policy, seed: of augmented views.
    """

    one_size: ClassVar[bool] = True
    spec: Input
    policy: str = "none"
    seed: int = 0

    def about(self) -> dict[str, Any]:
        return {"decoder": images.DECODER, "input": asdict(self.spec)}

    def about_raw(self) -> dict[str, Any]:
        """What decoded pixels depend on: mean and std come later, unless a border is painted in the mean colour."""
        spec = asdict(self.spec)
        if self.spec.crop_mode != "border":
            del spec["mean"], spec["std"]
        return {"decoder": images.DECODER, "input": spec}

    def read(self, path: str, row: str = "") -> Tensor:
        return augment.read(path, row, self.spec, self.policy, self.seed)

    def stack(self, rows: Sequence[Tensor]) -> Tensor:
        return stack(rows)

    def to_input(self, raw: Tensor, device: torch.device) -> Tensor:
        """The normalised input in the memory format that every path uses."""
        return images.normalise(raw.to(device), self.spec).contiguous(memory_format=torch.channels_last)

    def groups(self, value: Any) -> list[tuple[list[int], Any]]:
        first = value[0] if isinstance(value, tuple) else value
        return [(list(range(len(first))), value)]

    def widen(self, value: Raw) -> Raw:
        return value

    def trim(self, value: Raw) -> Raw:
        return value

    def blank(self, count: int) -> Tensor:
        return torch.zeros(count, *self.spec.size)

    def varied(self, policy: str, seed: int) -> Pixels:
        if policy not in augment.POLICIES:
            raise BadOption(f"augment: got {policy!r}, expected one of {', '.join(augment.POLICIES)}.")
        return Pixels(self.spec, policy, seed)

    def fitted(self, paths: Sequence[str]) -> tuple[Pixels, list[str]]:
        return self, []

    def state(self) -> dict[str, Any]:
        return {}

    def restored(self, state: Mapping[str, Any]) -> Pixels:
        return self
