"""Cards merged from layers, a later layer replacing whole entries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo_core import layers
from zoo_core.card import Card
from zoo_core.entries import publish_entry
from zoo_core.errors import BadCard, UnknownBackbone
from zoo_core.layers import (
    SCHEMA,
    Layer,
    Registry,
    ShippedCards,
    index_path,
    load_registry,
    read_entries,
    write_shipped,
)

NET = {"provider": "tiny", "architecture": "tiny"}


def write(path: Path, cards, schema=SCHEMA) -> Path:
    """A registry file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": schema, "cards": cards}))
    return path


def test_layers(plugins, tmp_path):
    """Index, installed plugins, the user's file and the project's file: the later one wins."""
    assert load_registry(plugins).layer_of("tiny/net").name == "plugin zoo-tiny"
    write(tmp_path / "home" / "registry.json", {"tiny/net": NET, "mine/net": NET})
    assert load_registry(plugins).layer_of("tiny/net").name == "user"
    write(tmp_path / "registry.json", {"tiny/net": NET})
    registry = load_registry(plugins)
    assert [layer.name for layer in registry.layers] == ["index", "plugin zoo-tiny", "user", "project"]
    assert registry.layer_of("tiny/net").name == "project"
    assert registry.hidden("tiny/net") == ["plugin zoo-tiny", "user"]
    assert registry.layer_of("mine/net").name == "user"


def test_a_layer_replaces_the_whole_entry(plugins, tmp_path):
    """An entry of a later layer replaces the earlier one whole: nothing of it shines through."""
    assert load_registry(plugins).get("tiny/net").sources
    write(tmp_path / "registry.json", {"tiny/net": NET})
    card = load_registry(plugins).get("tiny/net")
    assert card.sources == ()
    assert card.input.size == (3, 224, 224)


def test_the_project_file_is_looked_for_upwards(plugins, tmp_path, monkeypatch):
    """`registry.json` is found from the working directory upwards, or given."""
    write(tmp_path / "registry.json", {"mine/above": NET})
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert load_registry(plugins).get("mine/above").architecture == "tiny"
    given = write(tmp_path / "given.json", {"mine/given": NET})
    names = load_registry(plugins, given).names("mine")
    assert names == ["mine/given"]


def test_a_broken_layer_is_reported_and_left_out(plugins, tmp_path):
    """A layer that cannot be read becomes a problem to report; the other layers stay usable."""
    (tmp_path / "registry.json").write_text('{"schema": 1, "cards": {"a": 1, "a": 2}}')
    registry = load_registry(plugins)
    (problem,) = registry.problems
    assert "has the key 'a' twice" in problem
    assert registry.get("tiny/net").provider == "tiny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected an object with 'schema' and 'cards'"),
        ('{"schema": 1, "cards": []}', "expected an object with 'schema' and 'cards'"),
        ('{"schema": 2, "cards": {}}', "has schema 2, this version reads up to 1. Type: pip install -U zoo-core"),
        ('{"schema": true, "cards": {}}', "has schema True, expected a number"),
        ('{"schema": 1, "card": {}, "cards": {}}', r"unknown field 'card'. Did you mean cards\?"),
        ('{"cards": {}}', "has schema None, expected a number from 1 to 1"),
    ],
)
def test_schema(tmp_path, text, message):
    """A registry file of another shape or schema is refused, with what to type."""
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(BadCard, match=message):
        read_entries(path)


def test_one_bad_card_spoils_only_itself(tmp_path):
    """An entry that does not fit the schema is an error when it is asked for, not before."""
    registry = Registry((Layer("x", tmp_path, {"good/net": NET, "bad/net": NET | {"modalty": "image"}}),))
    assert registry.names() == ["bad/net", "good/net"]
    assert registry.get("good/net").provider == "tiny"
    with pytest.raises(BadCard, match=r"card 'bad/net': unknown field 'modalty'. Did you mean modality\?"):
        registry.get("bad/net")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("cnn/tf_efficientnet_lite0.in2k", r"Did you mean cnn/tf_efficientnet_lite0.in1k"),
        ("tf_efficientnet_lite0", r"Did you mean cnn/tf_efficientnet_lite0.in1k\?"),
        ("CNN/TF_EFFICIENTNET_LITE0.IN1K", r"Did you mean cnn/tf_efficientnet_lite0.in1k\?"),
        ("qqqqqqqqqq", r"unknown backbone 'qqqqqqqqqq'. +Type 'zoo list'"),
    ],
)
def test_unknown_backbone(plugins, asked, hint):
    """An unknown backbone gives at most three near names and says how to list all."""
    with pytest.raises(UnknownBackbone, match=hint) as caught:
        load_registry(plugins).get(asked)
    assert str(caught.value).count(" or ") <= 2


def test_patterns(plugins):
    """Without wildcards a pattern is contained, with wildcards it matches; case does not matter; sorted."""
    registry = load_registry(plugins)
    assert registry.names("tiny/net") == ["tiny/net"]
    assert registry.names("TINY/*") == ["tiny/net"]
    assert registry.names("iny/ne") == ["tiny/net"]
    assert registry.names("ny/*") == []
    lites = [card.name for card in registry.cards("cnn/tf_efficientnet_lite[012].in1k")]
    assert lites == sorted(lites) == [f"cnn/tf_efficientnet_lite{i}.in1k" for i in range(3)]


def test_the_index_knows_what_is_not_installed(plugins):
    """The packaged index also shows what a plugin not yet installed would supply, with its package."""
    card = load_registry(plugins).get("cnn/tf_efficientnet_lite0.in1k")
    assert card.package == "zoo-cnn"
    assert card.provider not in plugins.supplied("provider")


