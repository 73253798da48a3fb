"""Many copies of one head trained side by side on the same cached features: one pass for a grid of rates and seeds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from zoo_core.fit import Schedule
from zoo_core.training import warm_cosine


def fit_stacked(
    builder: Any,
    heads: Sequence[nn.Module],
    rates: Sequence[float],
    seeds: Sequence[int],
    regime: Any,
    schedule: Schedule,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
) -> tuple[list[list[nn.Module]], Tensor]:
    """Train a head of each seed at each rate; each keeps the epoch whose validation loss was lowest.

    The same as training them one by one, to rounding: each seed has its own first weights and its own order of
    examples, and AdamW works on each number alone. Dropout draws other random numbers.

    Args:
        heads: one of each seed, as the builder made it.
        train, val: features [N, D] and labels [N] (or [N, classes]); without validation examples the last epoch
            is kept.

    Returns:
        Heads by rate and seed, and their lowest validation loss [rates, seeds].
    """
    own, buffers = stack_module_state(list(heads))
    state = {n: t.detach().expand(len(rates), *t.shape).clone().requires_grad_() for n, t in own.items()}
    fixed = {n: t.expand(len(rates), *t.shape).clone() for n, t in buffers.items()}
    shape = copy.deepcopy(heads[0])

    def call(parameters: dict[str, Tensor], rest: dict[str, Tensor], x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(shape, (parameters, rest), (x,))
        return outputs

    each = vmap(vmap(call, randomness="different"), in_dims=(0, 0, None), randomness="different")
    same = vmap(vmap(call, in_dims=(0, 0, None)), in_dims=(0, 0, None))
    groups = [
        {"params": [t for t in state.values() if (t.ndim - 2 > 1) == decayed], "weight_decay": decay}
        for decayed, decay in ((True, schedule.weight_decay), (False, 0.0))
    ]
    top = max(rates)
    ratio = torch.tensor([rate / top for rate in rates])
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=top)
    features, labels = train
    best = {n: t.detach().clone() for n, t in state.items()}
    lowest = torch.full((len(rates), len(seeds)), torch.inf)
    for epoch in range(schedule.epochs):
        shape.train()
        torch.manual_seed(seeds[0] * 1_000_003 + epoch)
        orders = [_order(regime, len(features), schedule.batch_size, seed, epoch) for seed in seeds]
        steps = len(orders[0])
        for step, batches in enumerate(zip(*orders, strict=True)):
            rows = torch.from_numpy(np.stack(batches))
            factor = warm_cosine((epoch + step / steps) / schedule.epochs)
            for group in optimiser.param_groups:
                group["lr"] = top * factor
            outputs = each(state, fixed, features[rows])
            target = labels[rows].expand(len(rates), *rows.shape, *labels.shape[1:])
            losses = builder.loss(outputs.flatten(0, 2), target.flatten(0, 2))
            optimiser.zero_grad(set_to_none=True)
            (losses.sum() / rows.shape[1]).backward()  # each copy's own mean: they share no parameter
            before = {n: t.detach().clone() for n, t in state.items()}
            optimiser.step()
            with torch.no_grad():  # AdamW's step grows with the rate in proportion: take each copy's part of it
                for name, tensor in state.items():
                    part = ratio.view(-1, *[1] * (tensor.ndim - 1))
                    tensor.copy_(torch.lerp(before[name], tensor, part.expand_as(tensor)))
        shape.eval()
        lowest = _keep_best(state, best, lowest, _validate(builder, same, state, fixed, val, lowest, epoch))
    return [[_made(heads[0], best, fixed, i, j) for j in range(len(seeds))] for i in range(len(rates))], lowest


def _order(regime: Any, count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    batches: list[np.ndarray] = regime.batches(count, 0, batch_size, rng)
    return batches


@torch.no_grad()
def _validate(
    builder: Any, call: Any, state: dict[str, Tensor], fixed: dict[str, Tensor], val: Any, lowest: Tensor, epoch: int
) -> Tensor:
    """Mean validation loss of each copy [rates, seeds]; falls with the epochs where there is nothing to validate on."""
    features, labels = val
    if not len(features):
        return torch.full_like(lowest, -float(epoch))
    outputs = call(state, fixed, features)
    target = labels.expand(*outputs.shape[:2], *labels.shape)
    losses: Tensor = builder.loss(outputs.flatten(0, 2), target.flatten(0, 2))
    return losses.view(*outputs.shape[:3]).mean(-1)


@torch.no_grad()
def _keep_best(state: dict[str, Tensor], best: dict[str, Tensor], lowest: Tensor, score: Tensor) -> Tensor:
    better = score < lowest
    for name, tensor in state.items():
        best[name][better] = tensor[better]
    return torch.where(better, score, lowest)


def _made(head: nn.Module, best: dict[str, Tensor], fixed: dict[str, Tensor], i: int, j: int) -> nn.Module:
    made = copy.deepcopy(head)
    made.load_state_dict({n: t[i, j] for n, t in (best | fixed).items()})
    return made.eval()
