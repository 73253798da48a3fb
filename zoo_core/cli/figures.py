"""How a run's figures are printed."""

from __future__ import annotations

from typing import Any

import click

from zoo_core.cli.common import table
from zoo_core.runs import Run

_NAMES = {
    "majority": "majority class",
    "knn": "20 nearest neighbours",
    "linear_probe": "linear probe (logistic)",
    "multi_stage": "ridge on all stages",
}


def print_run(run: Run) -> None:
    """Test figures beside the baselines, time, and where the run lies."""
    summary = run.summary
    own = (f"this run ({summary['freeze']['requested']})", *_cells(summary["test"]))
    rows = [own, *((_NAMES[k], *_cells(v)) for k, v in summary["baselines"].items())]
    if not summary["pretrained"]:
        click.echo("\nThe backbone's weights were random, as asked; the baselines below use its random features.")
    click.echo(f"\nTest side, {summary['data']['n_test']} images, looked at once:")
    table(("", "accuracy (95 % interval)", "balanced", "ROC AUC"), rows)
    seconds, cache = summary["seconds"], summary["cache"]
    parts = ", ".join(f"{k} {v:.1f}" for k, v in seconds.items() if k != "total")
    click.echo(f"\nTime      {seconds['total']:.1f} s ({parts})")
    click.echo(f"Cache     {cache['hits']} images found, {cache['misses']} computed, {cache['bytes'] / 1e6:.0f} MB")
    click.echo(f"Frozen    digest before and after is the same: {summary['frozen_digest_after'][:16]}...")
    click.echo(f"Run       {run.path}")


def print_scores(scores: dict[str, Any]) -> None:
    """One set of figures."""
    table(("images", "accuracy (95 % interval)", "balanced", "ROC AUC"), [(scores["n"], *_cells(scores))])
    table(("class", "recall"), [(name, f"{value:.3f}") for name, value in scores["recall"].items()])


def _cells(scores: dict[str, Any]) -> tuple[str, str, str]:
    low, high = scores["accuracy_ci"]
    auroc = scores["auroc"]
    return (
        f"{scores['accuracy']:.3f} ({low:.3f} to {high:.3f})",
        f"{scores['balanced_accuracy']:.3f}",
        "-" if auroc is None else f"{auroc:.3f}",
    )
