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
    for line in path.read_text(encoding="utf-8").splitlines():
        cell = json.loads(line)
        if cell["key"] in wanted:
            found[cell["data"], cell["freeze"]][cell["way"]][cell["seed"]] = cell
    return {key: found[key] for key in TITLES if key in found}


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
    before = [cell["before"] for ways in group.values() for cell in ways.values() if cell.get("before") is not None]
    rows = []
    for way in forgetting.WAYS:
        cells = list(group.get(way, {}).values())
        if not cells or way.startswith("ratio"):
            continue
        kept = [c["retention"] for c in cells if c.get("retention") is not None]
        kept = kept or [c["old"] / np.mean(before) for c in cells]
        rows.append(
            [
                way,
                *(_cell([f(c) for c in cells]) for f in (_old, _new, both)),
                f"{np.mean(kept):.2f}",
                f"{np.mean([c['seconds']['fit'] for c in cells]):.1f}",
                f"{np.mean([c['seconds']['total'] for c in cells]):.1f}",
            ]
        )
    heading = f"old (before: {np.mean(before):.3f})" if before else "old"
    return table(("way", heading, "new", "mean", "retention", "training, s", "whole run, s"), rows)


def goals_table(groups: Mapping[tuple[str, str], Group]) -> str:
    """What was hoped for, and what came."""
    rows = []
    for key, group in groups.items():
        for what, found, goal, better in _goals(group):
            if found is not None:
                measured = _told(found) if better > 0 else _times(found)
                rows.append([TITLES[key], what, measured, goal[1], _verdict(found, goal[0], better)])
    return table(("data", "what", "measured", "goal", "is it met"), rows)


def _goals(group: Group) -> list[tuple[str, Spread | None, tuple[float, str], int]]:
    corrected = LWF if LWF in group else PLAIN
    return [
        (
            "rehearsal 50/50 against joint, mean of old and new",
            difference(group, HALF, JOINT, both),
            (-1, "-1 or more"),
            1,
        ),
        ("buffer of 20 a class against joint", difference(group, BUFFER, JOINT, both), (-5, "-5 or more"), 1),
        ("the same with soft targets", difference(group, SOFT, JOINT, both), (-5, "-5 or more"), 1),
        (
            "LwF corrected against plain, old",
            None if corrected == PLAIN else difference(group, LWF, PLAIN, _old),
            (30, "+30 or more"),
            1,
        ),
        (
            "time of the whole run, rehearsal 50/50 over new only",
            ratio(group, HALF, NEW, "total"),
            (1.3, "1.3 or less"),
            -1,
        ),
        ("time of training alone", ratio(group, HALF, NEW, "fit"), (1.3, "1.3 or less"), -1),
    ]


def ratio(group: Group, a: str, b: str, seconds: str) -> Spread | None:
    """How many times as long `a` takes, over the seeds whose activations were all cached."""
    seeds = sorted(group.get(a, {}).keys() & group.get(b, {}).keys())
    return spread([group[a][s]["seconds"][seconds] / group[b][s]["seconds"][seconds] for s in seeds]) if seeds else None


def _verdict(found: Spread, goal: float, better: int) -> str:
    if better * (found.mean - goal) < 0:
        missed = better * ((found.high if better > 0 else found.low) - goal) < 0
        return "**missed**" if missed else "**missed**, within what seeds differ by"
    sure = better * ((found.low if better > 0 else found.high) - goal) >= 0
    return (
        "met"
        if sure and found.n > 1
        else "met in the mean, not by the whole interval"
        if found.n > 1
        else "met, one seed"
    )


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
            cells = [c for s, c in group.get(way, {}).items() if s < 3]
            if cells and any(w.startswith("ratio") for w in group):
                rows.append([TITLES[key], f"{share:.0%}", *(_cell([f(c) for c in cells]) for f in (_old, _new, both))])
    return table(("data", "old examples in a batch", "old", "new", "mean"), rows)


def _ratios() -> list[tuple[float, str]]:
    shares = {0.0: NEW, 0.1: "rehearsal 10 %", 0.5: HALF} | {float(w.split()[1]): w for w in forgetting.RATIOS}
    return sorted(shares.items())


def blocks(groups: Mapping[tuple[str, str], Group]) -> dict[str, str]:
    """Name -> what stands between the page's markers."""
    cells = [c for group in groups.values() for seeds in group.values() for c in seeds.values()]
    minutes = sum(c["seconds"]["total"] for c in cells) / 60
    extent = f"{len(cells)} runs, {minutes:.0f} minutes of them."
    tables = "\n\n".join(
        f"**{TITLES[key]}** ({_seeds(group)})\n\n{ledger_table(group)}" for key, group in groups.items()
    )
    return {
        "extent": extent,
        "goals": goals_table(groups),
        "ledgers": tables,
        "corrections": corrections_table(groups),
        "ratio": ratio_table(groups),
    }


def dots(groups: Mapping[tuple[str, str], Group]) -> dict[str, dict[str, tuple[float, float]]]:
    """Title -> way -> (new, old), means over seeds, for the picture."""
    shown = (NEW, PLAIN, LWF, "rehearsal 10 %", BUFFER, SOFT, HALF, JOINT)
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
    found = blocks(groups)
    if "--print" in arguments:
        print("\n\n".join(f"{name}\n{block}" for name, block in found.items()))
        return
    target = DOCS / "forgetting.md"
    target.write_text(page(target.read_text(encoding="utf-8"), found), encoding="utf-8")
    picture = pictures.scatter("Old against new test accuracy", "new", "old", dots(groups))
    (DOCS / "forgetting.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
