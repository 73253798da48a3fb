"""What the old task lost: its test side answered by the old and by the new model, paired example by example.

Sign conventions: retention = after / before; forgetting = before - after, so that a loss is positive; backward
transfer = after - before, so that a loss is negative (Lopez-Paz and Ranzato 2017, arXiv:1706.08840).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_core import bootstrap, metrics
from zoo_core.errors import TooMuchForgotten

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_core.old_task import Part

CONVENTION = (
    "retention = after / before; forgetting = before - after (a loss is positive); "
    "backward transfer = after - before (a loss is negative)"
)
HOW = {
    "extend": "before: the old model among the old classes; after: this run among old and new classes together",
    "share": "before: the old model; after: this run; both among the same classes",
    "replace": "the head was replaced, so both are linear probes, fitted to the old training side: "
    "before on the published features, after on this run's; what is measured is what the features still hold",
}
"""Label space to how its before and after are made."""


def ledger(before: np.ndarray, after: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Figures of the old task for probabilities before [N, old classes] and after [N, all classes].

    The first columns of `after` are the old classes. `within_old` is the accuracy after if only old classes were
    allowed: where it is high and `after` low, the old task was not unlearnt but outvoted by new classes.
    """
    columns = [*classes, *map(str, range(len(classes), after.shape[1]))]
    first, last = metrics.score(before, labels, classes), metrics.score(after, labels, columns)
    right, still = before.argmax(1) == labels, after.argmax(1) == labels
    figures: dict[str, bootstrap.Weighted] = {
        "retention": lambda w: (w @ still) / (w @ right),
        "forgetting": bootstrap.mean(right.astype(float) - still),
    }
    intervals = bootstrap.intervals(figures, len(labels))
    gap = first["accuracy"] - last["accuracy"]
    return {
        "n_test": len(labels),
        "before": first["accuracy"],
        "before_ci": first["accuracy_ci"],
        "after": last["accuracy"],
        "after_ci": last["accuracy_ci"],
        "balanced": {"before": first["balanced_accuracy"], "after": last["balanced_accuracy"]},
        "retention": last["accuracy"] / first["accuracy"] if first["accuracy"] else None,
        "retention_ci": intervals.get("retention"),
        "forgetting": gap,
        "forgetting_ci": intervals["forgetting"],
        "backward_transfer": -gap,
        "within_old": float((after[:, : len(classes)].argmax(1) == labels).mean()),
        "per_class": {
            classes[c]: {
                "n": int((labels == c).sum()),
                "before": float(right[labels == c].mean()),
                "after": float(still[labels == c].mean()),
            }
            for c in np.unique(labels)
        },
        "convention": CONVENTION,
    }


def by_task(
    before: Tensor, after: Tensor, labels: Tensor, digests: Sequence[str], parts: Sequence[Part]
) -> list[dict[str, Any]]:
    """Accuracy before and after on each of the tasks that were learnt one after another, the oldest first."""
    right, still = (before.argmax(1) == labels).numpy(), (after.argmax(1) == labels).numpy()
    found = []
    for part in parts:
        rows = np.array([digest in part.digests for digest in digests], dtype=bool)
        figures = {
            name: float(x[rows].mean()) if rows.any() else None for name, x in (("before", right), ("after", still))
        }
        found.append(part.learnt.told() | {"n": int(rows.sum())} | figures)
    return found


def check_lost(lost: dict[str, Any] | None, most: float | None, out: Path) -> None:
    """The run is there and stays; only the user's limit was not kept.

    Raises:
        TooMuchForgotten: the old task lost more than `most`.
    """
    if lost and most is not None and lost["before"] is not None and lost["forgetting"] > most:
        raise TooMuchForgotten(
            f"{out}: the old task went from {lost['before']:.3f} to {lost['after']:.3f}, "
            f"which is more than --max-forgetting {most:g} allows. "
            "The run is kept; try --regime rehearsal, or a larger ratio or buffer."
        )


def lines(old: dict[str, Any], most: int = 12) -> list[str]:
    """The ledger as lines for people; the classes that lost most come first."""
    cost = old["cost"]
    price = (
        f"{cost['examples']} old examples took about {cost['prefix_seconds'] + cost['fit_seconds']:.1f} s: "
        f"{cost['prefix_seconds']:.1f} s of the frozen pass ({cost['found']} found, {cost['computed']} computed), "
        f"{cost['fit_seconds']:.1f} s of training"
    )
    if old["before"] is None:
        return [f"not measured: {old['how']}"]
    change = old["forgetting"]
    found = [
        f"{old['n_test']} test examples: {old['before']:.3f} before, {old['after']:.3f} after; "
        f"retention {_share(old['retention'], old['retention_ci'])}, forgetting {_share(change, old['forgetting_ci'])}",
        old["how"],
        *filter(None, [old.get("correction")]),
        price,
    ]
    if old["within_old"] - old["after"] > 0.005:
        found.append(f"among old classes alone it would be {old['within_old']:.3f}: the rest goes to new classes")
    if len(old.get("tasks", ())) > 1:
        found += [
            f"  task {t['run']}: {_share(t['before'], None)} -> {_share(t['after'], None)}  ({t['n']})"
            for t in old["tasks"]
        ]
    each = sorted(old["per_class"].items(), key=lambda item: item[1]["after"] - item[1]["before"])
    width = max(len(name) for name, _ in each[:most])
    found += [f"  {name:<{width}}  {c['before']:.3f} -> {c['after']:.3f}  ({c['n']})" for name, c in each[:most]]
    if len(each) > most:
        found.append(f"  and {len(each) - most} classes that lost less")
    return found


def _share(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
