"""`auto` decides by trials on the training side, and says how sure it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zoo_core import auto, engine, fit
from zoo_core.auto import ALL_STAGES, FULL, PROBE, Auto, believe, choose
from zoo_core.errors import BadOption
from zoo_core.evidence import fold_schedule, table, told
from zoo_core.files import read_json
from zoo_core.layers import load_registry
from zoo_core.plugins import discover
from zoo_core.recipe import Recipe
from zoo_core.types import Evidence, FreezePlan, Phase, StageInfo, Task, Trial

STAGES = [StageInfo(f"blocks.{i}", 100) for i in range(9)]


def trial(name: str, depth: int, right: int, seconds: float, n: int = 200, head: str = "linear") -> Trial:
    """A trial of which the first `right` of n examples were right."""
    correct = tuple(i < right for i in range(n))
    return Trial(name, depth, head, None if depth == 9 else 3e-4, 900 - 100 * depth, correct, seconds)


def evidence(shallow: int, deep: int, n: int = 200, majority: float = 0.5) -> Evidence:
    """Two trials: all stages untrained, and full."""
    trials = (trial(ALL_STAGES, 9, shallow, 0.1, n, "multi-stage"), trial(FULL, 0, deep, 60.0, n))
    return Evidence(trials, (0.5,) * 9, majority, 2, 61.0)


@pytest.mark.parametrize(
    ("shallow", "deep", "prefer", "chosen"),
    [
        (150, 150, "accuracy", FULL),  # nothing to tell them apart: experience says full
        (170, 150, "accuracy", ALL_STAGES),  # ten points: experience gives way
        (150, 170, "accuracy", FULL),
        (150, 150, "speed", ALL_STAGES),  # the deeper one has to prove itself
        (150, 190, "speed", FULL),
    ],
)
def test_choice(shallow, deep, prefer, chosen):
    """`accuracy` puts the burden of proof on the shallower choice, `speed` on the deeper one."""
    assert choose(evidence(shallow, deep), prefer).name == chosen


def test_evidence_outweighs_experience_as_it_grows():
    """The same difference counts for more, the more examples show it; the deviation shrinks."""
    few, many = (believe(evidence(3 * n // 4, 9 * n // 10, n))[ALL_STAGES] for n in (20, 2000))
    assert auto.BEHIND[ALL_STAGES][0] < few.mean < many.mean < 15.0
    assert many.deviation < few.deviation < auto.BEHIND[ALL_STAGES][1]


def test_plan_and_reason():
    """The plan carries the head and rate that won, and a sentence with the score, the folds and the rivals."""
    task = Task("x", ("a", "b"), (), evidence=evidence(170, 150))
    plan = Auto().plan(STAGES, task).check(STAGES)
    assert (plan.depth, plan.head, plan.lr) == (9, "multi-stage", None)
    assert "85.0% of 200 held-out training examples right in 2 folds" in plan.reason
    close = Auto().plan(STAGES, Task("x", ("a", "b"), (), evidence=evidence(150, 150)))
    assert (close.depth, close.lr, close.ensemble, plan.ensemble) == (0, 3e-4, True, False)
    assert f"Not told apart from it: '{ALL_STAGES}'" in close.reason
    poor = Auto().plan(STAGES, Task("x", ("a", "b"), (), evidence=evidence(100, 100)))
    assert "may not fit your data; compare others: zoo compare DATA" in poor.reason


def test_what_is_tried():
    """Few strong ways, the cheapest first; a head of the user's own takes the place of the solved ones."""
    probes = (0.5, 0.6, 0.7, 0.8, 0.9, 0.8, 0.7, 0.9, 0.6)
    wanted = Auto().trials(STAGES, probes, "linear")
    assert [w.name for w in wanted] == [ALL_STAGES, PROBE, "last 3 of 9", FULL]
    assert [w.depth for w in wanted] == [9, 9, 6, 0]
    assert [w.head for w in Auto().trials(STAGES, probes, "mlp")] == ["mlp", "mlp"]
    assert [w.name for w in Auto(prefer="speed").trials(STAGES, probes, "linear")] == [ALL_STAGES, PROBE]
    assert len(Auto(prefer="speed", budget="5m").trials(STAGES, probes, "linear")) == 4
    with pytest.raises(BadOption, match="auto:folds=1: expected 2 or more"):
        Auto(folds=1).trials(STAGES, probes, "linear")


def test_without_trials():
    """`auto` never guesses: without data it says what it needs."""
    with pytest.raises(BadOption, match="auto needs trials on data"):
        Auto().plan(STAGES, Task("x", ("a", "b"), ()))


def test_a_run(make):
    """A run with `auto` has its evidence in `plan.json`, predicts with what was chosen, and repeats itself."""
    run = make(freeze="auto")
    told = read_json(run.path / "plan.json")["evidence"]
    assert [t["name"] for t in told["trials"]] == [ALL_STAGES, PROBE, "last 1 of 3", FULL]
    assert told["folds"] == 2
    assert len(told["probes"]) == 3
    assert all("behind" in t and "correct" not in t for t in told["trials"])
    assert run.summary["frozen_digest_before"] == run.summary["frozen_digest_after"]
    again = make("again", freeze="auto")
    assert again.metrics == run.metrics
    assert again.summary["head"] == run.summary["head"]


def test_only_training_images_are_looked_at(photos, plugins, tmp_path):
    """Trials see the training side alone: what lies in validation and test does not change them."""
    recipe = Recipe(str(photos), "tiny/net", freeze="auto", epochs=2, device="cpu")
    registry = load_registry(plugins)
    preview = engine.prepare(recipe, registry, plugins, engine.Console())
    found = preview.task.evidence
    assert found is not None
    assert all(len(t.correct) == len(preview.task.split("train")) for t in found.trials)
    before = preview.backbone.digest()
    assert before == engine.load_backbone(registry.get("tiny/net"), plugins).digest()


def test_a_budget(make):
    """What would take longer than the budget is left out, and the evidence says so."""
    run = make(freeze="auto:budget=0.001s")
    told = read_json(run.path / "plan.json")["evidence"]
    assert "would take about" in told["left_out"][FULL]
    assert run.summary["freeze"]["depth"] == 3


@pytest.mark.parametrize("n", [12, 40, 100, 101, 160, 300, 400, 401, 640, 10_000])
@pytest.mark.parametrize("depth", [0, 2, 3])
def test_trials_cost_little_more_than_one_training(n, depth, tiny):
    """On two folds a trial looks at no more than a fifth more images than one training on everything would."""
    plan = FreezePlan((Phase(depth),), "asked")
    assert fold_schedule(plan, tiny, n, n // 2).epochs <= 1.2 * fit.default_schedule(plan, tiny, n).epochs


def test_cost_is_told():
    """What the trials took is said beside one full fine-tuning, where that was tried."""
    found = replace(evidence(150, 150), full_seconds=50.0)
    assert table(found)[-1] == "all trials took 61.0 s, 1.2 times one full fine-tuning (about 50.0 s)"
    assert table(replace(found, full_seconds=None))[-1] == "all trials took 61.0 s"
    assert told(found)["full_seconds"] == 50.0


def test_it_is_listed():
    """`auto` comes through the same hook as every strategy."""
    assert discover([], {}).get("freeze", "auto") is Auto
