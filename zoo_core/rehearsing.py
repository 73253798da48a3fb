"""What an old task adds to training: its examples behind the new ones, soft targets, and the head's first rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core import ledger, regimes
from zoo_core.errors import BadOption
from zoo_core.fit import Model, Side
from zoo_core.heads import Linear
from zoo_core.old_model import OldModel, probe
from zoo_core.old_task import OldTask
from zoo_core.recipe import Recipe
from zoo_core.splits import SPLITS
from zoo_core.trainer import Kept
from zoo_core.training import Training
from zoo_core.types import Split


@dataclass(frozen=True)
class SoftTargets:
    """The old model's answers for training examples, computed once (LwF, Li and Hoiem 2016, arXiv:1606.09282).

    Attributes:
        shares: probabilities at the temperature [views, N, old classes].
        temperature: of the softmax of both models.
        weight: in the loss.
    """

    shares: Tensor
    temperature: float
    weight: float

    def loss(self, outputs: Tensor, rows: Sequence[int], epoch: int) -> Tensor:
        """Outputs [B, classes], old ones first, to weight * T^2 * KL(old || new over the old classes) [B]."""
        aim = self.shares[epoch % len(self.shares)][torch.as_tensor(rows)].to(outputs.device)
        ours = (outputs[:, : aim.shape[1]] / self.temperature).log_softmax(1)
        gap = torch.nn.functional.kl_div(ours, aim, reduction="none").sum(1)
        return self.weight * self.temperature**2 * gap


def ahead(old: OldTask, regime: Any, recipe: Recipe) -> OldTask:
    """Leave out what nobody will look at, before the frozen pass: training examples outside the buffer, or all."""
    if old.task is None or old.model is None or getattr(regime, "select", "random") != "random":
        return old  # a probe, herding and margins need every training example
    train = old.task.split("train")
    kept = regimes.balanced_first(train, regime.buffer, recipe.seed) if regime.needs_old else []
    if regime.needs_old and not regime.buffer:
        kept = list(train)
    places = {id(example) for example in kept}
    examples = tuple(e for e in old.task.examples if e.split != "train" or id(e) in places)
    return replace(old, task=replace(old.task, examples=examples))


class Keeper:
    """The old task while a model is trained beside it.

    Attributes:
        model: the old model, a probe where none came with the weights.
        sides: old examples of each side.
        chosen: indices of the training examples that are mixed in.
    """

    def __init__(self, old: OldTask, regime: Any, recipe: Recipe, kept: Kept, new: Side):
        self.old, self.regime, self.recipe, self.kept, self.new = old, regime, recipe, kept, new
        self.head_note = ""
        self.sides: dict[Split, Side] = {
            name: Side(
                [e.digest for e in old.split(name)], torch.tensor([e.label for e in old.split(name)], dtype=torch.long)
            )
            for name in SPLITS
        }
        train = self.sides["train"]
        self.model: OldModel = old.model or probe(kept.features(train.digests), train.labels, old.classes)
        self.chosen = self._buffer() if regime.needs_old else []

    def mixed(self, sides: Mapping[Split, Side]) -> dict[Split, Side]:
        """New sides with what the regime adds: old examples behind the new ones, and soft targets."""
        found = dict(sides)
        if self.regime.needs_old:
            found["train"] = _behind(sides["train"], self.sides["train"], self.chosen)
            found["val"] = self.validation(sides["val"])
        weight = getattr(self.regime, "distil", 0.0)
        if weight > 0:
            found["train"] = replace(found["train"], soft=self._soft(found["train"], weight))
        return found

    def validation(self, new: Side) -> Side:
        """New validation examples, and old ones in the share that they have in training.

        With a buffer the old ones are the buffer itself: nothing else of the old data is at hand then.
        """
        source, rows = self.sides["val"], list(range(len(self.sides["val"])))
        if self.regime.buffer or not rows:
            source, rows = self.sides["train"], list(self.chosen)
        ratio = getattr(self.regime, "ratio", 0.5)
        most = round(len(new) * ratio / (1 - ratio))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()[:most]
        return _behind(new, source, sorted(rows[i] for i in order)) if len(new) else new

    def start(self, head: nn.Module) -> None:
        """Begin a linear head with the old rows, and the class means of the new classes; `head_note` says how.

        New rows point from the mean of all to the class mean (imprinting, Qi et al. 2018, arXiv:1712.07136, on
        centred features) and are as long as the old ones are in the mean.
        """
        if self.old.space == "replace" or getattr(head, "solves", False):
            return
        self.head_note = self._start(head, self.model.rows)

    def _start(self, head: nn.Module, rows: tuple[Tensor, Tensor] | None) -> str:
        if rows is None or not isinstance(head, nn.Linear) or head.in_features != rows[0].shape[1]:
            return "the head begins anew: only a linear head on the pooled features keeps the old one's rows"
        with torch.no_grad():
            old = len(rows[0])
            head.weight[:old] = rows[0].to(head.weight)
            head.bias[:old] = rows[1].to(head.bias)
            features, labels = self.kept.features(self.new.digests), self.new.labels
            centre = features.mean(0)
            means = {c: features[labels == c].mean(0) for c in range(old, head.out_features) if (labels == c).any()}
            if means:
                gaps = {c: mean - centre for c, mean in means.items()}
                length = rows[0].norm(dim=1).mean() / torch.stack([g.norm() for g in gaps.values()]).mean().clamp_min(
                    1e-6
                )
                level = (features @ rows[0].T + rows[1]).max(1).values.mean()
                for c, gap in gaps.items():
                    row = length * gap
                    head.weight[c] = row
                    head.bias[c] = level - row @ (means[c] + centre) / 2
        return f"the head begins with the {old} rows of {self.model.origin}"

    def figures(self, model: Model, outputs: Callable[[Sequence[str]], Tensor]) -> dict[str, Any]:
        """The part of the summary about the old task; its test side is looked at here, once.

        Args:
            outputs: of the trained model for some examples.
        """
        old, test = self.old, self.sides["test"]
        facts: dict[str, Any] = {"labels": old.space, "classes": list(old.classes), "model": self.model.origin}
        facts |= {"head": self.head_note, "notes": list(old.notes), "ratio": getattr(self.regime, "ratio", 0.0)}
        facts |= {"n_train": len(self.chosen), "buffer": getattr(self.regime, "buffer", 0)}
        if not len(test):
            empty = dict.fromkeys(("before", "after", "retention", "forgetting", "backward_transfer"))
            return facts | empty | {"how": "no old data are at hand; --old DATA would show what was lost"}
        facts |= {"data": old.source, "how": ledger.HOW[old.space]}
        before = self.model.builder.probabilities(self.model.outputs(self.kept, test.digests))
        probed = old.space == "replace"
        after = self._probed(model) if probed else model.builder.probabilities(outputs(test.digests))
        return facts | ledger.ledger(before.numpy(), after.numpy(), test.labels.numpy(), old.classes)

    def cost(self, seconds: Mapping[str, float]) -> dict[str, Any]:
        """What the old examples took of the frozen pass and of training, from the seconds of both."""
        names = {name for side in self.sides.values() for name in side.digests}
        plain = self.kept.plain
        computed = len(names & plain.computed)
        ratio = self.regime.ratio if self.regime.needs_old else 0.0
        return {
            "examples": len(names),
            "found": len(names) - computed,
            "computed": computed,
            "prefix_seconds": round(seconds["prefix"] * computed / max(1, plain.misses), 2),
            "fit_seconds": round(seconds["fit"] * ratio, 2),
        }

    def _probed(self, model: Model) -> Tensor:
        """Probabilities [N, old classes] of a probe on the trained backbone's features."""
        train, test = self.sides["train"], self.sides["test"]
        if model.plan.depth == len(model.backbone.stages):  # nothing changed
            found: Tensor = self.model.outputs(self.kept, test.digests).softmax(1)
            return found
        bare = Model(model.backbone, nn.Identity(), Linear(), model.plan)
        features = [bare.outputs(self.kept.boundary, side.digests) for side in (train, test)]
        again = probe(features[0], train.labels, self.old.classes)
        with torch.inference_mode():
            answers: Tensor = again.head(features[1])
        return answers.softmax(1)

    def _soft(self, train: Side, weight: float) -> SoftTargets:
        temperature = float(getattr(self.regime, "temperature", 2.0))
        views = [train.rows(range(len(train)), k) for k in range(max(1, train.views))]
        shares = [(self.model.outputs(self.kept, names) / temperature).softmax(1) for names in views]
        return SoftTargets(torch.stack(shares), temperature, weight)

    def _buffer(self) -> list[int]:
        train, size = self.old.split("train"), getattr(self.regime, "buffer", 0)
        if not size or size >= len(train):
            return list(range(len(train)))
        how = getattr(self.regime, "select", "random")
        if how == "random":
            picked = {id(e) for e in regimes.balanced_first(train, size, self.recipe.seed)}
            return [i for i, e in enumerate(train) if id(e) in picked]
        labels = self.sides["train"].labels
        names = self.sides["train"].digests
        rank = herding(self.kept.features(names)) if how == "herding" else None
        margins = _margins(self.model.outputs(self.kept, names)) if rank is None else None
        found: list[int] = []
        for label, count in regimes.shares_of(labels.tolist(), size).items():
            members = torch.nonzero(labels == label)[:, 0]
            if margins is not None:
                order = margins[members].argsort(stable=True)[:count]
            else:
                assert rank is not None
                order = torch.tensor(rank(members, count))
            found += members[order].tolist()
        return sorted(found)


