"""DINO, DINOv2 and DINOv3 through timm: one provider and its cards."""

from __future__ import annotations

from pathlib import Path

from zoo_core import TimmProvider, hookimpl


class DinoProvider(TimmProvider):
    """Networks trained without labels by DINO, DINOv2 (with and without registers) and DINOv3."""

    cards = Path(__file__).with_name("cards.json")


@hookimpl
def zoo_backbone_providers() -> dict[str, type]:
    return {"dino": DinoProvider}
