"""What is in a data set before anything is trained on it. Needs no torch."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from zoo_core import data, decoding
from zoo_core.console import Console
from zoo_core.decoding import POLICY, Facts
from zoo_core.errors import ZooError
from zoo_core.places import expanded
from zoo_core.types import ONE_LABEL, Example, Task

_FEW, _MOST = 10, 0.9  # examples of a class; share of the largest class
_TINY, _LONG = 32, 10  # pixels of the shorter side; longer side over shorter
_DARK = 16  # of 255: what 12-bit numbers come to when they are stored as 16-bit ones


def audit(
    source: str | Path,
    *,
    columns: str | None = None,
    test_share: float = 0.25,
    val_share: float = 0.15,
    console: Console | None = None,
    judge: Callable[[Task], Mapping[str, Any]] | None = None,
    page: Path | None = None,
) -> dict[str, Any]:
    """Look at every image once and say what is there, as plain data for JSON.

    Args:
        source, columns, test_share, val_share: as for `data.scan`; the split is the one a run would use.
        judge: what else is to be said of the task; see `looking.judge_of`.
        page: an HTML file to write, with thumbnails.

    Returns:
        `source`, `images`, `classes` (label -> counts by side), `files` (counts by kind), `pixels` (least, median and
        most of width and height), `bytes`, `groups` (how many), `odd` (what is not plain 8-bit RGB, and what is done
        with it), `duplicates`, `near_duplicates`, `label_conflicts` (groups of files), `bad` (file -> reason),
        `skipped`, `notes` and `suspicious` (sentences), and what `judge` adds.

    Raises:
        NoData, BadManifest: as for `data.scan`.
    """
    path = expanded(source)
    seen = data.look_at(path, columns, console)
    task = data.split(path, seen, test_share, val_share)
    about = of_task(task)
    facts: Mapping[str, Facts] = about.pop("facts")
    found: dict[str, Any] = {
        "source": str(path),
        "images": len(task.examples),
        "classes": {
            label: {side: task.counts(side)[label] for side in data.SPLITS} | {"all": count}
            for label, count in _sizes(task).items()
        },
        "files": dict(Counter(f"{f.format} {f.mode}" for f in facts.values()).most_common()),
        "pixels": {side: _spread([getattr(f, side) for f in facts.values()]) for side in ("width", "height")},
        "bytes": sum(os.path.getsize(file) for file in facts),
        **about,
        "bad": dict(seen.bad),
        "skipped": dict(seen.skipped),
        "notes": list(task.notes),
        "suspicious": [*about["suspicious"], *_flat_and_dark(task, facts, seen.looks)],
        **(judge(task) if judge else {}),
    }
    if page:
        from zoo_core import audit_page

        audit_page.write(found, page, {e.origin: e.path for e in task.examples if e.origin})
    return found


def of_task(task: Task) -> dict[str, Any]:
    """What can be said of images that were scanned and split, here and in every run.

    Returns:
        `facts` (path -> what the file is), `odd`, `duplicates`, `near_duplicates`, `label_conflicts`, `groups`,
        `suspicious`, as `audit` explains them.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        facts = {path: found for path, found in pool.map(_fact, task.examples) if found}
    copies, near = _groups(task)
    return {
        "facts": facts,
        "odd": _odd(facts, task),
        "duplicates": copies,
        "near_duplicates": near,
        "label_conflicts": [g for g in (*copies, *near) if len({file["label"] for file in g}) > 1],
        "groups": len({e.group for e in task.examples if e.group}),
        "suspicious": list(_suspicious(task, facts)),
    }


def _fact(example: Example) -> tuple[str, Facts | None]:
    """What a file is; nothing where it is not there any more."""
    try:
        return example.path, decoding.describe(example.path)
    except (ZooError, OSError):
        return example.path, None


def _sizes(task: Task) -> dict[str, int]:
    found = Counter(label for e in task.examples for label in task.names(e))
    return {label: found[label] for label in task.classes}


