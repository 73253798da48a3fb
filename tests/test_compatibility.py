"""What earlier versions wrote is opened by this one: `tests/freeze_fixtures.py` freezes a version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zoo_core import bundling, upkeep
from zoo_core.cli import main
from zoo_core.files import read_json
from zoo_core.layers import load_registry
from zoo_core.runs import Run
from zoo_core.shelves import Shelf
from zoo_core.weights import load_backbone

VERSIONS = sorted(path.name for path in (Path(__file__).parent / "fixtures").glob("zoo-*"))


@pytest.fixture(params=VERSIONS)
def frozen(request, tmp_path, monkeypatch):
    """What a version wrote, in the working directory; its registry is the user's."""
    shutil.copytree(Path(__file__).parent / "fixtures" / request.param, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    return read_json(tmp_path / "expected.json")


def test_some_version_is_frozen():
    """At least this version's own files are there."""
    assert "zoo-0.1" in VERSIONS


def test_registries_open(frozen, plugins):
    """A registry of every earlier version opens, and its weights have the digest they had."""
    registry = load_registry(plugins)
    assert registry.problems == ()
    body = load_backbone(registry.get("mine/frozen"), plugins)
    assert body.digest() == frozen["registered"]
    assert [card.name for card in bundling.unbundle(Path("bundle"), Path("elsewhere.json"))] == ["tiny/net"]


def test_stores_open(frozen):
    """Activations of every earlier version can be read; none is taken for damaged."""
    places = sorted(Path("activations").iterdir())
    assert [place.name for place in places] == sorted(frozen["shelves"])
    for place in places:
        about = upkeep.about(place)
        shelf = Shelf(place, about["kind"])
        shelf.refresh()
        expected = frozen["shelves"][place.name]
        assert len(shelf.rows) == expected["rows"]
        first = shelf.gather([min(shelf.rows)])[0]
        assert first.double().sum().item() == pytest.approx(expected["first"], rel=1e-9)
    assert not list(Path("activations").rglob("*.damaged"))


def test_runs_open(frozen, plugins):
    """A run of every earlier version answers as it did, and shows its figures."""
    run = Run("run", plugins)
    assert run.metrics == frozen["test"]
    for found in run.predict("photos"):
        assert found.row == pytest.approx(frozen["answers"][found.path], abs=1e-4)


def test_runs_are_gone_on_with(frozen, installed, monkeypatch):
    """A run that an earlier version began is ended by this one, with the weights that it would have had there."""
    Path("begun").rename("again.unfinished")
    monkeypatch.setattr("sys.argv", ["zoo", "finetune", "--resume", "again"])
    with pytest.raises(SystemExit) as ending:
        main()
    assert not ending.value.code
    assert Run("again").summary["resumed"] is True
    ours, theirs = (load_file(f"{name}/model.safetensors") for name in ("again", "run"))
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-3, atol=1e-5)
