"""What a plan will cost: each stage, and an epoch of each phase, timed on a few examples, and extrapolated."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zoo_core import activations, augment, fit, keeping, regimes
from zoo_core.activations import Numbers, Views
from zoo_core.backbone import Backbone, Value
from zoo_core.console import Console
from zoo_core.recipe import Recipe
from zoo_core.trainer import Kept, Trainer, kept_at
from zoo_core.training import epochs_of
from zoo_core.types import FreezePlan, Phase, Task


@dataclass(frozen=True)
class Costs:
    """Seconds that the frozen pass and the training are expected to take: an estimate.

    Attributes:
        sampled: examples that were timed.
        missing: examples and views that the store does not have; each passes the whole chain once.
        frozen_pass: of those.
        phases: of training, each phase.
        stages: each stage's part of both.
        boundary_bytes: of what leaves each stage, an example.
        head_parameters: numbers in the head.
        kept: what will be kept at the cut, and why.
    """

    sampled: int
    missing: int
    frozen_pass: float
    phases: tuple[float, ...]
    stages: tuple[float, ...]
    boundary_bytes: tuple[int, ...]
    head_parameters: int
    kept: str

    @property
    def total(self) -> float:
        """Seconds of the frozen pass and the training."""
        return self.frozen_pass + sum(self.phases)


def expect(
    recipe: Recipe,
    task: Task,
    body: Backbone,
    plan: FreezePlan,
    schedule: fit.Schedule,
    builder: Any,
    strategy: Any,
    everything: Task | None = None,
    ratio: float = 0.0,
) -> Costs:
    """Time a few training examples; afterwards the backbone is as it was.

    Args:
        builder: of the head, with the loss of the task.
        strategy: made the plan; it may add parameters while stages train.
        everything: the task with the examples of an old one, which pass the frozen stages, too.
        ratio: share of old examples in each batch.
    """
    train, count = task.split("train"), len(body.stages)
    few = dataclasses.replace(task, examples=train[: keeping.SAMPLE])
    body.freeze(count)
    kept = kept_at(recipe, few, body, fit.span(builder, plan.depth, count)[0], schedule.epochs + 1, Console(), False)
    decode, forward, boundary_bytes = _forward(body, kept.numbers, [e.path for e in few.examples])
    each = tuple(dataclasses.replace(phase, share=1 / len(plan.phases)) for phase in plan.phases)
    short = dataclasses.replace(schedule, epochs=2 * len(each), budget_seconds=None)
    even = dataclasses.replace(plan, phases=each)
    trainer = Trainer(recipe, few, body, even, short, builder, regimes.NewOnly(), kept, Console(), strategy)
    steps, head_parameters = _steps(trainer, few)

    choice, missing = _keeping(recipe, everything or task, body, kept, schedule.epochs + 1)
    phases, parts = [], [0.0] * count
    for phase, epochs, step in zip(plan.phases, epochs_of(plan, schedule.epochs), steps, strict=True):
        first = phase.depth if phase.depth in trainer.deeper else kept.plain.depth
        seconds = epochs * (len(train) / (1 - ratio) * step + len(task.split("val")) * sum(forward[first:]))
        phases.append(seconds)
        shares = _shares(phase, forward, first)
        parts = [part + seconds * share for part, share in zip(parts, shares, strict=True)]
    if schedule.budget_seconds and sum(phases) > schedule.budget_seconds:
        fits = schedule.budget_seconds / sum(phases)
        phases, parts = [fits * s for s in phases], [fits * s for s in parts]
    return Costs(
        sampled=len(few.examples),
        missing=missing,
        frozen_pass=missing * (decode + sum(forward)),
        phases=tuple(phases),
        stages=tuple(part + missing * seconds for part, seconds in zip(parts, forward, strict=True)),
        boundary_bytes=boundary_bytes,
        head_parameters=head_parameters,
        kept=choice,
    )


def _steps(trainer: Trainer, task: Task) -> tuple[list[float], int]:
    """Seconds an example and epoch of each phase, from the faster of two epochs; and how large the head is."""
    train = task.split("train")
    side = fit.Side([e.digest for e in train], trainer.builder.target.labels([task.text(e) for e in train]))
    model, history = trainer.train(side, fit.Side([], torch.empty(0, dtype=torch.long)), trainer.recipe.seed)
    trainer.restart()
    spent = [
        min((line["seconds"] for line in history if line["phase"] == number and "seconds" in line), default=0.0)
        for number in range(len(trainer.plan.phases))
    ]
    return [seconds / len(train) for seconds in spent], sum(p.numel() for p in model.head.parameters())


def _forward(body: Backbone, numbers: Numbers, paths: Sequence[str]) -> tuple[float, list[float], tuple[int, ...]]:
    """Seconds an example for reading and for each stage, and bytes an example that leave each stage."""
    start = time.perf_counter()
    raw = body.reader.stack([body.reader.read(path, "") for path in paths])
    value: Value = body.reader.to_input(raw, activations.device_of(body))
    decode = (time.perf_counter() - start) / len(paths)
    seconds, sizes = [], []
    with torch.inference_mode():
        for i in range(len(body.stages)):
            spent = []
            for _ in range(2):  # the first one also warms up
                start = time.perf_counter()
                after = numbers.pass_through(body, i, i + 1, value)
                if activations.device_of(body).type == "cuda":
                    torch.cuda.synchronize()
                spent.append(time.perf_counter() - start)
            value = after
            seconds.append(min(spent) / len(paths))
            sizes.append(sum(t.numel() * t.element_size() for t in activations.parts_of(value)) // len(paths))
    return decode, seconds, tuple(sizes)


def _keeping(recipe: Recipe, task: Task, body: Backbone, kept: Kept, passes: int) -> tuple[str, int]:
    """What will be kept of all examples, in words, and how many examples and views have yet to pass the chain."""
    train, paths = task.split("train"), {e.digest: e.path for e in task.examples}
    mode, folder = keeping.where(recipe.cache)
    cap = int(recipe.cache_cap * 1e9)
    choice = keeping.choose(mode, body, kept.plain.depth, paths, folder, passes, cap, kept.numbers, Views())
    views = [(Views(), set(paths))]
    if recipe.augment != "none":
        names = {augment.name(e.digest, k) for e in train for k in range(recipe.views)}
        views.append((Views(recipe.augment, recipe.seed), names))
    missing = 0
    for look, names in views:
        shelf = activations.shelf_of(body, "pooled", len(body.stages), folder, kept.numbers, look)
        missing += len(names - shelf.rows.keys())
    return choice.why, missing


def _shares(phase: Phase, forward: Sequence[float], first: int) -> list[float]:
    """Each stage's share of the time of a phase that reads values from before stage `first`.

    A stage costs its forward pass, as much again where gradients pass through it, and again where it trains.
    """
    trained = phase.scales(len(forward))
    start = min(trained, default=len(forward))
    weights = [3 if i in trained else 2 if i > start else 1 if i >= first else 0 for i in range(len(forward))]
    parts = [weight * seconds for weight, seconds in zip(weights, forward, strict=True)]
    return [part / (sum(parts) or 1.0) for part in parts]
