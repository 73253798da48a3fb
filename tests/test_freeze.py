"""The core's freeze strategies, and what a plan must satisfy."""

from __future__ import annotations

import pytest

from zoo_core import freeze
from zoo_core.errors import BadOption, BadStage
from zoo_core.types import FreezePlan, Phase, StageInfo, Task

STAGES = tuple(StageInfo(f"s{i}", 10) for i in range(5))
TASK = Task("", ("a", "b"), ())


@pytest.mark.parametrize(
    ("strategy", "depth"),
    [
        (freeze.HeadOnly(), 5),
        (freeze.Last(0), 5),
        (freeze.Last(2), 3),
        (freeze.Last(5), 0),
        (freeze.Full(), 0),
        (freeze.Scratch(), 0),
    ],
)
def test_depths(strategy, depth):
    """Each strategy says how many stages stay frozen, and why; its plan fits the chain."""
    plan = strategy.plan(STAGES, TASK).check(STAGES)
    assert plan.depth == depth
    assert plan.reason.endswith(".")
    assert strategy.plan(STAGES, TASK) == plan


def test_only_scratch_wants_random_weights():
    """Only `scratch` throws the pretrained weights away; its running statistics train too."""
    assert freeze.Scratch().pretrained is False
    assert freeze.Scratch().plan(STAGES, TASK).batch_norm == "train"
    assert freeze.Full().plan(STAGES, TASK).batch_norm == "frozen"


def test_last_counts_from_the_output():
    """`last:2` trains the two stages next to the head, and names them."""
    assert "(s3, s4)" in freeze.Last(2).plan(STAGES, TASK).reason


def test_layer_decay():
    """`full:layer_decay` gives each stage a smaller rate than the one after it; 1 gives all the same."""
    (phase,) = freeze.Full(layer_decay=0.5).plan(STAGES, TASK).phases
    assert phase.lr_scale == (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
    assert set(freeze.Full().plan(STAGES, TASK).phases[0].lr_scale) == {1.0}


@pytest.mark.parametrize("stages", [-1, 6])
def test_last_out_of_range(stages):
    """More stages than there are is an error with the number that there are."""
    with pytest.raises(BadOption, match=f"last:stages={stages}: this backbone has 5 stages; expected 0 to 5"):
        freeze.Last(stages).plan(STAGES, TASK)


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.5, float("nan")])
def test_layer_decay_out_of_range(decay):
    """A layer decay outside 0 to 1 is an error."""
    with pytest.raises(BadOption, match="expected more than 0 and at most 1"):
        freeze.Full(decay).plan(STAGES, TASK)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (FreezePlan((), "why"), "at least one phase and a reason"),
        (FreezePlan((Phase(5),), ""), "at least one phase and a reason"),
        (FreezePlan((Phase(6),), "why"), r"freezes \[6\] stages, but the backbone has 5"),
        (FreezePlan((Phase(-1),), "why"), "but the backbone has 5"),
        (FreezePlan((Phase(3), Phase(4)), "why"), r"depths \[3, 4\] rise: a trained stage may not be frozen again"),
        (FreezePlan((Phase(3, lr_scale=(1.0,)),), "why"), "1 learning-rate factors for 2 trained stages"),
    ],
)
def test_a_wrong_plan_is_refused(plan, message):
    """A strategy's plan without a reason, outside the chain or with rising depth is refused before anything trains."""
    with pytest.raises(BadStage, match=message):
        plan.check(STAGES)


def test_depth_of_a_plan():
    """A plan's depth is that of its last phase: what no phase trains."""
    assert FreezePlan((Phase(5), Phase(3), Phase(3)), "why").check(STAGES).depth == 3
