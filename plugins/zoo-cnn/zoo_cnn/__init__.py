"""ImageNet CNNs through timm: one provider and its cards."""

from __future__ import annotations

from pathlib import Path

from zoo_core import TimmProvider, hookimpl


class CnnProvider(TimmProvider):
    """Convolutional networks trained on ImageNet."""

    cards = Path(__file__).with_name("cards.json")


@hookimpl
def zoo_backbone_providers() -> dict[str, type]:
    return {"cnn": CnnProvider}
