"""Trials on folds of the training side, all from one pass over the images: what `auto` decides by."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo_core import components, fit, solvers
from zoo_core.auto import Wanted, believe
from zoo_core.backbone import Backbone
from zoo_core.console import Console
from zoo_core.objective import objective
from zoo_core.plugins import Plugins
from zoo_core.recipe import Recipe, seconds_of
from zoo_core.repeats import part
from zoo_core.trainer import Kept, Trainer
from zoo_core.types import Evidence, FreezePlan, Phase, Task, Trial

Keep = Callable[[int, int], Kept]
"""Depth and number of passes to what the store gives there, for the training side."""
MORE_EPOCHS = 1.1


def gather(
    strategy: Any, recipe: Recipe, plugins: Plugins, task: Task, body: Backbone, keep: Keep, console: Console
) -> Evidence:
    """Make the trials that a strategy asks for; afterwards the backbone is as it was.

    Args:
        strategy: has `trials(stages, probes, head)`, `folds` and `budget`.
        keep: called with depth 0 first, so that images are decoded once for all trials.
    """
    start = time.perf_counter()
    train = task.split("train")
    side = fit.Side([e.digest for e in train], torch.tensor([e.label for e in train]))
    fold = solvers.fold_of(side.labels.numpy(), strategy.folds, recipe.seed)
    folds = [((fold != k).nonzero()[0].tolist(), (fold == k).nonzero()[0].tolist()) for k in range(strategy.folds)]
    kept = keep(0, 1)
    stages = body.info()
    probes = probe_stages(kept.all_stages(side.digests), kept.plain.pooled.widths, side.labels, fold, len(task.classes))
    trials: list[Trial] = []
    left_out: dict[str, str] = {}
    full_seconds: float | None = None
    limit = seconds_of(strategy.budget) if strategy.budget else None
    for wanted in strategy.trials(stages, probes, recipe.head):
        trainer, epochs = _trainer(wanted, recipe, plugins, task, body, keep, len(folds[0][0]))
        left = None if limit is None else limit - (time.perf_counter() - start)
        expected = _expected(trainer, side, folds) if left is not None and left > 0 and wanted.lr else 0.0
        if left is not None and trials and expected > left:
            left_out[wanted.name] = f"would take about {expected:.0f} s of the {max(0.0, left):.0f} s left"
            continue
        trials.append(_trial(wanted, trainer, side, folds, sum(s.parameters for s in stages[wanted.depth :])))
        console.say(f"Trial     {wanted.name}: {trials[-1].score:.1%} right, {trials[-1].seconds:.1f} s")
        if wanted.depth == 0:
            passes = trainer.schedule.epochs * sum(len(inside) for inside, _ in folds)
            full_seconds = trials[-1].seconds * epochs * len(side) / passes
    majority = max(Counter(side.labels.tolist()).values()) / len(side)
    seconds = time.perf_counter() - start
    return Evidence(tuple(trials), probes, majority, len(folds), seconds, left_out, full_seconds)


def probe_stages(x: Tensor, widths: Sequence[int], labels: Tensor, fold: Any, n_classes: int) -> tuple[float, ...]:
    """Held-out accuracy of a linear probe on each stage's pooled features [N, width]; the best of three strengths."""
    inside = torch.stack([torch.from_numpy(fold != k).float() for k in sorted(set(fold.tolist()))])
    found = []
    for block in x.split(list(widths), dim=1):  # type: ignore[no-untyped-call]
        z = (block - block.mean(0)) / block.std(0).clamp_min(1e-6)
        best = 0.0
        for strength in (1e-3, 1e-2, 1e-1):
            weight, bias = solvers.fit_many(z, labels, n_classes, [strength] * len(inside), inside, steps=50)
            answers = (torch.einsum("nd,fcd->fnc", z, weight) + bias[:, None]).argmax(2)
            right = ((answers == labels) * (1 - inside)).sum() / len(labels)
            best = max(best, float(right))
        found.append(best)
    return tuple(found)


def table(evidence: Evidence) -> list[str]:
    """Lines for the user: each trial with what it says about being behind the deepest one."""
    beliefs = believe(evidence)
    lines = [f"{'choice':<30}{'right':>8}{'behind (points)':>22}{'trained':>14}{'seconds':>9}"]
    for trial in evidence.trials:
        belief = beliefs[trial.name]
        behind = f"{belief.mean:+.1f} +- {belief.deviation:.1f}" if belief.deviation else "-"
        note = f"  {trial.note}" if trial.note else ""
        lines.append(
            f"{trial.name:<30}{trial.score:>8.1%}{behind:>22}{trial.parameters:>14,}{trial.seconds:>9.1f}{note}"
        )
    lines += [f"{name:<30}not tried: {why}" for name, why in evidence.left_out.items()]
    probes = ", ".join(f"{score:.0%}" for score in evidence.probes)
    return [*lines, f"a linear probe on each stage, input side first: {probes}", cost(evidence)]


