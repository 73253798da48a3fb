"""The old task: which data show it, and in which label space it lives beside the new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from zoo_core import data, modalities
from zoo_core.backbone import Backbone
from zoo_core.card import Card
from zoo_core.console import Console
from zoo_core.errors import BadOption, LabelClash, OldDataMissing
from zoo_core.lineage import Learnt, given, joined, relabelled, tasks_of
from zoo_core.old_model import OldModel, known_model
from zoo_core.places import expanded
from zoo_core.plugins import Plugins
from zoo_core.recipe import Recipe
from zoo_core.types import Split, Task

Space = Literal["extend", "share", "replace"]

_SAID = {
    "extend": "{old} old and {new} new classes in one head",
    "share": "old and new data have the same {old} classes",
    "replace": "the head knows the {new} new classes only",
}


@dataclass(frozen=True)
class Part:
    """One of the tasks that were learnt before, and the contents that show it."""

    learnt: Learnt
    digests: frozenset[str]


@dataclass(frozen=True)
class OldTask:
    """What is to be kept.

    Attributes:
        space: how its labels lie beside the new ones.
        classes: of the old task; in `extend` and `share` the first outputs of the run's head.
        task: its data, labels as indices into `classes`; None where they are not at hand.
        model: the old model, where one came with the weights; None for a probe on the data.
        parts: the tasks that it is made of, learnt one after another.
        notes: sentences for the user.
    """

    space: Space
    classes: tuple[str, ...]
    task: Task | None
    model: OldModel | None
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Where its data lie; empty where they are not at hand."""
        return self.task.source if self.task else ""

    def split(self, name: Split) -> tuple[Any, ...]:
        """Old examples of one side."""
        return self.task.split(name) if self.task else ()

    def beside(self, task: Task) -> Task:
        """All examples, new and old, for what only asks which files there are."""
        return replace(task, examples=(*task.examples, *self.task.examples)) if self.task else task


def find(
    recipe: Recipe, body: Backbone, regime: Any, task: Task, plugins: Plugins, console: Console
) -> tuple[OldTask | None, Task]:
    """The old task where the recipe has one, and the new one in the label space of both.

    Raises:
        OldDataMissing: the regime needs old data, and there are none.
        LabelClash: the label spaces do not fit.
        BadOption: the task is not one of one label.
    """
    soft = getattr(regime, "distil", 0) > 0
    kept = recipe.labels in ("extend", "share") or recipe.max_forgetting is not None
    learnt = _known(recipe, body.card, use_parent=regime.needs_old or soft or kept)
    if not (learnt or regime.needs_old or soft):
        if recipe.labels in ("extend", "share"):
            raise BadOption(f"--labels {recipe.labels}: there is no old task. Give its data with --old DATA.")
        return None, task
    if task.kind != "single-label":
        raise BadOption(f"an old task can be kept beside single-label tasks; this one is {task.kind}. Leave --old out.")
    model = known_model(body, plugins)
    old, parts, notes = _scan(recipe, body.card, learnt, regime.needs_old or model is None, console)
    if old is None and regime.needs_old:
        raise OldDataMissing(_no_data(recipe, body.card, model is not None))
    if model is not None and old is not None and not set(old.classes) <= model.names.keys():
        strange = sorted(set(old.classes) - model.names.keys())[0]
        notes += (f"{model.origin} does not know {strange!r}: a probe on the old data stands in for the old model",)
        model = None
    if model is None and old is None:
        raise OldDataMissing(
            f"the regime {recipe.regime!r} keeps the old model's answers, but {body.card.name} has no "
            "classifier with names. Give old data with --old DATA, or --regime new-only."
        )
    if old is not None and model is not None:
        old = relabelled(old, model.classes, {n: model.classes[i] for n, i in model.names.items()})
    classes = model.classes if model is not None else old.classes if old is not None else ()
    space = space_of(recipe.labels, classes, task.classes)
    if space == "replace" and (regime.needs_old or soft):
        raise BadOption(
            f"--labels replace: the regime {recipe.regime!r} trains on the old task, too, which then has no outputs. "
            "Give --labels extend, or --regime new-only."
        )
    if old is not None:
        old, apart = _apart(old, task)
        notes += apart
    if space == "share" and soft and not regime.needs_old:
        notes += (
            "the old model's answers for new pictures of its own classes stand against their labels: where pictures "
            "differ much, both tasks lose, and a few old examples are better (--regime rehearsal)",
        )
    counts = _SAID[space].format(old=len(classes), new=len(task.classes))
    notes = (f"{space}: {counts}", *notes)
    if space == "replace":
        return OldTask(space, classes, old, None, parts, notes), task
    everything = classes if space == "share" else (*classes, *task.classes)
    return OldTask(space, classes, old, model, parts, notes), relabelled(task, everything)


