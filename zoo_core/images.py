"""One decoder and one preprocessing for every path: training, cache, evaluation, prediction.

`pixels` gives a uint8 tensor at the backbone's input size; `normalise` makes it the float input.
Together they equal torchvision's and timm's evaluation transform bit for bit (held by a test).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo_core.card import Input
from zoo_core.decoding import DECODER as DECODER
from zoo_core.decoding import ENDINGS as ENDINGS
from zoo_core.decoding import MAX_PIXELS
from zoo_core.decoding import content_digest as content_digest
from zoo_core.decoding import decode as decode

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def pixels(image: Image.Image, spec: Input) -> Tensor:
    """A decoded image to uint8 [C, H, W] at the backbone's input size; gray stays one channel.

    Gray is resized as gray: Pillow resizes each band on its own, so repeating the band afterwards
    gives the same bits at a third of the cost.
    """
    if spec.size[0] == 1 and image.mode != "L":
        image = image.convert("L")
    image = _fit(image, spec)
    array = np.asarray(image)
    return torch.from_numpy(array.copy() if array.ndim == 3 else array[..., None].copy()).permute(2, 0, 1)


def normalise(batch: Tensor, spec: Input) -> Tensor:
    """uint8 [B, 1 or C, H, W] to float [B, C, H, W]: scaled to [0, 1], mean taken off, divided by std."""
    if batch.shape[1] != spec.size[0]:
        batch = batch.expand(-1, spec.size[0], -1, -1)
    mean, std = (torch.tensor(v, device=batch.device).view(1, -1, 1, 1) for v in (spec.mean, spec.std))
    return batch.float().div(255).sub(mean).div(std)


def _fit(image: Image.Image, spec: Input) -> Image.Image:
    """Resize and crop as timm's `transforms_imagenet_eval` does (timm 1.0, Apache-2.0)."""
    _, height, width = spec.size
    scaled = math.floor(height / spec.crop), math.floor(width / spec.crop)
    resample = _FILTERS[spec.interpolation]
    w, h = image.size
    if spec.crop_mode == "squash":
        size = scaled
    elif spec.crop_mode == "border" or scaled[0] != scaled[1]:
        ratios = (h / scaled[0], w / scaled[1])
        ratio = max(ratios) if spec.crop_mode == "border" else min(ratios)
        size = max(1, round(h / ratio)), max(1, round(w / ratio))
    elif w <= h:
        size = int(scaled[0] * h / w), scaled[0]
    else:
        size = scaled[0], int(scaled[0] * w / h)
    if size[0] * size[1] > MAX_PIXELS:
        image = _middle(image, size, (height, width), resample)
    elif size != (h, w):
        image = image.resize((size[1], size[0]), resample)
    return _centre(image, height, width, spec)


def _middle(
    image: Image.Image, size: tuple[int, int], keep: tuple[int, int], resample: Image.Resampling
) -> Image.Image:
    """The middle of a very long image, resized: what a centre crop of the whole would show, and a margin.

    Args:
        size: height and width that the whole would be resized to; for 1x20000 pixels gigabytes.
        keep: height and width of the crop.
    """
    found, box = [], []
    for whole, crop, old in zip(size, keep, (image.height, image.width), strict=True):
        margin = math.ceil(4 * max(1, whole / old))  # what the filters read beside a pixel, in new pixels
        part = min(whole, crop + 2 * margin)
        part += (whole - part) % 4  # so that the centre of the part is the centre of the whole
        start = (whole - part) // 2
        found.append(part)
        box.append((start * old / whole, (start + part) * old / whole))
    (top, bottom), (left, right) = box
    return image.resize((found[1], found[0]), resample, (left, top, right, bottom))


def _centre(image: Image.Image, height: int, width: int, spec: Input) -> Image.Image:
    """Centre crop; where the image is smaller, pad it with the mean colour (border) or black."""
    if image.width < width or image.height < height:
        colour = tuple(round(255 * m) for m in spec.mean) if spec.crop_mode == "border" else (0,) * len(spec.mean)
        fill = (colour[0] if len(set(colour)) == 1 else None) if image.mode == "L" else colour
        if fill is None:  # gray on a coloured mean
            image, fill = image.convert("RGB"), colour
        left, top = max(0, (width - image.width) // 2), max(0, (height - image.height) // 2)
        canvas = Image.new(image.mode, (max(width, image.width), max(height, image.height)), fill)
        canvas.paste(image, (left, top))
        image = canvas
    top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))
