"""Training the tail: one flat loop over (phases, epochs, batches). No callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from zoo_core import augment
from zoo_core.backbone import Backbone, Chain, Value
from zoo_core.console import Console
from zoo_core.errors import TrainingFailed, UnstagedTensor
from zoo_core.types import FreezePlan, Phase

Boundary: TypeAlias = Callable[[Sequence[str]], Value]
"""Content digests to the value that enters the tail: from the store, or computed on the spot."""


@dataclass(frozen=True)
class Schedule:
    """How long and how hard to train.

    Attributes:
        epochs: in all phases together.
        batch_size: examples per step.
        lr: peak learning rate of AdamW; cosine to zero after 10 % linear warm-up.
        weight_decay: on matrices and kernels, not on biases and norms.
        budget_seconds: where given, `epochs` is cut after the first one so that training fits.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.01
    budget_seconds: float | None = None


@dataclass(frozen=True)
class Side:
    """One side of the data as the tail sees it.

    Attributes:
        digests: of the content, one an example.
        labels: [N].
        views: augmented views of each example that epochs take turns with; 0 takes the example as it is.
    """

    digests: Sequence[str]
    labels: Tensor
    views: int = 0

    def __len__(self) -> int:
        return len(self.digests)

    def rows(self, indices: Iterable[int], epoch: int) -> list[str]:
        """Names of the rows that an epoch reads, for these examples."""
        view = epoch % self.views if self.views else None
        return [augment.name(self.digests[i], view) for i in indices]


