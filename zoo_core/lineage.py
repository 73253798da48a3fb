"""Lineage: the tasks that a registered run has learnt one after another, and where their data lie. No torch.

A card says it in `x-run`: `source` is the data of the run itself, `before` are the tasks that its head kept from the
runs it comes from, the oldest first. A run that gave the old head up begins a chain of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.types import Example, Task

if TYPE_CHECKING:
    from zoo_core.card import Card
    from zoo_core.runs import Run


@dataclass(frozen=True)
class Learnt:
    """A task that a head answers for.

    Attributes:
        run: that learnt it.
        path: where its data lay.
        digest: of the data.
        accuracy: of that run on its test side.
        columns, test_share, val_share: how that run read the data, so that its test side is found again.
    """

    run: str
    path: str
    digest: str = ""
    accuracy: float | None = None
    columns: str | None = None
    test_share: float = 0.25
    val_share: float = 0.15

    @property
    def here(self) -> bool:
        """Whether its data are at hand."""
        return Path(self.path).exists()

    def told(self) -> dict[str, Any]:
        """As a card says it."""
        source = {name: getattr(self, name) for name in ("path", "columns", "test_share", "val_share")}
        return {"run": self.run, "data": self.digest, "accuracy": self.accuracy, "source": source}


def tasks_of(card: Card) -> tuple[Learnt, ...]:
    """What the head of a registered run knows, the oldest task first; none for other backbones."""
    about = card.extra.get("x-run", {})
    if "source" not in about:
        return ()
    before = tuple(_read(entry) for entry in about.get("before", ()))
    own = {"run": about.get("run", ""), "data": about.get("data", ""), "accuracy": about.get("accuracy")}
    return (*before, _read(own | {"source": about["source"]}))


def told(run: Run) -> dict[str, Any]:
    """What the card of a registered run says of its own task, and of those before it."""
    recipe, summary = run.recipe, run.summary
    source = _source(recipe.data, recipe.columns, recipe.test_share, recipe.val_share)
    about = {"run": summary["run"], "data": summary["data"]["digest"], "source": source}
    about["accuracy"] = summary["test"].get("accuracy")
    old = summary.get("old", {})
    if old.get("labels") in ("extend", "share"):
        about["before"] = [{k: task[k] for k in ("run", "data", "accuracy", "source")} for task in old["tasks"]]
    return about


def given(path: str, test_share: float, val_share: float) -> Learnt:
    """A task of whose run nothing is known but where its data lie."""
    return Learnt(Path(path).stem, str(Path(path).expanduser().resolve()), test_share=test_share, val_share=val_share)


def relabelled(task: Task, classes: tuple[str, ...], names: Mapping[str, str] | None = None) -> Task:
    """The task with other classes; `names` says what each of its own is called there."""
    index = {name: i for i, name in enumerate(classes)}
    place = [index[(names or {}).get(name, name)] for name in task.classes]
    return replace(task, classes=classes, examples=tuple(replace(e, label=place[e.label]) for e in task.examples))


def joined(tasks: Sequence[Task]) -> Task:
    """Several tasks as one, classes of the same name being the same; a content stands where it stood first."""
    classes = tuple(dict.fromkeys(name for task in tasks for name in task.classes))
    found: dict[str, Example] = {}
    for task in tasks:
        for example in relabelled(task, classes).examples:
            found.setdefault(example.digest, example)
    first = tasks[0]
    bad = {path: reason for task in tasks for path, reason in task.bad.items()}
    notes = tuple(note for task in tasks for note in task.notes)
    source = " + ".join(task.source for task in tasks)
    return replace(first, source=source, classes=classes, examples=tuple(found.values()), bad=bad, notes=notes)


def _source(path: str, columns: str | None, test_share: float, val_share: float) -> dict[str, Any]:
    whole = str(Path(path).expanduser().resolve())
    return {"path": whole, "columns": columns, "test_share": test_share, "val_share": val_share}


def _read(entry: Mapping[str, Any]) -> Learnt:
    known = {name: entry["source"][name] for name in ("columns", "test_share", "val_share") if name in entry["source"]}
    return Learnt(entry.get("run", ""), entry["source"]["path"], entry.get("data", ""), entry.get("accuracy"), **known)
