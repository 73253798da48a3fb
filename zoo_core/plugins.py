"""Finding plugins: each entry point is loaded and called on its own, so a broken one breaks only itself."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zoo_core.contracts import supplies_of
from zoo_core.errors import AmbiguousName, PluginBroken, UnknownStrategy, UsageError, ZooError, near
from zoo_core.points import Distribution, Point, installed_points
from zoo_core.watching import watched

GROUP = "zoo"
CORE = "zoo-core"
_VALUE = re.compile(r"[\w.]+\s*(:\s*[\w.]+)?\s*(\[.*\])?")


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
        notes: what it did while it was loaded and should not, a sentence each.
        module: the entry point's value, `module` or `module:attribute`.
    """

    name: str
    distribution: str
    version: str
    supplies: Mapping[str, Mapping[str, type]] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()
    module: str = ""


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
        lost = ", ".join(sorted({p.distribution for p in self.broken}))
        hint = f"Broken, and may supply it: {lost}; see 'zoo plugins'." if lost else ""
        raise UnknownStrategy(
            f"unknown {kind} {name!r}. {near(short, known)} Installed: {', '.join(known) or 'none'}. {hint} "
            "Type 'zoo strategies' for their options."
        )

    def named(self, name: str) -> list[Plugin]:
        """The plugins of that entry-point or distribution name, at least one.

        Raises:
            UsageError: there is none; near names are given.
        """
        chosen = [p for p in self.found if name in (p.name, p.distribution)]
        if not chosen:
            names = [p.distribution for p in self.found]
            raise UsageError(f"no plugin {name!r}. {near(name, names)} Installed: {', '.join(names)}.")
        return chosen

    def name_of(self, kind: str, cls: type) -> str:
        """The name under which `cls` is supplied, with its distribution where that is needed."""
        for name, offers in self.supplied(kind).items():
            for plugin, offered in offers:
                if offered is cls:
                    return name if len(offers) == 1 else f"{plugin.distribution}:{name}"
        raise UnknownStrategy(
            f"{cls.__name__} is no {kind} that an installed plugin supplies. Register it with a hook: see README.md."
        )


def discover(
    entry_points: Iterable[Any] | None = None, environ: Mapping[str, str] | None = None, core: bool = True
) -> Plugins:
    """Load every plugin: the core's own first, then the entry points of group `zoo`, sorted.

    Without `core` its strategies are left out: it supplies no backbones, and looking at those need not wait for it.

    `ZOO_PLUGINS` (comma-separated entry-point or distribution names; empty: none) is an allow list,
    `ZOO_DISABLE` a deny list; both act before anything is imported.
    """
    environ = os.environ if environ is None else environ
    damaged: list[Plugin] = []
    if entry_points is None:
        entry_points, unread = installed_points(GROUP)
        for dist, why in unread.items():
            line = f"its entry_points.txt cannot be read ({why}). Install it again."
            damaged.append(Plugin(dist.name, dist.name, dist.version, error=line, traceback=line))
    allowed, denied = _names(environ.get("ZOO_PLUGINS")), _names(environ.get("ZOO_DISABLE")) or set()

    def wanted(names: set[str]) -> bool:
        return not names & denied and (allowed is None or bool(names & allowed))

    found = []
    if core:
        version = _version(CORE) or "checkout"
        found.append(_load(Point("core", "zoo_core.builtin", Distribution(CORE, version)), CORE, version))
    unique = {(ep.name, ep.value): ep for ep in entry_points}
    for _, ep in sorted(unique.items()):
        distribution, version = _origin(ep)
        if wanted({ep.name, distribution}):
            found.append(_without_repeats(_load(ep, distribution, version), found))
    return Plugins((*found, *(plugin for plugin in damaged if wanted({plugin.name}))))


def strict(environ: Mapping[str, str] | None = None) -> bool:
    """Whether `ZOO_STRICT` asks that a broken plugin be a failure of every command."""
    value = (os.environ if environ is None else environ).get("ZOO_STRICT", "")
    return value.strip().lower() not in ("", "0", "false", "no")


def _origin(entry_point: Any) -> tuple[str, str]:
    """Distribution and version; `unknown` where its metadata does not say."""
    try:
        return entry_point.dist.name or "unknown", entry_point.dist.version or ""
    except (AttributeError, LookupError, ImportError):
        return "unknown", ""


def _load(entry_point: Any, distribution: str, version: str) -> Plugin:
    plugin = Plugin(entry_point.name, distribution, version, module=entry_point.value)
    start, notes = time.perf_counter(), []
    try:
        if not _VALUE.fullmatch(entry_point.value):
            raise UsageError(f"its entry point {entry_point.value!r} is no module; expected a name such as zoo_share.")
        with watched() as notes:
            supplies = supplies_of(entry_point.load())
        plugin = replace(plugin, supplies=supplies)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and the like, too: one plugin never ends the command
        plugin = replace(plugin, error=_reason(error, entry_point), traceback=_story())
    return replace(plugin, seconds=time.perf_counter() - start, notes=tuple(notes))


def _story() -> str:
    """The traceback of the exception at hand; the module that prints it is loaded where something broke."""
    import traceback

    return traceback.format_exc()


def _reason(error: BaseException, entry_point: Any) -> str:
    """One line: what happened and, for a missing package, what to type."""
    import shlex
    import traceback

    # format_exception_only stands errors whose own text raises
    text = str(error) if isinstance(error, ZooError) else traceback.format_exception_only(error)[-1]
    line = " ".join(text.split())[:300].rstrip(".") + "."
    missing = (getattr(error, "name", None) or "") if isinstance(error, ModuleNotFoundError) else ""
    package = missing.partition(".")[0]
    if isinstance(error, ImportError) and (error.name or "").startswith("zoo_core"):
        return f"{line} It may be made for another version: pip install -U zoo-core"
    if not package or importlib.util.find_spec(package):
        return line
    if package == re.split(r"[.:]", entry_point.value)[0]:
        name = _origin(entry_point)[0]
        return f"{line} The package is not whole. Type: pip install --force-reinstall --no-deps {name}"
    return f"{line} Type: pip install {' '.join(map(shlex.quote, _absent(entry_point.dist) or [package]))}"


def _absent(distribution: Any) -> list[str]:
    """The requirements that a distribution states and that are not installed, as it states them."""
    stated = [line.partition(";") for line in getattr(distribution, "requires", None) or ()]
    plain = [line.strip() for line, _, marker in stated if not marker]
    return [line for line in plain if not _version(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0])]


def _version(name: str) -> str:
    """The version of an installed distribution; empty where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _without_repeats(plugin: Plugin, earlier: Iterable[Plugin]) -> Plugin:
    """`distribution:name` must be one class: a name that the same package supplies again breaks the plugin."""
    for other in earlier:
        for kind, names in plugin.supplies.items():
            twice = sorted(names.keys() & other.supplies.get(kind, {}).keys())
            if twice and other.distribution == plugin.distribution:
                error = f"the {kind} {twice[0]!r} is supplied already by {other.name!r}, of the same package."
                return replace(plugin, supplies={}, error=error, traceback=error)
    return plugin


def _names(value: str | None) -> set[str] | None:
    return None if value is None else {part.strip() for part in value.split(",") if part.strip()}
