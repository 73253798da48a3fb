"""The registry: cards merged from layers, where a later layer replaces a whole entry.

Layers: the packaged index < installed plugins < the user's < the project's. No torch here.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from zoo_core.card import PERMISSIVE, Card, Facet, Openness
from zoo_core.errors import BadCard, BadOption, CardExists, UnknownBackbone, ZooError, near
from zoo_core.files import read_json, read_text, write_json, write_text
from zoo_core.places import home_folder
from zoo_core.plugins import Plugins

SCHEMA = 1
_PARSER = json.JSONDecoder()
_HEAD = f'{{"schema": {SCHEMA}, "cards": {{'


@dataclass(frozen=True)
class Layer:
    """One source of cards.

    Attributes:
        name: `index`, `plugin zoo-cnn`, `user` or `project`.
        path: the file.
        entries: card name to plain data, checked when asked for.
    """

    name: str
    path: Path
    entries: Mapping[str, Any]


@dataclass(frozen=True)
class Registry:
    """Cards by name. `problems` are layers that could not be read; the others stay usable."""

    layers: tuple[Layer, ...]
    problems: tuple[str, ...] = ()

    def names(self, pattern: str = "*") -> list[str]:
        """Card names that match a shell pattern, or contain it when it has no wildcard; sorted."""
        everything = sorted({name for layer in self.layers for name in layer.entries})
        pattern = pattern.lower()
        if not any(c in pattern for c in "*?["):
            return [name for name in everything if pattern in name.lower()]
        return [name for name in everything if fnmatch.fnmatchcase(name.lower(), pattern)]

    def cards(self, pattern: str = "*") -> list[Card]:
        """The cards behind `names(pattern)`."""
        return [self.get(name) for name in self.names(pattern)]

    def get(self, name: str) -> Card:
        """One card.

        Raises:
            UnknownBackbone: with near names.
            BadCard: the entry does not fit the schema.
        """
        return Card.from_json(name, self.layer_of(name).entries[name])

    def plain(self, pattern: str = "*") -> Iterator[tuple[str, dict[str, Any]]]:
        """Names and cards as plain data, one at a time: fields that have their default are left out. For long lists.

        Raises:
            BadCard: the entry of a user's or project's layer does not fit the schema.
        """
        winners: dict[str, Layer] = {}
        for layer in self.layers:
            winners.update(dict.fromkeys(layer.entries, layer))
        for name in self.names(pattern):
            entries = winners[name].entries
            entry = entries[name]
            yield name, entry if isinstance(entries, ShippedCards) else Card.from_json(name, entry).to_json()

    def layer_of(self, name: str) -> Layer:
        """The layer whose entry wins."""
        for layer in reversed(self.layers):
            if name in layer.entries:
                return layer
        known = self.names()
        short = [n for n in known if name.lower() in n.lower()][:3]
        hint = f"Did you mean {' or '.join(short)}?" if short else near(name, known)
        raise UnknownBackbone(f"unknown backbone {name!r}. {hint} Type 'zoo list' for all {len(known)}.")

    def hidden(self, name: str) -> list[str]:
        """Names of the layers whose entry of that name is hidden by the winning one."""
        winner = self.layer_of(name)
        return [layer.name for layer in self.layers if name in layer.entries and layer is not winner]

    def register(
        self,
        name: str,
        *,
        weights: str | Path,
        like: str | None = None,
        provider: str | None = None,
        architecture: str | None = None,
        by_order: bool = False,
        licence: str = "",
        data: str = "",
        size: int | None = None,
        project: bool = False,
        force: bool = False,
    ) -> Card:
        """Add a backbone of the user's own from a weights file; what nobody stated stays unknown.

        Each entry is a file of its own, published in one step: any number of processes may register
        at once, without a lock.

        Args:
            weights: safetensors, or a pickle that the user trusts (its sha256 is pinned now).
            like: a card whose provider, architecture and preprocessing are taken over.
            provider, architecture: in the place of `like`, or to change it.
            by_order: the file holds the right tensors in order, under other names.
            size: input height and width in pixels.
            project: write beside the project's registry, not into the user's.

        Raises:
            CardExists, UnknownBackbone, WeightsMissing, BadOption.
        """
        from zoo_core.weights import local_source

        base = self.get(like) if like else Card(name, provider or "", architecture or "")
        if not (base.provider and base.architecture):
            raise BadOption("register needs --like CARD, or --provider and --architecture. See zoo register --help.")
        mapping: Literal["by-name", "by-order"] = "by-order" if by_order else "by-name"
        mark: Literal["open", "unknown"] = "open" if licence in PERMISSIVE else "unknown"
        card = replace(
            base,
            name=name,
            provider=provider or base.provider,
            architecture=architecture or base.architecture,
            input=replace(base.input, size=(base.input.size[0], size, size)) if size else base.input,
            sources=(local_source(Path(weights), mapping),),
            openness=Openness(base.openness.code, Facet(mark, licence), Facet(name=data)),
            notes="",
            parent=like or "",
        )
        entry = card.to_json()
        Card.from_json(name, entry)  # what is written must read back
        path = _entry_path(_own_folder(project), name)
        if path.exists() and not force:
            raise CardExists(f"{name} is registered already, in {path.parent}. Replace it with --force.")
        write_json(path, {"schema": SCHEMA, "cards": {name: entry}})
        return card


def load_registry(plugins: Plugins, project: Path | None = None) -> Registry:
    """Read all layers; an unreadable one becomes a problem to report, not a crash.

    Args:
        project: a registry file; otherwise `registry.json` is looked for from the working
            directory upwards.
    """
    layers: list[Layer] = []
    problems: list[str] = []
    for name, path in _files(plugins, project):
        try:
            shipped = name not in ("user", "project")
            layers.append(Layer(name, path, ShippedCards(path) if shipped else read_entries(path)))
        except ZooError as error:
            problems.append(str(error))
    return Registry(tuple(layers), tuple(problems))


def unregister(name: str, *, project: bool = False) -> Path:
    """Remove an entry that `Registry.register` wrote; other layers stay as they are.

    Raises:
        UnknownBackbone: the user's (or project's) layer has no such entry.
    """
    path = _entry_path(_own_folder(project), name)
    if not path.exists():
        raise UnknownBackbone(f"{name} is not registered in {path.parent}. Type 'zoo show {name}' to see its layer.")
    path.unlink()
    return path


def _own_folder(project: bool) -> Path:
    """Where `register` keeps cards: the user's, or beside the project's `registry.json` (else here)."""
    if not project:
        return home_folder() / "registry.d"
    found = _upwards(Path.cwd())
    return (found.parent if found else Path.cwd()) / "registry.d"


def read_entries(path: Path) -> dict[str, Any]:
    """The `cards` of a registry file, read strictly, its schema number checked."""
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("cards"), dict):
        raise BadCard(f"{path}: expected an object with 'schema' and 'cards'.")
    if data.get("schema") != SCHEMA:
        raise BadCard(
            f"{path} has schema {data.get('schema')!r}, this version reads {SCHEMA}. Type: pip install -U zoo-core"
        )
    cards: dict[str, Any] = data["cards"]
    return cards


class ShippedCards(Mapping[str, Any]):
    """The cards of a file that `write_shipped` wrote, a card a line, each parsed when it is asked for.

    Such files come with installed code, which is trusted anyway; listing thousands of cards must not
    take longer than starting Python a few times. A file of another form is read whole and strictly.
    """

    def __init__(self, path: Path):
        head, *lines = read_text(path).splitlines() or [""]
        if head == _HEAD:
            self._lines: dict[str, Any] = {line[1 : line.index('"', 1)]: line for line in lines if line[:1] == '"'}
        else:
            self._lines = read_entries(path)

    def __getitem__(self, name: str) -> Any:
        line = self._lines[name]
        return _PARSER.raw_decode(line, len(name) + 3)[0] if isinstance(line, str) else line

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


def write_shipped(path: Path, cards: Mapping[str, Any]) -> None:
    """Write a cards file with sorted names and keys, a card a line: diffs show the cards that changed."""
    lines = [f"{json.dumps(n)}:{json.dumps(cards[n], sort_keys=True, ensure_ascii=False)}" for n in sorted(cards)]
    write_text(path, _HEAD + "\n" + ",\n".join(lines) + "\n}}\n")


def index_path() -> Path:
    """The zoo's own index: packaged beside this file, or at the top of a checkout."""
    packaged = Path(__file__).with_name("registry.json")
    return packaged if packaged.exists() else Path(__file__).parents[1] / "registry.json"


