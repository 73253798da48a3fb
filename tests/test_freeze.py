"""The core's freeze strategies, and what a plan must satisfy."""

from __future__ import annotations

import pytest

from zoo_core import freeze
from zoo_core.errors import BadOption, BadStage, UsageError
from zoo_core.types import FreezePlan, Phase, StageInfo, Task

STAGES = tuple(StageInfo(f"s{i}", 10, norm_parameters=2 if i in (1, 2) else 0, bias_parameters=3) for i in range(5))
TASK = Task("", ("a", "b"), ())


@pytest.mark.parametrize(
    ("strategy", "depth"),
    [
        (freeze.HeadOnly(), 5),
        (freeze.Last(0), 5),
        (freeze.Last(2), 3),
        (freeze.Last(5), 0),
        (freeze.UpTo("s0"), 1),
        (freeze.UpTo("s4"), 5),
        (freeze.Full(), 0),
        (freeze.Scratch(), 0),
        (freeze.Gradual(), 0),
        (freeze.Gradual(stages=2), 3),
        (freeze.LpFt(), 0),
        (freeze.LpFt(stages=2), 3),
        (freeze.NormOnly(), 1),
        (freeze.NormOnly(stages=3), 2),
        (freeze.BiasOnly(), 0),
        (freeze.BiasOnly(stages=2), 3),
        (freeze.Surgical(("s1", "s3")), 1),
        (freeze.Surgical(("s4",)), 4),
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


@pytest.mark.parametrize(
    "strategy",
    [
        freeze.Last(2, layer_decay=0.5),
        freeze.UpTo("s2", layer_decay=0.5),
        freeze.Full(layer_decay=0.5),
        freeze.Gradual(layer_decay=0.5),
        freeze.LpFt(layer_decay=0.5),
        freeze.NormOnly(layer_decay=0.5),
        freeze.BiasOnly(layer_decay=0.5),
        freeze.Surgical(("s1", "s3"), layer_decay=0.5),
    ],
)
def test_everything_composes_with_layer_decay(strategy):
    """With each strategy a stage's factor depends on how far it is from the head, and on nothing else."""
    plan = strategy.plan(STAGES, TASK).check(STAGES)
    for phase in plan.phases:
        assert phase.scales(5) == {i: phase.rate * 0.5 ** (5 - i) for i in phase.scales(5)}


def test_only_what_is_named_trains():
    """`surgical` trains the named stages; those between and after them stand still, like those before."""
    plan = freeze.Surgical(("s3", "s1")).plan(STAGES, TASK)
    assert plan.phases[0].scales(5) == {1: 1.0, 3: 1.0}
    assert plan.still(5) == (0, 2, 4)
    assert plan.parameters(STAGES) == 20
    assert "Only s1, s3 of 5" in plan.reason


def test_some_parameters():
    """`norm-only` and `bias-only` train some numbers of each stage; stages without any stand still."""
    norm = freeze.NormOnly().plan(STAGES, TASK)
    assert (norm.still(5), norm.parameters(STAGES)) == ((0, 3, 4), 4)
    bias = freeze.BiasOnly(stages=2).plan(STAGES, TASK)
    assert (bias.still(5), bias.parameters(STAGES)) == ((0, 1, 2), 6)


def test_gradual_opens_from_the_top():
    """`gradual` begins with the head and opens as many stages in each phase; the last one has half of the epochs."""
    plan = freeze.Gradual(steps=3).plan(STAGES, TASK)
    assert [phase.depth for phase in plan.phases] == [5, 3, 0]
    assert [phase.share for phase in plan.phases] == [0.25, 0.25, 0.5]
    assert [phase.depth for phase in freeze.Gradual(stages=1).plan(STAGES, TASK).phases] == [5, 4]


def test_lp_ft_begins_with_the_head():
    """`lp-ft` gives most epochs, and the rate of a head by itself, to the head; then the stages train with it."""
    probe, tune = freeze.LpFt(stages=3).plan(STAGES, TASK).phases
    assert (probe.depth, probe.share, probe.rate) == (5, 0.7, 10.0)
    assert (tune.depth, tune.rate) == (2, 1.0)
    assert probe.share + tune.share == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["Last", "Full", "Gradual", "LpFt", "NormOnly", "BiasOnly"])
def test_batch_norm_is_one_option(name):
    """Every strategy that trains pretrained stages has `batch_norm`; running statistics stand still by default."""
    strategy = getattr(freeze, name)
    assert strategy().plan(STAGES, TASK).batch_norm == "frozen"
    assert strategy(batch_norm="train").plan(STAGES, TASK).batch_norm == "train"
    assert freeze.UpTo("s1", batch_norm="train").plan(STAGES, TASK).batch_norm == "train"
    assert freeze.Surgical(("s1",), batch_norm="train").plan(STAGES, TASK).batch_norm == "train"


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            freeze.UpTo("s9"),
            r"upto:stage: no stage 's9' in this backbone; expected one of s0, s1, s2, s3, s4\. Did",
        ),
        (freeze.UpTo(), r"upto:stage: no stage named; expected one of s0, s1, s2, s3, s4\."),
        (freeze.Surgical(), r"surgical:stages: no stage named; expected one of s0, s1"),
        (freeze.Surgical(("s0", "neck")), r"surgical:stages: no stage 'neck' in this backbone; expected one of s0"),
        (freeze.NormOnly(stages=2), r"norm-only: no normalisation layers in the last 2 stages\. Try --freeze last:1"),
        (freeze.LpFt(stages=0), r"lp-ft:stages=0: this backbone has 5 stages; expected 1 to 5"),
        (freeze.LpFt(head_share=1.0), r"lp-ft:head_share=1.0: expected more than 0 and less than 1"),
        (freeze.Gradual(stages=6), r"gradual:stages=6: this backbone has 5 stages; expected 1 to 5"),
        (freeze.Gradual(steps=1), r"gradual:steps=1: expected 2 or more"),
        (freeze.Last(layer_decay=2.0), r"last:layer_decay=2.0: expected more than 0 and at most 1"),
    ],
)
def test_what_cannot_be(strategy, message):
    """What does not fit the chain is an error with what was given and what there is; an unknown name lists all."""
    with pytest.raises(UsageError, match=message):
        strategy.plan(STAGES, TASK)


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
        (FreezePlan((Phase(3, lr_scale=(-1.0, 1.0)),), "why"), "expected finite, 0 or more for a stage"),
        (FreezePlan((Phase(3, rate=0.0),), "why"), "more than 0 for a phase"),
        (
            FreezePlan((Phase(3, 0.5), Phase(2, 0.5, lr_scale=(1.0, 0.0, 1.0))), "why"),
            "the plan trains s3, then freezes it again; a trained stage trains to the end",
        ),
    ],
)
def test_a_wrong_plan_is_refused(plan, message):
    """A strategy's plan without a reason, outside the chain or with rising depth is refused before anything trains."""
    with pytest.raises(BadStage, match=message):
        plan.check(STAGES)


def test_depth_of_a_plan():
    """A plan's depth is that of its last phase: what no phase trains."""
    assert FreezePlan((Phase(5), Phase(3), Phase(3)), "why").check(STAGES).depth == 3
