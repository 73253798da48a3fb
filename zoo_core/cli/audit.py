"""`zoo audit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from zoo_core.cli.common import as_json, emit, say, table
from zoo_core.errors import printable

_SHOWN = 5  # files or groups of a kind; --json has all


_JUDGED: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "doubtful_labels": (
        "labels to look at: the nearest others say otherwise",
        lambda row: f"{row['path']} is {row['label']}, neighbours say {row['neighbours']} ({row['share']:.0%})",
    ),
    "outliers": (
        "images unlike all others",
        lambda row: f"{row['path']} ({row['label']}), {row['distance'] / max(row['usual'], 1e-9):.1f} times as far",
    ),
    "alike": (
        "pairs that are alike to the backbone",
        lambda row: "; ".join(f"{f['path']} ({f['label']}, {f['split']})" for f in row["files"]),
    ),
}


@click.command("audit")
@click.argument("data")
@click.option("--columns", help="What a table calls its columns: path=file,label=class.")
@click.option("--test-share", type=click.FloatRange(0, 1, max_open=True), default=0.25, show_default=True)
@click.option("--val-share", type=click.FloatRange(0, 1, max_open=True), default=0.15, show_default=True)
@click.option("-b", "--backbone", help="Ask this backbone, too: doubtful labels, outliers, pictures that are alike.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with thumbnails.")
@as_json
def audit_command(
    data: str,
    columns: str | None,
    test_share: float,
    val_share: float,
    backbone: str | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Look at every image of DATA and say what is in it; nothing is changed or trained.

    Counts by class and side, files that are not plain 8-bit RGB and what is done with them, copies and near copies,
    labels that contradict one another, files that cannot be read, and what looks suspicious. With a backbone also
    labels that the nearest others contradict, images unlike all others, and pairs that only features find alike.

    \b
    Examples:
      zoo audit photos/
      zoo audit photos/ -b cnn/tf_efficientnet_lite0.in1k --html audit.html
      zoo audit labels.csv --columns path=file,label=class
      zoo audit shards/ --json > audit.json
    """
    from zoo_core.audit import audit
    from zoo_core.console import Terminal

    judge = None
    if backbone:
        from zoo_core.api import load_backbone
        from zoo_core.looking import judge_of

        judge = judge_of(load_backbone(backbone), Terminal())
    shares = {"test_share": test_share, "val_share": val_share}
    found = audit(data, columns=columns, **shares, console=Terminal(), judge=judge, page=html)
    emit(found) if as_json else _print(found)
    if html and not as_json:
        say(f"\nPage      {html}")


def _print(found: dict[str, Any]) -> None:
    sides = ("all", "train", "val", "test")
    say(f"{found['images']} images, {found['bytes'] / 1e6:.1f} MB, {len(found['classes'])} classes\n")
    table(("class", *sides), [(name, *(counts[s] for s in sides)) for name, counts in found["classes"].items()])
    if found["images"]:
        say("\nFiles     " + ", ".join(f"{count} {kind}" for kind, count in found["files"].items()))
        (w0, w1, w2), (h0, h1, h2) = found["pixels"]["width"], found["pixels"]["height"]
        say(f"Size      width {w0} to {w2}, median {w1:g}; height {h0} to {h2}, median {h1:g}")
    for odd in found["odd"]:
        say(f"\n{odd['kind']}: {odd['count']} files, {odd['done']}")
        _list(odd["files"])
    for name, title in {
        "duplicates": "groups of copies (the same pixels)",
        "near_duplicates": "groups of near copies",
        "label_conflicts": "groups with different labels",
    }.items():
        if found[name]:
            say(f"\n{len(found[name])} {title}")
            _list(["; ".join(f"{f['path']} ({f['label']}, {f['split']})" for f in group) for group in found[name]])
    for name, (title, line) in _JUDGED.items():
        if found.get(name):
            say(f"\n{found['how_many'][name]} {title}")
            _list([line(row) for row in found[name]])
    if found["bad"]:
        say(f"\n{len(found['bad'])} files cannot be read and are left out")
        _list([f"{path}: {reason}" for path, reason in found["bad"].items()])
    passed = [f"passed over: {count} {what}" for what, count in found["skipped"].items()]
    for title, lines in {"Notes": [*found["notes"], *passed], "Suspicious": found["suspicious"]}.items():
        if lines:
            say(f"\n{title}")
            _list(lines, len(lines))


def _list(lines: list[str], shown: int = _SHOWN) -> None:
    for line in lines[:shown]:
        say("  " + printable(line))
    if len(lines) > shown:
        say(f"  ... and {len(lines) - shown} more; --json has all")
