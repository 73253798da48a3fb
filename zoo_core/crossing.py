"""How a traced value crosses a cut between stages: what its shape says about the batch, and the calls that
pack it into batch-first tensors and restore it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

Place: TypeAlias = tuple[fx.Node, tuple[Any, ...]]
"""A tensor in the trace: the node, and the path to it inside the node's value."""


_READS_DATA = {"item", "tolist", "nonzero", "any", "all", "equal", "allclose"}


@dataclass(frozen=True)
class Travels:
    """A tensor with a batch axis: where that is, and its size per example."""

    axis: int
    times: int


@dataclass(frozen=True)
class Number:
    """An integer that is `slope * batch size + offset`."""

    slope: int
    offset: int


@dataclass(frozen=True)
class Constant:
    """Whatever else is the same at both batch sizes and no tensor."""

    value: Any


class Stays:
    """A tensor without a batch axis, or something unknown: never crosses a cut."""


def kind_of(node: fx.Node, small: Any, large: Any) -> Any:
    """How a value relates to the batch size, from its values for 2 and 3 examples."""
    if type(small) is not type(large) or (node.op == "call_method" and node.target in _READS_DATA):
        return Stays()
    if isinstance(large, dict) and small.keys() == large.keys():
        return {key: kind_of(node, small[key], large[key]) for key in large}
    if type(large) in (tuple, list, torch.Size) and len(small) == len(large):
        parts = [kind_of(node, a, b) for a, b in zip(small, large, strict=True)]
        return parts if isinstance(large, list) else tuple(parts)
    if isinstance(large, Tensor):
        return _tensor_kind(small, large)
    if isinstance(large, int) and not isinstance(large, bool):
        return Number(large - small, 3 * small - 2 * large)
    plain = large is None or isinstance(large, bool | float | str | torch.dtype | torch.device | torch.layout)
    return Constant(large) if plain and small == large else Stays()


def _tensor_kind(small: Tensor, large: Tensor) -> Travels | Stays:
    if small.ndim != large.ndim:
        return Stays()
    axes = [i for i, (a, b) in enumerate(zip(small.shape, large.shape, strict=True)) if a != b]
    if len(axes) != 1 or 3 * small.shape[axes[0]] != 2 * large.shape[axes[0]]:
        return Stays()
    return Travels(axes[0], large.shape[axes[0]] // 3)


def memory_order(t: Tensor) -> tuple[int, ...]:
    """Axes from the widest stride to the narrowest."""
    axes, strides = range(t.ndim), t.stride()
    return tuple(sorted(axes, key=lambda i: -strides[i]) if all(strides) else axes)  # expanded: no order


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Paths and leaves of nested tuples, lists and dicts."""
    if isinstance(tree, dict | tuple | list):
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(part, (*path, key))
    else:
        yield path, tree


def at(values: Mapping[fx.Node, Any], place: Place) -> Any:
    found = values[place[0]]
    for step in place[1]:
        found = found[step]
    return found


def enter(
    t: Tensor, axis: int, times: int, alone: Sequence[int], order: Sequence[int], written: bool = False
) -> Tensor:
    """Undo `leave`, and restore the order of axes in memory, which a cache does not keep.

    Kernels choose by that order, and so do the last bits of what they compute.

    Args:
        alone: order for one example, where kernels may leave another one.
        order: for several.
        written: whether the stage writes into this value, which may be someone's cached activation.
    """
    exporting = torch.compiler.is_exporting()  # a graph for any number of examples has no order of its own
    if not exporting and len(t) == 1:
        order = alone
    t = t.flatten(0, 1) if times > 1 else t
    t = t.movedim(0, axis) if axis else t
    if exporting:
        return t
    inverse = sorted(range(len(order)), key=order.__getitem__)
    t = t.permute(*order).contiguous().permute(*inverse)
    return t.clone() if written else t


def leave(t: Tensor, axis: int, times: int) -> Tensor:
    """Batch first: [..., B * times, ...] to [B, times, ...]."""
    t = t.movedim(axis, 0) if axis else t
    return t.reshape(-1, times, *t.shape[1:]) if times > 1 else t


def item(value: Any, key: Any) -> Any:
    return value[key]


def scaled(t: Tensor, slope: int, offset: int) -> int:
    return slope * t.shape[0] + offset


def check_size(t: Tensor, shape: tuple[int, ...]) -> None:
    if t.shape[1:] != shape:
        raise ValueError(f"this chain was cut for inputs {list(shape)}, got {list(t.shape[1:])}; load it at that size.")


def rewrite_device(module: nn.Module, device: torch.device) -> None:
    """Traced code names the device that it was traced on, where it makes tables: name another one."""
    for part in [m for m in module.modules() if isinstance(m, fx.GraphModule)]:
        for node in part.graph.nodes:
            node.args = _with_device(node.args, device)
            node.kwargs = _with_device(node.kwargs, device)
        part.recompile()


def _with_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.device):
        return device
    if isinstance(value, dict):
        return {key: _with_device(part, device) for key, part in value.items()}
    return type(value)(_with_device(part, device) for part in value) if type(value) in (tuple, list) else value


def flat(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
