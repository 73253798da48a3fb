"""The pages' commands exist, and `docs/registry.md` shows what happens."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from zoo_core.card import PERMISSIVE, Card
from zoo_core.cli import cli
from zoo_core.files import MAX_JSON_BYTES, MAX_JSON_DEPTH
from zoo_core.layers import cards_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/README.md")]
)


def commands(text: str) -> list[str]:
    """Every `zoo ...` of the text: in code blocks, indented or fenced, and in inline code."""
    lines = [
        line.strip().removeprefix("$ ")
        for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
    found = [line for line in lines if line.startswith("zoo ")]
    return found + [" ".join(code.split()) for code in re.findall(r"(?<!`)`(zoo [^`]+)`(?!`)", text)]


def missing(line: str) -> str:
    """What a command line names that does not exist."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        context = click.Context(command)
        name = words.pop(0)
        inner = command.get_command(context, name)
        if inner is None:
            return "" if command.invoke_without_command or command is not cli else name
        command = inner
    known = {"-h", "--help", "--version", *(opt for p in command.params for opt in (*p.opts, *p.secondary_opts))}
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((option for option in options if option not in known), "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    """Every command on the page exists, with every option that it is given there."""
    wrong = {line: what for line in commands(page.read_text(encoding="utf-8")) if (what := missing(line))}
    assert wrong == {}


def test_the_check_can_fail():
    """A command and an option that do not exist are found."""
    fenced = "```\n$ zoo lits\nzoo list --colour red  # no\n```\n"
    text = f"{fenced}\n    zoo plugins check x --fast\n\n`zoo show NAME --stages` `zoo nothing`"
    assert [missing(line) for line in commands(text)] == ["lits", "--colour", "--fast", "", "nothing"]


@pytest.fixture(scope="module")
def registry_page():
    """The page."""
    return (ROOT / "docs" / "registry.md").read_text(encoding="utf-8")


def test_the_closed_model_says_so(registry_page, zoo, photos):
    """The answer on the page is the one that is given."""
    question, answer = re.search(r"\$ (zoo finetune .*)\n(zoo: .*)\n", registry_page).groups()
    done = zoo(*question.split()[1:])
    assert (done.code, done.err.splitlines()[-1]) == (1, answer)


def test_the_card_on_the_page_is_one(registry_page):
    """The registry file on the page reads, but for the digest that is left out."""
    data = json.loads(re.search(r"```json\n(.*?)```", registry_page, re.DOTALL)[1].replace('"..."', f'"{"0" * 64}"'))
    ((name, entry),) = cards_of(data, Path("registry.json")).items()
    card = Card.from_json(name, entry)
    assert card.to_json() == entry
    assert card.extra == {"x-owner": "the cell team"}


def test_the_python_on_the_page_runs(registry_page, capsys):
    """The snippet finds the cards that it asks for."""
    exec(re.search(r"```python\n(.*?)```", registry_page, re.DOTALL)[1], {})
    about, names = capsys.readouterr().out.splitlines()
    assert about.startswith("3371008 Apache-2.0 restricted ")
    assert "cnn/tf_efficientnet_lite0.in1k" in names


def test_the_rules_on_the_page(registry_page):
    """Limits and permissive licences on the page are those of the code."""
    assert f"at most {MAX_JSON_BYTES >> 20} MiB and {MAX_JSON_DEPTH} levels" in registry_page
    listed = re.search(r"`permissive` is ([^;]*?), and SPDX", registry_page, re.DOTALL)[1]
    assert {word.strip() for word in re.split(r",| and ", listed)} == PERMISSIVE
