"""The one place that decides by device: which one, and how the C library serves big blocks."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from zoo_core.errors import BadOption


def choose(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU; a device that is not there is an error.

    On CUDA, torch rounds the inputs of convolutions to 10 bits unless it is told not to (TF32), which moved
    probabilities by 3e-4 between batches of different size; float32 here means float32. For speed there is
    `--precision bf16`.
    """
    torch.backends.cudnn.allow_tf32 = False
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadOption(f"--device {name}: {reason} Expected auto, cpu, cuda, cuda:N or mps.") from error
    return device


def kernels(where: torch.device) -> dict[str, str]:
    """What decides, beside torch's version, which kernels compute: the instruction set, or the model of the device."""
    if where.type == "cuda":
        return {"gpu": torch.cuda.get_device_name(where)}
    return {"cpu": torch.backends.cpu.get_cpu_capability()}


def is_full(error: BaseException) -> bool:
    """Whether an error says that a device's memory is full; MPS and the CPU have no class of their own for it."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def release() -> None:
    """Give memory back that torch keeps for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run small matrices on few threads: starting more costs longer than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_heap() -> bool:
    """Let glibc keep freed blocks, so that each layer's output does not fault in fresh pages.

    On a CPU forward pass the kernel's page faults took over half of the time in our measurements.
    One arena for all threads: with one each, every thread keeps the largest
    blocks of its own, and the peak of a run was 1,740 MB in the place of 1,410. Only glibc has these
    switches; elsewhere nothing happens. Off with `ZOO_MALLOC=system`.
    """
    if not sys.platform.startswith("linux") or os.environ.get("ZOO_MALLOC") == "system":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    mmap_max, trim_threshold, top_pad, arena_max = -4, -1, -2, -8  # names in malloc.h
    kept = mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1) and mallopt(top_pad, 64 << 20)
    return bool(kept and mallopt(arena_max, 1))


def random_state(where: torch.device) -> dict[str, torch.Tensor]:
    """State of the generators that a training on this device draws from."""
    found = {"cpu": torch.get_rng_state()}
    if where.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(where)
    if where.type == "mps":
        found["mps"] = torch.mps.get_rng_state()
    return found


def set_random_state(where: torch.device, state: Mapping[str, torch.Tensor]) -> None:
    """Put generators back to a state that `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if where.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], where)
    if where.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
