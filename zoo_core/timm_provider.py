"""Backbones from timm: any of its architectures, staged by its own parameter groups, loaded by its own filters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

from zoo_core.errors import BadCard, NotAChain, UnstagedTensor, WeightsMismatch, near

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo_core.backbone import Backbone, Stage
    from zoo_core.card import Card, Source
    from zoo_core.tracing import Levels

Key = tuple[float, ...]
"""Where a parameter group stands in the chain; groups sort by it."""

_LAST = float("inf")
_PREVIOUS = (99999,)  # timm's MATCH_PREV_GROUP: "whatever the group before it"


class Weights(Protocol):
    """What a provider is given to load."""

    tensors: dict[str, Tensor]
    source: Source
    note: str


class TimmProvider:
    """Loads any timm architecture as a chain of stages."""

    def load(self, card: Card, weights: Weights | None) -> Backbone:
        """Build the backbone of a card.

        Args:
            weights: upstream's state dict with its source; None means random weights.

        Raises:
            BadCard: timm has no such architecture.
            WeightsMismatch: a tensor of the weights does not fit; names the first.
            NotAChain: the architecture cannot be cut into stages; says why.
        """
        import torch

        from zoo_core.backbone import Backbone

        model = create(card, num_classes=0).eval()
        classifier: dict[str, Tensor] = {}
        note = "random weights, as asked for"
        if weights is not None:
            classifier, note = load_weights(model, card, weights), weights.note
        example = torch.zeros(1, *card.input.size)
        with torch.no_grad():
            features = model(example)
        if features.ndim != 2:
            raise NotAChain(
                f"{card.architecture} gives features of shape {['B', *features.shape[1:]]}, not one row per image. "
                f"Use a member that pools: zoo list {card.architecture.partition('_enc')[0]}"
            )
        stages, width = stages_of(model, example), features.shape[1]
        labels = label_names(model, card, classifier)
        return Backbone(
            card, model, stages, width, classifier, pretrained=weights is not None, weights_note=note, labels=labels
        )


def label_names(model: Any, card: Card, classifier: Mapping[str, Tensor]) -> dict[str, int]:
    """Names of an ImageNet-1k classifier's outputs, from timm's table: short name, whole description, synset.

    A short name that two classes have (crane, maillot) is left out of both.
    """
    import timm.data

    data: Any = timm.data

    rows = {len(t) for n, t in classifier.items() if n.endswith("weight")}
    if rows != {1000} or card.parent or data.infer_imagenet_subset(model.pretrained_cfg) not in (None, "imagenet-1k"):
        return {}
    if "ImageNet-1k" not in card.openness.data.name:
        return {}
    info: Any = data.ImageNetInfo("imagenet-1k")
    whole, synsets = info.label_descriptions(), info.label_names()
    short = [text.partition(",")[0] for text in whole]
    found: dict[str, int] = {}
    for i, names in enumerate(zip(short, whole, synsets, strict=True)):
        for name in names[short.count(short[i]) > 1 :]:
            found.setdefault(name, i)
    return found


def create(card: Card, num_classes: int, **more: Any) -> nn.Module:
    """timm's model of a card, for the card's input channels and size."""
    import timm

    base = card.architecture.split(".")[0]
    if not timm.is_model(base):
        raise BadCard(f"timm {timm.__version__} has no architecture {base!r}. {near(base, timm.list_models())}")
    channels, *size = card.input.size
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels, **more}
    try:
        model: nn.Module = timm.create_model(card.architecture, img_size=tuple(size), **arguments)
    except TypeError as error:  # only architectures that depend on the input's size take it
        if "img_size" not in str(error):
            raise
        model = timm.create_model(card.architecture, **arguments)
    return model


def stages_of(model: nn.Module, example: Tensor, levels: Levels | None = None) -> tuple[Stage, ...]:
    """The chain of a timm model, cut between its coarse parameter groups (or between given levels)."""
    from timm.models import _features_fx

    from zoo_core.tracing import trace_stages

    levels = levels or timm_levels(model)
    fx: Any = _features_fx
    functions = [f for f in fx.get_notrace_functions() if callable(f)]
    stages = trace_stages(model, levels, example, leaf_modules=fx.get_notrace_modules(), autowrap=functions)
    _check_order(model, stages, levels)
    return stages


def _check_order(model: nn.Module, stages: tuple[Stage, ...], levels: Levels) -> None:
    """Refuse a tensor in no group that is needed before the last group: it would swallow the stages between."""
    last = max(levels.values())
    late = [name for name in stages[-1].tensors if levels[name] < last]
    key_of = _matcher(model)
    loose = [name for name in stages[-1].tensors if levels[name] == last and key_of(name)[0] == (_LAST,)]
    if late and loose:
        raise UnstagedTensor(
            f"the groups of {type(model).__name__} leave out {loose[0]}, which is used before {late[0]}; "
            "expected every parameter before the last stage to be in a group."
        )


def timm_levels(model: nn.Module) -> Levels:
    """(level, stage name) of every tensor of a timm model, from its own `group_matcher(coarse=True)`."""
    return levels_by(_matcher(model), model)


def levels_by(key_of: Callable[[str], tuple[Key, str]], model: nn.Module) -> Levels:
    """(level, stage name) of every tensor from a function that gives its group's key and label.

    What is in no group comes behind the last one. Matchers are written for parameters: a buffer in no group
    is a table that no group trains, and stands at the front.
    """
    groups: dict[Key, list[tuple[str, str]]] = {}
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    buffers = [name for name, _ in model.named_buffers()]
    for name in [*(name for name, _ in model.named_parameters()), *buffers]:
        key, label = key_of(name)
        if key == (_LAST,) and name in buffers and name.rpartition(".")[0] not in owners:
            key, label = min(groups), groups[min(groups)][0][1]
        groups.setdefault(key, []).append((name, label))
    levels: dict[str, tuple[int, str]] = {}
    for level, key in enumerate(sorted(groups)):
        names = [name for name, _ in groups[key]]
        stage = _stage_name([label for _, label in groups[key]], names)
        stage = f"{stage}.{level}" if stage in {taken for _, taken in levels.values()} else stage
        levels.update(dict.fromkeys(names, (level, stage)))
    return levels


def _matcher(model: Any) -> Callable[[str], tuple[Key, str]]:
    """A function from a tensor's name to its group's key and the group's label in the family's own code."""
    try:
        spec = model.group_matcher(coarse=True)
    except (AssertionError, AttributeError, NotImplementedError):
        spec = None
    if not spec:
        return _by_module(model)
    if callable(spec):
        return lambda name: _from_function(spec, name)
    return lambda name: from_patterns(spec, name)


def from_patterns(spec: Mapping[str, Any], name: str) -> tuple[Key, str]:
    for position, (group, patterns) in enumerate(spec.items()):
        for pattern, suffix in [(patterns, None)] if isinstance(patterns, str) else patterns or ():
            found = re.match(pattern, name)
            if found and suffix == _PREVIOUS:
                return (_LAST,), ""
            if found:
                digits = [float(d) for d in found.groups() if d is not None]
                text = found.group(0)[: found.end(found.lastindex)] if found.lastindex else group
                return (float(position), *digits, *map(float, suffix or ())), text
    return (_LAST,), ""


def _from_function(spec: Callable[[str], Any], name: str) -> tuple[Key, str]:
    key = spec(name)
    key = tuple(map(float, key)) if isinstance(key, tuple | list) else (float(key),)
    found = re.match(r"[^.]+(\.\d+)?", name)
    return key, "" if key == (_LAST,) or found is None else found.group(0)


def _by_module(model: nn.Module) -> Callable[[str], tuple[Key, str]]:
    """Families without coarse groups: the top-level modules, in the order they were made."""
    order = {name: i for i, (name, _) in enumerate(model.named_children())}

    def key_of(name: str) -> tuple[Key, str]:
        top, *rest = name.split(".")
        numbered = rest[:1] if rest and rest[0].isdigit() else []
        return (float(order.get(top, -1)), *map(float, numbered)), ".".join([top, *numbered])

    return key_of


def _stage_name(labels: list[str], names: list[str]) -> str:
    """The label that most tensors carry; what stands behind the last group is named by its module."""
    label = Counter(labels).most_common(1)[0][0]
    if label:
        return label
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = takewhile(lambda parts: len(set(parts)) == 1, levels)
    return ".".join(parts[0] for parts in shared) or "neck"


def load_weights(model: nn.Module, card: Card, weights: Weights) -> dict[str, Tensor]:
    """Fill the headless `model` as upstream's own loading would; return the classifier it leaves out.

    timm loads a model with its classifier, strictly, through its filters (old names, position embeddings of
    another size, other input channels); the rest is then copied by name.
    """
    heads = classifier_names(model, card)
    tensors = dict(weights.tensors)
    if weights.source.mapping == "by-order":
        tensors = by_order(tensors, create(card, num_classes=1000).state_dict(), heads, card.name)
    classes = _classes(tensors, model, heads)
    overlay = {"state_dict": tensors, "num_classes": classes, "label_offset": 0}
    try:
        full = create(card, classes, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
        dropped = {n: t for n, t in full.items() if _within(n, heads)}
        model.load_state_dict({n: t for n, t in full.items() if n not in dropped})
    except (RuntimeError, KeyError) as error:
        first = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise WeightsMismatch(
            f"the weights {weights.source.uri} do not fit {card.architecture}: {first[min(1, len(first) - 1)]} "
            f"Expected timm's names and shapes; zoo show {card.name} --stages lists them."
        ) from error
    return dropped


def classifier_names(model: Any, card: Card) -> tuple[str, ...]:
    """Module names of the classifier: the card's, else timm's."""
    names = card.classifier or model.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def by_order(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], heads: tuple[str, ...], where: str
) -> dict[str, Tensor]:
    """Give tensors that come in the architecture's order the architecture's names, checking every shape."""
    if len(tensors) != len(expected):
        raise WeightsMismatch(f"{where}: the weights hold {len(tensors)} tensors, expected {len(expected)} in order.")
    for (given, tensor), (name, like) in zip(tensors.items(), expected.items(), strict=True):
        skip = 1 if _within(name, heads) else 0  # the number of classes is the file's
        if tensor.ndim != like.ndim or tensor.shape[skip:] != like.shape[skip:]:
            raise WeightsMismatch(
                f"{where}: tensor {given} has shape {list(tensor.shape)}, expected {list(like.shape)} for {name}. "
                "Is the file of this architecture?"
            )
    return dict(zip(expected, tensors.values(), strict=True))


def _classes(tensors: Mapping[str, Tensor], model: Any, heads: tuple[str, ...]) -> int:
    """Number of classes of the weights' classifier; 0 when they have none."""
    found = [tensors[f"{head}.weight"].shape[0] for head in heads if f"{head}.weight" in tensors]
    if found or model.state_dict().keys() <= tensors.keys():
        return found[0] if found else 0
    return int(model.pretrained_cfg.get("num_classes") or 0)  # names that timm's filter has yet to change


def _within(name: str, modules: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"{module}." for module in modules))
