"""The decode policy, case by case: a stated result or a named error, never a silent change."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from zoo_core import decoding, images
from zoo_core.card import Input
from zoo_core.errors import BadImage

ROOT = Path(__file__).resolve().parents[1]
RED, BLUE = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")


def saved(image: Image.Image, form: str, **options) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int, depth: int, colour: int, row: bytes, clear: bytes = b"", height: int = 1) -> bytes:
    """A PNG of one row; `colour` is the type of the standard: 0 gray, 2 RGB, 4 gray and alpha, 6 RGB and alpha."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    transparent = chunk(b"tRNS", clear) if clear else b""
    body = chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + transparent + body


def tiff(width: int, bits: int, body: bytes, *, samples: int = 1, photometric: int = 1, kind: int = 1, order="<"):
    """An uncompressed TIFF of one row; photometric 0: white is zero, 1: black is zero, 2: RGB, 8: Lab."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 0, 277: samples, 278: 1, 279: 0, 339: kind}
    after = 8 + 2 + 12 * len(tags) + 4
    tags[273], tags[279] = after + 8, len(body)
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for tag, value in tags.items():
        if tag == 258 and samples > 1:
            out += struct.pack(order + "HHII", tag, 3, samples, after)
        else:
            out += struct.pack(order + "HHI", tag, 4, 1) + struct.pack(order + "I", value)
    return out + struct.pack(order + "I", 0) + struct.pack(order + "4H", bits, bits, bits, 0) + body


def palette(**options) -> bytes:
    """A PNG with a palette whose colour 1 is 10, 20, 30."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30] + [0] * 750)
    return saved(image, "PNG", **options)


def turned(orientation: int, form: str) -> bytes:
    """2x1 pixels, black and white, with an EXIF orientation."""
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.new("RGB", (2, 1))
    image.putpixel((1, 0), (255, 255, 255))
    return saved(image, form, exif=exif)


H4 = struct.pack(">4H", 0, 255, 32768, 65535)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

