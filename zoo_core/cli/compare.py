"""`zoo compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from zoo_core.cli.common import as_json, complete_names, emit, installed, registry, registry_option, say, table
from zoo_core.recipe import Recipe

_HEADINGS = {
    "all_stages": "all stages",
    "probe": "probe",
    "logme": "LogME",
    "h_score": "H-score",
    "neighbours": "neighbours",
}


@click.command("compare")
@click.argument("data")
@click.option(
    "-b",
    "--backbone",
    "names",
    multiple=True,
    required=True,
    shell_complete=complete_names,
    help="A card name; once for each backbone.",
)
@click.option("--finalists", type=click.IntRange(min=0), default=2, show_default=True, help="How many to fine-tune.")
@click.option("--freeze", default="full", show_default=True, help="How the finalists are fine-tuned.")
@click.option("--epochs", type=int, help="Of the finalists.")
@click.option("--seed", type=int, help="Of the finalists' first weights and order.")
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--columns", help="A table's columns, such as path=file,label=class; guessed where not given.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set any field of the finalists' recipe.")
@click.option("--out", type=click.Path(path_type=Path), help="The finalists' runs. Default: runs/compare-DATA.")
@click.option("--force", is_flag=True, help="Replace runs that are there.")
@registry_option
@as_json
def compare_command(
    data: str,
    names: tuple[str, ...],
    finalists: int,
    settings: tuple[str, ...],
    out: Path | None,
    force: bool,
    registry_file: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Compare backbones on DATA: cheap scores of each on the training side, then the best few are fine-tuned.

    Each image passes each backbone once, and what comes out is kept for later runs. `all stages` and `probe` are
    shares of training images that were right when they were held out; LogME, H-score and neighbours need no
    training at all. Finalists are put in order by the validation side; the test side is shown, and chooses nothing.

    \b
    Examples:
      zoo compare photos/ -b cnn/tf_efficientnet_lite0.in1k -b cnn/tf_efficientnet_lite2.in1k
      zoo compare photos/ -b cnn/resnet18.a1_in1k -b vit/vit_small_patch16_224.augreg_in1k --finalists 0 --json
    """
    fields = {k: v for k, v in given.items() if v is not None}
    recipe = Recipe.of({"data": data, "backbone": names[0], **fields}, settings)
    plugins = installed()
    cards = registry(plugins, registry_file)

    from zoo_core import comparing
    from zoo_core.console import Terminal

    folder = out or Path("runs") / f"compare-{Path(data).resolve().stem}"
    found = comparing.told(comparing.compare(recipe, names, cards, plugins, folder, finalists, Terminal(), force=force))
    emit(found) if as_json else _print(found)


def _print(found: Mapping[str, Any]) -> None:
    rows = [row for row in found["backbones"] if not row["left_out"]]
    headings = ("backbone", "parameters", *_HEADINGS.values(), "mean rank", "fine-tuned", "test", "seconds")
    table(headings, [_cells(row) for row in rows])
    say()
    for row in found["backbones"]:
        if row["left_out"]:
            say(f"Left out  {row['backbone']}: {row['left_out']}")
    tuned = [row for row in rows if "run" in row]
    if tuned:
        say(f"Best      {tuned[0]['backbone']}, by {_by(tuned)}; its run is {tuned[0]['run']}")
    for line in _foretold(found["foretold"]):
        say(line)
    if not tuned:
        say(f"Next      zoo finetune DATA -b {rows[0]['backbone']} --freeze full")


def _cells(row: Mapping[str, Any]) -> list[str]:
    scores = [f"{row['scores'][name]:.3f}" for name in _HEADINGS]
    tuned, test, seconds = "", "", f"{row['seconds']:.1f}"
    if "run" in row:
        low, high = row["test"]["accuracy_ci"]
        tuned = "-" if row["validation_accuracy"] is None else f"{row['validation_accuracy']:.3f}"
        test = f"{row['test']['accuracy']:.3f} ({low:.3f} to {high:.3f})"
        seconds += f" + {row['fit_seconds']:.1f}"
    return [row["backbone"], f"{row['parameters']:,}", *scores, f"{row['rank']:.1f}", tuned, test, seconds]


def _by(tuned: Sequence[Mapping[str, Any]]) -> str:
    if tuned[0]["validation_accuracy"] is None:
        return "the scores: there is no validation side"
    return "the validation side"


def _foretold(found: Mapping[str, Mapping[str, int]]) -> list[str]:
    """How well the cheap scores predicted."""
    pairs = max((f["pairs"] for f in found.values()), default=0)
    if not pairs:
        return ["Foretold  nothing can be said about the scores: no two finalists differ."] if found else []
    parts = ", ".join(f"{_HEADINGS[name]} {f['right']}" for name, f in found.items())
    return [f"Foretold  of {pairs} pairs of finalists, fine-tuning agreed with: {parts}"]
