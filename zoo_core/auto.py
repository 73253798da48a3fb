"""`auto`: how deep to retrain, decided by trials on the user's own data and by what was known before.

What was known: over nine cells (three data sets, 40 to 640 examples, EfficientNet-Lite0, before this code
was written), full fine-tuning at 3e-4 was better than each shallower way by so many points of accuracy,
mean and standard deviation over the cells. That is the prior; the trials' paired differences move it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from zoo_core.errors import BadOption
from zoo_core.types import Evidence, FreezePlan, Phase, StageInfo, Task, Trial

ALL_STAGES, PROBE, PARTIAL, FULL = "all stages, nothing trained", "linear probe", "partial", "full, gently"
BEHIND: dict[str, tuple[float, float]] = {
    ALL_STAGES: (1.1, 2.1),
    PROBE: (5.1, 2.6),
    PARTIAL: (3.3, 2.5),
    FULL: (0.0, 0.1),
}
"""Points of accuracy that each way lay behind full fine-tuning: mean and standard deviation of nine cells."""
MARGIN = 1.0
"""Points that `prefer=speed` lets go for a cheaper model."""


@dataclass(frozen=True)
class Wanted:
    """A trial to make: what `Trial` says, before it was made. `kind` is a key of `BEHIND`."""

    kind: str
    name: str
    depth: int
    head: str
    lr: float | None


@dataclass(frozen=True)
class Auto:
    """Try few strong ways on folds of your data, and take the one that evidence and experience favour.

    `prefer=accuracy` takes the best guess and averages what it trains with ridge on all stages; its trials, on two
    `folds` of the training side, took 1.2 to 1.7 times as long as one full fine-tuning where it was measured, and each
    fold more about one more. `prefer=speed` takes the cheapest that is not shown to lose a point, and tries only what
    trains no stage, unless there is a `budget` for more, e.g. 5m; it bounds the trials.
    """

    prefer: Literal["accuracy", "speed"] = "accuracy"
    budget: str = ""
    folds: int = 2

    def trials(self, stages: Sequence[StageInfo], probes: Sequence[float], head: str) -> list[Wanted]:
        """What to try, the cheapest first.

        Args:
            probes: held-out accuracy of a linear probe on each stage: the partial trial freezes up to the best.
            head: the user's; another one than `linear` is taken as it is.
        """
        if self.folds < 2:
            raise BadOption(f"auto:folds={self.folds}: expected 2 or more.")
        count = len(stages)
        wanted = []
        if head == "linear":
            wanted.append(Wanted(ALL_STAGES, ALL_STAGES, count, "multi-stage", None))
            wanted.append(Wanted(PROBE, PROBE, count, "linear:solver=lbfgs", None))
            if self.prefer == "speed" and not self.budget:
                return wanted
        peak = max(range(count), key=lambda i: probes[i]) + 1
        depth = min(max(peak, 2 * count // 3), count - 1)  # a third of the stages at most: trials must stay cheap
        wanted.append(Wanted(PARTIAL, f"last {count - depth} of {count}", depth, head, 1e-3))
        wanted.append(Wanted(FULL, FULL, 0, head, 3e-4))
        return wanted

    def plan(self, stages: Sequence[StageInfo], task: Task) -> FreezePlan:
        if task.evidence is None or not task.evidence.trials:
            raise BadOption("auto needs trials on data; give it to zoo finetune or zoo plan.")
        evidence = task.evidence
        best = choose(evidence, self.prefer)
        why = reason(evidence, best, self.prefer, len(stages))
        beside = self.prefer == "accuracy" and best.depth < len(stages)
        return FreezePlan((Phase(best.depth),), why, head=best.head, lr=best.lr, ensemble=beside)


@dataclass(frozen=True)
class Belief:
    """How many points a trial lies behind the deepest one made, after experience and evidence.

    Attributes:
        measured, error: mean paired difference and its standard error, in points.
        mean, deviation: posterior (normal prior, normal likelihood).
    """

    measured: float
    error: float
    mean: float
    deviation: float


def believe(evidence: Evidence) -> dict[str, Belief]:
    """Trial name -> how far it is behind the deepest trial."""
    deepest = min(evidence.trials, key=lambda t: t.depth)
    found = {}
    for trial in evidence.trials:
        prior = BEHIND[kind_of(trial)][0] - BEHIND[kind_of(deepest)][0]
        spread = math.hypot(BEHIND[kind_of(trial)][1], BEHIND[kind_of(deepest)][1])
        differences = [100.0 * (a - b) for a, b in zip(deepest.correct, trial.correct, strict=True)]
        n = len(differences)
        mean = sum(differences) / n
        # plus one disagreement each way: few examples without any must not look certain
        variance = (sum((d - mean) ** 2 for d in differences) + 2 * 100.0**2) / (n + 2)
        error = math.sqrt(variance / n)
        weight = spread**2 / (spread**2 + error**2)
        found[trial.name] = Belief(mean, error, prior + weight * (mean - prior), math.sqrt(weight) * error)
    found[deepest.name] = Belief(0.0, 0.0, 0.0, 0.0)
    return found


def choose(evidence: Evidence, prefer: str) -> Trial:
    """`accuracy`: the least far behind. `speed`: the cheapest that is unlikely to lose more than a point."""
    beliefs = believe(evidence)
    if prefer == "accuracy":
        return min(evidence.trials, key=lambda t: (beliefs[t.name].mean, t.seconds))
    enough = [t for t in evidence.trials if _loses(beliefs[t.name]) < 0.8]
    return min(enough or evidence.trials, key=lambda t: (t.seconds, beliefs[t.name].mean))


def reason(evidence: Evidence, best: Trial, prefer: str, count: int) -> str:
    """The sentence for the user: what was chosen, by what, and what could not be told apart."""
    beliefs = believe(evidence)
    what = "no stage trains" if best.depth == count else f"{count - best.depth} of {count} stages train"
    n = len(best.correct)
    why = "is the best guess" if prefer == "accuracy" else "is the cheapest that is unlikely to lose a point"
    text = (
        f"'{best.name}' ({what}) {why}: {best.score:.1%} of {n} held-out training examples right in "
        f"{evidence.folds} folds, majority {evidence.majority:.1%}."
    )
    rivals = [t for t in evidence.trials if t is not best and _alike(beliefs[t.name], beliefs[best.name])]
    if rivals:
        text += " Not told apart from it: " + ", ".join(f"'{t.name}' ({t.score:.1%})" for t in rivals) + "."
    if best.score - evidence.majority < 2 * math.sqrt(best.score * (1 - best.score) / n):
        text += (
            " None is clearly better than the majority class: this backbone may not fit your data; "
            "compare others: zoo compare DATA -b NAME -b NAME."
        )
    return text


def kind_of(trial: Trial) -> str:
    """The key of `BEHIND`."""
    return trial.name if trial.name in BEHIND else PARTIAL


def _alike(a: Belief, b: Belief) -> bool:
    """Whether two posteriors differ by less than two of the wider one's deviations."""
    return abs(a.mean - b.mean) < 2 * max(a.deviation, b.deviation)


def _loses(belief: Belief) -> float:
    """Probability that a trial is more than a point behind."""
    if belief.deviation == 0:
        return 0.0
    return 0.5 * (1 + math.erf((belief.mean - MARGIN) / (belief.deviation * math.sqrt(2))))
