"""What was forgotten: tables and pictures from `forgetting.jsonl`, written into docs/forgetting.md.

    python benchmarks/ledgers.py            write the page's tables and pictures again
    python benchmarks/ledgers.py --print    print the tables instead

Intervals are 95 % t-intervals over seeds: differences are taken within a seed. They say how much a figure depends on
which images were drawn and in which order, not on the data set.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forgetting
import numpy as np
import pictures
from measure import table
from regret import page

DOCS = Path(__file__).parent.parent / "docs"
Group = dict[str, dict[int, dict[str, Any]]]
"""Way -> seed -> its cell, in one (data set, freeze strategy)."""

TITLES = {
    ("fashion", "head-only"): "Fashion-MNIST 5 + 5 classes, head only",
    ("fashion", "last:1"): "Fashion-MNIST 5 + 5 classes, last stage",
    ("fashion", "full"): "Fashion-MNIST 5 + 5 classes, every stage",
    ("elpv", "head-only"): "Solar cells, mono then poly, head only",
    ("elpv", "last:1"): "Solar cells, mono then poly, last stage",
    ("imagenet", "head-only"): "ImageNet's classes + solar cells, head only",
}
JOINT, NEW, HALF, BUFFER, SOFT, PLAIN, LWF = (
    forgetting.JOINT,
    "new only",
    "rehearsal 50/50",
    "buffer of 20 a class",
    "buffer, soft targets",
    "LwF, plain",
    "LwF, corrected",
)


def load(path: Path) -> dict[tuple[str, str], Group]:
    """Results by data set and freeze strategy; cells that are not in the grid any more are left out."""
    wanted = {cell.key for cell in forgetting.grid()}
    found: dict[tuple[str, str], Group] = defaultdict(lambda: defaultdict(dict))
    for cell in _lines(path):
        if cell.get("key") in wanted:
            found[cell["data"], cell["freeze"]][cell["way"]][cell["seed"]] = cell
    return {key: found[key] for key in TITLES if key in found}


def load_times(path: Path) -> dict[tuple[str, str], dict[str, list[dict[str, Any]]]]:
    """Whole runs that were timed: data set and freeze strategy -> way -> runs in their order."""
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in _lines(path):
        if "timed" in line:
            found[line["data"], line["freeze"]][line["timed"]].append(line)
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, and half the width of its 95 % interval; none of one seed."""

    mean: float
    half: float | None
    n: int

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0.0)


def spread(values: Sequence[float]) -> Spread:
    """Of one value for each seed."""
    from scipy.stats import t

    mean, n = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else None
    return Spread(mean, half, n)


def both(cell: Mapping[str, Any]) -> float:
    """Mean of old and new accuracy."""
    return (float(cell["old"]) + float(cell["new"])) / 2


def difference(
    group: Group, a: str, b: str, of: Callable[[Mapping[str, Any]], float], unit: float = 100.0
) -> Spread | None:
    """How far `a` is above `b`, over the seeds that both have; in points."""
    seeds = sorted(group.get(a, {}).keys() & group.get(b, {}).keys())
    return spread([unit * (of(group[a][s]) - of(group[b][s])) for s in seeds]) if seeds else None


def ledger_table(group: Group) -> str:
    """Each way: old, new, their mean, retention, seconds."""
    ways = [way for way in forgetting.WAYS if way in group and way not in forgetting.RATIOS]
    cells_of = {way: list(group[way].values()) for way in ways}
    before = [cell["before"] for cells in cells_of.values() for cell in cells if cell.get("before") is not None]
    rows = []
    for way, cells in cells_of.items():
        kept = [c["old"] / c.get("before", np.mean(before)) for c in cells]
        figures = (_cell([f(c) for c in cells]) for f in (_old, _new, both))
        rows.append([way, *figures, f"{np.mean(kept):.2f}", f"{np.mean([c['cpu_seconds'] for c in cells]):.1f}"])
    heading = f"old (before: {np.mean(before):.3f})"
    return table(("way", heading, "new", "mean", "retention", "training, CPU s"), rows)


def goals_table(groups: Mapping[tuple[str, str], Group], times: Mapping[tuple[str, str], Any]) -> str:
    """What was hoped for, and what came."""
    rows = []
    for key, group in groups.items():
        for what, found, goal, said in _goals(group):
            if found is not None:
                rows.append([TITLES[key], what, _told(found), said, verdict(found, goal, 1)])
        rows += _cost(TITLES[key], group, times.get(key, {}))
    return table(("data", "what", "measured", "goal", "is it met"), rows)


def _cost(title: str, group: Group, runs: Mapping[str, Any]) -> list[list[str]]:
    """CPU seconds of rehearsal 50/50 over those of new data alone: of the training, and of whole runs."""
    seeds = sorted(group.get(HALF, {}).keys() & group.get(NEW, {}).keys())
    pairs = {"training alone": [(group[HALF][s], group[NEW][s]) for s in seeds]}
    pairs["whole run"] = list(zip(runs.get(HALF, ()), runs.get(NEW, ()), strict=True))
    rows = []
    for name, both_ways in pairs.items():
        if both_ways:
            found = spread([a["cpu_seconds"] / b["cpu_seconds"] for a, b in both_ways])
            what = f"CPU seconds of rehearsal 50/50 over new only, {name}"
            rows.append([title, what, _times(found), "1.3 times or less", verdict(found, 1.3, -1)])
    return rows


