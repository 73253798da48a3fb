"""`zoo finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zoo_core.cli.common import (
    as_json,
    complete_names,
    complete_specs,
    each,
    emit,
    installed,
    registry,
    registry_option,
    say,
)
from zoo_core.errors import BadOption
from zoo_core.layers import Registry
from zoo_core.plugins import Plugins
from zoo_core.recipe import Recipe, field_names

REQUEST_OPTIONS = (
    click.argument("data", required=False),
    click.option("-b", "--backbone", shell_complete=complete_names, help="Card name; see zoo list."),
    click.option(
        "--freeze",
        shell_complete=complete_specs,
        help="Freeze strategy, e.g. head-only, last:2, full; see zoo strategies.",
    ),
    click.option("--head", shell_complete=complete_specs, help="Head, e.g. linear."),
    click.option(
        "--regime",
        shell_complete=complete_specs,
        help="Data regime, e.g. new-only; several with commas make a run of each.",
    ),
    click.option("--columns", help="A table's columns, such as path=file,label=class; guessed where not given."),
    click.option(
        "--task",
        type=click.Choice(["auto", "single-label", "multi-label", "regression", "ordinal"]),
        help="What a table's labels are; guessed and said where not given.",
    ),
    click.option("--old", help="The old task's data: mixed in by rehearsal, and shows what was lost."),
    click.option(
        "--labels",
        type=click.Choice(["auto", "extend", "share", "replace"]),
        help="Old and new classes in one head, the same classes, or the new ones only.",
    ),
    click.option(
        "--then", multiple=True, metavar="DATA", help="A further task, learnt after the others; may be repeated."
    ),
    click.option("--max-forgetting", type=float, metavar="SHARE", help="Fail when more of the old accuracy is lost."),
    click.option("--epochs", type=int, help="Passes over the training side."),
    click.option("--budget", help="Time for training: 90s, 10m, 1h."),
    click.option("--lr", type=float, help="Peak learning rate."),
    click.option("--batch-size", type=int, help="Examples per step."),
    click.option("--seed", type=int, help="Of first weights and order; never of the split."),
    click.option("--device", help="auto, cpu, cuda, cuda:N or mps."),
    click.option("--weights", type=click.Choice(["pretrained", "none"]), help="none: random weights."),
    click.option("--cache", help="auto, boundary, pixels or none; or a folder for what is kept."),
    click.option("--cache-cap", type=float, help="Gigabytes the cache may hold."),
    click.option("--cache-dtype", type=click.Choice(["fp32", "bf16", "fp16"]), help="Type of kept activations."),
    click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Of the frozen pass."),
    click.option("--augment", type=click.Choice(["none", "light", "strong"]), help="Augmented views to train on."),
    click.option("--views", type=int, help="How many views of each training image."),
    click.option("--folds", type=int, help="Cross-validate on cached values, for the spread of the figures."),
    click.option("--seeds", type=int, help="Repeat with this many seeds, for the spread of the figures."),
    click.option(
        "--balance",
        type=click.Choice(["none", "sampler", "loss", "logit-adjust"]),
        help="Uneven classes: draw them equally, weigh the loss, or adjust the outputs.",
    ),
    click.option("--class-weights", metavar="CLASS=WEIGHT,...", help="Weights in the loss; 1 where not named."),
    click.option(
        "--training", metavar="FIELD=VALUE,...", help="clip, micro_batch, ema, patience, mixup, cutmix, noise, find_lr."
    ),
    click.option("--ensemble/--no-ensemble", default=None, help="Average with ridge on all stages, solved beside it."),
    click.option("--wise-ft/--no-wise-ft", default=None, help="Mix the weights with those before training."),
    click.option("--calibrate/--no-calibrate", default=None, help="Fit a temperature on the validation side."),
    click.option("--on-bad-image", type=click.Choice(["skip", "fail"]), help="Leave out and list, or stop."),
    click.option("--prefer", type=click.Choice(["accuracy", "speed"]), help="For auto: whose is the burden of proof."),
    click.option("--auto-budget", help="For auto: time for its trials, such as 5m."),
    click.option("--recipe", "recipe_file", type=click.Path(path_type=Path), help="A TOML recipe to start from."),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set any field of the recipe."),
)
"""What a run is asked for, here and in `zoo plan`; read by `recipe_of`."""


@click.command("finetune")
@each(REQUEST_OPTIONS)
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder. Default: runs/ and the recipe's name.")
@click.option("--force", is_flag=True, help="Replace a run that is there, finished or not.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run that was stopped.")
@click.option("--dry-run", is_flag=True, help="Print the recipe and the plan; train nothing.")
@registry_option
@as_json
def finetune_command(
    out: Path | None,
    force: bool,
    resume: Path | None,
    dry_run: bool,
    registry_file: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Fine-tune a backbone on DATA: class folders, a table (CSV, TSV, JSONL, Parquet) or shards of labelled images.

    A run that was stopped or killed goes on from its last checkpoint when the same command is given again, and
    ends with the same weights (on a CPU, to the bit). Ctrl-C writes a checkpoint.

    \b
    Examples:
      zoo finetune photos/ -b cnn/tf_efficientnet_lite0.in1k
      zoo finetune labels.csv -b cnn/tf_efficientnet_lite0.in1k --freeze last:2 --budget 10m
      zoo finetune --recipe runs/photos-last-1a2b3c4d/recipe.toml --set seed=1
      zoo finetune photos/ -b cnn/tf_efficientnet_lite0.in1k --freeze auto --prefer speed
      zoo finetune photos/ -b cnn/tf_efficientnet_lite0.in1k --freeze full --dry-run
      zoo finetune birds/ -b mine/mammals --old mammals/ --regime new-only,rehearsal,lwf
      zoo finetune mammals/ -b cnn/resnet18.a1_in1k --regime rehearsal:buffer=200 --then birds/ --then fish/
      zoo finetune --resume runs/photos-last-1a2b3c4d
    """
    if resume:
        recipe, out = resumed(resume, out, force, options)
    else:
        recipe = recipe_of(**options)
    plugins = installed()
    cards = registry(plugins, registry_file)

    from zoo_core import engine, tried
    from zoo_core.console import Terminal

    folder = out or Path("runs") / recipe.run_name
    several = tried.regimes_of(recipe.regime, plugins)
    if recipe.then and len(several) > 1:
        raise BadOption(f"--then goes with one regime, and --regime {recipe.regime} names {len(several)}. Give one.")
    if recipe.then and not dry_run:
        from zoo_core import streams
        from zoo_core.cli.figures import print_stream

        runs = streams.learn(recipe, cards, plugins, folder, Terminal(), force=force)
        found = streams.told(runs, recipe)
        emit(found) if as_json else print_stream(found, folder)
        return
    if len(several) > 1 and not dry_run:
        from zoo_core.cli.figures import print_tried
        from zoo_core.trade_off import told

        found = told(tried.try_each(recipe, cards, plugins, folder, Terminal(), force), plugins)
        emit(found) if as_json else print_tried(found, folder)
        return
    if dry_run:
        reports = [_previewed(recipe.with_values(regime=regime), plugins, cards, as_json) for regime in several]
        if as_json:
            emit(reports if len(several) > 1 else reports[0])
        return
    run = engine.finetune(recipe, cards, plugins, folder, console=Terminal(), force=force)
    if as_json:
        emit(run.summary)
        return
    from zoo_core.cli.figures import print_run

    print_run(run)


