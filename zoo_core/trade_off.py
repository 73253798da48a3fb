"""Old against new: what each of several regimes keeps of the old task beside what it learns of the new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from zoo_core import components
from zoo_core.charts import Axis, Line, chart
from zoo_core.files import read_json

if TYPE_CHECKING:
    from zoo_core.plugins import Plugins
    from zoo_core.runs import Run

FILE = "tried.json"
"""Beside the runs: what `told` says of them."""


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
