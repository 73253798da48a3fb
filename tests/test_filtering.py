"""Choosing among two thousand cards: filters that combine, and what each of them never lets through."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest

import zoo_core
from zoo_core.card import Card, Input, is_permissive
from zoo_core.errors import BadOption
from zoo_core.filtering import MODALITY, SIZE, count_of, wanted
from zoo_core.layers import index_path, read_entries


@pytest.fixture
def listed(zoo):
    """The cards that `zoo list` with these options gives, by name."""
    return lambda *args: {card["name"]: card for card in zoo("list", *args, "--json").json}


@pytest.fixture(scope="module")
def index():
    """Every card of the zoo's index."""
    return [Card.from_json(name, entry) for name, entry in read_entries(index_path()).items()]


def test_each_filter(listed):
    """Every card that a filter lets through has what was asked for, and there are such cards."""
    for option, value, has in (
        ("--modality", "text", lambda card: card["modality"] == "text"),
        ("--provider", "dino", lambda card: card["provider"] == "dino"),
        ("--max-params", "5M", lambda card: 0 < card["parameters"] <= 5_000_000),
        ("--license", "MIT", lambda card: card["openness"]["weights"]["licence"] == "MIT"),
        ("--license", "permissive", lambda card: is_permissive(card["openness"]["weights"]["licence"])),
        ("--license", "unknown", lambda card: not card["openness"]["weights"]["licence"]),
        ("--open", "code,data", lambda card: {card["openness"][f]["mark"] for f in ("code", "data")} == {"open"}),
        ("--installed", None, lambda card: card["installed"]),
    ):
        cards = listed(option, value) if value else listed(option)
        assert cards, option
        assert all(has(card) for card in cards.values()), option


def test_filters_combine(listed, index):
    """Filters and a pattern together give those cards alone that each of them lets through."""
    cards = listed("cnn/*", "--max-params", "10M", "--license", "permissive", "--open", "code,weights")
    expected = {
        card.name
        for card in index
        if card.name.startswith("cnn/")
        and 0 < card.parameters <= 10**7
        and is_permissive(card.licence)
        and (card.openness.code.mark, card.openness.weights.mark) == ("open", "open")
    }
    assert cards.keys() == expected
    assert expected


def test_an_unknown_licence_is_never_permissive(index, listed):
    """A licence that nobody stated passes no filter but `unknown`; a closed or restricted one is no open one."""
    cards = listed("--license", "permissive")
    assert not [card.name for card in index if not card.openness.weights.licence and card.name in cards]
    assert not [name for name, card in cards.items() if card["openness"]["weights"]["mark"] in ("unknown", "closed")]
    assert listed("--license", "unknown").keys() | cards.keys() < {card.name for card in index} | {"tiny/net"}
    for licence in ("", "unknown", "MIT AND unknown", "Apache-2.0 WITH something", "mit"):
        assert not is_permissive(licence), licence


def test_an_unknown_count_is_never_small(index, listed):
    """A backbone whose size nobody stated is in no list of small ones."""
    unknown = {card.name for card in index if not card.parameters}
    assert unknown
    assert not unknown & listed("--max-params", "1000B").keys()


def test_available(zoo):
    """`--available` lists what can be loaded now, without network: the weights are on this machine."""
    names = zoo("list", "--available", "-q").out.split()
    assert "tiny/net" in names
    assert "cnn/resnet18.a1_in1k" not in names


@pytest.mark.parametrize(
    ("text", "count"), [("25M", 25_000_000), ("1.5B", 1_500_000_000), ("300k", 300_000), ("12", 12), ("1 g", 10**9)]
)
def test_counts(text, count):
    """Numbers of parameters may be written as people write them."""
    assert count_of(text) == count


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_params": "many"}, r"--max-params many: expected a number of parameters such as 25M, 1\.5B or 300k"),
        ({"max_params": "-5M"}, "--max-params -5M: expected a number"),
        ({"open": "code,wieghts"}, r"--open wieghts: expected some of code, weights, data\. Did you mean weights\?"),
        ({"modality": "smell"}, r"--modality smell: expected image, text or audio"),
    ],
)
def test_filters_that_say_nothing(given, message, zoo):
    """A filter that cannot be understood is an error, never an empty list or a full one."""
    with pytest.raises(BadOption, match=message):
        wanted(**given)
    ((name, value),) = given.items()
    assert zoo("list", f"--{name.replace('_', '-')}={value}").code == 2


