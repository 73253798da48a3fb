"""Cards and weights in a folder, carried to a machine without network."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import zoo_tiny

from zoo_core.bundling import bundle, unbundle
from zoo_core.card import Source
from zoo_core.errors import (
    BadBundle,
    BadCard,
    BadJson,
    CardExists,
    ClosedModel,
    DigestMismatch,
    FolderExists,
    LinkRefused,
    WeightsMissing,
    ZooError,
)
from zoo_core.files import sha256_file
from zoo_core.layers import SCHEMA, load_registry
from zoo_core.old_model import known_model
from zoo_core.registering import publish_card
from zoo_core.sealed import seal
from zoo_core.weight_store import stored
from zoo_core.weights import load_backbone, locate, tokenizer_of

WEIGHTS = Path(zoo_tiny.__file__).with_name("tiny.safetensors")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """From here on this is another machine: another home, and weights nowhere but in what was carried there."""

    def elsewhere():
        monkeypatch.setenv("ZOO_HOME", str(tmp_path / "elsewhere"))
        return tmp_path / "elsewhere"

    return elsewhere


@pytest.fixture
def stick(plugins, tmp_path):
    """A bundle of two cards: one of the user's own, and one of a plugin."""
    mine = tmp_path / "mine.safetensors"
    shutil.copy(WEIGHTS, mine)
    load_registry(plugins).register("mine/net", like="tiny/net", weights=mine, licence="MIT")
    load_registry(plugins).bundle(["mine/net", "tiny/net"], tmp_path / "stick")
    mine.unlink()
    return tmp_path / "stick"


def test_there_and_back(stick, elsewhere, plugins, tiny):
    """What was bundled is listed, verified and loaded on the other machine; equal weights travel once."""
    assert sorted(p.name for p in stick.iterdir()) == ["cards.json", "weights"]
    assert [p.name for p in (stick / "weights").iterdir()] == [f"{sha256_file(WEIGHTS)}.safetensors"]
    home = elsewhere()
    taken = load_registry(plugins).unbundle(stick)
    shutil.rmtree(stick)
    assert [card.name for card in taken] == ["mine/net", "tiny/net"]
    registry = load_registry(plugins)
    card = registry.get("mine/net")
    assert (registry.layer_of("mine/net").name, card.licence, card.parent) == ("user", "MIT", "tiny/net")
    assert [source.uri for source in card.sources] == [f"store:{sha256_file(WEIGHTS)}"]
    assert load_backbone(card, plugins).digest() == tiny.digest()
    assert [row.state for row in registry.verify(["mine/net"])] == ["ok"]
    assert [p.name for p in (home / "weights").iterdir()] == [f"{sha256_file(WEIGHTS)}.safetensors"]


def test_sources_that_mean_the_same_everywhere_stay(stick, elsewhere, plugins):
    """A bundled card keeps its packages and hub sources behind the file that travels; paths of one machine are left."""
    elsewhere()
    unbundle(stick)
    uris = [source.uri.partition(":")[0] for source in load_registry(plugins).get("tiny/net").sources]
    assert uris == ["store", "package"]


def test_twice_is_once(stick, elsewhere, plugins):
    """The same bundle taken over again changes nothing; another card of the name asks for `force`."""
    elsewhere()
    unbundle(stick)
    assert len(unbundle(stick)) == 2
    load_registry(plugins).unregister("mine/net")
    load_registry(plugins).register("mine/net", like="tiny/net", weights=WEIGHTS)
    with pytest.raises(CardExists, match=r"mine/net is registered already"):
        unbundle(stick)
    assert load_registry(plugins).get("mine/net").licence == "unknown"
    unbundle(stick, force=True)
    assert load_registry(plugins).get("mine/net").licence == "MIT"


def test_the_project_takes_it_over(stick, elsewhere, plugins, tmp_path):
    """A bundle may go into the project's layer."""
    elsewhere()
    load_registry(plugins).unbundle(stick, project=True)
    assert load_registry(plugins).layer_of("mine/net").name == "project"


def test_the_head_of_a_run_travels(make, plugins, elsewhere, tmp_path):
    """A registered run goes with its head: elsewhere its old task can be kept, too."""
    load_registry(plugins).register("mine/photos", run=make("p").path, plugins=plugins)
    load_registry(plugins).bundle(["mine/photos"], tmp_path / "stick")
    head = load_registry(plugins).get("mine/photos").extra["x-run"]["head"]["sha256"]
    assert stored(head, tmp_path / "stick" / "weights")
    elsewhere()
    unbundle(tmp_path / "stick")
    body = load_backbone(load_registry(plugins).get("mine/photos"), plugins)
    known = known_model(body, plugins)
    assert known.classes == ("blue", "green", "red")
    assert known.origin == "the head linear of the run it comes from"


def test_a_tokenizer_travels(plugins, elsewhere, tmp_path):
    """With the weights of a text backbone travels its tokenizer, from wherever it was."""
    for name, data in (("model.safetensors", WEIGHTS.read_bytes()), ("tokenizer.json", b'{"version": "1.0"}')):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / name).write_bytes(data)
    like = load_registry(plugins).get("tiny/net")
    source = Source(f"file:{tmp_path}/text/model.safetensors")
    publish_card(
        replace(like, name="mine/text", modality="text", sources=(source,)), tmp_path / "registry.json", force=True
    )
    bundle(load_registry(plugins), ["mine/text"], tmp_path / "stick")
    shutil.rmtree(tmp_path / "text")
    elsewhere()
    (card,) = unbundle(tmp_path / "stick")
    side = tokenizer_of(card)
    assert side is not None
    found = locate(side)
    assert found is not None
    assert found.read_bytes() == b'{"version": "1.0"}'


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("text/gemini", ClosedModel, "text/gemini cannot be fine-tuned"),
        ("cnn/resnet18.a1_in1k", WeightsMissing, "Type: zoo pull cnn/resnet18.a1_in1k"),
    ],
)
def test_what_cannot_be_bundled(name, error, message, plugins, tmp_path):
    """A closed model, and weights that are not here, stop the bundle; nothing is left of it."""
    with pytest.raises(error, match=message):
        bundle(load_registry(plugins), ["tiny/net", name], tmp_path / "stick")
    assert not list(tmp_path.glob("stick*"))


