"""The split is a function of content.

Examples are clustered by what they show (copies and near copies) and by the user's groups, and each
cluster goes to one side by the digest of its content. File names, folders, dates and the order of reading
change nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from zoo_core import likeness
from zoo_core.types import Example, Split

SPLITS: tuple[Split, ...] = get_args(Split)
_MANY = 20  # near copies of one picture that are more than this, and most of a class, are the class itself


def split_by_content(
    examples: Sequence[Example],
    given: Sequence[Split | None],
    test_share: float,
    val_share: float,
    looks: Mapping[str, str] | None = None,
    near: dict[str, str] | None = None,
) -> tuple[tuple[Example, ...], list[str]]:
    """Keep the user's sides, cut the missing ones out of the training side, class by class.

    Args:
        given: the side that the user chose for each example, where they did.
        test_share, val_share: of the examples of a class that the user did not put on another side.
        looks: content digest -> look, to keep near copies together.
        near: gets content digest -> name of its group of near copies, where it has one.

    Returns:
        The examples with their sides, and sentences for the user.
    """
    groups, notes = near_copies(examples, looks or {})
    near = {} if near is None else near
    near.update(groups)
    sides: list[Split] = [side or "train" for side in given]
    has = {side for side in given if side}
    if has:
        notes.append(f"your own split is kept ({', '.join(s for s in SPLITS if s in has)})")
    free = Counter(e.label for e, side in zip(examples, given, strict=True) if side in (None, "train"))
    shares: tuple[tuple[Split, float], ...] = (("test", test_share), ("val", val_share))
    for side, share in shares:
        if side not in has:
            _carve(examples, near, sides, side, share, free)
    notes += _findings(examples, near, sides)
    return tuple(replace(e, split=s) for e, s in zip(examples, sides, strict=True)), notes


def near_copies(examples: Sequence[Example], looks: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Content digest -> name of its group of near copies, and sentences for the user.

    Where near copies of one picture make up most of a class of some size, keeping them on one side would leave
    nothing to test on: they are left apart, and that is said.
    """
    sizes = Counter(e.label for e in examples)
    labels: dict[str, list[int]] = defaultdict(list)
    for example in examples:
        labels[example.digest].append(example.label)
    near: dict[str, str] = {}
    notes = []
    for group in likeness.near({digest: looks.get(digest, "") for digest in labels}):
        counts = Counter(label for digest in group for label in labels[digest])
        if any(n > _MANY and 2 * n > sizes[label] for label, n in counts.items()):
            notes.append(
                f"{counts.total()} examples look so much alike that they are most of a class: they were not kept on "
                f"one side, so the test may be too easy; name what belongs together in a group column"
            )
        else:
            near.update(dict.fromkeys(group, group[0]))
    return near, notes


def _findings(examples: Sequence[Example], near: Mapping[str, str], sides: Sequence[Split]) -> list[str]:
    """Sentences about copies that stand on two sides or under two labels."""
    copies = [e.digest for e in examples]
    alike = [near.get(digest, digest) for digest in copies]
    labels = [(e.label, e.text) for e in examples]
    notes = []
    leaks, near_leaks = _several(copies, sides), _several(alike, sides)
    if leaks:
        notes.append(f"{leaks} examples of your own split have copies on another side: the test is too easy")
    if near_leaks > leaks:
        notes.append(f"{near_leaks - leaks} examples of your own split have near copies on another side")
    kept = len({near[e.digest] for e in examples if e.digest in near})
    if kept:
        notes.append(f"{kept} groups of near copies were found" + ("" if near_leaks else " and kept on one side each"))
    conflicts, near_conflicts = _several(copies, labels), _several(alike, labels)
    if conflicts:
        notes.append(f"{conflicts} examples show the same pixels under different labels")
    if near_conflicts > conflicts:
        notes.append(f"{near_conflicts - conflicts} examples have a near copy under another label")
    return notes


def _carve(
    examples: Sequence[Example],
    near: Mapping[str, str],
    sides: list[Split],
    side: Split,
    share: float,
    free: Mapping[int, int],
) -> None:
    """Move about `share` of each class from train to `side`, whole clusters of copies and groups at a time.

    Clusters are ordered by the sha256 of their content, so that the choice is as good as random
    and the same everywhere.

    Args:
        free: how many examples of each class the share is of.
    """
    members = _clusters(examples, near)
    by_class: dict[int, list[str]] = defaultdict(list)
    for key, indices in members.items():
        if all(sides[i] == "train" for i in indices):
            by_class[Counter(examples[i].label for i in indices).most_common(1)[0][0]].append(key)
    for label in sorted(by_class):
        size = sum(len(members[key]) for key in by_class[label])
        wanted = min(max(round(share * free[label]), 1 if side == "test" else 0), size - 1)
        taken = 0
        for key in sorted(by_class[label], key=lambda k: hashlib.sha256(f"{side} {k}".encode()).digest()):
            if taken + len(members[key]) <= wanted:
                taken += len(members[key])
                for i in members[key]:
                    sides[i] = side


def _clusters(examples: Sequence[Example], near: Mapping[str, str]) -> dict[str, list[int]]:
    """Positions that must stay together (copies, near copies, one group), keyed by their smallest content digest."""
    first: dict[tuple[str, str], int] = {}
    links: list[tuple[int, int]] = []
    for i, example in enumerate(examples):
        links.append((i, first.setdefault(("content", near.get(example.digest, example.digest)), i)))
        if example.group:
            links.append((i, first.setdefault(("group", example.group), i)))
    clusters: dict[int, list[int]] = defaultdict(list)
    for i, root in enumerate(likeness.connected(len(examples), links)):
        clusters[root].append(i)
    return {min(examples[i].digest for i in indices): indices for indices in clusters.values()}


def _several(contents: Sequence[str], marks: Sequence[object]) -> int:
    """Examples whose content stands under more than one mark (a side, a label)."""
    where: dict[str, set[object]] = defaultdict(set)
    for content, mark in zip(contents, marks, strict=True):
        where[content].add(mark)
    return sum(len(where[content]) > 1 for content in contents)
