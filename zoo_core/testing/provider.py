"""Checks of a backbone provider: all of its cards, and one backbone, the smallest, with random weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.card import Card
from zoo_core.errors import WeightsMissing
from zoo_core.files import read_json
from zoo_core.plugins import Plugin
from zoo_core.testing.outcome import Skip, expect

if TYPE_CHECKING:
    from zoo_core.backbone import Backbone, Value

SIDE = 64
"""Height and width of the images that the checks use where the architecture takes them."""

LENGTH = 16
"""Tokens of the texts that the checks use."""


@dataclass(frozen=True)
class Subject:
    """A provider as it is supplied; cards and backbone are made when a check first asks."""

    plugin: Plugin
    name: str
    cls: Any

    @cached_property
    def cards(self) -> list[Card]:
        """The cards of its file that name this provider."""
        data = read_json(Path(self.cls.cards))
        entries = data.get("cards") if isinstance(data, dict) else None
        expect(
            isinstance(entries, dict) and entries, f"{self.cls.cards} holds no cards; expected 'schema' and 'cards'."
        )
        cards = [Card.from_json(name, entry) for name, entry in (entries or {}).items()]
        return [card for card in cards if card.provider == self.name]

    @cached_property
    def smallest(self) -> Card:
        """The card with the least work, to keep the checks short."""
        cards = [card for card in self.cards if card.openness.weights.mark != "closed" or card.sources]
        if not cards:
            raise Skip(f"{self.name} has no card that can be loaded.")

        def work(card: Card) -> int:
            area = card.input.size[1] * card.input.size[2] if card.modality == "image" else 1
            return (card.parameters or 10**12) * area

        return min(cards, key=work)

    @cached_property
    def backbone(self) -> Backbone:
        """The smallest card's, random weights, for short texts, and small images where the architecture takes them."""
        if self.smallest.modality == "text":
            return self.load(replace(self.smallest, text=replace(self.smallest.text, length=LENGTH)))
        channels, *sides = self.smallest.input.size
        if self.smallest.modality == "image" and min(sides) > SIDE:
            small = replace(self.smallest, input=replace(self.smallest.input, size=(channels, SIDE, SIDE)))
            try:
                backbone = self.load(small)
                backbone(_examples(backbone))
                return backbone
            except Exception:  # whatever it is, the card's own size decides
                pass
        return self.load(self.smallest)

    def load(self, card: Card) -> Backbone:
        """As the engine loads it, random weights from a fixed seed."""
        import torch

        torch.manual_seed(0)
        backbone: Backbone = self.cls().load(card, None)
        return backbone

    def copy(self) -> Backbone:
        """One to train, so that the checks do not depend on one another."""
        return copy.deepcopy(self.backbone)


def cards_are_valid(subject: Subject) -> str:
    """Every card of its file fits the schema, and some name this provider."""
    expect(subject.cards, f"no card of {subject.cls.cards} names the provider {subject.name!r}.")
    return f"{len(subject.cards)} cards"


def cards_name_this_package(subject: Subject) -> None:
    """Every card says which package to install, so that `zoo list` can print the line."""
    wanted = subject.plugin.distribution
    wrong = [card.name for card in subject.cards if _plain(card.package) != _plain(wanted)]
    expect(not wrong, f"the package of {_few(wrong)} is not {wanted!r}.")


def licences_are_stated(subject: Subject) -> str:
    """Every card states the licence of its weights; unknown ones are counted."""
    unknown = [card.name for card in subject.cards if card.licence == "unknown"]
    if unknown:
        raise Skip(f"the licence of the weights of {_few(unknown)} is unknown.")
    return f"{len(subject.cards)} cards"


def digests_are_pinned(subject: Subject) -> str:
    """Every weight source has a sha256; those without are counted, and read only as safetensors."""
    without = [card.name for card in subject.cards if not any(source.sha256 for source in card.sources)]
    if without:
        raise Skip(f"no source of {_few(without)} states a sha256.")
    return f"{len(subject.cards)} cards"


def loads_with_random_weights(subject: Subject) -> str:
    """The smallest backbone loads on the CPU without weights, in eval mode, with the stages that its card lists."""
    import torch

    backbone, card = subject.backbone, subject.smallest
    names = tuple(stage.name for stage in backbone.stages)
    expect(names, "it has no stage.")
    expect(not card.stages or names == card.stages, f"its stages are {names}; the card says {card.stages}.")
    awake = [name for name, module in backbone.model.named_modules() if module.training]
    expect(not awake, f"{_few(awake)} in training mode; expected eval mode.")
    with torch.inference_mode():
        shape = tuple(backbone(_examples(backbone)).shape)
    expect(shape == (2, backbone.feature_dim), f"features have shape {shape}; expected (2, {backbone.feature_dim}).")
    right = card.feature_dim in (0, backbone.feature_dim)
    expect(right, f"it gives {backbone.feature_dim} features; the card says {card.feature_dim}.")
    examples = _examples(backbone)
    sizes = [part.shape[1:] for part in (examples if isinstance(examples, tuple) else (examples,))]
    return f"{card.name}, {len(names)} stages, {card.modality} as {', '.join('x'.join(map(str, s)) for s in sizes)}"


