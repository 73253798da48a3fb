"""Training the tail: one flat loop over (phases, epochs, batches). No callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from zoo_core import augment
from zoo_core.averaging import Average
from zoo_core.backbone import Backbone, Chain, Value
from zoo_core.checkpoints import Memory, Standing
from zoo_core.collapse import Watch
from zoo_core.console import Console, epoch_note
from zoo_core.errors import Collapsed, UnstagedTensor
from zoo_core.portions import Portion
from zoo_core.stepping import portion_of, step, to_device
from zoo_core.training import Training, epochs_of, warm_cosine
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
        budget_seconds: where given, each phase's epochs are cut after its first one so that training fits.
        training: what else was asked for; all off unless given.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.01
    budget_seconds: float | None = None
    training: Training = field(default_factory=Training)


class Soft(Protocol):
    """What an old model answered for the training examples; see `rehearsing.SoftTargets`."""

    def loss(self, outputs: Tensor, rows: Sequence[int], epoch: int) -> Tensor:
        """One loss per example [B], added to that of the labels."""
        ...


@dataclass(frozen=True)
class Side:
    """One side of the data as the tail sees it.

    Attributes:
        digests: of the content, one an example.
        labels: [N].
        views: augmented views of each example that epochs take turns with; 0 takes the example as it is.
        n_old: how many of the examples, the last ones, are of an old task.
        soft: an old model's answers for them.
    """

    digests: Sequence[str]
    labels: Tensor
    views: int = 0
    n_old: int = 0
    soft: Soft | None = None

    def __len__(self) -> int:
        return len(self.digests)

    def soft_loss(self, batch: np.ndarray, epoch: int) -> Callable[[Tensor, slice], Tensor] | None:
        """For `step`: the loss of the soft targets of a batch of examples, where there are any."""
        soft = self.soft
        return (lambda outputs, part: soft.loss(outputs, batch[part].tolist(), epoch)) if soft else None

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
    head_alone = sum(phase.share for phase in plan.phases if phase.depth == len(backbone.stages))
    epochs = round(epochs / (1 - head_alone))  # stages get as many epochs as without a phase for the head
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
        return next(self.backbone.model.parameters()).device

    @property
    def tail(self) -> Chain:
        """The stages between the cut and the head."""
        first, last = span(self.builder, self.plan.depth, len(self.backbone.stages))
        return Chain(self.backbone.stages[first:last])

    def outputs(self, boundary: Boundary, digests: Sequence[str], batch_size: int = 64) -> Tensor:
        """Head outputs [N, classes] on the CPU, in eval mode."""
        tail, device = self.tail.eval(), self.device
        self.head.eval()

        def answers(size: int) -> Tensor:
            chunks = [digests[i : i + size] for i in range(0, len(digests), size)]
            return torch.cat([self.head(tail(to_device(boundary(chunk), device))).cpu() for chunk in chunks])

        with torch.inference_mode():
            return Portion().run(answers, batch_size)

    def trained(self, first: int) -> dict[str, Tensor]:
        """Tensors of the stages from `first` on (`backbone.*`, upstream's names) and of the head (`head.*`)."""
        stages = {f"backbone.{n}": t for n, t in self.backbone.tensors(first).items()}
        return stages | {f"head.{n}": t for n, t in self.head.state_dict().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors back that `trained` gave."""
        own = {f"backbone.{n}": t for n, t in self.backbone.tensors().items()}
        with torch.no_grad():
            for name, value in tensors.items():
                if name in own:
                    own[name].copy_(value)
        head = {n.removeprefix("head."): t for n, t in tensors.items() if n.startswith("head.")}
        self.head.load_state_dict(head)


def span(builder: Any, depth: int, count: int) -> tuple[int, int]:
    """Stages before the cut and stages before the head, for a plan's depth in a chain of `count`.

    A head that reads positions takes the last stage's place; to one that reads tokens it must run: pooled it is no use.
    """
    if getattr(builder, "reads_tokens", False):
        return min(depth, count - 1), count
    last = count - 1 if getattr(builder, "reads_positions", False) else count
    return min(depth, last), last


def fit(
    model: Model,
    regime: Any,
    schedule: Schedule,
    boundary: Boundary,
    train: Side,
    val: Side,
    seed: int,
    console: Console,
    deeper: Mapping[int, Boundary] | None = None,
    watch: Watch | None = None,
    memory: Memory | None = None,
) -> list[dict[str, Any]]:
    """Train tail and head in place; end with the epoch whose validation loss was lowest.

    Args:
        boundary: content digests to the value that enters the tail at the plan's depth.
        train: new examples first, then old ones.
        deeper: the same for deeper cuts, which a phase of that depth reads instead.
        watch: told what happens in each epoch; may stop the training.
        memory: where it goes on from, and writes down how far it came.

    Returns:
        One line per epoch: phase, epoch, train_loss, val_loss, val_accuracy, seconds.

    Raises:
        Collapsed: the loss is not finite, or `watch` says so.
    """
    memory = memory or Memory()
    at = memory.recall(model, watch)
    history, whole = at.history, model.plan.depth
    best = at.best or model.trained(whole)
    start, options, portion = time.perf_counter() - at.elapsed, schedule.training, portion_of(model, schedule, console)
    shares = accumulate(phase.share for phase in model.plan.phases)
    phases = zip(model.plan.phases, epochs_of(model.plan, schedule.epochs), shares, strict=True)
    with console.track("Training", schedule.epochs) as advance, memory.stoppable():
        advance(len(history))
        for number, (phase, epochs, share) in enumerate(phases):
            if number < at.phase:
                continue
            part, reads = _reading(model, phase, boundary, deeper or {})
            groups = parameter_groups(part, phase, schedule)
            optimiser = torch.optim.AdamW(groups, lr=schedule.lr)
            average = Average((p for g in groups for p in g["params"]), options.ema) if options.ema else None
            if number == at.phase:
                memory.put_back(optimiser, average)
            else:
                at.enter(number, epochs)
                if watch:
                    watch.begin(epochs)
            keep = partial(memory.keep, at, model, optimiser, watch, average, start)
            while len(history) < at.last:
                epoch, at.tick = len(history), time.perf_counter() - at.spent
                training_mode(part, phase)
                torch.manual_seed(seed * 1_000_003 + epoch)  # dropout: a function of (seed, epoch)
                rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
                batches = regime.batches(len(train) - train.n_old, train.n_old, schedule.batch_size, rng)
                span = (epoch - at.first) / (at.last - at.first), (epoch + 1 - at.first) / (at.last - at.first)
                rows = [train.rows(batch, epoch) for batch in batches]
                if at.step:  # begun by an earlier process
                    memory.put_back_random(model.device)
                loss = _epoch(
                    part,
                    optimiser,
                    schedule,
                    reads,
                    train,
                    batches,
                    rows,
                    epoch,
                    span,
                    watch,
                    average,
                    at,
                    keep,
                    portion,
                )
                if watch:
                    watch.close(loss, schedule.lr)
                with average.in_place() if average else nullcontext():
                    line = {"phase": number, "epoch": epoch, "train_loss": loss} | _validate(part, reads, val)
                    line |= {"micro_batch": portion.size} if portion.halved else {}
                    history.append(line | {"seconds": time.perf_counter() - at.tick})
                    score = line.get("val_loss", -epoch)  # without validation examples the last epoch is kept
                    if score < at.best_score:
                        at.best_score, at.best_epoch = score, epoch
                        at.best = best = {n: t.detach().clone() for n, t in model.trained(whole).items()}
                if schedule.budget_seconds and epoch == at.first:  # phases differ in what an epoch takes
                    left = share * schedule.budget_seconds - (time.perf_counter() - start)
                    at.last = max(at.first + 1, min(at.last, at.first + 1 + int(left / history[-1]["seconds"])))
                if options.stalled(history[at.first :]):
                    at.last = len(history)
                keep()
                advance(1, epoch_note(line))
    memory.ended(optimiser)
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
    epoch: int,
    span: tuple[float, float],
    watch: Watch | None,
    average: Average | None,
    at: Standing,
    keep: Callable[[], None],
    portion: Portion,
) -> float:
    """One pass over the batches; returns the mean loss.

    Args:
        span: where the epoch lies in its phase, in [0, 1].
        at: says which steps are done, and learns which.
        keep: called between two steps.
    """
    total = torch.as_tensor(at.total, device=model.device) if at.step else torch.zeros((), device=model.device)
    first, sound = at.step, torch.zeros((), dtype=torch.long, device=model.device)  # steps whose loss was a number
    for number, (batch, names) in enumerate(zip(batches, rows, strict=True)):
        if number < first:
            continue
        factor = warm_cosine(span[0] + (span[1] - span[0]) * number / len(batches))
        soft = train.soft_loss(batch, epoch)
        labels = train.labels[batch]
        total = total + step(model, optimiser, schedule, boundary, names, labels, factor, watch, soft, portion)
        sound += total.isfinite()
        if average:
            average.update()
        at.step, at.total = number + 1, total
        if number + 1 < len(batches):
            keep()
    mean = float(total) / max(1, sum(map(len, batches)))
    if not math.isfinite(mean):
        bad = min(first + int(sound), len(batches) - 1)
        raise Collapsed(f"the loss became {mean} in batch {bad + 1} of {len(batches)}", schedule.lr, rows[bad])
    at.step, at.total, at.spent = 0, 0.0, 0.0
    return mean


def parameter_groups(model: Model, phase: Phase, schedule: Schedule) -> list[dict[str, Any]]:
    """Optimiser groups: each trained stage and the head, matrices decayed, vectors not; each has its rate as `lr`.

    Freezes the stages that stand still in this phase; parameters left out by `phase.only` ask for no gradient either.

    Raises:
        UnstagedTensor: a trainable parameter would stand in no group or in two.
    """
    backbone, head = model.backbone, model.head
    count = len(backbone.stages)
    backbone.freeze(phase.depth, phase.still(count))
    members = [("head", phase.rate, list(head.parameters()))]
    for i, scale in phase.scales(count).items():
        chosen = backbone.stage_parameters(i, phase.only)
        for name, parameter in backbone.stage_parameters(i).items():
            parameter.requires_grad_(name in chosen)
        members.append((backbone.stages[i].name, scale, list(chosen.values())))
    groups = [
        {"params": chosen, "stage": name, "lr": schedule.lr * scale, "scale": scale, "weight_decay": decay}
        for name, scale, parameters in members
        for decay, chosen in (
            (schedule.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        )
        if chosen
    ]
    _check_groups(backbone, head, groups)
    return groups


def _check_groups(backbone: Backbone, head: nn.Module, groups: list[dict[str, Any]]) -> None:
    grouped = [id(p) for group in groups for p in group["params"]]
    trainable = {id(p) for p in (*backbone.model.parameters(), *head.parameters()) if p.requires_grad}
    if len(grouped) != len(set(grouped)) or set(grouped) != trainable:
        raise UnstagedTensor("a trainable parameter stands in no optimiser group or in two; expected exactly one.")


def _reading(model: Model, phase: Phase, boundary: Boundary, deeper: Mapping[int, Boundary]) -> tuple[Model, Boundary]:
    """The model as a phase trains it, and what it reads: its tail begins at a deeper cut where values are there."""
    if phase.depth not in deeper:
        return model, boundary
    return replace(model, plan=replace(model.plan, phases=(phase,))), deeper[phase.depth]


def training_mode(model: Model, phase: Phase) -> None:
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
    if val.labels.is_floating_point():
        return {"val_loss": loss}
    accuracy = float((model.builder.probabilities(out).argmax(1) == val.labels).float().mean())
    return {"val_loss": loss, "val_accuracy": accuracy}
