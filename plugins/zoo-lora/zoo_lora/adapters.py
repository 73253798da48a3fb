"""Low-rank adapters as parametrizations: a layer sees W + scale * B A wherever it reads its weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo_core import ZooError

LAYERS = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
TRANSPOSED = "Conv1D"
"""transformers' linear layer of GPT-2, which keeps its weight as [inputs, outputs]; told by name, not imported."""
WEIGHTS = ("weight", "in_proj_weight")
"""Of `MultiheadAttention`, queries, keys and values are one weight of its own; its output is a `Linear`."""


class LowRank(nn.Module):
    """Adds scale * B A to a weight, seen as a matrix of one row an output; begins at zero.

    Drawn from torch's global seed: A as `nn.Linear` draws its weight, B is zero (Hu et al. 2021, section 4.1).

    Args:
        transposed: the weight has one column an output.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float, transposed: bool = False):
        super().__init__()
        self.scale, self.transposed = scale, transposed
        rows = weight.T if transposed else weight
        self.down = nn.Parameter(weight.new_empty(rank, rows[0].numel()))
        self.up = nn.Parameter(weight.new_zeros(len(rows), rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        change = self.up @ self.down
        return weight + self.scale * (change.T if self.transposed else change.view_as(weight))


def attach(stages: Sequence[nn.Module], rank: int, scale: float) -> Callable[[], None]:
    """Put an adapter on each weight of the stages that may change and is larger than it; returns what merges them.

    Left as they are: depthwise kernels (a few numbers a channel), weights that do not ask for a gradient (shared
    with a frozen stage), and those that two layers share.

    Raises:
        ZooError: no weight is left.
    """
    modules = {id(module): module for stage in stages for module in stage.modules()}.values()
    layers = [m for m in modules if (isinstance(m, LAYERS) or _is_transposed(m)) and not _is_depthwise(m)]
    found = [(m, name) for m in layers for name in WEIGHTS if isinstance(getattr(m, name, None), nn.Parameter)]
    shared = Counter(id(getattr(module, name)) for module, name in found)
    spots = [(m, name) for m, name in found if _fits(w := getattr(m, name), rank) and shared[id(w)] == 1]
    if not spots:
        raise ZooError(f"lora: no weight of the trained stages is large enough for rank {rank}. Give more stages.")
    for module, name in spots:
        parametrize.register_parametrization(
            module, name, LowRank(getattr(module, name), rank, scale, _is_transposed(module))
        )

    def merge() -> None:
        with torch.no_grad():
            for module, name in spots:
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)

    return merge


def _is_transposed(module: nn.Module) -> bool:
    return type(module).__name__ == TRANSPOSED and getattr(module, "weight", torch.empty(0)).ndim == 2


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


def _fits(weight: nn.Parameter, rank: int) -> bool:
    rows, columns = len(weight), weight[0].numel()
    return weight.requires_grad and rank * (rows + columns) < rows * columns
