"""Tiny models of every kind in the files that open_clip writes."""

from __future__ import annotations

import pytest
from tiny_clips import CONFIGS, write_folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder of each kind as upstream writes it."""
    where = tmp_path_factory.mktemp("clips")
    return {kind: write_folder(where / kind, kind) for kind in CONFIGS}
