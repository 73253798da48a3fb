"""Examples that lie inside larger files become files of their own, in the cache, named by their bytes alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

from zoo_core.files import mark_used, publishing
from zoo_core.places import cache_folder

_MAGIC = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II": ".tif",
    b"MM": ".tif",
}


def keep(data: bytes, ending: str = "") -> Path:
    """Copy an example into the cache, named by its bytes alone; one that is there is compared, not trusted.

    Args:
        ending: of the file; by default told from an image's first bytes.

    Raises:
        DiskFull: it cannot be written.
    """
    if not ending:
        ending = next((e for start, e in _MAGIC.items() if data.startswith(start)), ".bin")
    path = cache_folder().absolute() / "members" / f"{hashlib.sha256(data).hexdigest()}{ending}"
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        mark_used(path)
        return path
    with publishing(path, size_bytes=len(data), sync=False) as temp:  # the next reading compares it
        temp.write_bytes(data)
    return path
