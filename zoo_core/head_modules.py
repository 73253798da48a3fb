"""The modules that heads build, where torch has none of that kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo_core.backbone import Value
from zoo_core.errors import BadOption

LEAST = 1e-4
"""Share that a class has where no neighbour carries it: its logarithm must be finite."""


class CosineLayer(nn.Module):
    """Scaled cosine between features [B, D] and one direction for each output."""

    def __init__(self, feature_dim: int, outputs: int, scale: float, learnt: bool):
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(outputs, feature_dim))
        if learnt:
            self.scale: Tensor = nn.Parameter(torch.tensor(float(scale)))
        else:
            self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.normalize(x, dim=1) @ F.normalize(self.weight, dim=1).T


class AttentionPool(nn.Module):
    """Positions weighted by learnt queries, then a linear layer: a stage's value to outputs [B, outputs].

    Each query looks at all positions and sums its own share of the channels, as the heads of attention do.
    """

    def __init__(self, feature_dim: int, outputs: int, queries: int):
        super().__init__()
        self.norm = nn.LayerNorm(feature_dim)
        self.queries = nn.Parameter(0.02 * torch.randn(queries, feature_dim))
        self.linear = nn.Linear(feature_dim, outputs)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, value: Value) -> Tensor:
        x = self.norm(positions(value))
        weights = (x @ self.queries.T / x.shape[2] ** 0.5).softmax(1)  # [B, N, queries]
        parts = x.tensor_split(len(self.queries), dim=2)
        pooled = [(weights[:, :, i : i + 1] * part).sum(1) for i, part in enumerate(parts)]
        out: Tensor = self.linear(torch.cat(pooled, dim=1))
        return out


class Neighbours(nn.Module):
    """Mean target of the most similar training examples, weighted by exp(cosine / temperature).

    Empty, it answers as if every output were equally likely.

    Args:
        link: from mean targets to outputs: `log` (shares of classes), `logit` (shares of yes) or `none`.
    """

    memory: Tensor
    targets: Tensor

    def __init__(self, feature_dim: int, outputs: int, k: int, temperature: float, link: str):
        super().__init__()
        self.k, self.temperature, self.link = k, temperature, link
        self.register_buffer("memory", torch.empty(0, feature_dim))
        self.register_buffer("targets", torch.empty(0, outputs))

    def remember(self, features: Tensor, targets: Tensor) -> None:
        """Keep features [N, D], normalised, and targets [N, outputs]."""
        self.memory = F.normalize(features, dim=1)
        self.targets = targets

    def forward(self, x: Tensor) -> Tensor:
        if not len(self.memory):
            return x.new_zeros(len(x), self.targets.shape[1])
        similar, nearest = (F.normalize(x, dim=1) @ self.memory.T).topk(min(self.k, len(self.memory)), dim=1)
        mean = ((similar / self.temperature).softmax(1)[:, :, None] * self.targets[nearest]).sum(1)
        if self.link == "log":
            return mean.clamp_min(LEAST).log()
        return mean.logit(eps=LEAST) if self.link == "logit" else mean

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take a memory of any length: how many examples were kept is known only from what was saved."""
        self.memory = torch.empty_like(state_dict[f"{prefix}memory"], device=self.memory.device)
        self.targets = torch.empty_like(state_dict[f"{prefix}targets"], device=self.memory.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class TipLayer(nn.Module):
    """Scaled cosine to each class's text, and votes of training examples: exp(-beta (1 - cosine)), weighted by alpha.

    Until it is told of texts and examples, it answers as if every output were equally likely.
    """

    weight: Tensor
    scale: Tensor
    alpha: Tensor
    beta: Tensor
    keys: Tensor
    labels: Tensor

    def __init__(self, feature_dim: int, outputs: int, scale: float):
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs, feature_dim))
        self.register_buffer("keys", torch.empty(0, feature_dim))
        self.register_buffer("labels", torch.empty(0, dtype=torch.long))
        for name, value in (("scale", scale), ("alpha", 1.0), ("beta", 5.5)):
            self.register_buffer(name, torch.tensor(value))

    def remember(self, features: Tensor, labels: Tensor) -> None:
        """Keep features [N, D], normalised, and labels [N]."""
        self.keys, self.labels = F.normalize(features, dim=1), labels.clone()

    def texts(self, unit: Tensor) -> Tensor:
        """Outputs of the texts alone for features of unit length [B, D]."""
        return self.scale * unit @ self.weight.T

    def votes(self, similar: Tensor, beta: Tensor | float) -> Tensor:
        """Cosines to the kept examples [B, N] to votes for the classes [B, classes]."""
        shares = F.one_hot(self.labels, len(self.weight)).to(similar)
        return (beta * (similar - 1)).exp() @ shares

    def forward(self, x: Tensor) -> Tensor:
        unit = F.normalize(x, dim=1)
        return self.texts(unit) + self.alpha * self.votes(unit @ self.keys.T, self.beta)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take any number of examples: how many were kept is known only from what was saved."""
        self.keys = torch.empty_like(state_dict[f"{prefix}keys"], device=self.keys.device)
        self.labels = torch.empty_like(state_dict[f"{prefix}labels"], device=self.labels.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def positions(value: Value) -> Tensor:
    """A stage's value as one row for each position or token [B, N, C]; parts of a tuple are joined by channel.

    [B, C, H, W] and [B, H, W, C] are told apart as in `backbone.pool`.

    Raises:
        BadOption: the parts have different numbers of positions.
    """
    if isinstance(value, tuple):
        parts = [positions(part) for part in value]
        if len({part.shape[1] for part in parts}) > 1:
            counts = ", ".join(str(part.shape[1]) for part in parts)
            raise BadOption(
                f"--head attentive: the value before the last stage has parts of {counts} positions, expected as many "
                "in each. Give --head linear, or another backbone."
            )
        return torch.cat(parts, dim=2)
    if value.ndim == 4 and value.shape[1] == value.shape[2] != value.shape[3]:
        return value.flatten(1, 2)
    if value.ndim == 4:
        return value.flatten(2).transpose(1, 2)
    return value.reshape(len(value), -1, value.shape[-1])
