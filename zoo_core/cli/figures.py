"""How a run's figures are printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.cli.common import say, table
from zoo_core.report import baseline_name
from zoo_core.runs import REPORT, Run

if TYPE_CHECKING:
    from zoo_core.differing import Difference

_FLIPPED = 20
_DETAILS = {"recall": "recall", "average_precision": "average precision"}


def print_run(run: Run) -> None:
    """Test figures beside the baselines, what they can and cannot say, time, and where the run lies."""
    summary, figures = run.summary, run.target.figures
    own = (f"this run ({summary['freeze']['requested']})", *_cells(summary["test"], figures))
    rows = [own, *((baseline_name(run, k), *_cells(v, figures)) for k, v in summary["baselines"].items())]
    if not summary["pretrained"]:
        say("\nThe backbone's weights were random, as asked; the baselines below use its random features.")
    say(f"\nTest side, {summary['data']['n_test']} {run.modality.plural}, looked at once:")
    table(("", *_headings(figures)), rows)
    if "old" in summary:
        from zoo_core.ledger import lines

        say(f"\nOld task ({summary['old']['labels']}), {summary['old']['model']}:")
        say("\n".join(f"  {line}" for line in lines(summary["old"])))
    if "wise_ft" in summary:
        from zoo_core.wise_ft import lines as mixtures

        say(f"\nMixture {summary['wise_ft']['chosen']:g}: {summary['wise_ft']['why']}")
        say("\n".join(mixtures(summary["wise_ft"])))
    say()
    for name, line in _lines(run).items():
        if line:
            say(f"{name:<10}{line}")


def print_scores(scores: Mapping[str, Any], run: Run) -> None:
    """One set of figures."""
    figures = run.target.figures
    table((run.modality.plural, *_headings(figures)), [(scores["n"], *_cells(scores, figures))])
    for key, heading in _DETAILS.items():
        if key in scores:
            table(("class", heading), [(name, f"{value:.3f}") for name, value in scores[key].items()])


def headline(run: Run) -> str:
    """The first figure of a run, with its name."""
    key, name = next(iter(run.target.figures.items()))
    return f"{name} {_number(run.metrics[key])}"


def _lines(run: Run) -> dict[str, str]:
    """What is said below the table, by its first word; empty lines are left out."""
    from zoo_core import doubts, ensembles, learning_curve, resolution

    summary = run.summary
    key, name = next(iter(run.target.figures.items()))
    seconds, cache, rival = summary["seconds"], summary["cache"], summary["resolution"]
    parts = ", ".join(f"{k} {v:.1f}" for k, v in seconds.items() if k != "total")
    return {
        "Warning": resolution.sentence(rival, baseline_name(run, rival["rival"]), rival["unit"], run.modality.plural),
        "Leaks": doubts.leak_sentence(summary["data"].get("leaks"), name, key),
        "Learning": learning_curve.sentence(summary["learning_curve"]),
        "Repeats": _repeats(summary.get("repeats")),
        "Calibrate": _calibration(summary["calibration"]),
        "Threshold": _threshold(run),
        "Head": summary["head_note"],
        "Ensemble": ensembles.sentence(run.plan),
        "Time": f"{seconds['total']:.1f} s ({parts})",
        "Cache": f"{cache['hits']} {run.modality.plural} found, {cache['misses']} computed, "
        f"{cache['bytes'] / 1e6:.0f} MB",
        "Frozen": f"digest before and after is the same: {summary['frozen_digest_after'][:16]}...",
        "Run": str(run.path),
        "Report": str(run.path / REPORT) if (run.path / REPORT).is_file() else "",
    }


def _repeats(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    figures = ", ".join(
        f"{name.replace('_', ' ')} {f['mean']:.3f} +- {f['std']:.3f}"
        for name, f in found.items()
        if isinstance(f, dict) and "mean" in f
    )
    return f"{found['folds']} folds x {found['seeds']} seeds of the training side, mean and spread: {figures}"


def _calibration(found: Mapping[str, Any]) -> str:
    if found["temperature"] == 1.0 or "ece" not in found:
        return ""
    before, after = found["ece"]["before"], found["ece"]["after"]
    text = f"temperature {found['temperature']:.2f}, {found['why']}"
    return f"{text}; calibration error on the test side {before:.3f} before, {after:.3f} after"


def _threshold(run: Run) -> str:
    found = run.summary.get("operating_point")
    if not found:
        return ""
    return (
        f"{run.classes[1]} from {found['threshold']:.2f} on, chosen on the validation side: "
        f"sensitivity {_number(found['sensitivity'], found['intervals'].get('sensitivity'))}, "
        f"specificity {_number(found['specificity'], found['intervals'].get('specificity'))}; "
        "predict with --operating-point"
    )


def _headings(figures: Mapping[str, str]) -> list[str]:
    first, *others = figures.values()
    return [f"{first} (95 % interval)", *others]


def _cells(scores: Mapping[str, Any], figures: Mapping[str, str]) -> list[str]:
    intervals = scores["intervals"] | {"accuracy": scores.get("accuracy_ci")}
    return [_number(scores[key], intervals.get(key)) for key in figures]


def _number(value: float | None, interval: list[float] | None = None) -> str:
    if value is None:
        return "-"
    within = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{value:.3f}{within}"


def print_difference(a: Run, b: Run, found: Difference) -> None:
    """What was asked differently, both runs' figures and cost, and the answers that flipped."""
    names = (a.path.name, b.path.name)
    if found.asked:
        table(("asked", *names), [(name, *map(_asked, values)) for name, values in found.asked.items()])
    else:
        say("Both were asked the same.")
    rows = [(name, *map(_number, values)) for name, values in found.figures.items()]
    rows += [("seconds", *(f"{v:.1f}" for v in found.cost["seconds"]))]
    rows += [("backbone parameters trained", *(f"{v:,}" for v in found.cost["parameters_trained"]))]
    say()
    table(("test side", *names), rows)
    told, data, plural = found.told, found.data, b.modality.plural
    verdict = "more than chance" if told["told_apart"] else "which may be chance"
    say(
        f"\nOn the {data['shared']} test {plural} that both answered, {names[1]} is {told['difference']:+.3g} "
        f"{told['unit']} from {names[0]}, {verdict} (p = {told['p_value']:.2g})."
    )
    alone = data["only_first"] + data["only_second"]
    if alone:
        say(f"{alone} {plural} are on the test side of one run only; they count in the table, not in that.")
    if b.target.kind == "regression":
        say(f"The {len(found.flipped)} answers that moved most:")
    else:
        counts = Counter(f.kind for f in found.flipped)
        say(
            f"{len(found.flipped)} answers flipped: {counts['mended']} mended, {counts['broken']} broken, "
            f"{counts['other']} wrong in both."
        )
    shown = found.flipped[:_FLIPPED]
    if shown:
        table(("", "truth", *names), [(Path(f.path).name, f.truth, f.before, f.after) for f in shown])
    if len(found.flipped) > len(shown):
        say(f"and {len(found.flipped) - len(shown)} more: zoo runs diff --json")


