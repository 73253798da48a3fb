"""The store of what frozen stages computed: one decode and one frozen forward per image, ever.

A shelf's folder is named by the digest of what its rows depend on: prefix weights, preprocessing, decoder,
view, precision, library and instruction set. Everything here happens before any stage is trained, so what
is stored belongs to the weights as they were published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo_core import device, reading, upkeep
from zoo_core.arithmetic import DTYPES as DTYPES
from zoo_core.arithmetic import Number as Number
from zoo_core.arithmetic import Numbers as Numbers
from zoo_core.arithmetic import each
from zoo_core.backbone import Backbone, Value
from zoo_core.console import Console
from zoo_core.errors import BadExample, ExampleLost
from zoo_core.files import mark_used, write_json
from zoo_core.portions import Portion
from zoo_core.readers import Raw
from zoo_core.reading import Read, map_examples
from zoo_core.shelves import LAYOUT, SHARD_BYTES, Kind, Row, Shelf, publish

Mode = Literal["boundary", "pixels", "none"]


@dataclass(frozen=True)
class Views:
    """Augmented views of the training images; the k-th view is a pure function of (seed, content, k).

    Attributes:
        policy: `none`, or the name of an augmentation.
        seed: of the views.
    """

    policy: str = "none"
    seed: int = 0


@dataclass(frozen=True)
class Activations:
    """What one cut of one backbone gives for a set of images.

    Attributes:
        depth: stages before the cut.
        mode: what is kept: `boundary`, `pixels` (the prefix runs again each time), `none`, or
            `pooled` behind the last stage.
        cut: the shelf that training reads, where one is kept.
        pooled: pooled features of every stage.
        feature_dim: width of the backbone's own features, the last columns of `pooled`.
        hits, misses: images found, images computed.
        computed: names of those that were computed.
        boundary: names to the value that enters the tail.
    """

    depth: int
    mode: Literal["boundary", "pixels", "none", "pooled"]
    cut: Shelf | None
    pooled: Shelf
    feature_dim: int
    hits: int
    misses: int
    boundary: Callable[[Sequence[str]], Value] = field(repr=False)
    computed: frozenset[str] = field(repr=False, default=frozenset())

    def features(self, names: Sequence[str]) -> Tensor:
        """The pretrained backbone's pooled features [B, D]."""
        return self.all_stages(names)[:, -self.feature_dim :].contiguous()

    def all_stages(self, names: Sequence[str]) -> Tensor:
        """Pooled features of every stage side by side [B, sum of widths]."""
        return self.pooled.gather(names)[0]

    def counted(self, names: Set[str]) -> Activations:
        """The same, with those that were computed just before counted as such."""
        earlier = names - self.computed
        hits, misses = self.hits - len(earlier), self.misses + len(earlier)
        return replace(self, hits=hits, misses=misses, computed=self.computed | earlier)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk of the shelves in use."""
        shelves = {shelf.folder: shelf for shelf in (self.cut, self.pooled) if shelf}
        return sum(shelf.size_bytes for shelf in shelves.values())


def at(
    backbone: Backbone,
    depth: int,
    paths: Mapping[str, str],
    folder: Path,
    console: Console | None = None,
    *,
    mode: Mode = "boundary",
    numbers: Numbers | None = None,
    views: Views | None = None,
) -> Activations:
    """Activations at a cut for images given as name -> path; computes only what is missing.

    Args:
        paths: the name is the content's digest, or with `views` digest and number: see `augment.name`.
        mode: what to keep of the value at the cut.
    """
    numbers, views = numbers or Numbers(), views or Views()
    full = depth == len(backbone.stages)
    pooled, cut = shelves_of(backbone, depth, folder, mode, numbers, views)
    device = device_of(backbone)
    reader = backbone.reader.varied(views.policy, views.seed) if views.policy != "none" else backbone.reader

    def pixels(name: str) -> Raw:
        try:
            return reader.read(paths[name], name)
        except BadExample as error:
            raise ExampleLost(f"{paths[name]}: {error}") from error

    missing = [n for n in paths if n not in pooled.rows or (cut is not None and n not in cut.rows)]
    if missing:
        filler = Filler(backbone, depth, cut, pooled, numbers, pixels, console or Console())
        carries = cut is not None and cut.kind == "boundary"
        filler.fill(missing, shallower(backbone, depth, folder, numbers, views) if carries else [])

    def value(names: Sequence[str]) -> Value:
        if full:
            return pooled.gather(names)[0][:, -backbone.feature_dim :].contiguous()
        if cut is not None and cut.kind == "boundary":
            return reader.trim(single(each(cut.gather(names), lambda t: t.float() if t.is_floating_point() else t)))
        raw = single(cut.gather(names)) if cut else reader.stack([pixels(n) for n in names])
        if not depth:
            return reader.to_input(reader.trim(raw), device)
        order: list[int] = []
        parts: list[tuple[Tensor, ...]] = []
        with torch.no_grad():
            for where, part in reader.groups(raw):
                found = numbers.pass_through(backbone, 0, depth, reader.to_input(part, device))
                parts.append(parts_of(reader.widen(numbers.rounded(found))))
                order += where
        if len(parts) == 1:
            return reader.trim(single(parts[0]))
        back = torch.tensor(order).argsort()
        return reader.trim(single(tuple(torch.cat(alike)[back.to(device)] for alike in zip(*parts, strict=True))))

    return Activations(
        depth=depth,
        mode="pooled" if full else "none" if cut is None else "boundary" if cut.kind == "boundary" else "pixels",
        cut=cut,
        pooled=pooled,
        feature_dim=backbone.feature_dim,
        hits=len(paths) - len(missing),
        misses=len(missing),
        computed=frozenset(missing),
        boundary=value,
    )


def shelves_of(
    backbone: Backbone, depth: int, folder: Path, mode: Mode, numbers: Numbers, views: Views
) -> tuple[Shelf, Shelf | None]:
    """Where pooled features of every stage go, and where the value at the cut goes, if it is kept."""
    pooled = shelf_of(backbone, "pooled", len(backbone.stages), folder, numbers, views)
    if depth == len(backbone.stages):
        return pooled, pooled
    kind: Kind = "boundary" if depth and mode == "boundary" else "pixels"
    return pooled, None if mode == "none" else shelf_of(backbone, kind, depth, folder, numbers, views)


def shelf_of(backbone: Backbone, kind: Kind, depth: int, folder: Path, numbers: Numbers, views: Views) -> Shelf:
    """The shelf of exactly this computation, its shards opened."""
    about = _about(backbone, kind, depth, numbers, views)
    shelf = Shelf(folder / "activations" / upkeep.key_of(about), kind)
    if upkeep.about(shelf.folder) is None:
        write_json(shelf.folder / upkeep.ABOUT, about)
    mark_used(shelf.folder / upkeep.ABOUT)
    shelf.refresh()
    return shelf


def shallower(backbone: Backbone, depth: int, folder: Path, numbers: Numbers, views: Views) -> list[tuple[int, Shelf]]:
    """(depth, shelf) of what this cut can be carried on from without losing a bit, deepest first."""
    found = []
    for place in (folder / "activations").glob("*"):
        about = upkeep.about(place) or {}
        same = about.get("architecture") == backbone.card.architecture and about.get("kind") == "boundary"
        if same and isinstance(about.get("depth"), int):
            found.append(about["depth"])
    depths = sorted({d for d in found if d < depth}, reverse=True) if numbers.precision == "fp32" else []
    shelves = [(d, shelf_of(backbone, "boundary", d, folder, Numbers(), views)) for d in depths]
    shelves.append((0, shelf_of(backbone, "pixels", 0, folder, Numbers(), views)))
    return [(d, shelf) for d, shelf in shelves if shelf.rows]


def device_of(backbone: Backbone) -> torch.device:
    """Where the backbone's weights lie."""
    return next(iter(backbone.tensors().values())).device