def _previewed(recipe: Recipe, plugins: Plugins, cards: Registry, quiet: bool) -> dict[str, Any]:
    """What a recipe would do, said; and the recipe on stdout, unless the report itself is wanted there."""
    from zoo_core import engine
    from zoo_core.cli.plan import report_of, say_costs
    from zoo_core.console import Terminal

    preview = engine.prepare(recipe, cards, plugins, Terminal())
    engine.say_plan(preview, Terminal())
    report = report_of(recipe, preview)
    say_costs(report, Terminal())
    if not quiet:
        say(recipe.to_toml(), nl=False)
    return report


def resumed(run: Path, out: Path | None, force: bool, options: dict[str, Any]) -> tuple[Recipe, Path]:
    """The recipe and folder of a run that was stopped; nothing else may be asked for."""
    from zoo_core.unfinished import unfinished_recipe

    given = [name for name, value in {**options, "out": out, "force": force}.items() if value]
    if given:
        name = {"recipe_file": "--recipe", "settings": "--set", "data": "DATA"}.get(given[0], f"--{given[0]}")
        raise BadOption(f"--resume goes on with the run's own recipe; leave {name.replace('_', '-')} out.")
    return unfinished_recipe(run)


def recipe_of(
    recipe_file: Path | None,
    settings: tuple[str, ...],
    prefer: str | None,
    auto_budget: str | None,
    **options: Any,
) -> Recipe:
    """The recipe that `REQUEST_OPTIONS` ask for."""
    given = {k: v for k, v in options.items() if v not in (None, ()) and k in field_names()}
    recipe = Recipe.load(recipe_file, settings, **given) if recipe_file else Recipe.of(given, settings)
    return _auto_options(recipe, {"prefer": prefer, "budget": auto_budget})


def _auto_options(recipe: Recipe, given: dict[str, str | None]) -> Recipe:
    """`--prefer` and `--auto-budget` are fields of the strategy `auto`."""
    fields = ",".join(f"{name}={value}" for name, value in given.items() if value)
    if not fields:
        return recipe
    name, _, options = recipe.freeze.partition(":")
    if name != "auto":
        raise BadOption(f"--prefer and --auto-budget belong to --freeze auto, but --freeze is {recipe.freeze}.")
    return recipe.with_values(freeze=f"auto:{options},{fields}" if options else f"auto:{fields}")
