"""One decode policy: every file becomes 8-bit gray or RGB in a stated way, or is refused with the reason.

`POLICY` is the table in docs/data.md; `zoo audit` lists the files that it touches. Needs no torch.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from zoo_core.errors import BadImage
from zoo_core.files import check_plain

DECODER = f"pillow-{PIL.__version__}-2"
"""Pillow's version, and that of the decode policy below; part of every cache key."""

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 100_000_000
MAX_BYTES = 512 << 20
"""Of a file; a larger one is no image that can have so few pixels."""

POLICY = {
    "8-bit gray": "kept as one channel, repeated for a backbone that takes colour",
    "1-bit": "becomes black and white, 0 and 255",
    "16-bit gray": "scaled by its range: value // 256, a 12-bit TIFF by value // 16",
    "16-bit colour": "scaled by its range: value // 256",
    "palette": "its colours are looked up",
    "transparency": "laid on white",
    "CMYK": "converted to RGB by the plain formula, without a colour profile",
    "YCbCr": "converted to RGB",
    "EXIF orientation": "turned upright",
    "animation or pages": "the first frame is taken",
    "colour profile": "not applied: the stored numbers are used, as timm and torchvision do",
    "other ending": "read by what it holds, whatever its name says",
}
"""What is not plain 8-bit RGB, and what is done with it."""

_ENDINGS_OF = {
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),  # a JPEG with more pictures behind the first
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags


@dataclass(frozen=True)
class Facts:
    """What a file is, from its header.

    Attributes:
        format: Pillow's name, such as `PNG`.
        mode: Pillow's name for the kind of pixels, such as `RGB` or `I;16`.
        width, height: in pixels, as stored.
        kinds: keys of `POLICY`; empty for plain 8-bit RGB.
    """

    format: str
    mode: str
    width: int
    height: int
    kinds: tuple[str, ...]


def decode(path: str | Path) -> Image.Image:
    """Read one image as 8-bit gray (mode L) or RGB, by the rules of `POLICY`.

    Raises:
        BadImage: not an image of the listed formats, truncated, over 100 million pixels, or of a
            kind with no defined 8-bit meaning (32-bit integer or float, Lab).
    """
    with _opened(path) as image:
        deep = _samples(image)
        image.load()
        return _eight_bit(ImageOps.exif_transpose(image), deep)


def describe(path: str | Path) -> Facts:
    """What a readable file is, without decoding it.

    Raises:
        BadImage: as for `decode`, as far as the header tells.
    """
    with _opened(path) as image:
        return Facts(image.format or "", image.mode, image.width, image.height, tuple(_kinds(image, path)))


def content_digest(image: Image.Image) -> str:
    """sha256 (hex) over the decoded pixels: equal for copies under other names or containers."""
    sha = hashlib.sha256(f"{image.mode} {image.size}\n".encode())
    sha.update(image.tobytes())
    return sha.hexdigest()


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """An image opened but not decoded; whatever goes wrong with it is a `BadImage`."""
    try:
        size = check_plain(Path(path))  # a pipe or a device may never end; some of them say that they are empty
        if not size:
            raise BadImage("not a readable image: empty file")
        if size > MAX_BYTES:
            raise BadImage(f"{size} bytes, more than {MAX_BYTES}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
                yield image
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not a readable image: " + _first_bytes(path)) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on hostile input
        reason = "truncated" if "truncated" in str(error) else str(error).splitlines()[0] if str(error) else "broken"
        raise BadImage(f"{type(error).__name__}: {reason}") from error


def _samples(image: Image.Image) -> tuple[int, bool]:
    """Bits of one sample, and whether 0 is white where Pillow does not say so: both are lost after loading."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = max(tags.get(_BITS_PER_SAMPLE) or (8,))
        return bits, bits > 8 and tags.get(_PHOTOMETRIC) == 0
    tile = getattr(image, "tile", None)
    return 16 if image.format == "PNG" and tile and str(tile[0][3]).endswith(";16B") else 8, False


def _kinds(image: Image.Image, path: str | Path) -> Iterator[str]:
    mode, (bits, _) = image.mode, _samples(image)
    if mode == "1":
        yield "1-bit"
    if mode in ("L", "LA", "La"):
        yield "8-bit gray"
    if mode.startswith("I;16"):
        yield "16-bit gray"
    elif bits > 8:
        yield "16-bit colour"
    if mode in ("P", "PA"):
        yield "palette"
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        yield "transparency"
    if mode in ("CMYK", "YCbCr"):
        yield mode
    if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
        yield "EXIF orientation"
    if getattr(image, "is_animated", False):
        yield "animation or pages"
    if image.info.get("icc_profile"):
        yield "colour profile"
    if os.path.splitext(path)[1].lower() not in _ENDINGS_OF.get(image.format or "", ENDINGS):
        yield "other ending"


def _eight_bit(image: Image.Image, deep: tuple[int, bool]) -> Image.Image:
    mode, clear = image.mode, image.info.get("transparency")
    if mode in ("I", "F"):
        raise BadImage(f"32-bit {'integer' if mode == 'I' else 'float'} pixels; expected 8 or 16 bit, convert it first")
    if mode == "LAB":
        raise BadImage("Lab colours; expected gray, RGB, CMYK or a palette, convert it first")
    if mode.startswith("I;16"):
        return _scaled(image, deep, clear)
    if mode in ("LA", "La"):
        return _on_white(image.convert("LA"), "L")
    if clear is not None and mode in ("1", "L"):
        return _on_white(image.convert("RGBA").convert("LA"), "L")
    if clear is not None and mode == "RGB" and deep[0] > 8:
        image.info["transparency"] = tuple(value >> 8 for value in clear)  # Pillow compares with the scaled pixels
    if mode in ("RGBA", "RGBa", "PA") or clear is not None:
        return _on_white(image.convert("RGBA"), "RGB")
    if mode == "1":
        return image.convert("L")
    return image if mode in ("L", "RGB") else image.convert("RGB")


def _scaled(image: Image.Image, deep: tuple[int, bool], clear: int | None) -> Image.Image:
    """9 to 16-bit gray to 8 bit; the value `clear`, where there is one, becomes white."""
    bits, zero_is_white = deep
    values = np.asarray(image).astype(np.uint16)
    scaled = (values >> (max(bits, 9) - 8)).astype(np.uint8)
    if zero_is_white:
        scaled = 255 - scaled
    if clear is not None:
        scaled[values == clear] = 255
    return Image.fromarray(scaled)


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    white = Image.new(mode, image.size, "white")
    white.paste(image.convert(mode), mask=image.getchannel("A"))
    return white


def _first_bytes(path: str | Path) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        return str(error)
    return f"starts with {start!r}"
