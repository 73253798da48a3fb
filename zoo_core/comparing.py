"""Which backbone? Cheap scores of each on frozen features, a shortlist, and the best few really fine-tuned."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo_core import engine, solvers, transferability
from zoo_core.console import Console
from zoo_core.errors import BadOption, WeightsMissing
from zoo_core.evidence import probe_stages
from zoo_core.layers import Registry
from zoo_core.plugins import Plugins
from zoo_core.recipe import Recipe
from zoo_core.runs import Run
from zoo_core.trainer import Kept, kept_at
from zoo_core.types import ONE_LABEL, Example, Task

SCORES = ("all_stages", "probe", "logme", "h_score", "neighbours")
"""Ridge on all stages, linear probe on the last one, both cross-validated; and `transferability`'s."""
FOLDS = 5
AT_MOST = 5000
"""Training examples that scores are computed on."""


@dataclass
class Candidate:
    """One backbone: what it scores on the training side, and, where it was fine-tuned, what came of it.

    Attributes:
        scores: larger is better; the order within one score is what counts.
        rank: mean of its ranks, 1 for the best of all.
        seconds: of the frozen pass and the scores.
        run: of a finalist.
        left_out: why it was not looked at.
    """

    backbone: str
    parameters: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    rank: float = 0.0
    seconds: float = 0.0
    run: Run | None = None
    left_out: str = ""

    @property
    def held_out(self) -> float | None:
        """Accuracy of the finalist on the validation side; none without one."""
        if self.run is None:
            return None
        lines = [json.loads(line) for line in self.run.file("metrics.jsonl").read_text().splitlines()]
        found = [line for line in lines if "val_accuracy" in line]
        return float(min(found, key=lambda line: line["val_loss"])["val_accuracy"]) if found else None


def compare(
    recipe: Recipe,
    names: Sequence[str],
    registry: Registry,
    plugins: Plugins,
    out: Path,
    finalists: int,
    console: Console,
    force: bool = False,
) -> list[Candidate]:
    """Candidates, the best first: finalists by validation accuracy, then the others by rank.

    Args:
        recipe: as for fine-tuning; its backbone is replaced by each of `names`.
        out: where the finalists' runs go.
        finalists: how many of the best are fine-tuned.

    Raises:
        WeightsMissing: of every one of them.
        BadOption: fewer than two names, or data whose labels are no classes.
    """
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        raise BadOption(f"compare needs two backbones or more, got {len(names)}. Give -b NAME for each; see zoo list.")
    found = [_scored(recipe.with_values(backbone=name), registry, plugins, console) for name in names]
    usable = [c for c in found if not c.left_out]
    if not usable:
        raise WeightsMissing(f"none of the backbones can be loaded; of {found[0].backbone}: {found[0].left_out}")
    _rank(usable)
    for candidate in sorted(usable, key=lambda c: c.rank)[:finalists]:
        own = recipe.with_values(backbone=candidate.backbone)
        folder = out / re.sub(r"[^A-Za-z0-9._-]+", "-", candidate.backbone)
        console.say(f"\nFinalist  {candidate.backbone}, --freeze {recipe.freeze}")
        candidate.run = engine.finetune(own, registry, plugins, folder, console=console, force=force)
    return sorted(found, key=_order)


def foretold(candidates: Sequence[Candidate]) -> dict[str, dict[str, int]]:
    """Score -> how many pairs of finalists it put in the order that fine-tuning did, of how many that differ."""
    tuned = [c for c in candidates if c.held_out is not None]
    pairs = [(a, b) for a, b in combinations(tuned, 2) if a.held_out != b.held_out]
    return {
        score: {"right": sum(_agree(a, b, score) for a, b in pairs), "pairs": len(pairs)}
        for score in SCORES
        if tuned and all(score in c.scores for c in tuned)
    }


