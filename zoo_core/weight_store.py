"""Weights (and tokenizers) that zoo keeps itself, in `ZOO_HOME/weights`: named by their own sha256, never changed.

Runs that became backbones and what bundles brought lie here. A card names such a file by its digest
alone (`store:SHA256`), so no card can lead out of the folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from zoo_core.card import is_sha256
from zoo_core.entries import refuse_links
from zoo_core.files import publish_object
from zoo_core.places import home_folder

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".json")


def store_folder() -> Path:
    """Where the files lie."""
    return home_folder() / "weights"


def stored(sha256: str, folder: Path | None = None) -> Path | None:
    """The file of that digest, of the store or of another folder that is laid out like it; None if it is not there.

    Raises:
        LinkRefused: what has its name is a link.
    """
    if not is_sha256(sha256):
        return None
    for suffix in SUFFIXES:
        path = (folder or store_folder()) / f"{sha256}{suffix}"
        if path.is_symlink() or path.exists():
            refuse_links(path)
            return path
    return None


def keep(write: Callable[[Path], object], folder: Path | None = None, suffix: str = ".safetensors") -> Path:
    """Publish what `write` writes into a path, named by its sha256; the same bytes are kept once."""
    return publish_object(folder or store_folder(), "", suffix if suffix in SUFFIXES else ".bin", write)


def keep_copy(path: Path, folder: Path | None = None) -> Path:
    """Publish a copy of a file."""
    return keep(lambda temp: shutil.copyfile(path, temp), folder, path.suffix)
