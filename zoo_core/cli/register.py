"""`zoo register`, `zoo unregister`. Only `register --run` imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zoo_core.cli.common import as_json, emit, installed, registry, registry_option

_project = click.option("--project/--user", help="Write into the project's registry.d, not the user's.")


@click.command("register")
@click.argument("name")
@click.option("--like", help="A card whose architecture and preprocessing these weights fit.")
@click.option("--provider", help="Without --like: the provider, e.g. cnn.")
@click.option("--architecture", help="Without --like: upstream's name of the architecture.")
@click.option("--weights", type=click.Path(path_type=Path), help="The weights file.")
@click.option("--folder", type=click.Path(path_type=Path), help="A folder as timm, open_clip or the hub lay it out.")
@click.option("--run", type=click.Path(path_type=Path), help="A finished run, whose backbone becomes a card.")
@click.option("--by-order", is_flag=True, help="The file has the right tensors in order, under other names.")
@click.option("--licence", "--license", default="", help="SPDX identifier of the weights' licence.")
@click.option("--data", default="", help="What they were trained on.")
@click.option("--size", type=click.IntRange(1), help="Input height and width in pixels.")
@_project
@click.option("--force", is_flag=True, help="Replace an entry of that name.")
@registry_option
@as_json
def register_command(name: str, registry_file: Path | None, as_json: bool, **options: Any) -> None:
    """Add a backbone called NAME from a weights file, a folder or a run; the sha256 of its weights is recorded.

    A file stays where it is; a run's backbone is written out whole. A pickle (.pth) is read later because you
    pin it here: register only files that you trust.

    \b
    Examples:
      zoo register mine/cells --like cnn/resnet18.a1_in1k --weights cells.safetensors --license MIT
      zoo register mine/tiny --provider cnn --architecture resnet10t --weights tiny.safetensors
      zoo register mine/hub --folder downloads/resnet18.a1_in1k
      zoo register mine/cells --run runs/cells-last-1a2b3c4d
    """
    plugins = installed(core=options["run"] is not None)
    cards = registry(plugins, registry_file)
    card = cards.register(name, plugins=plugins, **options)
    if as_json:
        emit({"name": name, "card": card.to_json()})
        return
    hidden = [layer.name for layer in cards.layers if name in layer.entries]
    note = f" It hides the card of that name in: {', '.join(hidden)}." if hidden else ""
    click.echo(f"{name} registered.{note} Next: zoo show {name}")


@click.command("unregister")
@click.argument("name")
@_project
@registry_option
@as_json
def unregister_command(name: str, project: bool, registry_file: Path | None, as_json: bool) -> None:
    """Remove the backbone NAME that you registered; its weights stay where they are.

    \b
    Examples:
      zoo unregister mine/cells
      zoo unregister mine/cells --project
    """
    folder = registry(installed(core=False), registry_file).unregister(name, project=project)
    emit({"name": name, "path": str(folder)}) if as_json else click.echo(f"{name} removed from {folder}.")