def test_the_checkout_index_is_no_project(plugins, monkeypatch):
    """Working inside a checkout does not read the index a second time as the project's file."""
    monkeypatch.chdir(index_path().parent)
    assert [layer.name for layer in load_registry(plugins).layers] == ["index", "plugin zoo-tiny"]


def test_shipped_cards(tmp_path):
    """A shipped file has a card a line, reads back as what was written, and is plain registry JSON."""
    cards = {"b/net": NET, "a/net": NET | {"notes": 'says "hi", {"a": 1},'}}
    write_shipped(tmp_path / "cards.json", cards)
    assert dict(ShippedCards(tmp_path / "cards.json")) == cards == read_entries(tmp_path / "cards.json")
    assert len((tmp_path / "cards.json").read_text().splitlines()) == len(cards) + 2
    assert dict(ShippedCards(write(tmp_path / "indented.json", cards))) == cards


def test_a_damaged_shipped_card_spoils_only_itself(tmp_path):
    """A line of a shipped file that is damaged is an error when its card is asked for, with what to do."""
    path = tmp_path / "cards.json"
    write_shipped(path, {"a/net": NET, "b/net": NET})
    path.write_text(path.read_text().replace('"a/net":{', '"a/net":{{'))
    cards = ShippedCards(path)
    assert cards["b/net"] == NET
    with pytest.raises(BadCard, match=r"the card 'a/net' is damaged .* Install the package again"):
        cards["a/net"]


def test_registered_cards_stand_beside_a_registry_file(plugins, tmp_path):
    """`registry.json` and the cards registered beside it are one layer, in which what was registered wins."""
    write(tmp_path / "home" / "registry.json", {"mine/net": NET, "mine/other": NET})
    entry = {"schema": SCHEMA, "cards": {"mine/net": NET | {"notes": "registered"}}}
    publish_entry(tmp_path / "home" / "registry.d", "mine/net", entry, replace=False)
    registry = load_registry(plugins)
    assert [layer.name for layer in registry.layers] == ["index", "plugin zoo-tiny", "user"]
    assert (registry.get("mine/net").notes, registry.get("mine/other").notes) == ("registered", "")
    assert registry.hidden("mine/net") == []


def test_the_project_may_have_registered_cards_alone(plugins, tmp_path, monkeypatch):
    """A folder `registry.d` makes a project, too; a file given by name has a folder of its own name beside it."""
    entry = {"schema": SCHEMA, "cards": {"mine/net": NET}}
    publish_entry(tmp_path / "registry.d", "mine/net", entry, replace=False)
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert load_registry(plugins).layer_of("mine/net").name == "project"
    given = write(tmp_path / "other.json", {})
    assert load_registry(plugins, given).names("mine") == []
    publish_entry(tmp_path / "other.d", "mine/net", entry, replace=False)
    assert load_registry(plugins, given).names("mine") == ["mine/net"]


def test_names_are_checked(plugins, tmp_path):
    """An entry of the user's or the project's whose name no card may have is reported, escaped, and left out."""
    write(tmp_path / "registry.json", {"mine/net": NET, "../up": NET, "a\x1b[2Jb": NET})
    registry = load_registry(plugins)
    assert registry.names("mine") == ["mine/net"]
    assert len(registry.problems) == 2
    assert any("'../up' is no name for a card" in problem for problem in registry.problems)
    assert not any("\x1b" in problem for problem in registry.problems)


def test_long_lists_leave_bad_cards_out(plugins, tmp_path):
    """A list of cards goes on past one that does not fit the schema, and says which it was."""
    write(tmp_path / "registry.json", {"mine/bad": NET | {"modalty": "image"}, "mine/net": NET})
    problems: list[str] = []
    assert [name for name, _ in load_registry(plugins).plain("mine", problems)] == ["mine/net"]
    assert problems[0].startswith("card 'mine/bad': unknown field 'modalty'. Did you mean modality?")
    with pytest.raises(BadCard):
        list(load_registry(plugins).plain("mine"))


def test_older_schemas_are_upgraded(tmp_path, monkeypatch):
    """A file of an older schema is brought up to date step by step by pure functions; it stays as it was on disk."""
    path = write(tmp_path / "old.json", {"mine/net": {"backend": "tiny"}}, schema=1)
    before = path.read_bytes()
    monkeypatch.setattr(layers, "SCHEMA", 3)
    first = lambda cards: {name: {"provider": card["backend"]} for name, card in cards.items()}  # noqa: E731
    second = lambda cards: {name: card | {"architecture": name} for name, card in cards.items()}  # noqa: E731
    monkeypatch.setattr(layers, "UPGRADES", {1: first, 2: second})
    assert read_entries(path) == {"mine/net": {"provider": "tiny", "architecture": "mine/net"}}
    assert path.read_bytes() == before
    assert (
        read_entries(write(path, {"mine/net": {"provider": "p"}}, schema=2))["mine/net"]["architecture"] == "mine/net"
    )


def test_files_of_every_release_open(plugins):
    """A registry file as each schema wrote it opens in this version."""
    for schema in range(1, SCHEMA + 1):
        cards = read_entries(Path(__file__).parent / "fixtures" / f"registry-{schema}.json")
        assert Card.from_json("mine/cells", cards["mine/cells"]).openness.weights.licence == "MIT"


def test_lineage(tmp_path):
    """A card's lineage goes back from parent to parent, ends at one that no layer has, and stands a loop."""
    cards = {
        "a": NET | {"parent": "b"},
        "b": NET | {"parent": "gone"},
        "x": NET | {"parent": "y"},
        "y": NET | {"parent": "x"},
    }
    registry = Registry((Layer("x", tmp_path, cards),))
    assert registry.lineage("a") == ["b", "gone"]
    assert registry.lineage("b") == ["gone"]
    assert registry.lineage("x") == ["y"]
