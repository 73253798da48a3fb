"""`zoo eval`, `zoo predict`, `zoo runs`."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from zoo_core.cli.common import as_json, emit, table


@click.command("eval")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("data")
@as_json
def eval_command(run_folder: Path, data: str, as_json: bool) -> None:
    """Score RUN on DATA, every image of it; classes are matched by name.

    \b
    Example:
      zoo eval runs/photos-last-1a2b3c4d new_photos/
    """
    from zoo_core.cli.figures import print_scores
    from zoo_core.console import Terminal
    from zoo_core.data import scan
    from zoo_core.runs import Run

    run = Run(run_folder)
    scores = run.evaluate(scan(data, console=Terminal(), for_training=False))
    emit(scores) if as_json else print_scores(scores)


@click.command("predict")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True)
@click.option("--csv", "as_csv", is_flag=True, help="CSV with the probability of every class.")
@as_json
def predict_command(run_folder: Path, files: tuple[str, ...], as_csv: bool, as_json: bool) -> None:
    """Predict image FILES (or all images in folders); results come as they are computed.

    --json prints one JSON object per line. An image that cannot be read is listed with its reason,
    and the exit code is then 1.

    \b
    Examples:
      zoo predict runs/photos-last-1a2b3c4d a.jpg b.png
      zoo predict runs/photos-last-1a2b3c4d folder/ --csv > answers.csv
    """
    from zoo_core.runs import Run

    run = Run(run_folder)
    writer = csv.writer(sys.stdout)
    if as_csv:
        writer.writerow(["path", "predicted", *(f"p:{c}" for c in run.classes)])
    failed = 0
    for prediction in run.predict(list(files)):
        failed += bool(prediction.error)
        if as_json:
            click.echo(json.dumps(asdict(prediction), ensure_ascii=False))
        elif prediction.error:
            click.echo(f"zoo: {prediction.path}: {prediction.error}", err=True)
        elif as_csv:
            writer.writerow(
                [prediction.path, prediction.label, *(f"{p:.6f}" for p in prediction.probabilities.values())]
            )
        else:
            click.echo(f"{prediction.path}  {prediction.label}  {prediction.probability:.3f}")
    if failed:
        sys.exit(1)


@click.group("runs")
def runs_command() -> None:
    """List and show runs.

    \b
    Examples:
      zoo runs ls
      zoo runs show runs/photos-last-1a2b3c4d
    """


@runs_command.command("ls")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
@as_json
def runs_ls(folder: Path, as_json: bool) -> None:
    """List the finished runs in FOLDER (default: runs)."""
    from zoo_core.runs import find_runs

    summaries = [run.summary for run in find_runs(folder)]
    if as_json:
        emit(summaries)
        return
    rows = [
        (
            s["run"],
            s["backbone"],
            s["freeze"]["requested"],
            s["head"],
            f"{s['test']['accuracy']:.3f}",
            f"{s['seconds']['total']:.0f} s",
        )
        for s in summaries
    ]
    table(("run", "backbone", "freeze", "head", "test accuracy", "time"), rows)
    if not rows:
        click.echo(f"No finished run in {folder}. Make one with 'zoo finetune'.", err=True)


@runs_command.command("show")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@as_json
def runs_show(run_folder: Path, as_json: bool) -> None:
    """Show the figures, the plan and the recipe of RUN."""
    from zoo_core.cli.figures import print_run
    from zoo_core.runs import Run

    run = Run(run_folder)
    if as_json:
        emit(run.summary)
        return
    click.echo(run.recipe.to_toml())
    click.echo(f"Freeze    {run.summary['freeze']['reason']}")
    print_run(run)
