"""Backbones are compared by cheap scores, then the best few by fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from zoo_core import comparing
from zoo_core.comparing import SCORES, Candidate, compare, foretold, told
from zoo_core.console import Console
from zoo_core.errors import BadOption, WeightsMissing
from zoo_core.layers import load_registry
from zoo_core.recipe import Recipe


class Fixed:
    """A registry of the tiny network under several names, one of them without weights."""

    def __init__(self, plugins):
        self.card = load_registry(plugins).get("tiny/net")

    def get(self, name):
        size = (3, 24, 24) if name == "tiny/small" else self.card.input.size
        sources = () if name == "tiny/lost" else self.card.sources
        return replace(self.card, name=name, input=replace(self.card.input, size=size), sources=sources)


@pytest.fixture
def recipe(photos):
    return Recipe(str(photos), "tiny/net", freeze="full", epochs=2, device="cpu", val_share=0.3)


def test_a_comparison(recipe, plugins):
    """Every backbone is scored on the training side; finalists are fine-tuned; one without weights is left out."""
    names = ["tiny/net", "tiny/small", "tiny/lost", "tiny/net"]
    found = compare(recipe, names, Fixed(plugins), plugins, Path("runs"), 2, Console())
    assert [c.backbone for c in found][2] == "tiny/lost"
    assert "weights" in found[2].left_out
    for candidate in found[:2]:
        assert set(candidate.scores) == set(SCORES)
        assert candidate.run.summary["freeze"]["requested"] == "full"
        assert 0 <= candidate.held_out <= 1
    assert found[0].held_out >= found[1].held_out
    rows = told(found)["backbones"]
    assert rows[0]["test"]["accuracy_ci"]
    assert all((Path("runs") / name / "COMMIT").is_file() for name in ("tiny-net", "tiny-small"))


def test_scores_alone(recipe, plugins):
    """Without finalists nothing is trained, and the order is by mean rank over the scores."""
    found = compare(recipe, ["tiny/small", "tiny/net"], Fixed(plugins), plugins, Path("runs"), 0, Console())
    assert [c.rank for c in found] == sorted(c.rank for c in found)
    assert sum(c.rank for c in found) == pytest.approx(3.0)
    assert foretold(found) == {}
    assert not Path("runs").exists()


def test_how_well_scores_foretold(monkeypatch):
    """Each score is told how many pairs of finalists it put in the order that fine-tuning found; ties tell nothing."""
    monkeypatch.setattr(Candidate, "held_out", property(lambda c: c.seconds))
    scores = [dict.fromkeys(SCORES, 0.1) | {"logme": value} for value in (1.0, 2.0, 0.0)]
    found = [
        Candidate(str(i), scores=s, seconds=held)
        for i, (s, held) in enumerate(zip(scores, (0.9, 0.8, 0.7), strict=True))
    ]
    assert foretold(found)["logme"] == {"right": 2, "pairs": 3}
    assert foretold(found)["probe"] == {"right": 0, "pairs": 3}
    found[1].seconds = 0.9
    assert foretold(found)["logme"]["pairs"] == 2


def test_mistakes(recipe, plugins):
    """One backbone is no comparison, and none with weights is an error that says what to type."""
    with pytest.raises(BadOption, match="compare needs two backbones or more, got 1"):
        compare(recipe, ["tiny/net", "tiny/net"], Fixed(plugins), plugins, Path("runs"), 1, Console())
    fixed = Fixed(plugins)
    monkey = fixed.get("tiny/lost")
    fixed.get = lambda name: replace(monkey, name=name)
    with pytest.raises(WeightsMissing, match="none of the backbones can be loaded"):
        compare(recipe, ["tiny/a", "tiny/b"], fixed, plugins, Path("runs"), 1, Console())
    assert comparing.AT_MOST > 0
