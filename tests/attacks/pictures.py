"""Hostile images: bombs, truncated ones, polyglots, headers that lie, and files that are something else."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

from beyond import Attack
from PIL import Image, PngImagePlugin

LINES = (
    "audit photos",
    "finetune photos -b tiny/net --epochs 1 --device cpu --out out",
    "predict run photos/red/odd.png",
    "eval run photos",
)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *more: bytes, depth: int = 8, colour: int = 2, body: bytes = b"\0") -> bytes:
    """A PNG that claims a size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + data + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A TIFF with one directory of (tag, type, count, value), and where the next directory is said to be."""
    out = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    return out + b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", following) + bytes(64)


def bmp(width: int, height: int, bits: int = 24, offset: int = 54, compression: int = 0, body: bytes = b"") -> bytes:
    """A BMP that claims a size."""
    header = struct.pack("<2sIHHI", b"BM", 54 + len(body), 0, 0, offset)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0) + body


def gif(width: int, height: int, frames: int = 1, left: int = 0) -> bytes:
    """A GIF that claims a size, and has many frames beside it."""
    frame = b"," + struct.pack("<4H", left, left, 1, 1) + b"\0\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * frames + b";"


def noise() -> Image.Image:
    """A small image that does not compress."""
    return Image.effect_noise((64, 64), 80).convert("RGB")


def text_bomb() -> bytes:
    """A PNG whose comment grows to 64 MB."""
    comment = zlib.compress(bytes(64 << 20))
    return png(1, 1, *(chunk(b"zTXt", b"Comment%d\0\0" % i + comment) for i in range(20)), body=b"\0\0\0\0")


def profile_bomb() -> bytes:
    """A PNG whose colour profile grows to 256 MB."""
    return png(1, 1, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(256 << 20))), body=b"\0\0\0\0")


def polyglot() -> bytes:
    """An image that is a zip as well, with a name that climbs."""
    buffer = io.BytesIO(saved(noise(), "PNG"))
    buffer.seek(0, 2)
    with zipfile.ZipFile(buffer, "a") as out:
        out.writestr("../../escaped", "x")
    return buffer.getvalue()


def commented() -> bytes:
    """A PNG with markup in its text chunks."""
    info = PngImagePlugin.PngInfo()
    info.add_text("<script>", "</textarea><script>alert(1)</script>\x1b[2J")
    return saved(noise(), "PNG", pnginfo=info)


def exif_loop() -> bytes:
    """A JPEG whose EXIF directory is its own successor."""
    directory = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    return saved(noise(), "JPEG", exif=b"Exif\0\0" + directory)


CUT = {form: saved(noise(), form) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")}
FILES: dict[str, bytes] = {
    "bomb-png": png(60_000, 60_000),
    "bomb-png-allowed": png(10_000, 9_999, body=bytes(1000)),
    "bomb-png-wide": png(2**31 - 1, 1),
    "bomb-png-negative": png(2**32 - 1, 2**32 - 1),
    "bomb-png-zero": png(0, 0),
    "bomb-png-deep": png(50_000, 50_000, depth=16, colour=6),
    "bomb-png-text": text_bomb(),
    "bomb-png-profile": profile_bomb(),
    "bomb-bmp": bmp(100_000, 100_000),
    "bomb-bmp-negative": bmp(-1, -1),
    "bomb-bmp-least": bmp(-(2**31), -(2**31)),
    "bomb-bmp-runs": bmp(9_000, 9_000, bits=8, compression=1, body=b"\xff\x01" * 100),
    "bmp-offset": bmp(4, 4, offset=2**31),
    "bomb-gif": gif(65_535, 65_535),
    "gif-frames": gif(1, 1, frames=50_000),
    "gif-outside": gif(1, 1, left=60_000),
    "bomb-webp": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\xff\xff\xff\xff\xff\xff" + bytes(8),
    "bomb-jpeg": CUT["JPEG"].replace(b"\x08\x00\x40\x00\x40", b"\x08\xff\xff\xff\xff", 1),
    "tiff-loop": tiff((256, 4, 1, 4), (257, 4, 1, 4), following=8),
    "tiff-count": tiff((256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 2**32 - 1, 8)),
    "tiff-offset": tiff((256, 4, 1, 4), (257, 4, 1, 4), (273, 4, 1, 2**32 - 1), (279, 4, 1, 2**32 - 1)),
    "tiff-strips": tiff((256, 4, 1, 9_000), (257, 4, 1, 9_000), (262, 3, 1, 1), (273, 4, 2**31, 8)),
    "tiff-huge": tiff((256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1), (262, 3, 1, 1)),
    "tiff-tags": struct.pack("<2sHIH", b"II", 42, 8, 65_535) + b"\xff" * 700_000,
    "tiff-jpeg-inside": tiff((256, 4, 1, 4), (257, 4, 1, 4), (259, 3, 1, 7), (273, 4, 1, 8), (279, 4, 1, 32)),
    "exif-loop": exif_loop(),
    "exif-long": saved(noise(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 60_000),
    "png-comment": commented(),
    "polyglot-zip": polyglot(),
    "polyglot-html": b"GIF89a/*" + saved(noise(), "GIF")[8:] + b"*/=1;alert(1)",
    "polyglot-pickle": saved(noise(), "JPEG") + b"cposix\nsystem\n(S'touch ../escaped'\ntR.",
    "html": b"<!DOCTYPE html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "svg-entities": b'<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>',
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(../escaped) (w) file closefile\n",
    "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>",
    "xbm-code": b"#define im_width 9\n#define im_height 9\nstatic char im_bits[] = {};",
    "fits": b"SIMPLE  =                    T" + bytes(2_880),
    "wmf": b"\xd7\xcd\xc6\x9a" + bytes(100),
    "pickle": b"\x80\x05cposix\nsystem\n(S'touch ../escaped'\ntR.",
    "elf": b"\x7fELF" + bytes(200),
    "magic-only-png": b"\x89PNG\r\n\x1a\n",
    "magic-only-jpeg": b"\xff\xd8\xff",
    "magic-only-gif": b"GIF89a",
    "zeros": bytes(100_000),
}
FILES |= {f"cut-{form.lower()}": content[: len(content) // 2] for form, content in CUT.items()}
FILES |= {f"flipped-{form.lower()}": c[:40] + bytes([c[40] ^ 255]) + c[41:] for form, c in CUT.items()}


def attacks() -> Iterator[Attack]:
    """Each in a class folder, and given to a run."""
    for name, content in FILES.items():
        yield Attack(f"image-{name}", lambda p, c=content: (p / "photos/red/odd.png").write_bytes(c), LINES)