def _spread(values: Sequence[int]) -> list[float]:
    return [min(values), median(values), max(values)] if values else []


def _odd(facts: Mapping[str, Facts], task: Task) -> list[dict[str, Any]]:
    """Files by what is odd about them, in the order of the policy."""
    files: dict[str, list[str]] = defaultdict(list)
    for e in task.examples:
        for kind in facts[e.path].kinds if e.path in facts else ():
            files[kind].append(e.origin or e.path)
    return [
        {"kind": kind, "done": done, "count": len(files[kind]), "files": files[kind]}
        for kind, done in POLICY.items()
        if kind in files
    ]


def told(task: Task, example: Example) -> dict[str, str]:
    """An example as plain data."""
    place = example.origin or example.path
    return {"path": place, "label": task.text(example), "split": example.split, "digest": example.digest}


def _groups(task: Task) -> tuple[list[list[dict[str, str]]], list[list[dict[str, str]]]]:
    """Files that show the same pixels, and files that show nearly the same; each with its label and side."""
    files: dict[str, list[dict[str, str]]] = defaultdict(list)
    for e in task.examples:
        files[e.digest].append(told(task, e))
    alike: dict[str, list[str]] = defaultdict(list)
    for digest, name in sorted(task.alike.items()):
        if digest in files:
            alike[name].append(digest)
    copies = [group for group in files.values() if len(group) > 1]
    return copies, [[file for digest in group for file in files[digest]] for group in alike.values() if len(group) > 1]


def _suspicious(task: Task, facts: Mapping[str, Facts]) -> Iterator[str]:
    """Sentences about what often goes wrong later."""
    sizes = _sizes(task)
    for label, count in sizes.items():
        if len(sizes) > 1 and count > _MOST * len(task.examples):
            yield f"class {label!r} holds {count / len(task.examples):.0%} of all images: accuracy will say little"
        if count < _FEW:
            yield f"class {label!r} has {count} images: too few to learn from or to measure"
    if len(sizes) == 1:
        yield f"there is one class only ({next(iter(sizes))!r}): nothing to tell apart"
    tiny = sum(min(f.width, f.height) < _TINY for f in facts.values())
    if tiny:
        yield f"{tiny} images are smaller than {_TINY} pixels on one side"
    long = sum(max(f.width, f.height) > _LONG * min(f.width, f.height) for f in facts.values())
    if long:
        yield f"{long} images are over {_LONG} times as long as wide: a centre crop shows little of them"
    yield from _telltales(task, facts)


def _flat_and_dark(task: Task, facts: Mapping[str, Facts], looks: Mapping[str, str]) -> Iterator[str]:
    """What only the pixels tell."""
    flat = sum(not looks[e.digest] for e in task.examples)
    if flat:
        yield f"{flat} images are almost one colour"
    deep = [path for path, fact in facts.items() if "16-bit gray" in fact.kinds]
    dark = sum(max(decoding.decode(path).tobytes()) < _DARK for path in deep)
    if dark:
        yield f"{dark} images of 16 bit use the lowest 12 bits only and come out almost black: scale them first"


def _telltales(task: Task, facts: Mapping[str, Facts]) -> Iterator[str]:
    """Where the kind of file gives the class away, a model may learn that in the place of the picture."""
    told: dict[str, Callable[[Facts], str]] = {
        "file format": lambda f: f.format,
        "kind of pixels": lambda f: f.mode,
        "size in pixels": lambda f: f"{f.width}x{f.height}",
    }
    for what, tell in told.items() if task.kind in ONE_LABEL else ():
        found: dict[int, set[str]] = defaultdict(set)
        for e in task.examples:
            if e.path in facts:
                found[e.label].add(tell(facts[e.path]))
        for label, values in found.items():
            others = set().union(*(v for other, v in found.items() if other != label))
            if (
                len(found) > 1
                and len(values) == 1
                and not values & others
                and _sizes(task)[task.classes[label]] >= _FEW
            ):
                yield f"the {what} gives class {task.classes[label]!r} away: all of it, and no other, is {min(values)}"
