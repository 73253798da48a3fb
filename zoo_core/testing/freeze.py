"""Checks of a freeze strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from zoo_core.errors import ZooError
from zoo_core.testing.components import CHECKS as COMMON
from zoo_core.testing.components import Component, task
from zoo_core.testing.outcome import Skip, expect
from zoo_core.types import Evidence, FreezePlan, StageInfo, Task, Trial
from zoo_core.watching import watched

LENGTHS = (1, 2, 50)


def plan_fits_a_chain_of_1_stage(component: Component) -> str:
    """On the shortest chain the plan is valid, or the refusal says why."""
    return f"depth {_plan(component, 1).depth}"


def plan_fits_a_chain_of_2_stages(component: Component) -> str:
    """On a chain of two stages the plan is valid, or the refusal says why."""
    return f"depth {_plan(component, 2).depth}"


def plan_fits_a_chain_of_50_stages(component: Component) -> str:
    """On a long chain the plan is valid, or the refusal says why."""
    return f"depth {_plan(component, 50).depth}"


def depth_never_rises(component: Component) -> str:
    """A stage that was trained is never frozen again: cached activations belong to the published weights."""
    plans = _plans(component)
    for plan in plans:
        depths = [phase.depth for phase in plan.phases]
        expect(depths == sorted(depths, reverse=True), f"the depths of its phases are {depths}; expected none to rise.")
    return f"depths {[phase.depth for phase in plans[0].phases]}"


def shares_fit_the_budget(component: Component) -> None:
    """Each phase has a share of the budget in (0, 1], and together they have no more than all of it."""
    for plan in _plans(component):
        shares = [phase.share for phase in plan.phases]
        fits = all(0 < share <= 1 for share in shares) and sum(shares) <= 1 + 1e-6
        expect(fits, f"the shares of its phases are {shares}; expected more than 0 each and 1 together.")


def gives_a_reason(component: Component) -> str:
    """Every plan says in one sentence why it was chosen."""
    reasons = [plan.reason for plan in _plans(component)]
    for reason in reasons:
        expect(reason.strip().endswith((".", "!")) and "\n" not in reason, f"the reason {reason!r} is no sentence.")
    return reasons[0]


def is_pure(component: Component) -> None:
    """The same stages and task give the same plan, and nothing else is changed."""
    with watched() as notes:
        first, second = _plans(component), _plans(component)
    expect(first == second, f"two plans for the same stages and task differ: {first[0]} and {second[0]}.")
    changed = [note for note in notes if note.startswith("changed")]
    expect(not changed, " ".join(f"plan() {note}" for note in changed))


def what_it_adds_is_merged(component: Component) -> str:
    """What it adds to stages trains, and is merged afterwards: the names from before, and the outputs to 1e-5."""
    import torch
    from torch import nn

    strategy = component.make()
    if not hasattr(strategy, "adapt"):
        return "adds nothing"
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU())
    second = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 64), nn.LayerNorm(64))
    whole, images = nn.Sequential(first, second).eval(), torch.randn(8, 3, 8, 8)
    plain, before = {id(p) for p in whole.parameters()}, whole(images)
    names = set(whole.state_dict())
    try:
        merge = strategy.adapt([first, second])
    except ZooError as error:
        raise Skip(f"with default options it refuses the kit's stages: {error}") from error
    expect(torch.allclose(whole(images), before, atol=1e-5), "adapted stages give other outputs before any training.")
    added = [p for p in whole.parameters() if id(p) not in plain]
    expect(added, "adapt() adds no parameter.")
    optimiser = torch.optim.SGD(added, lr=0.1)
    for _ in range(3):  # adapters that begin at zero move one after the other
        loss: Any = whole(images)[:, 0].square().mean()
        loss.backward()
        optimiser.step()
    trained = whole(images).detach()
    merge()
    differs = sorted(names ^ set(whole.state_dict()))
    expect(not differs, f"after the merge the names differ by {', '.join(differs)}.")
    worst = float((whole(images).detach() - trained).abs().max())
    expect(worst <= 1e-5, f"after the merge the outputs differ by {worst:.2g}; expected at most 1e-5.")
    expect(not torch.equal(trained, before), "what it adds does not train: no gradient moves the outputs.")
    return f"{len(added)} tensors, outputs differ by {worst:.1g}"


def _plan(component: Component, length: int) -> FreezePlan:
    """The checked plan for a chain of that length."""
    stages = tuple(
        StageInfo(f"stage{i}", 100 * (i + 1), 2, norm_parameters=20, bias_parameters=10) for i in range(length)
    )
    strategy = component.make()
    try:
        plan = _asked(strategy, stages)
    except ZooError as error:
        raise Skip(f"with default options it refuses a chain of {length}: {error}") from error
    expect(isinstance(plan, FreezePlan), f"plan() returned {type(plan).__name__}; expected FreezePlan.")
    return plan.check(stages)  # type: ignore[no-any-return]


def _asked(strategy: Any, stages: Sequence[StageInfo]) -> Any:
    """Its plan; one that must be told a stage's name gets the last one, in the option that is left empty."""
    try:
        return strategy.plan(stages, _task(strategy, stages))
    except ZooError:
        last = stages[-1].name
        empty = {f.name: getattr(strategy, f.name) for f in fields(strategy) if getattr(strategy, f.name) in ("", ())}
        if not empty:
            raise
        told = replace(strategy, **{name: (last,) if value == () else last for name, value in empty.items()})
        return told.plan(stages, _task(told, stages))


def _task(strategy: Any, stages: Sequence[StageInfo]) -> Task:
    """The task; for a strategy that asks for trials, with made-up ones of which each way has two thirds right."""
    if not hasattr(strategy, "trials"):
        return task()
    probes = tuple((i + 1) / (len(stages) + 1) for i in range(len(stages)))
    trials = tuple(
        Trial(w.name, w.depth, w.head, w.lr, 0, correct=tuple((i + k) % 3 > 0 for k in range(18)), seconds=1.0 + i)
        for i, w in enumerate(strategy.trials(stages, probes, "linear"))
    )
    return replace(task(), evidence=Evidence(trials, probes, majority=1 / 3, folds=2, seconds=10.0))


def _plans(component: Component) -> list[FreezePlan]:
    """The plans for the chains that the strategy takes, that for the longest one first."""
    plans, refused = [], Skip("")
    for length in sorted(LENGTHS, reverse=True):
        try:
            plans.append(_plan(component, length))
        except Skip as skip:
            refused = skip
    if not plans:
        raise refused
    return plans


CHECKS = (
    *COMMON,
    plan_fits_a_chain_of_1_stage,
    plan_fits_a_chain_of_2_stages,
    plan_fits_a_chain_of_50_stages,
    depth_never_rises,
    shares_fit_the_budget,
    gives_a_reason,
    is_pure,
    what_it_adds_is_merged,
)
