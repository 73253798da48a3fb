"""The registry: cards merged from layers, where a later layer replaces a whole entry.

Layers: the packaged index < installed plugins < the user's < the project's. No torch here.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.entries import read_entry_folder
from zoo_core.errors import BadCard, LinkRefused, UnknownBackbone, ZooError, near, shown
from zoo_core.files import read_json, read_text, write_text
from zoo_core.places import home_folder
from zoo_core.plugins import Plugins

if TYPE_CHECKING:
    from zoo_core.card import Card
    from zoo_core.console import Console
    from zoo_core.pulling import Pulled
    from zoo_core.verifying import Verified

SCHEMA = 1
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Schema number to a pure function that makes the next schema's cards of its cards."""

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
    """Cards by name.

    Attributes:
        layers: the later one wins.
        problems: a line for each file that could not be read; the others stay usable.
        project: the project's registry file; it need not be there.
    """

    layers: tuple[Layer, ...]
    problems: tuple[str, ...] = ()
    project: Path = Path("registry.json")

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
        from zoo_core.card import Card

        return Card.from_json(name, self.layer_of(name).entries[name])

    def plain(self, pattern: str = "*", problems: list[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Names and cards as plain data, one at a time: fields that have their default are left out. For long lists.

        Args:
            problems: takes a line for each card that does not fit the schema, which is then left out.

        Raises:
            BadCard: such a card, where `problems` is not given.
        """
        winners: dict[str, Layer] = {}
        for layer in self.layers:
            winners.update(dict.fromkeys(layer.entries, layer))
        for name in self.names(pattern):
            entries = winners[name].entries
            try:
                entry = entries[name]
                yield name, entry if isinstance(entries, ShippedCards) else _plain(name, entry)
            except BadCard as error:
                if problems is None:
                    raise
                problems.append(str(error))

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

    def lineage(self, name: str) -> list[str]:
        """The cards that `name` comes from, nearest first; the last ones may stand in no layer."""
        found = [name]
        while True:
            known = any(found[-1] in layer.entries for layer in self.layers)
            parent = self.get(found[-1]).parent if known else ""
            if not parent or parent in found:
                return found[1:]
            found.append(parent)

    def register(self, name: str, **given: Any) -> Card:
        """Add a backbone of the user's own; the arguments are those of `registering.register`.

        Example: `zoo.registry().register("mine/cells", like="cnn/resnet18.a1_in1k", weights="cells.safetensors")`.
        """
        from zoo_core.registering import register

        return register(self, name, **given)

    def unregister(self, name: str, *, project: bool = False) -> Path:
        """Remove an entry that `register` wrote, of the user's layer or the project's; see `registering.unregister`."""
        from zoo_core.registering import unregister

        return unregister(name, file=self.project if project else None)

    def pull(self, name: str, console: Console | None = None) -> Pulled:
        """Download a card's weights, unless they are on this machine; see `pulling.pull`."""
        from zoo_core.pulling import pull

        return pull(self.get(name), console)

    def verify(self, names: Sequence[str] | None = None, console: Console | None = None) -> list[Verified]:
        """Read weights again and compare their digests; without names, all that are here. See `verifying.verify`."""
        from zoo_core.verifying import verify

        return verify(self, names, console)

    def bundle(self, names: Sequence[str], out: str | Path, console: Console | None = None) -> list[Card]:
        """Write cards and weights into a new folder, to carry to another machine; see `bundling.bundle`."""
        from zoo_core.bundling import bundle

        return bundle(self, names, Path(out), console)

    def unbundle(self, folder: str | Path, *, project: bool = False, force: bool = False) -> list[Card]:
        """Take over the cards and weights of a bundle; see `bundling.unbundle`."""
        from zoo_core.bundling import unbundle

        return unbundle(Path(folder), self.project if project else None, force=force)


def load_registry(plugins: Plugins, project: Path | None = None) -> Registry:
    """Read all layers; what is unreadable becomes a problem to report, not a crash.

    Args:
        project: a registry file; otherwise `registry.json` is looked for from the working
            directory upwards.
    """
    layers: list[Layer] = []
    problems: list[str] = []
    shipped = [("index", index_path())] + [(f"plugin {name}", path) for name, path in _plugin_files(plugins)]
    for name, path in shipped:
        try:
            layers.append(Layer(name, path, ShippedCards(path)))
        except ZooError as error:
            problems.append(str(error))
    own = project or project_file()
    for name, path in (("user", user_file()), ("project", own)):
        entries = _own_entries(path, problems, trusted=path is project)
        if entries:
            layers.append(Layer(name, path, entries))
    return Registry(tuple(layers), tuple(problems), own)


def user_file() -> Path:
    """The registry file of the user's layer; it need not be there."""
    return home_folder() / "registry.json"


def project_file() -> Path:
    """The project's `registry.json`: the nearest one upwards, else where the first one would be."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if any((folder / name).exists() for name in ("registry.json", "registry.d")):
            return folder / "registry.json"
    return here / "registry.json"


def entry_folder(file: Path) -> Path:
    """Where cards that were registered stand, a file each, beside a registry file: `registry.d`."""
    return file.with_suffix(".d")


def read_entries(path: Path) -> dict[str, Any]:
    """The `cards` of a registry file, read strictly, of any schema up to this version's."""
    return cards_of(read_json(path), path)


def cards_of(data: Any, path: Path) -> dict[str, Any]:
    """The `cards` of a registry file's content, brought up to this version's schema.

    Raises:
        BadCard: it is of another shape, or of a newer schema; says what to type.
    """
    if not isinstance(data, dict) or not isinstance(data.get("cards"), dict):
        raise BadCard(f"{path}: expected an object with 'schema' and 'cards'.")
    for key in data:
        if key not in ("schema", "cards") and not key.startswith("x-"):
            raise BadCard(f"{path}: unknown field {shown(key)}. {near(key, ('schema', 'cards'))} Or call it x-....")
    schema = data.get("schema")
    if type(schema) is not int or schema < 1:
        raise BadCard(f"{path} has schema {shown(schema)}, expected a number from 1 to {SCHEMA}.")
    if schema > SCHEMA:
        raise BadCard(f"{path} has schema {schema}, this version reads up to {SCHEMA}. Type: pip install -U zoo-core")
    cards: dict[str, Any] = data["cards"]
    for number in range(schema, SCHEMA):
        cards = UPGRADES[number](cards)
    return cards


class ShippedCards(Mapping[str, Any]):
    """The cards of a file that `write_shipped` wrote, a card a line, each parsed when it is asked for.

    Such files come with installed code, which is trusted anyway; listing thousands of cards must not
    take longer than starting Python a few times. A file of another form is read whole and strictly.
    """

    def __init__(self, path: Path):
        self.path = path
        head, *lines = read_text(path).split("\n")
        if head == _HEAD:
            self._lines: dict[str, Any] = {line[1 : line.find('"', 1)]: line for line in lines if line[:1] == '"'}
        else:
            self._lines = read_entries(path)

    def __getitem__(self, name: str) -> Any:
        line = self._lines[name]
        try:
            return _PARSER.raw_decode(line, len(name) + 3)[0] if isinstance(line, str) else line
        except (ValueError, RecursionError) as error:
            raise BadCard(
                f"{self.path}: the card {shown(name)} is damaged ({error}). Install the package again."
            ) from error

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


def _own_entries(path: Path, problems: list[str], trusted: bool) -> dict[str, Any]:
    """Cards of a registry file and of the folder beside it, where what was registered later wins.

    A file that was not named by the user is not followed out of its folder.
    """
    entries: dict[str, Any] = {}
    try:
        if path.exists() and not path.samefile(index_path()):
            if not trusted and path.resolve().parent != path.parent.resolve():
                raise LinkRefused(f"{path} is a link out of its folder. Name it: zoo list --registry {path}")
            if not trusted and not path.is_file():  # opening a pipe would wait for somebody to write into it
                raise LinkRefused(f"{path} is no regular file; expected a registry. Remove it, or put a copy there.")
            entries |= read_entries(path)
    except ZooError as error:
        problems.append(str(error))
    registered, bad = read_entry_folder(entry_folder(path), cards_of)
    problems += bad
    entries |= registered
    for name in _misnamed(entries):
        del entries[name]
        problems.append(f"{path}: {shown(name)} is no name for a card; expected letters, digits, '.', '_', '-', '/'.")
    return entries


def _misnamed(entries: Mapping[str, Any]) -> list[str]:
    """Names that no card may have. The schema is loaded only where there is something to look at."""
    if not entries:
        return []
    from zoo_core.card import is_name

    return [name for name in entries if not is_name(name)]


def _plain(name: str, entry: Any) -> dict[str, Any]:
    """A card of the user's own, checked, with its defaults left out."""
    from zoo_core.card import Card

    return Card.from_json(name, entry).to_json()


def _plugin_files(plugins: Plugins) -> list[tuple[str, Path]]:
    """(distribution, cards file) of every provider, each file once."""
    return sorted(
        {
            (plugin.distribution, Path(cls.cards))  # type: ignore[attr-defined]
            for plugin in plugins.found
            for cls in plugin.supplies.get("provider", {}).values()
        }
    )
