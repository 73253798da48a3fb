"""Make the Nth file operation of this process fail: no space left, a broken disk, or a kill.

Operations are counted where Python hands them to the system: creating, writing, waiting for the disk, renaming,
linking, removing, making and removing folders. A write that fails leaves half of its bytes. After a kill nothing
changes any more, whatever the process still wants to do on its way out; `killed` kills a real one.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from safetensors import SafetensorError

from zoo_core import keeping, tensors


class Killed(BaseException):
    """The process is no more."""


FAULTS = ("no space", "broken disk", "killed")
NEEDS_SPACE = ("create", "write", "mkdir", "link", "fsync")


class Operations:
    """Counts file operations, and from the one of number `at` on makes them fail.

    A full disk stays full for whatever needs space; a broken disk fails once; a kill is a kill.

    Attributes:
        done: (operation, path) of each.
        failed: names of those that failed.
    """

    def __init__(self, at: int | None = None, fault: str = ""):
        self.at, self.fault, self.dead = at, fault, False
        self.done: list[tuple[str, str]] = []
        self.failed: list[str] = []

    def __call__(self, name: str, path: Any, half: Callable[[], object] | None = None) -> None:
        """An operation is about to happen; `half` does a part of it before it fails."""
        if self.dead:
            raise Killed
        number = len(self.done)
        self.done.append((name, os.fspath(path)))
        if self.at is None or number < self.at:
            return
        full = self.fault == "no space" and name in NEEDS_SPACE
        if not full and (number > self.at or self.fault == "no space"):
            return
        self.failed.append(name)
        if half:
            half()
        if self.fault == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "killed":
            self.dead = True
            raise Killed
        code = errno.ENOSPC if full else errno.EIO
        if name == "write" and half and getattr(half, "rust", False):
            raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})")
        raise OSError(code, os.strerror(code), os.fspath(path))


class _Writer:
    """A file open for writing, whose first write is an operation."""

    def __init__(self, file: Any, path: Any, operations: Operations):
        self.file, self.path, self.operations, self.fresh = file, path, operations, True

    def write(self, data: Any) -> Any:
        if self.fresh:
            self.fresh = False
            self.operations("write", self.path, lambda: (self.file.write(data[: len(data) // 2]), self.file.flush()))
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


@contextmanager
def operations(at: int | None = None, fault: str = "") -> Iterator[Operations]:
    """Count the file operations inside; make them fail from one on, where asked for."""
    count, real_open = Operations(at, fault), io.open

    def opened(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if isinstance(path, int) or not set(mode) & set("wxa"):
            return real_open(path, mode, *args, **options)
        count("create", path)
        return _Writer(real_open(path, mode, *args, **options), path, count)

    def fsync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        count("fsync", path, lambda: _halve(path))  # what was written before it may be lost; the tests need no disk

    def saved(tensors: Any, path: Any, *args: Any) -> None:
        real_save(tensors, path, *args)

        def half() -> None:
            _halve(path)

        half.rust = True  # type: ignore[attr-defined]
        count("write", path, half)

    real_save = tensors.save_file
    with ExitStack() as stack:
        for place, name, other in (
            (builtins, "open", opened),
            (io, "open", opened),
            (os, "fsync", fsync),
            (tensors, "save_file", saved),
            (keeping, "save_file", saved),
        ):
            stack.enter_context(mock.patch.object(place, name, other))
        for name in ("replace", "link", "unlink", "mkdir", "rmdir"):
            stack.enter_context(mock.patch.object(os, name, _counted(count, name, getattr(os, name))))
        yield count


def _counted(count: Operations, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def operation(path: Any, *args: Any, **options: Any) -> Any:
        count(name, path)
        return real(path, *args, **options)

    return operation


def _halve(path: Any) -> None:
    if Path(path).is_file():
        os.truncate(path, os.path.getsize(path) // 2)


def killed(work: Callable[[], object], at: int) -> bool:
    """Do something in a child that is killed at its Nth file operation; whether it came so far."""
    pid = os.fork()
    if not pid:
        try:
            with operations(at, "SIGKILL"):
                work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
