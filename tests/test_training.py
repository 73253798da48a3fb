"""Options of the tail's training: each does what it says, and is off unless asked for."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from zoo_core import fit, rates, stepping, training
from zoo_core.averaging import Average
from zoo_core.backbone import Backbone, Stage
from zoo_core.card import Card
from zoo_core.console import Console
from zoo_core.errors import BadOption
from zoo_core.heads import Linear
from zoo_core.mixing import mixed
from zoo_core.portions import cut
from zoo_core.regimes import NewOnly
from zoo_core.training import Training
from zoo_core.types import FreezePlan, Phase, Task

TASK = Task("made up", ("a", "b", "c"), ())
SCHEDULE = fit.Schedule(epochs=4, batch_size=8, lr=1e-2)
MAPS = torch.randn(48, 4, 6, 6, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(48) % 3
VALUES = MAPS + LABELS[:, None, None, None]
NAMES = [str(i) for i in range(48)]
TRAIN, VAL = fit.Side(NAMES[:36], LABELS[:36]), fit.Side(NAMES[36:], LABELS[36:])


def boundary(names):
    """What a store would give at the cut: maps [B, 4, 6, 6]."""
    return VALUES[[int(n) for n in names]]


def model_of():
    """One stage that trains behind the cut, and a head."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Identity(), nn.Sequential(nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    stages = [Stage("in", net[0], ()), Stage("conv", net[1], ("1.0.weight", "1.0.bias"))]
    body = Backbone(Card("t/one", "t", "one"), net, stages, 5)
    return fit.Model(body, Linear().build(5, TASK), Linear(), FreezePlan((Phase(1),), "why"))


def run(schedule=SCHEDULE, train=TRAIN, val=VAL, **options):
    """Train; the trained tensors as one vector, and the history."""
    model = model_of()
    schedule = replace(schedule, training=Training(**options))
    history = fit.fit(model, NewOnly(), schedule, boundary, train, val, 0, Console())
    return torch.cat([t.flatten() for t in model.trained(1).values()]), history


def test_passes_add_up_to_the_batch():
    """A batch that passes the tail in parts trains as it would whole, whatever the size of the parts."""
    whole = run()[0]
    for size in (1, 3, 5):
        torch.testing.assert_close(run(micro_batch=size)[0], whole, rtol=1e-4, atol=1e-5)
    assert [s.stop - s.start for s in cut(8, 3)] == [3, 2, 3]


def test_a_long_gradient_is_scaled_down():
    """With `clip` no step sees a gradient longer than asked; one that is shorter stays as it is."""
    model = model_of()
    for most in (1e-3, 1e6):
        schedule = replace(SCHEDULE, training=Training(clip=most))
        groups = fit.parameter_groups(model, model.plan.phases[0], schedule)
        optimiser = torch.optim.SGD(groups, lr=0.0)
        lengths = []
        for options in (Training(), Training(clip=most)):
            schedule = replace(SCHEDULE, training=options)
            stepping.step(model, optimiser, schedule, boundary, NAMES[:8], LABELS[:8], 0.0)
            gradients = [p.grad for group in groups for p in group["params"]]
            lengths.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        assert lengths[1] == pytest.approx(min(lengths[0], most), rel=1e-3)


def test_the_average_of_the_weights_is_kept():
    """With `ema` validation and the run see the average of the weights, which a direct count agrees with."""
    seen, weight = [], nn.Parameter(torch.zeros(2))
    average, expected = Average([weight], 0.5), torch.zeros(2)
    for step in range(1, 9):
        with torch.no_grad():
            weight += step
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
    with average.in_place():
        seen.append(weight.detach().clone())
    torch.testing.assert_close(seen[0], expected)
    assert torch.equal(weight.detach(), torch.full((2,), 36.0))
    plain, averaged = run(), run(ema=0.9)
    assert [h["train_loss"] for h in plain[1]] == [h["train_loss"] for h in averaged[1]]
    assert [h["val_loss"] for h in plain[1]] != [h["val_loss"] for h in averaged[1]]
    assert not torch.equal(plain[0], averaged[0])


def test_patience_ends_a_phase_and_keeps_the_best():
    """Training ends so many epochs after the last fall of the validation loss, with the weights of that epoch."""
    wild = replace(SCHEDULE, epochs=60, lr=0.5)
    patient, stopped = run(wild)[1], run(wild, patience=3)
    losses = [h["val_loss"] for h in stopped[1]]
    assert len(losses) < len(patient)
    assert losses.index(min(losses)) == len(losses) - 4
    assert losses == [h["val_loss"] for h in patient[: len(losses)]]
    model = model_of()
    names = [t.numel() for t in model.trained(1).values()]
    values = stopped[0].split(names)
    model.restore({n: v.view_as(t) for (n, t), v in zip(model.trained(1).items(), values, strict=True)})
    loss = Linear().loss(model.outputs(boundary, VAL.digests), VAL.labels).mean()
    assert float(loss) == pytest.approx(min(losses))


