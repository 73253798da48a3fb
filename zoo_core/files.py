"""The one place that reads JSON strictly and changes files: temp, fsync, then one step that publishes.

Everything that zoo writes goes through here, so that one test can fail each operation in turn: see
`tests/test_every_operation.py`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from zoo_core.errors import BadJson, DiskFull, shown
from zoo_core.unwritable import named

MAX_JSON_BYTES = 64 << 20
MAX_JSON_DEPTH = 32
DAMAGED = ".damaged"
TEMPORARY = re.compile(r"\.(?P<name>.*)\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp")
"""What a file is called until it is published; a killed writer leaves it: see `upkeep.strays`."""
_NO_LINKS = {getattr(errno, name) for name in ("EPERM", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "ENOSYS")}
"""What file systems without hard links answer."""


@contextmanager
def publishing(path: Path, *, size_bytes: int | None = None, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it replaces `path` in one step.

    Readers see the old file or the new one, never a part. After an error nothing is left.

    Args:
        size_bytes: what will be written, where it is known; said when it does not fit.
        sync: wait until it is on the disk; without it a power cut may leave a file of zeros under the name.

    Raises:
        DiskFull: it cannot be written; with the path, the needed and the free bytes.
    """
    with scratch(path, size_bytes) as temp:
        yield temp
        _settle(temp, path, sync)


