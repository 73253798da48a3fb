"""`zoo probe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo_core.cli.common import as_json, complete_names, emit, installed, registry, registry_option, say, table
from zoo_core.components import convert
from zoo_core.errors import BadOption
from zoo_core.recipe import Recipe

if TYPE_CHECKING:
    from zoo_core.probing import Score


@click.command("probe")
@click.argument("data")
@click.option("-b", "--backbone", required=True, shell_complete=complete_names, help="Card name; see zoo list.")
@click.option("--head", "heads", multiple=True, help="Head to try, again for each; see zoo strategies.")
@click.option("--rates", metavar="RATE,...", help="Peak learning rates to try; five around the default one.")
@click.option("--seeds", type=int, default=5, show_default=True, help="How often each is trained.")
@click.option("--epochs", type=int, help="Passes over the training side.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set any field of the recipe.")
@registry_option
@as_json
def probe_command(
    data: str,
    backbone: str,
    heads: tuple[str, ...],
    rates: str | None,
    seeds: int,
    epochs: int | None,
    settings: tuple[str, ...],
    registry_file: Path | None,
    as_json: bool,
) -> None:
    """Try heads, learning rates and seeds on DATA with the whole backbone frozen, all at the price of one run.

    The validation side compares them; the test side is not looked at. Each image passes the backbone once, or not
    at all where its features are kept already.

    \b
    Examples:
      zoo probe photos/ -b cnn/tf_efficientnet_lite0.in1k
      zoo probe photos/ -b cnn/tf_efficientnet_lite0.in1k --head linear --head mlp:hidden=128 --rates 0.001,0.01
      zoo probe labels.csv -b cnn/tf_efficientnet_lite0.in1k --seeds 3 --json
    """
    given = {"data": data, "backbone": backbone, "seeds": seeds, "epochs": epochs, "freeze": "head-only"}
    recipe = Recipe.of({k: v for k, v in given.items() if v is not None}, settings)
    plugins = installed()
    cards = registry(plugins, registry_file)

    from zoo_core import device, engine, probing
    from zoo_core.console import Terminal

    device.keep_heap()
    tried = tuple(convert(rate, float, "--rates") for rate in rates.split(",")) if rates else probing.RATES
    if not all(rate > 0 for rate in tried):
        raise BadOption(f"--rates {rates}: expected numbers of more than 0, such as 0.001,0.01")
    chosen = heads or probing.HEADS
    preview = engine.prepare(recipe.with_values(head=chosen[0]), cards, plugins, Terminal(), ahead=True)
    found = probing.probe(recipe, chosen, tried, plugins, preview.task, preview.backbone, Terminal())
    if as_json:
        emit(
            {"backbone": preview.backbone.card.name, "n_val": len(preview.task.split("val")), "seeds": recipe.seeds}
            | {"scores": [score.told() for score in found]}
        )
        return
    _print(recipe, found, len(preview.task.split("val")))


def _print(recipe: Recipe, found: list[Score], n_val: int) -> None:
    best = {score.head: score for score in reversed(found)}
    names = list(found[0].figures)
    say(f"\nValidation side, {n_val} examples; each head at its best rate, mean and spread of the seeds:")
    rows = [
        (score.head, "" if score.lr is None else f"{score.lr:g}", *(_cell(score.figures.get(n, [])) for n in names))
        for score in sorted(best.values(), key=lambda score: score.loss)
    ]
    table(("head", "rate", *names), rows)
    first = found[0]
    rate = "" if first.lr is None else f" --lr {first.lr:g}"
    say(f"\nNext      zoo finetune {recipe.data} -b {recipe.backbone} --head {first.head}{rate}")


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.3f} +- {spread:.3f}"
