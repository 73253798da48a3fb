"""CLAP's audio towers through transformers: a provider and its cards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core import hookimpl

if TYPE_CHECKING:
    from zoo_core import Backbone, Card


class AudioProvider:
    """transformers' CLAP (HTS-AT, a Swin transformer over spectrograms), its audio tower with the projection."""

    cards = Path(__file__).with_name("cards.json")

    def load(self, card: Card, weights: Any) -> Backbone:
        """Build the chain of a card; `config` is what upstream's `config.json` says otherwise than by default."""
        from zoo_audio.provider import load

        return load(card, weights)


@hookimpl
def zoo_backbone_providers() -> dict[str, type]:
    return {"audio": AudioProvider}
