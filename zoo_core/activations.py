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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

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

LAYOUT = 1
SHARD_BYTES = 64 << 20
Kind = Literal["pixels", "boundary", "pooled"]


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
    """

    folder: Path
    kind: Kind
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    shards: list[tuple[Tensor, ...]] = field(default_factory=list)
    widths: tuple[int, ...] = ()
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
                self.shards.append(tuple(shard.get_tensor(f"t{i}") for i in range(len(shard.keys()))))
            for row, digest in enumerate(digests):
                self.rows.setdefault(digest, (len(self.shards) - 1, row))
            self._opened.add(path.name)

    def add(self, digests: Sequence[str], values: Sequence[Tensor], widths: Sequence[int] = ()) -> None:
        """Publish one shard."""
        tensors = {f"t{i}": value.contiguous() for i, value in enumerate(values)}
        metadata = {"digests": json.dumps(list(digests)), "widths": json.dumps(list(widths))}
        publish_object(self.folder, "", ".safetensors", lambda temp: save_file(tensors, temp, metadata))

    def gather(self, digests: Sequence[str]) -> tuple[Tensor, ...]:
        """Rows in the order asked, as a flat tuple of tensors, batch first."""
        places = torch.tensor([self.rows[d] for d in digests])
        used = sorted(set(places[:, 0].tolist()))
        out = tuple(t.new_empty((len(digests), *t.shape[1:])) for t in self.shards[used[0]])
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
            return images.normalise(value[0], self.spec)
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


def read_batches(
    paths: Sequence[str], spec: Input, batch_size: int, device: torch.device, failed: dict[str, str] | None = None
) -> Iterator[tuple[Sequence[str], Tensor, Tensor]]:
    """Decode ahead on all cores: (paths, uint8 [B, C, H, W], normalised float input on the device).

    Args:
        failed: gets path -> reason of images that cannot be read, which are then left out;
            without it the first one raises `BadImage`.
    """
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        ahead: deque[list[tuple[str, Future[Tensor]]]] = deque()
        starts = iter(range(0, len(paths), batch_size))
        while True:
            while len(ahead) < 3 and (start := next(starts, None)) is not None:
                chunk = paths[start : start + batch_size]
                ahead.append([(path, workers.submit(_load, path, spec)) for path in chunk])
            if not ahead:
                return
            rows: dict[str, Tensor] = {}
            for path, future in ahead.popleft():
                try:
                    rows[path] = future.result()
                except BadImage as error:
                    if failed is None:
                        raise BadImage(f"{path}: {error}. Remove it and start again.") from error
                    failed[path] = str(error)
            if rows:
                raw = _stack(list(rows.values()))
                yield list(rows), raw, to_input(raw, spec, device)


def _load(path: str, spec: Input) -> Tensor:
    return images.pixels(images.decode(path), spec)


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
    device = device_of(backbone)
    batch_size = 16 if device.type == "cpu" else 64
    digest_of = {path: digest for digest, path in wanted}
    kept: list[Row] = []
    widths: list[int] = []
    with torch.inference_mode(), console.track("Frozen pass", len(wanted)) as advance:
        for paths, raw, x in read_batches([p for _, p in wanted], backbone.card.input, batch_size, device):
            boundary, stages = _forward(backbone, depth, raw, x)
            widths, pooled_rows = [s.shape[1] for s in stages], torch.cat(stages, dim=1).float().cpu()
            for i, path in enumerate(paths):
                kept.append(Row(digest_of[path], tuple(t[i] for t in boundary), pooled_rows[i]))
            if len(kept) * kept[0].size_bytes > SHARD_BYTES:
                _publish(kept, cut, pooled, widths)
                kept = []
            advance(len(paths))
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
        cut.add(digests, [torch.stack(parts) for parts in zip(*(row.boundary for row in kept), strict=True)])


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
