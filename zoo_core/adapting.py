"""What a freeze strategy adds to the trained stages while they train (adapters), and takes back before anyone looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

from torch import nn

from zoo_core.backbone import Backbone, Stage, check_staged
from zoo_core.errors import UnstagedTensor
from zoo_core.types import FreezePlan


@contextmanager
def adapted(strategy: Any, body: Backbone, plan: FreezePlan) -> Iterator[None]:
    """The backbone with what `strategy.adapt` adds to the stages after the plan's cut; merged at the end.

    Meanwhile the stages list the added tensors as theirs. A strategy without `adapt` changes nothing.

    Raises:
        UnstagedTensor: something was added out of the model's reach, or is not as it was after the merge.
    """
    adapt = getattr(strategy, "adapt", None)
    if adapt is None:
        yield
        return
    plain, before = body.stages, _names(body.model)
    body.freeze(plan.depth, plan.still(len(plain)))  # what asks for a gradient may change; earlier phases leave less
    merge = adapt([stage.module for stage in plain[plan.depth :]])
    try:
        body.stages = _listed(body, before)
        yield
    finally:
        body.stages = plain
        merge()
    lost = sorted(set(before.values()) - set(_names(body.model).values()))
    if lost:
        raise UnstagedTensor(f"{type(strategy).__name__}.adapt took {lost[0]} away; expected it back after the merge.")
    check_staged(body.model, plain)


def _listed(body: Backbone, before: dict[int, str]) -> tuple[Stage, ...]:
    """The stages with the names that their tensors have now, and with the added ones.

    Args:
        before: id of each tensor to its name in upstream's model.
    """
    now = {before[t]: name for t, name in _names(body.model).items() if t in before}
    added = {t: name for t, name in _names(body.model).items() if t not in before}
    stages = []
    for stage in body.stages:
        held = [id(t) for t in chain(stage.module.parameters(), stage.module.buffers())]
        mine = tuple(added.pop(t) for t in held if t in added)  # what two stages share is the first one's
        stages.append(replace(stage, tensors=(*(now.get(n, n) for n in stage.tensors), *mine), added=mine))
    check_staged(body.model, stages)
    return tuple(stages)


def _names(model: nn.Module) -> dict[int, str]:
    """Id of each parameter and buffer to its name."""
    return {id(t): name for name, t in chain(model.named_parameters(), model.named_buffers())}
