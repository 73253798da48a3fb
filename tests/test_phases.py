"""Every freeze strategy on a real chain: what trains, what stands still, in every phase; and the conformance kit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from zoo_core import activations, components, data, fit, freeze, heads, regimes, testing
from zoo_core.console import Console
from zoo_core.errors import BadOption
from zoo_core.layers import load_registry
from zoo_core.plugins import discover
from zoo_core.testing.components import Component
from zoo_core.training import epochs_of
from zoo_core.types import FreezePlan, Phase, StageInfo, Task
from zoo_core.weights import load_backbone

SPECS = (
    "head-only",
    "last:2",
    "last:2,layer_decay=0.5,batch_norm=train",
    "upto:stem",
    "full",
    "full:layer_decay=0.8",
    "scratch",
    "gradual",
    "gradual:stages=2,steps=2,batch_norm=train",
    "lp-ft",
    "lp-ft:stages=2,layer_decay=0.5",
    "norm-only",
    "norm-only:batch_norm=train",
    "bias-only:stages=2",
    "surgical:stem",
    "surgical:stem+neck",
    "surgical:stem+neck,batch_norm=train",
    "surgical:block,layer_decay=0.5",
)
SCHEDULE = fit.Schedule(epochs=4, batch_size=8, lr=1e-2)
NONE = fit.Side([], torch.empty(0, dtype=torch.long))


@pytest.fixture
def task(photos):
    """The photos with their sides."""
    return data.scan(photos)


@pytest.fixture
def model_of(plugins, task):
    """A plan, or a strategy's spelling, to a model of the tiny backbone that is to be trained by it."""

    def model_of(spec) -> fit.Model:
        body = load_backbone(load_registry(plugins).get("tiny/net"), plugins)
        body.model.to(memory_format=torch.channels_last)
        plan = spec
        if isinstance(spec, str):
            plan = components.build(plugins, "freeze", spec).plan(body.info(), task).check(body.info())
        body.freeze(plan.depth)
        torch.manual_seed(0)
        return fit.Model(body, heads.Linear().build(32, task), heads.Linear(), plan)

    return model_of


@pytest.fixture
def train(task):
    """Train a model on the photos; the history without seconds."""

    def train(model, schedule=SCHEDULE, features=False):
        paths = {e.digest: e.path for e in task.examples}
        acts = activations.at(model.backbone, model.plan.depth, paths, Path("store"))
        examples = task.split("train")
        side = fit.Side([e.digest for e in examples], torch.tensor([e.label for e in examples]))
        deeper = {3: acts.features} if features else None
        boundary = acts.boundary
        history = fit.fit(model, regimes.NewOnly(), schedule, boundary, side, NONE, 0, Console(), deeper=deeper)
        return [{k: v for k, v in line.items() if k != "seconds"} for line in history]

    return train


def test_every_strategy_is_here():
    """The strategies of these tests are all that the core has, but for `auto`, which chooses among them."""
    core = discover([], {}).supplied("freeze")
    assert {spec.partition(":")[0] for spec in SPECS} | {"auto"} == set(core)


@pytest.mark.parametrize("spec", SPECS)
def test_frozen_stays_frozen(model_of, train, spec):
    """The digest of each stage that no phase trains is the same after training; each other stage and the head moved."""
    model = model_of(spec)
    still = model.plan.still(3)
    before, head = [model.backbone.digest_of([i]) for i in range(3)], model.head.weight.clone()
    train(model)
    assert [model.backbone.digest_of([i]) == before[i] for i in range(3)] == [i in still for i in range(3)]
    assert model.backbone.digest(model.plan.depth) == model_of(spec).backbone.digest(model.plan.depth)
    assert not torch.equal(model.head.weight, head)


@pytest.mark.parametrize("spec", SPECS)
def test_one_group_for_each_trained_parameter(model_of, spec):
    """In every phase each trainable parameter stands in one optimiser group, with its stage's rate as `lr`."""
    model = model_of(spec)
    body = model.backbone
    for phase in model.plan.phases:
        groups = fit.parameter_groups(model, phase, SCHEDULE)
        grouped = Counter(id(p) for group in groups for p in group["params"])
        trainable = {id(p) for p in (*body.model.parameters(), *model.head.parameters()) if p.requires_grad}
        assert grouped == Counter(trainable)
        scales = phase.scales(3)
        rates = {body.stages[i].name: SCHEDULE.lr * scale for i, scale in scales.items()}
        assert {g["stage"]: g["lr"] for g in groups} == rates | {"head": SCHEDULE.lr * phase.rate}
        expected = sum(body.info()[i].trainable(phase.only) for i in scales)
        assert sum(p.numel() for p in body.model.parameters() if p.requires_grad) == expected


@pytest.mark.parametrize("spec", SPECS)
def test_what_stands_still_is_in_eval_mode(model_of, spec):
    """In every phase a stage that does not train is in eval mode, and `train()` on the model wakes nothing in it."""
    model = model_of(spec)
    for phase in model.plan.phases:
        fit.parameter_groups(model, phase, SCHEDULE)
        model.backbone.model.train()
        for i in phase.still(3):
            assert not any(m.training for m in model.backbone.stages[i].module.modules())
        for i in phase.scales(3):
            assert model.backbone.stages[i].module.training


@pytest.mark.parametrize("spec", SPECS)
def test_running_statistics_of_trained_stages(model_of, train, spec):
    """Running statistics move in stages that train with `batch_norm=train` (and from scratch), and nowhere else."""
    model = model_of(spec)
    before = {n: t.clone() for n, t in model.backbone.tensors().items() if "running" in n}
    train(model)
    for i, stage in enumerate(model.backbone.stages):
        for name in set(stage.tensors) & before.keys():
            moved = not torch.equal(before[name], model.backbone.tensors()[name])
            assert moved == (model.plan.batch_norm == "train" and i not in model.plan.still(3)), name