@contextmanager
def scratch(path: Path, size_bytes: int | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`; afterwards no file is there.

    Raises:
        DiskFull: as for `publishing`.
    """
    with named(path, size_bytes):
        temp = _temporary(path)
        try:
            yield temp
        finally:
            _discard(temp)


@contextmanager
def publishing_folder(out: Path) -> Iterator[Path]:
    """Give a new folder `NAME.unfinished` to fill; on success it takes the place of `out`, which stays until then.

    What a killed process left of it goes first; after an error nothing is left.

    Raises:
        DiskFull: as for `publishing`.
    """
    part = out.with_name(out.name + ".unfinished")
    remove_tree(part)
    make_folder(part)
    try:
        with named(out):
            yield part
            for path in sorted(part.rglob("*")):
                if path.is_file():
                    _sync(path)
        take_name(part, out)
    finally:
        with suppress(OSError, DiskFull):
            remove_tree(part)


def take_name(part: Path, out: Path) -> None:
    """Rename a whole folder to `out`; one that has the name is moved aside first and goes last.

    Raises:
        DiskFull: it cannot be done; both are then as they were.
    """
    old, taken = out.with_name(out.name + ".replaced"), out.exists()
    try:
        if taken:
            remove_tree(old)
            move(out, old)
        move(part, out)
    except BaseException:
        if taken and not out.exists():
            with suppress(OSError, DiskFull):
                move(old, out)
        raise
    remove_tree(old)


def publish_new(path: Path, text: str) -> bool:
    """Publish a UTF-8 text file unless `path` is there already; of several processes at once exactly one does.

    A hard link is refused where its name is taken, in one step and without a lock. Where the file
    system has no hard links, the name is looked up first and two at once may both believe they won.

    Returns:
        Whether the file is ours; where it is not, the other one is as it was.

    Raises:
        DiskFull: as for `publishing`.
    """
    with scratch(path, len(text.encode())) as temp:
        temp.write_text(text, encoding="utf-8")
        _sync(temp)
        try:
            os.link(temp, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():
                return False
            os.replace(temp, path)
        _sync_folder(path.parent)
        return True


def publish_object(
    folder: Path, prefix: str, suffix: str, write: Callable[[Path], object], size_bytes: int | None = None
) -> Path:
    """Publish an immutable file named `{prefix}{sha256}{suffix}` by its own content; return its path.

    Raises:
        DiskFull: as for `publishing`.
    """
    with scratch(folder / f"{prefix}object{suffix}", size_bytes) as temp:
        write(temp)
        path = folder / f"{prefix}{sha256_file(temp)}{suffix}"
        _settle(temp, path)
        return path


@contextmanager
def appending(path: Path, size_bytes: int) -> Iterator[BinaryIO]:
    """Give a file to go on with at its end; what is written stays there after an error, to go on from later.

    Args:
        size_bytes: of the whole file; said when it does not fit.

    Raises:
        DiskFull: as for `publishing`.
    """
    with named(path, size_bytes), open(path, "ab") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        DiskFull: it cannot be made.
    """
    with named(path):
        os.makedirs(path, exist_ok=True)


def move(path: Path, to: Path) -> None:
    """Rename a file or folder on its own disk, in one step; a file at `to` is replaced.

    Raises:
        DiskFull: it cannot be done.
    """
    with named(to):
        os.replace(path, to)
        _sync_folder(to.parent)


def put_aside(path: Path) -> Path | None:
    """Rename a damaged file or folder to `NAME.damaged`, so that nobody reads it again and somebody may look at it.

    Returns:
        Its new path; None where that could not be done, or where another process was faster.
    """
    aside = path.with_name(path.name + DAMAGED)
    try:
        if aside.is_dir():
            remove_tree(aside)
        os.replace(path, aside)
    except OSError:
        return None
    return aside


def mark_used(path: Path) -> None:
    """Note that a file was used now: what was used longest ago goes first when a cache is full."""
    with suppress(OSError):  # a cache that is read only
        os.utime(path)


def remove(path: Path) -> bool:
    """Remove a file that may be gone already; whether it was there.

    Raises:
        DiskFull: the disk, or its owner, does not let it go.
    """
    with named(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True


def remove_tree(folder: Path) -> None:
    """Remove a folder and all that is in it; links are removed, not followed. One that is gone is no error.

    Raises:
        DiskFull: as for `remove`.
    """
    if folder.is_symlink() or folder.is_file():
        remove(folder)
        return
    with named(folder), suppress(FileNotFoundError):
        with os.scandir(folder) as found:
            entries = list(found)
        for entry in entries:
            here = Path(entry.path)
            remove_tree(here) if entry.is_dir(follow_symlinks=False) else remove(here)
        os.rmdir(folder)


def write_text(path: Path, text: str) -> None:
    """Publish a UTF-8 text file."""
    with publishing(path) as temp:
        temp.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Publish JSON with sorted keys, so that diffs stay small."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """JSON as `write_json` writes it."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read strict JSON: at most 64 MiB, no duplicate keys, finite numbers, 32 levels, no half characters.

    Raises:
        BadJson: with the file and what is wrong with it.
    """
    return parse_json(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read a UTF-8 text file of at most 64 MiB.

    Raises:
        BadJson: it is larger, missing or not UTF-8.
    """
    try:
        return small_text(path, MAX_JSON_BYTES)
    except (OSError, ValueError) as error:
        raise BadJson(f"{path} cannot be read as JSON: {error}.") from error


def small_text(path: Path, most_bytes: int) -> str:
    """Read a UTF-8 text file of a stated size at most.

    Raises:
        OSError, ValueError: it is missing, larger, not UTF-8, or no plain file: a pipe or a device may never end.
    """
    size = check_plain(path)
    with open(path, "rb") as file:
        content = file.read(min(size, most_bytes) + 1)  # not most_bytes: so much memory would be made ready
    if max(size, len(content)) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes >> 20} MiB; expected a small text file")
    return content.decode("utf-8")


def check_plain(path: Path) -> int:
    """Bytes of a plain file. Raises OSError for what is missing, or is a pipe, a device or a folder."""
    import stat

    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "no plain file, but a pipe or a device", str(path))
    return found.st_size


def parse_json(text: str, where: str) -> Any:
    """Parse strict JSON text; `where` names it in errors."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(pairs, where),
            parse_constant=_reject(where),
            parse_float=lambda token: _finite(token, where),
        )
    except (ValueError, RecursionError) as error:
        raise BadJson(f"{where} is not valid JSON: {error}.") from error
    _check_depth(value, where)
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise BadJson(f"{where} contains half of a surrogate pair; expected whole characters.") from error
    return value


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_depth(value: Any, where: str) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        holders = [v for v in level if isinstance(v, dict | list)]
        level = [child for v in holders for child in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return
    raise BadJson(f"{where} is nested deeper than {MAX_JSON_DEPTH} levels; expected a flatter file.")


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadJson(f"{where} has the key {shown(twice)} twice in one object; expected once.")
    return found


def _reject(where: str) -> Callable[[str], NoReturn]:
    def reject(token: str) -> NoReturn:
        raise BadJson(f"{where} contains {token}; expected finite numbers.")

    return reject


def _finite(token: str, where: str) -> float:
    value = float(token)
    if not math.isfinite(value):
        raise BadJson(f"{where} contains {token[:40]}; expected finite numbers.")
    return value


def _temporary(path: Path) -> Path:
    import socket

    os.makedirs(path.parent, exist_ok=True)
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}.tmp")


def _settle(temp: Path, path: Path, sync: bool = True) -> None:
    if sync:
        _sync(temp)
    os.replace(temp, path)
    if sync:
        _sync_folder(path.parent)


def _discard(temp: Path) -> None:
    """Remove a temporary file; where even that fails, the error that led here is the one to tell."""
    with suppress(OSError):
        os.unlink(temp)


def _sync(path: Path) -> None:
    with open(path, "rb") as written:
        os.fsync(written.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
