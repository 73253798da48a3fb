"""The nouns that need no torch: what a strategy sees (stages, task) and what it says (a plan)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from zoo_core.errors import BadStage

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class StageInfo:
    """What a freeze strategy may know of a stage, input side first.

    Attributes:
        name: the stage's name in the family's own code, e.g. `layer3` or `blocks.5`.
        parameters: number of trainable numbers.
        norm_buffers: number of running statistics (batch norm) the stage carries.
    """

    name: str
    parameters: int
    norm_buffers: int = 0


@dataclass(frozen=True)
class Phase:
    """One stretch of training with one set of trainable stages.

    Attributes:
        depth: stages frozen, counted from the input; `len(stages)` trains the head alone.
        share: this phase's share of the whole budget of epochs, in (0, 1].
        lr_scale: learning-rate factor of each trained stage, `len(stages) - depth` of them,
            input side first; empty means 1 for all. The head always has factor 1.
        only: which parameters of the trained stages train.
    """

    depth: int
    share: float = 1.0
    lr_scale: tuple[float, ...] = ()
    only: Literal["all", "norm", "bias"] = "all"


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
    """

    phases: tuple[Phase, ...]
    reason: str
    batch_norm: Literal["frozen", "train"] = "frozen"
    head: str = ""
    lr: float | None = None

    @property
    def depth(self) -> int:
        """Stages that no phase trains."""
        return self.phases[-1].depth

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
        return self


@dataclass(frozen=True)
class Example:
    """One labelled file.

    Attributes:
        path: where it lies, as found.
        label: index into the task's classes.
        digest: sha256 over the decoded content (hex), so that copies are recognised.
        split: which side it stands on.
        group: examples of one group never stand on both sides; empty for none.
        origin: where it came from, if `path` is a copy out of a shard; what people are shown.
    """

    path: str
    label: int
    digest: str
    split: Split
    group: str = ""
    origin: str = ""


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
    """

    trials: tuple[Trial, ...]
    probes: tuple[float, ...]
    majority: float
    folds: int
    seconds: float
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Facts about the user's data. Pure data: computing evidence is the caller's business.

    Attributes:
        source: the path that was scanned.
        classes: label names, sorted; the label index is the position here.
        examples: every usable example with its split.
        bad: path -> reason, for the files that could not be used.
        skipped: what was passed over without a look (hidden, other endings), with counts.
        notes: sentences for the user about how the data was read.
        evidence: for a freeze strategy that asks for it with a method `trials`.
    """

    source: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    bad: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    evidence: Evidence | None = None

    def split(self, name: Split) -> tuple[Example, ...]:
        """The examples of one side, in scan order."""
        return tuple(e for e in self.examples if e.split == name)

    def counts(self, name: Split) -> dict[str, int]:
        """Examples of each class on one side, every class listed."""
        found = Counter(e.label for e in self.examples if e.split == name)
        return {label: found[i] for i, label in enumerate(self.classes)}
