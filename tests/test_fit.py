"""Training the tail: what trains, what stands still, and that the same request gives the same bits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo_core import activations, data, fit, freeze, heads, reading, regimes
from zoo_core.console import Console
from zoo_core.errors import TrainingFailed
from zoo_core.layers import load_registry
from zoo_core.types import FreezePlan, Phase, Task
from zoo_core.weights import load_backbone

TASK = Task("", ("blue", "green", "red"), ())
SCHEDULE = fit.Schedule(epochs=2, batch_size=8, lr=1e-2)


@pytest.fixture
def task(photos):
    """The photos with their sides."""
    return data.scan(photos)


def side(task, name):
    """One side as `fit` sees it."""
    examples = task.split(name)
    return fit.Side([e.digest for e in examples], torch.tensor([e.label for e in examples]))


def model_of(plugins, plan, seed=0):
    """The tiny backbone, as the engine prepares it, with a fresh head."""
    body = load_backbone(load_registry(plugins).get("tiny/net"), plugins)
    body.model.to(memory_format=torch.channels_last)
    body.freeze(plan.depth)
    torch.manual_seed(seed)
    return fit.Model(body, heads.Linear().build(32, TASK), heads.Linear(), plan)


def train(model, task, boundary=None, seed=0, schedule=SCHEDULE):
    """Train, from the store where no boundary is given; the trained tensors and the history without seconds."""
    paths = {e.digest: e.path for e in task.examples}
    boundary = boundary or activations.at(model.backbone, model.plan.depth, paths, Path("store")).boundary
    history = fit.fit(
        model, regimes.NewOnly(), schedule, boundary, side(task, "train"), side(task, "val"), seed, Console()
    )
    for line in history:
        line.pop("seconds")
    return {n: t.detach().clone() for n, t in model.trained(0).items()}, history


def same(one, two):
    """Whether two sets of tensors are equal bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def plan_of(depth, batch_norm="frozen", **phase):
    """A plan of one phase."""
    return FreezePlan((Phase(depth, **phase),), "why", batch_norm=batch_norm)


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_cached_equals_uncached(plugins, task, depth, batch_norm):
    """Training from the store equals training that computes the prefix anew for each batch, bit for bit."""
    plan = plan_of(depth, batch_norm)
    cached = train(model_of(plugins, plan), task)
    fresh = model_of(plugins, plan)
    paths = {e.digest: e.path for e in task.examples}
    prefix, _ = fresh.backbone.cut(depth)

    def compute(digests):
        reader, cpu = fresh.backbone.reader, torch.device("cpu")
        parts = reading.map_examples(lambda _, raw, x: prefix(x), [*paths.values()], reading.files(reader), reader, cpu)
        whole = torch.cat(list(parts)).clone()  # a normal tensor: training cannot use one of inference mode
        return whole[[list(paths).index(d) for d in digests]]

    uncached = train(fresh, task, compute)
    assert cached[1] == uncached[1]
    assert same(cached[0], uncached[0])


def test_same_seed_same_bits(plugins, task):
    """The same request gives the same bits; another seed gives others."""
    plan = plan_of(0)
    first = train(model_of(plugins, plan), task)
    again = train(model_of(plugins, plan), task)
    assert same(first[0], again[0])
    assert first[1] == again[1]
    assert not same(first[0], train(model_of(plugins, plan), task, seed=1)[0])


def test_the_state_outside_does_not_matter(plugins, task):
    """Random numbers drawn elsewhere before the training change nothing in it."""
    plan = plan_of(1)
    expected = train(model_of(plugins, plan), task)[0]
    model = model_of(plugins, plan)
    torch.rand(7)
    assert same(train(model, task)[0], expected)


def test_order_is_a_function_of_seed_and_epoch(plugins, task):
    """Each epoch visits every example once, in an order that depends on seed and epoch alone."""

    def orders(seed, epochs):
        seen = []

        def spy(digests):
            seen.append(list(digests))
            return torch.zeros(len(digests), 32)

        schedule = replace(SCHEDULE, epochs=epochs)
        none = fit.Side([], torch.tensor([], dtype=torch.long))
        model = model_of(plugins, plan_of(3))
        fit.fit(model, regimes.NewOnly(), schedule, spy, side(task, "train"), none, seed, Console())
        size = len(seen) // epochs
        return [list(chain(*seen[i : i + size])) for i in range(0, len(seen), size)]

    short, long, other = orders(0, 2), orders(0, 3), orders(1, 2)
    assert long[:2] == short
    assert short[0] != short[1]
    assert short[0] != other[0]
    expected = Counter(side(task, "train").digests)
    assert all(Counter(order) == expected for order in (*long, *other))


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("only", ["all", "norm", "bias"])
def test_each_trained_parameter_in_one_group(plugins, depth, only):
    """Every trainable parameter stands in exactly one optimiser group, no frozen one in any."""
    model = model_of(plugins, plan_of(depth, only=only))
    groups = fit.parameter_groups(model, model.plan.phases[0], SCHEDULE)
    grouped = Counter(id(p) for group in groups for p in group["params"])
    assert set(grouped.values()) == {1}
    body, head = model.backbone, model.head
    wanted = {id(p) for p in head.parameters()}
    for i in range(depth, 3):
        norms = [m for m in body.stages[i].module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        in_norms = {id(p) for m in norms for p in m.parameters()}
        for name, parameter in body.stage_parameters(i).items():
            if only == "all" or (only == "norm" and id(parameter) in in_norms) or (only == "bias" and "bias" in name):
                wanted.add(id(parameter))
    assert set(grouped) == wanted
    assert {id(p) for p in (*body.model.parameters(), *head.parameters()) if p.requires_grad} == wanted


def test_decay_only_on_matrices(plugins):
    """Weight decay is for matrices and kernels, not for biases and norms."""
    model = model_of(plugins, plan_of(0))
    for group in fit.parameter_groups(model, model.plan.phases[0], SCHEDULE):
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) is (parameter.ndim > 1)


