"""`zoo plugins` (`check`, `new`) and `zoo strategies`. Only `check` may import torch."""

from __future__ import annotations

import inspect
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from zoo_core import components
from zoo_core.cli.common import as_json, emit, installed, table
from zoo_core.hookspecs import SPECS
from zoo_core.plugins import Plugin, strict


@click.group("plugins", invoke_without_command=True)
@click.option("--why", metavar="NAME", help="Print the traceback of a broken plugin.")
@as_json
@click.pass_context
def plugins_command(context: click.Context, why: str | None, as_json: bool) -> None:
    """Show each plugin: its package, version, what it supplies, how long it loads, why it is broken.

    A plugin is code that you trust. ZOO_PLUGINS=a,b loads only those; ZOO_DISABLE=a,b leaves those out;
    ZOO_STRICT=1 makes every command fail while one is broken.

    \b
    Examples:
      zoo plugins
      zoo plugins --why zoo-cnn
      zoo plugins check zoo-cnn
      zoo plugins new zoo-share --kind freeze
    """
    if context.invoked_subcommand:
        return
    from zoo_core.api import installed as find

    plugins = find()
    if why and as_json:
        emit([_facts(p) | {"traceback": p.traceback} for p in plugins.named(why)])
        return
    if why:
        click.echo("\n".join(p.traceback or f"{p.distribution} is not broken." for p in plugins.named(why)))
        return
    emit([_facts(p) for p in plugins.found]) if as_json else _print(plugins.found)
    if plugins.broken and strict():
        sys.exit(1)


@plugins_command.command("check")
@click.argument("name")
@as_json
def check_command(name: str, as_json: bool) -> None:
    """Check everything that the plugin NAME supplies against what zoo promises its users.

    Each check passes, fails or is skipped with a reason; the exit code is 1 when one fails. Backbones are checked
    on the smallest card with random weights, on the CPU. With pytest: zoo_core.testing.parametrize(NAME).

    \b
    Examples:
      zoo plugins check zoo-cnn
      zoo plugins check zoo-core --json
    """
    from zoo_core import testing
    from zoo_core.api import installed as find

    def say(result: testing.Result) -> None:
        reason = f": {result.reason}" if result.reason else ""
        click.echo(f"{result.outcome:<7}  {result.subject}  {result.check}{reason}")

    results = testing.check(name, find(), None if as_json else say)
    count = {outcome: sum(r.outcome == outcome for r in results) for outcome in ("passed", "failed", "skipped")}
    if as_json:
        emit({"plugin": name, "checks": len(results), **count, "results": [asdict(r) for r in results]})
    else:
        click.echo(testing.totals(results))
    if count["failed"]:
        sys.exit(1)


@plugins_command.command("new")
@click.argument("name")
@click.option("--kind", type=click.Choice(list(SPECS)), required=True, help="What it will supply.")
@click.option("--out", type=click.Path(path_type=Path), help="The package's folder. Default: NAME, in this folder.")
@as_json
def new_command(name: str, kind: str, out: Path | None, as_json: bool) -> None:
    """Write a complete plugin package called NAME: it installs, passes its tests, and is yours to change.

    \b
    Examples:
      zoo plugins new zoo-share --kind freeze
      zoo plugins new zoo-mynet --kind provider --out packages/zoo-mynet
    """
    from zoo_core.api import installed as find
    from zoo_core.scaffold import write_plugin

    folder = out or Path(name)
    files = write_plugin(name, kind, folder, find())
    if as_json:
        emit({"name": name, "kind": kind, "folder": str(folder), "files": files})
        return
    click.echo("\n".join(str(folder / file) for file in files))
    click.echo(f"Next: pip install -e {shlex.quote(str(folder))}, then zoo plugins check {name}")


def _facts(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "supplies": {kind: sorted(names) for kind, names in plugin.supplies.items()},
        "seconds": round(plugin.seconds, 4),
        "error": plugin.error,
        "notes": list(plugin.notes),
    }


def _print(found: tuple[Plugin, ...]) -> None:
    rows = [
        (p.name, p.distribution, p.version, f"{1000 * p.seconds:.0f} ms", p.error or _supplied(_facts(p)["supplies"]))
        for p in found
    ]
    table(("plugin", "package", "version", "load", "supplies, or why it is broken"), rows)
    for plugin in found:
        for note in plugin.notes:
            click.echo(f"{plugin.distribution} {note}")


@click.command("strategies")
@as_json
def strategies_command(as_json: bool) -> None:
    """Show every freeze strategy, head and regime with its options and who supplies it.

    \b
    Example:
      zoo strategies
    """
    plugins = installed()
    facts = [
        {
            "kind": kind,
            "name": name,
            "package": plugin.distribution,
            "help": next(iter(inspect.cleandoc(cls.__doc__ or "").splitlines()), ""),
            "options": components.options(cls),
        }
        for kind in ("freeze", "head", "regime")
        for name, offers in plugins.supplied(kind).items()
        for plugin, cls in offers
    ]
    if as_json:
        emit(facts)
        return
    table(
        ("kind", "name and options", "package", "what it does"),
        [(f["kind"], _spelling(f), f["package"], f["help"]) for f in facts],
    )


def _supplied(supplies: dict[str, list[str]]) -> str:
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in supplies.items())


def _spelling(fact: dict[str, Any]) -> str:
    listed = ",".join(f"{o['name']}={o['default']}" for o in fact["options"])
    return f"{fact['name']}:{listed}" if listed else str(fact["name"])
