"""What loading a plugin does besides loading: noticed, said and undone."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any

HEAVY = ("torch", "timm", "open_clip", "transformers", "torchvision", "sklearn", "scipy", "safetensors", "tensorflow")
"""Packages that make every command many times slower when a plugin imports them at its top."""


@contextmanager
def watched() -> Iterator[list[str]]:
    """Give a list that holds, at the end, a sentence for each thing that the code inside did and should not.

    Changes of the environment, the working directory and the global random generators are undone; what is
    printed goes to stderr, since stdout carries results only. A heavy import can only be said. The generators
    of numpy and torch are compared where these were loaded before; numpy's, freshly loaded, is drawn again.
    """
    notes: list[str] = []
    environment, folder, generators = dict(os.environ), _folder(), _generators()
    heavy = [name for name in HEAVY if name in sys.modules]
    printed: Any = _ToStderr()
    try:
        with redirect_stdout(printed), _stdout_elsewhere():
            yield notes
    finally:
        loaded = [name for name in HEAVY if name in sys.modules and name not in heavy]
        if loaded:
            notes.append(f"imports {', '.join(loaded)} at its top, which slows every command: import inside methods.")
        if printed.used:
            notes.append("prints while it is loaded; that went to stderr.")
        notes.extend(_restore_environment(environment))
        if folder and _folder() != folder:
            notes.append(f"changed the working directory to {_folder()}; undone.")
            os.chdir(folder)
        notes.extend(_restore_generators(generators))


class _ToStderr:
    """Stderr in the place of `sys.stdout`, which remembers that it was written to."""

    used = False

    def write(self, text: str) -> int:
        self.used = True
        return sys.stderr.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


@contextmanager
def _stdout_elsewhere() -> Iterator[None]:
    """File descriptor 1 points to stderr: also what C code and child processes print stays out of the results."""
    _flush()  # what was printed before belongs to stdout
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # a process without them
        yield
        return
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    if sys.__stdout__ and not sys.__stdout__.closed:
        sys.__stdout__.flush()


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # removed under our feet
        return ""


def _restore_environment(before: dict[str, str]) -> list[str]:
    after = dict(os.environ)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    for name in changed:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    return [f"changed the environment ({', '.join(changed)}); undone."] if changed else []


def _generators() -> dict[str, tuple[Any, Callable[[], object]]]:
    """The global random generators that are loaded: a state that compares, and what puts it back."""
    state: Any = random.getstate()
    found: dict[str, tuple[Any, Callable[[], object]]] = {"random": (state, partial(random.setstate, state))}
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy:
        state = numpy.random.get_state()
        plain = (state[0], state[1].tobytes(), *state[2:])
        found["numpy.random"] = (plain, partial(numpy.random.set_state, state))
    if torch:
        state = torch.get_rng_state()
        found["torch"] = (state.numpy().tobytes(), partial(torch.set_rng_state, state))
    return found


def _restore_generators(before: dict[str, tuple[Any, Callable[[], object]]]) -> list[str]:
    after = _generators()
    changed = [name for name, (state, _) in before.items() if after[name][0] != state]
    for name in changed:
        before[name][1]()
    if "numpy.random" in after and "numpy.random" not in before:
        sys.modules["numpy"].random.seed()
    return [f"changed the random state of {', '.join(changed)}; undone."] if changed else []
