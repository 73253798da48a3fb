"""CLIP and SigLIP through open_clip: one provider and its cards, for image towers and text towers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core import Card, OpenClipProvider, hookimpl

if TYPE_CHECKING:
    from zoo_core import Backbone


class ClipProvider(OpenClipProvider):
    """Image towers and text towers that were trained together, on image-text pairs."""

    cards = Path(__file__).with_name("cards.json")

    def load(self, card: Card, weights: Any) -> Backbone:
        """Build the tower of a card: of texts where its modality is `text`, else of images."""
        if card.modality == "text":
            from zoo_clip.text import load

            return load(card, weights)
        body = super().load(card, weights)
        if weights is not None:
            from zoo_clip.words import Words

            body.words = Words(card)
        return body


@hookimpl
def zoo_backbone_providers() -> dict[str, type]:
    return {"clip": ClipProvider}
