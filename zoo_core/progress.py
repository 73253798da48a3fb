"""What an unfinished run remembers, so that it can be gone on with: facts, notes, and checkpoints of each training."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.console import Console
from zoo_core.errors import BadJson, ResumeRefused
from zoo_core.files import put_aside, read_json, remove_tree, write_json
from zoo_core.sealed import is_sealed, seal, unsealed

if TYPE_CHECKING:
    from zoo_core.checkpoints import Memory


class Progress:
    """Notes and checkpoints in a folder; without one nothing is remembered.

    Attributes:
        resumed: an earlier process had begun the run.
    """

    def __init__(self, folder: Path | None = None, console: Console | None = None, resumed: bool = False):
        self.folder, self.console, self.resumed = folder, console or Console(), resumed

    @property
    def worth(self) -> bool:
        """Whether there is anything that took time to compute."""
        if self.folder is None or not self.folder.is_dir():
            return False
        return any(p.name != "facts.json" for p in (*self.folder.glob("*.json"), *self.folder.glob("*/*/COMMIT")))

    def same(self, **facts: Any) -> None:
        """Write facts down that must be the same when the run is gone on with; compare them if it is.

        Raises:
            ResumeRefused: one is not.
        """
        if self.folder is None:
            return
        known = self.known("facts") or {}
        for name, fact in facts.items():
            if self.worth and name in known and known[name] != fact:
                raise ResumeRefused(
                    f"{self.folder.parent} was begun with {self._other(name)}: {known[name]} then, {fact} now. "
                    "Put back what it was begun with, or begin again with --force."
                )
        self.note("facts", known | facts)

    def told(self, **facts: str) -> None:
        """As `same`, for what may only change the last bits: a difference is said, and the run goes on."""
        if self.folder is None:
            return
        known = self.known("facts") or {}
        for name, fact in facts.items():
            if name in known and known[name] != fact:
                self.console.say(f"Note      {name} was {known[name]} and is {fact}: the last bits may differ")
        self.note("facts", known | facts)

    def known(self, key: str) -> Any:
        """What was noted under a key; None where nothing was, or where it is damaged."""
        if self.folder is None:
            return None
        path = self._path(key)
        with suppress(BadJson):
            if is_sealed(value := read_json(path), key):
                return unsealed(value)
        if path.exists():
            put_aside(path)
        return None

    def note(self, key: str, value: dict[str, Any]) -> None:
        """Write something down; the checkpoints under that key are done with. Raises `DiskFull`."""
        if self.folder is not None:
            write_json(self._path(key), seal(value, key))
            remove_tree(self._path(key).with_suffix(""))

    def memory(self, key: str) -> Memory:
        """Checkpoints of one training."""
        from zoo_core.checkpoints import Memory

        return Memory(self._path(key).with_suffix("") if self.folder else None)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        assert re.fullmatch(r"[a-z0-9-]+", key), key
        return self.folder / f"{key}.json"

    def _other(self, name: str) -> str:
        return {"data": "other data", "weights": "other weights", "old": "other old data"}.get(name, f"another {name}")
