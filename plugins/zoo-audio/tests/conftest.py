"""Fixtures: tiny towers in upstream's own files, made sounds."""

from __future__ import annotations

import pytest
from tiny_sounds import KINDS, write_clap, write_sounds


@pytest.fixture(scope="session")
def claps(tmp_path_factory):
    """A folder of each kind of CLAP as upstream writes it."""
    where = tmp_path_factory.mktemp("claps")
    return {kind: write_clap(where / kind, kind) for kind in KINDS}


@pytest.fixture
def sounds(tmp_path):
    """Class folders of made sounds in three formats."""
    return write_sounds(tmp_path / "sounds")
