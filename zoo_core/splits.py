"""The split is a function of content.

Examples are clustered by what they show and by the user's groups, and each cluster goes to one side
by the digest of its content. File names, folders, dates and the order of reading change nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from zoo_core.types import Example, Split

SPLITS: tuple[Split, ...] = get_args(Split)


def split_by_content(
    examples: Sequence[Example], given: Sequence[Split | None], test_share: float, val_share: float
) -> tuple[tuple[Example, ...], list[str]]:
    """Keep the user's sides, cut the missing ones out of the training side, class by class.

    Args:
        given: the side that the user chose for each example, where they did.
        test_share, val_share: of all examples of a class.

    Returns:
        The examples with their sides, and sentences for the user.
    """
    sides: list[Split] = [side or "train" for side in given]
    has = {side for side in given if side}
    notes = []
    if has:
        notes.append(f"your own split is kept ({', '.join(s for s in SPLITS if s in has)})")
    shares: tuple[tuple[Split, float], ...] = (("test", test_share), ("val", val_share))
    for side, share in shares:
        if side not in has:
            _carve(examples, sides, side, share)
    leaks = _several(examples, sides)
    if leaks:
        notes.append(f"{leaks} examples of your own split have copies on another side: the test is too easy")
    conflicts = _several(examples, [e.label for e in examples])
    if conflicts:
        notes.append(f"{conflicts} examples show the same pixels under different labels")
    return tuple(replace(e, split=s) for e, s in zip(examples, sides, strict=True)), notes


def _carve(examples: Sequence[Example], sides: list[Split], side: Split, share: float) -> None:
    """Move about `share` of each class from train to `side`, whole clusters of copies and groups at a time.

    Clusters are ordered by the sha256 of their content, so that the choice is as good as random
    and the same everywhere.
    """
    members = _clusters(examples)
    by_class: dict[int, list[str]] = defaultdict(list)
    for key, indices in members.items():
        if all(sides[i] == "train" for i in indices):
            by_class[Counter(examples[i].label for i in indices).most_common(1)[0][0]].append(key)
    for label in sorted(by_class):
        size = sum(len(members[key]) for key in by_class[label])
        total = sum(e.label == label for e in examples)
        wanted = min(max(round(share * total), 1 if side == "test" else 0), size - 1)
        taken = 0
        for key in sorted(by_class[label], key=lambda k: hashlib.sha256(f"{side} {k}".encode()).digest()):
            if taken + len(members[key]) <= wanted:
                taken += len(members[key])
                for i in members[key]:
                    sides[i] = side


def _clusters(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Positions that must stay together (same content or same group), keyed by their smallest content digest."""
    parent = list(range(len(examples)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, example in enumerate(examples):
        for key in (f"content {example.digest}", f"group {example.group}" if example.group else ""):
            if key:
                parent[root(i)] = root(first.setdefault(key, i))
    clusters: dict[int, list[int]] = defaultdict(list)
    for i in range(len(examples)):
        clusters[root(i)].append(i)
    return {min(examples[i].digest for i in indices): indices for indices in clusters.values()}


def _several(examples: Sequence[Example], marks: Sequence[object]) -> int:
    """Examples whose content stands under more than one mark (a side, a label)."""
    where: dict[str, set[object]] = defaultdict(set)
    for example, mark in zip(examples, marks, strict=True):
        where[example.digest].add(mark)
    return sum(len(where[e.digest]) > 1 for e in examples)
