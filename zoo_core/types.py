"""The nouns that need no torch: what a strategy sees (stages, task) and what it says (a plan)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

from zoo_core.errors import BadStage

Split = Literal["train", "val", "test"]
Only = Literal["all", "norm", "bias", "added"]
BatchNorm = Literal["frozen", "train"]
Kind = Literal["single-label", "multi-label", "regression", "ordinal", "next-token"]
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "next-token")
"""Kinds of task whose examples have labels; the next token is what conversations are for."""
ONE_LABEL: tuple[Kind, ...] = ("single-label", "ordinal")
"""Kinds of task whose answer is one of the classes."""


@dataclass(frozen=True)
class StageInfo:
    """What a freeze strategy may know of a stage, input side first.

    Attributes:
        name: the stage's name in the family's own code, e.g. `layer3` or `blocks.5`.
        parameters: number of trainable numbers.
        norm_buffers: number of running statistics (batch norm) the stage carries.
        norm_parameters: how many of the parameters are weights and biases of normalisation layers.
        bias_parameters: how many are biases, of any layer.
        added_parameters: how many a freeze strategy added; these are in each of the counts above.
    """

    name: str
    parameters: int
    norm_buffers: int = 0
    norm_parameters: int = 0
    bias_parameters: int = 0
    added_parameters: int = 0

    def trainable(self, only: Only) -> int:
        """How many numbers train where a phase trains `only` these."""
        counts = {"all": self.parameters, "norm": self.norm_parameters, "bias": self.bias_parameters}
        return counts.get(only, self.added_parameters)


@dataclass(frozen=True)
class Phase:
    """One stretch of training with one set of trainable stages.

    Attributes:
        depth: stages frozen, counted from the input; `len(stages)` trains the head alone.
        share: this phase's share of the whole budget of epochs, in (0, 1].
        lr_scale: learning-rate factor of each stage after those, `len(stages) - depth` of them,
            input side first; empty means 1 for all. A stage with factor 0 stands still like a frozen
            one: no gradients, eval mode, no optimiser group. The head always has factor 1.
        only: which parameters of the trained stages train: all, those of normalisation layers, biases, or
            `added`, none of upstream's; what the strategy's `adapt` added always does.
        rate: factor on the peak learning rate of the whole phase, head and stages.
    """

    depth: int
    share: float = 1.0
    lr_scale: tuple[float, ...] = ()
    only: Only = "all"
    rate: float = 1.0

    def scales(self, count: int) -> dict[int, float]:
        """Index of each stage that trains, in a chain of `count`, to its learning-rate factor, `rate` included."""
        scales = self.lr_scale or (1.0,) * (count - self.depth)
        return {i: self.rate * scale for i, scale in enumerate(scales, start=self.depth) if scale}

    def still(self, count: int) -> tuple[int, ...]:
        """Indices of the stages that do not train."""
        return tuple(i for i in range(count) if i not in self.scales(count))


@dataclass(frozen=True)
class FreezePlan:
    """What a freeze strategy decides: phases whose depth never rises, and why.

    Attributes:
        phases: in order; a stage once trained is never frozen again, hence every cached
            activation belongs to the published weights.
        reason: one sentence for the user.
        batch_norm: in trained stages, `frozen` keeps the running statistics (the training graph
            then equals the one at prediction), `train` updates them.
        head: a head in the place of the default one, where the choice was made with it.
        lr: a peak learning rate in the place of the default one, likewise.
        ensemble: whether ridge on all stages should answer beside the trained model, where the recipe leaves it open.
    """

    phases: tuple[Phase, ...]
    reason: str
    batch_norm: BatchNorm = "frozen"
    head: str = ""
    lr: float | None = None
    ensemble: bool = False

    @property
    def depth(self) -> int:
        """Stages before the first one that a phase trains, where the chain is cut."""
        return self.phases[-1].depth

    def still(self, count: int) -> tuple[int, ...]:
        """Indices of the stages that no phase trains, in a chain of `count`."""
        return self.phases[-1].still(count)

    def parameters(self, stages: Sequence[StageInfo]) -> int:
        """How many of the backbone's parameters train."""
        last = self.phases[-1]
        return sum(stages[i].trainable(last.only) for i in last.scales(len(stages)))

    def check(self, stages: Sequence[StageInfo]) -> FreezePlan:
        """Return the plan if it fits the chain; raise `BadStage` where a strategy went wrong."""
        if not self.phases or not self.reason:
            raise BadStage("a freeze plan needs at least one phase and a reason, got neither or one.")
        depths = [phase.depth for phase in self.phases]
        if min(depths) < 0 or max(depths) > len(stages):
            raise BadStage(f"the plan freezes {depths} stages, but the backbone has {len(stages)}.")
        if depths != sorted(depths, reverse=True):
            raise BadStage(f"the plan's depths {depths} rise: a trained stage may not be frozen again.")
        for phase in self.phases:
            if phase.lr_scale and len(phase.lr_scale) != len(stages) - phase.depth:
                raise BadStage(
                    f"the plan gives {len(phase.lr_scale)} learning-rate factors for "
                    f"{len(stages) - phase.depth} trained stages."
                )
            if not all(0 <= scale < math.inf for scale in (*phase.lr_scale, phase.rate)) or not phase.rate:
                raise BadStage(
                    f"the plan's learning-rate factors are {phase.rate} and {phase.lr_scale}; expected finite, "
                    "0 or more for a stage, more than 0 for a phase."
                )
        for before, after in pairwise(self.phases):
            again = set(before.scales(len(stages))) & set(after.still(len(stages)))
            if again:
                names = ", ".join(stages[i].name for i in sorted(again))
                raise BadStage(f"the plan trains {names}, then freezes it again; a trained stage trains to the end.")
        return self


