"""What a person sees while something runs: lines and progress bars on stderr, never on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from zoo_core.errors import printable

Advance = Callable[..., None]
"""Called with the number of steps done and, where there is one, a note on how it goes."""


class Console:
    """Says nothing: the default in Python."""

    def say(self, line: str) -> None:
        """One line for the user."""

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """A progress bar; call what it gives with the number of steps done, and a note."""
        yield lambda steps, note="": None


class Terminal(Console):
    """Bars on a terminal; where stderr is piped, one plain line for each finished stretch; nothing with `ZOO_QUIET`."""

    @property
    def quiet(self) -> bool:
        """As `zoo --quiet` asks. Results and errors are printed by others."""
        return bool(os.environ.get("ZOO_QUIET"))

    def say(self, line: str) -> None:
        if not self.quiet:
            print("\n".join(map(printable, line.split("\n"))), file=sys.stderr, flush=True)

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        if self.quiet or not sys.stderr.isatty():
            last = ""

            def advance(steps: int, note: str = "") -> None:
                nonlocal last
                last = note or last

            yield advance
            self.say(f"{label}: {total} done" + (f", {last}" if last else ""))
            return
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Rich(stderr=True), transient=False) as progress:
            task = progress.add_task(label, total=total, note="")

            def move(steps: int, note: str = "") -> None:
                if note:
                    progress.update(task, note=note)
                progress.advance(task, steps)

            yield move


def epoch_note(line: Mapping[str, float]) -> str:
    """How an epoch went, from a line of its history."""
    text = f"loss {line['train_loss']:.3f}"
    if "val_loss" in line:
        text += f", validation {line['val_loss']:.3f}"
    if "val_accuracy" in line:
        text += f", {line['val_accuracy']:.1%} right"
    return text
