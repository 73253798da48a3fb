"""The one place that reads JSON strictly and publishes files: temp, fsync, replace."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from zoo_core.errors import BadJson

MAX_JSON_BYTES = 64 << 20


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
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read strict JSON: at most 64 MiB, no duplicate keys, finite numbers, bounded nesting.

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
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BadJson(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB; expected a small JSON file.")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadJson(f"{path} cannot be read as JSON: {error}.") from error


def parse_json(text: str, where: str) -> Any:
    """Parse strict JSON text; `where` names it in errors."""
    try:
        return json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(pairs, where),
            parse_constant=_reject(where),
            parse_float=lambda token: _finite(token, where),
        )
    except (ValueError, RecursionError) as error:
        raise BadJson(f"{where} is not valid JSON: {error}.") from error


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadJson(f"{where} has the key {twice!r} twice in one object; expected once.")
    return found


def _reject(where: str) -> Callable[[str], NoReturn]:
    def reject(token: str) -> NoReturn:
        raise BadJson(f"{where} contains {token}; expected finite numbers.")

    return reject


def _finite(token: str, where: str) -> float:
    value = float(token)
    if not math.isfinite(value):
        raise BadJson(f"{where} contains {token}; expected finite numbers.")
    return value


def _temporary(path: Path) -> Path:
    import socket

    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}.tmp")


def _settle(temp: Path, path: Path) -> None:
    with open(temp, "rb") as written:
        os.fsync(written.fileno())
    os.replace(temp, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
