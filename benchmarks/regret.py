"""What the science says: tables and a picture from `science.jsonl`, written into docs/science.md.

    python benchmarks/regret.py            write the page's tables and picture again
    python benchmarks/regret.py --print    print the tables instead

Regret: by how many points of test accuracy a rule falls short of the best way in hindsight, among all ways that
were run in the same (data set, size, seed). Only groups with the whole default grid are counted.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import science
from measure import table

from zoo_core.auto import ALL_STAGES, FULL, PARTIAL, PROBE, choose
from zoo_core.types import Evidence, Trial

DOCS = Path(__file__).parent.parent / "docs"
Way = tuple[str, str, float | None]
Group = dict[Way, dict[str, Any]]
"""Way to its cell, in one (data set, size, seed)."""

PROBE_USUAL: Way = ("head-only", "linear", None)
SOLVED: Way = ("head-only", "linear:solver=lbfgs", None)
RIDGE: Way = ("head-only", "multi-stage", None)
LOGISTIC: Way = ("head-only", "multi-stage:solver=logistic", None)
THIRD: Way = ("last:3", "linear", 1e-3)
GENTLE: Way = ("full", "linear", 3e-4)
HASTY: Way = ("full", "linear", 1e-3)
LLRD: Way = ("full:layer_decay=0.8", "linear", 1e-3)
AUTOGLUON: Way = ("full:layer_decay=0.9", "linear", 1e-4)
LP_FT: Way = ("lp-ft", "linear", 3e-4)
BLEND: Way = (science.BLEND, "linear", 3e-4)
FOLDS: Way = (science.FOLDS, "linear", None)
SCRATCH: Way = science.SCRATCH
SHIFTED = "elpv-mono-poly"
"""The data set whose test side is of another domain than its training side."""

NAMES: dict[Way, str] = {
    SCRATCH: "scratch, 1e-3",
    PROBE_USUAL: "linear probe (AdamW)",
    SOLVED: "linear probe (logistic)",
    RIDGE: "all stages, ridge",
    LOGISTIC: "all stages, logistic",
    ("last:1", "linear", 1e-3): "last 1, 1e-3",
    ("last:2", "linear", 1e-3): "last 2, 1e-3",
    THIRD: "last 3, 1e-3",
    ("last:5", "linear", 3e-4): "last 5, 3e-4",
    GENTLE: "full, 3e-4",
    HASTY: "full, 1e-3",
    LLRD: "full, LLRD 0.8, 1e-3",
    AUTOGLUON: "full, LLRD 0.9, 1e-4",
    LP_FT: "LP-FT, 3e-4",
    BLEND: "mean of full and all stages",
}


def load(path: Path) -> dict[tuple[str, int, int], Group]:
    """Cells by (data set, size, seed)."""
    groups: dict[tuple[str, int, int], Group] = defaultdict(dict)
    for line in path.read_text(encoding="utf-8").splitlines():
        cell = json.loads(line)
        groups[cell["data"], cell["n"], cell["seed"]][cell["freeze"], cell["head"], cell["lr"]] = cell
    order = list(science.datasets.SETS)
    return dict(sorted(groups.items(), key=lambda item: (order.index(item[0][0]), *item[0][1:])))


def whole(groups: Mapping[Any, Group]) -> dict[Any, Group]:
    """Groups in which every way of the default grid was run; training from scratch is not asked for."""
    ways = {*science.CHEAP, *science.CORE, *science.MORE}
    return {key: group for key, group in groups.items() if ways <= group.keys()}


def common(groups: Mapping[Any, Group]) -> dict[Any, Group]:
    """Groups in which the ways that come first in the grid were run: more of them than whole ones."""
    return {key: group for key, group in groups.items() if {*science.CHEAP, *science.CORE} <= group.keys()}


def evidence_of(cell: Mapping[str, Any]) -> Evidence:
    """What `auto` saw, from a cell of trials."""
    trials = tuple(
        Trial(t["name"], t["depth"], t["head"], t["lr"], 0, tuple(c == "1" for c in t["correct"]), t["cpu_seconds"])
        for t in cell["trials"]
    )
    return Evidence(trials, tuple(cell["probes"]), cell["majority"], cell["folds"], 0.0)


def way_of(trial: Trial) -> Way:
    """The cell in which a trial's choice was trained on everything."""
    known = {ALL_STAGES: RIDGE, PROBE: SOLVED, FULL: GENTLE}
    if trial.name in known:
        return known[trial.name]
    return (f"last:{trial.name.split()[1]}", trial.head, trial.lr)


def usual_rule(group: Group) -> Way:
    """Less data, fewer layers: the head up to 100 examples, a third up to 400, then everything."""
    n = next(iter(group.values()))["n"]
    return PROBE_USUAL if n <= 100 else THIRD if n <= 400 else GENTLE


def size_rule(group: Group) -> Way:
    """All stages and nothing trained up to 160 examples, then everything, gently."""
    return RIDGE if next(iter(group.values()))["n"] <= 160 else GENTLE


