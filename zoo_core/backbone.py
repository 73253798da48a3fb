"""A backbone is a chain of named stages; cutting it, freezing a prefix and digesting it live here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from zoo_core.card import Card
from zoo_core.crossing import rewrite_device
from zoo_core.errors import BadStage, UnstagedTensor
from zoo_core.readers import Pixels, Reader
from zoo_core.tensors import digest
from zoo_core.types import Only, StageInfo

Value: TypeAlias = Tensor | tuple[Tensor, ...]
"""What travels between stages: a tensor or a flat tuple of tensors, batch first."""


@dataclass(frozen=True)
class Stage:
    """One link of the chain.

    Attributes:
        name: as in the family's own code: `stem`, `layer1`, `blocks.0`, `neck`.
        module: one `Value` in, one `Value` out; shares its parameters with the upstream model.
        tensors: names of its parameters and buffers in the upstream model.
        added: those among them that a freeze strategy added for the time of training; upstream has none.
    """

    name: str
    module: nn.Module
    tensors: tuple[str, ...]
    added: tuple[str, ...] = ()


class Chain(nn.Module):
    """Some consecutive stages as one module: `Chain(stages)(value)`."""

    def __init__(self, stages: Iterable[Stage]):
        super().__init__()
        self.links = nn.ModuleList(stage.module for stage in stages)

    def forward(self, value: Value) -> Value:
        for link in self.links:
            value = link(value)
        return value


def pool(value: Value) -> Tensor:
    """A stage's value to one row per example [B, C]: means over space or tokens, tuples joined.

    [B, C, H, W] and [B, H, W, C] are told apart by which two axes are the equal, spatial ones.
    """
    if isinstance(value, tuple):
        return torch.cat([pool(part) for part in value], dim=1)
    if value.ndim == 4:
        channels_last = value.shape[1] == value.shape[2] != value.shape[3]
        return value.mean(dim=(1, 2) if channels_last else (2, 3))
    return value.flatten(1, -2).mean(dim=1) if value.ndim > 2 else value.reshape(len(value), -1)


@dataclass
class Backbone:
    """Ordered stages over one upstream model; composing them all gives its pooled features.

    Attributes:
        card: what it is, where its weights come from, how open it is.
        model: the upstream model without its classifier; its state dict keeps upstream's names.
        stages: the chain, input side first.
        feature_dim: width D of the pooled features [B, D].
        classifier: the dropped classifier's tensors by upstream name (its weights are the old
            task); empty when the weights had none.
        pretrained: whether its weights are pretrained; random ones are never given unasked.
        weights_note: where the weights came from, in words for the run's report.
        reader: from a file to what enters the first stage; by default images, as the card says.
        pooling: a stage's value to one row per example [B, C]; `pool` by default.
        labels: every name by which people call an output of the classifier -> its index; the first name of each is
            what it is shown as. Empty where the outputs have no names.
        words: texts to unit vectors [N, D] in the space of the features, and the scale of cosines between the two:
            what a text tower beside it makes of them. None where there is none.
    """

    card: Card
    model: nn.Module
    stages: tuple[Stage, ...]
    feature_dim: int
    classifier: Mapping[str, Tensor] = field(default_factory=dict)
    pretrained: bool = True
    weights_note: str = ""
    reader: Reader = None  # type: ignore[assignment]  # made from the card below
    pooling: Callable[[Value], Tensor] = pool
    labels: Mapping[str, int] = field(default_factory=dict)
    words: Callable[[Sequence[str]], tuple[Tensor, float]] | None = None

    def __post_init__(self) -> None:
        self.reader = self.reader or Pixels(self.card.input)
        check_staged(self.model, self.stages)
        self.model.eval()
        self._frozen = 0

    def __call__(self, x: Value) -> Tensor:
        """Inputs, such as images [B, C, H, W], to pooled features [B, D]."""
        value: Tensor = Chain(self.stages)(x)
        return value

    features = __call__

    def cut(self, depth: int) -> tuple[Chain, Chain]:
        """Prefix (the first `depth` stages) and tail; `tail(prefix(x))` equals `self(x)`.

        Args:
            depth: 0 to `len(stages)`, counted from the input.
        """
        self._check_depth(depth)
        return Chain(self.stages[:depth]), Chain(self.stages[depth:])

    def depth_of(self, name: str) -> int:
        """Depth that freezes up to and including the stage called `name`."""
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise BadStage(f"no stage {name!r} in {self.card.name}; its stages are {', '.join(names)}.")
        return names.index(name) + 1

    def info(self) -> tuple[StageInfo, ...]:
        """The chain as plain data, for freeze strategies and tables."""

        def count(index: int, only: Only) -> int:
            return sum(p.numel() for p in self.stage_parameters(index, only).values())

        return tuple(
            StageInfo(
                name=stage.name,
                parameters=count(i, "all"),
                norm_buffers=sum(n.endswith(("running_mean", "running_var")) for n in stage.tensors),
                norm_parameters=count(i, "norm"),
                bias_parameters=count(i, "bias"),
                added_parameters=count(i, "added"),
            )
            for i, stage in enumerate(self.stages)
        )

    def freeze(self, depth: int, still: Iterable[int] = ()) -> None:
        """Freeze the first `depth` stages, in a way that a later `train()` anywhere cannot undo.

        Parameters stop asking for gradients, and every module of the prefix answers `train()` by
        staying in eval mode: running statistics, dropout and stochastic depth stand still too
        (`requires_grad=False` alone leaves batch norm drifting).

        Args:
            still: indices of later stages that are frozen in the same way.
        """
        self._check_depth(depth)
        standing = {*range(depth), *still}
        order = sorted(range(len(self.stages)), key=lambda i: i in standing)  # what two stages share ends frozen
        for i in order:
            stage, frozen = self.stages[i], i in standing
            for module in stage.module.modules():
                if frozen:
                    module.train = _stay_in_eval.__get__(module)  # type: ignore[method-assign]
                    module.training = False
                else:
                    module.__dict__.pop("train", None)
            for parameter in self.stage_parameters(i).values():
                parameter.requires_grad_(not frozen)
        self._frozen = depth

    @property
    def frozen_depth(self) -> int:
        """How many stages are frozen now."""
        return self._frozen

    def stage_parameters(self, index: int, only: Only = "all") -> dict[str, nn.Parameter]:
        """Parameters of one stage by upstream name: all, those of norms, biases, or only what was added."""
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        found = {n: parameters[n] for n in self.stages[index].tensors if n in parameters}
        if only == "all":
            return found
        chosen = set(self.stages[index].added)
        if only == "bias":
            chosen |= {n for n in found if n.endswith("bias")}
        if only == "norm":
            norms = {id(p) for m in self.model.modules() if _normalises(m) for p in m.parameters(recurse=False)}
            chosen |= {n for n, p in found.items() if id(p) in norms}
        return {n: p for n, p in found.items() if n in chosen}

    def tensors(self, first: int = 0, last: int | None = None) -> dict[str, Tensor]:
        """Parameters and buffers of stages `first` to `last` (excluded) by upstream name."""
        everything = _all_tensors(self.model)
        return {n: everything[n] for stage in self.stages[first:last] for n in stage.tensors}

    def digest(self, depth: int | None = None) -> str:
        """sha256 (hex) over names, dtypes, shapes and bytes of the first `depth` stages' tensors."""
        return self.digest_of(range(len(self.stages))[:depth])

    def digest_of(self, stages: Iterable[int]) -> str:
        """As `digest`, of the stages with these indices."""
        everything = _all_tensors(self.model)
        return digest({n: everything[n] for i in stages for n in self.stages[i].tensors})

    def to(self, device: str | torch.device) -> Backbone:
        """Move model and stages; returns itself."""
        self.model.to(device)
        for stage in self.stages:  # a traced stage may hold its own reference to a root buffer
            stage.module.to(device)
            rewrite_device(stage.module, torch.device(device))
        return self

    def _check_depth(self, depth: int) -> None:
        if not 0 <= depth <= len(self.stages):
            raise BadStage(f"depth {depth} asked of {self.card.name}, which has stages 0 to {len(self.stages)}.")


