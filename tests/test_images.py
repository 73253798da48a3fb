"""One decoder and one preprocessing, equal to timm's bit for bit."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_core import images
from zoo_core.card import Input
from zoo_core.errors import BadImage

SIZES = [(300, 300), (97, 211), (211, 97), (31, 40), (64, 64), (73, 500), (5, 3)]


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A random image."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    data = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), data.tobytes())


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize(
    ("size", "crop", "interpolation"),
    [
        ((3, 64, 64), 0.875, "bicubic"),
        ((3, 65, 65), 0.9, "bilinear"),
        ((3, 48, 48), 1.0, "lanczos"),
        ((3, 33, 57), 0.95, "bicubic"),
        ((3, 32, 32), 0.5, "nearest"),
    ],
)
def test_equals_timm(mode, crop_mode, size, crop, interpolation):
    """Decoded pixels, cropped and normalised, equal timm's evaluation transform bit for bit, gray and colour."""
    create_transform = pytest.importorskip("timm.data").create_transform
    spec = Input(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), interpolation, crop, crop_mode)
    transform = create_transform(
        size,
        is_training=False,
        mean=spec.mean,
        std=spec.std,
        interpolation=interpolation,
        crop_pct=crop,
        crop_mode=crop_mode,
    )
    for width, height in SIZES:
        image = noise(width, height, mode)
        ours = images.normalise(images.pixels(image, spec)[None], spec)[0]
        theirs = transform(image.convert("RGB"))
        assert ours.dtype == theirs.dtype == torch.float32
        assert torch.equal(ours, theirs), (width, height)


def test_gray_stays_one_channel():
    """Gray is kept as one channel of uint8 until it is normalised: a third of the bytes."""
    spec = Input((3, 32, 32))
    gray = images.pixels(noise(40, 50, "L"), spec)
    assert (gray.shape, gray.dtype) == ((1, 32, 32), torch.uint8)
    assert images.normalise(gray[None], spec).shape == (1, 3, 32, 32)


def test_one_channel_backbones():
    """A backbone of one channel gets colour images as gray."""
    spec = Input((1, 32, 32), (0.5,), (0.25,))
    gray = images.pixels(noise(40, 50), spec)
    assert gray.shape == (1, 32, 32)
    assert torch.equal(gray, images.pixels(noise(40, 50).convert("L"), spec))
    assert images.normalise(gray[None], spec).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """A photo is turned upright by its EXIF orientation."""
    exif = Image.Exif()
    exif[274] = orientation
    noise(20, 10).save(tmp_path / "x.png", exif=exif)
    image = images.decode(tmp_path / "x.png")
    assert image.size == ((10, 20) if orientation > 4 else (20, 10))
    corners = {
        1: (0, 0),
        2: (19, 0),
        3: (19, 9),
        4: (0, 9),
        5: (0, 0),
        6: (0, 9),
        7: (19, 9),
        8: (19, 0),
    }
    assert image.getpixel((0, 0)) == noise(20, 10).getpixel(corners[orientation])


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (0, 255), 0),
        ("LA", (0, 0), 255),
    ],
)
def test_transparency_on_white(tmp_path, mode, colour, expected):
    """What is transparent becomes white, half-transparent is mixed with white."""
    Image.new(mode, (4, 4), colour).save(tmp_path / "x.png")
    assert images.decode(tmp_path / "x.png").getpixel((1, 1)) == expected


def test_transparent_palette(tmp_path):
    """A palette with a transparent colour is laid on white too; an opaque palette is colour."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30] + [0] * 750)
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert images.decode(tmp_path / "opaque.png").getpixel((0, 0)) == (10, 20, 30)
    assert images.decode(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits(tmp_path, ending):
    """16-bit gray is scaled by its range to 8 bit, not clipped."""
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{ending}")
    image = images.decode(tmp_path / f"x.{ending}")
    assert image.mode == "L"
    assert list(image.tobytes()) == [0, 0, 1, 128, 255]


def test_other_modes(tmp_path):
    """CMYK becomes RGB, black and white becomes gray, of an animation the first frame is taken."""
    noise(8, 8, "CMYK").save(tmp_path / "x.jpg")
    Image.new("1", (8, 8), 1).save(tmp_path / "x.tif")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert images.decode(tmp_path / "x.jpg").mode == "RGB"
    assert images.decode(tmp_path / "x.tif").getpixel((0, 0)) == 255
    assert images.decode(tmp_path / "x.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_no_defined_meaning(tmp_path, mode):
    """Float and 32-bit integer pixels have no defined 8-bit meaning and are refused."""
    Image.new(mode, (4, 4)).save(tmp_path / "x.tif")
    with pytest.raises(BadImage, match=r"32-bit.*expected 8 or 16 bit, convert it first"):
        images.decode(tmp_path / "x.tif")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a huge size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable image: empty file"),
        (b"<!DOCTYPE html><html>", "not a readable image: starts with b'<!DOCTYP'"),
        (b"%PDF-1.4 anything", "not a readable image: starts with"),
        (bomb(20_000, 20_000), "20000x20000 pixels, more than 100000000|DecompressionBomb"),
        (bomb(10_001, 10_000), "10001x10000 pixels, more than 100000000"),
        (bomb(100, 100), "broken|truncated|error"),
    ],
)
def test_hostile_files(tmp_path, content, message):
    """Empty files, web pages called .png, and images that claim gigantic sizes are refused with the reason."""
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(BadImage, match=message):
        images.decode(tmp_path / "x.png")


@pytest.mark.parametrize("ending", ["jpeg", "png", "webp", "bmp", "tiff", "gif"])
def test_truncated(tmp_path, ending):
    """A file cut in half is refused, never completed with gray."""
    buffer = io.BytesIO()
    noise(64, 64).save(buffer, format=ending)
    (tmp_path / "x").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(BadImage):
        images.decode(tmp_path / "x")


def test_missing_file():
    """A file that is not there is a bad image like any other, with the reason."""
    with pytest.raises(BadImage, match="No such file"):
        images.decode("nowhere.png")


def test_other_formats_are_refused(tmp_path):
    """Only the listed formats are decoded, whatever the file is called."""
    buffer = io.BytesIO()
    noise(8, 8).save(buffer, format="PPM")
    (tmp_path / "x.png").write_bytes(buffer.getvalue())
    with pytest.raises(BadImage, match="not a readable image"):
        images.decode(tmp_path / "x.png")


def test_content_digest(tmp_path):
    """The content digest is that of the pixels: equal for copies in another container, unequal for another shape."""
    image = noise(8, 6)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.bmp")
    digests = {images.content_digest(images.decode(tmp_path / name)) for name in ("a.png", "b.bmp")}
    assert len(digests) == 1
    turned = Image.frombytes("RGB", (6, 8), image.tobytes())
    assert images.content_digest(turned) not in digests
    assert images.content_digest(image.convert("L")) not in digests
