"""From files to inputs, batch by batch, on every core: the one way in for store, evaluation and prediction."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch

from zoo_core.errors import BadExample
from zoo_core.readers import Raw, Reader

S = TypeVar("S")
T = TypeVar("T")
Read = Callable[[str], Raw]
"""The name of an example to what is kept of it before the first stage, such as uint8 pixels [C, H, W]."""


def files(reader: Reader) -> Read:
    """Read files by their path, as they are."""
    return lambda path: reader.read(path, "")


def map_examples(
    function: Callable[[Sequence[str], Any, Any], T],
    names: Sequence[str],
    read: Read,
    reader: Reader,
    device: torch.device,
    failed: dict[str, str] | None = None,
) -> Iterator[T]:
    """Read examples and apply `function` batch by batch, in order, in inference mode.

    Where the reader computes parts of a batch apart (texts by their length), the parts of each batch follow one
    another.

    Args:
        function: gets names, the raw batch (uint8 pixels [B, C, H, W]) and the input on the device.
        failed: gets name -> reason of examples that cannot be read, which are then left out;
            without it the first one raises `BadExample`.
    """

    def load(chunk: Sequence[str]) -> tuple[list[tuple[list[str], Raw]], dict[str, str]]:
        rows: dict[str, Raw] = {}
        errors: dict[str, str] = {}
        for name in chunk:
            try:
                rows[name] = read(name)
            except BadExample as error:
                errors[name] = str(error)
        found = list(rows)
        groups = reader.groups(reader.stack(list(rows.values()))) if rows else []
        return [([found[i] for i in where], raw) for where, raw in groups], errors

    def apply(parts: Sequence[tuple[list[str], Raw]]) -> list[T]:
        return [function(found, raw, reader.to_input(raw, device)) for found, raw in parts]

    def whole(chunk: Sequence[str]) -> tuple[list[T], dict[str, str]]:
        parts, errors = load(chunk)
        return apply(parts), errors

    def one_device() -> Iterator[tuple[list[T], dict[str, str]]]:
        """Cores read ahead; this thread alone feeds the device, which keeps state for every thread that uses it."""
        for parts, errors in on_all_cores(load, batches(names, device)):
            with torch.inference_mode():
                results = apply(parts)
            yield results, errors

    for results, errors in on_all_cores(whole, batches(names, device)) if device.type == "cpu" else one_device():
        if errors and failed is None:
            name, reason = next(iter(errors.items()))
            raise BadExample(f"{name}: {reason}. Remove it and start again.")
        if failed is not None:
            failed.update(errors)
        yield from results


def in_order(found: Iterable[Mapping[str, T]], names: Iterable[str], failed: Container[str]) -> Iterator[T]:
    """What `map_examples` gives by name, in the order of the names; those that failed are passed over."""
    ready: dict[str, T] = {}
    waiting = deque(names)
    for batch in found:
        ready.update(batch)
        while waiting and (waiting[0] in ready or waiting[0] in failed):
            name = waiting.popleft()
            if name in ready:
                yield ready.pop(name)


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
    """Names in the batches of the frozen pass."""
    size = batch_size(device)
    return [names[i : i + size] for i in range(0, len(names), size)]


def batch_size(device: torch.device) -> int:
    """Of the frozen pass: on the CPU small ones, whose activations stay in its caches."""
    return 16 if device.type == "cpu" else 64


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
