"""The store of what frozen stages computed: one decode and one frozen forward per image, ever.

A shelf holds one kind of value for one exact computation (prefix weights, preprocessing, decoder,
library and instruction set); its folder is named by the digest of that description. Rows are named
by the digest of the image's content, so file names, folders and runs do not matter. Shards are
immutable safetensors files named by their own sha256, checked when opened; a damaged one is put
aside and its rows are computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from zoo_core import images
from zoo_core.backbone import Backbone, Value, pool
from zoo_core.card import Input
from zoo_core.console import Console
from zoo_core.errors import BadImage
from zoo_core.files import publish_object, sha256_file, write_json

LAYOUT = 2
SHARD_BYTES = 64 << 20
Kind = Literal["pixels", "boundary", "pooled"]
T = TypeVar("T")


@dataclass
class Shelf:
    """All rows of one kind of value; readable while it grows.

    Attributes:
        folder: where its shards lie.
        kind: `pixels` (uint8 at the input size), `boundary` (the value at the cut) or `pooled`
            (pooled features of every stage, side by side; the last ones are the backbone's).
        rows: content digest to (shard number, row).
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
            if sha256_file(path) != path.stem:
                path.replace(path.with_suffix(".damaged"))
                continue
            with safe_open(path, framework="pt") as shard:
                digests = json.loads(shard.metadata()["digests"])
                self.widths = tuple(json.loads(shard.metadata()["widths"]))
                self.channels_last = tuple(json.loads(shard.metadata()["channels_last"]))
                self.shards.append(tuple(shard.get_tensor(f"t{i}") for i in range(len(shard.keys()))))
            for row, digest in enumerate(digests):
                self.rows.setdefault(digest, (len(self.shards) - 1, row))
            self._opened.add(path.name)

    def add(self, digests: Sequence[str], values: Sequence[Tensor], widths: Sequence[int] = ()) -> None:
        """Publish one shard."""
        tensors = {f"t{i}": value.contiguous() for i, value in enumerate(values)}
        about = {"digests": list(digests), "widths": list(widths), "channels_last": [_channels_last(v) for v in values]}
        metadata = {key: json.dumps(value) for key, value in about.items()}
        publish_object(self.folder, "", ".safetensors", lambda temp: save_file(tensors, temp, metadata))

    def gather(self, digests: Sequence[str]) -> tuple[Tensor, ...]:
        """Rows in the order asked, as a flat tuple of tensors, batch first."""
        places = torch.tensor([self.rows[d] for d in digests])
        used = sorted(set(places[:, 0].tolist()))
        widest = max((self.shards[n] for n in used), key=lambda parts: parts[0][0].numel())  # gray rows spread into it
        formats = [torch.channels_last if last else torch.contiguous_format for last in self.channels_last]
        shapes = [(len(digests), *t.shape[1:]) for t in widest]
        out = tuple(
            torch.empty(shape, dtype=t.dtype, memory_format=form)
            for shape, t, form in zip(shapes, widest, formats, strict=True)
        )
        for number in used:
            here = (places[:, 0] == number).nonzero()[:, 0]
            for target, shard in zip(out, self.shards[number], strict=True):
                target[here] = shard[places[here, 1]]
        return out


@dataclass(frozen=True)
class Activations:
    """What one cut of one backbone gives for a set of images.

    Attributes:
        depth: stages before the cut.
        cut: the shelf that training reads: pixels at depth 0, pooled at full depth.
        pooled: pooled features of every stage.
        spec: preprocessing, to make pixels the float input.
        feature_dim: width of the backbone's own features, the last columns of `pooled`.
        full: whether the cut is behind the last stage.
        hits, misses: images found, images computed.
    """

    depth: int
    cut: Shelf
    pooled: Shelf
    spec: Input
    feature_dim: int
    full: bool
    hits: int
    misses: int

    def boundary(self, digests: Sequence[str]) -> Value:
        """The value that enters the tail, for these images."""
        if self.full:
            return self.features(digests)
        value = self.cut.gather(digests)
        if self.depth == 0:
            return to_input(value[0], self.spec, value[0].device)
        return value[0] if len(value) == 1 else value

    def features(self, digests: Sequence[str]) -> Tensor:
        """The pretrained backbone's pooled features [B, D]."""
        return self.all_stages(digests)[:, -self.feature_dim :].contiguous()

    def all_stages(self, digests: Sequence[str]) -> Tensor:
        """Pooled features of every stage side by side [B, sum of widths]."""
        return self.pooled.gather(digests)[0]

    @property
    def size_bytes(self) -> int:
        """Bytes on disk of the shelves in use."""
        folders = {self.cut.folder, self.pooled.folder}
        return sum(p.stat().st_size for folder in folders for p in folder.glob("*.safetensors"))


def at(
    backbone: Backbone,
    depth: int,
    paths: Mapping[str, str],
    folder: Path,
    console: Console | None = None,
) -> Activations:
    """Activations at a cut for images given as content digest -> path; computes only what is missing.

    Call it before any stage is trained: what is stored belongs to the weights as they are now.
    """
    console = console or Console()
    pooled = _shelf(backbone, "pooled", len(backbone.stages), folder)
    full = depth == len(backbone.stages)
    cut = pooled if full else _shelf(backbone, "boundary" if depth else "pixels", depth, folder)
    missing = [d for d in paths if d not in pooled.rows or d not in cut.rows]
    if missing:
        _fill(backbone, depth, [(d, paths[d]) for d in missing], cut, pooled, console)
    return Activations(
        depth, cut, pooled, backbone.card.input, backbone.feature_dim, full, len(paths) - len(missing), len(missing)
    )


def map_images(
    function: Callable[[Sequence[str], Tensor, Tensor], T],
    paths: Sequence[str],
    spec: Input,
    device: torch.device,
    failed: dict[str, str] | None = None,
) -> Iterator[T]:
    """Decode images and apply `function` batch by batch, in order, in inference mode.

    Each core decodes and computes a batch of its own on one thread: no core waits for another at the
    end of every layer, which costs a busy machine most of its time. Memory is bounded by a few batches.

    Args:
        function: gets paths, uint8 pixels [B, C, H, W] and the normalised input on the device.
        failed: gets path -> reason of images that cannot be read, which are then left out;
            without it the first one raises `BadImage`.
    """

    def work(chunk: Sequence[str]) -> tuple[T | None, dict[str, str]]:
        rows: dict[str, Tensor] = {}
        errors: dict[str, str] = {}
        for path in chunk:
            try:
                rows[path] = images.pixels(images.decode(path), spec)
            except BadImage as error:
                errors[path] = str(error)
        if not rows:
            return None, errors
        raw = _stack(list(rows.values()))
        with torch.inference_mode():
            return function(list(rows), raw, to_input(raw, spec, device)), errors

    size = 16 if device.type == "cpu" else 64
    chunks = iter([paths[i : i + size] for i in range(0, len(paths), size)])
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        ahead = deque(workers.submit(work, chunk) for chunk in islice(chunks, 2 * cores))
        while ahead:
            result, errors = ahead.popleft().result()
            if errors and failed is None:
                path, reason = next(iter(errors.items()))
                workers.shutdown(wait=False, cancel_futures=True)
                raise BadImage(f"{path}: {reason}. Remove it and start again.")
            if failed is not None:
                failed.update(errors)
            ahead.extend(workers.submit(work, chunk) for chunk in islice(chunks, 1))
            if result is not None:
                yield result


def to_input(raw: Tensor, spec: Input, device: torch.device) -> Tensor:
    """uint8 pixels to the normalised input in the memory format that every path uses."""
    return images.normalise(raw.to(device), spec).contiguous(memory_format=torch.channels_last)


def device_of(backbone: Backbone) -> torch.device:
    """Where the backbone's weights lie."""
    return next(iter(backbone.tensors().values())).device


def _stack(rows: list[Tensor]) -> Tensor:
    width = max(row.shape[0] for row in rows)
    return torch.stack([row.expand(width, -1, -1) for row in rows])


def _fill(
    backbone: Backbone, depth: int, wanted: list[tuple[str, str]], cut: Shelf, pooled: Shelf, console: Console
) -> None:
    """One pass: prefix, boundary kept, the rest of the pretrained stages for their pooled features."""
    digest_of = {path: digest for digest, path in wanted}

    def rows(paths: Sequence[str], raw: Tensor, x: Tensor) -> tuple[list[Row], list[int]]:
        boundary, stages = _forward(backbone, depth, raw, x)
        pooled_rows = torch.cat(stages, dim=1).float().cpu()
        found = [Row(digest_of[p], tuple(t[i] for t in boundary), pooled_rows[i]) for i, p in enumerate(paths)]
        return found, [stage.shape[1] for stage in stages]

    kept: list[Row] = []
    widths: list[int] = []
    with console.track("Frozen pass", len(wanted)) as advance:
        for found, widths in map_images(rows, [p for _, p in wanted], backbone.card.input, device_of(backbone)):
            kept += found
            if len(kept) * kept[0].size_bytes > SHARD_BYTES:
                _publish(kept, cut, pooled, widths)
                kept = []
            advance(len(found))
    if kept:
        _publish(kept, cut, pooled, widths)
    cut.refresh()
    pooled.refresh()


@dataclass(frozen=True)
class Row:
    """What one image gave: its boundary and its pooled features, on the CPU."""

    digest: str
    boundary: tuple[Tensor, ...]
    pooled: Tensor

    @property
    def size_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.boundary, self.pooled))


