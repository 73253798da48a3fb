"""Where things lie on this machine. `ZOO_CACHE` and `ZOO_HOME` replace the platform's folders."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Everything in it can be computed again: converted weights, activations, scan notes."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("ZOO_CACHE") or user_cache_path("zoo", appauthor=False))


def home_folder() -> Path:
    """What the user registered."""
    from platformdirs import user_data_path

    return Path(os.environ.get("ZOO_HOME") or user_data_path("zoo", appauthor=False))


def expanded(path: str | Path) -> Path:
    """A path with `~` as the user's home; one of a user whom nobody knows stays as it is written."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