# name: (file's name, bytes, mode, first pixels, what the policy calls it)
DEFINED = {
    "plain PNG": ("x.png", saved(RED, "PNG"), "RGB", [(255, 0, 0)], ()),
    "plain BMP": ("x.bmp", saved(RED, "BMP"), "RGB", [(255, 0, 0)], ()),
    "plain GIF": ("x.gif", saved(RED, "GIF"), "RGB", [(255, 0, 0)], ("palette",)),
    "plain TIFF": ("x.tif", saved(RED, "TIFF"), "RGB", [(255, 0, 0)], ()),
    "compressed TIFF": ("x.tiff", saved(RED, "TIFF", compression="tiff_lzw"), "RGB", [(255, 0, 0)], ()),
    "lossless WebP": ("x.webp", saved(RED, "WEBP", lossless=True), "RGB", [(255, 0, 0)], ()),
    "1x1": ("x.png", saved(RED.crop((0, 0, 1, 1)), "PNG"), "RGB", [(255, 0, 0)], ()),
    "gray": ("x.png", saved(Image.new("L", (2, 2), 7), "PNG"), "L", [7], ("8-bit gray",)),
    "2-bit gray": ("x.png", png(4, 2, 0, bytes([0b00011011])), "L", [0, 85, 170, 255], ("8-bit gray",)),
    "gray, white is zero": ("x.tif", tiff(2, 8, b"\0\xff", photometric=0), "L", [255, 0], ("8-bit gray",)),
    "1-bit": ("x.png", png(8, 1, 0, b"\x40"), "L", [0, 255, 0], ("1-bit",)),
    "1-bit, clear": ("x.png", png(8, 1, 0, b"\x40", b"\0\0"), "L", [255, 255], ("1-bit", "transparency")),
    "16-bit PNG": ("x.png", png(4, 16, 0, H4), "L", [0, 0, 128, 255], ("16-bit gray",)),
    "16-bit PNG, clear": (
        "x.png",
        png(4, 16, 0, H4, struct.pack(">H", 32768)),
        "L",
        [0, 0, 255, 255],
        ("16-bit gray", "transparency"),
    ),
    "16-bit TIFF": ("x.tif", tiff(4, 16, struct.pack("<4H", 0, 255, 32768, 65535)), "L", [0, 0, 128, 255], None),
    "16-bit TIFF, I;16B": ("x.tif", tiff(4, 16, H4, order=">"), "L", [0, 0, 128, 255], ("16-bit gray",)),
    "16-bit TIFF, white is zero": (
        "x.tif",
        tiff(4, 16, struct.pack("<4H", 0, 255, 32768, 65535), photometric=0),
        "L",
        [255, 255, 127, 0],
        ("16-bit gray",),
    ),
    "12-bit TIFF": ("x.tif", tiff(2, 12, bytes([0x00, 0x08, 0x00])), "L", [0, 128], ("16-bit gray",)),
    "16-bit colour PNG": (
        "x.png",
        png(1, 16, 2, struct.pack(">3H", 255, 256, 65535)),
        "RGB",
        [(0, 1, 255)],
        ("16-bit colour",),
    ),
    "16-bit colour PNG, clear": (
        "x.png",
        png(2, 16, 2, struct.pack(">6H", 300, 600, 900, 0, 0, 0), struct.pack(">3H", 300, 600, 900)),
        "RGB",
        [(255, 255, 255), (0, 0, 0)],
        ("16-bit colour", "transparency"),
    ),
    "16-bit colour TIFF": (
        "x.tif",
        tiff(1, 16, struct.pack("<3H", 255, 256, 65535), samples=3, photometric=2),
        "RGB",
        [(0, 1, 255)],
        ("16-bit colour",),
    ),
    "16-bit gray and alpha": (
        "x.png",
        png(2, 16, 4, struct.pack(">4H", 512, 65535, 512, 0)),
        "RGB",
        [(2, 2, 2), (255, 255, 255)],
        ("16-bit colour", "transparency"),
    ),
    "alpha": (
        "x.png",
        saved(Image.new("RGBA", (4, 4), (0, 0, 0, 51)), "PNG"),
        "RGB",
        [(204, 204, 204)],
        ("transparency",),
    ),
    "gray and alpha": (
        "x.png",
        saved(Image.new("LA", (4, 4), (0, 0)), "PNG"),
        "L",
        [255],
        ("8-bit gray", "transparency"),
    ),
    "alpha in WebP": (
        "x.webp",
        saved(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "WEBP", lossless=True),
        "RGB",
        [(255, 255, 255)],
        ("transparency",),
    ),
    "a clear gray": ("x.png", png(2, 8, 0, b"\x07\x09", b"\0\x07"), "L", [255, 9], ("8-bit gray", "transparency")),
    "a clear colour": (
        "x.png",
        png(2, 8, 2, bytes([1, 2, 3, 9, 9, 9]), bytes([0, 1, 0, 2, 0, 3])),
        "RGB",
        [(255, 255, 255), (9, 9, 9)],
        ("transparency",),
    ),
    "palette": ("x.png", palette(), "RGB", [(10, 20, 30)], ("palette",)),
    "palette, clear": ("x.png", palette(transparency=1), "RGB", [(255, 255, 255)], ("palette", "transparency")),
    "CMYK": ("x.tif", saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"), "RGB", [(255, 0, 0)], ("CMYK",)),
    "CMYK JPEG": ("x.jpg", saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"), "RGB", [(255, 255, 255)], ("CMYK",)),
    "YCbCr": (
        "x.tif",
        saved(Image.new("YCbCr", (4, 4), (255, 128, 128)), "TIFF"),
        "RGB",
        [(255, 255, 255)],
        ("YCbCr",),
    ),
    "turned, PNG": ("x.png", turned(3, "PNG"), "RGB", [(255, 255, 255), (0, 0, 0)], ("EXIF orientation",)),
    "turned, TIFF": ("x.tif", turned(3, "TIFF"), "RGB", [(255, 255, 255), (0, 0, 0)], ("EXIF orientation",)),
    "broken EXIF": ("x.jpg", saved(RED, "JPEG", exif=b"Exif\0\0II*\0rubbish"), "RGB", [(254, 0, 0)], ()),
    "animated GIF": (
        "x.gif",
        saved(RED, "GIF", save_all=True, append_images=[BLUE]),
        "RGB",
        [(255, 0, 0)],
        ("palette", "animation or pages"),
    ),
    "animated WebP": (
        "x.webp",
        saved(RED, "WEBP", save_all=True, append_images=[BLUE], lossless=True),
        "RGB",
        [(255, 0, 0)],
        ("animation or pages",),
    ),
    "animated PNG": (
        "x.png",
        saved(RED, "PNG", save_all=True, append_images=[BLUE]),
        "RGB",
        [(255, 0, 0)],
        ("animation or pages",),
    ),
    "pages": (
        "x.tif",
        saved(RED, "TIFF", save_all=True, append_images=[BLUE]),
        "RGB",
        [(255, 0, 0)],
        ("animation or pages",),
    ),
    "a camera's two pictures": (
        "x.jpg",
        saved(RED, "MPO", save_all=True, append_images=[BLUE]),
        "RGB",
        [(254, 0, 0)],
        ("animation or pages",),
    ),
    "colour profile": ("x.png", saved(RED, "PNG", icc_profile=ICC), "RGB", [(255, 0, 0)], ("colour profile",)),
    "other ending": ("x.jpg", saved(RED, "PNG"), "RGB", [(255, 0, 0)], ("other ending",)),
    "no ending": ("x", saved(RED, "PNG"), "RGB", [(255, 0, 0)], ("other ending",)),
}

NOISE = Image.frombytes("RGB", (64, 64), np.random.default_rng(0).bytes(64 * 64 * 3))
REFUSED = {
    "empty": (b"", "empty file"),
    "web page": (b"<!DOCTYPE html><html>", "not a readable image: starts with b'<!DOCTYP'"),
    "zeros": (bytes(5000), "not a readable image"),
    "PDF": (b"%PDF-1.7", "not a readable image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable image"),
    "not listed: PPM": (saved(RED, "PPM"), "not a readable image"),
    "not listed: ICO": (saved(Image.new("RGB", (16, 16)), "ICO"), "not a readable image"),
    "not listed: EPS": (saved(RED, "EPS"), "not a readable image"),
    "cut JPEG": (saved(NOISE, "JPEG")[:1500], "truncated"),
    "cut PNG": (saved(NOISE, "PNG")[:6000], "truncated|broken|error"),
    "cut WebP": (saved(NOISE, "WEBP")[:900], "BadImage|broken|could not|failed|error|truncated|not a readable"),
    "PNG with a flipped bit": (
        (lambda b: b[:200] + bytes([b[200] ^ 1]) + b[201:])(saved(NOISE, "PNG")),
        "broken|CRC|checksum|error",
    ),
    "32-bit integer": (saved(Image.new("I", (4, 4)), "TIFF"), "32-bit integer pixels; expected 8 or 16 bit"),
    "16-bit with a sign": (tiff(2, 16, struct.pack("<2h", -1, 1), kind=2), "32-bit integer pixels; expected 8 or 16"),
    "float": (saved(Image.new("F", (4, 4)), "TIFF"), "32-bit float pixels; expected 8 or 16 bit"),
    "64-bit float": (tiff(1, 64, struct.pack("<d", 0.5), kind=3), "not a readable image"),
    "Lab": (tiff(1, 8, bytes([50, 1, 2]), samples=3, photometric=8), "Lab colours; expected"),
    "bomb": (png(10_001, 8, 0, b"", height=10_000), "10001x10000 pixels, more than 100000000"),
    "giant bomb": (png(60_000, 8, 0, b"", height=60_000), "DecompressionBombError|60000x60000 pixels"),
    "zero width": (png(0, 8, 0, b""), "broken|not a readable|error|Error"),
}


@pytest.mark.parametrize("case", DEFINED)
def test_defined(tmp_path, case):
    """Every odd image has one defined result, and the audit calls it by the name in the policy's table."""
    name, content, mode, first, kinds = DEFINED[case]
    (tmp_path / name).write_bytes(content)
    image = decoding.decode(tmp_path / name)
    assert image.mode == mode
    pixels = [image.getpixel((i % image.width, i // image.width)) for i in range(len(first))]
    assert pixels == first
    assert kinds is None or decoding.describe(tmp_path / name).kinds == kinds
    assert set(kinds or ()) <= set(decoding.POLICY)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    """What has no defined meaning is refused with the reason, and never guessed."""
    content, reason = REFUSED[case]
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(BadImage, match=reason):
        decoding.decode(tmp_path / "x.png")


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 9_000)])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_very_long(size, crop_mode):
    """1x20000 pixels become an input like any other, without the gigabytes that the whole would be resized to."""
    strip = np.linspace(0, 255, max(size)).astype(np.uint8).reshape(size[1], -1)
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(strip, (size[1], size[0])))).convert("RGB")
    found = images.pixels(image, Input((3, 224, 224), crop_mode=crop_mode))
    assert found.shape == (3, 224, 224)
    if crop_mode == "center":
        assert set(found.flatten().tolist()) <= set(range(120, 136))  # the middle of black to white