def herding(features: Tensor) -> Any:
    """A function that picks examples whose mean stays closest to their class's (iCaRL, Rebuffi et al. 2017)."""
    unit = nn.functional.normalize(features, dim=1)

    def pick(members: Tensor, count: int) -> list[int]:
        rows = unit[members]
        mean, total, left = rows.mean(0), torch.zeros(rows.shape[1]), torch.ones(len(rows), dtype=torch.bool)
        chosen: list[int] = []
        for k in range(1, count + 1):
            gaps = (mean - (total + rows) / k).norm(dim=1).masked_fill(~left, torch.inf)
            best = int(gaps.argmin())
            chosen.append(best)
            total, left[best] = total + rows[best], False
        return chosen

    return pick


def check(recipe: Recipe, regime: Any, builder: Any, options: Training) -> None:
    """What cannot be mixed.

    Raises:
        BadOption: says what to leave out.
    """
    if recipe.folds * recipe.seeds > 1:
        raise BadOption("--folds and --seeds repeat a run without an old task. Leave them out, or give --seed in turn.")
    if recipe.balance in ("loss", "logit-adjust"):
        raise BadOption(f"--balance {recipe.balance} knows no old task. Give --balance sampler, or leave it out.")
    if getattr(regime, "distil", 0) > 0 and options.mixes:
        raise BadOption(
            f"--training {recipe.training} mixes examples, whose soft targets nobody computed. Leave it out."
        )
    if getattr(regime, "distil", 0) > 0 and builder.solves:
        raise BadOption(
            f"soft targets train a head step by step, but --head {recipe.head} is solved at once. Give --head linear."
        )


def _margins(outputs: Tensor) -> Tensor:
    """How far the best class is ahead of the second one [N]."""
    best = outputs.softmax(1).topk(min(2, outputs.shape[1]), dim=1).values
    return best[:, 0] - best[:, -1]


def _behind(new: Side, old: Side, rows: Sequence[int]) -> Side:
    """Old rows behind the new ones."""
    digests = [*new.digests, *(old.digests[i] for i in rows)]
    labels = torch.cat([new.labels, old.labels[list(rows)]])
    return Side(digests, labels, new.views, n_old=len(rows))
