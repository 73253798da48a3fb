"""What to keep at the cut: decided by measuring what reading and computing cost on this machine."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from zoo_core import activations, reading
from zoo_core.activations import Mode, Numbers, Views
from zoo_core.backbone import Backbone
from zoo_core.errors import BadOption, near
from zoo_core.files import scratch
from zoo_core.places import cache_folder, expanded

MODES = ("auto", "boundary", "pixels", "none")
SAMPLE = 16


@dataclass(frozen=True)
class Choice:
    """What is kept of each image at the cut, and why.

    Attributes:
        mode: for `activations.at`.
        why: one sentence.
        bytes_per_image: of what is kept.
        seconds: what was measured per image: `decode`, `prefix`, `read` (of the value at the cut),
            `read_pixels`; empty where nothing had to be measured.
    """

    mode: Mode
    why: str
    bytes_per_image: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)


def where(asked: str) -> tuple[str, Path]:
    """Mode and folder: `--cache` names a mode, or a folder in the place of the platform's.

    Raises:
        BadOption: neither; a folder is told by a slash in it.
    """
    if asked in MODES:
        return asked, cache_folder()
    if "/" in asked or os.sep in asked or asked.startswith("."):
        return "auto", expanded(asked)
    hint = near(asked, MODES)
    raise BadOption(f"--cache {asked}: expected {', '.join(MODES)}, or a folder such as ./{asked}. {hint}".strip())


def choose(
    asked: str,
    backbone: Backbone,
    depth: int,
    paths: Mapping[str, str],
    folder: Path,
    passes: int,
    cap_bytes: int,
    numbers: Numbers,
    views: Views,
    measured: tuple[Mapping[str, int], Mapping[str, float]] | None = None,
) -> Choice:
    """Take the cheapest of keeping the value at the cut, decoded pixels, or nothing.

    Args:
        asked: `auto`, or what the user wants.
        passes: how often the plan looks at each image.
        cap_bytes: what the cache may hold; a forecast beyond it, or beyond half of the free disk, is refused.
        measured: what `measure` gave before anything was kept; without it, it is asked now.

    Raises:
        BadOption: what is asked for does not fit.
    """
    if depth == len(backbone.stages):
        return Choice("boundary", "pooled features only: every stage is frozen, each image passes once")
    kept = activations.shelf_of(backbone, "boundary" if depth else "pixels", depth, folder, numbers, views)
    if measured is None and asked in ("auto", "boundary") and paths.keys() <= kept.rows.keys():
        return Choice("boundary", f"{'boundary activations' if depth else 'decoded pixels'}: all there already")
    sizes, seconds = measured or measure(backbone, depth, paths, folder, numbers, views)
    room = min(cap_bytes, _free(folder) // 2)
    totals = forecast(seconds, passes, depth)
    fits = {mode: sizes[mode] * len(paths) <= room for mode in totals}
    best = min((m for m in totals if fits[m]), key=lambda m: totals[m])
    if asked != "auto":
        best = "pixels" if asked == "boundary" and not depth else asked
        if not fits[best]:
            need = f"{sizes[best] * len(paths) / 1e9:.1f} GB for {len(paths)} images"
            raise BadOption(
                f"--cache {asked} would take {need}; there is room for {room / 1e9:.1f} GB. "
                "Give --cache auto, or a higher --cache-cap (GB)."
            )
    mode: Mode = "boundary" if best == "boundary" else "pixels" if best == "pixels" else "none"
    return Choice(mode, _sentence(best, depth, sizes, seconds, len(paths), passes), sizes[best], seconds)


def forecast(seconds: Mapping[str, float], passes: int, depth: int) -> dict[str, float]:
    """Seconds per image over a whole run, by mode. Each runs the prefix once in any case, for the baselines."""
    once = seconds["decode"] + seconds["prefix"]
    totals = {
        "boundary": once + passes * seconds["read"],
        "pixels": once + passes * (seconds["read_pixels"] + seconds["prefix"]),
        "none": once + passes * once,
    }
    if depth == 0:
        del totals["boundary"]
    return totals


def measure(
    backbone: Backbone, depth: int, paths: Mapping[str, str], folder: Path, numbers: Numbers, views: Views
) -> tuple[dict[str, int], dict[str, float]]:
    """Bytes and seconds per image on a few of the images; each core at work on its own batch."""
    names = list(paths)[:SAMPLE]
    device = activations.device_of(backbone)
    reader = backbone.reader.varied(views.policy, views.seed) if views.policy != "none" else backbone.reader
    with torch.no_grad():
        start = time.perf_counter()
        raw = reader.stack([reader.read(paths[n], n) for n in names])
        decode = (time.perf_counter() - start) / reading.cores()
        x = reader.to_input(raw, device)
        spent = []
        for _ in range(2):  # the first one also warms up
            start = time.perf_counter()
            value = numbers.pass_through(backbone, 0, depth, x)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent.append(time.perf_counter() - start)
    dtype = activations.DTYPES[numbers.stored]
    parts = tuple((t.to(dtype) if t.is_floating_point() else t).cpu() for t in activations.parts_of(value))
    kept = activations.parts_of(raw)
    seconds = {
        "decode": decode,
        "prefix": min(spent),
        "read": _read_again(parts, folder) if depth else 0.0,
        "read_pixels": _read_again(kept, folder),
    }
    count = len(names)
    sizes = {"boundary": _bytes(parts) // count, "pixels": _bytes(kept) // count}
    return sizes | {"none": 0}, {key: value / count for key, value in seconds.items()}


def _bytes(parts: tuple[torch.Tensor, ...]) -> int:
    return sum(t.numel() * t.element_size() for t in parts)


def _read_again(parts: tuple[torch.Tensor, ...], folder: Path) -> float:
    """Seconds to read values from a shard, as training does: at random, copied into a batch."""
    with scratch(folder / "measured.safetensors", _bytes(parts)) as temp:
        save_file({f"t{i}": t.contiguous() for i, t in enumerate(parts)}, temp)
        start = time.perf_counter()
        found = load_file(temp)
        rows = torch.randperm(len(parts[0]), generator=torch.Generator().manual_seed(0))
        for i in range(len(parts)):
            found[f"t{i}"][rows].float()
        return time.perf_counter() - start


def _sentence(
    mode: str, depth: int, sizes: Mapping[str, int], seconds: Mapping[str, float], count: int, passes: int
) -> str:
    what = {"boundary": "boundary activations", "pixels": "decoded pixels", "none": "nothing"}[mode]
    size = f", {sizes[mode]:,} bytes an image, {sizes[mode] * count / 1e6:.0f} MB in all" if sizes[mode] else ""
    milli = {key: f"{1000 * value:.2g}" for key, value in seconds.items()}
    read = f"reading {milli['read']} ms, " if depth else f"reading pixels {milli['read_pixels']} ms, "
    return (
        f"{what}{size} ({read}decoding {milli['decode']} ms, computing {milli['prefix']} ms an image, {passes} passes)"
    )


def _free(folder: Path) -> int:
    """Free bytes on the disk that will hold the folder."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