def cost(evidence: Evidence) -> str:
    """What the trials took, beside one full fine-tuning."""
    text = f"all trials took {evidence.seconds:.1f} s"
    if not evidence.full_seconds:
        return text
    times = evidence.seconds / evidence.full_seconds
    return f"{text}, {times:.1f} times one full fine-tuning (about {evidence.full_seconds:.1f} s)"


def recalled(noted: dict[str, Any]) -> Evidence:
    """Evidence from the plain data of `dataclasses.asdict`."""
    trials = tuple(Trial(**t | {"correct": tuple(t["correct"])}) for t in noted["trials"])
    return Evidence(**noted | {"trials": trials, "probes": tuple(noted["probes"])})


def told(evidence: Evidence | None) -> dict[str, Any] | None:
    """Evidence for `plan.json`, with what was concluded from it."""
    if evidence is None:
        return None
    beliefs = believe(evidence)
    trials = [
        {k: v for k, v in dataclasses.asdict(t).items() if k != "correct"}
        | {"score": t.score, "behind": dataclasses.asdict(beliefs[t.name])}
        for t in evidence.trials
    ]
    return dataclasses.asdict(evidence) | {"trials": trials}


def fold_schedule(plan: FreezePlan, body: Backbone, n: int, n_inside: int) -> fit.Schedule:
    """Of a trial on `n_inside` of `n` examples.

    Fewer examples take more epochs, but hardly more here: two folds then cost about what one training does.
    """
    schedule = fit.default_schedule(plan, body, n_inside)
    epochs = round(MORE_EPOCHS * fit.default_schedule(plan, body, n).epochs)
    return dataclasses.replace(schedule, epochs=min(schedule.epochs, epochs))


def _trainer(
    wanted: Wanted, recipe: Recipe, plugins: Plugins, task: Task, body: Backbone, keep: Keep, n_inside: int
) -> tuple[Trainer, int]:
    """What trains on folds, and the epochs of a training on everything."""
    plan = FreezePlan((Phase(wanted.depth),), wanted.name).check(body.info())
    n = len(task.split("train"))
    schedule, whole = fold_schedule(plan, body, n, n_inside), fit.default_schedule(plan, body, n)
    given = {k: getattr(recipe, k) for k in ("epochs", "batch_size") if getattr(recipe, k) is not None}
    lr = recipe.lr or wanted.lr or schedule.lr
    schedule = dataclasses.replace(schedule, **given, lr=lr, weight_decay=recipe.weight_decay)
    builder = objective(components.build(plugins, "head", wanted.head), task, recipe)
    regime = components.build(plugins, "regime", "new-only")
    kept = keep(wanted.depth, schedule.epochs)
    body.freeze(wanted.depth)
    trainer = Trainer(recipe, task, body, plan, schedule, builder, regime, kept, Console())
    return trainer, recipe.epochs or whole.epochs


def _trial(wanted: Wanted, trainer: Trainer, side: fit.Side, folds: Sequence[Any], parameters: int) -> Trial:
    start = time.perf_counter()
    answers = _held_out(trainer, side, folds)
    note = "collapsed at " + ", ".join(f"{c['lr']:g}" for c in trainer.collapses) if trainer.collapses else ""
    correct = tuple((answers == side.labels).tolist())
    lr = trainer.schedule.lr if wanted.lr else None
    seconds = time.perf_counter() - start
    return Trial(wanted.name, wanted.depth, wanted.head, lr, parameters, correct, seconds, note)


def _held_out(trainer: Trainer, side: fit.Side, folds: Sequence[Any]) -> Tensor:
    """Each example's predicted label [N], from a model that has not seen it."""
    none = fit.Side([], torch.empty(0, dtype=torch.long))
    answers = torch.empty(len(side), dtype=torch.long)
    for inside, outside in folds:
        trainer.restart()
        model, _ = trainer.train(part(side, inside), none, trainer.recipe.seed)
        outputs = trainer.outputs(model, [side.digests[i] for i in outside])
        answers[outside] = trainer.builder.probabilities(outputs).argmax(1)
    trainer.restart()
    return answers


def _expected(trainer: Trainer, side: fit.Side, folds: Sequence[Any]) -> float:
    """Seconds that a trial will take, from one epoch over a few examples."""
    few = folds[0][0][: 2 * trainer.schedule.batch_size]
    schedule, none = trainer.schedule, fit.Side([], torch.empty(0, dtype=torch.long))
    trainer.schedule = dataclasses.replace(schedule, epochs=1)
    start = time.perf_counter()
    trainer.train(part(side, few), none, 0)
    seconds = (time.perf_counter() - start) / len(few)
    trainer.schedule = schedule
    trainer.restart()
    return seconds * schedule.epochs * sum(len(inside) for inside, _ in folds)