def chain_from_modules(parts: Sequence[tuple[str, nn.Module]], root: nn.Module) -> tuple[Stage, ...]:
    """Stages from modules that simply follow one another inside `root`.

    Args:
        parts: (stage name, submodule of `root`), input side first.
        root: the upstream model whose tensor names are used.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1))
        >>> [s.name for s in chain_from_modules([("stem", net[0]), ("neck", net[1])], net)]
        ['stem', 'neck']
    """
    owner = {id(t): n for n, t in _all_tensors(root).items()}
    stages = []
    for name, module in parts:
        held = _all_tensors(module).values()
        stages.append(Stage(name, module, tuple(owner[id(t)] for t in held if id(t) in owner)))
    return tuple(stages)


def check_staged(model: nn.Module, stages: Sequence[Stage]) -> None:
    """Raise `UnstagedTensor` unless every parameter and buffer belongs to exactly one stage."""
    seen: dict[str, str] = {}
    for stage in stages:
        for name in stage.tensors:
            if name in seen:
                raise UnstagedTensor(
                    f"tensor {name} belongs to the stages {seen[name]} and {stage.name}; expected one."
                )
            seen[name] = stage.name
    missing = sorted(_all_tensors(model).keys() - seen.keys())
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise UnstagedTensor(f"no stage holds {shown}; every parameter and buffer must belong to exactly one stage.")


def _all_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _normalises(module: nn.Module) -> bool:
    """Told by the class's name or a base's: libraries have norm layers of their own (`RmsNorm`, ResMLP's `Affine`)."""
    return any("norm" in cls.__name__.lower() or cls.__name__ == "Affine" for cls in type(module).__mro__)


def _stay_in_eval(self: nn.Module, mode: bool = True) -> nn.Module:
    self.training = False
    return self
