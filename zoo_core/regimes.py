"""Data regimes of the core: which examples enter each epoch."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
class Rehearsal:
    """Case 2, a complementary task: every batch mixes old and new examples (Robins 1995), `ratio` of them old.

    An epoch sees every new example once. `buffer` keeps so many old training examples, evenly by class, chosen by
    `select`: at random by content and seed, by `herding` (closest to the class mean; Rebuffi et al. 2017) or by
    `margin` (those the old model is least sure of). A fifth of them is not trained on: it chooses the epoch, and
    corrects the head. `distil` is the weight of the old model's answers as soft targets.
    """

    ratio: float = 0.5
    buffer: int = 0
    select: Literal["random", "herding", "margin"] = "random"
    distil: float = 0.0
    temperature: float = 2.0

    needs_old: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise BadOption(
                f"rehearsal:ratio={self.ratio:g}: expected a share from 0 up to, not including, 1. "
                "Type --regime rehearsal:ratio=0.5"
            )
        if self.buffer < 0:
            raise BadOption(f"rehearsal:buffer={self.buffer}: expected 0 (all old examples) or more.")
        _check_soft("rehearsal", self.distil, self.temperature)

    def batches(self, n_new: int, n_old: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        import numpy as np

        new_places = max(1, round(batch_size * (1 - self.ratio)))
        batches = np.array_split(rng.permutation(n_new), max(1, -(-n_new // new_places)))
        places = round(n_new * self.ratio / (1 - self.ratio)) if n_old else 0
        ends = np.rint(np.arange(1, len(batches) + 1) * places / len(batches)).astype(int)
        # whole passes over the old examples before any of them comes again
        passes = [n_new + rng.permutation(n_old) for _ in range(-(-places // max(1, n_old)))]
        old = np.split(np.concatenate([*passes, np.empty(0, dtype=int)])[:places], ends[:-1])
        return [np.concatenate(both) for both in zip(batches, old, strict=True)]


@dataclass(frozen=True)
class LwF(NewOnly):
    """Learning without forgetting (Li and Hoiem 2016): only new data, with the old model's answers as soft targets.

    They are computed once. `distil` is their weight in the loss, `temperature` softens both models' answers. New labels
    compete among the new classes, as in the paper, and not with the old ones unless `compete=all`.
    """

    distil: float = 1.0
    temperature: float = 2.0
    compete: Literal["new", "all"] = "new"

    def __post_init__(self) -> None:
        _check_soft("lwf", self.distil, self.temperature)
        if self.distil == 0:
            raise BadOption("lwf:distil=0 keeps nothing of the old model. Type --regime new-only")


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


def balanced_first(examples: Sequence[Example], size: int, seed: int) -> list[Example]:
    """So many examples, evenly by class, by content and seed; all of them for 0."""
    counts = shares_of([e.label for e in examples], size or len(examples))
    found = {
        label: _first_of_each([e for e in examples if e.label == label], seed, lambda _, n=n: n)
        for label, n in counts.items()
    }
    chosen = {id(e) for part in found.values() for e in part}
    return [e for e in examples if id(e) in chosen]


def held_out(examples: Sequence[Example], seed: int) -> list[Example]:
    """A fifth of each class by content and seed, for what must not be seen in training; of fewer than five none."""
    return _first_of_each(examples, seed + 1, lambda count: count // 5)


def shares_of(labels: Sequence[int], size: int) -> dict[int, int]:
    """How many of `size` places each label gets: equally many, what a small class cannot fill going to the others."""
    left = Counter(labels)
    found = dict.fromkeys(sorted(left), 0)
    size = min(size, len(labels))
    while size:
        for label in [c for c in found if left[c]][:size]:
            found[label] += 1
            left[label] -= 1
            size -= 1
    return found


def _check_soft(name: str, distil: float, temperature: float) -> None:
    if not 0 <= distil < math.inf or not 0 < temperature < math.inf:
        raise BadOption(
            f"{name}: got distil={distil:g} and temperature={temperature:g}; expected 0 or more, and more than 0. "
            f"Type --regime {name}:distil=1,temperature=2"
        )


def _first_of_each(examples: Sequence[Example], seed: int, how_many: Any) -> list[Example]:
    """Of each class the first ones by sha256 over seed and content: as good as random, and the same everywhere."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        by_class[example.label].append(i)

    def place(i: int) -> bytes:
        return hashlib.sha256(f"{seed} {examples[i].digest}".encode()).digest()

    chosen = {i for rows in by_class.values() for i in sorted(rows, key=place)[: how_many(len(rows))]}
    return [example for i, example in enumerate(examples) if i in chosen]