def test_layer_wise_rates(plugins):
    """Each stage's rate is scaled by the plan's factor, input side first; the head's is not."""
    plan = freeze.Full(layer_decay=0.5).plan(model_of(plugins, plan_of(0)).backbone.info(), TASK)
    model = model_of(plugins, plan)
    groups = fit.parameter_groups(model, plan.phases[0], SCHEDULE)
    scale = {id(p): group["scale"] for group in groups for p in group["params"]}
    for i, factor in enumerate((0.125, 0.25, 0.5)):
        assert {scale[id(p)] for p in model.backbone.stage_parameters(i).values()} == {factor}
    assert {scale[id(p)] for p in model.head.parameters()} == {1.0}


def test_a_smaller_rate_moves_less(plugins, task):
    """A stage whose factor is 0 does not move; one with a factor does."""
    model = model_of(plugins, plan_of(1, lr_scale=(0.0, 1.0)))
    before = {i: {n: p.clone() for n, p in model.backbone.stage_parameters(i).items()} for i in (1, 2)}
    train(model, task)
    assert same(before[1], model.backbone.stage_parameters(1))
    assert not same(before[2], model.backbone.stage_parameters(2))


@pytest.mark.parametrize(("batch_norm", "moves"), [("frozen", False), ("train", True)])
def test_running_statistics(plugins, task, batch_norm, moves):
    """In trained stages running statistics stand still with `frozen` and move with `train` (as from scratch)."""
    model = model_of(plugins, plan_of(0, batch_norm))
    before = {n: t.clone() for n, t in model.backbone.tensors().items() if "running" in n}
    train(model, task)
    after = {n: t for n, t in model.backbone.tensors().items() if "running" in n}
    assert [torch.equal(before[n], after[n]) for n in before] == [not moves] * 4


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_frozen_stages_stand_still(plugins, task, depth):
    """Training changes the tail and the head, and not a bit of the frozen stages."""
    model = model_of(plugins, plan_of(depth, "train"))
    before, head = model.backbone.digest(depth), model.head.weight.clone()
    train(model, task)
    assert model.backbone.digest(depth) == before
    assert not torch.equal(model.head.weight, head)


def test_phases(plugins, task):
    """Phases follow one another by their shares; each trains what it says (gradual unfreezing)."""
    plan = FreezePlan((Phase(3, share=0.5), Phase(2, share=0.25), Phase(1, share=0.25)), "why")
    model = model_of(plugins, plan)
    _, history = train(model, task, schedule=replace(SCHEDULE, epochs=8))
    assert [line["phase"] for line in history] == [0, 0, 0, 0, 1, 1, 2, 2]
    assert [line["epoch"] for line in history] == list(range(8))


def test_a_budget_cuts_epochs(plugins, task):
    """A budget that is spent after the first epoch ends the training there, with a model."""
    schedule = replace(SCHEDULE, epochs=50, budget_seconds=1e-6)
    _, history = train(model_of(plugins, plan_of(3)), task, schedule=schedule)
    assert len(history) == 1


def test_the_best_epoch_is_kept(plugins, task):
    """Validation chooses: the model ends as it was in the epoch of the lowest validation loss."""
    model = model_of(plugins, plan_of(3))
    schedule = fit.Schedule(epochs=6, batch_size=8, lr=3.0)
    _, history = train(model, task, schedule=schedule)
    paths = {e.digest: e.path for e in task.examples}
    acts = activations.at(model.backbone, 3, paths, Path("store"))
    val = side(task, "val")
    loss = float(heads.Linear().loss(model.outputs(acts.boundary, val.digests), val.labels).mean())
    assert loss == min(line["val_loss"] for line in history)


def test_no_numbers_no_model(plugins, task):
    """A loss that is not finite stops with the rate and a smaller one to try."""
    model = model_of(plugins, plan_of(3))
    with pytest.raises(
        TrainingFailed, match=r"the loss became nan in batch 1 of 3 at learning rate 0\.01. Try --lr 0\.0033"
    ):
        train(model, task, lambda digests: torch.full((len(digests), 32), float("nan")))


def test_it_learns(plugins, task):
    """On images that differ in colour the loss falls, for each depth."""
    for depth in range(4):
        _, history = train(model_of(plugins, plan_of(depth)), task, schedule=replace(SCHEDULE, epochs=5))
        assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_default_schedule(plugins):
    """Defaults depend on depth, data size and whether the weights are pretrained: deeper training is gentler."""
    body = model_of(plugins, plan_of(3)).backbone
    head_only = fit.default_schedule(plan_of(3), body, 1000)
    partial = fit.default_schedule(plan_of(2), body, 1000)
    full = fit.default_schedule(plan_of(0), body, 1000)
    body.pretrained = False
    scratch = fit.default_schedule(plan_of(0), body, 1000)
    assert head_only.lr > partial.lr > full.lr
    assert scratch.epochs > full.epochs


@pytest.mark.parametrize(("n", "size"), [(1, 8), (7, 8), (9, 8), (100, 16), (17, 16)])
def test_batches_are_nearly_equal(n, size):
    """Batches differ by at most one example, so that no last batch of one breaks batch norm."""
    batches = regimes.NewOnly().batches(n, 0, size, np.random.default_rng(0))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
