"""Entry points without `importlib.metadata`."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from zoo_core.points import installed_points


@pytest.mark.parametrize("group", ["console_scripts", "zoo", "pytest11", "nobody.has.this"])
def test_same_as_the_standard_library(group):
    """Every entry point that Python's own reader finds is found, with its package's name and version, and no other."""
    points, damaged = installed_points(group)
    found = {(p.name, p.value, p.dist.name, p.dist.version) for p in points}
    theirs = importlib.metadata.entry_points(group=group)
    assert found == {(p.name, p.value, p.dist.name, p.dist.version) for p in theirs}
    assert not damaged


def test_load(tmp_path, monkeypatch):
    """An entry point loads its module, or the attribute that it names."""
    folder = tmp_path / "Some_Thing-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: Some.Thing\nVersion: 1.2\n\nName: of a text\n")
    (folder / "entry_points.txt").write_text("[other]\nx\n[mine]\n# none\none = json\ntwo = os:path.join [extra]\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (one, two), damaged = installed_points("mine")
    import json
    import os

    assert (one.load(), two.load()) == (json, os.path.join)
    assert (one.dist.name, one.dist.version, damaged) == ("Some.Thing", "1.2", {})


def test_the_first_on_the_path_counts(tmp_path, monkeypatch):
    """Of two installations of one package the first on the path counts, as in an import."""
    for place, version in (("a", "2.0"), ("b", "1.0")):
        folder = tmp_path / place / f"some_thing-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Name: some-thing\nVersion: {version}\n")
        (folder / "entry_points.txt").write_text("[mine]\none = json\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b"), *sys.path])
    (point,), _ = installed_points("mine")
    assert point.dist.version == "2.0"
