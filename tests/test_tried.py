"""Several regimes on the same data: a run each, side by side."""

from __future__ import annotations

import pytest
from photos import make_photos

from zoo_core import tried
from zoo_core.console import Console
from zoo_core.errors import BadOption, TooMuchForgotten, UnknownStrategy
from zoo_core.layers import load_registry
from zoo_core.recipe import Recipe
from zoo_core.runs import Run

REGIMES = "new-only,rehearsal:ratio=0.25,rehearsal:ratio=0.5,buffer=6,rehearsal:ratio=0.75"


@pytest.fixture
def birds(tmp_path):
    """Another folder of three classes."""
    return make_photos(tmp_path / "birds", ("crow", "duck", "owl"), seed=1)


def test_regimes_are_told_apart_from_their_fields(plugins):
    """Commas stand between regimes and between the fields of one: what names no regime is a field of the one before."""
    assert tried.regimes_of(REGIMES, plugins) == [
        "new-only",
        "rehearsal:ratio=0.25",
        "rehearsal:ratio=0.5,buffer=6",
        "rehearsal:ratio=0.75",
    ]
    assert tried.regimes_of("rehearsal:ratio=0.5,select=margin", plugins) == ["rehearsal:ratio=0.5,select=margin"]


def test_each_regime_is_a_run_and_every_page_shows_all(zoo, photos, birds):
    """One command makes a run of each and a table; every run's page has the picture and the curve over the ratio."""
    command = ("finetune", birds, "-b", "tiny/net", "--old", photos, "--epochs", 2, "--regime", REGIMES, "--out", "out")
    printed = zoo(*command)
    assert printed.code == 0, printed.err
    assert "rehearsal:ratio=0.25" in printed.out
    assert "The old model had" in printed.out
    page = (Run("out/new-only").path / "report.html").read_text(encoding="utf-8")
    assert "Old against new" in page
    assert "How much to rehearse" in page
    assert page.count('<td class="name">rehearsal') >= 3
    again = zoo(*command, "--json")
    assert "Backbone" not in again.err  # every run is there already
    rows = again.json["runs"]
    assert [row.get("ratio") for row in rows] == [0.0, 0.25, 0.5, 0.75]
    assert rows[1]["old"]["after"] == Run("out/rehearsal-ratio=0.25").summary["old"]["after"]


def test_what_is_wrong_is_said_before_anything_is_trained(make, photos, birds, plugins, tmp_path):
    """A regime named twice, or one that has no such field, is found before the first is trained."""
    given = {"data": str(birds), "backbone": "tiny/net", "old": str(photos), "device": "cpu"}
    registry = load_registry(plugins)
    with pytest.raises(BadOption, match="new-only is named twice"):
        tried.try_each(Recipe(**given, regime="new-only,new-only"), registry, plugins, tmp_path / "o", Console())
    with pytest.raises(UnknownStrategy, match="has no field 'rato'"):
        tried.try_each(Recipe(**given, regime="new-only,lwf:rato=1"), registry, plugins, tmp_path / "o", Console())
    assert not (tmp_path / "o").exists()


def test_max_forgetting_of_several(photos, birds, plugins, tmp_path):
    """With several regimes the limit is kept if one of them keeps it; else all runs stay, and the command fails."""
    given = {"data": str(birds), "backbone": "tiny/net", "old": str(photos), "device": "cpu", "lr": 0.1, "epochs": 5}
    recipe = Recipe(**given, regime="new-only,lwf:compete=all", max_forgetting=0.0, head="linear:correct=none")
    with pytest.raises(TooMuchForgotten, match=r"every regime lost more .* lost least, .* The runs are kept"):
        tried.try_each(recipe, load_registry(plugins), plugins, tmp_path / "o", Console())
    assert (tmp_path / "o" / "tried.json").is_file()
