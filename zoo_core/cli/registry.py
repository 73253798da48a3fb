"""`zoo list`, `zoo show`. Only `show --stages` imports torch."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo_core.cli.common import as_json, complete_names, each, emit, installed, registry, registry_option, table
from zoo_core.errors import ZooError, printable
from zoo_core.filtering import FACETS, MODALITY, SIZE, Wanted, is_closed, wanted
from zoo_core.layers import Registry

if TYPE_CHECKING:
    from zoo_core.card import Card

_HEADINGS = ("backbone", "params", "input", "licence", "open: code, weights, data", "installed")
_FEW = 200
"""Rows that a table of rich's draws in a moment."""
_FILTERS = (
    click.option("--modality", help="image, text or audio."),
    click.option("--provider", help="A provider's name, e.g. cnn."),
    click.option("--max-params", metavar="COUNT", help="At most so many parameters, e.g. 25M."),
    click.option("--licence", "--license", help="Of the weights: an SPDX identifier, permissive, or unknown."),
    click.option("--open", metavar="FACETS", help="What must be open: some of code,weights,data."),
    click.option("--installed", is_flag=True, help="Its plugin is installed, and it is not closed."),
    click.option("--available", is_flag=True, help="Its weights are on this machine."),
)


@click.command("list")
@click.argument("pattern", default="*")
@each(_FILTERS)
@click.option("-q", "--names", is_flag=True, help="Names only.")
@registry_option
@as_json
def list_command(pattern: str, names: bool, registry_file: Path | None, as_json: bool, **filters: Any) -> None:
    """List backbones whose name contains PATTERN, or matches it where it has wildcards; filters combine.

    A licence or count that nobody stated is unknown: it passes no filter that asks for one.

    \b
    Examples:
      zoo list lite
      zoo list --max-params 25M --license permissive --open code,weights
      zoo list 'cnn/resnet*' --installed --json
    """
    plugins = installed(core=False)
    providers = plugins.supplied("provider")
    cards = registry(plugins, registry_file)
    chosen = wanted(**filters)
    if names and chosen == Wanted():
        click.echo("".join(f"{name}\n" for name in cards.names(pattern)), nl=False)
        return
    problems: list[str] = []
    found = _chosen(cards, pattern, chosen, providers, problems)
    if names:
        click.echo("".join(f"{name}\n" for name, _, _ in found), nl=False)
    elif as_json:
        from zoo_core.card import Card

        whole = [
            (Card.from_json(name, entry), entry["provider"] in providers and not is_closed(entry))
            for name, entry, _ in found
        ]
        emit([asdict(card) | {"installed": installed} for card, installed in whole])
    else:
        _print_columns([row for _, _, row in found])
    for problem in problems:
        click.echo(f"zoo: {printable(problem)}", err=True)


@click.command("show")
@click.argument("name", shell_complete=complete_names)
@click.option("--stages", is_flag=True, help="Build it (random weights) and print the stage table.")
@registry_option
@as_json
def show_command(name: str, stages: bool, registry_file: Path | None, as_json: bool) -> None:
    """Show everything the card of NAME says: input, stages, openness, training data, sources, lineage.

    \b
    Examples:
      zoo show cnn/tf_efficientnet_lite0.in1k
      zoo show cnn/resnet18.a1_in1k --stages
    """
    from zoo_core.lineage import tasks_of

    plugins = installed(core=False)
    cards = registry(plugins, registry_file)
    card = cards.get(name)
    facts: dict[str, Any] = asdict(card) | {
        "layer": cards.layer_of(name).name,
        "hides": cards.hidden(name),
        "lineage": cards.lineage(name),
        "learnt": [learnt.told() | {"here": learnt.here} for learnt in tasks_of(card)],
        "recorded": _recorded(card),
        "installed": card.provider in plugins.supplied("provider") and not is_closed(card.to_json()),
    }
    if stages:
        from zoo_core.stage_table import stage_table
        from zoo_core.weights import load_backbone

        facts["stage_table"] = stage_table(load_backbone(card, plugins, pretrained=False))
    if as_json:
        emit(facts)
        return
    _print_card(card, facts)
    if stages:
        _print_stages(facts["stage_table"])


def _chosen(
    cards: Registry, pattern: str, chosen: Wanted, providers: Container[str], problems: list[str]
) -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
    """Name, plain card and line of each card that passes; those that fit no schema go to `problems`."""
    everything = chosen == Wanted()
    for name, entry in cards.plain(pattern, problems):
        try:
            keep = everything or chosen.keeps(name, entry, providers)
            row = _row(name, entry, providers) if keep else None
        except (AttributeError, KeyError, TypeError, ValueError, ZooError):
            problems += _what_is_wrong(name, entry)
            continue
        if row:
            yield name, entry, row


def _what_is_wrong(name: str, entry: Any) -> list[str]:
    from zoo_core.card import Card

    try:
        Card.from_json(name, entry)
    except ZooError as error:
        return [str(error)]
    return []


