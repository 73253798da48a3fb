"""Seconds of a run, phase by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STARTED = time.time()
"""When this process began, in seconds since 1970: what it used since, the cache keeps; files may have changed."""


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Close the phase that ends now."""
        now = time.perf_counter()
        self.laps[name], self.last = self.laps.get(name, 0.0) + now - self.last, now

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Count what happens here as this phase, not as the one that it happens in."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.laps[name] = self.laps.get(name, 0.0) + spent
            self.last += spent

    def seconds(self) -> dict[str, float]:
        """Phases and total, to a hundredth."""
        return {k: round(v, 2) for k, v in (self.laps | {"total": time.perf_counter() - self.start}).items()}