class Filler:
    """Computes missing rows and publishes them, a shard at a time."""

    def __init__(
        self,
        backbone: Backbone,
        depth: int,
        cut: Shelf | None,
        pooled: Shelf,
        numbers: Numbers,
        pixels: Read,
        console: Console,
    ):
        self.backbone, self.depth, self.cut, self.pooled = backbone, depth, cut, pooled
        self.numbers, self.pixels, self.console = numbers, pixels, console
        self.device = device_of(backbone)
        self.portion = Portion(reading.batch_size(self.device), console)

    def fill(self, missing: Sequence[str], known: Sequence[tuple[int, Shelf]]) -> None:
        """Carry on from the deepest cut that has the image, or start from its file."""
        with self.console.track("Frozen pass", len(missing)) as advance:
            rest = [n for n in missing if n not in self.pooled.rows]
            todo = [n for n in missing if n in self.pooled.rows]
            for depth, shelf in known:
                here = [n for n in todo if n in shelf.rows]
                todo = [n for n in todo if n not in shelf.rows]
                self.publish(self._carried(depth, shelf, here), advance)
            lost: dict[str, str] = {}
            rows = map_examples(self.whole, [*rest, *todo], self.pixels, self.backbone.reader, self.device, lost)
            self.publish(rows, advance)
        for opened in (self.cut, self.pooled):
            if opened is not None:
                opened.refresh()
        if lost:
            raise ExampleLost(
                f"{len(lost)} files could be read when the run began, and cannot be read now: "
                f"{next(iter(lost.values()))}. The others are kept: put them back, and type the same command again."
            )

    def has(self, name: str) -> bool:
        """Whether an image's rows are there."""
        return name in self.pooled.rows and (self.cut is None or name in self.cut.rows)

    def _carried(self, depth: int, shelf: Shelf, names: Sequence[str]) -> Iterator[tuple[list[Row], list[int]]]:
        work, chunks = self._carry(depth, shelf), reading.batches(names, self.device)
        if self.device.type == "cpu":
            yield from reading.on_all_cores(work, chunks)
            return
        for chunk in chunks:
            with torch.inference_mode():
                found = work(chunk)
            yield found

    def _carry(self, depth: int, shelf: Shelf) -> Callable[[Sequence[str]], tuple[list[Row], list[int]]]:
        """From a cut before this one: only the stages between are run."""

        def some(names: Sequence[str], size: int) -> list[Row]:
            rows: list[Row] = []
            for where, part in self.backbone.reader.groups(single(shelf.gather(names))):
                value = each(part, lambda t: t.to(self.device))
                if depth == 0:
                    value = self.backbone.reader.to_input(part, self.device)
                value = self._filled(value, size)
                found = self._kept(self.numbers.pass_through(self.backbone, depth, self.depth, value))
                rows += [Row(names[k], tuple(t[i] for t in found)) for i, k in enumerate(where)]
            return rows

        def work(names: Sequence[str]) -> tuple[list[Row], list[int]]:
            def all_of(size: int) -> list[Row]:
                return [row for i in range(0, len(names), size) for row in some(names[i : i + size], size)]

            return self.portion.run(all_of, reading.batch_size(self.device)), []

        return work

    def whole(self, names: Sequence[str], raw: Raw, x: Value) -> tuple[list[Row], list[int]]:
        """From the pixels, through every stage: the value at the cut and the pooled features."""

        def all_of(size: int) -> tuple[list[Row], list[int]]:
            rows: list[Row] = []
            for i in range(0, len(names), size):
                some, widths = self._some(names[i : i + size], _rows(raw, i, size), _rows(x, i, size), size)
                rows += some
            return rows, widths

        return self.portion.run(all_of, reading.batch_size(self.device))

    def _some(self, names: Sequence[str], raw: Raw, x: Value, size: int) -> tuple[list[Row], list[int]]:
        value = self._filled(x, size)
        kind = self.cut.kind if self.cut is not None else "pooled"
        found: tuple[Tensor, ...] = parts_of(self.backbone.reader.widen(raw)) if kind == "pixels" else ()
        stages = []
        with self.numbers.autocast(self.device):
            for i, stage in enumerate(self.backbone.stages, start=1):
                value = stage.module(value)
                stages.append(self.backbone.pooling(value).float())
                if i == self.depth and kind == "boundary":
                    found = self._kept(value)
        features = torch.cat(stages, dim=1).cpu()
        rows = [Row(n, tuple(t[i] for t in found), features[i]) for i, n in enumerate(names)]
        return rows, [stage.shape[1] for stage in stages]

    def _filled(self, value: Value, size: int) -> Value:
        """A batch made whole with copies of its last row, where all inputs have one size.

        Libraries choose their kernels by the size of a batch: a row's last bits must not depend on how many were
        missing beside it, or a run that was killed here would end with other ones.
        """
        first = parts_of(value)[0]
        lacking = size - len(first)
        if lacking <= 0 or not getattr(self.backbone.reader, "one_size", False):
            return value
        return each(value, lambda t: _like(torch.cat([t, t[-1:].expand(lacking, *t.shape[1:])]), t))

    def _kept(self, value: Value) -> tuple[Tensor, ...]:
        """The value at the cut as it is stored, on the CPU."""
        dtype, parts = DTYPES[self.numbers.stored], parts_of(self.backbone.reader.widen(value))
        return tuple((t.to(dtype) if t.is_floating_point() else t).cpu() for t in parts)

    def publish(self, batches: Iterable[tuple[list[Row], list[int]]], advance: Callable[[int], None]) -> None:
        """Put rows on their shelves as they come, a shard at a time."""
        kept: list[Row] = []
        widths: list[int] = []
        for found, widths in batches:
            kept += found
            if kept and len(kept) * kept[0].size_bytes > SHARD_BYTES:
                self._put(kept, widths)
                kept = []
            advance(len(found))
        if kept:
            self._put(kept, widths)

    def _put(self, rows: Sequence[Row], widths: Sequence[int]) -> None:
        publish(rows, self.cut if self.cut is not None else self.pooled, self.pooled, widths)