def test_damage_is_found_before_it_travels(plugins, tmp_path):
    """Weights that are not what the card says stop the bundle; a folder that is there is never written into."""
    mine = tmp_path / "mine.safetensors"
    shutil.copy(WEIGHTS, mine)
    load_registry(plugins).register("mine/net", like="tiny/net", weights=mine)
    mine.write_bytes(WEIGHTS.read_bytes()[:-1] + b"!")
    with pytest.raises(DigestMismatch, match="but the card says"):
        bundle(load_registry(plugins), ["mine/net"], tmp_path / "stick")
    assert not list(tmp_path.glob("stick*"))
    (tmp_path / "stick").mkdir()
    with pytest.raises(FolderExists, match=r"stick is already there\. Give another --out"):
        bundle(load_registry(plugins), ["tiny/net"], tmp_path / "stick")


def edited(stick, change):
    """Change the cards of a bundle, and seal them again: a seal keeps no attacker out."""
    data = json.loads((stick / "cards.json").read_text())
    change(data)
    (stick / "cards.json").write_text(json.dumps(seal(data)))


def _flip(stick):
    (file,) = (stick / "weights").iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _link(stick):
    (file,) = (stick / "weights").iterdir()
    file.rename(stick / "away")
    file.symlink_to(stick / "away")


def _hard_link(stick):
    (file,) = (stick / "weights").iterdir()
    os.link(file, stick / "again")


def _cards_link(stick):
    (stick / "cards.json").rename(stick / "other.json")
    (stick / "cards.json").symlink_to("other.json")


def _source(uri):
    return lambda stick: edited(stick, lambda d: d["cards"]["mine/net"]["sources"].insert(0, {"uri": uri}))


def _second(uri):
    return lambda stick: edited(stick, lambda d: d["cards"]["mine/net"]["sources"].append({"uri": uri}))


HOSTILE = {
    "flipped bit": (_flip, BadBundle, r"is damaged: it has sha256 [0-9a-f]{64}\. Copy the bundle again"),
    "no weights": (lambda s: shutil.rmtree(s / "weights"), BadBundle, "are not in it|is not in it"),
    "no cards": (lambda s: (s / "cards.json").unlink(), BadBundle, "is no bundle"),
    "weights are a link": (_link, LinkRefused, "is no regular file; expected no links here"),
    "weights are a hard link": (_hard_link, LinkRefused, "is a hard link to a file elsewhere"),
    "cards are a link": (_cards_link, LinkRefused, "is no regular file; expected no links here"),
    "a path as source": (_source("file:/etc/passwd"), BadBundle, "names no file of the bundle"),
    "a path behind it": (_second("file:/etc/passwd"), BadBundle, "names 'file:/etc/passwd', a place of one machine"),
    "another store file": (_second("store:" + "0" * 64), BadBundle, "a place of one machine"),
    "a digest that leads up": (_source("store:../../x"), BadBundle, "names no file of the bundle"),
    "unknown field": (
        lambda s: edited(s, lambda d: d["cards"]["mine/net"].update(modalty="image")),
        BadCard,
        r"unknown field 'modalty'\. Did you mean modality",
    ),
    "a newer schema": (lambda s: edited(s, lambda d: d.update(schema=SCHEMA + 1)), BadCard, "pip install -U zoo-core"),
    "a name that leads up": (
        lambda s: edited(s, lambda d: d["cards"].update({"../../up": d["cards"]["mine/net"]})),
        BadCard,
        "expected a name of letters",
    ),
    "a tokenizer elsewhere": (
        lambda s: edited(s, lambda d: d["cards"]["mine/net"].update(text={"tokenizer": "file:/etc/passwd"})),
        BadBundle,
        "a file of mine/net, sha256 'file:/etc/passwd', is not in it",
    ),
    "keys twice": (lambda s: (s / "cards.json").write_text('{"schema": 1, "schema": 1}'), BadJson, "twice"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_bundle_is_trusted_in_nothing(case, stick, elsewhere, plugins):
    """A bundle that was changed is refused in one sentence, and no card of it is registered."""
    spoil, error, message = HOSTILE[case]
    spoil(stick)
    home = elsewhere()
    with pytest.raises(error, match=message) as refused:
        unbundle(stick)
    assert isinstance(refused.value, ZooError)
    assert load_registry(plugins).names("mine/") == []
    assert not (home / "registry.d").exists()


def test_the_command(zoo, stick, elsewhere, tmp_path):
    """`zoo bundle NAME... --out DIR` says what to type on the other machine, and what it needs there."""
    answer = zoo("bundle", "tiny/net", "--out", "more")
    assert answer.out == (
        "1 backbone in more. On the other machine: zoo bundle --from more (it needs: pip install zoo-tiny)\n"
    )
    elsewhere()
    answer = zoo("bundle", "--from", stick, "--json")
    assert (answer.code, sorted(answer.json["cards"]), answer.json["needs"]) == (
        0,
        ["mine/net", "tiny/net"],
        ["zoo-tiny"],
    )
    assert zoo("show", "mine/net").code == 0
    for args in ((), ("mine/net",), ("--out", "x"), ("mine/net", "--from", "x"), ("a", "--out", "x", "--from", "y")):
        assert zoo("bundle", *args).code == 2
