"""Examples that lie inside larger files become files of their own, in the cache, named by their bytes alone."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from zoo_core.errors import DiskFull
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
    temp = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        temp.write_bytes(data)  # not waited for until it is on the disk: the next reading compares it
        os.replace(temp, path)
    except OSError as error:
        with suppress(OSError):
            temp.unlink()
        free = shutil.disk_usage(next(p for p in path.parents if p.exists())).free
        raise DiskFull(
            f"{path} cannot be written: {error.strerror}. It needs {len(data)} bytes, {free} are free. "
            f"Free some space, or name another cache folder in ZOO_CACHE."
        ) from error
    return path
