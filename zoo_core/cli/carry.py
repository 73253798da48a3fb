"""`zoo pull`, `zoo verify`, `zoo bundle`: weights fetched, read again, carried. No torch."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from zoo_core.cli.common import as_json, complete_names, emit, installed, registry, registry_option, table
from zoo_core.errors import BadOption, printable


@click.command("pull")
@click.argument("name", shell_complete=complete_names)
@registry_option
@as_json
def pull_command(name: str, registry_file: Path | None, as_json: bool) -> None:
    """Download the weights of NAME into the Hugging Face cache; the only command that uses the network.

    What comes is compared with the card's sha256. Where the card states none, the first pull records it.

    \b
    Example:
      zoo pull cnn/resnet18.a1_in1k
    """
    from zoo_core.console import Terminal
    from zoo_core.pulling import pull

    pulled = pull(registry(installed(core=False), registry_file).get(name), Terminal())
    if as_json:
        facts = {"name": name, "path": str(pulled.path), "sha256": pulled.sha256, "source": pulled.source.uri}
        emit(facts | {"fetched": pulled.fetched, "note": pulled.note})
        return
    click.echo(f"zoo: sha256 {pulled.sha256}: {pulled.note}", err=True)
    click.echo(pulled.path)


@click.command("verify")
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every card whose weights are on this machine.")
@registry_option
@as_json
def verify_command(names: tuple[str, ...], everything: bool, registry_file: Path | None, as_json: bool) -> None:
    """Read the weights of NAME... again, every byte, and compare their sha256 with what is known.

    A NAME that is the folder of an export is opened by the library it is for, and its answers for the samples that
    lie in it are compared with those of the run. The exit code is 1 if anything is damaged, missing, or a card does
    not fit the schema.

    \b
    Examples:
      zoo verify mine/cells
      zoo verify --all
      zoo verify runs/photos-last-1a2b3c4d-onnx
    """
    from zoo_core.console import Terminal
    from zoo_core.verifying import verify

    if bool(names) == everything:
        raise BadOption("verify needs NAME..., or --all. See zoo verify --help.")
    exports = [name for name in names if (Path(name) / "export.json").is_file()]
    if exports:
        _verify_exports(exports, as_json)
        names = tuple(name for name in names if name not in exports)
        if not names:
            return
    rows = verify(registry(installed(core=False), registry_file), names or None, Terminal())
    if as_json:
        emit([asdict(row) | {"fine": row.fine} for row in rows])
    else:
        cells = [(row.state, row.name, printable(row.uri), printable(row.note) or row.sha256) for row in rows]
        table(("state", "backbone", "source", "sha256, or what is wrong"), cells)
        counts = Counter(row.state for row in rows)
        total = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no weights are on this machine"
        click.echo(f"{len(rows)} checked: {total}.")
    if not all(row.fine for row in rows):
        sys.exit(1)


def _verify_exports(folders: list[str], as_json: bool) -> None:
    from zoo_core.exporting import verify

    for folder in folders:
        found = verify(Path(folder))
        text = f"{folder}: every file is as it was; {found.samples} samples differ by {found.worst:.1g} at most"
        emit({"folder": folder} | asdict(found)) if as_json else click.echo(text)


@click.command("bundle")
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Take over the cards and weights of a bundle.")
@click.option("--project/--user", help="With --from: into the project's registry.d, not the user's.")
@click.option("--force", is_flag=True, help="With --from: replace entries of the same names.")
@registry_option
@as_json
def bundle_command(
    names: tuple[str, ...],
    out: Path | None,
    source: Path | None,
    project: bool,
    force: bool,
    registry_file: Path | None,
    as_json: bool,
) -> None:
    """Put cards and weights of NAME... into a folder, or take them over from one, without network.

    \b
    Examples:
      zoo bundle mine/cells cnn/tf_efficientnet_lite0.in1k --out stick/zoo
      zoo bundle --from stick/zoo
    """
    from zoo_core.bundling import bundle, unbundle
    from zoo_core.console import Terminal

    if (source is None) == (out is None) or (source is not None and names):
        raise BadOption("bundle needs NAME... and --out DIR, or --from DIR alone. See zoo bundle --help.")
    cards = registry(installed(core=False), registry_file)
    if out is not None:
        done = bundle(cards, names, out, Terminal())
        needs = sorted({card.package for card in done if card.package})
        text = f"{_count(len(done))} in {out}. On the other machine: zoo bundle --from {out.name}"
        text += f" (it needs: pip install {' '.join(needs)})" if needs else ""
    else:
        assert source is not None
        done = unbundle(source, cards.project if project else None, force=force)
        needs = sorted({card.package for card in done if card.package})
        text = f"{_count(len(done))} taken over: {', '.join(card.name for card in done)}."
    emit({"cards": {card.name: card.to_json() for card in done}, "needs": needs}) if as_json else click.echo(text)


def _count(number: int) -> str:
    return f"{number} backbone{'s' if number != 1 else ''}"
