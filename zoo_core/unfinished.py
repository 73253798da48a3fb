"""`NAME.unfinished`: where a run is written, so that nothing half-written ever looks finished.

It begins with the recipe, holds the progress of the training, and takes its name when COMMIT is in it. What a
killed process left is gone on with, or named: it is never deleted in silence.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from zoo_core.console import Console
from zoo_core.errors import BadJson, BadRecipe, DiskFull, FreezeBroken, ResumeRefused, RunDamaged, RunExists, UsageError
from zoo_core.files import make_folder, read_json, remove, remove_tree, sha256_file, take_name, write_json
from zoo_core.progress import Progress
from zoo_core.recipe import Recipe
from zoo_core.unwritable import named

RUN_FORMAT = 1
SUFFIX, PROGRESS, COMMIT = ".unfinished", "progress", "COMMIT"
_OURS = {
    *("COMMIT", "audit.json", "card.json", "labels.json", "metrics.jsonl", "model.safetensors", "plan.json"),
    *("predictions.csv", "recipe.toml", "report.html", "summary.json", PROGRESS),
}
"""What a run's folder may hold: one with anything else in it is somebody's, and stays."""


_MADE_AGAIN = ("report.html",)
"""Made of the other files: no digest of it is kept."""


class Unfinished:
    """The folder of a run that is being made.

    Attributes:
        out: the run's folder once it is finished.
        folder: the one it is written into.
        progress: of the training.
    """

    def __init__(self, out: Path, recipe: Recipe | None = None, *, force: bool = False, console: Console | None = None):
        self.out, self.recipe, self.force, self.console = out, recipe, force, console or Console()
        self.folder = out.with_name(out.name + SUFFIX)
        self.progress = Progress(self.folder / PROGRESS, self.console)
        self._lock: IO[bytes] | None = None

    def settle(self) -> bool:
        """Finish what an earlier process had written whole but not named; whether that is this very recipe's run."""
        if not (self.folder / COMMIT).is_file() or not self._whole():
            return False
        same = self._begun() == self.recipe
        self._take_its_name()
        return same

    def begin(self) -> None:
        """Make the folder, or go on in the one that is there.

        Raises:
            RunExists: `out` is there, or another process is at work on it.
            ResumeRefused: an unfinished run of another recipe is there, or a folder that is none.
        """
        if self.out.exists() and not self.force:
            raise RunExists(f"{self.out} is already there. Give another --out, or replace it with --force.")
        if self.out.exists() and not (self.out / COMMIT).is_file() and any(self.out.iterdir()):
            raise RunExists(f"{self.out} is not a run, so --force does not replace it. Give another --out.")
        if self.folder.exists():
            self._check_folder()
        make_folder(self.folder / PROGRESS)
        self._hold()
        if self.recipe is not None and not (self.folder / "recipe.toml").exists():
            self.recipe.save(self.folder / "recipe.toml")

    def commit(self) -> None:
        """Digests of all files, COMMIT, and the name."""
        names = sorted(p.name for p in self.folder.iterdir() if p.is_file() and p.name not in _MADE_AGAIN)
        files = {name: sha256_file(self.folder / name) for name in names}
        write_json(self.folder / COMMIT, {"format": RUN_FORMAT, "files": files})
        self._take_its_name()
        self._release()

    def leave(self, error: BaseException | None) -> None:
        """After an error: keep what was worth the time, and say how to go on; remove the rest."""
        whole = (self.folder / COMMIT).is_file()  # but without its name
        worth = (whole or self.progress.worth) and not isinstance(error, FreezeBroken | RunDamaged)
        self._release()
        if isinstance(error, ResumeRefused | RunExists):
            return
        if worth:
            self.console.say(f"Kept      {self.folder}. Go on with: zoo finetune --resume {self.out}")
        else:
            with suppress(OSError, DiskFull):  # the error that led here is the one to tell
                remove_tree(self.folder)

    def _check_folder(self) -> None:
        strange = sorted(p.name for p in self.folder.iterdir() if p.name not in _OURS and not p.name.endswith(".tmp"))
        if strange:
            raise ResumeRefused(
                f"{self.folder} holds {strange[0]}, which no run writes. Move the folder, or give another --out."
            )
        begun, worth = self._begun(), self.progress.worth
        if begun == self.recipe and not self.force:
            self.progress.resumed = worth
            return
        if worth and not self.force:
            raise ResumeRefused(
                f"{self.folder} is an unfinished run of another recipe. Go on with it: zoo finetune --resume "
                f"{self.out}. Or give another --out, or begin again with --force."
            )
        self._hold()
        self.console.say(f"Replaced  {self.folder}, which was not finished")
        remove_tree(self.folder)

    def _begun(self) -> Recipe | None:
        """The recipe that the folder was begun with."""
        try:
            return Recipe.load(self.folder / "recipe.toml")
        except UsageError:
            return None

    def _whole(self) -> bool:
        try:
            files = read_json(self.folder / COMMIT)["files"]
            whole = all(sha256_file(self.folder / Path(name).name) == sha for name, sha in files.items())
        except (BadJson, OSError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            remove(self.folder / COMMIT)
        return whole

    def _take_its_name(self) -> None:
        """The progress goes, then the folder is renamed; a run that it replaces stays until then."""
        remove_tree(self.folder / PROGRESS)
        take_name(self.folder, self.out)

    def _hold(self) -> None:
        """Take hold of the folder until this process ends; a hint, which some network file systems do not give.

        Raises:
            RunExists: another process has it.
        """
        if os.name != "posix" or self._lock is not None or not (self.folder / PROGRESS).is_dir():
            return
        import fcntl

        path = self.folder / PROGRESS / "LOCK"
        with named(path):
            self._lock = open(path, "ab")  # noqa: SIM115  (held until the process ends)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            raise RunExists(
                f"another process is at work on {self.folder}. Wait for it, or give another --out."
            ) from None
        except OSError:
            return

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def unfinished_recipe(run: Path) -> tuple[Recipe, Path]:
    """The recipe of an unfinished run, and the folder it will have; `run` may be either name.

    Raises:
        ResumeRefused: it is finished, or there is none.
    """
    out = run.with_name(run.name.removesuffix(SUFFIX))
    folder = out.with_name(out.name + SUFFIX)
    try:
        return Recipe.load(folder / "recipe.toml"), out
    except BadRecipe as error:
        if (out / COMMIT).is_file():
            raise ResumeRefused(f"{out} is finished; there is nothing to resume. Type: zoo runs show {out}") from error
        raise ResumeRefused(f"{folder} is no unfinished run. Type 'zoo runs ls' to see what is there.") from error
