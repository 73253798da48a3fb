"""Text towers of open_clip as chains of stages, up to the space that they share with the image tower."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from zoo_clip.tokens import Tokens, plain_options
from zoo_core import Backbone, Card, OpenClipProvider, Stage, WeightsMismatch, trace_stages, weights

_EARLY = ("token_embedding", "positional_embedding", "cls_emb", "attn_mask")
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.")
_PREFIX = "text."
"""Of models whose text tower is a module of its own; the first CLIPs keep its parts beside the image tower."""


def load(card: Card, found: Any) -> Backbone:
    """The text tower of a card; `found` are the weights of the whole model, None for random ones.

    Raises:
        BadCard: open_clip has no such model.
        WeightsMissing: a tower of transformers whose configuration is not on this machine.
        WeightsMismatch: a tensor of the weights does not fit; names the first.
        NotAChain: the tower cannot be cut into stages; says why.
    """
    config = OpenClipProvider.config(card)
    plain_options(config["text_cfg"], card.name)
    source = weights.tokenizer_of(card, found.source if found else None)
    tower = text_tower(config, card, source)
    if found is not None:
        _fill(tower, card, found)
    reader = Tokens(card.text, source, card.name, config["text_cfg"])
    stages = stages_of(tower, reader.blank(1), card)
    with torch.no_grad():
        width = tower(reader.blank(1)).shape[1]
    return Backbone(
        card,
        tower,
        stages,
        width,
        pretrained=found is not None,
        weights_note=found.note if found else "random weights, as asked for",
        reader=reader,
        pooling=pooled,
    )


class TextTower(nn.Module):
    """`encode_text` of a model whose text tower is called `text`; it may give its tokens, too."""

    def __init__(self, text: nn.Module):
        super().__init__()
        self.text = text

    def forward(self, ids: Tensor) -> Tensor:
        found = self.text(ids)
        first: Tensor = found[0] if isinstance(found, tuple) else found
        return first


def text_tower(config: dict[str, Any], card: Card, tokenizer: Any = None) -> nn.Module:
    """The tower alone in eval mode, random weights, its tensors named as in the whole model."""
    from open_clip.model import _build_text_tower

    about = {**config["text_cfg"], "context_length": card.text.length}
    if about.get("hf_model_name"):
        from zoo_clip.encoders import local_config

        about |= {"hf_model_pretrained": False, "hf_model_name": str(local_config(card, tokenizer).parent)}
    made = OpenClipProvider.made(_build_text_tower, card, config["embed_dim"], about, config.get("quick_gelu", False))
    own = config.get("custom_text") or about.get("hf_model_name")
    return (TextTower(made) if own else made).eval()


def stages_of(tower: nn.Module, example: Tensor, card: Card) -> tuple[Stage, ...]:
    """Embeddings, every block, and what follows them; transformers' encoders by the chain of zoo-text."""
    if hasattr(getattr(tower, "text", None), "pooler"):
        from zoo_clip.encoders import encoder_stages

        return encoder_stages(tower, card)
    return trace_stages(tower, levels(tower), torch.full_like(example, _vocabulary(tower) - 1))


def levels(tower: nn.Module) -> dict[str, tuple[int, str]]:
    """(level, stage name) of every tensor."""
    names = [name for name, _ in [*tower.named_parameters(), *tower.named_buffers()]]
    bare = {name: name.removeprefix(_PREFIX) for name in names}
    blocks = {name: int(found[1]) for name in names if (found := _BLOCK.match(bare[name]))}
    last = 2 + max(blocks.values())

    def place(name: str) -> tuple[int, str]:
        if name in blocks:
            return 1 + blocks[name], f"transformer.resblocks.{blocks[name]}"
        return (0, "embeddings") if bare[name].startswith(_EARLY) else (last, "neck")

    return {name: place(name) for name in names}


def pooled(value: Tensor | tuple[Tensor, ...]) -> Tensor:
    """One row a text [B, D] of what a stage gives.

    Of its hidden states [B, L, D] the token that upstream reads, where its place [B] travels beside them; else their
    mean. Masks, which travel with some towers, say nothing.
    """
    parts = value if isinstance(value, tuple) else (value,)
    hidden = next(t for t in parts if t.is_floating_point() and t.ndim in (2, 3))
    place = next((t for t in parts if not t.is_floating_point() and t.ndim == 1), None)
    if hidden.ndim == 2:
        return hidden
    return hidden.mean(1) if place is None else hidden[torch.arange(len(hidden), device=hidden.device), place]


def _vocabulary(tower: Any) -> int:
    table: nn.Embedding = getattr(tower, "text", tower).token_embedding
    return table.num_embeddings


def _fill(tower: nn.Module, card: Card, found: Any) -> None:
    """Load the text tower's part of a state dict by name, as open_clip does.

    Names of first CLIPs are changed for a tower that stands by itself, positions resized for another length.
    """
    from open_clip.model import convert_to_custom_text_state_dict, resize_text_pos_embed

    if found.source.mapping != "by-name":
        raise WeightsMismatch(f"{card.name}: open_clip weights are mapped by name, got {found.source.mapping!r}.")
    tensors = dict(found.tensors)
    if hasattr(tower, "text") and "positional_embedding" in tensors:
        tensors = convert_to_custom_text_state_dict(tensors)
    aside = ("visual.", "logit_scale", "logit_bias", "text_decoder.", "text.transformer.embeddings.position_ids")
    tensors = {name: t for name, t in tensors.items() if not name.startswith(aside)}
    if not tensors:
        raise WeightsMismatch(f"the weights {found.source.uri} have no text tower: they hold an image tower alone.")
    try:
        if hasattr(getattr(tower, "text", tower), "positional_embedding"):
            resize_text_pos_embed(tensors, tower)
        tower.load_state_dict(tensors)
    except (RuntimeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise WeightsMismatch(
            f"the weights {found.source.uri} do not fit the text tower of {card.architecture}: "
            f"{lines[min(1, len(lines) - 1)]} Expected open_clip's names and shapes."
        ) from error