@dataclass(frozen=True)
class Example:
    """One labelled file.

    Attributes:
        path: where it lies, as found.
        label: index into the task's classes; in other kinds of task the group that is spread evenly over the sides.
        digest: sha256 over the decoded content (hex), so that copies are recognised.
        split: which side it stands on.
        group: examples of one group never stand on both sides; empty for none.
        origin: where it came from, if `path` is a copy out of a shard; what people are shown.
        text: what the table gave as its label, where that is not one class: `cat|dog`, `3.7`.
    """

    path: str
    label: int
    digest: str
    split: Split
    group: str = ""
    origin: str = ""
    text: str = ""


@dataclass(frozen=True)
class Trial:
    """One way to fine-tune, tried on folds of the training side.

    Attributes:
        name: as people say it: `full`, `last 3`, `all stages, nothing trained`.
        depth: stages frozen.
        head: spelling of the head it was tried with.
        lr: peak learning rate; `None` where nothing was trained step by step.
        parameters: of the backbone that train.
        correct: whether each example was right when it was held out, in one order for all trials.
        seconds: all folds together.
        note: what went wrong and was mended, or empty.
    """

    name: str
    depth: int
    head: str
    lr: float | None
    parameters: int
    correct: tuple[bool, ...]
    seconds: float
    note: str = ""

    @property
    def score(self) -> float:
        """Share of the held-out examples that were right."""
        return sum(self.correct) / len(self.correct)


@dataclass(frozen=True)
class Evidence:
    """What was measured on the training side before a depth is chosen; validation and test are not looked at.

    Attributes:
        trials: the shallowest first.
        probes: held-out accuracy of a linear probe on each stage's pooled features, input side first.
        majority: share of the largest class.
        folds: how many.
        seconds: for all of it.
        left_out: name -> why a trial was not made.
        full_seconds: of one full fine-tuning on the whole training side, reckoned from its trial; none without one.
    """

    trials: tuple[Trial, ...]
    probes: tuple[float, ...]
    majority: float
    folds: int
    seconds: float
    left_out: Mapping[str, str] = field(default_factory=dict)
    full_seconds: float | None = None


@dataclass(frozen=True)
class Task:
    """Facts about the user's data. Pure data: computing evidence is the caller's business.

    Attributes:
        source: the path that was scanned.
        classes: label names, sorted; the label index is the position here. None for numbers.
        examples: every usable example with its split.
        bad: path -> reason, for the files that could not be used.
        skipped: what was passed over without a look (hidden, other endings), with counts.
        notes: sentences for the user about how the data was read.
        evidence: for a freeze strategy that asks for it with a method `trials`.
        kind: what is to be predicted.
        alike: content digest -> name of its group of near copies, for those that have any.
    """

    source: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    bad: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    evidence: Evidence | None = None
    kind: Kind = "single-label"
    alike: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_outputs(self) -> int:
        """How many numbers a head gives for each example."""
        return 3 if self.kind == "next-token" else len(self.classes) or 1

    def text(self, example: Example) -> str:
        """An example's label as the data spell it."""
        return example.text or (self.classes[example.label] if self.kind in ONE_LABEL else "")

    def split(self, name: Split) -> tuple[Example, ...]:
        """The examples of one side, in scan order."""
        return tuple(e for e in self.examples if e.split == name)

    def counts(self, name: Split) -> dict[str, int]:
        """Examples of each class on one side, every class listed."""
        found = Counter(label for e in self.examples if e.split == name for label in self.names(e))
        return {label: found[label] for label in self.classes}

    def names(self, example: Example) -> tuple[str, ...]:
        """The classes that an example belongs to; none for numbers."""
        if self.kind in ONE_LABEL:
            return (self.classes[example.label],)
        return tuple(c for c in self.classes if c in {part.strip() for part in example.text.split("|")})