def _about(backbone: Backbone, kind: Kind, depth: int, numbers: Numbers, views: Views) -> dict[str, Any]:
    """What the rows depend on, and nothing else."""
    reader = backbone.reader
    depends = getattr(reader, "about_raw", reader.about) if kind == "pixels" else reader.about
    about: dict[str, Any] = {"layout": LAYOUT, "kind": kind} | depends()
    about["depth"] = 0 if kind == "pixels" else depth
    if views.policy != "none":
        about["views"] = asdict(views)
    if kind != "pixels":
        about["weights"] = backbone.digest(depth)
        about["architecture"] = backbone.card.architecture
        about["computed"] = {
            "device": device_of(backbone).type,
            "precision": numbers.precision,
            "memory": "channels-last",
            "torch": torch.__version__,
        } | device.kernels(device_of(backbone))
    if kind == "boundary":
        about["stored"] = numbers.stored
    return about


def parts_of(value: Value) -> tuple[Tensor, ...]:
    """A value's tensors."""
    return value if isinstance(value, tuple) else (value,)


def single(value: Value) -> Value:
    """A tuple of one tensor as that tensor; any other value as it is."""
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def _like(value: Tensor, other: Tensor) -> Tensor:
    """A tensor laid out in memory as another one of its kind."""
    last = other.ndim == 4 and other.is_contiguous(memory_format=torch.channels_last)
    return value.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _rows(value: Value, first: int, count: int) -> Value:
    return each(value, lambda t: t[first : first + count])