def _forward(backbone: Backbone, depth: int, raw: Tensor, x: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Boundary at `depth` (on the CPU) and the pooled features of every stage."""
    value: Value = x
    boundary: Value = raw
    stages = []
    for i, stage in enumerate(backbone.stages, start=1):
        value = stage.module(value)
        stages.append(pool(value))
        if i == depth:
            boundary = value
    parts = boundary if isinstance(boundary, tuple) else (boundary,)
    return tuple(part.cpu() for part in parts), stages


def _publish(kept: list[Row], cut: Shelf, pooled: Shelf, widths: Sequence[int]) -> None:
    digests = [row.digest for row in kept]
    pooled.add(digests, [torch.stack([row.pooled for row in kept])], widths)
    if cut.kind == "pixels":  # gray and colour images of different batches meet in one shard
        cut.add(digests, [_stack([row.boundary[0] for row in kept])])
    elif cut.kind == "boundary":
        cut.add(digests, [_stack_alike(parts) for parts in zip(*(row.boundary for row in kept), strict=True)])


def _stack_alike(rows: Sequence[Tensor]) -> Tensor:
    """Rows to one tensor that lies in memory as the rows do (`torch.stack` alone forgets channels-last)."""
    stacked, row = torch.stack(list(rows)), rows[0]
    alike = row.ndim == 3 and not row.is_contiguous() and row.movedim(0, -1).is_contiguous()
    return stacked.contiguous(memory_format=torch.channels_last) if alike else stacked


def _channels_last(value: Tensor) -> bool:
    return value.ndim == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)


def _shelf(backbone: Backbone, kind: Kind, depth: int, folder: Path) -> Shelf:
    """The shelf of exactly this computation, its shards opened."""
    about: dict[str, Any] = {"layout": LAYOUT, "kind": kind, "decoder": images.DECODER, "depth": depth}
    about["input"] = asdict(backbone.card.input)
    if kind != "pixels":
        about["weights"] = backbone.digest(depth)
        about["architecture"] = backbone.card.architecture
        about["computed"] = {
            "device": device_of(backbone).type,
            "dtype": "float32",
            "memory": "channels-last",
            "torch": torch.__version__,
            "cpu": torch.backends.cpu.get_cpu_capability(),
        }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    shelf = Shelf(folder / "activations" / key[:32], kind)
    if not (shelf.folder / "about.json").exists():
        write_json(shelf.folder / "about.json", about)
    shelf.refresh()
    return shelf
