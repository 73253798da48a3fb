"""The one place that reads JSON strictly and publishes files: temp, fsync, replace."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from zoo_core.errors import BadJson, shown

MAX_JSON_BYTES = 64 << 20
MAX_JSON_DEPTH = 32


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it replaces `path` in one step.

    Readers see the old file or the new one, never a part. After an error nothing is left.
    """
    temp = _temporary(path)
    try:
        yield temp
        _settle(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def publish_new(path: Path, text: str) -> bool:
    """Publish a UTF-8 text file unless `path` is there already; of several processes at once exactly one does.

    A hard link is refused where its name is taken, in one step and without a lock. Where the file
    system has no hard links, the name is looked up first and two at once may both believe they won.

    Returns:
        Whether the file is ours; where it is not, the other one is as it was.
    """
    temp = _temporary(path)
    try:
        temp.write_text(text, encoding="utf-8")
        _sync(temp)
        try:
            os.link(temp, path)
        except FileExistsError:
            return False
        except OSError:
            if path.exists():
                return False
            os.replace(temp, path)
        _sync_folder(path.parent)
        return True
    finally:
        temp.unlink(missing_ok=True)


def publish_object(folder: Path, prefix: str, suffix: str, write: Callable[[Path], object]) -> Path:
    """Publish an immutable file named `{prefix}{sha256}{suffix}` by its own content; return its path."""
    temp = _temporary(folder / f"object{suffix}")
    try:
        write(temp)
        path = folder / f"{prefix}{sha256_file(temp)}{suffix}"
        _settle(temp, path)
        return path
    finally:
        temp.unlink(missing_ok=True)


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
        with open(path, "rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)  # a device or a pipe states no size
        if len(content) > MAX_JSON_BYTES:
            raise BadJson(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB; expected a small JSON file.")
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise BadJson(f"{path} cannot be read as JSON: {error}.") from error


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

    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}.tmp")


def _settle(temp: Path, path: Path) -> None:
    _sync(temp)
    os.replace(temp, path)
    _sync_folder(path.parent)


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
