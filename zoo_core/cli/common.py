"""What several commands share: `--json`, tables, and the plugins of this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from zoo_core.errors import PluginBroken, printable
from zoo_core.layers import Registry, load_registry
from zoo_core.plugins import Plugins, strict

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
registry_option = click.option(
    "--registry",
    "registry_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A registry file in the place of the project's.",
)


def installed(core: bool = True) -> Plugins:
    """The plugins, with one line on stderr for each broken one; without `core`, those that may supply backbones.

    Raises:
        PluginBroken: one is, and `ZOO_STRICT` is set.
    """
    from zoo_core.api import installed as find

    plugins = find(core=core)
    for plugin in plugins.broken:
        click.echo(f"zoo: plugin {plugin.distribution} is broken and left out: {plugin.error}", err=True)
    if plugins.broken and strict():
        raise PluginBroken(f"ZOO_STRICT is set and {len(plugins.broken)} of the plugins are broken. Type: zoo plugins")
    return plugins


def registry(plugins: Plugins, project: Path | None = None) -> Registry:
    """The registry, with one line on stderr for each layer that cannot be read."""
    found = load_registry(plugins, project)
    for problem in found.problems:
        click.echo(f"zoo: {printable(problem)}", err=True)
    return found


def say(text: Any = "", *, err: bool = False, nl: bool = True) -> None:
    """Lines for people; names from files cannot move the cursor or turn a line around."""
    click.echo("\n".join(map(printable, str(text).split("\n"))), err=err, nl=nl)


def emit(value: Any) -> None:
    """JSON on stdout; where it holds what would move a terminal's cursor or turn a line around, in ASCII."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    safe = text.replace("\n", "").isprintable()
    click.echo(text if safe else json.dumps(value, indent=2, default=str))


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]], whole: str = "") -> None:
    """A table: on a terminal it wraps, but for the column `whole`; in a pipe there are plain columns."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        view = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
        for heading in headings:
            view.add_column(heading, overflow="fold", no_wrap=heading == whole)
        for row in texts:
            view.add_row(*row)
        Console(markup=False, emoji=False, highlight=False).print(view)  # cells may come from a file
        return
    widths = [max(map(len, column)) for column in zip(headings, *texts, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in [list(headings), *texts]]
    click.echo("\n".join(lines))


def each(decorators: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Apply several option decorators, the first one on top."""

    def apply(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Card names that begin so, for a shell that completes them."""
    from zoo_core.api import registry as cards

    return [name for name in cards().names() if name.startswith(incomplete)]


def complete_specs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the strategies behind an option such as `--freeze`, for a shell that completes them."""
    return [name for name in installed().supplied(str(param.name)) if name.startswith(incomplete)]