def _files(plugins: Plugins, project: Path | None) -> list[tuple[str, Path]]:
    files = [("index", index_path())]
    files += [(f"plugin {name}", path) for name, path in _plugin_files(plugins)]
    user = home_folder() / "registry.json"
    files += [("user", path) for path in (user, *sorted(_own_folder(False).glob("*.json"))) if path.exists()]
    found = project or _upwards(Path.cwd())
    if found and not (found.exists() and found.samefile(index_path())):
        files.append(("project", found))
    if project is None:
        files += [("project", path) for path in sorted(_own_folder(True).glob("*.json"))]
    return files


def _entry_path(folder: Path, name: str) -> Path:
    """A name never becomes a path: entries are files named by the digest of their card's name."""
    import hashlib

    return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"


def _plugin_files(plugins: Plugins) -> list[tuple[str, Path]]:
    """(distribution, cards file) of every provider, each file once."""
    return sorted(
        {
            (plugin.distribution, Path(cls.cards))  # type: ignore[attr-defined]
            for plugin in plugins.found
            for cls in plugin.supplies.get("provider", {}).values()
        }
    )


def _upwards(folder: Path) -> Path | None:
    """The nearest `registry.json`, from here upwards."""
    for parent in (folder, *folder.parents):
        if (parent / "registry.json").is_file():
            return parent / "registry.json"
    return None
