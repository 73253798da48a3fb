"""Choosing among thousands of cards: filters that combine, over plain data. No torch here."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from zoo_core.errors import BadOption, near

FACETS = ("code", "weights", "data")
MODALITY = "image"
SIZE = (3, 224, 224)
"""What a card means that states none, as `Card` and `Input` say; written again, since a listing loads no schema."""
_FACTOR = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


@dataclass(frozen=True)
class Wanted:
    """What a card must be to be listed; a field that is not given asks for nothing.

    Attributes:
        modality: `image`, `text` or `audio`.
        provider: a provider's name.
        max_params: most parameters; a card that does not know its own is left out.
        licence: of the weights: an SPDX identifier, `permissive` or `unknown`.
        open: facets that must be marked open.
        installed: its plugin is installed, so that it can be loaded; a closed model cannot.
        available: its weights are on this machine.
    """

    modality: str = ""
    provider: str = ""
    max_params: int | None = None
    licence: str = ""
    open: tuple[str, ...] = ()
    installed: bool = False
    available: bool = False

    def keeps(self, name: str, entry: Mapping[str, Any], providers: Container[str]) -> bool:
        """Whether a card, as plain data with its defaults left out, is wanted."""
        openness = entry.get("openness", {})
        return (
            (not self.modality or entry.get("modality", MODALITY) == self.modality)
            and (not self.provider or entry["provider"] == self.provider)
            and (self.max_params is None or 0 < entry.get("parameters", 0) <= self.max_params)
            and all(openness.get(facet, {}).get("mark") == "open" for facet in self.open)
            and (not self.licence or self._licensed(openness.get("weights", {}).get("licence", "")))
            and (not self.installed or (entry["provider"] in providers and not is_closed(entry)))
            and (not self.available or _here(name, entry))
        )

    def _licensed(self, licence: str) -> bool:
        """An unknown licence is neither permissive nor any other."""
        if self.licence == "permissive":
            from zoo_core.card import is_permissive

            return is_permissive(licence)
        return (licence or "unknown").lower() == self.licence.lower()


def wanted(
    *,
    modality: str | None = None,
    provider: str | None = None,
    max_params: str | int | None = None,
    licence: str | None = None,
    open: str | tuple[str, ...] | None = None,
    installed: bool = False,
    available: bool = False,
) -> Wanted:
    """A filter from values as people write them.

    Args:
        max_params: a number, or one such as `25M`, `1.5B`, `300k`.
        open: facets, or a list of them with commas.

    Raises:
        BadOption: a value that says nothing.
    """
    facets = tuple(part.strip() for part in open.split(",")) if isinstance(open, str) else tuple(open or ())
    for facet in facets:
        if facet not in FACETS:
            raise BadOption(f"--open {facet}: expected some of code, weights, data. {near(facet, FACETS)}")
    if modality and modality not in ("image", "text", "audio"):
        raise BadOption(f"--modality {modality}: expected image, text or audio.")
    most = max_params if max_params is None or isinstance(max_params, int) else count_of(max_params)
    return Wanted(modality or "", provider or "", most, licence or "", facets, installed, available)


def is_closed(entry: Mapping[str, Any]) -> bool:
    """Whether nobody can load it: its weights are closed, and no source is known."""
    return entry.get("openness", {}).get("weights", {}).get("mark") == "closed" and not entry.get("sources")


def count_of(text: str) -> int:
    """A number of parameters, such as 25M, 1.5B or 300k.

    Raises:
        BadOption: it is none.

    >>> count_of("25M")
    25000000
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgb]?)", text.strip(), re.IGNORECASE)
    if not found:
        raise BadOption(f"--max-params {text}: expected a number of parameters such as 25M, 1.5B or 300k.")
    return round(float(found[1]) * _FACTOR[found[2].lower()])


def _here(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether one of a card's sources is on this machine."""
    from zoo_core.card import Card
    from zoo_core.weights import locate

    return any(locate(source) for source in Card.from_json(name, entry).sources)
