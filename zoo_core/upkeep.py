"""What lies in the cache: a list of it, whether it is sound, and what goes first when it grows too large.

Everything in it can be computed again, so nothing here asks. Used last means: a shelf was opened, or got a shard;
a copy or converted weights were read. What a run uses itself is never taken from it; another process that reads
what is removed has it mapped, and keeps it until it ends.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo_core.clock import STARTED as STARTED
from zoo_core.errors import BadJson
from zoo_core.files import DAMAGED, TEMPORARY, put_aside, read_json, remove_tree, sha256_file

ABOUT = "about.json"


@dataclass(frozen=True)
class Item:
    """What is kept, and goes, together: a shelf with its shards, converted weights, a copied example, scan notes.

    Attributes:
        kind: `activations`, `weights`, `members` or `scan`.
        what: in words.
        used: when last, in seconds since 1970.
    """

    kind: str
    path: Path
    what: str
    files: int
    size_bytes: int
    used: float


@dataclass(frozen=True)
class Pruned:
    """What was removed.

    Attributes:
        strays: temporary files of killed writers.
        damaged: files that had been put aside.
        items: those that were used longest ago.
        freed_bytes: by all of them.
    """

    strays: Sequence[Path] = ()
    damaged: Sequence[Path] = ()
    items: Sequence[Item] = ()
    freed_bytes: int = 0


@dataclass
class Checked:
    """How many files were read again, and those that were not what their names say, put aside."""

    sound: int = 0
    damaged: list[Path] = field(default_factory=list)


def items(folder: Path) -> list[Item]:
    """What a cache holds, used longest ago first."""
    found = [_shelf(path) for path in folder.glob("activations/*") if path.is_dir()]
    found += [_file("weights", "converted weights", path) for path in folder.glob("weights/*.safetensors")]
    found += [_file("members", "copied out of a larger file", path) for path in folder.glob("members/[!.]*")]
    found += [_file("scan", "what a scan saw", path) for path in folder.glob("scan/*/*.json")]
    return sorted(filter(None, found), key=lambda item: (item.used, item.path))


def about(shelf: Path) -> dict[str, Any] | None:
    """What a shelf's rows depend on, if its note is there and belongs to the shelf; a damaged one is put aside."""
    path = shelf / ABOUT
    with suppress(BadJson):
        found = read_json(path)
        if isinstance(found, dict) and key_of(found) == shelf.name:
            return found
    if path.exists():
        put_aside(path)
    return None


def key_of(depends: Any) -> str:
    """The name of the shelf whose rows depend on this."""
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:32]


def verify(folder: Path) -> Checked:
    """Read every file again and compare it with its name; damaged ones are put aside, and computed when needed."""
    checked = Checked()
    for path in _named_by_content(folder):
        with suppress(OSError):  # pruned meanwhile
            if sha256_file(path) == path.stem.rpartition("-")[2]:
                checked.sound += 1
            else:
                put_aside(path)
                checked.damaged.append(path)
    for shelf in folder.glob("activations/*"):
        there = (shelf / ABOUT).exists()
        if about(shelf):
            checked.sound += 1
        elif there:
            checked.damaged.append(shelf / ABOUT)
    return checked


def prune(folder: Path, cap_bytes: int, *also: Path) -> Pruned:
    """Remove what killed writers left, what was put aside or is empty, and what was used longest ago until it fits.

    Args:
        also: other folders in which killed writers may have left something.
    """
    left = [path for place in (folder, *also) for path in strays(place)]
    aside = sorted(folder.rglob(f"*{DAMAGED}"))
    freed = sum(_size(path) for path in (*left, *aside))
    for path in (*left, *aside):
        remove_tree(path)
    gone = trim(folder, cap_bytes)
    for shelf in folder.glob("activations/*"):
        if not list(shelf.glob("*.safetensors")):
            remove_tree(shelf)
    return Pruned(left, aside, gone, freed + sum(item.size_bytes for item in gone))


def trim(folder: Path, cap_bytes: int, since: float = math.inf) -> list[Item]:
    """Remove what was used longest ago until the rest fits; what was used `since` then stays in any case."""
    there = items(folder)
    size, gone = sum(item.size_bytes for item in there), []
    for item in there:
        if size <= cap_bytes or item.used >= since:
            break
        remove_tree(item.path)
        size -= item.size_bytes
        gone.append(item)
    return gone


def strays(folder: Path) -> list[Path]:
    """Temporary files that killed writers left in a folder and below it; those of living writers are not listed.

    Of writers on other machines only those are listed whose file is older than a day.
    """
    import socket

    found = []
    for path in folder.rglob(".*.tmp"):
        parts = TEMPORARY.fullmatch(path.name)
        if not parts:
            continue
        with suppress(OSError):
            here = parts["name"].endswith("." + socket.gethostname())
            if not _alive(int(parts["pid"])) if here else time.time() - path.stat().st_mtime > 86_400:
                found.append(path)
    return found


def _named_by_content(folder: Path) -> Iterator[Path]:
    """Files whose names end in their own sha256."""
    for pattern in ("activations/*/*.safetensors", "weights/*.safetensors", "members/[!.]*", "scan/*/*.json"):
        yield from (path for path in folder.glob(pattern) if path.suffix != DAMAGED)


def _shelf(path: Path) -> Item | None:
    files = [p for p in path.iterdir() if p.suffix == ".safetensors"]
    if not files:
        return None
    depends = about(path) or {}
    size = "x".join(map(str, depends.get("input", {}).get("size", ())))
    words = (depends.get("architecture", ""), depends.get("kind", "of unknown use"), size)
    what = " ".join(filter(None, words))
    if depends.get("kind") == "boundary":
        what += f", {depends['depth']} stages"
    used = max((_used(p) for p in (path, path / ABOUT, *files)), default=0.0)
    return Item("activations", path, what, len(files), sum(map(_size, files)), used)


def _file(kind: str, what: str, path: Path) -> Item | None:
    if path.suffix == DAMAGED:
        return None
    return Item(kind, path, what, 1, _size(path), _used(path))


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _used(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
