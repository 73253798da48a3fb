"""From files to inputs, batch by batch, on every core: the one way in for store, evaluation and prediction."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from zoo_core import images
from zoo_core.card import Input
from zoo_core.errors import BadImage
from zoo_core.shelves import stack

S = TypeVar("S")
T = TypeVar("T")
Read = Callable[[str], Tensor]
"""The name of an image to its uint8 pixels [C, H, W] at the input size."""


def files(spec: Input) -> Read:
    """Read files by their path: decoded, resized and cropped for the backbone."""
    return lambda path: images.pixels(images.decode(path), spec)


def map_images(
    function: Callable[[Sequence[str], Tensor, Tensor], T],
    names: Sequence[str],
    read: Read,
    spec: Input,
    device: torch.device,
    failed: dict[str, str] | None = None,
) -> Iterator[T]:
    """Read images and apply `function` batch by batch, in order, in inference mode.

    Args:
        function: gets names, uint8 pixels [B, C, H, W] and the normalised input on the device.
        failed: gets name -> reason of images that cannot be read, which are then left out;
            without it the first one raises `BadImage`.
    """

    def load(chunk: Sequence[str]) -> tuple[list[str], Tensor | None, dict[str, str]]:
        rows: dict[str, Tensor] = {}
        errors: dict[str, str] = {}
        for name in chunk:
            try:
                rows[name] = read(name)
            except BadImage as error:
                errors[name] = str(error)
        return list(rows), stack(list(rows.values())) if rows else None, errors

    def apply(found: Sequence[str], raw: Tensor | None) -> T | None:
        return None if raw is None else function(found, raw, to_input(raw, spec, device))

    def whole(chunk: Sequence[str]) -> tuple[T | None, dict[str, str]]:
        found, raw, errors = load(chunk)
        return apply(found, raw), errors

    def one_device() -> Iterator[tuple[T | None, dict[str, str]]]:
        """Cores read ahead; this thread alone feeds the device, which keeps state for every thread that uses it."""
        for found, raw, errors in on_all_cores(load, batches(names, device)):
            with torch.inference_mode():
                result = apply(found, raw)
            yield result, errors

    for result, errors in on_all_cores(whole, batches(names, device)) if device.type == "cpu" else one_device():
        if errors and failed is None:
            name, reason = next(iter(errors.items()))
            raise BadImage(f"{name}: {reason}. Remove it and start again.")
        if failed is not None:
            failed.update(errors)
        if result is not None:
            yield result


def on_all_cores(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Apply `work` to each item in inference mode; results come in order.

    Each core works on an item of its own, on one thread: no core waits for another at the end of every
    layer, which costs a busy machine most of its time. Memory is bounded by two items a core.
    """

    def alone(item: S) -> T:
        with torch.inference_mode():
            return work(item)

    waiting = iter(items)
    with ThreadPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,)) as workers:
        ahead = deque(workers.submit(alone, item) for item in islice(waiting, 2 * cores()))
        try:
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(workers.submit(alone, item) for item in islice(waiting, 1))
                yield result
        finally:
            workers.shutdown(wait=False, cancel_futures=True)


def batches(names: Sequence[str], device: torch.device) -> list[Sequence[str]]:
    """Names in the batches of the frozen pass: on the CPU small ones, whose activations stay in its caches."""
    size = 16 if device.type == "cpu" else 64
    return [names[i : i + size] for i in range(0, len(names), size)]


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def to_input(raw: Tensor, spec: Input, device: torch.device) -> Tensor:
    """uint8 pixels to the normalised input in the memory format that every path uses."""
    return images.normalise(raw.to(device), spec).contiguous(memory_format=torch.channels_last)