def test_what_a_card_leaves_out():
    """A listing reads a card that states no modality or size as the schema does."""
    assert Card.modality == MODALITY
    assert Input.size == SIZE


def test_names_only(zoo, listed):
    """`-q` gives names alone, a line each, whatever the filters; nothing found is nothing printed and no failure."""
    assert zoo("list", "--provider", "tiny", "-q").out == "tiny/net\n"
    assert zoo("list", "-q").out.split() == sorted(listed())
    answer = zoo("list", "no-such-thing", "-q")
    assert (answer.code, answer.out) == (0, "")


def test_what_to_install(zoo):
    """A backbone whose plugin is not installed says which `pip install` brings it; a closed one that it is closed."""
    environ = {n: v for n, v in os.environ.items() if not n.startswith("ZOO_")} | {"ZOO_PLUGINS": "tiny"}
    command = [sys.executable, "-m", "zoo_core"]
    done = subprocess.run([*command, "list", "lite0.in1k"], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.splitlines()[1].endswith("pip install zoo-cnn")
    done = subprocess.run(
        [*command, "show", "cnn/resnet18.a1_in1k"], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stdout.splitlines()[-1] == "  not installed: pip install zoo-cnn"
    assert zoo("list", "text/gemini").out.splitlines()[1].endswith("closed, closed, closed     closed")
    assert "pip install" not in zoo("show", "text/gemini").out


def test_closed_is_not_installed(zoo):
    """A closed model is listed, but never as one that is installed, whatever plugin its card comes with."""
    assert zoo("list", "text/gemini", "-q").out == "text/gemini\n"
    assert zoo("list", "text/gemini", "--installed", "-q").out == ""
    assert [card["installed"] for card in zoo("list", "text/gemini", "--json").json] == [False]


def test_in_python(installed):
    """The same filters in Python, on cards: `zoo.backbones(pattern, **filters)`."""
    cards = zoo_core.backbones("cnn/*", licence="permissive", max_params="5M", open=("code", "weights"))
    assert cards
    assert all(card.parameters <= 5_000_000 and is_permissive(card.licence) for card in cards)
    assert [card.name for card in zoo_core.backbones(provider="tiny", installed=True)] == ["tiny/net"]
    with pytest.raises(BadOption):
        zoo_core.backbones(modality="smell")


HOSTILE = {
    "provider": "tiny",
    "architecture": "a",
    "openness": {"weights": {"licence": "[/red]\x1b[2J[link=x]"}},
    "notes": "[/b]\x1b]0;title\x07",
    "package": "evil; rm -rf /\x1b[2J",
}


def test_on_a_terminal(installed, tmp_path):
    """On a terminal the table wraps, so that no `pip install` is cut off; text of cards is never read as a command."""
    (tmp_path / "registry.json").write_text(json.dumps({"schema": 1, "cards": {"mine/odd": HOSTILE}}))
    text = on_terminal("list", "mine/odd") + on_terminal("show", "mine/odd") + on_terminal("verify", "mine/odd", code=1)
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "[/red]" in text.replace("\r\n", "")
    text = on_terminal("list", "cnn/tf_efficientnet_lite0.in1k", ZOO_PLUGINS="tiny")
    words = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
    assert "cnn/tf_efficientnet_lite0.in1k" in words
    assert "zoo-cnn" in words


def test_no_color(installed):
    """On a terminal headings are bold; with `NO_COLOR` set nothing is coloured."""
    assert "\x1b[1m" in on_terminal("list", "tiny/net")
    assert not re.search(r"\x1b\[3\d", on_terminal("list", "tiny/net", NO_COLOR="1"))


def on_terminal(*args: str, code: int = 0, **environ: str) -> str:
    """What `zoo` writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "zoo_core", *args]
    environ = {**os.environ, **environ, "COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environ, close_fds=True) as process:
        os.close(theirs)
        found = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            found += part
    os.close(ours)
    assert process.returncode == code, found.decode()
    return found.decode()
