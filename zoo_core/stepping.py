"""One step of training: a batch, in as many parts as the device's memory asks for, and one update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo_core.backbone import Value
from zoo_core.errors import BadOption
from zoo_core.mixing import mixed
from zoo_core.portions import Portion, cut

if TYPE_CHECKING:
    from zoo_core.collapse import Watch
    from zoo_core.console import Console
    from zoo_core.fit import Boundary, Model, Schedule


def step(
    model: Model,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    boundary: Boundary,
    names: Sequence[str],
    labels: Tensor,
    factor: float,
    watch: Watch | None = None,
    soft: Callable[[Tensor, slice], Tensor] | None = None,
    portion: Portion | None = None,
) -> Tensor:
    """One step on a batch of rows, at a share of the peak rate; returns the sum of its losses, on the device.

    Args:
        soft: outputs of a part of the batch to what is added to its losses.
        portion: how many examples pass at once. Their gradients are summed over the whole batch, so that the step is
            the same for any number.
    """
    for group in optimiser.param_groups:
        group["lr"] = schedule.lr * group["scale"] * factor
    tail, device, options = model.tail, model.device, schedule.training

    def gradients(size: int) -> tuple[Tensor, list[Tensor]]:
        total, answers = torch.zeros((), device=device), []
        optimiser.zero_grad(set_to_none=True)
        for part in cut(len(names), size):
            value = to_device(boundary(names[part]), device)
            value, loss = mixed(value, labels[part].to(device), model.builder.loss, options)
            outputs = model.head(tail(value))
            losses = loss(outputs) + soft(outputs, part) if soft else loss(outputs)
            (losses.sum() / len(names)).backward()  # type: ignore[no-untyped-call]
            total += losses.detach().sum()
            answers.append(outputs.detach())
        return total, answers

    total, answers = (portion or Portion(options.micro_batch)).run(gradients, len(names))
    for outputs in answers if watch else ():
        watch.saw(outputs)  # type: ignore[union-attr]
    if options.clip:
        nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], options.clip)
    optimiser.step()
    return total


def portion_of(model: Model, schedule: Schedule, console: Console) -> Portion:
    """How many examples of a batch pass at once, to begin with.

    Raises:
        BadOption: `micro_batch` is asked for, and batch norm would see the parts in the place of the batch.
    """
    trained = (m for stage in model.backbone.stages[model.plan.depth :] for m in stage.module.modules())
    if model.plan.batch_norm == "frozen" or all(getattr(m, "running_mean", None) is None for m in trained):
        return Portion(schedule.training.micro_batch, console)
    why = "batch norm takes its statistics from the whole batch (with batch_norm=frozen in --freeze it does not)"
    if schedule.training.micro_batch:
        raise BadOption(f"--training micro_batch={schedule.training.micro_batch}: {why}. Leave it out.")
    return Portion(0, console, whole=why)


def to_device(value: Value, device: torch.device) -> Value:
    """A batch on the device. To CUDA it goes from pinned memory, so that this thread goes on while it is copied."""

    def one(part: Tensor) -> Tensor:
        pinned = part.pin_memory() if device.type == "cuda" and part.device.type == "cpu" else part
        return pinned.to(device, non_blocking=True)

    return tuple(map(one, value)) if isinstance(value, tuple) else one(value)
