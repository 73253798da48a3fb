"""Augmented views of an image: each a pure function of (seed, content, number), so that it can be kept.

The images of epoch e are view `e mod K`: with K views the frozen stages run K times in all, however long
the training is.
"""

from __future__ import annotations

import math
import os

import numpy as np
from PIL import Image, ImageEnhance
from torch import Tensor

from zoo_core import images
from zoo_core.card import Input
from zoo_core.clock import STARTED
from zoo_core.errors import BadImage

POLICIES = ("none", "light", "strong")
_CLOCKS_DIFFER = 60.0
"""Seconds by which a file server's clock may be behind this machine's."""


def name(digest: str, view: int | None) -> str:
    """The row of a view; `None` is the image as it is."""
    return digest if view is None else f"{digest}#{view}"


def read(path: str, row: str, spec: Input, policy: str, seed: int) -> Tensor:
    """The pixels [C, H, W] of a row's view of an image; a row without a number is the image as it is.

    `light`: a random part of the image (70 to 100 % of its area) and a mirror image half of the time.
    `strong`: 35 to 100 %, mirrored, turned by up to 15 degrees, brightness, contrast and colour changed by
    up to 30 %.
    """
    image = images.decode(path)
    digest, _, view = row.partition("#")
    if len(digest) == 64 and _changed_lately(path) and images.content_digest(image) != digest:
        raise BadImage("its content has changed since the run began")
    if view:
        key = [seed, int(view), *(int(digest[i : i + 8], 16) for i in range(0, 16, 8))]
        image = _changed(image, policy, np.random.default_rng(key))
    return images.pixels(image, spec)


def _changed_lately(path: str) -> bool:
    """Whether a file may have changed since this process looked at it; hashing all images again would cost too much."""
    found = os.stat(path)
    return max(found.st_mtime, found.st_ctime) > STARTED - _CLOCKS_DIFFER


def _changed(image: Image.Image, policy: str, rng: np.random.Generator) -> Image.Image:
    if policy == "strong":
        image = image.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR, fillcolor=_mean_colour(image))
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            factor = rng.uniform(0.7, 1.3)
            if enhance is not ImageEnhance.Color or image.mode == "RGB":
                image = enhance(image).enhance(factor)
    image = _part(image, 0.7 if policy == "light" else 0.35, rng)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def _part(image: Image.Image, smallest: float, rng: np.random.Generator) -> Image.Image:
    """A random rectangle of `smallest` to all of the area, its sides within 3:4 of the image's own."""
    area, aspect = rng.uniform(smallest, 1.0), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    width = min(image.width, max(1, round(image.width * math.sqrt(area * aspect))))
    height = min(image.height, max(1, round(image.height * math.sqrt(area / aspect))))
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _mean_colour(image: Image.Image) -> int | tuple[int, ...]:
    mean = np.asarray(image).reshape(-1, len(image.getbands())).mean(0).round().astype(int).tolist()
    return mean[0] if len(mean) == 1 else tuple(mean)
