"""`zoo verify`: every byte read again, and compared with what is known of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import zoo_tiny

from zoo_core.card import Source
from zoo_core.errors import UnknownBackbone
from zoo_core.layers import load_registry
from zoo_core.registering import publish_card
from zoo_core.verifying import verify

WEIGHTS = Path(zoo_tiny.__file__).with_name("tiny.safetensors")


@pytest.fixture
def mine(plugins, tmp_path):
    """A registered backbone, and its weights file."""
    path = tmp_path / "mine.safetensors"
    shutil.copy(WEIGHTS, path)
    load_registry(plugins).register("mine/net", like="tiny/net", weights=path)
    return path


def states(plugins, *names):
    """State of each row, by card."""
    return [(row.name, row.state) for row in verify(load_registry(plugins), names or None)]


def test_whole_weights(plugins, mine):
    """Weights with the digest that their card says are ok; without names, all that are on this machine are read."""
    assert states(plugins, "mine/net") == [("mine/net", "ok")]
    found = dict(states(plugins))
    assert (found["mine/net"], found["tiny/net"]) == ("ok", "ok")
    assert "missing" not in found.values()
    (row,) = verify(load_registry(plugins), ["mine/net"])
    assert (row.uri, len(row.sha256), row.fine) == (f"file:{mine}", 64, True)


@pytest.mark.parametrize("place", [0, 100, -1])
def test_one_flipped_bit(plugins, mine, place):
    """One flipped bit, in the header or in a tensor, is found, and said with what to do."""
    data = bytearray(mine.read_bytes())
    data[place] ^= 1
    mine.write_bytes(data)
    (row,) = verify(load_registry(plugins), ["mine/net"])
    assert (row.state, row.fine) == ("damaged", False)
    assert "but the card says" in row.note
    assert row.note.endswith("Remove it and get it again.")


def test_every_source_is_read(plugins, mine, tmp_path):
    """Of a card with two places, both are read: a damaged spare is found before it is needed."""
    shutil.copy(WEIGHTS, tmp_path / "spare.safetensors")
    card = load_registry(plugins).get("mine/net")
    spare = Source(f"file:{tmp_path / 'spare.safetensors'}", "0" * 64)
    publish_card(replace(card, sources=(*card.sources, spare)), tmp_path / "home" / "registry.json", force=True)
    assert states(plugins, "mine/net") == [("mine/net", "ok"), ("mine/net", "damaged")]


def test_what_cannot_be_compared(plugins, mine, tmp_path):
    """Without a known digest a file is unpinned, not ok; weights that are not here are missing, with what to type."""
    card = load_registry(plugins).get("mine/net")
    publish_card(replace(card, sources=(Source(f"file:{mine}"),)), tmp_path / "home" / "registry.json", force=True)
    assert states(plugins, "mine/net") == [("mine/net", "unpinned")]
    mine.unlink()
    (row,) = verify(load_registry(plugins), ["mine/net"])
    assert (row.state, row.fine) == ("missing", False)
    assert f"put the file at {mine}" in row.note
    (row,) = verify(load_registry(plugins), ["text/gemini"])
    assert row.note.startswith("text/gemini cannot be fine-tuned: Google publishes neither")


def test_a_card_that_fits_no_schema(plugins, mine, tmp_path):
    """A card that does not fit the schema is a row of its own; the others are read all the same."""
    bad = {"provider": "tiny", "architecture": "tiny", "sources": [{"uri": "ftp://x"}]}
    worse = {"provider": "tiny", "architecture": "tiny", "modalty": "image"}
    cards = {"schema": 1, "cards": {"bad/net": bad, "worse/net": worse}}
    (tmp_path / "registry.json").write_text(json.dumps(cards))
    found = dict(states(plugins))
    assert (found["bad/net"], found["worse/net"], found["mine/net"]) == ("bad card", "bad card", "ok")


def test_an_unknown_name(plugins):
    """A name that no card has is an error, not a row."""
    with pytest.raises(UnknownBackbone, match=r"unknown backbone 'tiny/nte'"):
        verify(load_registry(plugins), ["tiny/nte"])


def test_the_command(zoo, plugins, mine):
    """`zoo verify` prints a row for each source and exits with 1 if anything is wrong; it wants names or `--all`."""
    assert zoo("verify", "mine/net").out.splitlines()[-1] == "1 checked: 1 ok."
    assert zoo("verify", "--all", "--json").code == 0
    mine.write_bytes(b"")
    answer = zoo("verify", "mine/net", "tiny/net", "--json")
    assert answer.code == 1
    assert [(row["name"], row["fine"]) for row in answer.json] == [("mine/net", False), ("tiny/net", True)]
    assert zoo("verify", "--all").code == 1
    assert zoo("verify").code == zoo("verify", "mine/net", "--all").code == 2
