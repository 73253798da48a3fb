"""Vision transformers through timm: one provider and its cards."""

from __future__ import annotations

from pathlib import Path

from zoo_core import TimmProvider, hookimpl


class VitProvider(TimmProvider):
    """Transformers and hybrids that end in attention, and the image towers of CLIP models."""

    cards = Path(__file__).with_name("cards.json")


@hookimpl
def zoo_backbone_providers() -> dict[str, type]:
    return {"vit": VitProvider}
