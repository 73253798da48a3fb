"""Two runs side by side: what was asked differently, which is better, and which answers flipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from zoo_core import answered, resolution
from zoo_core.answered import Answered
from zoo_core.errors import BadOption

if TYPE_CHECKING:
    from zoo_core.runs import Run

NUMBERS = 20
"""How many of the numbers that moved most are listed; hardly any stays where it was."""


@dataclass(frozen=True)
class Flipped:
    """One test example that the two runs answer differently.

    Attributes:
        path: as `predictions.csv` has it.
        truth: its label.
        before, after: answers of the first run and of the second.
        sure: the second run's probability of its answer; for numbers how much nearer to the truth it came.
    """

    path: str
    truth: str
    before: str
    after: str
    sure: float

    @property
    def kind(self) -> str:
        """`mended`, `broken`, or `other` where both are wrong."""
        if self.after != self.truth != self.before:
            return "other"
        return "mended" if self.after == self.truth else "broken"


@dataclass(frozen=True)
class Difference:
    """What `zoo runs diff A B` found.

    Attributes:
        asked: recipe field -> its value in A and in B, where the two differ.
        data: what the two know of their data: examples shared on the test side, and those that one has alone.
        figures: name -> value in A and in B, on each run's whole test side.
        told: the paired comparison on the shared examples, B against A; see `resolution.told_apart`.
        cost: seconds and parameters trained, in A and in B.
        flipped: answers that differ, the surest of B first.
    """

    asked: dict[str, tuple[Any, Any]]
    data: dict[str, Any]
    figures: dict[str, tuple[float | None, float | None]]
    told: dict[str, Any]
    cost: dict[str, tuple[float, float]]
    flipped: list[Flipped]

    def to_json(self) -> dict[str, Any]:
        """Plain data, each flipped example with its kind."""
        return asdict(self) | {"flipped": [asdict(f) | {"kind": f.kind} for f in self.flipped]}


def diff(a: Run, b: Run) -> Difference:
    """Compare two runs of one task.

    Raises:
        BadOption: they have different classes or kinds of task, or no test example in common; says which.
    """
    for what, first, second in (("kind of task", a.target.kind, b.target.kind), ("classes", a.classes, b.classes)):
        if first != second:
            raise BadOption(f"{a.path} and {b.path} differ in their {what}: {_few(first)} and {_few(second)}.")
    left, right = answered.read(a), answered.read(b)
    where = {path: i for i, path in enumerate(left.paths)}
    pairs = [(where[path], j) for j, path in enumerate(right.paths) if path in where]
    if not pairs:
        raise BadOption(
            f"{a.path} and {b.path} have no test example in common ({left.paths[0]}, {right.paths[0]}, ...). "
            "Answer the same files with both: zoo predict RUN FILES"
        )
    shared = [i for i, _ in pairs], [j for _, j in pairs]
    each = [
        run.target.each(side.shares[rows], run.target.labels([side.truth[i] for i in rows]).numpy())
        for run, side, rows in zip((a, b), (left, right), shared, strict=True)
    ]
    return Difference(
        _asked(a, b),
        {"shared": len(pairs), "only_first": len(left) - len(pairs), "only_second": len(right) - len(pairs)},
        {name: (a.metrics.get(key), b.metrics.get(key)) for key, name in a.target.figures.items()},
        resolution.told_apart(each[1], each[0], a.path.name) | {"unit": a.target.unit},
        {
            "seconds": (a.summary["seconds"]["total"], b.summary["seconds"]["total"]),
            "parameters_trained": _trained(a, b),
        },
        _flipped(b, left, right, pairs),
    )


def _asked(a: Run, b: Run) -> dict[str, tuple[Any, Any]]:
    first, second = asdict(a.recipe), asdict(b.recipe)
    return {name: (first[name], second[name]) for name in first if first[name] != second[name]}


def _trained(a: Run, b: Run) -> tuple[float, float]:
    counts = [run.summary["freeze"]["parameters_trained"] for run in (a, b)]
    return counts[0], counts[1]


def _flipped(run: Run, left: Answered, right: Answered, pairs: Sequence[tuple[int, int]]) -> list[Flipped]:
    """Broken answers, then mended ones, then the others, the surest first; of numbers those that moved most."""
    if run.target.kind != "regression":
        found = [
            Flipped(right.paths[j], right.truth[j], left.predicted[i], right.predicted[j], float(right.shares[j].max()))
            for i, j in pairs
            if left.predicted[i] != right.predicted[j]
        ]
        return sorted(found, key=lambda f: (f.kind != "broken", f.kind != "mended", -f.sure))
    moved = sorted(pairs, key=lambda p: -abs(left.shares[p[0], 0] - right.shares[p[1], 0]))[:NUMBERS]
    return [
        Flipped(right.paths[j], right.truth[j], left.predicted[i], right.predicted[j], _nearer(left, right, i, j))
        for i, j in moved
    ]


def _nearer(left: Answered, right: Answered, i: int, j: int) -> float:
    truth = float(right.truth[j])
    return float(abs(left.shares[i, 0] - truth) - abs(right.shares[j, 0] - truth))


def _few(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value[:5]) + (", ..." if len(value) > 5 else "")
