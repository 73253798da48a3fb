"""A run's page: one file without scripts and network that says what was done, why, how good it is, and what is next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core import answered as answers
from zoo_core import (
    audit_page,
    curves,
    doubts,
    gallery,
    learning_curve,
    page_template,
    resolution,
    run_files,
    trade_off,
)
from zoo_core.card import is_permissive
from zoo_core.errors import ZooError, printable
from zoo_core.files import parse_json, read_json, write_text
from zoo_core.recipe import Recipe
from zoo_core.types import ONE_LABEL

if TYPE_CHECKING:
    from zoo_core.card import Card
    from zoo_core.predicting import Predictor
    from zoo_core.runs import Run

NAMES = {
    "majority": "majority class",
    "knn": "20 nearest neighbours",
    "linear_probe": "linear probe",
    "multi_stage": "ridge on all stages",
    "alone": "the trained model alone",
    "before": "before fine-tuning",
    "frequencies": "token frequencies",
}
"""Baselines as people call them."""
SMALL_GAIN = 0.01  # accuracy that twice the data must bring to be worth a word


def write(
    run: Run, out: Path, summary: Mapping[str, Any] | None = None, places: Mapping[str, str] | None = None
) -> None:
    """Make the page and publish it.

    Args:
        out: the HTML file.
        summary: of a run that is not finished yet, as far as it is known.
        places: name of an example as `predictions.csv` has it -> the file, where the two differ.
    """
    write_text(out, page(run, summary or run.summary, places or {}))


def page(run: Run, summary: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """The page as HTML. What is no longer there (moved images, missing weights) is left out, and said."""
    text: str = page_template.of("report.html").render(facts(run, summary, places))
    return "\n".join(map(printable, text.split("\n")))  # whatever a name holds: it neither turns nor hides a line


def facts(run: Run, summary: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """Everything the template shows."""
    predictor, missing = _predictor(run)
    plan, found = run.plan, answers.read(run)
    seen = run_files.read(run.file("audit.json"))
    stages = _stages(run, plan, predictor)
    names = [stage["name"] for stage in stages]
    figure, by_class = curves.by_class(run, found)
    wrong = gallery.mistakes(run, found, places, predictor)
    shown = Path(str(run.path).removesuffix(".unfinished"))
    return {
        "s": summary,
        "card": run.card,
        "classes": run.classes,
        "plural": run.modality.plural,
        "kind": run.target.kind,
        "figures": run.target.figures,
        "headline": _headline(run),
        "rows": _rows(run),
        "next": _next(run, figure, by_class, shown),
        "stages": stages,
        "phases": plan["phases"],
        "evidence": plan["evidence"],
        "depth_charts": curves.depth(plan["evidence"], names, summary["data"]["n_train"]),
        "charts": [
            *curves.more_data(summary["learning_curve"]),
            *curves.training(_history(run)),
            *curves.mixtures(summary.get("wise_ft")),
            *curves.ranking(run, found),
            *curves.calibration(run, found),
            *curves.numbers(run, found),
        ],
        "tried": trade_off.beside(run),
        "confusion": curves.confusion(run, found),
        "by_class": by_class,
        "by_class_figure": figure,
        "n_wrong": sum(t != p for t, p in zip(found.truth, found.predicted, strict=True)),
        "wrong": wrong,
        "right": gallery.right(run, found, places, predictor),
        "missing": missing,
        "looked": audit_page.sections(seen, places),
        "leaks": doubts.leak_sentence(summary["data"].get("leaks"), *_first(run)),
        "odd": seen.get("odd", []),
        "telling": seen.get("suspicious", []),
        "unseen": len(wrong) - gallery.pictured(wrong) if run.modality.name == "image" else 0,
        "seconds": _seconds(summary["seconds"]),
        "facets": _facets(run.card),
        "command": command(run.recipe),
        "again": f"zoo finetune --recipe {shlex.quote(str(shown / 'recipe.toml'))}",
        "recipe": run.recipe.to_toml().splitlines(),
        "schedule": summary["schedule"],
        "commit": read_json(run.path / "COMMIT")["files"] if (run.path / "COMMIT").is_file() else {},
    }


def command(recipe: Recipe) -> str:
    """The command line that asks for a recipe: what differs from the defaults."""
    defaults = {f.name: f.default for f in fields(recipe)}
    options = {k: v for k, v in asdict(recipe).items() if v != defaults[k] and k not in ("data", "backbone")}
    words = ["zoo", "finetune", shlex.quote(recipe.data), "-b", recipe.backbone]
    for name, value in options.items():
        option = name.replace("_", "-")
        if name in ("weight_decay", "test_share", "val_share"):
            words += ["--set", f"{name}={value}"]
        else:
            flag = [f"--{option}" if value else f"--no-{option}"]
            words += flag if isinstance(value, bool) else [f"--{option}", shlex.quote(str(value))]
    return " ".join(words)


def baseline_name(run: Run, baseline: str) -> str:
    """What people call a baseline; for several labels and numbers there is no majority class."""
    if baseline == "majority" and run.target.kind in ("multi-label", "regression"):
        return "mean of the training side"
    return NAMES[baseline]


def _predictor(run: Run) -> tuple[Predictor | None, str]:
    """The trained model, and why it is not there."""
    try:
        return run._predictor, ""
    except ZooError as error:
        return None, str(error)


def _stages(run: Run, plan: dict[str, Any], predictor: Predictor | None) -> list[dict[str, Any]]:
    """The chain, input side first: name, parameters where known, whether it trained."""
    frozen = set(plan["frozen"])
    if predictor is not None:
        info = [(stage.name, stage.parameters) for stage in predictor.model.backbone.info()]
    else:
        info = [(name, 0) for name in run.card.stages]
    most = max((count for _, count in info), default=0)
    return [
        {"name": name, "parameters": count, "frozen": i in frozen, "share": count / most if most else 0.0}
        for i, (name, count) in enumerate(info)
    ]


def _first(run: Run) -> tuple[str, str]:
    """Name and key of the first figure."""
    key, name = next(iter(run.target.figures.items()))
    return name, key


def _headline(run: Run) -> dict[str, Any]:
    """The first figure with its interval."""
    name, key = _first(run)
    value, interval = run.metrics[key], _interval(run.metrics, key)
    return {"name": name, "value": value, "interval": interval, "percent": run.target.kind in ONE_LABEL}


def _rows(run: Run) -> list[dict[str, Any]]:
    """This run and the baselines: each figure's value and interval, with its place between the least and the most."""
    sets = {"this run": run.metrics} | {baseline_name(run, k): v for k, v in run.summary["baselines"].items()}
    figures = {name: [(v[key], _interval(v, key)) for key in run.target.figures] for name, v in sets.items()}
    ends = [
        [v for cell in column for v in (cell[0], *(cell[1] or ()))] for column in zip(*figures.values(), strict=True)
    ]
    return [
        {"name": name, "cells": [_cell(*cell, ends[i]) for i, cell in enumerate(cells)]}
        for name, cells in figures.items()
    ]