def told(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """The comparison as plain data."""
    rows = []
    for c in candidates:
        row: dict[str, Any] = {"backbone": c.backbone, "parameters": c.parameters, "scores": dict(c.scores)}
        row |= {"rank": round(c.rank, 2), "seconds": round(c.seconds, 2), "left_out": c.left_out}
        if c.run:
            summary = c.run.summary
            row |= {"run": str(c.run.path), "validation_accuracy": c.held_out, "test": summary["test"]}
            row["fit_seconds"] = summary["seconds"]["fit"]
        rows.append(row)
    return {"backbones": rows, "foretold": foretold(candidates)}


def scores_of(task: Task, kept: Kept) -> dict[str, float]:
    """The cheap scores on the training side, from the frozen pass alone."""
    train = task.split("train")
    some = solvers.fold_of(_labels(train), max(1, -(-len(train) // AT_MOST)), 0) == 0
    chosen = [e for e, taken in zip(train, some, strict=True) if taken]
    labels = torch.from_numpy(_labels(chosen))
    names = [e.digest for e in chosen]
    widths = kept.plain.pooled.widths
    stages, features = kept.all_stages(names), kept.features(names)
    fold = solvers.fold_of(labels.numpy(), min(FOLDS, len(chosen)), 0)
    x, y = features.numpy(), labels.numpy()
    return {
        "all_stages": _ridge_held_out(stages, labels, fold, len(task.classes), widths),
        "probe": probe_stages(features, [features.shape[1]], labels, fold, len(task.classes))[0],
        "logme": transferability.logme(x, y),
        "h_score": transferability.h_score(x, y),
        "neighbours": transferability.neighbours(x, y),
    }


def _scored(recipe: Recipe, registry: Registry, plugins: Plugins, console: Console) -> Candidate:
    """One backbone's scores; a backbone without weights here is left out, and says why."""
    start = time.perf_counter()
    console.say(f"Scoring   {recipe.backbone}")
    try:
        preview = engine.prepare(recipe.with_values(freeze="head-only"), registry, plugins, console)
    except WeightsMissing as error:
        return Candidate(recipe.backbone, left_out=str(error))
    task, body = preview.task, preview.backbone
    if task.kind not in ONE_LABEL:
        raise BadOption(f"compare scores classes; this task is {task.kind}. Fine-tune each: zoo finetune DATA -b NAME")
    sides = dataclasses.replace(task, examples=task.split("train"))
    kept = kept_at(recipe, sides, body, len(body.stages), 1, console, views=False)
    size = sum(stage.parameters for stage in body.info())
    return Candidate(recipe.backbone, size, scores_of(task, kept), seconds=time.perf_counter() - start)


def _ridge_held_out(x: Tensor, labels: Tensor, fold: np.ndarray, n_classes: int, widths: Sequence[int]) -> float:
    """Share of the examples right, each held out in its fold."""
    right = 0
    for k in sorted(set(fold.tolist())):
        inside, outside = torch.from_numpy(fold != k), torch.from_numpy(fold == k)
        solved = solvers.ridge(x[inside], labels[inside], n_classes, widths)
        right += int(((x[outside] @ solved.weight.T + solved.bias).argmax(1) == labels[outside]).sum())
    return right / len(labels)


def _rank(candidates: Sequence[Candidate]) -> None:
    """Mean rank over the scores; those that tie share theirs."""
    for candidate in candidates:
        ranks = []
        for score in SCORES:
            own = candidate.scores[score]
            above = sum(c.scores[score] > own for c in candidates)
            level = sum(c.scores[score] == own for c in candidates)
            ranks.append(above + (level + 1) / 2)
        candidate.rank = sum(ranks) / len(ranks)


def _order(candidate: Candidate) -> tuple[bool, bool, float, float]:
    held = candidate.held_out
    return bool(candidate.left_out), candidate.run is None, -(held or 0.0), candidate.rank


def _agree(a: Candidate, b: Candidate, score: str) -> bool:
    assert a.held_out is not None
    assert b.held_out is not None
    return (a.scores[score] - b.scores[score]) * (a.held_out - b.held_out) > 0


def _labels(examples: Sequence[Example]) -> np.ndarray:
    return np.array([e.label for e in examples])
