"""Reading weights again and comparing their digests with what is known: `zoo verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo_core.card import Card, Source
from zoo_core.console import Console
from zoo_core.errors import ClosedModel, DigestMismatch, ZooError
from zoo_core.layers import Registry
from zoo_core.pins import pinned
from zoo_core.weights import checked_digest, locate, missing

State = Literal["ok", "unpinned", "damaged", "missing", "bad card"]


@dataclass(frozen=True)
class Verified:
    """What one source of a card was found to be.

    Attributes:
        name: the card.
        state: `ok`; `unpinned` where no digest is known to compare with; `damaged` where it differs;
            `missing` where no source is on this machine; `bad card` where the entry does not fit the schema.
        uri: the source.
        sha256: of the file that was read (hex).
        note: what is wrong, and what to type.
    """

    name: str
    state: State
    uri: str = ""
    sha256: str = ""
    note: str = ""

    @property
    def fine(self) -> bool:
        """Whether nothing speaks against using it."""
        return self.state in ("ok", "unpinned")


def verify(registry: Registry, names: Sequence[str] | None = None, console: Console | None = None) -> list[Verified]:
    """Read the weights of cards again, every byte of every source that is on this machine.

    Args:
        names: cards; without them all cards, of which those without weights here are left out.

    Raises:
        UnknownBackbone: no card has one of the names.
    """
    for name in names or ():
        registry.layer_of(name)
    rows: list[Verified] = []
    work: list[tuple[Card, Source, Path]] = []
    for name in names if names is not None else registry.names():
        try:
            card = registry.get(name)
            found = [(card, source, path) for source in card.sources if (path := locate(source))]
        except ZooError as error:
            rows.append(Verified(name, "bad card", note=str(error)))
            continue
        work += found
        if names is not None and not found:
            rows.append(Verified(name, "missing", note=_why_missing(card)))
    with (console or Console()).track("Verifying", len(work)) as advance:
        for card, source, path in work:
            rows.append(_checked(card, source, path))
            advance(1)
    return sorted(rows, key=lambda row: (row.name, row.uri))


def _why_missing(card: Card) -> str:
    try:
        return missing(card.usable())
    except ClosedModel as error:
        return str(error)


def _checked(card: Card, source: Source, path: Path) -> Verified:
    try:
        sha = checked_digest(path, source)
        known = pinned(source).sha256
    except DigestMismatch as error:
        return Verified(card.name, "damaged", source.uri, note=str(error))
    except (ZooError, OSError) as error:
        return Verified(card.name, "damaged", source.uri, note=f"{path} cannot be read: {error}")
    if not known:
        return Verified(card.name, "unpinned", source.uri, sha, "no digest is known to compare with")
    return Verified(card.name, "ok", source.uri, sha)
