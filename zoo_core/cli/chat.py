"""`zoo chat`, and the options of everything that lets a chat model speak."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo_core.cli.common import as_json, emit
from zoo_core.errors import BadOption, printable

if TYPE_CHECKING:
    from zoo_core.conversations import Saying

_OPTIONS = (
    click.option("--temperature", type=float, help="Of a chat model: 0 (default) takes the most probable token."),
    click.option("--max-tokens", type=int, help="Of a chat model's answer: 100 by default."),
    click.option("--say-seed", "seed", type=int, help="Of a chat model's draws, where the temperature is above 0."),
)


def saying_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how a chat model answers."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def saying_of(given: Mapping[str, Any]) -> Saying | None:
    """What was asked for; None where nothing was."""
    from zoo_core.conversations import Saying

    chosen = {name: value for name, value in given.items() if value is not None}
    return Saying(**chosen) if chosen else None


@click.command("chat")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--system", help="A message of the system that stands before the conversation.")
@saying_options
@as_json
def chat_command(run_folder: Path, system: str | None, as_json: bool, **given: Any) -> None:
    """Talk with the chat model of RUN: each line is a message, an empty line begins anew, Ctrl-D ends.

    From a pipe, every line is answered in turn. --json prints the whole conversation at the end.

    \b
    Examples:
      zoo chat runs/chats-last-1a2b3c4d
      zoo chat runs/chats-last-1a2b3c4d --temperature 0.7 --max-tokens 60
      echo "What is a slice?" | zoo chat runs/chats-last-1a2b3c4d
    """
    from zoo_core.runs import Run

    run = Run(run_folder)
    if run.target.kind != "next-token":
        raise BadOption(f"{run_folder} is no chat model; one is made by: zoo finetune CHATS.jsonl --head causal-lm")
    how = saying_of(given)
    first = [{"role": "system", "content": system}] if system else []
    messages, seen = list(first), sys.stdin.isatty()
    while line := _next(seen):
        if not line.strip():
            messages = list(first)
            continue
        messages.append({"role": "user", "content": line.strip()})
        answer = run.say(messages, how)
        if answer:
            messages.append({"role": "assistant", "content": answer})
        if not as_json:
            click.echo("\n".join(printable(part) for part in (answer or "-").splitlines()))
    if as_json:
        emit({"messages": messages})


def _next(seen: bool) -> str:
    """A line with its end; nothing where there is no more."""
    if seen:
        click.echo("> ", nl=False, err=True)
    return sys.stdin.readline()
