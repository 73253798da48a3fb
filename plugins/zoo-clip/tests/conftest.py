"""Fixtures: a home of the test's own, and tiny models of every kind in the files that open_clip writes."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tiny_clips import CONFIGS, write_folder


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A cache, a home and a working directory of the test's own."""
    for name in [n for n in os.environ if n.startswith("ZOO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder of each kind as upstream writes it."""
    where = tmp_path_factory.mktemp("clips")
    return {kind: write_folder(where / kind, kind) for kind in CONFIGS}
