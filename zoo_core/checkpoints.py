"""Where a training stands, on disk: safetensors and JSON in a new folder for each step, a COMMIT last, two kept.

Nothing is pickled. Order and dropout are functions of (seed, epoch), so a checkpoint is small: the trained tensors,
the optimiser's, those of the best epoch, and a page of numbers. A folder without COMMIT, or with a file that is not
the one COMMIT names, is passed over for the one before it.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from zoo_core import device, tensors
from zoo_core.errors import BadJson
from zoo_core.files import make_folder, put_aside, read_json, remove_tree, sha256_file, write_json

if TYPE_CHECKING:
    from zoo_core.averaging import Average
    from zoo_core.collapse import Watch
    from zoo_core.fit import Model

KEPT = 2
SPARE = 20
"""A checkpoint is due when this many times its own duration have gone by since the one before: 5 % of the time."""
WITHIN = 60.0
"""Seconds between two checkpoints inside an epoch, at least."""
_FORMAT = 1


@dataclass
class Standing:
    """Where a training stands between two steps.

    Attributes:
        phase: its number; -1 before the first.
        first, last: epochs between which the phase lies; a budget may have drawn `last` nearer.
        step: steps of the running epoch that are done.
        total: sum of the losses over them [].
        spent: seconds of the running epoch before this process.
        tick: when the running epoch would have begun in this process, by `time.perf_counter`.
        elapsed: seconds of the whole training before this process.
        best_score, best_epoch: of the weights that will be kept.
        history: a line for each finished epoch.
        best: those weights; `None` while there are none but the first.
    """

    phase: int = -1
    first: int = 0
    last: int = 0
    step: int = 0
    total: float | Tensor = 0.0
    spent: float = 0.0
    tick: float = 0.0
    elapsed: float = 0.0
    best_score: float = math.inf
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None

    def enter(self, phase: int, epochs: int) -> None:
        """A phase of so many epochs begins."""
        self.phase, self.first, self.last = phase, len(self.history), len(self.history) + epochs


class Memory:
    """Checkpoints of one training. Without a folder it remembers nothing, and training is as if it were not there.

    Attributes:
        about: plain data that each checkpoint carries for the caller: which attempt, at which rate.
        optimiser_digest: sha256 of the optimiser's tensors after the last epoch of the training.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.about: dict[str, Any] = {}
        self.optimiser_digest = ""
        self._found: Path | None = None
        self._state: dict[str, Any] = {}
        self._stop = 0
        self._cost, self._last = 0.0, time.perf_counter()

    def look(self) -> dict[str, Any] | None:
        """What the newest whole checkpoint carries in `about`; damaged ones are put aside. None where there is none."""
        self._found = None
        for path in reversed(_steps(self.folder)) if self.folder else ():
            if (state := _checked(path)) is not None:
                self._found, self._state = path, state
                return dict(state["about"])
        return None

    def forget(self) -> None:
        """The next training begins at its beginning."""
        self._found = None

    def recall(self, model: Model, watch: Watch | None) -> Standing:
        """Put model and watch back to where the newest checkpoint was made, and say where that is."""
        if self._found is None:
            return Standing()
        state = self._state
        at = Standing(**_read(state["at"]))
        model.restore(load_file(self._found / "model.safetensors"))
        where = model.device
        if (self._found / "best.safetensors").exists():
            at.best = {n: t.to(where) for n, t in load_file(self._found / "best.safetensors").items()}
        elif at.best_epoch >= 0:  # the weights of the checkpoint were the best ones
            at.best = {n: t.detach().clone() for n, t in model.trained(model.plan.depth).items()}
        at.total = torch.tensor(at.total, device=where)
        if watch:
            watch.put_back(_read(state["watch"]), where)
        return at

    def put_back(self, optimiser: torch.optim.Optimizer, average: Average | None = None) -> None:
        """Give a new optimiser, and average, the state that the checkpoint's had, each tensor laid out as before."""
        if self._found is None:
            return
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for name, value in load_file(self._found / "optimiser.safetensors").items():
            number, _, key = name.partition(".")
            parameter = parameters[int(number)]
            like = key != "step" and value.shape == parameter.shape
            optimiser.state[parameter][key] = torch.empty_like(parameter).copy_(value) if like else value
        if average:
            values = load_file(self._found / "average.safetensors")
            average.steps = self._state["average_steps"]
            for i, value in enumerate(average.values):
                value.copy_(values[str(i)])

    def put_back_random(self, where: torch.device) -> None:
        """Put the generators back to where they were between two steps."""
        if self._found is not None:
            device.set_random_state(where, load_file(self._found / "random.safetensors"))

    def keep(
        self,
        at: Standing,
        model: Model,
        optimiser: torch.optim.Optimizer,
        watch: Watch | None,
        average: Average | None,
        started: float,
    ) -> None:
        """Write a checkpoint if one is due, or if the user wants to stop.

        Args:
            started: when this process would have begun, had it done all that is done, by `time.perf_counter`.

        Raises:
            KeyboardInterrupt, SystemExit: the user, or the machine's owner, asked to stop; everything is written.
            DiskFull: it cannot be written; the ones before stay.
        """
        if self.folder is None:
            return
        now = time.perf_counter()
        rest = max(SPARE * self._cost, WITHIN if at.step else 0.0)
        if not self._stop and (now - self._last < rest or not math.isfinite(float(at.total))):
            return
        self._write(at, model, optimiser, watch, average, now - started)
        self._last = time.perf_counter()
        self._cost = self._last - now
        if self._stop == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if self._stop:
            raise KeyboardInterrupt

    def ended(self, optimiser: torch.optim.Optimizer) -> None:
        """The training is over."""
        self.optimiser_digest = tensors.digest(_optimiser_tensors(optimiser))

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Let Ctrl-C, and SIGTERM, wait for the end of the step; a second one does not wait."""
        if self.folder is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop = number
            for known, handler in before.items():
                signal.signal(known, handler)

        self._stop = 0
        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _write(
        self,
        at: Standing,
        model: Model,
        optimiser: torch.optim.Optimizer,
        watch: Watch | None,
        average: Average | None,
        elapsed: float,
    ) -> None:
        assert self.folder is not None
        folder = self.folder / f"{self.about.get('attempt', 0)}-{len(at.history):06}-{at.step:06}"
        if (folder / "COMMIT").exists():
            return  # this very step, recomputed
        remove_tree(folder)  # begun by a process that was killed
        make_folder(folder)
        parts = {
            "model": model.trained(model.plan.depth),
            "optimiser": _optimiser_tensors(optimiser),
            "random": device.random_state(model.device),
        }
        if average:
            parts["average"] = {str(i): value for i, value in enumerate(average.values)}
        if at.best is not None and (average or at.step or at.best_epoch != len(at.history) - 1):
            parts["best"] = at.best
        for name, part in parts.items():
            tensors.write(folder / f"{name}.safetensors", part)
        stands = {k: v for k, v in vars(at).items() if k not in ("best", "tick")}
        stands |= {"total": float(at.total), "elapsed": elapsed}
        stands["spent"] = time.perf_counter() - at.tick if at.step else 0.0
        state = {"about": self.about, "at": _plain(stands), "watch": _plain(watch.state() if watch else {})}
        state["average_steps"] = average.steps if average else 0
        write_json(folder / "state.json", state)
        files = {p.name: sha256_file(p) for p in sorted(folder.iterdir())}
        write_json(folder / "COMMIT", {"format": _FORMAT, "files": files})
        for old in _steps(self.folder)[:-KEPT]:
            remove_tree(old)


def _steps(folder: Path) -> list[Path]:
    """Folders of steps, the newest last; whether they are whole is not looked at."""
    return sorted(p for p in folder.glob("*-*-*") if p.is_dir() and p.name[-1].isdigit())


def _checked(path: Path) -> dict[str, Any] | None:
    """The state of a checkpoint if all its files are as COMMIT says."""
    try:
        files = read_json(path / "COMMIT")["files"]
        if all(sha256_file(path / Path(name).name) == sha for name, sha in files.items()):
            state = dict(read_json(path / "state.json"))
            dict(state["about"]), dict(state["at"]), dict(state["watch"]), int(state["average_steps"])
            return state
    except (BadJson, OSError, KeyError, TypeError, ValueError, AttributeError):
        if not (path / "COMMIT").exists():
            return None
    put_aside(path)
    return None


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of each parameter in the order of the groups, as `number.key`."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    return {f"{i}.{key}": value for i, p in enumerate(parameters) for key, value in optimiser.state[p].items()}


def _plain(value: Any) -> Any:
    """Plain data as strict JSON takes it: numbers that are not finite become text."""
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _read(value: Any) -> Any:
    """What `_plain` was given."""
    if isinstance(value, dict):
        return {key: _read(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_read(v) for v in value]
    return float(value) if value in ("nan", "inf", "-inf") else value
