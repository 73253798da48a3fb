"""`zoo demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zoo_core.cli.common import as_json, emit, installed, registry


@click.command("demo")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True, help="The run's folder."
)
@click.option("--freeze", default="head-only", show_default=True, help="Freeze strategy.")
@as_json
def demo_command(out: Path, freeze: str, as_json: bool) -> None:
    """Tell defective solar cells from sound ones: real images, real ImageNet weights, one command.

    Images: elpv-dataset (CC-BY-NC-SA-4.0, not for commercial use). Weights: EfficientNet-Lite0.

    \b
    Examples:
      zoo demo
      zoo demo --freeze last:2 --out runs/demo-last-2
    """
    from zoo_core import engine
    from zoo_core.cli.figures import print_run
    from zoo_core.console import Terminal
    from zoo_core.demo import BACKBONE, LICENCE, write_manifest
    from zoo_core.places import cache_folder
    from zoo_core.recipe import Recipe

    console, plugins = Terminal(), installed()
    console.say(f"Images    {LICENCE}")
    manifest = write_manifest(cache_folder() / "demo" / "elpv.csv")
    recipe = Recipe(data=str(manifest), backbone=BACKBONE, freeze=freeze)
    run = engine.finetune(recipe, registry(plugins), plugins, out, console=console, force=True)
    samples = _examples(run.file("predictions.csv"))
    if as_json:
        emit(run.summary | {"examples": samples})
        return
    print_run(run)
    click.echo("\nThree images of the test side:")
    for sample in samples:
        click.echo(
            f"  {Path(sample['path']).name}  is {sample['label']}, predicted {sample['predicted']} ({sample['p']:.2f})"
        )
    first = Path(samples[0]["path"])
    here = first.relative_to(Path.cwd()) if first.is_relative_to(Path.cwd()) else first
    click.echo(f"\nNext      zoo predict {out} {here}")
    click.echo("          zoo finetune YOUR_FOLDER --backbone " + BACKBONE)


def _examples(predictions: Path) -> list[dict[str, Any]]:
    """Three test images, evenly spaced in the file: chosen by place, not by how well they went."""
    import csv

    with open(predictions, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        {"path": r["path"], "label": r["label"], "predicted": r["predicted"], "p": float(r[f"p:{r['predicted']}"])}
        for r in (rows[0], rows[len(rows) // 2], rows[-1])
    ]
