"""Image towers of open_clip as chains of stages: its own ViTs and ResNets, and those that timm supplies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo_core.errors import BadCard, WeightsMismatch, near, shown
from zoo_core.timm_provider import Weights, from_patterns, levels_by, stages_of, timm_levels

if TYPE_CHECKING:
    from torch import nn

    from zoo_core.backbone import Backbone
    from zoo_core.card import Card
    from zoo_core.tracing import Levels

_OWN_GROUPS = {
    "stem": r"visual\.(?:conv\d|bn\d|class_embedding|positional_embedding|patchnorm_pre_ln|ln_pre)",
    "blocks": [(r"visual\.transformer\.resblocks\.(\d+)", None), (r"visual\.layer(\d+)", None)],
}
"""open_clip's own towers have no group matcher; what follows the blocks (ln_post, proj, attnpool) comes last."""


_OWNERS = {"bert-base-uncased": "google-bert/bert-base-uncased"} | {
    name: f"FacebookAI/{name}" for name in ("roberta-base", "xlm-roberta-base", "xlm-roberta-large")
}
"""Where the hub keeps what open_clip calls by its old name."""


class OpenClipProvider:
    """Loads the image tower of any open_clip model as a chain of stages, up to the shared embedding."""

    @staticmethod
    def config(card: Card) -> dict[str, Any]:
        """open_clip's configuration of both towers: its own of that name, or the one that the card brings.

        Raises:
            BadCard: open_clip has no such model.
        """
        import open_clip

        found = dict(card.config) or open_clip.get_model_config(card.architecture)
        if found is None:
            known = open_clip.list_models()
            raise BadCard(
                f"open_clip {open_clip.__version__} has no model {card.architecture!r}. "
                f"{near(card.architecture, known)}"
            )
        return dict(found)

    @staticmethod
    def text_input(about: Mapping[str, Any], *, beside: bool = False) -> dict[str, Any]:
        """How a text tower reads texts: open_clip's `text_cfg` as a card's `text` has it.

        Args:
            beside: its `tokenizer.json` lies beside the weights; else it is where the hub keeps it.
        """
        pooling = {"mean_pooler": "mean", "cls_pooler": "cls"}.get(about.get("hf_pooler_type", ""), "last")
        found: dict[str, Any] = {"length": about.get("context_length", 77), "pooling": pooling}
        named = about.get("hf_tokenizer_name")
        if not named:
            return found | {"tokenizer": "package:open_clip/bpe_simple_vocab_16e6.txt.gz"}
        return found if beside else found | {"tokenizer": f"hf:{_OWNERS.get(named, named)}/tokenizer.json"}

    @staticmethod
    def made(build: Callable[..., Any], card: Card, *arguments: Any) -> Any:
        """What one of open_clip's builders makes of a configuration, which a stranger may have written.

        Raises:
            BadCard: it is none of open_clip's.
        """
        try:
            return build(*arguments)
        except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise BadCard(f"{card.name}: its configuration is none of open_clip's: {lines[0]}") from error

    def load(self, card: Card, weights: Weights | None) -> Backbone:
        """Build the backbone of a card; `architecture` is open_clip's model name, e.g. `ViT-B-32`.

        Args:
            weights: open_clip's state dict (tensors of the image tower start with `visual.`) with its source;
                None means random weights.

        Raises:
            BadCard: open_clip has no such model.
            WeightsMismatch: a tensor of the weights does not fit; names the first.
            NotAChain: the tower cannot be cut into stages; says why.
        """
        import torch

        from zoo_core.backbone import Backbone

        model = image_tower(card).eval()
        if weights is not None:
            _fill(model, card, weights)
        example = torch.zeros(1, *card.input.size)
        stages = stages_of(model, example, tower_levels(model))
        with torch.no_grad():
            width = model(example).shape[1]
        note = "random weights, as asked for" if weights is None else weights.note
        return Backbone(card, model, stages, width, pretrained=weights is not None, weights_note=note)


def image_tower(card: Card) -> Any:
    """The model's image tower alone, its tensors named as in the whole model: `visual.…`."""
    import timm
    from open_clip.model import _build_vision_tower
    from torch import Tensor, nn

    config = OpenClipProvider.config(card)
    inner = config["vision_cfg"].get("timm_model_name")
    if inner and not timm.is_model(inner):
        raise BadCard(f"{card.name}: timm {timm.__version__} has no architecture {shown(inner)} for the image tower.")

    class ImageTower(nn.Module):
        """`encode_image` of the whole model."""

        def __init__(self) -> None:
            super().__init__()
            vision = {**config["vision_cfg"], "timm_model_pretrained": False}
            if card.input.size[1] != vision.get("image_size", 224):
                vision["image_size"] = card.input.size[1]
            quick = config.get("quick_gelu", False)
            self.visual = OpenClipProvider.made(_build_vision_tower, card, config["embed_dim"], vision, quick)

        def forward(self, x: Tensor) -> Tensor:
            features = self.visual(x)
            first: Tensor = features[0] if isinstance(features, tuple) else features
            return first

    return ImageTower()


def tower_levels(model: nn.Module) -> Levels:
    """(level, stage name) of every tensor: timm's groups for timm's towers, open_clip's modules for its own."""
    trunk: Any = getattr(model.visual, "trunk", None)
    if trunk is None:
        return {
            n: (i, s.removeprefix("visual."))
            for n, (i, s) in levels_by(partial(from_patterns, _OWN_GROUPS), model).items()
        }
    levels = {f"visual.trunk.{name}": place for name, place in timm_levels(trunk).items()}
    last = 1 + max(level for level, _ in levels.values())
    names = [n for n, _ in [*model.named_parameters(), *model.named_buffers()]]
    return {name: levels.get(name, (last, "head")) for name in names}


def _fill(model: nn.Module, card: Card, weights: Weights) -> None:
    """Load the image tower's part of a state dict by name, position embeddings resized as open_clip does."""
    from open_clip.model import resize_pos_embed

    if weights.source.mapping != "by-name":
        raise WeightsMismatch(f"{card.name}: open_clip weights are mapped by name, got {weights.source.mapping!r}.")
    tensors = {name: t for name, t in weights.tensors.items() if name.startswith("visual.")}
    try:
        resize_pos_embed(tensors, model)
        model.load_state_dict(tensors)
    except (RuntimeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise WeightsMismatch(
            f"the weights {weights.source.uri} do not fit {card.architecture}: {lines[min(1, len(lines) - 1)]} "
            "Expected open_clip's names and shapes."
        ) from error
