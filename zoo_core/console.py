"""What a person sees while something runs: lines and progress bars on stderr, never on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Console:
    """Says nothing: the default in Python."""

    def say(self, line: str) -> None:
        """One line for the user."""

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar; call what it gives with the number of steps done."""
        yield lambda steps: None


class Terminal(Console):
    """Bars on a terminal; where stderr is piped, one plain line for each finished stretch."""

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        if not sys.stderr.isatty():
            yield lambda steps: None
            self.say(f"{label}: {total} done")
            return
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Rich(stderr=True), transient=False) as progress:
            task = progress.add_task(label, total=total)
            yield lambda steps: progress.advance(task, steps)
