"""What scans saw of files, kept in the cache by each file's own sha256, so that the next scan need not look again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from zoo_core.errors import BadJson
from zoo_core.files import publish_object, put_aside, read_json, sha256_file

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOOK = re.compile(r"(|=[0-9a-f]+|[A-Za-z0-9+/]{216})")  # none, of a text, of an image


def add(folder: Path, fresh: Mapping[str, tuple[str, str]]) -> None:
    """Write down what was seen."""
    if fresh:
        publish_object(folder, "", ".json", lambda temp: temp.write_text(json.dumps(fresh)))


def read(folder: Path) -> dict[str, tuple[str, str]]:
    """What earlier scans saw, by the file's sha256; of damaged notes the images are simply looked at again."""
    notes: dict[str, tuple[str, str]] = {}
    for file in folder.glob("*.json"):
        with suppress(OSError):  # pruned, or put aside by another process
            found = _noted(file) if sha256_file(file) == file.stem else None
            if found is None:
                put_aside(file)
            notes |= found or {}
    return notes


def _noted(file: Path) -> dict[str, tuple[str, str]] | None:
    """What one scan saw; None for what no scan wrote."""
    try:
        found = {sha: (content, look) for sha, (content, look) in read_json(file).items()}
    except (BadJson, ValueError, TypeError, AttributeError):
        return None
    whole = all(_DIGEST.fullmatch(str(content)) and _LOOK.fullmatch(str(look)) for content, look in found.values())
    return found if whole else None
