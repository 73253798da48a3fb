"""A stream of tasks learnt one after another, each beside all before it, and what that did to every one of them.

OUT/1-photos/   OUT/2-birds/   ...   a run for each task, whose backbone and head come from the run before
OUT/stream.json                      the accuracy matrix and its figures
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from zoo_core import components, data, engine
from zoo_core.backbone import Backbone
from zoo_core.console import Console
from zoo_core.errors import BadOption
from zoo_core.files import write_json
from zoo_core.from_runs import card_of_run
from zoo_core.layers import Registry
from zoo_core.plugins import Plugins
from zoo_core.recipe import Recipe
from zoo_core.runs import Run
from zoo_core.weights import load_backbone

FILE = "stream.json"
Matrix: TypeAlias = Sequence[Sequence[float | None]]
"""Row i, column j: accuracy on the test side of task j after task i was learnt; none where it has no outputs."""

CONVENTION = (
    "R[i][j] is the accuracy on task j after task i of T. Average accuracy: mean of R[T][j]. Backward transfer: mean "
    "of R[T][j] - R[j][j] over j < T, a loss is negative. Forward transfer: mean of R[j-1][j] - chance over j > 1 "
    "(Lopez-Paz and Ranzato 2017). Forgetting: mean over j < T of the best R[i][j] with i < T less R[T][j], a loss is "
    "positive (Chaudhry et al. 2018)."
)


def learn(
    recipe: Recipe,
    registry: Registry,
    plugins: Plugins,
    out: Path,
    console: Console,
    *,
    backbone: Backbone | None = None,
    force: bool = False,
) -> list[Run]:
    """A run for `recipe.data` and for each of `recipe.then`; those that are there already are not made again.

    Raises:
        BadOption: the recipe gives old tasks up, or names one twice.
    """
    sources = (recipe.data, *recipe.then)
    whole = [str(Path(source).expanduser().resolve()) for source in sources]
    if len(set(whole)) < len(whole):
        raise BadOption(f"--then: {next(s for s in whole if whole.count(s) > 1)} stands in the stream twice.")
    if recipe.labels == "replace":
        raise BadOption("--labels replace gives each old task up, so a stream has nothing to measure. Leave it out.")
    runs: list[Run] = []
    body, regime = backbone, components.build(plugins, "regime", recipe.regime)
    keeps = regime.needs_old or getattr(regime, "distil", 0) > 0
    for number, source in enumerate(sources):
        own = recipe.with_values(data=source, then=())
        if not number and keeps and not recipe.old:
            own = own.with_values(regime="new-only")  # nothing is known yet
        if number:
            body = load_backbone(card_of_run(runs[-1], f"stream/{out.name}-{number}", plugins), plugins)
            own = own.with_values(backbone=body.card.name, old=whole[number - 1])
        folder = out / f"{number + 1}-{re.sub(r'[^A-Za-z0-9._-]+', '-', Path(source).stem)}"
        console.say(f"\nTask {number + 1}    {source}")
        made = Run(folder, plugins) if (folder / "COMMIT").is_file() else None
        if made is None or made.recipe != own:
            made = engine.finetune(own, registry, plugins, folder, backbone=body, console=console, force=force)
        runs.append(made)
    write_json(out / FILE, told(runs, recipe))
    return runs


def told(runs: Sequence[Run], recipe: Recipe) -> dict[str, Any]:
    """The stream as plain data: its tasks, the matrix, the figures, and what they mean."""
    matrix = [[_accuracy(runs, i, j, recipe) for j in range(len(runs))] for i in range(len(runs))]
    chance = [1 / len(run.classes) for run in runs[:-1]]
    tasks = [{"data": run.recipe.data, "run": run.path.name, "classes": len(run.classes)} for run in runs]
    return {"tasks": tasks, "matrix": matrix} | figures(matrix, chance) | {"convention": CONVENTION}


def figures(matrix: Matrix, chance: Sequence[float]) -> dict[str, float | None]:
    """Average accuracy, forgetting, backward and forward transfer of a whole matrix; none where it does not say.

    Args:
        chance: for each task but the last, accuracy at random of a head that has learnt so far: what random weights
            have in the mean.

    Lopez-Paz and Ranzato 2017 (arXiv:1706.08840), equations 2 to 4; Chaudhry et al. 2018 (arXiv:1801.10112), section 3.
    Avalanche calls `-backward_transfer` forgetting: it takes the accuracy when the task was learnt, not the best since.

    >>> figures([[0.9, 0.5], [0.6, 0.8]], [0.25])["backward_transfer"]
    -0.3
    """
    last, count = matrix[-1], len(matrix)
    before = range(count - 1)
    best = {j: max(v for i in before if (v := matrix[i][j]) is not None) for j in before if matrix[j][j] is not None}
    changes = [a - b for j in before if (a := last[j]) is not None and (b := matrix[j][j]) is not None]
    lost = [best[j] - a for j in best if (a := last[j]) is not None]
    ahead = [v - chance[j - 1] for j in range(1, count) if (v := matrix[j - 1][j]) is not None]
    return {
        "average_accuracy": _mean([v for v in last if v is not None], count),
        "forgetting": _mean(lost, count - 1),
        "backward_transfer": _mean(changes, count - 1),
        "forward_transfer": _mean(ahead, count - 1),
    }


def _mean(values: Sequence[float], wanted: int) -> float | None:
    """Of all values, or nothing: a mean over some of the tasks is not comparable."""
    return round(float(np.mean(values)), 12) if values and len(values) == wanted else None


def _accuracy(runs: Sequence[Run], i: int, j: int, recipe: Recipe) -> float | None:
    """Accuracy of run `i` on the test side of task `j`: from its ledger where it learnt that earlier."""
    run, source = runs[i], runs[j].recipe.data
    if i == j:
        return float(run.metrics["accuracy"])
    if j < i:
        tasks: Sequence[Mapping[str, Any]] = run.summary["old"]["tasks"]
        whole = str(Path(source).expanduser().resolve())
        found = next((task for task in tasks if task["source"]["path"] == whole), None)
        return found["after"] if found else None
    if not set(runs[j].classes) <= set(run.classes):
        return None  # its classes have no outputs yet
    task = data.scan(
        source,
        columns=recipe.columns,
        test_share=recipe.test_share,
        val_share=recipe.val_share,
        task="single-label",
        modality=run.modality,
    )
    scores = run.evaluate(replace(task, examples=task.split("test")))
    return float(scores["accuracy"])
