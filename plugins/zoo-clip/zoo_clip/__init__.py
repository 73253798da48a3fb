"""CLIP and SigLIP through open_clip: one provider and its cards."""

from __future__ import annotations

from pathlib import Path

from zoo_core import OpenClipProvider, hookimpl


class ClipProvider(OpenClipProvider):
    """Image towers that were trained together with a text tower, on image-text pairs."""

    cards = Path(__file__).with_name("cards.json")


@hookimpl
def zoo_backbone_providers() -> dict[str, type]:
    return {"clip": ClipProvider}
