"""What a chat model is asked for: the next token of everything that the assistant says. Its loss, figures, baselines.

A head that reads tokens gives three numbers for each conversation: the sum of its losses in nats, how many tokens
were asked for, and how many of them it would have chosen. Nothing as wide as the vocabulary leaves the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zoo_core import bootstrap
from zoo_core.types import Kind

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_core.baselines import Floor
    from zoo_core.fit import Side
    from zoo_core.trainer import Trainer

NATS, TOKENS, RIGHT = range(3)
COLUMNS = ("nats", "tokens", "right")


@dataclass(frozen=True)
class NextTokens:
    """The next token of what the assistant says; in the loss conversations count the same, in figures tokens."""

    classes: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[Kind] = "next-token"
    figures: ClassVar[dict[str, str]] = {
        "perplexity": "perplexity",
        "log_loss": "nats a token",
        "next_token": "next token right",
    }
    unit: ClassVar[str] = "nats a token"

    def labels(self, texts: Sequence[str]) -> Tensor:
        """What is to be said travels with the conversation; these are empty [N]."""
        import torch

        return torch.zeros(len(texts))

    def aims(self, labels: Tensor) -> Tensor:
        return labels

    def loss(self, builder: Any, outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        return outputs[:, NATS] / outputs[:, TOKENS].clamp_min(1)

    def answers(self, builder: Any, outputs: Tensor) -> Tensor:
        """Outputs [B, 3] as they are."""
        return outputs

    def thresholds(self, answers: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
        return ()

    def names(self, row: Sequence[float], thresholds: Sequence[float] = ()) -> tuple[str, ...]:
        """The perplexity of one conversation."""
        return (f"{math.exp(min(700.0, row[NATS] / max(1.0, row[TOKENS]))):.6g}",)

    def score(
        self, answers: np.ndarray, labels: np.ndarray, thresholds: Sequence[float] = (), intervals: bool = True
    ) -> dict[str, Any]:
        """Perplexity (the exponential of the mean loss), that loss in nats a token, and the share that is right.

        Intervals are from drawing whole conversations again.
        """
        nats, tokens, right = answers.astype(np.float64).T
        tokens = np.maximum(tokens, 1e-9)  # drawn again, all may be conversations without a token to say
        figures: dict[str, bootstrap.Weighted] = {
            "perplexity": lambda w: np.exp((w @ nats) / (w @ tokens)),
            "log_loss": lambda w: (w @ nats) / (w @ tokens),
            "next_token": lambda w: (w @ right) / (w @ tokens),
        }
        ones = np.ones((1, len(nats)))
        found = {"n": len(nats), "tokens": round(float(tokens.sum()))}
        scores = found | {name: float(figure(ones)[0]) for name, figure in figures.items()}
        return scores | ({"intervals": bootstrap.intervals(figures, len(nats))} if intervals else {})

    def each(self, answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """How good each answer is [N]: minus its loss a token."""
        losses: np.ndarray = answers[:, NATS] / np.maximum(answers[:, TOKENS], 1)
        return -losses


def floor_of(trainer: Trainer, train: Side, test: Side, seed: int) -> Floor:
    """What a chat model must beat: itself before fine-tuning, and the frequencies of the training side's tokens."""
    from zoo_core.baselines import Floor

    before = trainer.outputs(trainer.fresh(seed), test.digests).numpy()
    return Floor({"before": before, "frequencies": _frequencies(trainer, train, test)}, 0.0)


def _frequencies(trainer: Trainer, train: Side, test: Side) -> np.ndarray:
    """Each token as probable as its share of the training side, one seen token more for those that are new."""

    def said(side: Side) -> list[np.ndarray]:
        found = []
        for start in range(0, len(side), 64):
            wanted = trainer.boundary(side.digests[start : start + 64])[-1]
            found += [row[row > 0].cpu().numpy() for row in wanted]
        return found

    ids, counts = np.unique(np.concatenate(said(train)), return_counts=True)
    known, total = dict(zip(ids.tolist(), counts.tolist(), strict=True)), int(counts.sum()) + len(ids) + 1
    best = int(ids[counts.argmax()]) if len(ids) else 0
    rows = []
    for tokens in said(test):
        nats = [-math.log((known.get(int(t), 0) + 1) / total) for t in tokens]
        rows.append((sum(nats), len(nats), int((tokens == best).sum())))
    return np.array(rows, dtype=np.float64).reshape(-1, 3)