def _cell(value: float | None, interval: Sequence[float] | None, ends: Sequence[float | None]) -> dict[str, Any]:
    known = [v for v in ends if v is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)

    def place(v: float) -> float:
        return round(100 * (v - low) / (high - low), 1) if high > low else 50.0

    found: dict[str, Any] = {"value": value, "interval": interval}
    if value is not None:
        found |= {"at": place(value), "from": place(interval[0] if interval else value)}
        found |= {"to": place(interval[1] if interval else value)}
    return found


def _interval(scores: Mapping[str, Any], key: str) -> Any:
    return scores["accuracy_ci"] if key == "accuracy" else scores["intervals"].get(key)


def _next(run: Run, figure: str, by_class: Sequence[Mapping[str, Any]], shown: Path) -> list[dict[str, str]]:
    """What would make it better, the most telling first, and how to use it as it is."""
    summary, folder = run.summary, shlex.quote(str(shown))
    found = []
    if warning := resolution.sentence(
        summary["resolution"],
        baseline_name(run, summary["resolution"]["rival"]),
        summary["resolution"]["unit"],
        run.modality.plural,
    ):
        found.append({"what": "Label more test examples before you trust the difference.", "why": warning})
    curve = summary["learning_curve"]
    if curve and curve["twice"]:
        gain = curve["twice"]["gain"]
        what = (
            "More training data would help." if gain >= SMALL_GAIN else "More data of the same kind would help little."
        )
        found.append({"what": what, "why": learning_curve.sentence(curve)})
    if len(by_class) > 1 and by_class[-1]["value"] - by_class[0]["value"] > 0.1:
        worst, best = by_class[0], by_class[-1]
        why = f"{figure} {worst['value']:.2f} on {worst['n']} test {run.modality.plural}; of {best['name']} it is"
        found.append({"what": f"Look at {worst['name']} first.", "why": f"{why} {best['value']:.2f}"})
    plain = run.recipe.balance == "none" and not run.recipe.class_weights  # what trials can compare
    if run.target.kind in ONE_LABEL and plain and not summary["freeze"]["requested"].startswith("auto"):
        why = "trials on folds of the training side say how deep to retrain, and what they cannot tell apart"
        found.append(
            {
                "what": "Let the data choose the depth.",
                "why": why,
                "type": command(run.recipe.with_values(freeze="auto")),
            }
        )
    if run.target.kind == "next-token":
        found.append({"what": "Talk with it.", "why": "what it says is shown below", "type": f"zoo chat {folder}"})
    found.append(
        {"what": "Use it.", "why": "the same preprocessing, the same labels", "type": f"zoo predict {folder} FILES"}
    )
    return found


def _history(run: Run) -> list[dict[str, Any]]:
    lines = run.file("metrics.jsonl").read_text(encoding="utf-8").split("\n")
    return [parse_json(line, f"{run.path}/metrics.jsonl") for line in lines if line]


def _seconds(seconds: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Phase, seconds, share of all; the longest first."""
    total = sum(v for k, v in seconds.items() if k != "total") or 1.0
    rows = [(k, v, v / total) for k, v in seconds.items() if k != "total"]
    return sorted(rows, key=lambda row: -row[1])


def _facets(card: Card) -> list[dict[str, Any]]:
    """How open the backbone's code, weights and training data are."""
    found = {"code": card.openness.code, "weights": card.openness.weights, "training data": card.openness.data}
    return [asdict(facet) | {"what": what, "permissive": is_permissive(facet.licence)} for what, facet in found.items()]