def auto_accuracy(group: Group) -> Way:
    """What `auto` takes; everything, gently, is averaged with all stages. (A part, too, but nobody ran that mean.)"""
    way = way_of(choose(evidence_of(group[FOLDS]), "accuracy"))
    return BLEND if way == GENTLE else way


def auto_speed(group: Group) -> Way:
    """What `auto` takes among the trials that train no stage."""
    return way_of(choose(_cheap(evidence_of(group[FOLDS])), "speed"))


def _cheap(evidence: Evidence) -> Evidence:
    return replace(evidence, trials=tuple(t for t in evidence.trials if t.lr is None))


def best_fold_score(group: Group) -> Way:
    """The trial with the best held-out score."""
    return way_of(max(evidence_of(group[FOLDS]).trials, key=lambda t: t.score))


RULES: dict[str, Callable[[Group], Way]] = {
    "auto, prefer accuracy": auto_accuracy,
    "auto, prefer speed": auto_speed,
    "best score on folds": best_fold_score,
    "always full, 3e-4": lambda group: GENTLE,
    "always full, 1e-3": lambda group: HASTY,
    "always full, LLRD 0.8, 1e-3": lambda group: LLRD,
    "always full, LLRD 0.9, 1e-4 (AutoGluon's default)": lambda group: AUTOGLUON,
    "always LP-FT, 3e-4": lambda group: LP_FT,
    "always last 3, 1e-3": lambda group: THIRD,
    "always the usual probe": lambda group: PROBE_USUAL,
    "always all stages, ridge": lambda group: RIDGE,
    "always all stages, logistic": lambda group: LOGISTIC,
    "always the mean of full and all stages": lambda group: BLEND,
    "all stages up to 160 examples, then full": size_rule,
    "head up to 100, a third up to 400, then full": usual_rule,
}


def regrets(groups: Mapping[Any, Group]) -> dict[str, np.ndarray]:
    """Rule -> points behind the best way in hindsight, a group each. Blends are no part of the hindsight."""
    found: dict[str, list[float]] = {name: [] for name in RULES}
    for group in groups.values():
        best = max(cell["accuracy"] for way, cell in group.items() if "accuracy" in cell and way != BLEND)
        for name, rule in RULES.items():
            if (way := rule(group)) in group:
                found[name].append(100 * (best - group[way]["accuracy"]))
    return {name: np.array(values) for name, values in found.items() if len(values) == len(groups)}


def cost(group: Group, name: str) -> float:
    """CPU seconds of a rule's trainings as a multiple of one full fine-tuning."""
    spent = _seconds(group, RULES[name](group))
    if name.startswith(("auto", "best score")):
        trials = [t for t in group[FOLDS]["trials"] if t["lr"] is None or "speed" not in name]
        spent += group[FOLDS]["probe_cpu_seconds"] + sum(t["cpu_seconds"] for t in trials)
    return spent / _seconds(group, GENTLE)


def _seconds(group: Group, way: Way) -> float:
    if way == BLEND:
        return _seconds(group, GENTLE) + _seconds(group, RIDGE)
    return float(group[way]["cpu_seconds"])


def regret_table(some: Mapping[Any, Group]) -> str:
    """Rules whose ways were run in all groups, the best first."""
    if not some:
        return "No group has the whole grid yet."
    found = regrets(some)
    rows = []
    for name, values in sorted(found.items(), key=lambda item: item[1].mean()):
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        times = np.mean([cost(group, name) for group in some.values()])
        rows.append((name, f"{values.mean():.2f} ± {error:.2f}", f"{values.max():.1f}", f"{times:.2f}"))
    heads = (f"rule ({len(some)} groups)", "mean regret, points", "worst", "cost, in full fine-tunings")
    return table(heads, rows)


def accuracy_table(groups: Mapping[Any, Group]) -> str:
    """Mean test accuracy of each way over the seeds, a line for each data set and size; the best in bold."""
    sizes: dict[tuple[str, int], list[Group]] = defaultdict(list)
    for (name, n, _), group in groups.items():
        sizes[name, n].append(group)
    rows = []
    for (name, n), members in sizes.items():
        means = {way: _mean(members, way) for way in NAMES}
        top = max(m for way, m in means.items() if m is not None and way != BLEND)
        cells = ["-" if m is None else f"**{m:.3f}**" if m == top else f"{m:.3f}" for m in means.values()]
        rows.append((f"{name}, {n}", len(members), *cells))
    return table(("data, n", "seeds", *NAMES.values()), rows)


def _mean(members: Sequence[Group], way: Way) -> float | None:
    found = [group[way]["accuracy"] for group in members if way in group]
    return float(np.mean(found)) if found else None


def difference(groups: Mapping[Any, Group], way: Way, other: Way) -> list[tuple[Any, int, float, float, float]]:
    """(data set, size), seeds, points that `way` is ahead of `other`, and its 95 % interval over test examples."""
    pairs: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)
    for (name, n, _), group in groups.items():
        if way in group and other in group:
            right = [np.array(list(group[w]["right"]), dtype=float) for w in (way, other)]
            pairs[name, n].append(right[0] - right[1])
    rng, found = np.random.default_rng(0), []
    for key, gaps in pairs.items():
        stacked = 100 * np.stack(gaps)  # seeds share the test side, so that examples are drawn, not cells
        draws = rng.integers(0, stacked.shape[1], (2000, stacked.shape[1]))
        low, high = np.quantile(stacked.mean(0)[draws].mean(1), [0.025, 0.975])
        found.append((key, len(gaps), float(stacked.mean()), float(low), float(high)))
    return found


