"""Fixtures: a labelled folder, a real plugin with a tiny backbone, runs of it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from photos import make_photos as make_photos

from zoo_core import engine
from zoo_core.cli import main
from zoo_core.layers import load_registry
from zoo_core.plugins import discover
from zoo_core.recipe import Recipe
from zoo_core.weights import load_backbone


@pytest.fixture
def photos(tmp_path):
    """A folder of three class folders, ten small images each, that differ in colour and are never equal."""
    return make_photos(tmp_path / "photos")


@pytest.fixture
def plugins():
    """The core and the tiny plugin, found through an entry point like any other."""
    import zoo_tiny

    dist = SimpleNamespace(name="zoo-tiny", version="1.0")
    return discover([SimpleNamespace(name="tiny", value="zoo_tiny", dist=dist, load=lambda: zoo_tiny)], {})


@pytest.fixture
def tiny(plugins):
    """The tiny backbone with its pretrained weights."""
    return load_backbone(load_registry(plugins).get("tiny/net"), plugins)


@pytest.fixture
def make(photos, plugins):
    """Make a run of the tiny backbone on the photos."""

    def make(out="run", force=False, plugins=plugins, **fields):
        given = {"data": str(photos), "backbone": "tiny/net", "epochs": 2, "device": "cpu", "cache": "boundary"}
        recipe = Recipe(**given | fields)
        run = engine.finetune(recipe, load_registry(plugins), plugins, Path(out), force=force)
        assert (run.path / "report.html").is_file()  # made last, and never at the cost of a run
        return run

    return make


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The tiny plugin as pip would have installed it, also for subprocesses: `zoo` finds it by itself."""
    site, tests = tmp_path / "site", str(Path(__file__).parent)
    info = site / "zoo_tiny-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-tiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\ntiny = zoo_tiny\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), tests)))


@dataclass
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def zoo(installed, monkeypatch, capsys):
    """Run `zoo` with these arguments in this process, the tiny plugin installed."""

    def zoo(*args) -> Answer:
        monkeypatch.setattr(sys, "argv", ["zoo", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        return Answer(exit.value.code or 0, *capsys.readouterr())

    return zoo
