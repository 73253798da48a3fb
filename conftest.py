"""For all tests, those of the core and those of the plugins: each runs alone in folders of its own."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch on import; threads waiting for one another on tiny
# tensors made these tests up to 25 times slower on a busy machine

from zoo_core import api


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A cache, a home and a working directory of the test's own; no `ZOO_` variable from outside."""
    for name in [n for n in os.environ if n.startswith("ZOO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    api.installed.cache_clear()
