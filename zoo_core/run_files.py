"""A run's files, read as what they are: data that may come from anybody.

Each file is compared with the digest in COMMIT before it is used, which finds accidents. Whoever writes a folder
writes its COMMIT, too: so whatever the files say may be nonsense, and nonsense ends in `RunDamaged`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo_core.errors import ResumeRefused, RunDamaged, ZooError
from zoo_core.files import check_plain, read_json

MAX_BYTES = 1 << 30
"""Of any one of them but the tensors."""
MAX_HEADER = 100_000_000
"""Bytes, as safetensors has it."""


@contextmanager
def reading(folder: Path, begun: Callable[[], bool] | None = None) -> Iterator[None]:
    """Use in here what a run's files say; what cannot be used is `RunDamaged`.

    Args:
        begun: of a run that is being made, whether it goes on with files from before: only then may they be what is
            wrong, which is `ResumeRefused`, and they stay.
    """
    try:
        yield
    except (ZooError, MemoryError, BrokenPipeError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or (begun and not begun()):  # torch's, of a device
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if begun:
            raise ResumeRefused(
                f"{folder} cannot be gone on with: its files do not fit together, or not this version ({reason}). "
                "Begin again with --force; if nobody has changed it, please report it."
            ) from error
        raise RunDamaged(
            f"{folder}: its files do not fit together, or not this version ({reason}). "
            "Train it again: zoo finetune --recipe; if nobody has changed it, please report it."
        ) from error


def sized(path: Path) -> Path:
    """A file of a run that may be read: a plain one, and no giant.

    Raises:
        RunDamaged: it is neither.
    """
    with reading(path):
        if check_plain(path) > MAX_BYTES and path.suffix != ".safetensors":  # a pipe or a device never ends
            raise RunDamaged(f"{path} is larger than {MAX_BYTES >> 20} MiB. Train it again.")
        if path.suffix == ".safetensors" and path.stat().st_size != (told := _told(path)):
            raise RunDamaged(f"{path} has {path.stat().st_size} bytes, but its header says {told}. Train it again.")
    return path


def _told(path: Path) -> int:
    """How many bytes a safetensors file has by its own header: a hole of terabytes is not hashed to its end."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    return 8 + length + max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0)


def read(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        RunDamaged: it holds something else.
        BadJson: it is no strict JSON.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise RunDamaged(f"{path} holds {type(found).__name__}; expected an object. Train it again.")
    return found
