"""A folder of small JSON files, one for each key: any number of processes may write at once, without a lock.

The registry's entries and the digests recorded by `pull` are kept so. A key never becomes a path: its
file is named by the key's digest, and a file that is a link to elsewhere is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo_core.errors import BadJson, LinkRefused, ZooError, shown
from zoo_core.files import json_text, publish_new, read_json, remove, write_text
from zoo_core.sealed import SEAL, is_broken, seal

Opener = Callable[[Any, Path], dict[str, Any]]
"""Takes what a file holds and gives its keys and values; raises a ZooError that names the file."""


def entry_path(folder: Path, key: str) -> Path:
    """The file of a key: named by a digest, so that no key can lead out of the folder."""
    import hashlib

    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def publish_entry(folder: Path, key: str, value: dict[str, Any], *, replace: bool) -> bool:
    """Write the file of a key in one step.

    Returns:
        False if the key has a file already and `replace` is not set; that file is then as it was.
    """
    path, text = entry_path(folder, key), json_text(seal(value))
    if not replace:
        return publish_new(path, text)
    write_text(path, text)
    return True


def remove_entry(folder: Path, key: str) -> Path | None:
    """Remove the file of a key; None where there was none.

    Raises:
        LinkRefused: a folder is in its place, or nobody may remove it.
    """
    path = entry_path(folder, key)
    try:
        return path if remove(path) else None
    except OSError as error:
        raise LinkRefused(f"{path} cannot be removed: {error.strerror}. Look at what is there.") from error


def read_entry_folder(folder: Path, opened: Opener) -> tuple[dict[str, Any], list[str]]:
    """Keys and values of all files, and a line for each file that cannot be used; the others stay usable."""
    entries: dict[str, Any] = {}
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            entries |= read_entry_file(path, opened)
        except FileNotFoundError:
            continue  # removed by another process since it was listed
        except ZooError as error:
            problems.append(str(error))
    return entries, problems


def read_entry_file(path: Path, opened: Opener) -> dict[str, Any]:
    """Key and value of one file.

    Raises:
        LinkRefused: it is a link, or shared with a name outside the folder.
        BadJson: it is not strict JSON, or not the file of the key that it holds.
    """
    refuse_links(path)
    value = read_json(path)
    if is_broken(value):
        raise BadJson(
            f"{path} is not what was written: its {SEAL} is another one. Register it again; or take {SEAL} out of it "
            "where you changed it yourself."
        )
    found = opened(value, path)
    for key in found:
        if entry_path(path.parent, key) != path:
            raise BadJson(f"{path} holds {shown(key)}, whose file has another name. Register it: zoo register --help.")
    return found


def refuse_links(path: Path) -> None:
    """Raise `LinkRefused` unless `path` is a regular file that has no name outside its folder.

    A symbolic link can be made to point anywhere, and a file with a second name changes through it.
    """
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise LinkRefused(f"{path} is no regular file; expected no links here. Put a copy in its place.")
    if status.st_nlink > 1:  # a writer at work, or killed at it, has a second name in the same folder
        here = sum(_inode(other) == status.st_ino for other in path.parent.iterdir())
        if here < os.lstat(path).st_nlink:
            raise LinkRefused(f"{path} is a hard link to a file elsewhere. Put a copy in its place.")


def _inode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:  # a writer's second name, gone since it was listed
        return None
