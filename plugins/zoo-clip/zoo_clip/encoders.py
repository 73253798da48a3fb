"""Text towers that are an encoder of transformers, staged by the chain of zoo-text."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from zoo_core import BadCard, Card, NotAChain, Source, Stage, WeightsMissing, chain_from_modules, read_json, weights


def local_config(card: Card, tokenizer: Source | None) -> Path:
    """The encoder's `config.json`: beside its tokenizer, or beside the weights.

    Raises:
        WeightsMissing: it is not on this machine.
        BadCard: it names code of its own, which is never run.
    """
    places = [
        weights.beside(source, "config.json") for source in (tokenizer, *card.sources) if source and "/" in source.uri
    ]
    path = next((path for place in places if (path := weights.locate(place))), None)
    if path is None:
        where = places[0].uri if places else "its card names no tokenizer"
        raise WeightsMissing(
            f"the text tower of {card.name} is an encoder of transformers, whose configuration ({where}) is not on "
            f"this machine. Type: zoo pull {card.name}"
        )
    if "auto_map" in read_json(path):
        raise BadCard(f"{path} names code of its own (auto_map), which is never run.")
    return path


def encoder_stages(tower: Any, card: Card) -> tuple[Stage, ...]:
    """Embeddings, every block, then what follows: norm, pooling and projection.

    Raises:
        NotAChain: zoo-text is not installed, the pooling needs more than hidden states, or blocks hand on more than
            them (T5's share their position bias).
    """
    try:
        from zoo_text.chain import Block, End, Front, Upstream, beside
    except ImportError as error:
        raise NotAChain(
            f"the text tower of {card.name} is an encoder of transformers. Type: pip install zoo-text"
        ) from error
    encoder, config = tower.text.transformer, tower.text.config
    if config.model_type in ("t5", "mt5", "umt5"):
        raise NotAChain(f"the blocks of {config.model_type} share the position bias of the first; they are no chain.")
    if getattr(encoder, "pooler", None) is not None:
        raise NotAChain(f"the text tower of {card.name} pools with a layer of transformers' own; expected its tokens.")
    encoder.layerdrop = 0.0  # a chain has every block
    upstream = Upstream(encoder, causal=False)
    names = beside(encoder, upstream.path.split("."))
    after = [name for name in names if name in upstream.after]
    front = Front(upstream, [encoder.get_submodule(name) for name in names if name not in after])
    end = End(upstream, "mean", [encoder.get_submodule(name) for name in after])
    blocks = [(f"{upstream.path}.{i}", Block(upstream, i)) for i in range(len(upstream.blocks))]
    last = Neck(end, tower.text)
    parts: list[tuple[str, nn.Module]] = [("embeddings", Begin(front, config.pad_token_id)), *blocks]
    if any(True for _ in last.parameters()):
        parts.append(("neck", last))
    else:
        parts[-1] = (parts[-1][0], nn.Sequential(parts[-1][1], last))
    return chain_from_modules(parts, tower)


class Begin(nn.Module):
    """Ids [B, L] to what enters the first block; padding is told by its id, as open_clip tells it."""

    def __init__(self, front: nn.Module, pad: int):
        super().__init__()
        self.front, self.pad = front, pad

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.front((ids, (ids != self.pad).long()))
        return found


class Neck(nn.Module):
    """Hidden states to features: upstream's norm, open_clip's pooling and projection."""

    def __init__(self, end: Any, text: Any):
        super().__init__()
        self.end, self.proj = end, text.proj
        self.__dict__["pooler"] = text.pooler

    def forward(self, value: tuple[Tensor, ...]) -> Tensor:
        hidden = SimpleNamespace(last_hidden_state=self.end.tokens(value))
        found: Tensor = self.proj(self.__dict__["pooler"](hidden, value[1]))
        return found
