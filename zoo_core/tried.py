"""Several regimes on the same data: a run of each, and what it keeps of the old task beside what it learns of the new.

OUT/tried.json          the figures, as `--json` prints them
OUT/rehearsal/          a run for each regime; every run's page shows all of them
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from zoo_core import components, engine
from zoo_core.charts import Axis, Line, chart
from zoo_core.console import Console
from zoo_core.errors import BadOption, TooMuchForgotten
from zoo_core.files import read_json, write_json
from zoo_core.layers import Registry
from zoo_core.old_task import parent_data
from zoo_core.plugins import Plugins
from zoo_core.recipe import Recipe
from zoo_core.runs import Run

FILE = "tried.json"


def regimes_of(text: str, plugins: Plugins) -> list[str]:
    """`new-only,rehearsal:ratio=0.3,buffer=50` as two regimes: a part that names one begins it."""
    names = {*plugins.supplied("regime"), *(p.distribution for p in plugins.found)}
    found: list[str] = []
    for part in text.split(","):
        if found and part.partition(":")[0] not in names:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def try_each(
    recipe: Recipe, registry: Registry, plugins: Plugins, out: Path, console: Console, force: bool = False
) -> list[Run]:
    """A run of each regime that the recipe names; those that are there already are not made again.

    Raises:
        BadOption: a regime is named twice.
        TooMuchForgotten: every one of them lost more of the old task than the recipe allows; all runs are kept.
    """
    spellings = regimes_of(recipe.regime, plugins)
    twice = sorted({s for s in spellings if spellings.count(s) > 1})
    if twice:
        raise BadOption(f"--regime {recipe.regime}: {twice[0]} is named twice. Name each once.")
    for spelling in spellings:
        components.build(plugins, "regime", spelling)  # a typing mistake in the last one is found before any is trained
    parent = parent_data(registry.get(recipe.backbone)).get("path", "")
    if not recipe.old and parent and Path(parent).exists():
        recipe = recipe.with_values(old=parent)  # so that every regime is measured on it
    runs = []
    for spelling in spellings:
        own = recipe.with_values(regime=spelling, max_forgetting=None)
        folder = out / re.sub(r"[^A-Za-z0-9._=-]+", "-", spelling)
        console.say(f"\nRegime    {spelling}")
        runs.append(
            _made(folder, own, plugins) or engine.finetune(own, registry, plugins, folder, console=console, force=force)
        )
    write_json(out / FILE, told(runs, plugins))
    for run in runs:
        run.report()
    _check(runs, recipe.max_forgetting, out)
    return runs


def told(runs: Sequence[Run], plugins: Plugins) -> dict[str, Any]:
    """The comparison as plain data; figures of the old task are none where its data are not at hand."""
    rows = []
    for run in runs:
        summary = run.summary
        old, regime = summary.get("old", {}), components.build(plugins, "regime", summary["regime"])
        row: dict[str, Any] = {"regime": summary["regime"], "run": run.path.name}
        row["old"] = {k: old.get(k) for k in ("before", "after", "after_ci", "retention", "retention_ci", "forgetting")}
        row["new"] = {"accuracy": summary["test"]["accuracy"], "accuracy_ci": summary["test"]["accuracy_ci"]}
        row["seconds"] = {k: summary["seconds"][k] for k in ("prefix", "fit", "total")}
        if hasattr(regime, "ratio"):  # what else it has decides on whose curve it lies
            row |= {"ratio": regime.ratio, "family": components.spell(plugins, "regime", replace(regime, ratio=0.5))}
        elif summary["regime"] == "new-only":
            row["ratio"] = 0.0
        rows.append(row)
    return {"runs": rows}


def beside(run: Run) -> dict[str, Any] | None:
    """The comparison that a run is part of, with its pictures; none where it stands alone."""
    path = run.path.parent / FILE
    found = read_json(path) if path.is_file() else {"runs": []}
    if run.path.name not in {row["run"] for row in found["runs"]}:
        return None
    return {"runs": found["runs"], "charts": [*_old_against_new(found["runs"]), *_by_ratio(found["runs"])]}


def _made(folder: Path, recipe: Recipe, plugins: Plugins) -> Run | None:
    """The run, where it is there and is of this very recipe."""
    run = Run(folder, plugins) if (folder / "COMMIT").is_file() else None
    return run if run and run.recipe == recipe else None


def _check(runs: Sequence[Run], most: float | None, out: Path) -> None:
    lost = {r.summary["regime"]: r.summary["old"]["forgetting"] for r in runs if "old" in r.summary}
    known = {regime: value for regime, value in lost.items() if value is not None}
    if most is not None and known and min(known.values()) > most:
        least = min(known, key=known.__getitem__)
        raise TooMuchForgotten(
            f"{out}: every regime lost more of the old task than --max-forgetting {most:g} allows; {least} lost least, "
            f"{known[least]:.3f}. The runs are kept; try a larger ratio or buffer."
        )


def _old_against_new(rows: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """A dot for each regime."""
    shown = [row for row in rows if row["old"]["after"] is not None]
    if len(shown) < 2:
        return []
    lines = [
        Line(row["regime"], [(row["new"]["accuracy"], row["old"]["after"])], "points", [row["old"]["after_ci"]])
        for row in shown
    ]
    before = shown[0]["old"]["before"]
    width = [row["new"]["accuracy"] for row in shown]
    lines.append(Line(f"the old model, {before:.3f}", [(min(width), before), (max(width), before)], "dash"))
    said = "; ".join(
        f"{row['regime']}: old {row['old']['after']:.3f}, new {row['new']['accuracy']:.3f}" for row in shown
    )
    note = "accuracy on both test sides; bars are 95 % intervals. Above and to the right is better"
    axes = Axis("new task"), Axis("old task")
    return [chart("Old against new", lines, *axes, f"{said}.", note)]


def _by_ratio(rows: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Old and new by the share of old examples in a batch, where one family of regimes was tried with several."""
    shown = [row for row in rows if "ratio" in row and row["old"]["after"] is not None]
    families = [row["family"] for row in shown if "family" in row]
    most = max(families, key=families.count, default="")
    points = sorted((row for row in shown if row.get("family", most) == most), key=lambda row: row["ratio"])
    if families.count(most) < 2:
        return []
    old = Line("old task", [(row["ratio"], row["old"]["after"]) for row in points], "dots")
    new = Line("new task", [(row["ratio"], row["new"]["accuracy"]) for row in points], "dots")
    said = "; ".join(f"{x:g}: old {y:.3f}, new {z:.3f}" for (x, y), (_, z) in zip(old.points, new.points, strict=True))
    axes = Axis("share of old examples in a batch", 0.0, 1.0), Axis("accuracy")
    return [chart("How much to rehearse", [old, new], *axes, f"{said}.", "0 is new data alone")]
