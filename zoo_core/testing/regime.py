"""Checks of a data regime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo_core.testing.components import CHECKS as COMMON
from zoo_core.testing.components import Component
from zoo_core.testing.outcome import Skip, expect

if TYPE_CHECKING:
    import numpy as np

SIZES = ((1, 1, 8), (7, 3, 8), (64, 500, 8), (97, 50, 16), (500, 20, 32))
"""(new examples, old examples, batch size) that the checks try."""


def indices_are_in_range(component: Component) -> str:
    """Every batch is a non-empty array of whole numbers from 0 to n_new + n_old, the end left out."""
    import numpy as np

    for n_new, n_old, batch_size in _sizes(component):
        batches = _epoch(component, n_new, n_old, batch_size)
        for batch in batches:
            expect(isinstance(batch, np.ndarray) and batch.ndim == 1 and len(batch), f"a batch is {batch!r}.")
            expect(np.issubdtype(batch.dtype, np.integer), f"a batch has type {batch.dtype}; expected whole numbers.")
            inside = batch.min() >= 0 and batch.max() < n_new + n_old
            expect(inside, f"a batch holds {batch.min()} to {batch.max()}; expected 0 to {n_new + n_old - 1}.")
    return f"{len(SIZES)} sizes"


def every_new_example_is_seen(component: Component) -> None:
    """One epoch holds every new example at least once."""
    for n_new, n_old, batch_size in _sizes(component):
        missing = set(range(n_new)) - set(_flat(component, n_new, n_old, batch_size))
        expect(not missing, f"{len(missing)} of {n_new} new examples are in no batch of an epoch.")


def follows_the_seed(component: Component) -> None:
    """The same generator gives the same epoch, bit for bit: a killed run resumes where it was."""
    for n_new, n_old, batch_size in _sizes(component):
        first = _epoch(component, n_new, n_old, batch_size)
        second = _epoch(component, n_new, n_old, batch_size)
        same = len(first) == len(second) and all((a == b).all() for a, b in zip(first, second, strict=True))
        expect(same, "two epochs from equal generators differ; draw from `rng` alone.")


def share_of_old_is_kept(component: Component) -> str:
    """Of an epoch, `ratio` are old examples, within 1 % of all; a regime without old data has none."""
    regime = component.make()
    n_new, n_old, batch_size = 5000, 5000, 50
    if not regime.needs_old:
        old = [i for i in _flat(component, n_new, n_old, batch_size) if i >= n_new]
        expect(not old, f"{len(old)} old examples are in an epoch, but needs_old is False.")
        return "no old example"
    wanted = getattr(regime, "ratio", None)
    if wanted is None:
        raise Skip(f"{component.name} states no share of old examples; a field or property `ratio` would.")
    indices = _flat(component, n_new, n_old, batch_size)
    share = sum(i >= n_new for i in indices) / len(indices)
    expect(abs(share - wanted) <= 0.01, f"{share:.1%} of an epoch are old examples; expected {wanted:.1%}.")
    return f"{share:.1%} old, {wanted:.1%} asked"


def _sizes(component: Component) -> list[tuple[int, int, int]]:
    needs_old = component.make().needs_old
    return [(n_new, n_old if needs_old else 0, batch_size) for n_new, n_old, batch_size in SIZES]


def _epoch(component: Component, n_new: int, n_old: int, batch_size: int) -> list[np.ndarray]:
    import numpy as np

    rng = np.random.Generator(np.random.Philox(key=[7, 3]))  # as the engine makes it: seed, epoch
    batches = component.make().batches(n_new, n_old, batch_size, rng)
    expect(isinstance(batches, list) and batches, f"batches() returned {batches!r}; expected a list of arrays.")
    return list(batches)


def _flat(component: Component, n_new: int, n_old: int, batch_size: int) -> list[int]:
    return [int(i) for batch in _epoch(component, n_new, n_old, batch_size) for i in batch]


CHECKS = (
    *COMMON,
    indices_are_in_range,
    every_new_example_is_seen,
    follows_the_seed,
    share_of_old_is_kept,
)
