"""Language models and text encoders through transformers: a provider with its cards, and the head for conversations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core import hookimpl

if TYPE_CHECKING:
    from zoo_core import Backbone, Card


class TextProvider:
    """Any transformers base model made of embeddings and equal blocks: GPT-2, BLOOM, Llama, Gemma, BERT and more."""

    cards = Path(__file__).with_name("cards.json")

    def load(self, card: Card, weights: Any) -> Backbone:
        """Build the chain of a card; `architecture` is transformers' `model_type`, `config` what it differs in."""
        from zoo_text.provider import load

        return load(card, weights)


@hookimpl
def zoo_head_builders() -> dict[str, type]:
    from zoo_text.head import CausalLm

    return {"causal-lm": CausalLm}


@hookimpl
def zoo_backbone_providers() -> dict[str, type]:
    return {"text": TextProvider}