def space_of(asked: str, old: Sequence[str], new: Sequence[str]) -> Space:
    """The label space, `auto` being `share` for classes that the old task has, `extend` for others.

    Raises:
        LabelClash: shows both lists.
    """
    known = {name.casefold(): name for name in old}
    both = [name for name in new if name.casefold() in known]
    exact = [name for name in new if name in old]
    lists = f"old: {_listed(old)}; new: {_listed(new)}"
    if asked == "replace":
        return "replace"
    if len(exact) == len(new) and asked != "extend":
        return "share"
    if not both and asked != "share":
        return "extend"
    if asked == "share":
        strange = next(name for name in new if name not in old)
        raise LabelClash(
            f"--labels share: the old task has no class {strange!r} ({lists}). "
            "Give --labels extend, or rename the classes to those of the old task."
        )
    raise LabelClash(
        f"{both[0]!r} is a label of the new data and {known[both[0].casefold()]!r} of the old task ({lists}). "
        "Rename it in one of them where they mean different things; where all new labels mean old ones, "
        "give --labels share; to give the old task up, --labels replace."
    )


def _known(recipe: Recipe, card: Card, use_parent: bool) -> tuple[Learnt, ...]:
    """The tasks whose data may show what is to be kept: of the runs that the backbone comes from, or as given."""
    learnt = tasks_of(card)
    if recipe.old and not (learnt and _same(recipe.old, learnt[-1].path)):
        return (given(recipe.old, recipe.test_share, recipe.val_share),)
    return learnt if recipe.old or use_parent else ()


def _scan(
    recipe: Recipe, card: Card, learnt: Sequence[Learnt], trains: bool, console: Console
) -> tuple[Task | None, tuple[Part, ...], tuple[str, ...]]:
    """Old data, those of several tasks as one; which example shows which task; and what is to be said.

    Args:
        trains: whether old examples are trained on; else one of a class is enough, and no side is needed.
    """
    parts, tasks, notes = [], [], []
    for task in learnt:
        if not task.here and not (recipe.old and _same(recipe.old, task.path)):
            parts.append(Part(task, frozenset()))
            notes.append(f"the data of task {task.run} are not at hand any more: {task.path}")
            continue
        modality = modalities.of(card.modality)
        if trains or recipe.labels == "replace":
            found = data.scan(
                task.path,
                columns=task.columns,
                test_share=task.test_share,
                val_share=task.val_share,
                on_bad_image=recipe.on_bad_image,
                console=console,
                modality=modality,
                task="single-label",
            )
        else:
            path = expanded(task.path)
            seen = data.look_at(path, task.columns, console, modality, "single-label")
            found = data.split(path, seen, task.test_share, task.val_share)
        if task.digest and data.task_digest(found) != task.digest:
            notes.append(f"the data of task {task.run} are not those that it was trained on: {task.path}")
        elif not recipe.old:
            notes.append(f"old data of the run that {card.name} was registered from: {task.path}")
        parts.append(Part(task, frozenset(e.digest for e in found.examples)))
        tasks.append(found)
    return (joined(tasks) if tasks else None), tuple(parts), tuple(notes)


def _apart(old: Task, new: Task) -> tuple[Task, tuple[str, ...]]:
    """The old task without what would leak: contents that the new data have on another side."""
    sides = {e.digest: e.split for e in new.examples}
    kept = tuple(e for e in old.examples if sides.get(e.digest, e.split) == e.split)
    lost = len(old.examples) - len(kept)
    note = (f"{lost} old examples are also new ones on another side and were left out",) if lost else ()
    return replace(old, examples=kept), note


def _no_data(recipe: Recipe, card: Card, model: bool) -> str:
    about = card.openness.data
    name = f" ({about.name})" if about.name else ""
    why = {
        "open": f"its training data{name} are open, but not at hand",
        "restricted": f"its training data{name} are restricted, not open",
        "closed": f"its training data{name} are closed",
        "unknown": f"how open its training data{name} are is unknown",
    }[about.mark]
    lwf = "--regime lwf, which keeps the old model's answers and needs no old data, or " if model else ""
    return (
        f"the regime {recipe.regime!r} mixes old data in, and none are given; the card of {card.name} says that {why}. "
        f"Give --old DATA if you have them, {lwf}--regime new-only, which may forget the old task."
    )


def _same(a: str, b: str) -> bool:
    return expanded(a).resolve() == expanded(b).resolve()


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
