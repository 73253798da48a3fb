"""Reading one registry entry strictly."""

from __future__ import annotations

import pytest

from zoo_core.card import Card, Input
from zoo_core.errors import BadCard

ENTRY = {"provider": "cnn", "architecture": "resnet18"}


def test_round_trip():
    """A card written out and read back is the same card, extra `x-` fields included."""
    entry = ENTRY | {
        "input": {"size": [3, 96, 96], "crop_mode": "squash"},
        "sources": [{"uri": "file:/w.safetensors", "sha256": "a" * 64, "mapping": "by-order"}],
        "openness": {"weights": {"mark": "open", "licence": "MIT"}},
        "stages": ["stem", "neck"],
        "x-mine": {"any": ["thing"]},
    }
    card = Card.from_json("mine/net", entry)
    assert card.input.size == (3, 96, 96)
    assert card.input.mean == Input().mean
    assert card.licence == "MIT"
    assert Card.from_json("mine/net", card.to_json()) == card
    assert card.to_json()["x-mine"] == {"any": ["thing"]}


def test_defaults_are_not_written():
    """A card that says nothing but the necessary is written with nothing but the necessary."""
    assert Card.from_json("a/b", ENTRY).to_json() == ENTRY


def test_unstated_licence_is_unknown():
    """A licence that nobody stated is `unknown`, never permissive."""
    card = Card.from_json("a/b", ENTRY)
    assert card.licence == "unknown"
    assert {card.openness.code.mark, card.openness.weights.mark, card.openness.data.mark} == {"unknown"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"archtecture": "x"}, "unknown field 'archtecture'. Did you mean architecture?"),
        ({"input": {"sizes": [3, 1, 1]}}, "input: unknown field 'sizes'. Did you mean size?"),
        ({"input": {"size": [3, 224]}}, "expected 3 values, got 2"),
        ({"input": {"size": [3, 224, "224"]}}, "expected int, got '224'"),
        ({"input": {"crop_mode": "centre"}}, "got 'centre', expected one of center, squash, border"),
        ({"input": [3, 224, 224]}, "expected an object"),
        ({"stages": "stem"}, "expected a list, got 'stem'"),
        ({"parameters": True}, "expected int, got True"),
        ({"sources": [{"sha256": "a" * 64}]}, "the field 'uri' is missing"),
        ({"sources": [{"uri": "file:x", "sha256": "A1"}]}, "sha256 'A1' is not 64 hexadecimal digits"),
        ({"openness": {"code": {"mark": "free"}}}, "got 'free', expected one of open, restricted, closed, unknown"),
        ({"name": "other/name"}, "the field 'name' is not written into a card"),
    ],
)
def test_strictness(change, message):
    """An entry with an unknown field, a wrong type or a wrong value is refused, naming the field and a near one."""
    with pytest.raises(BadCard) as caught:
        Card.from_json("a/b", ENTRY | change)
    assert message in str(caught.value)
    assert "card 'a/b'" in str(caught.value)


@pytest.mark.parametrize("missing", ["provider", "architecture"])
def test_necessary_fields(missing):
    """Provider and architecture are necessary."""
    with pytest.raises(BadCard, match=f"the field '{missing}' is missing"):
        Card.from_json("a/b", {k: v for k, v in ENTRY.items() if k != missing})


@pytest.mark.parametrize("name", ["", "../x", "a//b", "/a", "a b", "a" * 201, "a/b\n"])
def test_names(name):
    """A card's name is words joined by `/`: no spaces, no climbing, at most 200 characters."""
    with pytest.raises(BadCard, match="expected a name of letters"):
        Card.from_json(name, ENTRY)


def test_entry_must_be_an_object():
    """An entry that is no object is refused."""
    with pytest.raises(BadCard, match="expected an object, got list"):
        Card.from_json("a/b", [])
