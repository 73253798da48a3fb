"""Where computed rows lie: shelves of immutable shards on disk, each named by its own sha256.

A shelf holds one kind of value for one exact computation. Rows are named by the digest of the image's
content (and the number of its augmented view), so file names, folders and runs do not matter. A shard is
checked when it is opened; a damaged one is put aside and its rows are computed again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zoo_core.files import put_aside, sha256_file
from zoo_core.tensors import write_object

LAYOUT = 3
SHARD_BYTES = 64 << 20
Kind = Literal["pixels", "boundary", "pooled"]


@dataclass
class Shelf:
    """All rows of one kind of value; readable while it grows.

    Attributes:
        folder: where its shards lie.
        kind: `pixels` (uint8 at the input size), `boundary` (the value at the cut) or `pooled`
            (pooled features of every stage, side by side; the last ones are the backbone's).
        rows: name to (shard number, row).
        shards: opened shards, each a flat tuple of tensors, mapped from disk.
        widths: of `pooled`: columns of each stage, input side first.
        channels_last: of each tensor: whether it lay so in memory when it was computed. Layout decides in
            which order a mean adds up, hence its last bits.
    """

    folder: Path
    kind: Kind
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    shards: list[tuple[Tensor, ...]] = field(default_factory=list)
    widths: tuple[int, ...] = ()
    channels_last: tuple[bool, ...] = ()
    _opened: set[str] = field(default_factory=set)

    def refresh(self) -> None:
        """Open the shards that appeared since the last look; put damaged ones aside."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._opened:
                continue
            with suppress(FileNotFoundError):  # pruned, or put aside by another process
                self._open(path)

    def _open(self, path: Path) -> None:
        found = _contents(path) if sha256_file(path) == path.stem else None
        if found is None:  # damaged, or nothing that a shelf wrote
            put_aside(path)
            return
        names, self.widths, self.channels_last, parts = found
        self.shards.append(parts)
        for row, name in enumerate(names):
            self.rows.setdefault(name, (len(self.shards) - 1, row))
        self._opened.add(path.name)

    def add(self, names: Sequence[str], values: Sequence[Tensor], widths: Sequence[int] = ()) -> None:
        """Publish one shard."""
        tensors = {f"t{i}": value.contiguous() for i, value in enumerate(values)}
        about = {"names": list(names), "widths": list(widths), "channels_last": [_channels_last(v) for v in values]}
        metadata = {key: json.dumps(value) for key, value in about.items()}
        write_object(self.folder, tensors, metadata)

    def gather(self, names: Sequence[str]) -> tuple[Tensor, ...]:
        """Rows in the order asked, as a flat tuple of tensors, batch first."""
        places = torch.tensor([self.rows[n] for n in names])
        used = sorted(set(places[:, 0].tolist()))
        widest = max((self.shards[n] for n in used), key=lambda parts: parts[0][0].numel())  # gray rows spread into it
        formats = [torch.channels_last if last else torch.contiguous_format for last in self.channels_last]
        shapes = [(len(names), *t.shape[1:]) for t in widest]
        out = tuple(
            torch.empty(shape, dtype=t.dtype, memory_format=form)
            for shape, t, form in zip(shapes, widest, formats, strict=True)
        )
        for number in used:
            here = (places[:, 0] == number).nonzero()[:, 0]
            for target, shard in zip(out, self.shards[number], strict=True):
                target[here] = shard[places[here, 1]]
        return out

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(p.stat().st_size for p in self.folder.glob("*.safetensors"))


@dataclass(frozen=True)
class Row:
    """What one image gave, on the CPU: its value at the cut, and its pooled features where they are new."""

    name: str
    cut: tuple[Tensor, ...]
    pooled: Tensor | None = None

    @property
    def size_bytes(self) -> int:
        parts = self.cut if self.pooled is None else (*self.cut, self.pooled)
        return sum(t.numel() * t.element_size() for t in parts)


def _contents(path: Path) -> tuple[list[str], tuple[int, ...], tuple[bool, ...], tuple[Tensor, ...]] | None:
    """Names, widths, layouts and tensors of a shard; None for one that no shelf wrote."""
    try:
        with safe_open(path, framework="pt") as shard:
            about = shard.metadata()
            names, widths, last = (json.loads(about[key]) for key in ("names", "widths", "channels_last"))
            parts = tuple(shard.get_tensor(f"t{i}") for i in range(len(shard.keys())))
        good = [isinstance(value, list) for value in (names, widths, last)]
        good += [isinstance(name, str) for name in names] + [isinstance(width, int) for width in widths]
        good += [part.ndim > 0 and len(part) == len(names) for part in parts]
        if not all(good) or not parts or len(last) != len(parts):
            return None
        return names, tuple(widths), tuple(map(bool, last)), parts
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError):  # RecursionError, too
        return None


def publish(rows: Sequence[Row], cut: Shelf, pooled: Shelf, widths: Sequence[int]) -> None:
    """Put rows on their shelves, a shard each."""
    names = [row.name for row in rows]
    new = (row for row in rows if row.name not in pooled.rows)  # they may be there beside another cut
    features = {row.name: row.pooled for row in new if row.pooled is not None}
    if features:
        pooled.add(list(features), [torch.stack(list(features.values()))], widths)
    if cut.kind == "pixels":  # gray and colour images of different batches meet in one shard
        cut.add(names, [stack(parts) for parts in zip(*(row.cut for row in rows), strict=True)])
    elif cut.kind == "boundary":
        cut.add(names, [_stack_alike(parts) for parts in zip(*(row.cut for row in rows), strict=True)])


def stack(rows: Sequence[Tensor]) -> Tensor:
    """Rows of one shape to a batch; of pixels [C, H, W] the gray ones spread to the widest."""
    width = max(row.shape[0] for row in rows)
    return torch.stack([row.expand(width, *row.shape[1:]) for row in rows])


def _stack_alike(rows: Sequence[Tensor]) -> Tensor:
    """Rows to one tensor that lies in memory as the rows do (`torch.stack` alone forgets channels-last)."""
    stacked, row = torch.stack(list(rows)), rows[0]
    alike = row.ndim == 3 and not row.is_contiguous() and row.movedim(0, -1).is_contiguous()
    return stacked.contiguous(memory_format=torch.channels_last) if alike else stacked


def _channels_last(value: Tensor) -> bool:
    return value.ndim == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)
