"""Digests of weights whose card states none, recorded when the user first pulled them: `ZOO_HOME/pins.d`.

From then on the same file is expected: a hub repository that changes under its name is noticed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo_core.card import Source, is_sha256
from zoo_core.entries import entry_path, publish_entry, read_entry_file
from zoo_core.errors import BadJson, shown
from zoo_core.places import home_folder

SCHEMA = 1


def pinned(source: Source) -> Source:
    """The source with the digest that was recorded for it, where it has none of its own.

    Raises:
        BadJson, LinkRefused: the record cannot be read.
    """
    if source.sha256 or not source.uri.startswith("hf:"):
        return source
    path = entry_path(_folder(), source.uri)
    if not path.exists():
        return source
    record = read_entry_file(path, _pins_of)[source.uri]
    return replace(source, sha256=record["sha256"], size_bytes=record["size_bytes"])


def record(source: Source, sha256: str, size_bytes: int) -> bool:
    """Record the digest of a source; False if another process recorded one in the meantime."""
    value = {"schema": SCHEMA, "pins": {source.uri: {"sha256": sha256, "size_bytes": size_bytes}}}
    return publish_entry(_folder(), source.uri, value, replace=False)


def _folder() -> Path:
    return home_folder() / "pins.d"


def _pins_of(data: Any, path: Path) -> dict[str, Any]:
    """The content of a record, checked."""
    pins = data.get("pins") if isinstance(data, dict) and data.get("schema") == SCHEMA else None
    if not isinstance(pins, dict) or len(pins) != 1:
        raise BadJson(f"{path} is no record of a digest. Remove it, and pull the weights again.")
    for uri, pin in pins.items():
        sound = isinstance(pin, dict) and isinstance(pin.get("sha256"), str) and type(pin.get("size_bytes")) is int
        if not sound or not is_sha256(pin["sha256"]):
            raise BadJson(f"{path} holds no digest for {shown(uri)}. Remove it, and pull the weights again.")
    return pins