@pytest.mark.parametrize("spec", ["gradual", "lp-ft"])
def test_the_head_alone_reads_pooled_features(model_of, train, spec):
    """A phase of the head alone reads the features that are kept anyway; that changes the last bits at most."""
    plain, fast = model_of(spec), model_of(spec)
    slow_history, fast_history = train(plain), train(fast, features=True)
    for a, b in zip(slow_history, fast_history, strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    for name, tensor in plain.trained(0).items():
        assert torch.allclose(tensor, fast.trained(0)[name], atol=1e-4), name


def test_the_first_phase_is_a_head_only_run(model_of, train):
    """The first phase of `lp-ft` gives the very bits of `head-only` with its epochs and its rate."""
    model, alone = model_of("lp-ft"), model_of("head-only")
    epochs = epochs_of(model.plan, 8)[0]
    first = train(model, replace(SCHEDULE, epochs=8), features=True)[:epochs]
    assert first == train(alone, replace(SCHEDULE, epochs=epochs, lr=10 * SCHEDULE.lr))


@pytest.mark.parametrize(
    ("spec", "epochs", "expected"),
    [
        ("full", 7, [7]),
        ("lp-ft", 10, [7, 3]),
        ("lp-ft", 2, [1, 1]),
        ("gradual", 18, [3, 3, 3, 9]),
        ("gradual", 4, [1, 1, 1, 1]),
        ("gradual", 5, [1, 1, 1, 2]),
    ],
)
def test_epochs_of_phases(model_of, spec, epochs, expected):
    """Phases share the epochs, each has at least one, and together they have all of them."""
    assert epochs_of(model_of(spec).plan, epochs) == expected


def test_stages_get_as_many_epochs_as_without_a_probe(model_of):
    """By default the phase for the head alone comes on top: the stages train as long as with `full`."""
    body, full, lp_ft = model_of("full").backbone, model_of("full").plan, model_of("lp-ft").plan
    usual = fit.default_schedule(full, body, 160).epochs
    assert epochs_of(lp_ft, fit.default_schedule(lp_ft, body, 160).epochs)[1] == usual


def test_a_budget_goes_to_every_phase(model_of, train):
    """A budget that is spent at once leaves each phase its first epoch."""
    history = train(model_of("gradual"), replace(SCHEDULE, epochs=40, budget_seconds=1e-6))
    assert [line["phase"] for line in history] == [0, 1, 2, 3]


def test_too_few_epochs(make):
    """Fewer epochs than phases is an error with the number that it takes."""
    with pytest.raises(BadOption, match=r"--epochs 2: --freeze gradual has 4 phases .* Give --epochs 4 or more"):
        make(freeze="gradual", epochs=2)


@pytest.mark.parametrize("spec", ["lp-ft", "gradual:stages=2", "surgical:stem+neck", "norm-only", "bias-only:1"])
def test_a_run(make, spec):
    """A run with any strategy predicts what it wrote down, and its frozen stages have the digest of before."""
    run = make(freeze=spec, epochs=4)
    assert run.summary["frozen_digest_before"] == run.summary["frozen_digest_after"]
    assert run.summary["schedule"]["collapses"] == []
    answers = {p.path: p.label for p in run.predict("photos")}
    assert len(answers) == 30
    if spec.startswith("surgical"):
        assert run.summary["freeze"]["stages_trained"] == ["stem", "neck"]


@dataclass(frozen=True)
class UpToFirst(freeze.UpTo):
    """`upto` with a stage that every chain of the kit has."""

    stage: str = "stage0"


@dataclass(frozen=True)
class First(freeze.Surgical):
    """`surgical` with a stage that every chain of the kit has."""

    stages: tuple[str, ...] = ("stage0",)


@pytest.mark.parametrize("check", testing.CHECKS["freeze"], ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted({*discover([], {}).supplied("freeze")} - {"auto"}))
def test_conformance(name, check):
    """Every strategy keeps, on chains of 1, 2 and 50 stages, what zoo asks of anyone's; nothing is skipped."""
    cls = {"upto": UpToFirst, "surgical": First}.get(name) or discover([], {}).get("freeze", name)
    check(Component("freeze", name, cls))


@pytest.mark.parametrize("count", [1, 2, 50])
def test_options_on_short_and_long_chains(count):
    """Options that count stages fit every chain that has so many."""
    stages = tuple(StageInfo(f"s{i}", 10, norm_parameters=2, bias_parameters=1) for i in range(count))
    task = Task("", ("a", "b"), ())
    for cls in (freeze.Last, freeze.Gradual, freeze.LpFt, freeze.NormOnly, freeze.BiasOnly):
        for k in {1, count}:
            plan = cls(stages=k, layer_decay=0.9).plan(stages, task).check(stages)
            assert plan.still(count) == tuple(range(count - k))
    ends = freeze.Surgical(("s0", f"s{count - 1}")).plan(stages, task).check(stages)
    assert ends.still(count) == tuple(range(1, count - 1))


def test_a_fixed_stage_may_begin_to_train_later(model_of, train):
    """A plan of one's own may open stages one by one: a stage with factor 0 stands still until its phase."""
    phases = (Phase(1, 0.5, lr_scale=(0.0, 1.0)), Phase(1, 0.5))
    model = model_of(FreezePlan(phases, "why"))
    before = model.backbone.digest_of([1])
    fit.parameter_groups(model, phases[0], SCHEDULE)
    assert not any(p.requires_grad for p in model.backbone.stage_parameters(1).values())
    train(model)
    assert model.backbone.digest_of([1]) != before