def _asked(value: Any) -> str:
    return "-" if value is None else str(value)


def print_tried(found: Mapping[str, Any], out: Path) -> None:
    """Regimes side by side: what each kept of the old task, what it learnt of the new one, and its price."""
    rows = []
    for row in found["runs"]:
        old, new, seconds = row["old"], row["new"], row["seconds"]
        kept = (_number(old["after"], old["after_ci"]), _number(old["retention"]), _number(old["forgetting"]))
        rows.append((row["regime"], *kept, _number(new["accuracy"], new["accuracy_ci"]), f"{seconds['total']:.1f} s"))
    say("\nBoth test sides, looked at once by each run:")
    table(("regime", "old task (95 % interval)", "retention", "forgetting", "new task", "time"), rows)
    before = next((row["old"]["before"] for row in found["runs"] if row["old"]["before"] is not None), None)
    say(f"\nThe old model had {before:.3f} on the old task." if before is not None else "\nNo old data at hand.")
    say(f"Runs      {out}/; each report.html shows all of them")


def print_stream(found: Mapping[str, Any], out: Path) -> None:
    """The accuracy matrix of tasks learnt one after another, and its figures."""
    names = [task["run"] for task in found["tasks"]]
    say("\nTest accuracy after each task (rows) on each task (columns):")
    table(("after", *names), [(name, *map(_number, row)) for name, row in zip(names, found["matrix"], strict=True)])
    say()
    for key in ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer"):
        say(f"{key.replace('_', ' ').capitalize():<18}{_number(found[key])}")
    say(f"\n{found['convention']}\nRuns      {out}/")
