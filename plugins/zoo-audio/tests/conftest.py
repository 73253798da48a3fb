"""Fixtures: every test alone in its own folders, tiny towers in upstream's own files, made sounds."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tiny_sounds import KINDS, write_clap, write_sounds


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A cache, a home and a working directory of the test's own."""
    for name in [n for n in os.environ if n.startswith("ZOO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def claps(tmp_path_factory):
    """A folder of each kind of CLAP as upstream writes it."""
    where = tmp_path_factory.mktemp("claps")
    return {kind: write_clap(where / kind, kind) for kind in KINDS}


@pytest.fixture
def sounds(tmp_path):
    """Class folders of made sounds in three formats."""
    return write_sounds(tmp_path / "sounds")
