"""`zoo plan`, and what it shares with `zoo finetune --dry-run`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo_core.cli.common import as_json, each, emit, installed, registry, registry_option, say, table
from zoo_core.cli.train import REQUEST_OPTIONS, recipe_of
from zoo_core.console import Console, Terminal
from zoo_core.recipe import Recipe

if TYPE_CHECKING:
    from zoo_core.engine import Preview


class Stdout(Console):
    """Lines that are the result."""

    def say(self, line: str) -> None:
        say(line)


@click.command("plan")
@each(REQUEST_OPTIONS)
@registry_option
@as_json
def plan_command(registry_file: Path | None, as_json: bool, **options: Any) -> None:
    """Show what finetune would do with DATA, stage by stage, and how long it would take; the model is not trained.

    Each stage is frozen or trains in each phase, so many of its numbers, at a peak learning rate. The seconds are
    an estimate from a few timed examples. With --freeze auto the trials are made, and what they say is shown.

    \b
    Examples:
      zoo plan photos/ -b cnn/tf_efficientnet_lite0.in1k --freeze full:layer_decay=0.8
      zoo plan photos/ -b cnn/tf_efficientnet_lite0.in1k --freeze lp-ft:stages=3 --json
      zoo plan photos/ -b cnn/tf_efficientnet_lite0.in1k --freeze auto --auto-budget 5m
    """
    recipe, plugins = recipe_of(**options), installed()
    cards = registry(plugins, registry_file)

    from zoo_core import engine

    preview = engine.prepare(recipe, cards, plugins, Terminal())
    report = report_of(recipe, preview)
    if as_json:
        emit(report)
        return
    engine.say_plan(preview, Stdout())
    say_costs(report, Stdout())
    say()
    _print_stages(report)


def report_of(recipe: Recipe, preview: Preview) -> dict[str, Any]:
    """Everything about a plan as plain data; the seconds are measured now."""
    from zoo_core.adapting import adapted
    from zoo_core.costs import expect
    from zoo_core.evidence import told
    from zoo_core.stage_table import phase_names, plan_table

    task, body, plan, schedule = preview.task, preview.backbone, preview.plan, preview.schedule
    old, regime = preview.old, preview.regime
    ratio = getattr(regime, "ratio", 0.0) if regime.needs_old else 0.0
    everything = old.beside(task) if old else task
    costs = expect(recipe, task, body, plan, schedule, preview.builder, preview.strategy, everything, ratio)
    with adapted(preview.strategy, body, plan):
        rows = plan_table(body.info(), plan, schedule, costs)
    return {
        "recipe": asdict(recipe),
        "plan": asdict(plan),
        "schedule": asdict(schedule),
        "phases": phase_names(plan, schedule),
        "stages": rows,
        "seconds": {
            "frozen_pass": round(costs.frozen_pass, 2),
            "phases": [round(seconds, 2) for seconds in costs.phases],
            "total": round(costs.total, 2),
            "examples_timed": costs.sampled,
            "examples_missing": costs.missing,
        },
        "cache": costs.kept,
        "evidence": told(task.evidence),
    }


def say_costs(report: dict[str, Any], console: Console) -> None:
    """Seconds expected, and what they rest on."""
    seconds = report["seconds"]
    phases = " + ".join(f"{s:.1f}" for s in seconds["phases"])
    console.say(f"Cache     {report['cache']}")
    console.say(
        f"Expected  {seconds['total']:.1f} s: frozen pass {seconds['frozen_pass']:.1f} s "
        f"({seconds['examples_missing']} examples not in the cache), training {phases} s; "
        f"an estimate from {seconds['examples_timed']} examples"
    )


def _print_stages(report: dict[str, Any]) -> None:
    rows = [
        (
            row["stage"],
            f"{row['parameters']:,}",
            *(_cell(phase, row["parameters"]) for phase in row["phases"]),
            f"{row['boundary_bytes']:,}" if row["boundary_bytes"] else "",
            f"{row['seconds']:.1f}" if row["stage"] != "head" else "",
        )
        for row in report["stages"]
    ]
    table(("stage", "parameters", *report["phases"], "bytes per example", "seconds"), rows)


def _cell(phase: dict[str, Any], parameters: int) -> str:
    """What a stage does in a phase: `frozen`, its peak rate, and how many numbers train where not all do."""
    if not phase["trains"]:
        return "frozen"
    some = f" ({phase['parameters']:,} of them)" if phase["parameters"] != parameters else ""
    return f"lr {phase['lr']:.2g}{some}"
