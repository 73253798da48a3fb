"""Named tensors as files and as one digest: what every store, run and checkpoint writes and compares."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from zoo_core.files import publish_object, publishing


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Publish a safetensors file. Raises `DiskFull`."""
    held = _held(tensors)
    with publishing(path, size_bytes=size_bytes(held)) as temp:
        save_file(held, temp, dict(metadata or {}))


def write_object(
    folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, prefix: str = ""
) -> Path:
    """Publish a safetensors file named by its own sha256; return its path. Raises `DiskFull`."""
    held, about = _held(tensors), dict(metadata or {})
    size = size_bytes(held)
    return publish_object(folder, prefix, ".safetensors", lambda temp: save_file(held, temp, about), size)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over names, dtypes, shapes and bytes."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def size_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all values."""
    return sum(t.numel() * t.element_size() for t in tensors.values())


def _held(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
