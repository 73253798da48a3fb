"""What is to be predicted: one label, a rank, several labels, a number. One frozen dataclass for each kind.

Each says how labels become numbers, what the loss is, what outputs mean, and how answers are scored, so that
nothing else asks which kind it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from zoo_core import metrics
from zoo_core.calibration import best_f1, operating_point
from zoo_core.labels import names_of
from zoo_core.next_tokens import NextTokens
from zoo_core.types import Kind, Task

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SingleLabel:
    """One of several classes; the loss and the probabilities are the head's own."""

    classes: tuple[str, ...]

    kind: ClassVar[Kind] = "single-label"
    figures: ClassVar[dict[str, str]] = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "auroc": "ROC AUC"}
    unit: ClassVar[str] = "accuracy"

    def labels(self, texts: Sequence[str]) -> Tensor:
        """Labels as the data spell them to indices [N]."""
        import torch

        index = {name: i for i, name in enumerate(self.classes)}
        return torch.tensor([index[text] for text in texts], dtype=torch.long)

    def aims(self, labels: Tensor) -> Tensor:
        """Labels as a head that is solved at once takes them."""
        return labels

    def loss(self, builder: Any, outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """One loss per example [B]; `weights` [classes] are those of the true class."""
        losses: Tensor = builder.loss(outputs, labels)
        return losses if weights is None else losses * weights[labels]

    def answers(self, builder: Any, outputs: Tensor) -> Tensor:
        """Outputs [B, classes] to probabilities [B, classes]."""
        found: Tensor = builder.probabilities(outputs)
        return found

    def tempered(self, answers: Tensor, temperature: float) -> Tensor:
        """Probabilities [N, classes] after temperature scaling; of a softmax the same as dividing its inputs."""
        return (answers.clamp_min(1e-30).log() / temperature).softmax(1)

    def log_loss(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Mean log loss of probabilities."""
        from torch.nn.functional import nll_loss

        return nll_loss(answers.clamp_min(1e-30).log(), labels)

    def thresholds(self, answers: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
        """Of two classes the probability of the second one from which on it is called; else none."""
        return operating_point(answers[:, 1], labels == 1) if len(self.classes) == 2 else ()

    def names(self, row: Sequence[float], thresholds: Sequence[float] = ()) -> tuple[str, ...]:
        """The labels that an answer [outputs] gives; a threshold is that of the second of two classes."""
        if thresholds and len(self.classes) == 2:
            return (self.classes[int(row[1] >= thresholds[0])],)
        return (self.classes[max(range(len(row)), key=row.__getitem__)],)

    def score(
        self, answers: np.ndarray, labels: np.ndarray, thresholds: Sequence[float] = (), intervals: bool = True
    ) -> dict[str, Any]:
        """All figures."""
        return metrics.score(answers, labels, self.classes, intervals)

    def each(self, answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """How good each answer is [N], in `unit`: 1 where it is right."""
        right: np.ndarray = (answers.argmax(1) == labels).astype(float)
        return right


@dataclass(frozen=True)
class Ordinal(SingleLabel):
    """One of several ranks: the loss counts how far off the probability lies.

    It is the ranked probability score (Epstein 1969), the squared earth mover's distance of Hou et al. 2016
    (arXiv:1611.05916) for one true rank.
    """

    kind: ClassVar[Kind] = "ordinal"
    figures: ClassVar[dict[str, str]] = {"accuracy": "accuracy", "rank_error": "rank error", "kappa": "kappa"}

    def loss(self, builder: Any, outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        import torch
        from torch.nn.functional import one_hot

        gap = self.answers(builder, outputs) - one_hot(labels, outputs.shape[1])
        losses = torch.cumsum(gap, dim=1).square().sum(1)
        return losses if weights is None else losses * weights[labels]

    def score(
        self, answers: np.ndarray, labels: np.ndarray, thresholds: Sequence[float] = (), intervals: bool = True
    ) -> dict[str, Any]:
        return metrics.score_ranks(answers, labels, self.classes, intervals)


@dataclass(frozen=True)
class MultiLabel:
    """Any number of labels at once: a sigmoid and binary cross-entropy for each."""

    classes: tuple[str, ...]

    kind: ClassVar[Kind] = "multi-label"
    figures: ClassVar[dict[str, str]] = {"map": "mAP", "macro_f1": "macro F1", "auroc": "ROC AUC"}
    unit: ClassVar[str] = "share of right answers"

    def labels(self, texts: Sequence[str]) -> Tensor:
        """Cells such as `cat|dog` to 0 and 1 [N, classes]."""
        import torch

        named = [set(names_of(text)) for text in texts]
        return torch.tensor([[float(c in names) for c in self.classes] for names in named]).view(-1, len(self.classes))

    def aims(self, labels: Tensor) -> Tensor:
        return labels

    def loss(self, builder: Any, outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """One loss per example [B]; `weights` [classes] are those of a yes against a no."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(outputs, labels, reduction="none", pos_weight=weights).mean(1)

    def answers(self, builder: Any, outputs: Tensor) -> Tensor:
        """Outputs [B, classes] to the probability of each label [B, classes]."""
        return outputs.sigmoid()

    def tempered(self, answers: Tensor, temperature: float) -> Tensor:
        return (answers.logit(eps=1e-7) / temperature).sigmoid()

    def log_loss(self, answers: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import binary_cross_entropy

        return binary_cross_entropy(answers, labels)

    def thresholds(self, answers: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
        """Of each class the probability from which on it is given: the one of the best F1, where enough are there."""
        return tuple(best_f1(answers[:, c], labels[:, c] > 0.5) for c in range(len(self.classes)))

    def names(self, row: Sequence[float], thresholds: Sequence[float] = ()) -> tuple[str, ...]:
        limits = thresholds or (0.5,) * len(self.classes)
        return tuple(name for name, p, t in zip(self.classes, row, limits, strict=True) if p >= t)

    def score(
        self, answers: np.ndarray, labels: np.ndarray, thresholds: Sequence[float] = (), intervals: bool = True
    ) -> dict[str, Any]:
        return metrics.score_several(answers, labels, self.classes, thresholds, intervals)

    def each(self, answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
        share: np.ndarray = ((answers >= 0.5) == (labels > 0.5)).mean(1)
        return share


@dataclass(frozen=True)
class Number:
    """A number: squared error on the scale of the training side, so that learning rates suit any unit.

    Attributes:
        mean, std: of the training side's numbers.
    """

    mean: float = 0.0
    std: float = 1.0

    classes: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[Kind] = "regression"
    figures: ClassVar[dict[str, str]] = {"mae": "mean error", "r2": "R2", "spearman": "Spearman"}
    unit: ClassVar[str] = "mean absolute error"

    def labels(self, texts: Sequence[str]) -> Tensor:
        """Texts to numbers [N], in the data's own unit."""
        import torch

        return torch.tensor([float(text) for text in texts], dtype=torch.float32)

    def aims(self, labels: Tensor) -> Tensor:
        return (labels - self.mean) / self.std

    def loss(self, builder: Any, outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        return (outputs[:, 0] - self.aims(labels)).square()

    def answers(self, builder: Any, outputs: Tensor) -> Tensor:
        """Outputs [B, 1] to numbers [B, 1] in the data's own unit."""
        return outputs * self.std + self.mean

    def thresholds(self, answers: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
        return ()

    def names(self, row: Sequence[float], thresholds: Sequence[float] = ()) -> tuple[str, ...]:
        return (f"{row[0]:.6g}",)

    def score(
        self, answers: np.ndarray, labels: np.ndarray, thresholds: Sequence[float] = (), intervals: bool = True
    ) -> dict[str, Any]:
        return metrics.score_numbers(answers[:, 0], labels, intervals)

    def each(self, answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
        error: np.ndarray = -abs(answers[:, 0] - labels)
        return error


Target: TypeAlias = SingleLabel | MultiLabel | Number | NextTokens
_WITH_CLASSES: dict[str, type[SingleLabel] | type[MultiLabel]] = {
    "single-label": SingleLabel,
    "ordinal": Ordinal,
    "multi-label": MultiLabel,
}


def target_of(task: Task) -> Target:
    """What a task wants predicted; the scale of numbers is that of its training side."""
    if task.kind == "next-token":
        return NextTokens()
    if task.kind == "regression":
        values = np.array([float(task.text(e)) for e in task.split("train")])
        return Number(float(values.mean()), float(values.std()) or 1.0)
    return _WITH_CLASSES[task.kind](task.classes)


def written(target: Target) -> dict[str, Any]:
    """A target as a run keeps it; single-label ones have their classes only."""
    kind = {} if target.kind == "single-label" else {"task": target.kind}
    return {"classes": list(target.classes)} | asdict(target) | kind


def read(stored: Mapping[str, Any]) -> Target:
    """The target that `written` gave."""
    if stored.get("task") == "next-token":
        return NextTokens()
    if stored.get("task") == "regression":
        mean, std = float(stored["mean"]), float(stored["std"])
        if std <= 0:
            raise ValueError(f"numbers of spread {std}")
        return Number(mean, std)
    classes = stored["classes"]
    if not isinstance(classes, list | tuple) or not classes or not all(isinstance(c, str) for c in classes):
        raise ValueError("the classes are no list of names")
    if len(set(classes)) < len(classes):
        raise ValueError("a class is named twice")
    return _WITH_CLASSES[stored.get("task", "single-label")](tuple(classes))
