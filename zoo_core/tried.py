"""Several regimes on the same data: a run of each, side by side.

OUT/tried.json          the figures, as `--json` prints them
OUT/rehearsal/          a run for each regime; every run's page shows all of them
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from zoo_core import components, engine
from zoo_core.console import Console
from zoo_core.errors import BadOption, TooMuchForgotten
from zoo_core.files import write_json
from zoo_core.layers import Registry
from zoo_core.lineage import tasks_of
from zoo_core.plugins import Plugins
from zoo_core.recipe import Recipe
from zoo_core.runs import Run
from zoo_core.trade_off import FILE, told


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
    learnt = tasks_of(registry.get(recipe.backbone))
    if not recipe.old and learnt and learnt[-1].here:
        recipe = recipe.with_values(old=learnt[-1].path)  # so that every regime is measured on it
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