def chain_equals_the_whole(subject: Subject) -> None:
    """All stages composed give what the upstream model gives, bit for bit."""
    import torch

    backbone, examples = subject.backbone, _examples(subject.backbone)
    with torch.inference_mode():
        expect(torch.equal(backbone(examples), backbone.model(examples)), "the chain's output is not the model's.")


def every_tensor_is_in_one_stage(subject: Subject) -> str:
    """Every parameter and buffer belongs to exactly one stage."""
    from zoo_core.backbone import check_staged

    check_staged(subject.backbone.model, subject.backbone.stages)
    return f"{len(subject.backbone.tensors())} tensors"


def can_be_cut_at_every_depth(subject: Subject) -> str:
    """At every depth `tail(prefix(x))` equals the whole, bit for bit."""
    import torch

    backbone, examples = subject.backbone, _examples(subject.backbone)
    with torch.inference_mode():
        whole = backbone(examples)
        for depth in range(len(backbone.stages) + 1):
            prefix, tail = backbone.cut(depth)
            expect(torch.equal(tail(prefix(examples)), whole), f"cut at depth {depth}, the output is another one.")
    return f"{len(backbone.stages) + 1} depths"


def frozen_stages_stay(subject: Subject) -> str:
    """A training step behind one, half and all stages changes no bit of the frozen ones, and does train the rest."""
    import torch

    backbone = subject.copy()
    length = len(backbone.stages)
    depths = sorted({1, length // 2, length} - {0})
    for depth in depths:
        backbone.freeze(depth)
        before, behind = backbone.digest(depth), backbone.digest()
        backbone.model.train()
        trained = [p for p in backbone.model.parameters() if p.requires_grad]
        if trained:
            loss: Any = backbone(_examples(backbone)).square().mean()
            loss.backward()
            torch.optim.SGD([p for p in trained if p.grad is not None], lr=0.1).step()
            backbone.model.zero_grad()
            expect(backbone.digest() != behind, f"at depth {depth} no trained stage moves.")
        expect(backbone.digest(depth) == before, f"at depth {depth} a frozen stage changed.")
    return f"depths {', '.join(map(str, depths))}"


def state_dict_loads_again(subject: Subject) -> str:
    """The model's state dict, under its own names, fills a model loaded anew, which then gives the same features."""
    import torch

    backbone, examples = subject.backbone, _examples(subject.backbone)
    torch.manual_seed(1)
    again = subject.cls().load(backbone.card, None)
    state = backbone.model.state_dict()
    again.model.load_state_dict(state)
    with torch.inference_mode():
        expect(torch.equal(again(examples), backbone(examples)), "the same state gives other features.")
    return f"{len(state)} tensors"


def names_are_upstreams(subject: Subject) -> str:
    """Where the weights are on this machine: the file's names are the model's, but for the classifier."""
    from zoo_core import weights

    card = subject.smallest
    try:
        found = weights.find(card)
    except (WeightsMissing, ImportError) as error:
        raise Skip(f"the weights of {card.name} are not on this machine, to compare names with.") from error
    if found.source.mapping != "by-name":
        raise Skip(f"the weights of {card.name} are mapped {found.source.mapping}: their file has other names.")
    body = subject.cls().load(card, found)
    own = {*body.model.state_dict(), *body.tensors()}
    heads = tuple(f"{name}." for name in card.classifier)
    strange = [name for name in found.tensors if name not in own and not name.startswith(heads)]
    expect(not strange, f"the weights' {_few(strange)} not in the model's state dict.")
    return f"{len(found.tensors)} names of {found.source.uri}"


def loads_the_same_again(subject: Subject) -> None:
    """The same seed gives the same random weights, and the same images the same features."""
    import torch

    backbone, examples = subject.backbone, _examples(subject.backbone)
    again = subject.load(backbone.card)
    expect(again.digest() == backbone.digest(), "loaded twice with one seed, the weights differ.")
    with torch.inference_mode():
        expect(torch.equal(again(examples), backbone(examples)), "the same weights and images give other features.")


def _examples(backbone: Backbone) -> Value:
    """Two examples as they enter the first stage, always the same: noise for images, else what the reader has."""
    import torch

    blank: Value = backbone.reader.blank(2)
    if backbone.card.modality != "image":
        return blank
    assert isinstance(blank, torch.Tensor)
    return torch.randn(blank.shape, generator=torch.Generator().manual_seed(0))


def _few(names: Iterable[str]) -> str:
    """At most two names and how many more."""
    listed = list(names)
    more = f" and {len(listed) - 2} more" if len(listed) > 2 else ""
    return ", ".join(listed[:2]) + more


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


CHECKS = (
    cards_are_valid,
    cards_name_this_package,
    licences_are_stated,
    digests_are_pinned,
    loads_with_random_weights,
    chain_equals_the_whole,
    every_tensor_is_in_one_stage,
    can_be_cut_at_every_depth,
    frozen_stages_stay,
    state_dict_loads_again,
    names_are_upstreams,
    loads_the_same_again,
)
