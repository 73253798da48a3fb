"""`zoo cache`: what is kept, whether it is sound, and what may go."""

from __future__ import annotations

from pathlib import Path

import click

from zoo_core.cli.common import as_json, emit, table

folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder that --cache named. Default: the usual one, or ZOO_CACHE.",
)


@click.group("cache")
def cache_command() -> None:
    """List, verify and prune what is kept so that nothing is computed twice. All of it can be computed again.

    \b
    Examples:
      zoo cache ls
      zoo cache verify
      zoo cache prune --cap 5
    """


@cache_command.command("ls")
@folder_option
@as_json
def cache_ls(folder: Path | None, as_json: bool) -> None:
    """List what is kept, used last first.

    \b
    Examples:
      zoo cache ls
      zoo cache ls --json
    """
    from datetime import datetime

    from zoo_core.upkeep import items

    place = _place(folder)
    found = items(place)[::-1]
    if as_json:
        rows = [{**vars(item), "path": str(item.path)} for item in found]
        emit({"folder": str(place), "size_bytes": sum(item.size_bytes for item in found), "items": rows})
        return
    shelves = [item for item in found if item.kind in ("activations", "weights")]
    lines = [
        (i.what, i.files, _megabytes(i.size_bytes), f"{datetime.fromtimestamp(i.used):%Y-%m-%d %H:%M}", i.path.name)
        for i in shelves
    ]
    for kind, what in (("members", "copied out of larger files"), ("scan", "what scans saw")):
        some = [item for item in found if item.kind == kind]
        if some:
            when = f"{datetime.fromtimestamp(some[0].used):%Y-%m-%d %H:%M}"
            lines.append((what, len(some), _megabytes(sum(i.size_bytes for i in some)), when, kind))
    table(("what", "files", "size", "last used", "name"), lines)
    click.echo(f"{_megabytes(sum(item.size_bytes for item in found))} in {place}", err=True)


@cache_command.command("verify")
@folder_option
@as_json
def cache_verify(folder: Path | None, as_json: bool) -> int:
    """Read everything again and compare it with its digest; put aside what is damaged, so that it is computed again.

    \b
    Examples:
      zoo cache verify
    """
    from zoo_core.upkeep import verify

    checked = verify(_place(folder))
    if as_json:
        emit({"sound": checked.sound, "damaged": [str(path) for path in checked.damaged]})
    else:
        click.echo(f"{checked.sound} files are sound, {len(checked.damaged)} damaged.")
        for path in checked.damaged:
            click.echo(f"put aside {path}")
    return 1 if checked.damaged else 0


@cache_command.command("prune")
@click.option("--cap", type=click.FloatRange(min=0), default=20.0, show_default=True, help="Gigabytes that may stay.")
@folder_option
@as_json
def cache_prune(cap: float, folder: Path | None, as_json: bool) -> None:
    """Remove what killed processes left, what was damaged, and what was used longest ago, until the rest fits.

    \b
    Examples:
      zoo cache prune --cap 5
      zoo cache prune --cap 0
    """
    from zoo_core.places import home_folder
    from zoo_core.upkeep import prune

    done = prune(_place(folder), int(cap * 1e9), home_folder())
    if as_json:
        counts = {"strays": len(done.strays), "damaged": len(done.damaged)}
        emit(counts | {"items": [str(i.path) for i in done.items], "freed_bytes": done.freed_bytes})
        return
    for item in done.items:
        click.echo(f"removed {item.what} ({_megabytes(item.size_bytes)})")
    click.echo(
        f"{_megabytes(done.freed_bytes)} freed: {len(done.strays)} left by killed processes, {len(done.damaged)} "
        f"damaged, {len(done.items)} used longest ago."
    )


def _place(folder: Path | None) -> Path:
    from zoo_core.places import cache_folder

    return folder or cache_folder()


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
