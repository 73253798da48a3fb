"""Backbones of the user's own: from a weights file, in the user's layer or the project's, and gone again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import zoo_tiny
from safetensors.torch import load_file

import zoo_core
from zoo_core import api
from zoo_core.errors import (
    BadCard,
    BadOption,
    CardExists,
    ClosedModel,
    UnknownBackbone,
    WeightsMissing,
)
from zoo_core.layers import load_registry
from zoo_core.registering import unregister, weights_facet
from zoo_core.weights import load_backbone

WEIGHTS = Path(zoo_tiny.__file__).with_name("tiny.safetensors")


@pytest.fixture
def registry(plugins):
    """All layers as they are now."""
    return lambda file=None: load_registry(plugins, file)


@pytest.fixture
def mine(tmp_path):
    """Weights of the user's own: a copy of the tiny network's."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(WEIGHTS.read_bytes())
    return path


def test_from_a_file(registry, plugins, tiny, mine):
    """Weights like those of a card: its architecture and preprocessing, their own digest, the card as the parent."""
    registry().register("mine/net", like="tiny/net", weights=mine, licence="mit", data="cells")
    card = registry().get("mine/net")
    like = registry().get("tiny/net")
    assert (card.provider, card.architecture, card.package) == ("tiny", "tiny", "zoo-tiny")
    assert (card.input, card.stages, card.classifier) == (like.input, like.stages, like.classifier)
    (source,) = card.sources
    assert source.uri == f"file:{mine}"
    assert (source.sha256, source.size_bytes) == (hashlib.sha256(mine.read_bytes()).hexdigest(), mine.stat().st_size)
    assert (card.parent, registry().lineage("mine/net")) == ("tiny/net", ["tiny/net"])
    assert (card.openness.weights.mark, card.licence) == ("open", "MIT")
    assert (card.openness.data.mark, card.openness.data.name) == ("unknown", "cells")
    assert load_backbone(card, plugins).digest() == tiny.digest()
    assert registry().layer_of("mine/net").name == "user"


def test_what_nobody_stated_is_unknown(registry, mine):
    """Licence and training data are not taken over from the card that the weights are like."""
    card = registry().register("mine/net", like="tiny/net", weights=mine)
    assert (card.licence, card.openness.weights.mark, card.openness.data.mark) == ("unknown", "unknown", "unknown")


@pytest.mark.parametrize(
    ("licence", "mark", "spelt"),
    [
        ("apache-2.0", "open", "Apache-2.0"),
        ("MIT OR GPL-3.0-only", "open", "MIT OR GPL-3.0-only"),
        ("MIT AND CC-BY-NC-4.0", "restricted", "MIT AND CC-BY-NC-4.0"),
        ("my own terms", "restricted", "my own terms"),
        ("", "unknown", ""),
    ],
)
def test_licences(licence, mark, spelt):
    """A licence is open where SPDX calls it permissive, restricted where it is any other, unknown where none is."""
    assert (weights_facet(licence).mark, weights_facet(licence).licence) == (mark, spelt)


def test_other_architectures(registry, plugins, mine):
    """Without a card to be like, provider and architecture say what the weights are; `size` is the input's side."""
    card = registry().register("mine/net", provider="tiny", architecture="tiny", weights=mine, size=32)
    assert (card.parent, card.input.size) == ("", (3, 32, 32))
    assert load_backbone(card, plugins).pretrained
    card = registry().register("mine/more", like="tiny/net", architecture="tiny-2", weights=mine, by_order=True)
    assert (card.provider, card.architecture, card.sources[0].mapping) == ("tiny", "tiny-2", "by-order")


def test_layers(registry, mine, tmp_path, monkeypatch):
    """`project` writes beside the project's registry file, found upwards or named; else the user's layer has it."""
    registry().register("mine/net", like="tiny/net", weights=mine, project=True)
    assert registry().layer_of("mine/net").name == "project"
    assert [p.parent.name for p in tmp_path.glob("registry.d/*.json")] == ["registry.d"]
    registry().register("mine/net", like="tiny/net", weights=mine)
    assert registry().hidden("mine/net") == ["user"]
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert registry().layer_of("mine/net").name == "project"
    named = tmp_path / "team.json"
    named.write_text('{"schema": 1, "cards": {}}')
    registry(named).register("team/net", like="tiny/net", weights=mine, project=True)
    assert registry(named).names("team") == ["team/net"]
    assert list((tmp_path / "team.d").glob("*.json"))
    assert registry().names("team") == []


def test_an_entry_is_not_replaced_unasked(registry, mine):
    """A name that the layer has is refused; with `force` the whole entry is another one."""
    registry().register("mine/net", like="tiny/net", weights=mine, licence="MIT")
    with pytest.raises(CardExists, match=r"mine/net is registered already, in .*registry\.d\. Replace it with --force"):
        registry().register("mine/net", like="tiny/net", weights=mine)
    assert registry().get("mine/net").licence == "MIT"
    registry().register("mine/net", like="tiny/net", weights=mine, force=True)
    assert registry().get("mine/net").licence == "unknown"


