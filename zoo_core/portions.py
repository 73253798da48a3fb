"""Fewer examples at once where a device's memory is full: halved, said, and the same work again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from zoo_core import device
from zoo_core.console import Console
from zoo_core.errors import DeviceFull

T = TypeVar("T")


class Portion:
    """How many examples pass a model at once.

    Attributes:
        size: at most so many; 0 while nothing bounds them.
        halved: whether the device had no room for as many as were asked for.
        whole: why a batch may not be cut, if it may not.
    """

    def __init__(self, size: int = 0, console: Console | None = None, whole: str = ""):
        self.size, self.console, self.whole, self.halved = size, console or Console(), whole, False
        self._lock = threading.Lock()

    def run(self, work: Callable[[int], T], count: int) -> T:
        """What `work` gives for parts of a size: of all `count` examples, or as many as there is room for.

        Raises:
            DeviceFull: there is no room for one, or the batch may not be cut.
        """
        while True:
            size = min(self.size or count, count)
            try:
                return work(size)
            except RuntimeError as error:
                if not device.is_full(error):
                    raise
                reason = str(error).splitlines()[0]
            self._halve(size, reason)  # not in the handler: the error holds the tensors of the attempt

    def _halve(self, size: int, reason: str) -> None:
        if self.whole and size > 1:
            raise DeviceFull(
                f"no room for {size} examples at once ({reason}), and {self.whole}. Give --batch-size {size // 2}."
            )
        if size <= 1:
            raise DeviceFull(
                f"no room for one example ({reason}). Give a smaller backbone, a --freeze that trains less, "
                "or --device cpu."
            )
        with self._lock:
            if self.size and self.size < size:
                return  # another thread was faster
            self.size, self.halved = size // 2, True
        device.release()
        self.console.say(f"Memory    no room for {size} examples at once ({reason}): {size // 2} from here on")


def cut(count: int, size: int) -> list[slice]:
    """Where `count` examples are cut into passes of at most `size` and nearly equal length; 0 leaves them whole."""
    passes = -(-count // size) if size else 1
    edges = [round(i * count / passes) for i in range(passes + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]
