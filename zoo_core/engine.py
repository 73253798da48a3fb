"""One recipe, one straight line: card, parts, task, backbone, plan, boundary, tail, result, run."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo_core import (
    checks,
    components,
    data,
    device,
    ensembles,
    fit,
    modalities,
    old_task,
    rehearsing,
    report,
    saying,
    training,
    wise_ft,
)
from zoo_core.adapting import adapted
from zoo_core.backbone import Backbone
from zoo_core.card import Card
from zoo_core.clock import Clock
from zoo_core.console import Console
from zoo_core.errors import FreezeBroken
from zoo_core.evidence import gather, recalled, table, told
from zoo_core.first_look import FirstLook
from zoo_core.judging import floor_of, judge
from zoo_core.layers import Registry
from zoo_core.ledger import check_lost
from zoo_core.looking import looked_at
from zoo_core.objective import objective
from zoo_core.plugins import Plugins
from zoo_core.progress import Progress
from zoo_core.recipe import Recipe
from zoo_core.regimes import thinned
from zoo_core.reopened import verify
from zoo_core.repeats import joined
from zoo_core.run_files import reading
from zoo_core.run_writer import RunWriter, fingerprints
from zoo_core.runs import REPORT, Run
from zoo_core.targets import Target
from zoo_core.trainer import Kept, Trainer, kept_at
from zoo_core.types import Evidence, FreezePlan, Split, Task
from zoo_core.unfinished import Unfinished
from zoo_core.weights import load_backbone

_WHAT = {"next-token": "what the assistant says"}
"""What examples without classes are for; else numbers."""


@dataclass(frozen=True)
class Preview:
    """What a run would do: everything that is decided before anything is trained.

    Attributes:
        strategy: made the plan.
        trained: how many numbers of the backbone train, with what the strategy adds.
        head: its spelling.
        builder: of the head, with the loss of the task.
        regime: says which examples enter each epoch.
        old: the task whose answers are to be kept, where the recipe has one.
        look: what was computed while the images were read.
    """

    task: Task
    backbone: Backbone
    plan: FreezePlan
    schedule: fit.Schedule
    strategy: Any
    trained: int
    head: str
    builder: Any
    regime: Any
    old: old_task.OldTask | None = None
    look: FirstLook | None = None


def prepare(
    recipe: Recipe,
    registry: Registry,
    plugins: Plugins,
    console: Console,
    backbone: Backbone | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
    ahead: bool = False,
) -> Preview:
    """Card, parts, task, backbone and plan; nothing is trained or written.

    Args:
        progress: of the run, which remembers trials that were made already.
        clock: of the run; what goes into loading the backbone, and into a pass, is told apart from the scan.
        ahead: images that are read for the first time pass the frozen stages at once, and are kept.

    Raises:
        ResumeRefused: the run was begun with other data or weights.
    """
    progress, clock = progress or Progress(), clock or Clock()
    card = backbone.card if backbone else registry.get(recipe.backbone).usable()
    strategy = components.build(plugins, "freeze", recipe.freeze)
    regime = components.build(plugins, "regime", recipe.regime)
    chosen = components.build(plugins, "head", recipe.head)
    modality, where = modalities.for_head(chosen, card), device.choose(recipe.device)

    @cache
    def load() -> Backbone:
        with clock.within("load"):
            return _loaded(recipe, card, plugins, strategy, where, backbone)

    def cut_of(task: Task) -> tuple[int, int]:
        plan, _, builder, schedule = _decide(recipe, plugins, strategy, task, load())
        wise_ft.check(recipe, builder, None, task)
        return fit.span(builder, plan.depth, len(load().stages))[0], schedule.epochs + 1

    ahead = ahead and checks.steady(recipe, strategy, regime) and modality is modalities.IMAGE
    look = FirstLook(recipe, load, cut_of, console, clock) if ahead else None
    task = data.scan(
        recipe.data,
        test_share=recipe.test_share,
        val_share=recipe.val_share,
        on_bad_image=recipe.on_bad_image,
        columns=recipe.columns,
        task=recipe.task,
        console=console,
        modality=modality,
        ahead=look,
    )
    task = thinned(task, regime, recipe.seed)
    backbone = load()
    old, task = old_task.find(recipe, backbone, regime, task, plugins, console)
    if hasattr(chosen, "reader"):
        backbone.reader = chosen.reader(backbone)
    backbone.reader, notes = backbone.reader.fitted([e.path for e in task.examples])
    task = dataclasses.replace(task, notes=(*task.notes, *notes))
    beside = {"old": data.task_digest(old.task)} if old and old.task else {}
    progress.same(data=data.task_digest(task), weights=backbone.digest(), **beside)
    progress.told(torch=torch.__version__, device=str(where), threads=str(torch.get_num_threads()))
    if hasattr(strategy, "trials"):
        checks.trials(recipe, task)
        known = progress.known("evidence")
        evidence = recalled(known) if known else _evidence(strategy, recipe, plugins, task, backbone, console)
        progress.note("evidence", asdict(evidence))
        task = dataclasses.replace(task, evidence=evidence)
    plan, head, builder, schedule = _decide(recipe, plugins, strategy, task, backbone)
    rehearsing.check(recipe, regime, builder, schedule.training, old)
    if old:
        builder, old = rehearsing.competing(builder, regime, old), rehearsing.ahead(old, regime, recipe)
    wise_ft.check(recipe, builder, old, task)
    with adapted(strategy, backbone, plan):
        trained = plan.parameters(backbone.info())
    return Preview(task, backbone, plan, schedule, strategy, trained, head, builder, regime, old, look)


def _decide(
    recipe: Recipe, plugins: Plugins, strategy: Any, task: Task, body: Backbone
) -> tuple[FreezePlan, str, Any, fit.Schedule]:
    """Plan, head as it is spelled, its builder, schedule; refuses what does not go together."""
    plan = strategy.plan(body.info(), task).check(body.info())
    head = plan.head or recipe.head
    builder = objective(components.build(plugins, "head", head), task, recipe)
    checks.head(head, recipe.freeze, builder, plan, body)
    ensembles.wanted(recipe, plan, body, builder)
    default = fit.default_schedule(plan, body, len(task.split("train")))
    default = dataclasses.replace(default, lr=plan.lr or default.lr)
    given = {k: getattr(recipe, k) for k in ("epochs", "batch_size", "lr") if getattr(recipe, k) is not None}
    schedule = dataclasses.replace(
        default,
        **given,
        weight_decay=recipe.weight_decay,
        budget_seconds=recipe.budget_seconds,
        training=training.read(recipe.training),
    )
    checks.training(recipe, schedule, builder, task)
    checks.epochs(recipe, schedule, builder, plan, body)
    return plan, head, builder, schedule


def _loaded(
    recipe: Recipe, card: Card, plugins: Plugins, strategy: Any, where: torch.device, given: Backbone | None
) -> Backbone:
    """The recipe's backbone on its device, or a copy of the caller's, which stays as it is."""
    torch.manual_seed(recipe.seed)  # for weights that are asked to be random
    pretrained = recipe.weights == "pretrained" and getattr(strategy, "pretrained", True)
    body = copy.deepcopy(given) if given else load_backbone(card, plugins, pretrained)
    body.to(where)
    body.model.to(memory_format=torch.channels_last)
    return body


def finetune(
    recipe: Recipe,
    registry: Registry,
    plugins: Plugins,
    out: Path,
    *,
    backbone: Backbone | None = None,
    console: Console | None = None,
    force: bool = False,
) -> Run:
    """Run a recipe and return the finished run; one that was begun and not finished is gone on with.

    Raises:
        ZooError: each kind of mistake by its own class; the output folder is then not there.
    """
    console, clock = console or Console(), Clock()
    device.keep_heap()
    unfinished = Unfinished(out, recipe, force=force, console=console)
    if unfinished.settle():
        return Run(out, plugins)
    progress = unfinished.progress
    with RunWriter(unfinished) as writer, reading(unfinished.folder, lambda: progress.resumed):
        if progress.resumed:
            console.say(f"Resumed   {unfinished.folder}")
        preview = prepare(recipe, registry, plugins, console, backbone, progress, clock, ahead=True)
        task, body, plan, schedule = preview.task, preview.backbone, preview.plan, preview.schedule
        head, builder, regime = preview.head, preview.builder, preview.regime
        say_plan(preview, console)
        body.freeze(plan.depth)
        still = plan.still(len(body.stages))
        before = body.digest_of(still)
        clock.lap("scan")

        cut, _ = fit.span(builder, plan.depth, len(body.stages))
        old = preview.old
        every = old.beside(task) if old else task
        kept = kept_at(recipe, every, body, cut, schedule.epochs + 1, console, look=preview.look)
        acts = kept.plain
        sides = {name: _side(task, name, builder.target) for name in data.SPLITS}
        sides["train"] = dataclasses.replace(sides["train"], views=kept.views)
        clock.lap("prefix")
        keeper = rehearsing.Keeper(old, regime, recipe, kept, sides["train"]) if old else None
        both = keeper.mixed(sides) if keeper else sides
        start = keeper.start if keeper else None
        trainer = Trainer(recipe, task, body, plan, schedule, builder, regime, kept, console, preview.strategy, start)
        floor, curve = floor_of(acts, sides, builder.target, trainer)
        clock.lap("baselines")
        memory = progress.memory("fit")
        if schedule.training.find_lr and memory.look() is None:
            trainer.find_rate(both["train"], recipe.seed)
        beside = ensembles.wanted(recipe, plan, body, builder)
        second = ensembles.solve(recipe, plugins, task, body, kept, sides["train"]) if beside else None
        model, history = trainer.train(both["train"], both["val"], recipe.seed, memory)
        mixed = wise_ft.step(recipe, trainer, model, keeper, sides["val"]) if recipe.wise_ft else {}
        if keeper:
            keeper.correct(model, sides["val"], lambda names: trainer.outputs(model, names))
        clock.lap("fit")

        body.freeze(plan.depth)
        after = body.digest_of(still)
        if before != after:
            raise FreezeBroken(f"the frozen stages changed during training: sha256 {before} before, {after} after.")

        def answers(side: fit.Side) -> tuple[Tensor, Tensor]:
            outputs = trainer.outputs(model, side.digests) if len(side) else torch.empty(0, task.n_outputs)
            return builder.probabilities(outputs), side.labels

        val, test = answers(sides["val"]), answers(sides["test"])
        if second:
            val, test = second.beside(val, test, sides, floor)
        judged = judge(builder.target, val, test, floor, recipe.calibrate)
        lost = keeper.figures(model, lambda names: trainer.outputs(model, names)) if keeper else None
        clock.lap("eval")
        seen = looked_at(task, acts, body, judged.answers, builder.target)
        clock.lap("audit")

        summary = {
            "run": out.name,
            "recipe": recipe.digest,
            "backbone": body.card.name,
            "pretrained": body.pretrained,
            "weights": body.weights_note,
            "freeze": {
                "requested": recipe.freeze,
                "depth": plan.depth,
                "stages_trained": [stage.name for i, stage in enumerate(body.stages) if i not in still],
                "parameters_trained": preview.trained,
                "reason": plan.reason,
            },
            "head": head,
            "head_note": history[-1].get("solved", trainer.beginning.note),
            "task": task.kind,
            "regime": recipe.regime,
            "schedule": asdict(trainer.schedule)
            | {"epochs_run": len(history), "best_epoch": _best(history), "collapses": trainer.collapses[:]},
            "device": str(trainer.where),
            "data": data.facts(task) | {"leaks": seen["leaks"]},
            **judged.figures,
            "learning_curve": curve,
            "frozen_digest_before": before,
            "frozen_digest_after": after,
            "cache": {"hits": acts.hits, "misses": acts.misses, "bytes": acts.size_bytes, "mode": acts.mode},
            "digests": fingerprints(model, history, memory.optimiser_digest),
            "resumed": progress.resumed,
            **mixed,
        }
        if builder.target.kind == "next-token":
            summary["says"] = saying.samples(recipe, builder, trainer, model, task)
        if keeper and lost:
            summary["old"] = lost | {"cost": keeper.cost(clock.laps)}
        decided = {"numbers": asdict(kept.numbers), "cache": asdict(kept.choice), "head_dim": trainer.head_dim}
        decided |= {"head": head, "evidence": told(task.evidence)}
        decided |= {"reader": body.reader.state(), "calibration": asdict(judged.calibration)}
        decided |= {"second": second.save(writer.folder)} if second else {}
        writer.write(recipe, model, task, history, judged.answers, summary, decided, seen)
        run = writer.open(plugins)
        verify(run, task.split("test"), judged.answers)
        clock.lap("save")
        if recipe.folds * recipe.seeds > 1:
            strata = [e.label for name in ("train", "val") for e in task.split(name)]
            summary["repeats"] = trainer.repeats(joined(sides["train"], sides["val"]), strata, progress)
            clock.lap("repeats")
        _report(run, summary | {"seconds": clock.seconds()}, task, console)
        clock.lap("report")
        writer.commit(summary | {"seconds": clock.seconds()})
    check_lost(lost, recipe.max_forgetting, out)
    return Run(out, plugins)


def say_plan(preview: Preview, console: Console) -> None:
    """What was chosen, and why, before anything is trained."""
    task, body, plan, schedule = preview.task, preview.backbone, preview.plan, preview.schedule
    plural = modalities.for_head(preview.builder.builder, body.card).plural
    sides = ", ".join(f"{side} {len(task.split(side))}" for side in data.SPLITS)
    what = f"{len(task.classes)} classes" if task.classes else _WHAT.get(task.kind, "numbers")
    console.say(f"Data      {len(task.examples)} {plural}, {what}: {sides}")
    for note in (*task.notes, *(f"left out {path}: {reason}" for path, reason in task.bad.items())):
        console.say(f"          {note}")
    if task.skipped:
        console.say("          skipped " + ", ".join(f"{count} {what}" for what, count in task.skipped.items()))
    for note in preview.old.notes if preview.old else ():
        console.say(f"Old task  {note}")
    console.say(f"Backbone  {body.card.name}")
    console.say(f"          weights {body.weights_note}")
    for line in table(task.evidence) if task.evidence else ():
        console.say(f"          {line}")
    frozen = f"{len(plan.still(len(body.stages)))} of {len(body.stages)} stages frozen"
    console.say(f"Freeze    {frozen}, {preview.trained:,} backbone parameters train")
    console.say(f"          {plan.reason}")
    console.say(f"Schedule  {schedule.epochs} epochs, batches of {schedule.batch_size}, learning rate {schedule.lr:g}")


def _evidence(
    strategy: Any, recipe: Recipe, plugins: Plugins, task: Task, body: Backbone, console: Console
) -> Evidence:
    """Trials on the training side; say them."""
    sides = dataclasses.replace(task, examples=task.split("train"))

    def keep(depth: int, passes: int) -> Kept:
        return kept_at(recipe, sides, body, depth, passes, Console() if depth else console, views=False)

    evidence = gather(strategy, recipe, plugins, task, body, keep, console)
    console.say(
        f"Trials    {evidence.folds} folds of the {len(sides.examples)} training examples, {evidence.seconds:.1f} s"
    )
    return evidence


def _side(task: Task, name: Split, target: Target) -> fit.Side:
    examples = task.split(name)
    return fit.Side([e.digest for e in examples], target.labels([task.text(e) for e in examples]))


def _best(history: list[dict[str, Any]]) -> int:
    """The epoch whose weights were kept: lowest validation loss, the last one without validation."""
    if "val_loss" not in history[-1]:
        return int(history[-1]["epoch"])
    return int(min(history, key=lambda line: line["val_loss"])["epoch"])


def _report(run: Run, summary: dict[str, Any], task: Task, console: Console) -> None:
    """The run's page; whatever goes wrong with it must not cost a trained model."""
    places = {e.origin: e.path for e in task.examples if e.origin}
    try:
        report.write(run, run.path / REPORT, summary, places)
    except Exception as error:
        console.say(f"zoo: the report could not be made ({type(error).__name__}: {error}); the run itself is whole.")
