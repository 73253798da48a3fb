"""What to say where a file cannot be written: which one, why, what it needs, and how many bytes are free."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo_core.errors import DiskFull
from zoo_core.places import cache_folder, home_folder

_UNWRITABLE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENOTDIR", "ENAMETOOLONG")
    if hasattr(errno, name)
}


@contextmanager
def named(path: Path, size_bytes: int | None = None) -> Iterator[None]:
    """Say which file could not be written, what it needs and what is free, in the place of a bare OSError.

    Raises:
        DiskFull: a write inside failed for want of space, permission or a sound disk.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error, path)
        if not reason:
            raise
        raise DiskFull(f"{path} cannot be written: {reason}. {_room(path, size_bytes)}") from error


def _reason(error: Exception, path: Path) -> str:
    """Why a file could not be written, if that is what an error says: safetensors has a class of its own for it."""
    number = re.search(r"os error (\d+)", str(error)) if type(error).__name__ == "SafetensorError" else None
    code = error.errno if isinstance(error, OSError) else int(number[1]) if number else None
    if code is None or code not in _UNWRITABLE:
        return ""
    name = getattr(error, "filename", None)
    if isinstance(name, str | os.PathLike):
        at, here = Path(os.fspath(name)).absolute(), path.absolute()
        if here.parent not in at.parents and at not in here.parents:
            return ""  # another file, that was read
    return os.strerror(code)


def _room(path: Path, size_bytes: int | None) -> str:
    import shutil

    needs = f"It needs {size_bytes:,} bytes; " if size_bytes is not None else ""
    try:
        free = shutil.disk_usage(next(p for p in (path, *path.absolute().parents) if p.is_dir())).free
        room = f"{free:,} bytes are free there. "
    except (OSError, StopIteration):
        room = "how many are free there cannot be told. "
    folders = {"ZOO_CACHE": cache_folder(), "ZOO_HOME": home_folder()}
    by = next((f" ({name})" for name, folder in folders.items() if folder.absolute() in path.absolute().parents), "")
    return f"{needs}{room}Free some space or give another folder{by}, then type the same command again: it goes on."