def _goals(group: Group) -> list[tuple[str, Spread | None, float, str]]:
    """What, by how many points, the goal, and the goal in words."""
    lwf = difference(group, LWF, PLAIN, _old)
    return [
        ("rehearsal 50/50 less joint, mean of old and new", difference(group, HALF, JOINT, both), -1, "-1 or more"),
        ("buffer of 20 a class less joint", difference(group, BUFFER, JOINT, both), -5, "-5 or more"),
        ("the same with soft targets", difference(group, SOFT, JOINT, both), -5, "-5 or more"),
        ("LwF corrected less plain, old", lwf, 30, "+30 or more"),
    ]


def verdict(found: Spread, goal: float, better: int) -> str:
    """Of a goal to be reached from below (`better` 1) or from above (-1)."""
    near, far = (found.high, found.low) if better > 0 else (found.low, found.high)
    if better * (found.mean - goal) < 0:
        return "**missed**" if better * (near - goal) < 0 else "**missed** in the mean; the interval holds it"
    if found.n == 1:
        return "met, one seed"
    return "met" if better * (far - goal) >= 0 else "met in the mean; the interval does not exclude a miss"


def corrections_table(groups: Mapping[tuple[str, str], Group]) -> str:
    """What the correction is worth, by regime."""
    pairs = [
        ("rehearsal 10 %", "rehearsal 10 %", "rehearsal 10 %, as it is"),
        ("buffer of 20 a class", BUFFER, "buffer, as it is"),
        ("LwF, bias correction", LWF, "LwF, own contest"),
        ("LwF, weight aligning", "LwF, aligned", "LwF, own contest"),
    ]
    rows = []
    for key, group in groups.items():
        for name, a, b in pairs:
            found = [difference(group, a, b, f) for f in (_old, _new, both)]
            if all(found):
                rows.append([TITLES[key], name, *(_told(f) for f in found if f)])
    return table(("data", "way", "old, points", "new", "mean"), rows)


def ratio_table(groups: Mapping[tuple[str, str], Group]) -> str:
    """Old and new by the share of old examples in a batch."""
    rows = []
    for share, way in _ratios():
        for key, group in groups.items():
            seeds = set().union(*(group.get(w, {}) for w in forgetting.RATIOS))
            cells = [c for s, c in group.get(way, {}).items() if s in seeds]
            if cells:
                rows.append([TITLES[key], f"{share:.0%}", *(_cell([f(c) for c in cells]) for f in (_old, _new, both))])
    return table(("data", "old examples in a batch", "old", "new", "mean"), rows)


def _ratios() -> list[tuple[float, str]]:
    shares = {0.0: NEW, 0.1: "rehearsal 10 %", 0.5: HALF} | {float(w.split()[1]): w for w in forgetting.RATIOS}
    return sorted(shares.items())


def blocks(groups: Mapping[tuple[str, str], Group], times: Mapping[tuple[str, str], Any]) -> dict[str, str]:
    """Name -> what stands between the page's markers."""
    cells = [c for group in groups.values() for seeds in group.values() for c in seeds.values()]
    spent = sum(c["cpu_seconds"] for c in cells)
    whole = len(list(forgetting.grid()))
    extent = f"{len(cells)} of the grid's {whole} trainings, {spent:,.0f} CPU seconds of them."
    tables = "\n\n".join(
        f"**{TITLES[key]}** ({_seeds(group)})\n\n{ledger_table(group)}" for key, group in groups.items()
    )
    return {
        "extent": extent,
        "goals": goals_table(groups, times),
        "ledgers": tables,
        "corrections": corrections_table(groups),
        "ratio": ratio_table(groups),
    }


def dots(groups: Mapping[tuple[str, str], Group]) -> dict[str, dict[str, tuple[float, float]]]:
    """Title -> way -> (new, old), means over seeds, for the picture."""
    shown = (NEW, forgetting.WISE[0], PLAIN, LWF, "rehearsal 10 %", BUFFER, SOFT, HALF, JOINT)
    return {
        TITLES[key]: {
            way: (
                float(np.mean([_new(c) for c in group[way].values()])),
                float(np.mean([_old(c) for c in group[way].values()])),
            )
            for way in shown
            if way in group
        }
        for key, group in groups.items()
    }


def _seeds(group: Group) -> str:
    count = max(len(seeds) for seeds in group.values())
    return f"{count} seeds" if count > 1 else "1 seed"


def _old(cell: Mapping[str, Any]) -> float:
    return float(cell["old"])


def _new(cell: Mapping[str, Any]) -> float:
    return float(cell["new"])


def _cell(values: Sequence[float]) -> str:
    found = spread(values)
    return f"{found.mean:.3f}" + (f" ± {found.half:.3f}" if found.half is not None else "")


def _told(found: Spread) -> str:
    within = f" ({found.low:+.1f} to {found.high:+.1f})" if found.half is not None else ""
    return f"{found.mean:+.1f}{within}"


def _times(found: Spread) -> str:
    return f"{found.mean:.2f} times" + (f" ({found.low:.2f} to {found.high:.2f})" if found.half is not None else "")


def main(arguments: Sequence[str]) -> None:
    """Write or print."""
    groups = load(forgetting.RESULTS)
    found = blocks(groups, load_times(forgetting.RESULTS))
    if "--print" in arguments:
        print("\n\n".join(f"{name}\n{block}" for name, block in found.items()))
        return
    target = DOCS / "forgetting.md"
    target.write_text(page(target.read_text(encoding="utf-8"), found), encoding="utf-8")
    picture = pictures.scatter("Old against new test accuracy", "new", "old", dots(groups))
    (DOCS / "forgetting.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
