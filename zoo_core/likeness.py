"""Near copies: the same picture re-encoded, resized, or a little brighter.

The look of an image is its structure (12x12 means of its gray values, freed of brightness and
contrast) and its colour (3x3). Two looks are near when their structures correlate by more than 0.9994 and no
colour differs by more than 8 levels. On 2,624 solar cells that look much alike this joins none, while
JPEG copies of quality 60 and copies at half the size are joined. Crops, flips and turns are not found.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LOOK = "look-1"
"""Version of what `look` computes."""

_GRID, _FINE, _COLOURS = 12, 48, 3
_MIN_CONTRAST = 2.0  # levels; what is flatter has no look, and only exact copies of it are found
_MAX_DISTANCE = 0.0006  # 1 - correlation; solar cells that differ are 0.0014 and more apart
_MAX_COLOUR = 8.0  # levels of 255
_MAX_PAIRS = 5_000_000  # pairs looked at; beyond (thousands of near copies) only each image's nearest are
_NEIGHBOURS = 16
_WAVES = 5  # coarsest waves along each side that are compared first

Floats = NDArray[np.float32]


def look(image: Image.Image) -> str:
    """What an image shows, as 216 characters of text; empty for one too flat to tell from another.

    Args:
        image: decoded, mode L or RGB.
    """
    small = image.resize((_FINE, _FINE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    gray = _means(np.asarray(small.convert("L"), dtype=np.float32), _GRID)
    contrast = gray.std()
    if contrast < _MIN_CONTRAST:
        return ""
    structure = np.clip(np.rint((gray - gray.mean()) / contrast * 31), -127, 127)
    colour = np.zeros(2 * _COLOURS**2, dtype=np.float32)
    if image.mode == "RGB":
        red, green, blue = (_means(np.asarray(band, dtype=np.float32), _COLOURS) for band in small.split())
        colour = np.rint(np.concatenate([(red - green).ravel(), (blue - green).ravel()]) / 2)
    numbers = np.concatenate([structure.ravel(), colour]).astype(np.int8)
    return base64.b64encode(numbers.tobytes()).decode()


def near(looks: Mapping[str, str]) -> list[list[str]]:
    """Groups of names whose looks are near, directly or through others, in a fixed order.

    Args:
        looks: name -> look; names without one are in no group. Looks that start with `=` (of texts) are near
            only where they are equal.
    """
    same: dict[str, list[str]] = defaultdict(list)
    for name in sorted(name for name, text in looks.items() if text.startswith("=")):
        same[looks[name]].append(name)
    names = sorted(name for name, text in looks.items() if text and not text.startswith("="))
    if len(names) < 2:
        return [group for group in same.values() if len(group) > 1]
    numbers = np.stack([np.frombuffer(base64.b64decode(looks[name]), dtype=np.int8) for name in names])
    structure = numbers[:, : _GRID**2].astype(np.float32)
    structure /= np.linalg.norm(structure, axis=1, keepdims=True)
    colour = numbers[:, _GRID**2 :].astype(np.float32) * 2
    first, second = _candidates(structure)
    groups: dict[int, list[str]] = defaultdict(list)
    links = _verified(structure, colour, first, second)
    for name, root in zip(names, connected(len(names), links), strict=True):
        groups[root].append(name)
    return [group for group in (*same.values(), *groups.values()) if len(group) > 1]


def connected(count: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """For each of `count` things, the smallest number of those that links connect it with."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(i) for i in range(count)]


def _means(values: Floats, side: int) -> Floats:
    step = _FINE // side
    found: Floats = values.reshape(side, step, side, step).mean(axis=(1, 3))
    return found


def _candidates(structure: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs that are near in their coarsest waves: a projection, so no near pair is missed."""
    from scipy.fft import dctn
    from scipy.spatial import cKDTree

    waves = dctn(structure.reshape(-1, _GRID, _GRID), axes=(1, 2), norm="ortho")[:, :_WAVES, :_WAVES]
    points = waves.reshape(len(structure), -1)
    radius = (2 * _MAX_DISTANCE) ** 0.5  # |a - b|^2 = 2 (1 - correlation) for vectors of length 1
    tree = cKDTree(points)
    wanted = min(_NEIGHBOURS, len(points))
    _, found = tree.query(points, k=range(1, wanted + 1), distance_upper_bound=radius)
    first, column = np.nonzero(found < len(points))
    second = found[first, column]
    crowded = np.flatnonzero(found[:, -1] < len(points))  # there may be more than were asked for
    counts = tree.query_ball_point(points[crowded], radius, return_length=True)
    if 0 < counts.sum() <= _MAX_PAIRS:
        first = np.concatenate([first, np.repeat(crowded, counts)])
        second = np.concatenate([second, *tree.query_ball_point(points[crowded], radius)])
    return first, second.astype(np.intp)


def _verified(
    structure: Floats, colour: Floats, first: NDArray[np.intp], second: NDArray[np.intp]
) -> list[tuple[int, int]]:
    links: list[tuple[int, int]] = []
    for start in range(0, len(first), 10_000):
        a, b = first[start : start + 10_000], second[start : start + 10_000]
        alike = 1 - np.einsum("ij,ij->i", structure[a], structure[b]) <= _MAX_DISTANCE
        alike &= np.abs(colour[a] - colour[b]).max(axis=1) <= _MAX_COLOUR
        links += zip(a[alike].tolist(), b[alike].tolist(), strict=True)
    return links