def default_schedule(plan: FreezePlan, backbone: Backbone, n_train: int) -> Schedule:
    """Defaults by depth and data size.

    Source: rates and epochs with which the depths were compared on small data before this code was
    written (EfficientNet-Lite0; digits, Fashion-MNIST, elpv): full fine-tuning collapsed at 1e-3 and
    was best at 3e-4, partial depths used 1e-3.
    """
    if plan.depth == len(backbone.stages):
        return Schedule(epochs=40, batch_size=min(64, max(8, n_train // 8)), lr=3e-3)
    epochs = 16 if n_train <= 100 else 12 if n_train <= 400 else 6
    batch_size = 16 if n_train <= 400 else 32
    if not backbone.pretrained:
        return Schedule(epochs=3 * epochs, batch_size=batch_size, lr=1e-3)
    return Schedule(epochs=epochs, batch_size=batch_size, lr=3e-4 if plan.depth == 0 else 1e-3)


@dataclass(frozen=True)
class Model:
    """What is fine-tuned: a backbone with a plan, and a head with its builder (loss, probabilities)."""

    backbone: Backbone
    head: nn.Module
    builder: Any
    plan: FreezePlan

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    @property
    def tail(self) -> Chain:
        """The stages after the plan's cut."""
        return self.backbone.cut(self.plan.depth)[1]

    def outputs(self, boundary: Boundary, digests: Sequence[str], batch_size: int = 64) -> Tensor:
        """Head outputs [N, classes] on the CPU, in eval mode."""
        tail, device = self.tail.eval(), self.device
        self.head.eval()
        chunks = [digests[i : i + batch_size] for i in range(0, len(digests), batch_size)]
        with torch.inference_mode():
            return torch.cat([self.head(tail(_to(boundary(chunk), device))).cpu() for chunk in chunks])

    def trained(self, first: int) -> dict[str, Tensor]:
        """Tensors of the stages from `first` on (`backbone.*`, upstream's names) and of the head (`head.*`)."""
        stages = {f"backbone.{n}": t for n, t in self.backbone.tensors(first).items()}
        return stages | {f"head.{n}": t for n, t in self.head.state_dict().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors back that `trained` gave."""
        own = {f"backbone.{n}": t for n, t in self.backbone.tensors().items()}
        own |= {f"head.{n}": t for n, t in self.head.state_dict(keep_vars=True).items()}
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)


def fit(
    model: Model,
    regime: Any,
    schedule: Schedule,
    boundary: Boundary,
    train: Side,
    val: Side,
    seed: int,
    console: Console,
    n_old: int = 0,
) -> list[dict[str, Any]]:
    """Train tail and head in place; end with the epoch whose validation loss was lowest.

    Args:
        boundary: content digests to the value that enters the tail at the plan's depth.
        train: new examples first, then `n_old` old ones.

    Returns:
        One line per epoch: phase, epoch, train_loss, val_loss, val_accuracy, seconds.

    Raises:
        TrainingFailed: the loss is not finite.
    """
    history: list[dict[str, Any]] = []
    best, best_score = model.trained(model.plan.depth), math.inf
    end, start = schedule.epochs, time.perf_counter()
    with console.track("Training", end) as advance:
        for number, phase in enumerate(model.plan.phases):
            optimiser = torch.optim.AdamW(parameter_groups(model, phase, schedule), lr=schedule.lr)
            first = len(history)
            last = end if phase is model.plan.phases[-1] else first + max(1, round(schedule.epochs * phase.share))
            while len(history) < min(last, end):
                epoch, tick = len(history), time.perf_counter()
                _training_mode(model, phase)
                torch.manual_seed(seed * 1_000_003 + epoch)  # dropout: a function of (seed, epoch)
                rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
                batches = regime.batches(len(train) - n_old, n_old, schedule.batch_size, rng)
                span = (epoch - first) / (last - first), (epoch + 1 - first) / (last - first)
                rows = [train.rows(batch, epoch) for batch in batches]
                loss = _epoch(model, optimiser, schedule, boundary, train, batches, rows, span)
                line = {"phase": number, "epoch": epoch, "train_loss": loss} | _validate(model, boundary, val)
                history.append(line | {"seconds": time.perf_counter() - tick})
                score = line.get("val_loss", -epoch)  # without validation examples the last epoch is kept
                if score < best_score:
                    best_score = score
                    best = {n: t.detach().clone() for n, t in model.trained(model.plan.depth).items()}
                if schedule.budget_seconds and epoch == 0:
                    left = schedule.budget_seconds - (time.perf_counter() - start)
                    end = max(1, min(end, 1 + int(left / history[0]["seconds"])))
                    last = min(last, end)
                advance(1)
    model.restore(best)
    return history


def _epoch(
    model: Model,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    boundary: Boundary,
    train: Side,
    batches: list[np.ndarray],
    rows: list[list[str]],
    span: tuple[float, float],
) -> float:
    """One pass over the batches; returns the mean loss. `span`: where the epoch lies in its phase, in [0, 1]."""
    tail, device = model.tail, model.device
    total = torch.zeros((), device=device)
    for step, (batch, names) in enumerate(zip(batches, rows, strict=True)):
        factor = warm_cosine(span[0] + (span[1] - span[0]) * step / len(batches))
        for group in optimiser.param_groups:
            group["lr"] = schedule.lr * group["scale"] * factor
        value = _to(boundary(names), device)
        losses = model.builder.loss(model.head(tail(value)), train.labels[batch].to(device))
        optimiser.zero_grad(set_to_none=True)
        losses.mean().backward()
        optimiser.step()
        total += losses.detach().sum()
    mean = float(total) / max(1, sum(map(len, batches)))
    if not math.isfinite(mean):
        raise TrainingFailed(f"the loss became {mean} at learning rate {schedule.lr:g}. Try --lr {schedule.lr / 3:.2g}")
    return mean


def parameter_groups(model: Model, phase: Phase, schedule: Schedule) -> list[dict[str, Any]]:
    """Optimiser groups: each trained stage and the head, matrices decayed, vectors not.

    Freezes the phase's stages; parameters left out by `phase.only` ask for no gradient either.

    Raises:
        UnstagedTensor: a trainable parameter would stand in no group or in two.
    """
    backbone, head = model.backbone, model.head
    backbone.freeze(phase.depth)
    scales = phase.lr_scale or (1.0,) * (len(backbone.stages) - phase.depth)
    members = [(1.0, list(head.parameters()))]
    for i, scale in enumerate(scales, start=phase.depth):
        named = backbone.stage_parameters(i)
        for name, parameter in named.items():
            parameter.requires_grad_(_trains(name, parameter, phase))
        members.append((scale, [p for p in named.values() if p.requires_grad]))
    groups = [
        {"params": chosen, "scale": scale, "weight_decay": decay}
        for scale, parameters in members
        for decay, chosen in (
            (schedule.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        )
        if chosen
    ]
    _check_groups(backbone, head, groups)
    return groups


def warm_cosine(progress: float, warmup: float = 0.1) -> float:
    """Learning-rate factor at a share of the phase in [0, 1]: linear up, then half a cosine down."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _trains(name: str, parameter: nn.Parameter, phase: Phase) -> bool:
    if phase.only == "bias":
        return name.endswith("bias")
    return parameter.ndim == 1 or phase.only == "all"


def _check_groups(backbone: Backbone, head: nn.Module, groups: list[dict[str, Any]]) -> None:
    grouped = [id(p) for group in groups for p in group["params"]]
    trainable = {id(p) for p in (*backbone.model.parameters(), *head.parameters()) if p.requires_grad}
    if len(grouped) != len(set(grouped)) or set(grouped) != trainable:
        raise UnstagedTensor("a trainable parameter stands in no optimiser group or in two; expected exactly one.")


def _training_mode(model: Model, phase: Phase) -> None:
    """Train mode for trained stages and head; running statistics stand still unless the plan says `train`."""
    model.head.train()
    for stage in model.backbone.stages[phase.depth :]:
        stage.module.train()
        if model.plan.batch_norm == "frozen":
            for module in stage.module.modules():
                if getattr(module, "running_mean", None) is not None:
                    module.eval()


def _validate(model: Model, boundary: Boundary, val: Side) -> dict[str, float]:
    if not len(val):
        return {}
    out = model.outputs(boundary, val.digests)
    loss = float(model.builder.loss(out, val.labels).mean())
    accuracy = float((model.builder.probabilities(out).argmax(1) == val.labels).float().mean())
    return {"val_loss": loss, "val_accuracy": accuracy}


def _to(value: Value, device: torch.device) -> Value:
    if isinstance(value, tuple):
        return tuple(part.to(device, non_blocking=True) for part in value)
    return value.to(device, non_blocking=True)
