"""Seconds of a run, phase by phase."""

from __future__ import annotations

import time

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
        self.laps[name], self.last = now - self.last, now

    def seconds(self) -> dict[str, float]:
        """Phases and total, to a hundredth."""
        return {k: round(v, 2) for k, v in (self.laps | {"total": time.perf_counter() - self.start}).items()}
