"""Entry points of installed packages, read as `importlib.metadata` reads them, without importing it.

That module brings the standard library's e-mail, socket and zip code: a sixth of what `zoo list` costs. Only what
installers write is read: `*.dist-info` and `*.egg-info` folders on the path.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Distribution:
    """An installed package, as its metadata names it."""

    name: str
    version: str

    @property
    def requires(self) -> list[str] | None:
        """What it states that it needs."""
        from importlib.metadata import requires

        return requires(self.name)


@dataclass(frozen=True)
class Point:
    """One entry point: a name, and `module` or `module:attribute`."""

    name: str
    value: str
    dist: Distribution

    def load(self) -> Any:
        """Import the module; the attribute of it where one is named."""
        module, _, attribute = self.value.partition("[")[0].partition(":")
        found: Any = import_module(module.strip())
        for part in filter(None, attribute.strip().split(".")):
            found = getattr(found, part)
        return found


def installed_points(group: str) -> tuple[list[Point], dict[Distribution, str]]:
    """Entry points of a group, and the packages whose list of them cannot be read, with the reason."""
    points: list[Point] = []
    damaged: dict[Distribution, str] = {}
    marker = f"[{group}]".encode()
    for folder in _folders():
        try:
            with open(os.path.join(folder, "entry_points.txt"), "rb") as file:
                data = file.read()
        except OSError:
            continue
        if marker not in data:
            continue
        dist = _distribution(folder)
        try:
            points += [Point(name, value, dist) for name, value in _section(data.decode("utf-8"), group)]
        except ValueError as error:
            damaged[dist] = type(error).__name__
    return points, damaged


def _folders() -> Iterator[str]:
    """Metadata folders on the path; of two of one package the first, as in an import."""
    seen: set[str] = set()
    for place in dict.fromkeys(sys.path):
        try:
            names = os.listdir(place or ".")
        except OSError:  # no folder
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                package = re.split(r"-|\.(?:dist|egg)-info$", name, maxsplit=1)[0].lower().replace(".", "_")
                if package not in seen:
                    seen.add(package)
                    yield os.path.join(place, name)


def _distribution(folder: str) -> Distribution:
    """Name and version, from the head of the metadata; `unknown` where it does not say."""
    found = {"name": "unknown", "version": ""}
    for file in ("METADATA", "PKG-INFO"):
        try:
            with open(os.path.join(folder, file), encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if not line.strip():
                        break
                    key, _, value = line.partition(":")
                    if key.lower() in found:
                        found[key.lower()] = value.strip()
        except OSError:
            continue
    return Distribution(**found)


def _section(text: str, group: str) -> Iterator[tuple[str, str]]:
    """(name, value) of each line of one section.

    Raises:
        ValueError: a line is neither empty, a comment, a heading, nor `name = value`.
    """
    here = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            here = line[1:-1]
        elif line and not line.startswith("#") and here == group:
            name, equals, value = line.partition("=")
            if not equals:
                raise ValueError(f"{line!r} is no entry point")
            yield name.strip(), value.strip()
