"""`zoo register`, `zoo unregister`. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zoo_core.cli.common import as_json, emit, installed, registry

_project = click.option("--project", is_flag=True, help="Write into the project's registry.d, not the user's.")


@click.command("register")
@click.argument("name")
@click.option("--like", help="A card whose architecture and preprocessing these weights fit.")
@click.option("--provider", help="Without --like: the provider, e.g. cnn.")
@click.option("--architecture", help="Without --like: upstream's name of the architecture.")
@click.option("--weights", type=click.Path(path_type=Path), required=True, help="The weights file.")
@click.option("--by-order", is_flag=True, help="The file has the right tensors in order, under other names.")
@click.option("--licence", "--license", default="", help="SPDX identifier of the weights' licence.")
@click.option("--data", default="", help="What they were trained on.")
@click.option("--size", type=int, help="Input height and width in pixels.")
@_project
@click.option("--force", is_flag=True, help="Replace an entry of that name.")
@as_json
def register_command(name: str, like: str | None, project: bool, force: bool, as_json: bool, **options: Any) -> None:
    """Add a backbone called NAME from your own weights file; its sha256 is recorded.

    A pickle (.pth) is read later because you pin it here: register only files that you trust.

    \b
    Examples:
      zoo register mine/cells --like cnn/resnet18.a1_in1k --weights cells.safetensors --licence MIT
      zoo register mine/tiny --provider cnn --architecture resnet10t --weights tiny.safetensors
    """
    card = registry(installed(core=False)).register(name, like=like, project=project, force=force, **options)
    emit({"name": name, "card": card.to_json()}) if as_json else click.echo(f"{name} registered. Next: zoo show {name}")


@click.command("unregister")
@click.argument("name")
@_project
@as_json
def unregister_command(name: str, project: bool, as_json: bool) -> None:
    """Remove the backbone NAME that you registered.

    \b
    Example:
      zoo unregister mine/cells
    """
    from zoo_core import layers

    path = layers.unregister(name, project=project)
    emit({"name": name, "path": str(path)}) if as_json else click.echo(f"{name} removed from {path.parent}.")
