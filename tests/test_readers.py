"""Random files: every reader gives something or says clearly what is wrong."""

from __future__ import annotations

import pytest
from readers import READERS, fuzz


@pytest.mark.parametrize("name", READERS)
def test_changed_files(name):
    """A file with some bytes changed is read, or ends in one of our own errors; `python tests/readers.py` does more."""
    ends = fuzz(name, 30)
    assert ends.total() >= 30
    assert ends["read"] or name in ("export", "dataset")  # these need more files than one
