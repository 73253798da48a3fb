"""Weights in several safetensors beside an index, as transformers writes large models: `*.safetensors.index.json`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zoo_core.errors import WeightsMismatch, shown
from zoo_core.files import read_json, sha256_file

if TYPE_CHECKING:
    from torch import Tensor

ENDING = ".safetensors.index.json"
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")


def is_index(path: Path) -> bool:
    """Whether a file's name says that it is such an index."""
    return path.name.endswith(ENDING)


def parts(index: Path) -> list[Path]:
    """The files that an index names; they lie beside it, whether they are there or not.

    Raises:
        WeightsMismatch: it is no such index, or names a file elsewhere or of another kind.
    """
    data = read_json(index)
    names = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(names, dict) or not names:
        raise WeightsMismatch(f"{index} is no index of weights; expected an object with a weight_map.")
    files = set(names.values()) if all(isinstance(name, str) for name in names.values()) else {""}
    strange = sorted(name for name in files if not _PLAIN.fullmatch(name))
    if strange:
        raise WeightsMismatch(f"{index} names {shown(strange[0])}; expected names of .safetensors beside it.")
    return [index.with_name(name) for name in sorted(files)]


def digest(index: Path) -> str:
    """sha256 (hex) over the lines `sha256  name` of the index and of its parts, as `sha256sum` prints them."""
    sha = hashlib.sha256()
    for path in (index, *parts(index)):
        sha.update(f"{sha256_file(path)}  {path.name}\n".encode())
    return sha.hexdigest()


def tensors(index: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor, part after part."""
    from safetensors import safe_open

    for path in parts(index):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (no mapping)
                yield name, file.get_tensor(name)


def merge(index: Path, temp: Path) -> None:
    """Write all tensors into one file."""
    from safetensors.torch import save_file

    save_file(dict(tensors(index)), temp, {"format": "pt"})
