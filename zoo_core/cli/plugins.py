"""`zoo plugins` and `zoo strategies`. No torch."""

from __future__ import annotations

import inspect
from typing import Any

import click

from zoo_core import components
from zoo_core.cli.common import as_json, emit, installed, table
from zoo_core.errors import UsageError, near


@click.command("plugins")
@click.option("--why", metavar="NAME", help="Print the traceback of a broken plugin.")
@as_json
def plugins_command(why: str | None, as_json: bool) -> None:
    """Show each plugin: its package, version, what it supplies, how long it loads, why it is broken.

    A plugin is code that you trust. ZOO_PLUGINS=a,b loads only those; ZOO_DISABLE=a,b leaves those out.

    \b
    Examples:
      zoo plugins
      zoo plugins --why zoo-cnn
    """
    from zoo_core.api import installed as find

    found = find().found
    if why:
        chosen = [p for p in found if why in (p.name, p.distribution)]
        if not chosen:
            names = [p.distribution for p in found]
            raise UsageError(f"no plugin {why!r}. {near(why, names)} Installed: {', '.join(names)}.")
        click.echo("\n".join(p.traceback or f"{p.distribution} is not broken." for p in chosen))
        return
    facts: list[dict[str, Any]] = [
        {
            "name": p.name,
            "distribution": p.distribution,
            "version": p.version,
            "supplies": {kind: sorted(names) for kind, names in p.supplies.items()},
            "seconds": round(p.seconds, 4),
            "error": p.error,
        }
        for p in found
    ]
    if as_json:
        emit(facts)
        return
    rows = [
        (
            f["name"],
            f["distribution"],
            f["version"],
            f"{1000 * p.seconds:.0f} ms",
            f["error"] or _supplied(f["supplies"]),
        )
        for f, p in zip(facts, found, strict=True)
    ]
    table(("plugin", "package", "version", "load", "supplies"), rows)


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
            "help": inspect.cleandoc(cls.__doc__ or "").splitlines()[0],
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
