"""Finding plugins: each entry point is loaded and called on its own, so a broken one breaks only itself."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import os
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo_core.errors import AmbiguousName, PluginBroken, UnknownStrategy, UsageError, near
from zoo_core.hookspecs import METHODS, SPECS, manager

GROUP = "zoo"
CORE = "zoo-core"


@dataclass(frozen=True)
class Plugin:
    """One installed plugin, loaded or broken.

    Attributes:
        name: the entry point's name.
        distribution: the installed package, as in `pip install`.
        version: of the distribution.
        supplies: kind -> name -> class.
        seconds: time it took to load and call.
        error: one line saying why it is broken; empty when it is not.
        traceback: the whole story of the error.
    """

    name: str
    distribution: str
    version: str
    supplies: Mapping[str, Mapping[str, type]] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Plugins:
    """Everything that was found, asked by kind and name."""

    found: tuple[Plugin, ...]

    @property
    def broken(self) -> tuple[Plugin, ...]:
        return tuple(p for p in self.found if p.error)

    def supplied(self, kind: str) -> dict[str, list[tuple[Plugin, type]]]:
        """Name -> everyone who supplies it, sorted by name."""
        result: dict[str, list[tuple[Plugin, type]]] = {}
        for plugin in self.found:
            for name, cls in plugin.supplies.get(kind, {}).items():
                result.setdefault(name, []).append((plugin, cls))
        return dict(sorted(result.items()))

    def get(self, kind: str, name: str) -> type:
        """The class behind `name` or `distribution:name`.

        Raises:
            UnknownStrategy: nobody supplies it; near names are given.
            AmbiguousName: two packages supply it.
            PluginBroken: nobody supplies it, and a broken plugin may have been meant to.
        """
        wanted, _, short = name.rpartition(":")
        offers = [(p, c) for p, c in self.supplied(kind).get(short, []) if wanted in ("", p.distribution)]
        if len(offers) == 1:
            return offers[0][1]
        if offers:
            names = " or ".join(f"{p.distribution}:{short}" for p, _ in offers)
            raise AmbiguousName(f"two packages supply the {kind} {short!r}; ask for {names}.")
        for plugin in self.broken:
            if wanted == plugin.distribution or short in (plugin.name, plugin.distribution):
                raise PluginBroken(f"{plugin.distribution} is installed but broken: {plugin.error} See 'zoo plugins'.")
        known = list(self.supplied(kind))
        raise UnknownStrategy(
            f"unknown {kind} {name!r}. {near(short, known)} Installed: {', '.join(known) or 'none'}. "
            "Type 'zoo strategies' for their options."
        )

    def name_of(self, kind: str, cls: type) -> str:
        """The name under which `cls` is supplied, with its distribution where that is needed."""
        for name, offers in self.supplied(kind).items():
            for plugin, offered in offers:
                if offered is cls:
                    return name if len(offers) == 1 else f"{plugin.distribution}:{name}"
        raise UnknownStrategy(
            f"{cls.__name__} is no {kind} that an installed plugin supplies. Register it with a hook: see README.md."
        )


def discover(entry_points: Iterable[Any] | None = None, environ: Mapping[str, str] | None = None) -> Plugins:
    """Load every plugin: the core's own first, then the entry points of group `zoo`, sorted.

    `ZOO_PLUGINS` (comma-separated entry-point or distribution names; empty: none) is an allow list,
    `ZOO_DISABLE` a deny list; both act before anything is imported.
    """
    environ = os.environ if environ is None else environ
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=GROUP)
    allowed, denied = _names(environ.get("ZOO_PLUGINS")), _names(environ.get("ZOO_DISABLE")) or set()
    found = [_load("core", CORE, _version(), lambda: _import("zoo_core.builtin"))]
    unique = {(ep.name, ep.value): ep for ep in entry_points}
    for _, ep in sorted(unique.items()):
        distribution = ep.dist.name if ep.dist else "unknown"
        names = {ep.name, distribution}
        if names & denied or (allowed is not None and not names & allowed):
            continue
        found.append(_load(ep.name, distribution, ep.dist.version if ep.dist else "", ep.load))
    return Plugins(tuple(found))


def _load(name: str, distribution: str, version: str, load: Any) -> Plugin:
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries results only
            supplies = _call(load())
        return Plugin(name, distribution, version, supplies, time.perf_counter() - start)
    except (Exception, SystemExit) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".") + "."
        return Plugin(name, distribution, version, {}, time.perf_counter() - start, line, traceback.format_exc())


def _call(module: Any) -> dict[str, dict[str, type]]:
    """Register one plugin alone in a manager of its own and call each of its hooks."""
    _check_hooks(module)
    pm = manager()
    pm.register(module)
    pm.check_pending()
    supplies: dict[str, dict[str, type]] = {}
    for kind, hook in SPECS.items():
        for implementation in getattr(pm.hook, hook).get_hookimpls():
            supplies[kind] = _checked(kind, hook, implementation.function())
    return supplies


def _check_hooks(module: Any) -> None:
    """pluggy ignores an unmarked or misspelt hook in silence; a user would look for it for hours."""
    for name, routine in inspect.getmembers(module, inspect.isroutine):
        if name.startswith("zoo_"):
            if name not in SPECS.values():
                raise UsageError(f"{name} is no hook. {near(name, SPECS.values())}")
            if not hasattr(routine, "zoo_impl"):
                raise UsageError(f"{name} lacks the marker @hookimpl (from zoo_core import hookimpl).")


def _checked(kind: str, hook: str, result: Any) -> dict[str, type]:
    if not isinstance(result, dict):
        raise UsageError(f"{hook} returned {type(result).__name__}; expected a dict of name to class.")
    for name, cls in result.items():
        if not isinstance(name, str) or not isinstance(cls, type):
            raise UsageError(f"{hook} returned {name!r}: {cls!r}; expected a name and a class.")
        lacking = [m for m in METHODS[kind] if not hasattr(cls, m)]
        if lacking:
            raise UsageError(
                f"{hook}: {cls.__name__} has no {lacking[0]!r}; a {kind} needs {', '.join(METHODS[kind])}."
            )
    return result


def _names(value: str | None) -> set[str] | None:
    return None if value is None else {part.strip() for part in value.split(",") if part.strip()}


def _import(name: str) -> Any:
    return importlib.import_module(name)


def _version() -> str:
    try:
        return importlib.metadata.version(CORE)
    except importlib.metadata.PackageNotFoundError:
        return "checkout"
