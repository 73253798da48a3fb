"""`zoo demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo_core.cli.common import as_json, emit, installed, registry

if TYPE_CHECKING:
    from zoo_core.console import Console


@click.command("demo")
@click.argument("what", type=click.Choice(["images", "text", "audio"]), default="images")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder. Default: runs/demo, runs/demo-WHAT.")
@click.option("--freeze", default="head-only", show_default=True, help="Freeze strategy, for images.")
@as_json
def demo_command(what: str, out: Path | None, freeze: str, as_json: bool) -> None:
    """From data to answers in one command; each says what of it is real, and what is tiny.

    \b
    images  defective solar cells from sound ones: real images (elpv-dataset, CC-BY-NC-SA-4.0, not for commercial use),
            real ImageNet weights (EfficientNet-Lite0)
    text    what questions are about: real texts (chatterbot-corpus), real weights (MiniLM); then a chat model from a
            tiny GPT-2 that begins with random weights
    audio   bells, wind, sirens and clicks: sounds made on the spot, a tiny CLAP with random weights

    \b
    Examples:
      zoo demo
      zoo demo text
      zoo demo --freeze last:2 --out runs/demo-last-2
    """
    from zoo_core.console import Terminal

    run = {"images": images, "text": text, "audio": audio}[what]
    run(out or Path("runs") / ("demo" if what == "images" else f"demo-{what}"), freeze, as_json, Terminal())


def images(out: Path, freeze: str, as_json: bool, console: Console) -> None:
    """Solar cells."""
    from zoo_core import engine
    from zoo_core.cli.figures import print_run
    from zoo_core.demo import BACKBONE, LICENCE, write_manifest
    from zoo_core.places import cache_folder
    from zoo_core.recipe import Recipe

    plugins = installed()
    console.say(f"Images    {LICENCE}")
    manifest = write_manifest(cache_folder() / "demo" / "elpv.csv")
    recipe = Recipe(data=str(manifest), backbone=BACKBONE, freeze=freeze)
    run = engine.finetune(recipe, registry(plugins), plugins, out, console=console, force=True)
    samples = _examples(run.path / "predictions.csv")
    if as_json:
        emit(run.summary | {"examples": samples})
        return
    print_run(run)
    click.echo("\nThree images of the test side:")
    _say_examples(samples)
    first = Path(samples[0]["path"])
    here = first.relative_to(Path.cwd()) if first.is_relative_to(Path.cwd()) else first
    click.echo(f"\nNext      zoo predict {out} {here}")
    click.echo("          zoo finetune YOUR_FOLDER --backbone " + BACKBONE)


def text(out: Path, freeze: str, as_json: bool, console: Console) -> None:
    """Topics of questions, then a chat model."""
    from zoo_core import demo_texts, engine
    from zoo_core.cli.figures import print_run

    plugins = installed()
    console.say(f"Texts     {demo_texts.LICENCE}")
    topics_out, chat_out = (out.with_name(f"{out.name}-{part}") for part in ("topics", "chat"))
    recipe = demo_texts.topics_recipe()
    topics = engine.finetune(recipe, registry(plugins), plugins, topics_out, console=console, force=True)
    samples = _examples(topics.path / "predictions.csv")
    console.say("\nA chat model: a tiny GPT-2 that begins with random weights and knows nothing but this corpus")
    recipe, body = demo_texts.chat_prepared(plugins)
    chat = engine.finetune(recipe, registry(plugins), plugins, chat_out, backbone=body, console=console, force=True)
    if as_json:
        emit({"topics": topics.summary | {"examples": samples}, "chat": chat.summary})
        return
    print_run(topics)
    click.echo("\nThree questions of the test side (real weights, real texts):")
    _say_examples(samples)
    print_run(chat)
    click.echo("\nWhat the tiny model says, before and after (it learnt the sound of answers, not their sense):")
    for said in chat.summary["says"]:
        click.echo(f"  {said['asked'][:70]}\n    before: {_line(said['before'])}\n    after:  {_line(said['after'])}")
    click.echo(f"\nNext      zoo chat {chat.path}\n          zoo finetune YOUR.csv --backbone {demo_texts.BACKBONE}")
    click.echo("          zoo finetune YOUR_CHATS.jsonl --backbone text/gpt2 --head causal-lm --freeze lora")


def audio(out: Path, freeze: str, as_json: bool, console: Console) -> None:
    """Made sounds."""
    from zoo_core import demo_sounds, engine
    from zoo_core.cli.figures import print_run

    plugins = installed()
    console.say("Sounds    made on the spot; weights random, the tower tiny: it shows the way, not how good CLAP is")
    recipe, body = demo_sounds.prepared(plugins)
    run = engine.finetune(recipe, registry(plugins), plugins, out, backbone=body, console=console, force=True)
    samples = _examples(run.path / "predictions.csv")
    if as_json:
        emit(run.summary | {"examples": samples})
        return
    print_run(run)
    click.echo("\nThree sounds of the test side:")
    _say_examples(samples)
    click.echo(f"\nNext      zoo predict {run.path} {samples[0]['path']}")
    click.echo("          zoo finetune YOUR_FOLDER --backbone audio/clap-htsat-unfused")


def _line(said: str) -> str:
    from zoo_core.errors import printable

    return printable(" ".join(said.split()))[:70] or "nothing"


def _say_examples(samples: list[dict[str, Any]]) -> None:
    for sample in samples:
        name = sample["path"].rpartition("/")[2]
        click.echo(f"  {name}  is {sample['label']}, predicted {sample['predicted']} ({sample['p']:.2f})")


def _examples(predictions: Path) -> list[dict[str, Any]]:
    """Three test examples, evenly spaced in the file: chosen by place, not by how well they went."""
    import csv

    with open(predictions, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        {"path": r["path"], "label": r["label"], "predicted": r["predicted"], "p": float(r[f"p:{r['predicted']}"])}
        for r in (rows[0], rows[len(rows) // 2], rows[-1])
    ]
