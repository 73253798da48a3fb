"""Cards and weights in one folder, to carry to a machine without network: `zoo bundle`.

`cards.json` is a registry file, `weights/` holds each file under its own sha256. Whoever opens a bundle
trusts nothing in it: cards are read strictly, weights are looked up by digest and hashed on the way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from zoo_core import sharded
from zoo_core.card import Card, Source
from zoo_core.console import Console
from zoo_core.entries import entry_path, refuse_links
from zoo_core.errors import BadBundle, BadCard, BadOption, CardExists, FolderExists, WeightsMissing, ZooError, shown
from zoo_core.files import publishing_folder, read_json, sha256_file, write_json
from zoo_core.layers import SCHEMA, Registry, cards_of, entry_folder, user_file
from zoo_core.registering import publish_card
from zoo_core.sealed import is_broken, seal
from zoo_core.weight_store import keep, keep_copy, stored
from zoo_core.weights import checked_digest, locate, missing, tokenizer_of

CARDS, WEIGHTS = "cards.json", "weights"
_ANYWHERE = ("package:", "hf:")
"""Sources that mean the same on every machine."""


def bundle(registry: Registry, names: Sequence[str], out: Path, console: Console | None = None) -> list[Card]:
    """Write cards and their weights, checked, into a new folder; it is there whole or not at all.

    Returns:
        The cards as the bundle has them: their first source is the file beside them.

    Raises:
        FolderExists: `out` is there.
        ClosedModel, WeightsMissing, DigestMismatch: of one of the cards; nothing is then left.
    """
    if not names:
        raise BadOption("bundle needs NAME... and --out DIR, or --from DIR. See zoo bundle --help.")
    if out.exists():
        raise FolderExists(f"{out} is already there. Give another --out.")
    with publishing_folder(out) as part, (console or Console()).track("Bundling", len(names)) as advance:
        cards = []
        for name in dict.fromkeys(names):
            cards.append(_packed(registry.get(name).usable(), part))
            advance(1)
        needs = sorted({card.package for card in cards if card.package})
        entries = {card.name: card.to_json() for card in cards}
        write_json(part / CARDS, seal({"schema": SCHEMA, "cards": entries, "x-needs": needs}))
    return cards


def unbundle(folder: Path, file: Path | None = None, *, force: bool = False) -> list[Card]:
    """Take cards and weights of a bundle over into this machine's store and registry.

    Args:
        file: the registry file beside which the cards are kept; the user's where not given.
        force: replace entries of the same names in that layer.

    Raises:
        BadBundle: it is no bundle, or its files are not what its cards say; nothing is then registered.
        CardExists: the layer has another entry of one of the names; nothing is then registered.
    """
    file = file or user_file()
    try:
        refuse_links(folder / CARDS)
        found = read_json(folder / CARDS)
        if is_broken(found):
            raise BadBundle(f"{folder / CARDS} is not what zoo bundle wrote. Copy the bundle again.")
        cards = [Card.from_json(name, entry) for name, entry in cards_of(found, folder / CARDS).items()]
    except OSError as error:
        raise BadBundle(f"{folder} is no bundle: {error}. Expected a folder that zoo bundle --out wrote.") from error
    new = [card for card in cards if not _same(card, file)]
    for card in new:
        if not force and entry_path(entry_folder(file), card.name).exists():
            raise CardExists(f"{card.name} is registered already, in {entry_folder(file)}. Replace it with --force.")
    for card in cards:
        _unpack(card, folder)
    for card in new:
        publish_card(card, file, force=force)
    return cards


def _packed(card: Card, part: Path) -> Card:
    """Copy a card's weights into the bundle; the card with that file as its first source."""
    for source in card.sources:
        path = locate(source)
        if path:
            sha = checked_digest(path, source)
            whole = not sharded.is_index(path)
            copy = keep_copy(path, part / WEIGHTS) if whole else keep(partial(sharded.merge, path), part / WEIGHTS)
            if copy.stem != sha and whole:
                raise BadBundle(f"{path} changed while it was copied. Type the command again.")
            here = Source(f"store:{copy.stem}", copy.stem, copy.stat().st_size, source.mapping)
            others = (other for other in card.sources if other.uri.startswith(_ANYWHERE))
            return _with_head(_with_tokenizer(replace(card, sources=(here, *others)), source, part), part)
    raise WeightsMissing(missing(card))


def _with_tokenizer(card: Card, found: Source, part: Path) -> Card:
    """Copy the tokenizer of a card for texts into the bundle, too."""
    if card.modality != "text":
        return card
    tokenizer = tokenizer_of(card, found)
    path = locate(tokenizer) if tokenizer else None
    if tokenizer is None or path is None:
        raise WeightsMissing(f"the tokenizer of {card.name} is not on this machine. Type: zoo pull {card.name}")
    if path.resolve().suffix != ".json" and not tokenizer.uri.startswith("hf:"):
        raise BadCard(f"the tokenizer of {card.name} is {path}, no .json file, and is not copied. zoo show {card.name}")
    copy = keep_copy(path, part / WEIGHTS)
    return replace(card, text=replace(card.text, tokenizer=f"store:{copy.stem}"))


def _head(card: Card) -> str:
    """The digest of the head that a registered run keeps beside its backbone; empty for none."""
    about = card.extra.get("x-run")
    head = about.get("head") if isinstance(about, dict) else None
    return str(head.get("sha256", "")) if isinstance(head, dict) else ""


def _with_head(card: Card, part: Path) -> Card:
    """Copy the head of a registered run into the bundle, too; a head that is gone is not named any more."""
    head = _head(card)
    path = stored(head) if head else None
    if path is not None:
        keep_copy(path, part / WEIGHTS)
    if path is not None or not head:
        return card
    about = {k: v for k, v in card.extra["x-run"].items() if k != "head"}
    return replace(card, extra={**card.extra, "x-run": about})


def _unpack(card: Card, folder: Path) -> None:
    """Copy a card's weights, and its tokenizer, into the store, if they are what the card says."""
    first, *others = card.sources or [Source("")]
    if first.uri != f"store:{first.sha256}" or not first.sha256:
        raise BadBundle(f"{folder}: the card {card.name} names no file of the bundle. Bundle it again.")
    for other in others:
        if not other.uri.startswith(_ANYWHERE):
            raise BadBundle(f"{folder}: {card.name} names {shown(other.uri)}, a place of one machine. Bundle it again.")
    for sha in filter(None, (first.sha256, card.text.tokenizer.removeprefix("store:"), _head(card))):
        path = stored(sha, folder / WEIGHTS)
        if path is None:
            raise BadBundle(f"{folder}: a file of {card.name}, sha256 {shown(sha)}, is not in it. Bundle it again.")
        found = sha256_file(path)
        if found != sha or keep_copy(path).stem != found:
            raise BadBundle(f"{path} is damaged: it has sha256 {found}. Copy the bundle again.")


def _same(card: Card, file: Path) -> bool:
    """Whether the layer has this very card already."""
    path = entry_path(entry_folder(file), card.name)
    try:
        return path.exists() and cards_of(read_json(path), path).get(card.name) == card.to_json()
    except ZooError:
        return False
