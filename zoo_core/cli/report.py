"""`zoo report`."""

from __future__ import annotations

from pathlib import Path

import click

from zoo_core.cli.common import as_json, emit


@click.command("report")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file. Default: RUN/report.html.")
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@as_json
def report_command(run_folder: Path, out: Path | None, show: bool, as_json: bool) -> None:
    """Make the page of RUN again: what was done, why, how good it is, and what to do next.

    Every run has one. It is one file without scripts, and needs no network. Images that have moved are left out.

    \b
    Examples:
      zoo report runs/photos-last-1a2b3c4d --open
      zoo report runs/photos-last-1a2b3c4d --out for-my-colleagues.html
    """
    from zoo_core.runs import Run

    path = Run(run_folder).report(out)
    emit({"report": str(path)}) if as_json else click.echo(path)
    if show:
        click.launch(str(path.resolve()))
