"""Data regimes of the core: which examples enter each epoch."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from zoo_core.errors import BadOption
from zoo_core.types import Example, Task

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class NewOnly:
    """Case 1, a new task: only new data; the old task may be forgotten."""

    needs_old: ClassVar[bool] = False

    def batches(self, n_new: int, n_old: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        import numpy as np

        order = rng.permutation(n_new)
        # nearly equal batches: a last batch of one example would break batch norm
        return list(np.array_split(order, max(1, -(-n_new // batch_size))))


@dataclass(frozen=True)
class FewShot(NewOnly):
    """Train on k examples of each class; validation and test stay whole.

    Which ones is a function of their content and the seed: fewer shots are always among more.
    """

    k: int = 16

    def __post_init__(self) -> None:
        if self.k < 1:
            raise BadOption(f"few-shot:k={self.k}: expected 1 or more. Type --regime few-shot:k=16")

    def thin(self, examples: Sequence[Example], seed: int) -> list[Example]:
        """The training examples that stay, in their order."""
        return _first_of_each(examples, seed, lambda count: self.k)


@dataclass(frozen=True)
class Fraction(NewOnly):
    """Train on a share of each class, for learning curves; validation and test stay whole.

    Which ones is a function of their content and the seed: a smaller share is always within a larger one.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise BadOption(
                f"fraction:share={self.share:g}: expected more than 0, up to 1. Type --regime fraction:share=0.1"
            )

    def thin(self, examples: Sequence[Example], seed: int) -> list[Example]:
        """The training examples that stay, in their order; at least one of each class."""
        return _first_of_each(examples, seed, lambda count: max(1, round(self.share * count)))


@dataclass(frozen=True)
class Balanced:
    """Another regime whose new examples are drawn so that every class is equally frequent in an epoch.

    Attributes:
        regime: says how many new and old examples each batch has.
        labels: of the new examples [N].
    """

    regime: Any
    labels: np.ndarray

    def batches(self, n_new: int, n_old: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        import numpy as np

        batches = self.regime.batches(n_new, n_old, batch_size, rng)
        members = [np.flatnonzero(self.labels[:n_new] == label) for label in np.unique(self.labels[:n_new])]
        places = sum(int((batch < n_new).sum()) for batch in batches)
        share = -(-places // len(members))
        # whole passes over a class before any example of it comes again
        rows = [np.concatenate([rng.permutation(m) for _ in range(-(-share // len(m)))])[:share] for m in members]
        drawn = iter(rng.permutation(np.concatenate(rows)).tolist())
        return [np.array([next(drawn) if i < n_new else i for i in batch]) for batch in batches]


def thinned(task: Task, regime: Any, seed: int) -> Task:
    """The task with the training side that a regime leaves; regimes without a method `thin` leave all of it."""
    if not hasattr(regime, "thin"):
        return task
    train = task.split("train")
    kept = regime.thin(train, seed)
    places = {id(example) for example in kept}
    examples = tuple(e for e in task.examples if e.split != "train" or id(e) in places)
    note = f"{len(kept)} of {len(train)} training examples are used, as the regime asks"
    return replace(task, examples=examples, notes=(*task.notes, note))


def _first_of_each(examples: Sequence[Example], seed: int, how_many: Any) -> list[Example]:
    """Of each class the first ones by sha256 over seed and content: as good as random, and the same everywhere."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        by_class[example.label].append(i)

    def place(i: int) -> bytes:
        return hashlib.sha256(f"{seed} {examples[i].digest}".encode()).digest()

    chosen = {i for rows in by_class.values() for i in sorted(rows, key=place)[: how_many(len(rows))]}
    return [example for i, example in enumerate(examples) if i in chosen]
