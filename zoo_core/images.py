"""One decoder and one preprocessing for every path: training, cache, evaluation, prediction.

`pixels` gives a uint8 tensor at the backbone's input size; `normalise` makes it the float input.
Together they equal torchvision's and timm's evaluation transform bit for bit (held by a test).
"""

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from zoo_core.card import Input
from zoo_core.errors import BadImage

DECODER = "pillow-1"
"""Version of the decode policy below; part of every cache key."""

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 100_000_000

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode(path: str | Path) -> Image.Image:
    """Read one image as 8-bit gray (mode L) or RGB.

    EXIF orientation is applied, transparency is laid on white, 16-bit gray is scaled by its range,
    CMYK and palettes are converted, of an animation the first frame is taken.

    Raises:
        BadImage: not an image of the listed formats, truncated, over 100 million pixels, or of a
            kind with no defined 8-bit meaning (32-bit integer or float).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
                image.load()
                return _eight_bit(ImageOps.exif_transpose(image))
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not a readable image: " + _first_bytes(path)) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on hostile input
        reason = "truncated" if "truncated" in str(error) else str(error).splitlines()[0] if str(error) else "broken"
        raise BadImage(f"{type(error).__name__}: {reason}") from error


def content_digest(image: Image.Image) -> str:
    """sha256 (hex) over the decoded pixels: equal for copies under other names or containers."""
    sha = hashlib.sha256(f"{image.mode} {image.size}\n".encode())
    sha.update(image.tobytes())
    return sha.hexdigest()


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


def _eight_bit(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode in ("L", "RGB"):
        return image
    if mode == "1":
        return image.convert("L")
    if mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if mode in ("I", "F"):
        raise BadImage(f"32-bit {'integer' if mode == 'I' else 'float'} pixels; expected 8 or 16 bit, convert it first")
    if mode in ("LA", "La"):
        return _on_white(image.convert("LA"), "L")
    if mode in ("RGBA", "RGBa", "PA") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"), "RGB")
    return image.convert("RGB")


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    white = Image.new(mode, image.size, "white")
    white.paste(image.convert(mode), mask=image.getchannel("A"))
    return white


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
        size = round(h / ratio), round(w / ratio)
    elif w <= h:
        size = int(scaled[0] * h / w), scaled[0]
    else:
        size = scaled[0], int(scaled[0] * w / h)
    if size != (h, w):
        image = image.resize((size[1], size[0]), resample)
    return _centre(image, height, width, spec)


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


def _first_bytes(path: str | Path) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        return str(error)
    return "empty file" if not start else f"starts with {start!r}"