def test_files_are_stable(registry, mine, tmp_path):
    """An entry is one file with sorted keys: the same registration writes the same bytes, and none besides it."""
    registry().register("mine/net", like="tiny/net", weights=mine)
    (file,) = (tmp_path / "home" / "registry.d").iterdir()
    before = file.read_bytes()
    registry().register("mine/other", like="tiny/net", weights=mine)
    registry().register("mine/net", like="tiny/net", weights=mine, force=True)
    assert file.read_bytes() == before
    data = json.loads(before)
    assert before.decode() == json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert list(data["cards"]) == ["mine/net"]
    assert len(list((tmp_path / "home" / "registry.d").iterdir())) == 2


MISTAKES = {
    "nothing": ({}, BadOption, "needs one of --weights FILE, --folder FOLDER and --run RUN"),
    "two": ({"weights": "a", "run": "b"}, BadOption, "needs one of --weights FILE, --folder FOLDER and --run RUN"),
    "no architecture": ({"weights": WEIGHTS}, BadOption, "needs --like CARD, or --provider and --architecture"),
    "unknown card": ({"weights": WEIGHTS, "like": "tiny/nte"}, UnknownBackbone, r"Did you mean tiny/net\?"),
    "closed card": ({"weights": WEIGHTS, "like": "text/gemini"}, ClosedModel, "its open sibling can: zoo finetune"),
    "no file": (
        {"weights": "gone.safetensors", "like": "tiny/net"},
        WeightsMissing,
        r"gone\.safetensors: no such file",
    ),
    "run and like": ({"run": "runs/a", "like": "tiny/net"}, BadOption, "--like does not go with --run: the run's own"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake, registry, tmp_path):
    """A registration that cannot be is refused with what to type, and writes nothing."""
    given, error, message = MISTAKES[mistake]
    with pytest.raises(error, match=message):
        registry().register("mine/net", **given)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ["../up", "", "a b", "/etc", "a//b", "x" * 201, "a\x1b[2J"])
def test_names(name, registry, mine, tmp_path):
    """A name that leads out of a folder, or cannot be typed, is refused, and writes nothing."""
    with pytest.raises(BadCard, match=r"expected a name of letters, digits, '\.', '_', '-' and '/'"):
        registry().register(name, like="tiny/net", weights=mine)
    assert not (tmp_path / "home").exists()


def test_unregister(registry, mine, tmp_path):
    """`unregister` removes what `register` wrote, of that layer alone; the weights stay where they are."""
    registry().register("tiny/net", like="tiny/net", weights=mine)
    registry().register("tiny/net", like="tiny/net", weights=mine, project=True)
    assert registry().unregister("tiny/net", project=True) == tmp_path / "registry.d"
    assert registry().layer_of("tiny/net").name == "user"
    assert registry().unregister("tiny/net") == tmp_path / "home" / "registry.d"
    assert registry().layer_of("tiny/net").name == "plugin zoo-tiny"
    assert mine.exists()
    with pytest.raises(UnknownBackbone, match=r"tiny/net is not registered in .* Type 'zoo show tiny/net'"):
        unregister("tiny/net")


def test_the_command(zoo, mine, tmp_path):
    """`zoo register` says what it hides and what to type next; a registered backbone is listed, shown and used."""
    answer = zoo("register", "tiny/net", "--like", "tiny/net", "--weights", mine, "--license", "MIT")
    assert answer.code == 0, answer.err
    assert (
        answer.out
        == "tiny/net registered. It hides the card of that name in: plugin zoo-tiny. Next: zoo show tiny/net\n"
    )
    shown = zoo("show", "tiny/net").out
    assert "layer         user, hides plugin zoo-tiny" in shown
    assert f"file:{mine} (sha256 " in shown
    assert (
        zoo("register", "a/net", "--like", "tiny/net", "--weights", mine, "--json").json["card"]["parent"] == "tiny/net"
    )
    assert zoo("register", "a/net", "--like", "tiny/net", "--weights", mine).code == 2
    assert zoo("unregister", "a/net").out == f"a/net removed from {tmp_path / 'home' / 'registry.d'}.\n"
    assert zoo("unregister", "a/net").code == 2


def test_the_front_door(installed, mine):
    """The same from Python: `zoo_core.registry()` registers and removes, `zoo_core.load_backbone` loads."""
    zoo_core.registry().register("mine/net", like="tiny/net", weights=mine)
    body = zoo_core.load_backbone("mine/net")
    assert body.model.state_dict().keys() <= load_file(mine).keys()
    zoo_core.registry().unregister("mine/net")
    with pytest.raises(UnknownBackbone):
        zoo_core.load_backbone("mine/net")
    api.installed.cache_clear()