def _print_columns(rows: list[tuple[str, ...]]) -> None:
    """A table that wraps on a terminal; a long one is aligned columns, cut at its edge: rich needs 0.5 ms a row."""
    if len(rows) <= _FEW:
        table(_HEADINGS, rows, whole="backbone")
        return
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    form = "  ".join(f"%-{width}s" for width in widths)
    lines = [(form % row).rstrip() for row in [_HEADINGS, *rows]]
    if sys.stdout.isatty():
        import shutil

        edge = shutil.get_terminal_size().columns
        lines = [line if len(line) <= edge else line[: edge - 1] + "…" for line in lines]
    click.echo("\n".join(lines))


def _print_card(card: Card, facts: dict[str, Any]) -> None:
    openness = card.openness
    click.echo(card.name)
    lines = {
        "provider": f"{card.provider} ({card.package or 'no package named'}), architecture {card.architecture}",
        "parameters": f"{card.parameters:,}" if card.parameters else "not known",
        "features": str(card.feature_dim or "not known"),
        "input": _input(card),
        "stages": ", ".join(card.stages) or ("not known" if facts["missing"] else f"see zoo show {card.name} --stages"),
    }
    for facet in FACETS:
        about = getattr(openness, facet)
        what = ", ".join(
            filter(None, (about.licence or ("" if about.mark == "closed" else "licence unknown"), about.name))
        )
        lines["training data" if facet == "data" else facet] = f"{about.mark:<10}  {what}".rstrip()
    for i, source in enumerate(card.sources):
        recorded = facts["recorded"].get(source.uri)
        digest = f"sha256 {source.sha256}" if source.sha256 else "no digest known before it is pulled"
        digest = f"sha256 {recorded}, recorded when it was first pulled" if recorded else digest
        lines[f"source {i + 1}"] = f"{source.uri} ({digest})"
    lines |= {
        "missing": card.missing,
        "instead": card.sibling,
        "paper": card.paper,
        "lineage": " <- ".join([card.name, *facts["lineage"]]) if facts["lineage"] else "",
        "notes": card.notes,
        **{key.removeprefix("x-").replace("-", " "): _extra(value) for key, value in card.extra.items()},
        "layer": facts["layer"] + (f", hides {', '.join(facts['hides'])}" if facts["hides"] else ""),
    }
    for key, value in lines.items():
        if value:
            click.echo(f"  {key:<13} {printable(value)}")
    for task in facts["learnt"]:
        accuracy = "" if task["accuracy"] is None else f", test accuracy {task['accuracy']:.3f}"
        where = "" if task["here"] else " (not at hand)"
        click.echo(f"  {'learnt':<13} {printable(task['run'])}: {printable(task['source']['path'])}{where}{accuracy}")
    if not facts["installed"] and card.package and not is_closed(card.to_json()):
        click.echo(f"  not installed: pip install {printable(card.package)}")


def _extra(value: Any) -> str:
    """What somebody put into a card beside the schema, on one line."""
    pairs = value.items() if isinstance(value, dict) else ()
    text = "; ".join(f"{name}: {what}" for name, what in pairs) if pairs else str(value)
    return text if len(text) <= 500 else f"{text[:499]}…"


def _input(card: Card) -> str:
    spec = card.input
    if card.modality != "image":
        return card.modality
    size = "x".join(map(str, spec.size))
    return f"{size}, {spec.interpolation}, crop {spec.crop} {spec.crop_mode}, mean {spec.mean}, std {spec.std}"


def _recorded(card: Card) -> dict[str, str]:
    """Digests that the first pull recorded for sources of the card that state none."""
    from zoo_core.pins import pinned

    silent = [source for source in card.sources if not source.sha256]
    return {source.uri: sha for source in silent if (sha := pinned(source).sha256)}


def _print_stages(rows: list[dict[str, Any]]) -> None:
    headings = ("depth", "stage", "parameters", "buffers", "batch norms", "FLOPs", "boundary", "bytes per image")
    cells = [
        (
            row["depth"],
            row["stage"],
            f"{row['parameters']:,}",
            row["buffers"],
            row["norm_buffers"] // 2,  # a mean and a variance each
            f"{row['flops_share']:.1%}",
            row["boundary"],
            f"{row['boundary_bytes']:,}",
        )
        for row in rows
    ]
    table(headings, cells)


def _row(name: str, entry: dict[str, Any], providers: Container[str]) -> tuple[str, ...]:
    """A line of the list, from plain data: building 2,000 cards would take longer than everything else."""
    facets = entry.get("openness", {})
    modality = entry.get("modality", MODALITY)
    size = entry.get("input", {}).get("size", SIZE)
    weights = facets.get("weights", {})
    return (
        name,
        _millions(entry.get("parameters", 0)),
        f"{size[1]}x{size[2]}" if modality == "image" else modality,
        printable(weights.get("licence") or "unknown"),
        ", ".join([facets[facet].get("mark", "unknown") if facet in facets else "unknown" for facet in FACETS]),
        "closed" if is_closed(entry) else "yes" if entry["provider"] in providers else _pip_line(entry),
    )


def _pip_line(entry: dict[str, Any]) -> str:
    package = entry.get("package", "")
    return f"pip install {printable(package)}" if package else "no package named"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count else "-"
