"""Lineage: the tasks that a registered run has learnt one after another, and where their data lie. No torch.

A card says it in `x-run`: `source` is the data of the run itself, `before` are the tasks that its head kept from the
runs it comes from, the oldest first. A run that gave the old head up begins a chain of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.places import expanded
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
    """What the head of a registered run knows, the oldest task first; none for other backbones.

    A card may come from anywhere: what is not as `told` writes it is passed over.
    """
    about = card.extra.get("x-run")
    if not isinstance(about, dict):
        return ()
    before = about.get("before")
    entries = [*(before if isinstance(before, list) else []), about]
    return tuple(learnt for entry in entries if (learnt := _read(entry)) is not None)


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
    return Learnt(Path(path).stem, str(expanded(path).resolve()), test_share=test_share, val_share=val_share)


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
    whole = str(expanded(path).resolve())
    return {"path": whole, "columns": columns, "test_share": test_share, "val_share": val_share}


def _read(entry: Any) -> Learnt | None:
    source = entry.get("source") if isinstance(entry, dict) else None
    if not isinstance(source, dict) or not isinstance(source.get("path"), str):
        return None
    shares = {n: float(source[n]) for n in ("test_share", "val_share") if isinstance(source.get(n), int | float)}
    columns, accuracy = source.get("columns"), entry.get("accuracy")
    return Learnt(
        run=str(entry.get("run", "")),
        path=source["path"],
        digest=str(entry.get("data", "")),
        accuracy=float(accuracy) if isinstance(accuracy, int | float) else None,
        columns=columns if isinstance(columns, str) else None,
        **shares,
    )
