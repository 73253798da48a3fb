"""What the frozen backbone thinks of the data: labels to look at, outliers, and pictures that are nearly the same.

All of it comes from cached pooled features by cosine. Nothing is changed or left out: a person looks and decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_core.audit import told
from zoo_core.types import ONE_LABEL, Task

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 10
LISTED = 60
"""Of a kind; how many there are in all is said beside."""
_OWN, _OTHER = 0.1, 0.8  # at most this share of an example's neighbours has its label, at least this one other label
_FAR = 6.0  # median deviations from the median distance to the neighbours
_CLOSE, _RATIO = 0.02, 0.1  # cosine distance of near copies, and beside the median distance of nearest neighbours


def doubts(task: Task, features: Tensor) -> dict[str, Any]:
    """Labels that neighbours contradict, examples that resemble none, and pairs that resemble each other too much.

    An example is judged by its ten nearest others: never by itself, a copy or near copy of it, or its group, as if it
    had been held out. The idea is that of k-nearest-neighbour editing (Wilson 1972).

    Args:
        features: of `task.examples`, in their order [N, D].

    Returns:
        `doubtful_labels`, `outliers`, `alike` (lists, the most telling first), `how_many` of each in all.
    """
    examples = task.examples
    if len(examples) <= NEIGHBOURS:
        return {"doubtful_labels": [], "outliers": [], "alike": [], "how_many": {}}
    near, distance = _neighbours(features.float().numpy(), _families(task))
    found = {
        "doubtful_labels": _labels(task, near, distance) if task.kind in ONE_LABEL else [],
        "outliers": _outliers(task, distance),
        "alike": _alike(task, near, distance),
    }
    return {name: rows[:LISTED] for name, rows in found.items()} | {"how_many": {k: len(v) for k, v in found.items()}}


def _families(task: Task) -> np.ndarray:
    """A number for each example [N]: copies, near copies and groups share one."""
    from zoo_core.likeness import connected

    first: dict[tuple[str, str], int] = {}
    links = []
    for i, e in enumerate(task.examples):
        links.append((i, first.setdefault(("content", task.alike.get(e.digest, e.digest)), i)))
        if e.group:
            links.append((i, first.setdefault(("group", e.group), i)))
    return np.array(connected(len(task.examples), links))


def _neighbours(x: np.ndarray, family: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cosine distances [N, NEIGHBOURS] of the nearest that are not of an example's own family."""
    x = x - x.mean(0)  # features of one backbone share a large mean; without it cosines say little
    x /= np.linalg.norm(x, axis=1, keepdims=True) + 1e-12
    positions = np.empty((len(x), NEIGHBOURS), dtype=np.int64)
    distances = np.empty((len(x), NEIGHBOURS), dtype=np.float32)
    for start in range(0, len(x), 512):
        rows = slice(start, start + 512)
        far = 1 - x[rows] @ x.T
        far[family[rows, None] == family[None]] = np.inf
        nearest = np.argpartition(far, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        ordered = np.take_along_axis(far, nearest, 1).argsort(1, kind="stable")
        positions[rows] = np.take_along_axis(nearest, ordered, 1)
        distances[rows] = np.take_along_axis(far, positions[rows], 1)
    return positions, distances


def _labels(task: Task, near: np.ndarray, distance: np.ndarray) -> list[dict[str, Any]]:
    labels = np.array([e.label for e in task.examples])
    votes = np.zeros((len(labels), len(task.classes)))
    for column in range(NEIGHBOURS):
        known = np.isfinite(distance[:, column])
        np.add.at(votes, (np.flatnonzero(known), labels[near[known, column]]), 1)
    shares = votes / NEIGHBOURS
    own = shares[np.arange(len(labels)), labels]
    shares[np.arange(len(labels)), labels] = 0
    other = shares.argmax(1)
    chosen = np.flatnonzero((own <= _OWN) & (shares.max(1) >= _OTHER)).tolist()
    chosen.sort(key=lambda i: (own[i] - shares[i].max(), task.examples[i].digest))
    return [
        told(task, task.examples[i]) | {"neighbours": task.classes[other[i]], "share": float(shares[i].max())}
        for i in chosen
    ]


def _outliers(task: Task, distance: np.ndarray) -> list[dict[str, Any]]:
    mean = np.where(np.isfinite(distance), distance, 1.0).mean(1)
    middle = float(np.median(mean))
    spread = float(np.median(abs(mean - middle))) or 1e-9
    chosen = [int(i) for i in np.argsort(-mean, kind="stable") if (mean[i] - middle) / spread > _FAR]
    return [told(task, task.examples[i]) | {"distance": float(mean[i]), "usual": middle} for i in chosen]


def _alike(task: Task, near: np.ndarray, distance: np.ndarray) -> list[dict[str, Any]]:
    """Pairs far closer than is usual here, that look and pixels did not find."""
    nearest = distance[:, 0]
    limit = min(_CLOSE, _RATIO * _median(nearest))
    found: dict[tuple[int, int], float] = {}
    for i in np.flatnonzero(nearest <= limit).tolist():
        j = int(near[i, 0])
        found[min(i, j), max(i, j)] = float(nearest[i])
    return [
        {"files": [told(task, task.examples[i]) for i in pair], "distance": far, "across": _across(task, *pair)}
        for pair, far in sorted(found.items(), key=lambda item: (item[1], item[0]))
    ]


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _across(task: Task, i: int, j: int) -> list[str]:
    """What a pair disagrees about."""
    a, b = task.examples[i], task.examples[j]
    return [what for what, differ in (("sides", a.split != b.split), ("labels", a.label != b.label)) if differ]


def leaks(task: Task, target: Any, answers: np.ndarray) -> dict[str, Any] | None:
    """The test side's figures with and without the examples that have a copy or near copy on another side.

    Only the user's own split can have them.

    Args:
        answers: of the test side [N, outputs].

    Returns:
        None where nothing leaks.
    """
    elsewhere: dict[str, bool] = {}
    for e in task.examples:
        if e.split != "test":
            elsewhere[task.alike.get(e.digest, e.digest)] = True
    test = task.split("test")
    leaked = np.array([task.alike.get(e.digest, e.digest) in elsewhere for e in test], dtype=bool)
    if not leaked.any():
        return None
    files = [told(task, e) for e, leak in zip(test, leaked, strict=True) if leak]
    found: dict[str, Any] = {"n": len(files), "of": len(test), "files": files[:LISTED]}
    labels = target.labels([task.text(e) for e in test]).numpy()
    found["with"] = _figures(target, answers, labels)
    found["without"] = _figures(target, answers[~leaked], labels[~leaked]) if (~leaked).any() else None
    return found


def _figures(target: Any, answers: np.ndarray, labels: np.ndarray) -> Mapping[str, Any]:
    """The figures that are printed, each with its interval."""
    scores = target.score(answers, labels)
    return {k: scores[k] for k in (*target.figures, "accuracy_ci") if k in scores}


def leak_sentence(found: Mapping[str, Any] | None, name: str, key: str) -> str:
    """For the user: what the leaked examples are worth; nothing where there are none."""
    if not found:
        return ""
    lead = f"{found['n']} of {found['of']} test examples have a copy or near copy on another side of your split"
    if found["without"] is None:
        return f"{lead}: none is left that says anything"
    before, after = found["with"][key], found["without"][key]
    if before is None or after is None:
        return lead
    return f"{lead}: {name} {before:.3f} with them, {after:.3f} without"