def test_mixup_mixes_values_and_targets_alike():
    """A mixed example's loss is that of the mixed target, which cross-entropy gives for soft labels."""
    torch.manual_seed(1)
    marks = torch.eye(8)[:, :, None, None].expand(8, 8, 2, 2)
    value, loss = mixed(marks, torch.arange(8), Linear().loss, Training(mixup=1.0))
    outputs = torch.randn(8, 8)
    soft = value[:, :, 0, 0]
    torch.testing.assert_close(loss(outputs), nn.functional.cross_entropy(outputs, soft, reduction="none"))
    assert not torch.equal(value, marks)


def test_cutmix_weighs_by_area():
    """A rectangle comes from another example, and the target gets its share of the area."""
    torch.manual_seed(5)
    marks = torch.eye(8)[:, :, None, None].expand(8, 8, 6, 6)
    value, loss = mixed(marks, torch.arange(8), Linear().loss, Training(cutmix=1.0))
    outputs = torch.randn(8, 8)
    assert set(value.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(value, marks)
    soft = value.mean((2, 3))
    torch.testing.assert_close(loss(outputs), nn.functional.cross_entropy(outputs, soft, reduction="none"))


def test_noise_is_a_share_of_the_value():
    """Noise has the asked share of the value's own spread, and mean zero."""
    value, _ = mixed(VALUES, LABELS, Linear().loss, Training(noise=0.2))
    noise = value - VALUES
    assert float(noise.std() / VALUES.std()) == pytest.approx(0.2, rel=0.05)
    assert abs(float(noise.mean())) < 0.02


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"noise": 0.1}, {"mixup": 0.2, "cutmix": 0.5}])
def test_mixing_learns_and_repeats(options):
    """Mixing behind the cut learns the task, and the same seed gives the same bits."""
    first, again = run(**options), run(**options)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], run()[0])
    assert first[1][-1]["val_loss"] < first[1][0]["val_loss"]


def test_cutmix_needs_a_map():
    """Behind the pool there is no map to cut from, and the error says what to do."""
    with pytest.raises(BadOption, match=r"needs one map .* but \[8, 5\] enters the tail. Give mixup"):
        mixed(torch.randn(8, 5), LABELS[:8], Linear().loss, Training(cutmix=1.0))


def test_numbers_alone_can_be_mixed():
    """Indices and masks, as texts have them, cannot be mixed, and the error says so."""
    with pytest.raises(BadOption, match="holds indices or masks"):
        mixed((torch.randn(4, 3), torch.ones(4, 3, dtype=torch.bool)), LABELS[:4], Linear().loss, Training(mixup=0.2))


def test_the_range_test_finds_a_rate_that_trains():
    """The rate found lies well below where the loss rises, and training with it is better than at a hundredth."""
    found = rates.find(model_of(), NewOnly(), SCHEDULE, boundary, TRAIN, 0)
    assert found.rates[0] == rates.LOWEST
    assert rates.LOWEST < found.rate < max(found.rates)
    assert found.rate == pytest.approx(found.rates[int(np.argmin(found.losses))] / rates.BELOW, rel=0.05)
    good, slow = (run(replace(SCHEDULE, lr=lr))[1][-1]["train_loss"] for lr in (found.rate, found.rate / 100))
    assert good < slow
    assert math.isfinite(good)


def test_options_reach_a_run(make):
    """The options are part of the recipe, and the run says what it did with them."""
    run = make(freeze="last:1", epochs=30, training="patience=2,ema=0.9,clip=1,micro_batch=4,mixup=0.2,find_lr")
    assert run.recipe.training.endswith("find_lr")
    schedule = run.summary["schedule"]
    assert schedule["training"]["micro_batch"] == 4
    assert schedule["epochs_run"] <= 30
    assert schedule["lr"] != make("plain", freeze="last:1", epochs=1).summary["schedule"]["lr"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"training": "clipp=1"}, r"--training clipp=1: no such field. Did you mean clip\?"),
        ({"training": "ema=1"}, r"ema=1, expected 0 \(off\) up to"),
        ({"training": "patience=two"}, r"--training patience: got 'two', expected int"),
        ({"training": "mixup=-1"}, r"mixup=-1, expected 0 \(off\) or more"),
        ({"training": "find_lr", "lr": 0.1}, "looks for the rate that --lr 0.1 gives"),
        ({"training": "patience=2", "val_share": 0.0}, "needs validation examples"),
        ({"training": "clip=1", "head": "multi-stage"}, "is solved at once, not trained"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for(make, fields, message):
    """Each mistake says what was given, what is expected, and what to type."""
    with pytest.raises(BadOption, match=message):
        make(**fields)


def test_all_off():
    """Without a word nothing is changed: the value and the loss are what they were."""
    value, loss = mixed(VALUES, LABELS, SimpleNamespace(loss=lambda o, _: o).loss, training.read(""))
    assert value is VALUES
    assert loss(VALUES) is VALUES
