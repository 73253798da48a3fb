"""What an old task adds to training: its examples behind the new ones, soft targets, and the head's first rows.

After training the head is corrected where it gives new classes too much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core import ledger, old_new_bias, regimes
from zoo_core.buffers import kept_examples
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

START = 0.25
"""Length of a new row, as a share of the old ones': where training is to begin, new classes shall not win yet."""


@dataclass(frozen=True)
class SoftTargets:
    """The old model's answers for training examples, computed once (LwF, Li and Hoiem 2016, arXiv:1606.09282).

    Attributes:
        shares: probabilities at the temperature [views, N, old classes].
        temperature: of the softmax of both models.
        weight: in the loss.
        first: of the examples that it counts for.
    """

    shares: Tensor
    temperature: float
    weight: float
    first: int = 0

    def loss(self, outputs: Tensor, rows: Sequence[int], epoch: int) -> Tensor:
        """Outputs [B, classes], old ones first, to weight * T^2 * KL(old || new over the old classes) [B]."""
        aim = self.shares[epoch % len(self.shares)][torch.as_tensor(rows)].to(outputs.device)
        ours = (outputs[:, : aim.shape[1]] / self.temperature).log_softmax(1)
        gap = torch.nn.functional.kl_div(ours, aim, reduction="none").sum(1)
        return self.weight * self.temperature**2 * gap * (torch.as_tensor(rows) >= self.first).to(gap)


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
        begun: whether heads begin with the old model's rows.
        held: those of the buffer's examples that are not, since they choose the epoch and correct the head.
    """

    def __init__(self, old: OldTask, regime: Any, recipe: Recipe, kept: Kept, new: Side):
        self.old, self.regime, self.recipe, self.kept, self.new = old, regime, recipe, kept, new
        self.head_note = self.correction = ""
        self.begun = False
        self.sides: dict[Split, Side] = {
            name: Side(
                [e.digest for e in old.split(name)], torch.tensor([e.label for e in old.split(name)], dtype=torch.long)
            )
            for name in SPLITS
        }
        train = self.sides["train"]
        self.model: OldModel = old.model or probe(kept.features(train.digests), train.labels, old.classes)
        self.chosen: list[int] = []
        self.held: list[int] = []
        if regime.needs_old:
            self.chosen, self.held = kept_examples(old.split("train"), regime, self.model, kept, recipe.seed)

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

        With a buffer the old ones are of it: nothing else of the old data is at hand then.
        """
        source, rows = self._unseen()
        if not rows:
            source, rows = self.sides["train"], list(self.chosen)
        ratio = getattr(self.regime, "ratio", 0.5)
        most = round(len(new) * ratio / (1 - ratio))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()[:most]
        return _behind(new, source, sorted(rows[i] for i in order)) if len(new) else new

    def start(self, head: nn.Module) -> None:
        """Begin a linear head with the old rows, and the class means of the new classes; `head_note` says how.

        New rows point from the mean of all to the class mean (imprinting, Qi et al. 2018, arXiv:1712.07136, on
        centred features) and are `START` times as long as the old ones are in the mean.
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
                apart = torch.stack([g.norm() for g in gaps.values()]).mean().clamp_min(1e-6)
                length = START * rows[0].norm(dim=1).mean() / apart
                level = (features @ rows[0].T + rows[1]).max(1).values.mean()
                for c, gap in gaps.items():
                    row = length * gap
                    head.weight[c] = row
                    head.bias[c] = level - row @ (means[c] + centre) / 2
        self.begun = True
        return f"the head begins with the {old} rows of {self.model.origin}"

    def correct(self, model: Model, new: Side, outputs: Callable[[Sequence[str]], Tensor]) -> None:
        """Put new outputs right against old ones, as the head asks; `correction` says how.

        Args:
            new: new validation examples.
            outputs: of the trained model for some examples.
        """
        how, old = asked(model.builder), len(self.old.classes)
        keeps = self.regime.needs_old or getattr(self.regime, "distil", 0) > 0
        if self.old.space != "extend" or not isinstance(model.head, nn.Linear) or how == "none":
            return
        if how == "norm":
            self.correction = old_new_bias.align_norms(model.head, old)
            return
        if how == "auto" and not keeps:
            return
        source, rows = self._unseen()
        if not rows or not len(new):
            self.correction = "no bias correction: there are no held-out examples of both tasks"
            return
        both = _behind(new, source, rows)
        self.correction = old_new_bias.correct_bias(model.head, outputs(both.digests), both.labels, old)

    def figures(self, model: Model, outputs: Callable[[Sequence[str]], Tensor]) -> dict[str, Any]:
        """The part of the summary about the old task; its test side is looked at here, once.

        Args:
            outputs: of the trained model for some examples.
        """
        old, test = self.old, self.sides["test"]
        facts: dict[str, Any] = {"labels": old.space, "classes": list(old.classes), "model": self.model.origin}
        facts |= {"head": self.head_note, "notes": list(old.notes), "ratio": getattr(self.regime, "ratio", 0.0)}
        facts |= {"n_train": len(self.chosen), "n_held": len(self.held), "buffer": getattr(self.regime, "buffer", 0)}
        facts |= {"correction": self.correction}
        facts["tasks"] = [part.learnt.told() | {"n": 0, "before": None, "after": None} for part in old.parts]
        if not len(test):
            empty = dict.fromkeys(("before", "after", "retention", "forgetting", "backward_transfer"))
            return facts | empty | {"how": "no old data are at hand; --old DATA would show what was lost"}
        facts |= {"data": old.source, "how": ledger.HOW[old.space]}
        before = self.model.builder.probabilities(self.model.outputs(self.kept, test.digests))
        probed = old.space == "replace"
        after = self._probed(model) if probed else model.builder.probabilities(outputs(test.digests))
        facts["tasks"] = ledger.by_task(before, after, test.labels, test.digests, old.parts)
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

    def chooses(self) -> Side:
        """Old examples to choose by: none that training saw, unless the buffer has no others."""
        source, rows = self._unseen()
        if not rows:
            source, rows = self.sides["train"], list(self.chosen)
        return Side([source.digests[i] for i in rows], source.labels[rows])

    def _unseen(self) -> tuple[Side, list[int]]:
        """Old examples that nothing is trained on and the test does not need: a side, and which of it."""
        if getattr(self.regime, "buffer", 0):
            return self.sides["train"], self.held
        return self.sides["val"], list(range(len(self.sides["val"])))

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
        # of new pictures of the same classes the old model may well be wrong: the labels know better
        first = len(train) - train.n_old if self.old.space == "share" and train.n_old else 0
        return SoftTargets(torch.stack(shares), temperature, weight, first)


def asked(builder: Any) -> str:
    """What a head asks for against the bias between old and new classes; heads without the option cannot have it."""
    return str(getattr(getattr(builder, "builder", builder), "correct", "none"))


def competing(builder: Any, regime: Any, old: OldTask) -> Any:
    """The head with its loss among the new classes alone, where the regime asks for that."""
    apart = old.space == "extend" and getattr(regime, "compete", "all") == "new"
    return replace(builder, first=len(old.classes)) if apart else builder


def check(recipe: Recipe, regime: Any, builder: Any, options: Training, old: OldTask | None) -> None:
    """What cannot be mixed.

    Raises:
        BadOption: says what to leave out.
    """
    if asked(builder) in ("bias", "norm") and (old is None or old.space != "extend"):
        raise BadOption(
            f"--head {recipe.head} corrects new classes against old ones, and this run has not both in one head. "
            "Leave 'correct' out, or give --old DATA and --labels extend."
        )
    if old is None:
        return
    if asked(builder) == "bias" and old.task is None:
        raise BadOption(
            f"--head {recipe.head} is corrected with old examples, and none are at hand. Give --old DATA, or leave "
            "'correct' out."
        )
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


def _behind(new: Side, old: Side, rows: Sequence[int]) -> Side:
    """Old rows behind the new ones."""
    digests = [*new.digests, *(old.digests[i] for i in rows)]
    labels = torch.cat([new.labels, old.labels[list(rows)]])
    return Side(digests, labels, new.views, n_old=len(rows))
