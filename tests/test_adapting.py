"""Tensors that a freeze strategy adds to the trained stages while they train."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrize

from zoo_core import fit, heads, hookimpl
from zoo_core.adapting import adapted
from zoo_core.errors import UnstagedTensor
from zoo_core.files import read_json
from zoo_core.plugins import discover
from zoo_core.runs import Run
from zoo_core.types import FreezePlan, Phase, Task

PLAN = FreezePlan((Phase(1, only="added"),), "Scales train.")
SCHEDULE = fit.Schedule(epochs=2, batch_size=8, lr=1e-2)


class Scale(nn.Module):
    """A factor for each output of a layer."""

    def __init__(self, weight):
        super().__init__()
        self.factor = nn.Parameter(weight.new_ones(len(weight)))

    def forward(self, weight):
        return weight * self.factor.view(-1, *[1] * (weight.ndim - 1))


@dataclass(frozen=True)
class Scaled:
    """Scale the outputs of each layer after the first stage."""

    only: str = "added"

    def plan(self, stages, task):
        return FreezePlan((Phase(1, only=self.only),), PLAN.reason)

    def adapt(self, stages):
        layers = [m for s in stages for m in s.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for layer in layers:
            parametrize.register_parametrization(layer, "weight", Scale(layer.weight))
        return lambda: [parametrize.remove_parametrizations(layer, "weight") for layer in layers]


@pytest.fixture
def scaling():
    """The core, the tiny backbone and the strategy `scaled`, installed like any other."""
    import zoo_tiny

    module = ModuleType("zoo_scaled")
    module.zoo_freeze_strategies = hookimpl(lambda: {"scaled": Scaled}, specname="zoo_freeze_strategies")
    return discover([point("tiny", zoo_tiny), point("scaled", module)], {})


def point(name, module):
    """An entry point, as an installed package has it."""
    dist = SimpleNamespace(name=f"zoo-{name}", version="1.0")
    return SimpleNamespace(name=name, value=module.__name__, dist=dist, load=lambda: module)


def groups_of(body, phase):
    """What the optimiser would train, head included."""
    model = fit.Model(body, heads.Linear().build(32, Task("", ("a", "b"), ())), heads.Linear(), PLAN)
    return model, {id(p) for group in fit.parameter_groups(model, phase, SCHEDULE) for p in group["params"]}


def test_a_strategy_without_adapt_changes_nothing(tiny):
    """Where nothing is added, stages and tensors are as ever."""
    stages = tiny.stages
    with adapted(SimpleNamespace(), tiny, PLAN):
        assert tiny.stages is stages


def test_added_tensors_belong_to_their_stage(tiny):
    """While it trains, a stage lists what was added to it beside what it had; afterwards it is as before."""
    names, stages = set(tiny.model.state_dict()), tiny.stages
    with adapted(Scaled(), tiny, PLAN):
        assert [len(stage.added) for stage in tiny.stages] == [0, 1, 1]
        assert [info.added_parameters for info in tiny.info()] == [0, 16, 32]
        assert PLAN.parameters(tiny.info()) == 16 + 32
        assert tiny.stages[1].added[0].endswith("parametrizations.weight.0.factor")
    assert tiny.stages is stages
    assert set(tiny.model.state_dict()) == names


@pytest.mark.parametrize(("only", "own"), [("added", 0), ("norm", 2 * 16), ("bias", 16 + 16 + 32)])
def test_what_was_added_always_trains(tiny, only, own):
    """`added` trains what was added alone; the other choices train it beside upstream's."""
    with adapted(Scaled(), tiny, PLAN):
        phase = Phase(1, only=only)
        model, grouped = groups_of(tiny, phase)
        added = [p for i in (1, 2) for p in tiny.stage_parameters(i, "added").values()]
        assert sum(p.numel() for p in added) == 48
        assert {id(p) for p in (*added, *model.head.parameters())} <= grouped
        chosen = [p for i in (1, 2) for p in tiny.stage_parameters(i).values() if id(p) in grouped]
        assert sum(p.numel() for p in chosen) == 48 + own


def test_trained_tensors_are_put_back(tiny):
    """The best epoch's tensors, added ones too, are kept and put back by name."""
    with adapted(Scaled(), tiny, PLAN):
        model, _ = groups_of(tiny, PLAN.phases[0])
        best = {name: t.detach().clone() for name, t in model.trained(1).items()}
        assert sum("factor" in name for name in best) == 2
        for parameter in tiny.stage_parameters(2, "added").values():
            nn.init.zeros_(parameter)
        model.restore(best)
        assert all(torch.equal(model.trained(1)[name], t) for name, t in best.items())


def test_a_stopped_training_is_merged(tiny):
    """An error in the training leaves the backbone with upstream's names."""
    names = set(tiny.model.state_dict())
    with pytest.raises(KeyboardInterrupt), adapted(Scaled(), tiny, PLAN):
        raise KeyboardInterrupt
    assert set(tiny.model.state_dict()) == names


@pytest.mark.parametrize(
    ("adapt", "message"),
    [
        (lambda stages: stages[0].register_parameter("extra", nn.Parameter(torch.ones(1))) or int, "holds .*extra"),
        (lambda stages: lambda: delattr(stages[0][0], "bias"), "took .*bias away; expected it back after the merge"),
    ],
)
def test_a_merge_leaves_no_trace(tiny, adapt, message):
    """What a merge leaves behind or takes away is an error with its name."""
    with pytest.raises(UnstagedTensor, match=message), adapted(SimpleNamespace(adapt=adapt), tiny, PLAN):
        pass


def test_a_run_knows_nothing_of_adapters(make, scaling, plugins, tiny):
    """A run with adapters has upstream's names, and predicts where the strategy is not installed."""
    run = make(plugins=scaling, freeze="scaled", folds=2)
    assert run.summary["frozen_digest_before"] == run.summary["frozen_digest_after"]
    assert run.summary["freeze"]["parameters_trained"] == 48
    assert read_json(run.path / "plan.json")["phases"][0]["only"] == "added"
    saved = {n for n in load_file(run.path / "model.safetensors") if n.startswith("backbone.")}
    assert saved == {f"backbone.{n}" for n in tiny.tensors(1)}
    photo = run.path / "../photos/red/00.png"
    (answer,), (again,) = run.predict([photo]), Run(run.path, plugins).predict([photo])
    assert answer.probabilities == again.probabilities


def test_folds_start_anew(make, scaling):
    """Each fold adapts the published weights: asking for folds changes nothing in the run itself."""
    alone, repeated = make("a", plugins=scaling, freeze="scaled"), make("b", plugins=scaling, freeze="scaled", folds=2)
    assert (alone.path / "model.safetensors").read_bytes() == (repeated.path / "model.safetensors").read_bytes()
    assert repeated.summary["repeats"]["folds"] == 2