@pytest.mark.parametrize("size", [(20, 900), (901, 33), (130, 4001), (1999, 150)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_the_part_equals_the_whole(monkeypatch, size, interpolation):
    """The centre of a long image, computed from the part it shows, is that of the whole one resized, to a level."""
    noise = np.random.default_rng(0).integers(80, 176, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)  # nothing near 0 or 255: where the filters overshoot, the order of passes tells
    spec = Input((3, 64, 64), interpolation=interpolation)
    whole = images.pixels(image, spec).int()
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    assert (images.pixels(image, spec).int() - whole).abs().max() <= 1


def test_every_orientation(tmp_path):
    """All eight EXIF orientations, and one that does not exist, which changes nothing."""
    for orientation in range(1, 10):
        (tmp_path / "x.png").write_bytes(turned(orientation, "PNG"))
        upright = decoding.decode(tmp_path / "x.png")
        assert upright.size == ((1, 2) if orientation in (5, 6, 7, 8) else (2, 1))
        corner = (0, 0, 0) if orientation in (1, 4, 5, 6, 9) else (255, 255, 255)
        assert upright.getpixel((0, 0)) == corner, orientation


def test_threads(tmp_path):
    """Images decode to the same pixels from many threads at once."""
    (tmp_path / "x.png").write_bytes(saved(NOISE, "PNG"))
    expected = decoding.content_digest(decoding.decode(tmp_path / "x.png"))
    found: list[str] = []

    def work() -> None:
        found.extend(decoding.content_digest(decoding.decode(tmp_path / "x.png")) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {expected}
    assert len(found) == 160


def test_the_table_in_the_docs():
    """The table in docs/data.md is the policy, line by line."""
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for kind, done in decoding.POLICY.items():
        assert f"| {kind} | {done} |" in page