def difference_table(groups: Mapping[Any, Group], way: Way, other: Way) -> str:
    """Points ahead, with intervals, a line for each data set and a column for each size."""
    cells: dict[str, dict[int, str]] = defaultdict(dict)
    for (name, n), seeds, mean, low, high in difference(groups, way, other):
        cells[name][n] = f"{mean:+.1f} ({low:+.1f} to {high:+.1f}), {seeds}"
    rows = [(name, *(by_size.get(n, "-") for n in science.SIZES)) for name, by_size in cells.items()]
    return table(("data", *(f"n = {n}" for n in science.SIZES)), rows)


def seconds_table(groups: Mapping[Any, Group]) -> str:
    """Mean CPU seconds of the training alone, by way and size."""
    rows = []
    for way, name in NAMES.items():
        cells = []
        for n in science.SIZES:
            spent = [g[way]["cpu_seconds"] for (_, m, _), g in groups.items() if m == n and way in g]
            cells.append(f"{np.mean(spent):.1f}" if spent and way != BLEND else "-")
        rows.append((name, *cells))
    return table(("way", *(f"n = {n}" for n in science.SIZES)), rows)


def folds_table(groups: Mapping[Any, Group]) -> str:
    """Points by which the mean of two fold models is ahead of one model trained on everything."""
    cells: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (_, n, _), group in groups.items():
        for trial in group.get(FOLDS, {}).get("trials", ()):
            way = way_of(Trial(trial["name"], trial["depth"], trial["head"], trial["lr"], 0, (), 0.0))
            if way in group:
                kind = trial["name"] if trial["name"] in (ALL_STAGES, PROBE, FULL) else PARTIAL
                cells[kind][n].append(100 * (trial["averaged"]["accuracy"] - group[way]["accuracy"]))
    rows = [(kind, *(_spread(by_size.get(n, [])) for n in science.SIZES)) for kind, by_size in cells.items()]
    return table(("trial", *(f"n = {n}" for n in science.SIZES)), rows)


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):+.1f} ({min(values):+.1f} to {max(values):+.1f}), {len(values)}" if values else "-"


def blocks(groups: Mapping[Any, Group]) -> dict[str, str]:
    """Name -> what stands between the page's markers."""
    cells = sum(len(group) for group in groups.values())
    spent = sum(
        cell.get("cpu_seconds", 0) + sum(t["cpu_seconds"] for t in cell.get("trials", ()))
        for group in groups.values()
        for way, cell in group.items()
        if way != BLEND
    )
    extent = f"{cells} cells in {len(groups)} groups (data set, size, seed), {spent:,.0f} CPU seconds of training."
    return {
        "extent": extent,
        "accuracy": accuracy_table(groups),
        "scratch": difference_table(groups, GENTLE, SCRATCH),
        "stages": difference_table(groups, RIDGE, PROBE_USUAL),
        "deep": difference_table(groups, GENTLE, RIDGE),
        "rate": difference_table(groups, GENTLE, HASTY),
        "blend": difference_table(groups, BLEND, GENTLE),
        "regret": regret_table(whole(groups)),
        "regret-alike": regret_table({key: g for key, g in common(groups).items() if key[0] != SHIFTED}),
        "folds": folds_table(groups),
        "seconds": seconds_table(groups),
    }


def page(text: str, found: Mapping[str, str]) -> str:
    """The page with its blocks replaced."""
    for name, block in found.items():
        pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end -->)"
        text = re.sub(pattern, lambda m, block=block: m[1] + block + m[2], text, flags=re.DOTALL)  # type: ignore[misc]
    return text


def lines(groups: Mapping[Any, Group]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Data set -> way -> (size, mean accuracy), for the picture."""
    shown = (SCRATCH, PROBE_USUAL, RIDGE, THIRD, GENTLE)
    found: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(dict)
    for name in dict.fromkeys(key[0] for key in groups):
        for way in shown:
            points = []
            for n in science.SIZES:
                mean = _mean([g for (d, m, _), g in groups.items() if (d, m) == (name, n)], way)
                points += [] if mean is None else [(n, mean)]
            found[name][NAMES[way]] = points
    return found


def main(arguments: Sequence[str]) -> None:
    """Write or print."""
    groups = load(science.RESULTS)
    found = blocks(groups)
    if "--print" in arguments:
        print("\n\n".join(f"{name}\n{block}" for name, block in found.items()))
        return
    target = DOCS / "science.md"
    target.write_text(page(target.read_text(encoding="utf-8"), found), encoding="utf-8")
    (DOCS / "science.svg").write_text(pictures.lines("Test accuracy by number of training images", lines(groups)))


if __name__ == "__main__":
    main(sys.argv[1:])
