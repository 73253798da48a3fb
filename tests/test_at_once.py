"""Any number of processes may register at once."""

from __future__ import annotations

from at_once import run


def test_nothing_is_lost(tmp_path):
    """8 processes x 200 registrations at once, file locks doing nothing: all are kept, and of one name one wins."""
    found = run(8, 200, tmp_path / "many")
    assert found == {"asked": 1600, "kept": 1600, "shared": 200, "won": 200, "unreadable": 0, "strays": 0}
